//! Counters in `store.db`, and what they are held against.

use std::collections::BTreeMap;
use std::sync::Arc;

use cornjacket_core::Result;
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::{Ledger, RowFilter};
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row, params};

use super::connection::storage_error;
use super::store::{SqliteStore, execute, to_json};
use super::table;

impl SqliteStore {
    /// Adds to a counter.
    pub(super) fn count(&self, connection: &Connection, (node, what): (&str, &str), by: i64) -> Result<()> {
        if by == 0 {
            return Ok(());
        }
        let sql = "INSERT INTO counters VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (pipeline, node, what) DO UPDATE SET value = value + excluded.value";
        execute(connection, sql, params![self.pipeline, node, what, by])
    }

    /// Forgets counters where epochs begin again. What kept sinks counted still holds; `base` tells what they had taken.
    pub(super) fn restart_counters(&self, connection: &Connection, kept: &[String]) -> Result<()> {
        let kept = to_json(&kept)?;
        let sql = "DELETE FROM counters WHERE pipeline = ?1
                   AND (what IN ('base', 'kept') OR node NOT IN (SELECT value FROM json_each(?2)))";
        execute(connection, sql, params![self.pipeline, kept])?;
        let sql = "INSERT INTO counters
                   SELECT pipeline, node, 'base', value FROM counters WHERE pipeline = ?1 AND what = 'rows_in'";
        execute(connection, sql, params![self.pipeline])
    }

    pub(super) fn read_ledger(&self, connection: &Connection, projections: &[Arc<ProjectionSpec>]) -> Result<Ledger> {
        // All statements read the same state of the file.
        let transaction = connection.unchecked_transaction().map_err(storage_error)?;
        let own = params![self.pipeline];
        let sql = "SELECT source, reason, count(*) FROM dead_letters WHERE pipeline = ?1 GROUP BY source, reason";
        let letters = all(&transaction, sql, own, pair)?;
        let counters = all(&transaction, "SELECT node, what, value FROM counters WHERE pipeline = ?1", own, pair)?;
        let sql = "SELECT sink, count(*) FROM deliveries WHERE pipeline = ?1 AND state = 'pending' GROUP BY sink";
        let pending = all(&transaction, sql, own, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut rows = BTreeMap::new();
        for spec in projections {
            rows.insert(spec.name.clone(), table::count(&transaction, spec, &RowFilter::default())?);
        }
        let positions = self.last_of(&transaction)?.map(|record| record.positions).unwrap_or_default();
        Ok(Ledger { positions, counters, rows, letters, pending })
    }
}

fn pair<V: FromSql>(row: &Row<'_>) -> rusqlite::Result<((String, String), V)> {
    Ok(((row.get(0)?, row.get(1)?), row.get(2)?))
}

fn all<K: Ord, V>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    map: impl FnMut(&Row<'_>) -> rusqlite::Result<(K, V)>,
) -> Result<BTreeMap<K, V>> {
    let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
    let rows = statement.query_map(params, map).map_err(storage_error)?;
    rows.collect::<rusqlite::Result<_>>().map_err(storage_error)
}
