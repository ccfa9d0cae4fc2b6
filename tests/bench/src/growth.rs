//! Whether a process that has stored much is slower than one that has stored nothing: taking events in, and asking for a
//! row by its key.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cornjacket_core::log::Notes;
use cornjacket_storage::open_embedded;

use crate::client::Connection;
use crate::http::{load, runtime};
use crate::latest::{PIPELINE, compiled};
use crate::measure::{Comparison, Sizes, interleaved, progress};
use crate::process::{Process, folder};
use crate::world::{COMMIT_ROWS, environment, events_from};

/// Devices that have a row in the projection.
const DEVICES: usize = 10_000;
/// Connections of the load.
const CONNECTIONS: usize = 64;
/// Threads that ask.
const ASKING: usize = 4;
/// Commits that are made before they are appended.
const COMMITS: usize = 16;

/// An event to wait for, older than all others.
const LAST: &str = r#"{"event_type":"sensor.reading","aggregate_id":"last","event_time":"2025-01-01T00:00:00Z","payload":{"value":0,"unit":"celsius"}}"#;

pub fn growth(sizes: &Sizes, runs: usize) -> Result<Vec<(&'static str, Comparison)>> {
    let stored = if sizes.small { 100_000 } else { 50_000_000 };
    let full = filled(sizes, stored)?;
    let empty = filled(sizes, DEVICES)?;
    let (runtime, time) = (runtime()?, sizes.time(4));
    let (ours, floor) = (full.port("ingest")?, empty.port("ingest")?);
    let take = |port| runtime.block_on(load(port, CONNECTIONS, time)).map(|(rate, _)| rate);
    take(ours)?;
    take(floor)?;
    let mut taking = interleaved(("events/s", 0.9), runs, || take(ours), || take(floor))?;
    taking.note = format!("with {stored} events stored, against {DEVICES}");
    for process in [&full, &empty] {
        process.settle(LAST)?;
    }
    let (ours, floor) = (full.port("query")?, empty.port("query")?);
    ask(ours, time)?;
    ask(floor, time)?;
    let mut asking = interleaved(("queries/s", 0.9), runs, || ask(ours, time), || ask(floor, time))?;
    asking.note = format!("a row of {DEVICES} by its key, {ASKING} connections");
    Ok(vec![("ingest", taking), ("query", asking)])
}

/// A process whose log holds this many events, and which has worked them off.
fn filled(sizes: &Sizes, stored: usize) -> Result<Process> {
    let (folder, pipeline) = (folder()?, compiled()?);
    let file = folder.path().join("bench.yaml");
    std::fs::write(&file, PIPELINE)?;
    let (data, environment) = (folder.path().join("data"), environment());
    let catalogue = std::sync::Arc::clone(&pipeline.catalogue);
    let storage = open_embedded(&data, catalogue, (&pipeline.name, &pipeline.version), &environment)?;
    let event_type = &pipeline.catalogue.types["sensor.reading"];
    let shown = progress(stored as u64, "events stored");
    for first in (0..stored).step_by(COMMITS * COMMIT_ROWS) {
        let end = (first + COMMITS * COMMIT_ROWS).min(stored);
        // One commit of many batches: it is synced once.
        storage.log.append(&events_from(event_type, first..end, DEVICES), &Notes::default())?;
        shown.set_position(end as u64);
    }
    shown.finish_and_clear();
    drop(storage);
    let process = Process::start_in(sizes, &file, folder)?;
    process.settle(LAST)?;
    Ok(process)
}

/// Asks for rows by their keys for a time; gives answers in a second.
fn ask(port: u16, time: Duration) -> Result<f64> {
    let started = Instant::now();
    let one = &|number: usize| -> Result<usize> {
        let (mut connection, mut count) = (Connection::open(port)?, 0);
        while started.elapsed() < time {
            let device = (number + count * 7_919) % DEVICES;
            let answer = connection.get(&format!("/api/v1/projections/newest/device-{device}"))?;
            ensure!(answer.status == 200, "no row: {}", answer.text());
            count += 1;
        }
        Ok(count)
    };
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ASKING).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<Result<usize>>()
    })?;
    #[allow(clippy::cast_precision_loss, reason = "answers in a second, for people")]
    Ok(counts as f64 / started.elapsed().as_secs_f64())
}
