//! Retention of rows: those of a projection whose time is over, a few at a time.

use std::cell::Cell;

use cornjacket_core::Result;
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::time::Micros;
use rusqlite::{Connection, params};

use super::connection::storage_error;
use super::store::SqliteStore;
use super::table::{table_name, time_column};

impl SqliteStore {
    /// Deletes rows of before a time and counts them, in one transaction.
    pub(super) fn delete_rows_before(&self, spec: &ProjectionSpec, before: Micros, max: u64) -> Result<u64> {
        let table = table_name(&spec.name);
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let column = time_column(spec);
        let sql = format!(
            "DELETE FROM {table} WHERE _key IN (
                 SELECT _key FROM {table} WHERE {column} < ?1 OR ({column} IS NULL AND _time < ?2) LIMIT ?3)"
        );
        let before_in_unit = spec.time_in_unit(before);
        let deleted = Cell::new(0);
        let work = |connection: &Connection| {
            let mut statement = connection.prepare_cached(&sql).map_err(storage_error)?;
            let count = statement.execute(params![before_in_unit, before, max]).map_err(storage_error)?;
            deleted.set(count as u64);
            self.count(connection, (&spec.name, "forgotten"), i64::try_from(count).unwrap_or(i64::MAX))
        };
        // Deleting again what may be gone already is harmless: it is counted where it is deleted.
        self.transact(work, |_| Ok(false))?;
        Ok(deleted.get())
    }
}
