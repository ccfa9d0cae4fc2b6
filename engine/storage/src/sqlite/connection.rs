//! Connections: how a file is opened, brought up to date and read from many threads.

use std::path::{Path, PathBuf};

use cornjacket_core::{Error, Result};
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// How many pages the write-ahead log may grow to before it is folded into the file.
const CHECKPOINT_PAGES: u32 = 4_000;
/// How long a statement waits for another process or checkpoint that holds the file, in ms.
const BUSY_MS: u32 = 5_000;
/// Read connections that are kept open while nobody uses them.
const IDLE_READERS: usize = 8;

/// Opens a file for writing and applies the migrations that it has not seen; the first has number 1.
pub(super) fn open_writer(path: &Path, migrations: &[&str]) -> Result<Connection> {
    let mut connection = Connection::open(path).map_err(storage_error)?;
    let pragmas = format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout={BUSY_MS};
         PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16000;"
    );
    connection.execute_batch(&pragmas).map_err(storage_error)?;
    migrate(&mut connection, path, migrations)?;
    Ok(connection)
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

/// What a `SQLite` error means to the caller.
#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(super) fn storage_error(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full(error.to_string()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) | None => Error::Corrupt(error.to_string()),
        Some(_) => Error::Unavailable(error.to_string()),
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
            None => self.open()?,
        };
        let outcome = use_it(&connection)?;
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
