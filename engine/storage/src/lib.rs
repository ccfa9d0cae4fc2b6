//! Outbox, event store, bus, projections, epochs, snapshots and dead letters.
//!
//! [`sqlite`] is the embedded backend: two files in the data folder, one for the log and one for everything else, since
//! a `SQLite` file has one writer. [`sim`] keeps the same in memory and only what was made durable survives its crashes:
//! the storage of simulations and tests. Both pass the same behavioural tests.

pub mod key;
pub mod sim;
pub mod sqlite;

mod block;
mod split;

use std::path::Path;
use std::sync::Arc;

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::environment::Environment;
use cornjacket_core::store::Storage;
use cornjacket_core::{Error, Result};

pub use key::{key_columns, key_text, parse_key};
pub use sqlite::{SqliteLog, SqliteStore, read_schema};

/// Opens the embedded storage of a pipeline in a folder, which is made if it is not there.
///
/// # Errors
/// [`Error::Conflict`] when what is stored contradicts the catalogue or was written by a newer version;
/// [`Error::Unavailable`] when the folder cannot be used.
pub fn open_embedded(
    folder: &Path,
    catalogue: Arc<Catalogue>,
    pipeline: &str,
    environment: &Environment,
) -> Result<Storage> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Error::Unavailable(format!("the data folder {}: {error}", folder.display())))?;
    let log = SqliteLog::open(folder, catalogue, environment.clone())?;
    let store = SqliteStore::open(folder, pipeline)?;
    Ok(Storage { log: Arc::new(log), store: Arc::new(store) })
}
