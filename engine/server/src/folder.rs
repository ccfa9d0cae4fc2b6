//! The data folder: one process holds it, and it says on which ports that process listens.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

const PORTS: &str = "ports.json";

/// The ports of the services that run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Ports {
    /// Takes events in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<u16>,
    /// Answers queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<u16>,
    /// Delivers webhooks, and says what became of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<u16>,
    /// The embedded MQTT broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<u16>,
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
                    "the data folder {} is in use by another cornjacket ({}): end it, or use another folder with \
                     --data-dir",
                    path.display(),
                    who(holder.trim())
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} cannot be locked", file.display()));
            }
        }
        match sign(&mut lock) {
            // The number is only for messages, and a full disk is no reason not to start.
            Err(error) if error.kind() != ErrorKind::StorageFull => {
                return Err(error).with_context(|| format!("{} cannot be written", file.display()));
            }
            _ => {}
        }
        let folder = Self { path: path.to_path_buf(), _lock: lock };
        // What a process left that was killed says nothing of this one.
        folder.forget_ports();
        Ok(folder)
    }

    /// Says on which ports the services listen: all of the file is there or none. On a full disk it is tried again until
    /// there is room, or the task that is given back is aborted.
    pub fn publish_ports(&self, ports: Ports) -> Result<Option<JoinHandle<()>>> {
        let (file, text) = (self.path.join(PORTS), serde_json::to_string(&ports)?);
        match publish(&file, &text) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                tracing::warn!(
                    file = %file.display(),
                    "the disk is full, so other commands cannot look up the ports: give them --url until there is room"
                );
                Ok(Some(tokio::spawn(async move {
                    while publish(&file, &text).is_err() {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                })))
            }
            Err(error) => Err(error).with_context(|| format!("{} cannot be written", file.display())),
        }
    }

    /// Takes that back.
    pub fn forget_ports(&self) {
        let _ = std::fs::remove_file(self.path.join(PORTS));
    }
}

/// Writes the process's number over the last one's, which also works on a full disk.
fn sign(lock: &mut File) -> std::io::Result<()> {
    let number = std::process::id().to_string();
    lock.rewind()?;
    lock.write_all(number.as_bytes())?;
    lock.set_len(number.len() as u64)
}

fn publish(file: &Path, text: &str) -> std::io::Result<()> {
    let draft = file.with_extension("json.new");
    let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, file));
    if written.is_err() {
        // Half a draft is of no use to anyone.
        let _ = std::fs::remove_file(&draft);
    }
    written
}

/// Who holds a folder. The last process to run there has left its number; who only looks leaves none.
fn who(process: &str) -> String {
    if Path::new("/proc/self").exists() && !Path::new("/proc").join(process).exists() {
        return "`cornjacket check --data` looks at it".into();
    }
    format!("process {process}")
}

/// Keeps every process from taking hold of a folder for as long as this is kept.
pub struct ReadLock(#[allow(dead_code, reason = "it is held, not read")] File);

/// Keeps a folder from being held, without changing it: `Err` with the process that holds it, `None` if it was never held.
pub fn holder(folder: &Path) -> std::io::Result<Result<Option<ReadLock>, String>> {
    let mut lock = match File::open(folder.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ok(None)),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Ok(Some(ReadLock(lock)))),
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            lock.read_to_string(&mut process)?;
            Ok(Err(process.trim().to_string()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The ports of the process that holds a folder.
pub fn ports_of(folder: &Path) -> Option<Ports> {
    let text = std::fs::read_to_string(folder.join(PORTS)).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_holds_a_folder_and_its_ports() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made/on/the/way");
        let held = DataFolder::hold(&path).expect("held");
        held.publish_ports(Ports { ingest: Some(1), query: Some(2), ..Ports::default() }).expect("written");
        assert_eq!(ports_of(&path).map(|ports| (ports.ingest, ports.query)), Some((Some(1), Some(2))));

        let refused = DataFolder::hold(&path).err().expect("refused").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.contains(&path.display().to_string()), "{refused}");
        assert!(ports_of(&path).is_some(), "a second one must not take the first one's ports away");

        // As after kill -9: the ports are there and nobody holds the folder.
        drop(held);
        let _held = DataFolder::hold(&path).expect("held again");
        assert!(ports_of(&path).is_none());
    }
}
