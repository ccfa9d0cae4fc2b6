//! The embedded store: projections, epochs, snapshots and dead letters in `store.db`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use cornjacket_core::log::Positions;
use cornjacket_core::operator::PartId;
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::{
    EpochCommit, EpochRecord, Ledger, PipelineState, ProjectionRows, Raise, RowFilter, SetAside, Snapshot, Store,
};
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connection::{Readers, fold_now, named, open_writer, storage_error};
use super::place::Place;
use super::records::{EPOCH, SNAPSHOT, STATE, from_raises, from_record, to_raises, to_record};
use super::{epoch_out_of_order, layout_differs, table};
use crate::block::{read_stream, write_stream};
use crate::checksum::seal_stream;
use crate::key::key_text;

pub(super) const MIGRATIONS: [&str; 6] = [
    include_str!("../../../../migrations/sqlite/store/0001_store.sql"),
    include_str!("../../../../migrations/sqlite/store/0002_outlets.sql"),
    include_str!("../../../../migrations/sqlite/store/0003_dead_letters.sql"),
    include_str!("../../../../migrations/sqlite/store/0004_deliveries.sql"),
    include_str!("../../../../migrations/sqlite/store/0005_delivery_keys.sql"),
    include_str!("../../../../migrations/sqlite/store/0006_set_aside.sql"),
];

/// The file of the store.
pub(super) const STORE_FILE: &str = "store.db";

/// The store in `store.db`, as one pipeline sees it.
pub struct SqliteStore {
    pub(super) pipeline: String,
    /// The version of the pipeline's file.
    pub(super) version: String,
    path: PathBuf,
    place: Place,
    /// `None` after a failure, until it is opened again.
    writer: Mutex<Option<Connection>>,
    readers: Readers,
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Corrupt(error.to_string()))
}

impl SqliteStore {
    /// Opens or makes the store in a folder.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the file is a newer version's.
    pub fn open(folder: &Path, (pipeline, version): (&str, &str)) -> Result<Self> {
        let path = folder.join(STORE_FILE);
        let writer = Mutex::new(Some(open_writer(&path, &MIGRATIONS)?));
        Ok(Self {
            pipeline: pipeline.into(),
            version: version.into(),
            readers: Readers::new(path.clone()),
            place: Place::of(&path)?,
            path,
            writer,
        })
    }

    /// How far every pipeline of the file has read.
    pub(super) fn reached(&self) -> Result<Vec<(String, Positions)>> {
        self.readers.read(super::together::reached)
    }

    /// Does work in one transaction. After a failure the connection is opened anew, since what it had written may or may
    /// not be there; `is_done` looks.
    pub(super) fn transact(
        &self,
        work: impl Fn(&Connection) -> Result<()>,
        is_done: impl Fn(&Connection) -> Result<bool>,
    ) -> Result<()> {
        self.place.is_there()?;
        let mut writer = self.writer.lock();
        if writer.is_none() {
            *writer = Some(open_writer(&self.path, &MIGRATIONS)?);
        }
        let Some(connection) = writer.as_mut() else { return Err(Error::Closed) };
        let Err(error) = try_transaction(connection, work) else { return Ok(()) };
        if matches!(error, Error::Conflict(_)) {
            return Err(error);
        }
        *writer = None;
        let connection = open_writer(&self.path, &MIGRATIONS)?;
        let done = is_done(&connection)?;
        if matches!(error, Error::Full(_)) {
            // The write-ahead log may hold what is in the file already, and the next try finds the room.
            fold_now(&connection, &self.path);
        }
        *writer = Some(connection);
        if done { Ok(()) } else { Err(named(&self.path, error)) }
    }

