//! Outbox, event store, bus, projections, epochs, snapshots and dead letters.
//!
//! [`sqlite`] is the embedded backend: two files in the data folder, one for the log and one for everything else, since
//! a `SQLite` file has one writer. [`sim`] keeps the same in memory and only what was made durable survives its crashes:
//! the storage of simulations and tests. Both pass the same behavioural tests.

pub mod key;
pub mod sim;
pub mod sqlite;

mod block;
mod checksum;
mod side_by_side;
mod split;
mod typed;
mod written;

use std::path::Path;
use std::sync::Arc;

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::dead_letter::DeadLetter;
use cornjacket_core::delivery::Delivery;
use cornjacket_core::environment::Environment;
use cornjacket_core::store::Storage;
use cornjacket_core::{Error, Result};

pub use key::{key_columns, key_text, parse_key};
use sqlite::together;
pub use sqlite::verify::{Fault, Finding, Report, Watcher, verify_folder};
pub use sqlite::{SqliteLog, SqliteStore, read_schema};
pub use typed::stored_text;

/// Opens the embedded storage of a pipeline (its name, and the version of its file) in a folder, which is made if it is not there.
///
/// # Errors
/// [`Error::Conflict`] when what is stored contradicts the catalogue or was written by a newer version;
/// [`Error::Corrupt`] when it is damaged where that can be seen at once, or the log has lost what the store has read;
/// [`Error::Unavailable`] when the folder cannot be used.
pub fn open_embedded(
    folder: &Path,
    catalogue: Arc<Catalogue>,
    pipeline: (&str, &str),
    environment: &Environment,
) -> Result<Storage> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Error::Unavailable(format!("the data folder {}: {error}", folder.display())))?;
    together::before_open(folder)?;
    let lacks_store = together::lacks_store(folder);
    let log = SqliteLog::open(folder, catalogue, environment.clone())?;
    let store = SqliteStore::open(folder, pipeline)?;
    together::after_open(folder, &log, &store, lacks_store)?;
    Ok(Storage { log: Arc::new(log), store: Arc::new(store) })
}

/// The dead letter of a delivery that is given up.
fn given_up(delivery: &Delivery) -> DeadLetter {
    let error = delivery.last_error.as_deref().unwrap_or("the receiver did not take it");
    let times = if delivery.attempts == 1 { "attempt" } else { "attempts" };
    DeadLetter {
        reason: "webhook".into(),
        source: delivery.sink.clone(),
        message: format!("given up after {} {times}: {error}", delivery.attempts),
        event_id: delivery.event_id.clone(),
        event_time: Some(delivery.row_time),
        body: delivery.body.clone(),
        place: Some(delivery.id.clone()),
        ..DeadLetter::default()
    }
}
