//! Connections: how a file is opened, brought up to date and read from many threads.

use std::path::{Path, PathBuf};

use cornjacket_core::{Error, Result};
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::place::or_full;

/// How many pages the write-ahead log may grow to before it is folded into the file. The connection that commits does that:
/// under load another one could not begin the log anew without holding commits up as long.
const CHECKPOINT_PAGES: u32 = 4_000;
/// How long a statement waits for another process or checkpoint that holds the file, in ms.
pub(super) const BUSY_MS: u32 = 5_000;
/// How long the folding of a write-ahead log waits for readers, in ms.
const FOLD_MS: u32 = 200;
/// Read connections that are kept open while nobody uses them.
const IDLE_READERS: usize = 8;

/// How long the write-ahead log may stay when it is begun anew, in bytes.
const JOURNAL_BYTES: u64 = super::place::WAL_BYTES;

/// Opens a file for writing and applies the migrations that it has not seen; the first has number 1.
pub(super) fn open_writer(path: &Path, migrations: &[&str]) -> Result<Connection> {
    open(path, migrations).map_err(|error| or_full(path, error))
}

fn open(path: &Path, migrations: &[&str]) -> Result<Connection> {
    let mut connection = Connection::open(path).map_err(|error| named(path, storage_error(error)))?;
    let pragmas = format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout={BUSY_MS};
         PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}; PRAGMA journal_size_limit={JOURNAL_BYTES};
         PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16000;"
    );
    connection.execute_batch(&pragmas).map_err(|error| named(path, storage_error(error)))?;
    migrate(&mut connection, path, migrations).map_err(|error| named(path, error))?;
    Ok(connection)
}

/// The same error with the file that it is about, unless it names it already.
pub(super) fn named(path: &Path, error: Error) -> Error {
    let file = path.display().to_string();
    let with = |text: String| if text.contains(&file) { text } else { format!("{file}: {text}") };
    match error {
        Error::Corrupt(text) => Error::Corrupt(with(text)),
        Error::Unavailable(text) => Error::Unavailable(with(text)),
        Error::Full(text) => Error::Full(with(text)),
        // A stream of rows that Arrow cannot make sense of is damaged.
        Error::Arrow(error) => Error::Corrupt(with(error.to_string())),
        other => other,
    }
}

/// Folds the write-ahead log into the file, unless somebody reads: nothing is lost if it stays.
pub(super) fn fold_now(connection: &Connection, path: &Path) {
    let folded = connection.execute_batch(&format!("PRAGMA busy_timeout={FOLD_MS}; PRAGMA wal_checkpoint(TRUNCATE);"));
    let restored = connection.execute_batch(&format!("PRAGMA busy_timeout={BUSY_MS};"));
    if let Err(error) = folded.and(restored) {
        tracing::debug!(%error, file = %path.display(), "the write-ahead log was not folded");
    }
}

fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<()> {
    let seen: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(storage_error)?;
    if seen > migrations.len() {
        return Err(Error::Conflict(format!(
            "{} was written by a newer version of Cornjacket (format {seen}, this one knows {}): use that version",
            path.display(),
            migrations.len()
        )));
    }
    if seen == migrations.len() {
        return Ok(());
    }
    let transaction = connection.transaction().map_err(storage_error)?;
    for migration in &migrations[seen..] {
        transaction.execute_batch(migration).map_err(storage_error)?;
    }
    transaction.pragma_update(None, "user_version", migrations.len()).map_err(storage_error)?;
    transaction.commit().map_err(storage_error)
}

/// What a `SQLite` error means to the caller. Only what waiting may help is worth another try: a table that is missing or a
/// rule that is broken stays so.
#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(super) fn storage_error(error: rusqlite::Error) -> Error {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full(text),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationAborted
            | ErrorCode::OperationInterrupted
            | ErrorCode::SchemaChanged,
        ) => Error::Unavailable(text),
        Some(ErrorCode::TooBig) => Error::Compute(text),
        _ => Error::Corrupt(text),
    }
}

/// Read connections to one file.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::new(Vec::new()) }
    }

    /// Lends a read connection. One that an error came from is not used again.
    pub(super) fn read<T>(&self, use_it: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let connection = match self.idle.lock().pop() {
            Some(connection) => connection,
            None => self.open().map_err(|error| named(&self.path, error))?,
        };
        let outcome = use_it(&connection).map_err(|error| named(&self.path, error))?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_READERS {
            idle.push(connection);
        }
        Ok(outcome)
    }

    fn open(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(storage_error)?;
        connection.execute_batch(&format!("PRAGMA busy_timeout={BUSY_MS};")).map_err(storage_error)?;
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Older ones may lose commits when two connections fold a write-ahead log (<https://sqlite.org/wal.html>): a tool that
    /// has the file open may be the second.
    #[test]
    fn sqlite_has_no_wal_reset_bug() {
        let connection = Connection::open_in_memory().expect("opens");
        let version: String = connection.query_row("SELECT sqlite_version()", [], |row| row.get(0)).expect("a version");
        let parts: Vec<u32> = version.split('.').map(|part| part.parse().expect("a number")).collect();
        assert!(
            parts >= vec![3, 51, 3],
            "{version} has the WAL-reset bug: choose a rusqlite that bundles 3.51.3 or newer"
        );
    }
}