    /// One value from one row, if there is one.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        self.readers.read(|connection| {
            let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
            statement.query_row(params, map).optional().map_err(storage_error)
        })
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.readers.read(|connection| {
            let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
            let rows = statement.query_map(params, map).map_err(storage_error)?;
            rows.collect::<rusqlite::Result<_>>().map_err(storage_error)
        })
    }

    pub(super) fn last_of(&self, connection: &Connection) -> Result<Option<EpochRecord>> {
        let sql = "SELECT record FROM epochs WHERE pipeline = ?1 ORDER BY epoch DESC LIMIT 1";
        let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
        let text: Option<String> =
            statement.query_row([&self.pipeline], |row| row.get(0)).optional().map_err(storage_error)?;
        text.map(|text| self.stored(&text, EPOCH)).transpose()
    }

    /// Reads a record, and names the file if it cannot.
    fn stored<T: DeserializeOwned>(&self, text: &str, what: &str) -> Result<T> {
        from_record(text, what, &self.pipeline).map_err(|error| named(&self.path, error))
    }

    fn write_epoch(&self, connection: &Connection, commit: &EpochCommit) -> Result<()> {
        let EpochRecord { epoch, positions, raises, set_aside, .. } = &commit.record;
        let next = self.last_of(connection)?.map_or(1, |last| last.epoch + 1);
        if *epoch != next {
            return Err(epoch_out_of_order(*epoch, next));
        }
        for write in &commit.writes {
            let written = table::write(connection, write, commit.now)?;
            for (what, by) in written.counters() {
                self.count(connection, (&write.projection.name, what), by)?;
            }
        }
        for letter in &commit.dead_letters {
            self.write_dead_letter(connection, letter, commit.now)?;
        }
        self.write_deliveries(connection, &commit.deliveries, commit.now)?;
        for ((node, what), by) in &commit.counters {
            self.count(connection, (node, what), *by)?;
        }
        for (sink, length) in &commit.lengths {
            let row = params![self.pipeline, sink, i64::try_from(*length).unwrap_or(i64::MAX)];
            execute(connection, "INSERT OR REPLACE INTO outlets VALUES (?1, ?2, ?3)", row)?;
        }
        if !raises.is_empty() {
            let (at, raises) = to_raises(positions, raises, &self.pipeline)?;
            let row = params![self.pipeline, epoch, at, raises];
            execute(connection, "INSERT INTO raises VALUES (?1, ?2, ?3, ?4)", row)?;
        }
        for SetAside { event_type, partition, offset } in set_aside {
            let row = params![self.pipeline, event_type, partition, offset];
            execute(connection, "INSERT OR IGNORE INTO set_aside VALUES (?1, ?2, ?3, ?4)", row)?;
        }
        let row = params![self.pipeline, epoch, to_record(&commit.record, EPOCH, &self.pipeline)?];
        execute(connection, "INSERT INTO epochs VALUES (?1, ?2, ?3)", row)
    }

    fn write_snapshot(&self, connection: &Connection, snapshot: &Snapshot) -> Result<()> {
        let row = params![self.pipeline, snapshot.epoch, to_record(snapshot, SNAPSHOT, &self.pipeline)?];
        execute(connection, "INSERT OR REPLACE INTO snapshots VALUES (?1, ?2, ?3)", row)?;
        let epoch = params![self.pipeline, snapshot.epoch];
        execute(connection, "DELETE FROM snapshots WHERE pipeline = ?1 AND epoch < ?2", epoch)?;
        // The snapshot's own epoch stays, so that the last epoch's record is always there.
        execute(connection, "DELETE FROM epochs WHERE pipeline = ?1 AND epoch < ?2", epoch)?;
        let sql = "DELETE FROM parts WHERE pipeline = ?1 AND id NOT IN (SELECT value FROM json_each(?2))";
        execute(connection, sql, params![self.pipeline, to_json(&snapshot.parts)?])
    }
}

pub(super) fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<()> {
    let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
    statement.execute(params).map(|_| ()).map_err(storage_error)
}

/// Names the part that an error is about.
pub(super) fn of_part(id: PartId, error: Error) -> Error {
    match error {
        Error::Corrupt(why) => Error::Corrupt(format!("part {id} of the snapshot: {why}")),
        Error::Arrow(why) => Error::Corrupt(format!("part {id} of the snapshot: {why}")),
        other => other,
    }
}

