//! `store.db`: the records that a start goes on from, and whether the log reaches as far as they do.

use std::path::Path;

use cornjacket_core::log::Positions;
use cornjacket_core::operator::PartId;
use cornjacket_core::store::{EpochRecord, PipelineState, Snapshot};
use cornjacket_core::{Error, Result};
use rusqlite::{Connection, params};

use super::super::connection::storage_error;
use super::super::records::{EPOCH, SNAPSHOT, STATE, from_raises, from_record};
use super::super::store::of_part;
use super::super::together::{AHEAD, furthest};
use super::blocks::{Blocks, why};
use super::{Finding, Report, Watcher, books, counted};
use crate::block::read_stream;

/// What to do about records that cannot be read.
pub(super) const REBUILD: &str = "put back a copy of the folder, or move store.db, store.db-wal and store.db-shm away: the next \
                                  start makes everything anew from the log (deliveries and dead letters go with the file)";

/// What a pipeline goes on from.
pub(super) struct Known {
    pub(super) name: String,
    /// Where its last epoch ended.
    pub(super) positions: Positions,
    pub(super) state: PipelineState,
}

/// Reads what every pipeline of the file goes on from.
pub(super) fn check(
    (connection, path): (&Connection, &Path),
    blocks: Option<&Blocks>,
    report: &mut Report,
    watcher: &mut Watcher<'_>,
) {
    let file = path.display().to_string();
    for name in pipelines(connection) {
        watcher(&format!("the state of {name}"), 0, 0);
        let mut finding = Finding::new("state", format!("{file}: {name}"));
        let known = Records { connection, finding: &mut finding }.read(name);
        if let Some(blocks) = blocks.filter(|blocks| !blocks.end.covers(&known.positions)) {
            let missing = blocks.end.distance(&known.positions);
            let what = format!("{} has taken in {missing} events that the log no longer has", known.name);
            finding.fault(finding.of.clone(), what, AHEAD);
        }
        report.findings.push(finding);
        report.findings.push(books::check(connection, &file, &known, blocks));
    }
}

fn pipelines(connection: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM pipelines UNION SELECT pipeline FROM epochs UNION SELECT pipeline FROM snapshots";
    // What cannot be read here is told as a fault of the structure.
    texts(connection, sql, []).unwrap_or_default()
}

fn texts(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<String>> {
    let read =
        || -> rusqlite::Result<Vec<String>> { connection.prepare(sql)?.query_map(params, |row| row.get(0))?.collect() };
    read().map_err(storage_error)
}

/// Reads the records of a pipeline, and notes what is wrong with them.
struct Records<'a> {
    connection: &'a Connection,
    finding: &'a mut Finding,
}

impl Records<'_> {
    fn read(mut self, name: String) -> Known {
        let state = self.sound(|records| records.state(&name)).unwrap_or_default();
        let snapshot = self.sound(|records| records.snapshot(&name)).flatten();
        let parts = snapshot.as_ref().map_or(0, |snapshot| snapshot.parts.len());
        for id in snapshot.iter().flat_map(|snapshot| &snapshot.parts) {
            self.sound(|records| records.part(&name, *id));
        }
        let raises = self.sound(|records| records.raises(&name)).unwrap_or(0);
        let from = snapshot.as_ref().map_or(1, |snapshot| snapshot.epoch + 1);
        let epochs = self.sound(|records| records.epochs(&name, from)).unwrap_or_default();
        self.finding.looked_at = format!(
            "{}, {}, {}",
            counted(epochs.len(), "epoch"),
            counted(parts, "snapshot part"),
            counted(raises, "raise")
        );
        let last = epochs.into_iter().next_back().map(|record| record.positions);
        let last = last.or(snapshot.map(|snapshot| snapshot.positions));
        let positions = furthest(last.unwrap_or_default(), state.rebuild_until.as_ref());
        Known { name, positions, state }
    }

    fn sound<T>(&mut self, read: impl FnOnce(&Self) -> Result<T>) -> Option<T> {
        match read(self) {
            Ok(found) => Some(found),
            Err(error) => {
                self.finding.fault(self.finding.of.clone(), why(error), REBUILD);
                None
            }
        }
    }

    fn state(&self, name: &str) -> Result<PipelineState> {
        let texts = texts(self.connection, "SELECT state FROM pipelines WHERE name = ?1", [name])?;
        texts.first().map_or_else(|| Ok(PipelineState::default()), |text| from_record(text, STATE, name))
    }

    fn snapshot(&self, name: &str) -> Result<Option<Snapshot>> {
        let sql = "SELECT snapshot FROM snapshots WHERE pipeline = ?1 ORDER BY epoch DESC LIMIT 1";
        texts(self.connection, sql, [name])?.first().map(|text| from_record(text, SNAPSHOT, name)).transpose()
    }

    fn part(&self, name: &str, id: PartId) -> Result<()> {
        let sql = "SELECT rows FROM parts WHERE pipeline = ?1 AND id = ?2";
        let number = i64::try_from(id).unwrap_or(i64::MAX);
        let bytes = self.connection.query_row(sql, params![name, number], |row| row.get::<_, Vec<u8>>(0));
        let bytes = bytes.map_err(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Error::Corrupt("it is missing".into()),
            other => storage_error(other),
        });
        bytes.and_then(|bytes| read_stream(&bytes, None)).map(|_| ()).map_err(|error| of_part(id, error))
    }

    fn raises(&self, name: &str) -> Result<usize> {
        let sql = "SELECT positions, raises FROM raises WHERE pipeline = ?1 ORDER BY epoch";
        let mut statement = self.connection.prepare(sql).map_err(storage_error)?;
        let mut rows = statement.query([name]).map_err(storage_error)?;
        let mut count = 0;
        while let Some(row) = rows.next().map_err(storage_error)? {
            let text = |at| row.get::<_, String>(at).map_err(storage_error);
            from_raises((&text(0)?, &text(1)?), name)?;
            count += 1;
        }
        Ok(count)
    }

    /// The epochs that a start would compute again, and the one before them if there is a snapshot.
    fn epochs(&self, name: &str, from: u64) -> Result<Vec<EpochRecord>> {
        let sql = "SELECT record FROM epochs WHERE pipeline = ?1 ORDER BY epoch";
        let texts = texts(self.connection, sql, [name])?;
        let records: Vec<EpochRecord> =
            texts.iter().map(|text| from_record(text, EPOCH, name)).collect::<Result<_>>()?;
        let to_come = records.iter().filter(|record| record.epoch >= from);
        if let Some((missing, _)) = (from..).zip(to_come).find(|(next, record)| record.epoch != *next) {
            return Err(Error::Corrupt(format!("the record of epoch {missing} is missing")));
        }
        Ok(records)
    }
}
