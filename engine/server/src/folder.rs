//! The data folder: one process holds it, and it says on which ports that process listens.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

const PORTS: &str = "ports.json";

/// The ports of the services that run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// Takes events in.
    pub ingest: u16,
    /// Answers queries.
    pub query: u16,
}

/// A data folder that this process holds until it ends.
pub struct DataFolder {
    path: PathBuf,
    /// Holds the lock; the system lets go of it however the process ends.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is not there, and takes hold of it.
    pub fn hold(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("the data folder {} cannot be made", path.display()))?;
        let file = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .with_context(|| format!("the data folder {} cannot be written", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is only for the message.
                let _ = lock.read_to_string(&mut holder);
                bail!(
                    "the data folder {} is in use by another cornjacket (process {}): end it, or use another folder with \
                     --data-dir",
                    path.display(),
                    holder.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} cannot be locked", file.display()));
            }
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .context("the lock file cannot be written")?;
        let folder = Self { path: path.to_path_buf(), _lock: lock };
        // What a process left that was killed says nothing of this one.
        folder.forget_ports();
        Ok(folder)
    }

    /// Says on which ports the services listen: all of the file is there or none.
    pub fn publish_ports(&self, ports: Ports) -> Result<()> {
        let (file, draft) = (self.path.join(PORTS), self.path.join("ports.json.new"));
        std::fs::write(&draft, serde_json::to_string(&ports)?)
            .and_then(|()| std::fs::rename(&draft, &file))
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    /// Takes that back.
    pub fn forget_ports(&self) {
        let _ = std::fs::remove_file(self.path.join(PORTS));
    }
}

/// The ports of the process that holds a folder.
pub fn ports_of(folder: &Path) -> Option<Ports> {
    let text = std::fs::read_to_string(folder.join(PORTS)).ok()?;
    serde_json::from_str(&text).ok()
}