fn try_transaction(connection: &mut Connection, work: impl Fn(&Connection) -> Result<()>) -> Result<()> {
    let behaviour = rusqlite::TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(behaviour).map_err(storage_error)?;
    work(&transaction)?;
    transaction.commit().map_err(storage_error)
}

impl Store for SqliteStore {
    fn prepare(&self, projection: &ProjectionSpec, clear: bool) -> Result<()> {
        let layout = table::layout(projection);
        let sql = "SELECT pipeline, layout FROM projections WHERE name = ?1";
        let stored =
            self.one(sql, [&projection.name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        match stored {
            Some((owner, _)) if owner != self.pipeline => {
                let name = &projection.name;
                return Err(Error::Conflict(format!("the projection `{name}` belongs to the pipeline `{owner}`")));
            }
            Some((_, stored)) if !clear && stored == layout => return Ok(()),
            Some(_) if !clear => return Err(layout_differs(&projection.name)),
            _ => {}
        }
        let work = |connection: &Connection| {
            table::create(connection, projection)?;
            let row = params![projection.name, self.pipeline, layout];
            execute(connection, "INSERT OR REPLACE INTO projections VALUES (?1, ?2, ?3)", row)
        };
        self.transact(work, |_| Ok(false))
    }

    fn lengths(&self) -> Result<BTreeMap<String, u64>> {
        let sql = "SELECT sink, length FROM outlets WHERE pipeline = ?1";
        let rows = self.all(sql, [&self.pipeline], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.into_iter().collect())
    }

    fn reset_length(&self, sink: &str) -> Result<()> {
        let sql = "UPDATE outlets SET length = 0 WHERE pipeline = ?1 AND sink = ?2";
        self.transact(|connection| execute(connection, sql, [&self.pipeline, sink]), |_| Ok(false))
    }

    fn claim(&self, sink: &str) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO outlets (pipeline, sink, length) VALUES (?1, ?2, 0)";
        self.transact(|connection| execute(connection, sql, [&self.pipeline, sink]), |_| Ok(false))
    }

    fn pipeline_state(&self) -> Result<PipelineState> {
        let sql = "SELECT state FROM pipelines WHERE name = ?1";
        let text = self.one(sql, [&self.pipeline], |row| row.get::<_, String>(0))?;
        text.map_or_else(|| Ok(PipelineState::default()), |text| self.stored(&text, STATE))
    }

    fn set_pipeline_state(&self, state: &PipelineState, restart: bool) -> Result<()> {
        let text = to_record(state, STATE, &self.pipeline)?;
        let work = |connection: &Connection| {
            execute(connection, "INSERT OR REPLACE INTO pipelines VALUES (?1, ?2)", params![self.pipeline, text])?;
            let forgotten: &[&str] = if restart { &["epochs", "raises", "snapshots", "parts"] } else { &[] };
            if restart {
                self.restart_counters(connection, &state.kept_sinks)?;
            }
            for table in forgotten {
                execute(connection, &format!("DELETE FROM {table} WHERE pipeline = ?1"), [&self.pipeline])?;
            }
            Ok(())
        };
        self.transact(work, |_| Ok(false))
    }

    fn commit_epoch(&self, commit: &EpochCommit) -> Result<()> {
        let is_done = |connection: &Connection| Ok(self.last_of(connection)?.as_ref() == Some(&commit.record));
        self.transact(|connection| self.write_epoch(connection, commit), is_done)
    }

    fn last_epoch(&self) -> Result<Option<EpochRecord>> {
        self.readers.read(|connection| self.last_of(connection))
    }

    fn epochs_after(&self, epoch: u64) -> Result<Vec<EpochRecord>> {
        let sql = "SELECT record FROM epochs WHERE pipeline = ?1 AND epoch > ?2 ORDER BY epoch";
        let texts = self.all(sql, params![self.pipeline, epoch], |row| row.get::<_, String>(0))?;
        texts.iter().map(|text| self.stored(text, EPOCH)).collect()
    }

    fn save_snapshot(&self, snapshot: &Snapshot, new_parts: &[(PartId, RecordBatch)]) -> Result<()> {
        for (id, rows) in new_parts {
            let mut bytes = Vec::new();
            write_stream(rows, &mut bytes)?;
            seal_stream(&mut bytes);
            let sql = "INSERT OR REPLACE INTO parts VALUES (?1, ?2, ?3)";
            // One transaction a part, so that no epoch waits long for its own.
            let id = i64::try_from(*id).unwrap_or(i64::MAX);
            self.transact(|connection| execute(connection, sql, params![self.pipeline, id, bytes]), |_| Ok(false))?;
        }
        self.transact(|connection| self.write_snapshot(connection, snapshot), |_| Ok(false))
    }

    fn latest_snapshot(&self) -> Result<Option<Snapshot>> {
        let sql = "SELECT snapshot FROM snapshots WHERE pipeline = ?1 ORDER BY epoch DESC LIMIT 1";
        let text = self.one(sql, [&self.pipeline], |row| row.get::<_, String>(0))?;
        text.map(|text| self.stored(&text, SNAPSHOT)).transpose()
    }

    fn part(&self, id: PartId) -> Result<RecordBatch> {
        let sql = "SELECT rows FROM parts WHERE pipeline = ?1 AND id = ?2";
        let bytes = self.one(sql, params![self.pipeline, id], |row| row.get::<_, Vec<u8>>(0))?;
        let missing = || Error::Corrupt("it is missing".into());
        let read = bytes.ok_or_else(missing).and_then(|bytes| read_stream(&bytes, None));
        read.map_err(|error| named(&self.path, of_part(id, error)))
    }

    fn raises(&self) -> Result<Vec<(Positions, Vec<Raise>)>> {
        let sql = "SELECT positions, raises FROM raises WHERE pipeline = ?1 ORDER BY epoch";
        let texts = self.all(sql, [&self.pipeline], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let read = |(at, raises): &(String, String)| from_raises((at, raises), &self.pipeline);
        texts.iter().map(read).map(|read| read.map_err(|error| named(&self.path, error))).collect()
    }

    fn set_aside(&self) -> Result<Vec<SetAside>> {
        let sql = "SELECT event_type, partition, log_offset FROM set_aside WHERE pipeline = ?1";
        self.all(sql, [&self.pipeline], |row| {
            Ok(SetAside { event_type: row.get(0)?, partition: row.get(1)?, offset: row.get(2)? })
        })
    }

    fn rows(
        &self,
        spec: &ProjectionSpec,
        filter: &RowFilter,
        limit: Option<u64>,
        offset: u64,
    ) -> Result<ProjectionRows> {
        self.readers.read(|connection| {
            // Both statements read the same state of the file.
            let transaction = connection.unchecked_transaction().map_err(storage_error)?;
            let total = table::count(&transaction, spec, filter)?;
            let rows = table::page(&transaction, spec, filter, (limit, offset))?;
            Ok(ProjectionRows { rows, total })
        })
    }

    fn scan(&self, spec: &ProjectionSpec, sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        self.readers.read(|connection| table::scan(connection, spec, sink))
    }

    fn row(&self, spec: &ProjectionSpec, key: &[Option<String>]) -> Result<Option<RecordBatch>> {
        self.readers.read(|connection| table::by_key(connection, spec, key_text(key)))
    }

    fn ledger(&self, projections: &[Arc<ProjectionSpec>]) -> Result<Ledger> {
        self.readers.read(|connection| self.read_ledger(connection, projections))
    }

    fn forget_rows(&self, spec: &ProjectionSpec, before: Micros, max: u64) -> Result<u64> {
        self.delete_rows_before(spec, before, max)
    }

    fn fold(&self) {
        if let Some(connection) = self.writer.lock().take() {
            fold_now(&connection, &self.path);
        }
    }
}
