//! Dead letters in `store.db`.

use std::collections::BTreeMap;

use cornjacket_core::Result;
use cornjacket_core::dead_letter::{DeadLetter, DeadLetters, LetterFilter, LetterState, StoredDeadLetter};
use cornjacket_core::time::Micros;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::connection::storage_error;
use super::store::{SqliteStore, execute, to_json};

const COLUMNS: &str = "id, recorded_at, version, state, settled_at, reason, source, message, event_id, event_time, body, \
                       place, placed, variables";

impl SqliteStore {
    pub(super) fn write_dead_letter(&self, connection: &Connection, letter: &DeadLetter, now: Micros) -> Result<()> {
        let sql =
            "INSERT INTO dead_letters (pipeline, version, recorded_at, reason, source, message, event_id, event_time,
                                             body, place, placed, variables)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                   ON CONFLICT (pipeline, source, place) WHERE placed = 1 DO NOTHING";
        let DeadLetter { reason, source, message, event_id, event_time, body, place, is_placed, variables } = letter;
        let (pipeline, version) = (&self.pipeline, &self.version);
        let variables = to_json(variables)?;
        let row = params![
            pipeline, version, now, reason, source, message, event_id, event_time, body, place, is_placed, variables
        ];
        execute(connection, sql, row)
    }
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredDeadLetter> {
    let variables: BTreeMap<String, String> = serde_json::from_str(&row.get::<_, String>(13)?).unwrap_or_default();
    let letter = DeadLetter {
        reason: row.get(5)?,
        source: row.get(6)?,
        message: row.get(7)?,
        event_id: row.get(8)?,
        event_time: row.get(9)?,
        body: row.get(10)?,
        place: row.get(11)?,
        is_placed: row.get(12)?,
        variables,
    };
    Ok(StoredDeadLetter {
        id: row.get(0)?,
        recorded_at: row.get(1)?,
        version: row.get(2)?,
        state: LetterState::parse(&row.get::<_, String>(3)?).unwrap_or_default(),
        settled_at: row.get(4)?,
        letter,
    })
}

/// The condition of a filter and its values, behind the pipeline's name.
fn condition(pipeline: &str, filter: &LetterFilter) -> (String, Vec<Value>) {
    let text = |text: &Option<String>| text.clone().map(Value::Text);
    let wanted = [
        ("reason =", text(&filter.reason)),
        ("source =", text(&filter.source)),
        ("event_id =", text(&filter.event_id)),
        ("state =", filter.state.map(|state| Value::Text(state.as_str().into()))),
        ("recorded_at >=", filter.from.map(Value::Integer)),
        ("recorded_at <", filter.to.map(Value::Integer)),
        ("id <", filter.before.map(Value::Integer)),
    ];
    let (mut sql, mut values) = ("pipeline = ?".to_string(), vec![Value::Text(pipeline.into())]);
    for (test, value) in wanted {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(test);
            sql.push_str(" ?");
            values.push(value);
        }
    }
    (sql, values)
}

impl DeadLetters for SqliteStore {
    fn add_dead_letters(&self, now: Micros, letters: &[DeadLetter]) -> Result<()> {
        let work = |connection: &Connection| {
            letters.iter().try_for_each(|letter| self.write_dead_letter(connection, letter, now))
        };
        self.transact(work, |_| Ok(false))
    }

    fn dead_letters(&self, filter: &LetterFilter, limit: u64) -> Result<Vec<StoredDeadLetter>> {
        let (condition, mut values) = condition(&self.pipeline, filter);
        values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE {condition} ORDER BY id DESC LIMIT ?");
        self.all(&sql, params_from_iter(values), stored)
    }

    fn dead_letter(&self, id: i64) -> Result<Option<StoredDeadLetter>> {
        let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE pipeline = ?1 AND id = ?2");
        self.one(&sql, params![self.pipeline, id], stored)
    }

    fn settle_dead_letter(&self, id: i64, state: LetterState, now: Micros) -> Result<bool> {
        let is_settled = std::cell::Cell::new(false);
        let work = |connection: &Connection| {
            let sql = "UPDATE dead_letters SET state = ?3, settled_at = ?4
                       WHERE pipeline = ?1 AND id = ?2 AND state = 'open' RETURNING 1";
            let row = params![self.pipeline, id, state.as_str(), now];
            let changed = connection.query_row(sql, row, |_| Ok(())).optional().map_err(storage_error)?;
            is_settled.set(changed.is_some());
            Ok(())
        };
        // Settling twice in the same way changes nothing, so a lost answer may be tried again.
        self.transact(work, |_| Ok(false))?;
        Ok(is_settled.get())
    }

    fn forget_dead_letters(&self, before: Micros, max: u64) -> Result<u64> {
        let forgotten = std::cell::Cell::new(0);
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let work = |connection: &Connection| {
            let sql = "DELETE FROM dead_letters WHERE id IN (
                           SELECT id FROM dead_letters
                           WHERE pipeline = ?1 AND state <> 'open' AND recorded_at < ?2 LIMIT ?3) RETURNING source";
            let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
            let sources = statement.query_map(params![self.pipeline, before, max], |row| row.get::<_, String>(0));
            let sources: Vec<String> =
                sources.and_then(Iterator::collect::<rusqlite::Result<_>>).map_err(storage_error)?;
            forgotten.set(sources.len() as u64);
            // The audit holds what was made against what there is.
            sources.iter().try_for_each(|source| self.count(connection, (source, "letters_forgotten"), 1))
        };
        self.transact(work, |_| Ok(false))?;
        Ok(forgotten.get())
    }
}
