//! The embedded backend on `SQLite`: `log.db` and `store.db` in the data folder.
//!
//! Both files use write-ahead logging with `synchronous=FULL`: when a commit returns, it survives the loss of power. Each
//! has one writer connection; reads have their own and never wait for it.

mod commit;
mod compact;
mod connection;
mod deliveries;
mod find;
mod forget;
mod index;
mod ledger;
mod letters;
mod log;
mod place;
mod records;
mod retention;
mod room;
mod store;
mod table;
pub(crate) mod together;
mod value;
pub mod verify;
mod wal;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use cornjacket_core::Error;
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::time::timestamp_type;

pub use log::SqliteLog;
pub use store::SqliteStore;

/// The columns that a projection is read with: its own, then what every row has.
#[must_use]
pub fn read_schema(spec: &ProjectionSpec) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = spec.schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("last_event_id", DataType::Utf8, true)));
    fields.push(Arc::new(Field::new("last_event_timestamp", timestamp_type(), true)));
    fields.push(Arc::new(Field::new("updated_at", timestamp_type(), false)));
    Arc::new(Schema::new(fields))
}

pub(crate) fn layout_differs(projection: &str) -> Error {
    Error::Conflict(format!("the projection `{projection}` is stored with other columns or another key"))
}

pub(crate) fn epoch_out_of_order(epoch: u64, next: u64) -> Error {
    Error::Conflict(format!("epoch {epoch} does not follow: the next one is {next}"))
}
