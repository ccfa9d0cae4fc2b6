//! What the disk can do: how often in a second something can be appended to a file and made durable.
//!
//! No process that answers only when events are durable can commit more often than this, though a commit may hold many.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::figures::{Percentiles, Times, per_second};

/// Bytes that are appended at a time: a page.
const BYTES: usize = 4_096;

/// What a disk did.
#[derive(Debug, Serialize)]
pub(super) struct Disk {
    pub(super) syncs_per_second: f64,
    #[serde(flatten)]
    pub(super) times: Percentiles,
}

/// Appends to a file in a folder and syncs it, again and again for some time.
pub(super) fn measure(folder: &Path, time: Duration) -> anyhow::Result<Disk> {
    let path = folder.join("syncs");
    let told = || format!("{} cannot be written", path.display());
    let mut file = OpenOptions::new().append(true).create_new(true).open(&path).with_context(told)?;
    let (began, mut times) = (Instant::now(), Times::default());
    while began.elapsed() < time {
        let started = Instant::now();
        file.write_all(&[7; BYTES]).and_then(|()| file.sync_data()).with_context(told)?;
        times.add(started.elapsed());
    }
    let syncs_per_second = per_second(times.len() as u64, began.elapsed());
    drop(file);
    std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
    Ok(Disk { syncs_per_second, times: times.percentiles() })
}
