//! Where a file lies: whether it is still the one that was opened, whether its disk has room, and how long its
//! write-ahead log is.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cornjacket_core::{Error, Result};
use rusqlite::Connection;

use super::connection::fold_now;

const MIB: u64 = 1024 * 1024;
/// Room that is left to the engine: its epochs, snapshots and the folding of the write-ahead logs.
const RESERVE_BYTES: u64 = 64 * MIB;
/// The reserve is at most this part of a small disk.
const RESERVE_PART: u64 = 20;
/// A write-ahead log longer than this is folded even if readers have to be waited for.
pub(super) const WAL_BYTES: u64 = 64 * MIB;

/// A file of the data folder.
pub(super) struct Place {
    path: PathBuf,
    wal: PathBuf,
    /// Device and number of the file that was opened.
    opened: (u64, u64),
    /// The length of the write-ahead log from which on it is folded.
    fold_from: AtomicU64,
}

impl Place {
    /// The place of a file that is there.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let opened = identity(path).map_err(|error| Error::Unavailable(format!("{}: {error}", path.display())))?;
        Ok(Self { path: path.into(), wal: wal_of(path), opened, fold_from: AtomicU64::new(WAL_BYTES) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is written to a file that was deleted or replaced is gone with the process.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when that happened.
    pub(super) fn is_there(&self) -> Result<()> {
        if identity(&self.path).is_ok_and(|now| now == self.opened) {
            return Ok(());
        }
        let path = self.path.display();
        Err(Error::Corrupt(format!(
            "{path} was deleted or replaced while it was in use, and nothing more can be kept in it"
        )))
    }

    /// Whether the disk has more room than what is kept for the engine: `min_free` bytes, or else 64 MiB or a twentieth
    /// of a small disk.
    ///
    /// # Errors
    /// [`Error::Full`] when it has not.
    pub(super) fn has_room(&self, min_free: Option<u64>) -> Result<()> {
        // A disk that does not tell is tried.
        let Ok(disk) = rustix::fs::statvfs(&self.path) else { return Ok(()) };
        let (free, size) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
        let reserve = min_free.unwrap_or_else(|| RESERVE_BYTES.min(size / RESERVE_PART));
        if free > reserve {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(&self.path).display();
        Err(Error::Full(format!(
            "the disk of {folder} has {} left, and {} are kept free for working off what is stored already",
            human(free),
            human(reserve)
        )))
    }

    /// Folds a write-ahead log that readers have kept from being begun anew. What cannot be done now is tried again when
    /// it has grown further.
    pub(super) fn fold(&self, connection: &Connection) {
        let length = std::fs::metadata(&self.wal).map_or(0, |found| found.len());
        if length < self.fold_from.load(Ordering::Relaxed) {
            return;
        }
        fold_now(connection, &self.path);
        let left = std::fs::metadata(&self.wal).map_or(0, |found| found.len());
        self.fold_from.store(left + WAL_BYTES, Ordering::Relaxed);
    }
}

/// A disk with less room than this cannot take the index of a write-ahead log, without which no file is opened.
const LEAST_BYTES: u64 = 128 * 1024;

/// The same error, or that the disk is full where that is why.
pub(super) fn or_full(path: &Path, error: Error) -> Error {
    let Ok(disk) = rustix::fs::statvfs(path.parent().unwrap_or(path)) else { return error };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if !matches!(error, Error::Unavailable(_) | Error::Full(_)) || free >= LEAST_BYTES {
        return error;
    }
    Error::Full(format!(
        "the disk has {} left, and {} are needed to open {}: make room",
        human(free),
        human(LEAST_BYTES),
        path.display()
    ))
}

/// The write-ahead log that belongs to a file.
pub(super) fn wal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

fn human(bytes: u64) -> String {
    if bytes >= 10 * MIB { format!("{} MiB", bytes / MIB) } else { format!("{} KiB", bytes / 1024) }
}
