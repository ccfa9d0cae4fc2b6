//! Whether the two files of a folder belong together.
//!
//! The store remembers how far the engine has read; what it has read is in the log, which is synced first. A log that ends
//! before that has lost events: going on with it would give their offsets to others, which the engine would never read. So
//! it is refused. A store that is behind its log, or is not there, is made up from the log.

use std::path::Path;

use cornjacket_core::log::{EventLog, LogCount, Positions};
use cornjacket_core::store::{EpochRecord, PipelineState};
use cornjacket_core::{Error, Result};
use rusqlite::Connection;

use super::connection::storage_error;
use super::log::{LOG_FILE, SqliteLog};
use super::place::wal_of;
use super::records::{EPOCH, STATE, from_record};
use super::store::{STORE_FILE, SqliteStore};

/// What to do about a log that has lost what the store has read.
pub(super) const AHEAD: &str = "put back a copy of log.db that has them, or give them up: move store.db, store.db-wal and \
                                store.db-shm away, and the next start makes everything anew from the events that are left";

fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |found| found.len() == 0)
}

/// Why a folder without a log cannot be begun anew; `None` if it has one, or nothing at all.
pub(super) fn without_log(folder: &Path) -> Option<String> {
    let (log, store) = (folder.join(LOG_FILE), folder.join(STORE_FILE));
    if !is_empty(&log) {
        return None;
    }
    let left = [wal_of(&log), store].into_iter().find(|path| !is_empty(path))?;
    let what = if log.exists() { "is empty" } else { "is not there" };
    Some(format!(
        "{} {what}, but {} is: the events are gone, and with an empty log they would stay so",
        log.display(),
        left.display()
    ))
}

/// Refuses a folder whose log was deleted, before an empty one is made in its place.
///
/// # Errors
/// [`Error::Corrupt`] when it was.
pub(crate) fn before_open(folder: &Path) -> Result<()> {
    let refusal = |why| {
        Error::Corrupt(format!(
            "{why}. Put back a copy of log.db; or, to begin anew without them, move store.db* and log.db* away"
        ))
    };
    without_log(folder).map_or(Ok(()), |why| Err(refusal(why)))
}

/// Whether a folder has a log with something in it and no store.
pub(crate) fn lacks_store(folder: &Path) -> bool {
    !is_empty(&folder.join(LOG_FILE)) && is_empty(&folder.join(STORE_FILE))
}

/// Refuses a log that ends before what a pipeline of the store has read, and says what a store that was not there means.
///
/// # Errors
/// [`Error::Corrupt`] when events are missing.
pub(crate) fn after_open(folder: &Path, log: &SqliteLog, store: &SqliteStore, lacked_store: bool) -> Result<()> {
    let end = log.end();
    for (pipeline, positions) in store.reached()? {
        if !end.covers(&positions) {
            let (log, missing) = (folder.join(LOG_FILE), end.distance(&positions));
            return Err(Error::Corrupt(format!(
                "{} has lost events: {pipeline} has taken in {missing} that it no longer has. {AHEAD}",
                log.display()
            )));
        }
    }
    if lacked_store && !end.0.is_empty() {
        tell_of_new_store(folder, &log.counts(&Positions::default())?);
    }
    Ok(())
}

fn tell_of_new_store(folder: &Path, counts: &std::collections::BTreeMap<String, LogCount>) {
    let file = folder.join(STORE_FILE);
    let sum = |of: fn(&LogCount) -> u64| counts.values().map(of).sum::<u64>();
    let (events, forgotten) = (sum(|count| count.present), sum(|count| count.forgotten));
    tracing::warn!(
        file = %file.display(), events,
        "the file was not there: projections and state are made anew from the log; deliveries, dead letters and the times of \
         windows that closed by silence went with it"
    );
    if forgotten > 0 {
        tracing::warn!(forgotten, "retention has deleted events, and the rows that only they made do not come back");
    }
}

/// How far every pipeline of a store has read, or had when a rebuild began.
pub(super) fn reached(connection: &Connection) -> Result<Vec<(String, Positions)>> {
    let sql = "SELECT name, state, (SELECT record FROM epochs WHERE pipeline = name ORDER BY epoch DESC LIMIT 1) FROM pipelines";
    let mut statement = connection.prepare(sql).map_err(storage_error)?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let rows = statement.query_map([], row).map_err(storage_error)?;
    let rows: Vec<(String, String, Option<String>)> = rows.collect::<rusqlite::Result<_>>().map_err(storage_error)?;
    let read = |(pipeline, state, record): (String, String, Option<String>)| {
        let state: PipelineState = from_record(&state, STATE, &pipeline)?;
        let record = record.map(|record| from_record::<EpochRecord>(&record, EPOCH, &pipeline)).transpose()?;
        let last = record.map(|record| record.positions).unwrap_or_default();
        Ok((pipeline, furthest(last, state.rebuild_until.as_ref())))
    };
    rows.into_iter().map(read).collect()
}

/// A position, or where a rebuild goes if that is further.
pub(super) fn furthest(mut last: Positions, until: Option<&Positions>) -> Positions {
    for (at, offset) in until.iter().flat_map(|until| &until.0) {
        let further = last.get(at).max(*offset);
        last.0.insert(at.clone(), further);
    }
    last
}
