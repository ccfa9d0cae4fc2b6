//! Deliveries in `store.db`.

use std::cell::Cell;
use std::collections::BTreeMap;

use cornjacket_core::Result;
use cornjacket_core::delivery::{
    Attempt, Deliveries, Delivery, DeliveryFilter, DeliveryState, LATEST, NewDelivery, Turn, Verdict,
};
use cornjacket_core::time::Micros;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::connection::storage_error;
use super::store::{SqliteStore, execute};
use crate::given_up;

const COLUMNS: &str = "number, id, sink, created_at, row_time, event_id, body, state, since, attempts, next_at, last_at, \
                       last_status, last_error, settled_at";

fn stored(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        number: row.get(0)?,
        id: row.get(1)?,
        sink: row.get(2)?,
        created_at: row.get(3)?,
        row_time: row.get(4)?,
        event_id: row.get(5)?,
        body: row.get(6)?,
        state: DeliveryState::parse(&row.get::<_, String>(7)?).unwrap_or_default(),
        since: row.get(8)?,
        attempts: row.get(9)?,
        next_at: row.get(10)?,
        last_at: row.get(11)?,
        last_status: row.get(12)?,
        last_error: row.get(13)?,
        settled_at: row.get(14)?,
    })
}

fn some<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
    statement.query_row(params, map).optional().map_err(storage_error)
}

impl SqliteStore {
    /// Writes an epoch's deliveries; which of them are left out, the store says by its counters.
    pub(super) fn write_deliveries(
        &self,
        connection: &Connection,
        deliveries: &[NewDelivery],
        now: Micros,
    ) -> Result<()> {
        let mut counted: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for delivery in deliveries {
            let what = self.write_delivery(connection, delivery, now)?;
            *counted.entry((&delivery.sink, what)).or_default() += 1;
        }
        counted.into_iter().try_for_each(|((sink, what), by)| self.count(connection, (sink, what), by))
    }

    fn write_delivery(&self, connection: &Connection, delivery: &NewDelivery, now: Micros) -> Result<&'static str> {
        let NewDelivery { id, sink, trigger } = delivery;
        if some(connection, "SELECT 1 FROM deliveries WHERE id = ?1", [id], |_| Ok(()))?.is_some() {
            return Ok("superseded");
        }
        if let Some(dedupe) = &trigger.dedupe {
            let key = params![self.pipeline, sink, dedupe.key];
            let sql = "SELECT row_time FROM delivery_keys WHERE pipeline = ?1 AND sink = ?2 AND key = ?3";
            let sent: Option<Micros> = some(connection, sql, key, |row| row.get(0))?;
            if sent.is_some_and(|sent| dedupe.covers(sent, trigger.row_time)) {
                return Ok("suppressed");
            }
            let sql = "INSERT INTO delivery_keys (pipeline, sink, key, row_time, until) VALUES (?1, ?2, ?3, ?4, ?5)
                       ON CONFLICT (pipeline, sink, key) DO UPDATE
                       SET row_time = max(row_time, excluded.row_time), until = max(until, excluded.until)";
            let until = trigger.row_time.saturating_add(dedupe.window);
            execute(connection, sql, params![self.pipeline, sink, dedupe.key, trigger.row_time, until])?;
        }
        let sql = "INSERT INTO deliveries (pipeline, id, sink, created_at, row_time, event_id, body, since, next_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?4, ?4)";
        let row = params![self.pipeline, id, sink, now, trigger.row_time, trigger.event_id, trigger.body];
        execute(connection, sql, row)?;
        Ok("pending")
    }

    fn record_attempt(&self, connection: &Connection, now: Micros, attempt: &Attempt) -> Result<()> {
        let (state, next_at) = match attempt.verdict {
            Verdict::Delivered => (DeliveryState::Delivered, None),
            Verdict::GivenUp => (DeliveryState::Dead, None),
            Verdict::Again(at) => (DeliveryState::Pending, Some(at)),
        };
        let settled_at = next_at.is_none().then_some(now);
        // An attempt whose record may have got lost is recorded again, and counts once. One that began before somebody
        // asked to send it again counts only if it has arrived.
        let sql = format!(
            "UPDATE deliveries SET attempts = attempts + 1, last_at = ?3, last_status = ?4, last_error = ?5, state = ?6,
                 next_at = coalesce(?7, next_at), settled_at = ?8
             WHERE pipeline = ?1 AND number = ?2 AND state = 'pending' AND last_at IS NOT ?3
                 AND (?6 = 'delivered' OR since <= ?3) RETURNING {COLUMNS}"
        );
        let Attempt { number, at, status, error, .. } = attempt;
        let row = params![self.pipeline, number, at, status, error, state.as_str(), next_at, settled_at];
        let Some(delivery) = some(connection, &sql, row, stored)? else { return Ok(()) };
        match state {
            DeliveryState::Pending => return Ok(()),
            DeliveryState::Delivered => self.count(connection, (&delivery.sink, "written"), 1)?,
            DeliveryState::Dead => {
                self.count(connection, (&delivery.sink, "dead"), 1)?;
                self.write_dead_letter(connection, &given_up(&delivery), now)?;
            }
        }
        self.count(connection, (&delivery.sink, "pending"), -1)
    }

    fn revive(&self, connection: &Connection, id: &str, now: Micros) -> Result<bool> {
        let sql = "SELECT sink, state FROM deliveries WHERE pipeline = ?1 AND id = ?2";
        let found = some(connection, sql, [&self.pipeline, id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let Some((sink, state)) = found else { return Ok(false) };
        let was = match DeliveryState::parse(&state).unwrap_or_default() {
            DeliveryState::Pending => "pending",
            DeliveryState::Delivered => "written",
            DeliveryState::Dead => "dead",
        };
        self.count(connection, (&sink, was), -1)?;
        self.count(connection, (&sink, "pending"), 1)?;
        let sql = "UPDATE deliveries SET state = 'pending', since = ?3, attempts = 0, next_at = ?3, settled_at = NULL
                   WHERE pipeline = ?1 AND id = ?2";
        execute(connection, sql, params![self.pipeline, id, now])?;
        // What it was given up with is settled by that; if it is given up again there is another letter.
        let sql = "UPDATE dead_letters SET state = 'replayed', settled_at = ?4
                   WHERE pipeline = ?1 AND source = ?2 AND reason = 'webhook' AND place = ?3 AND state = 'open'";
        execute(connection, sql, params![self.pipeline, sink, id, now])?;
        Ok(true)
    }
}

/// The condition of a filter and its values, behind the pipeline's name.
fn condition(pipeline: &str, filter: &DeliveryFilter) -> (String, Vec<Value>) {
    let wanted = [
        ("sink =", filter.sink.clone().map(Value::Text)),
        ("state =", filter.state.map(|state| Value::Text(state.as_str().into()))),
        ("event_id =", filter.event_id.clone().map(Value::Text)),
        ("number <", filter.before.map(Value::Integer)),
    ];
    let (mut sql, mut values) = ("pipeline = ?".to_string(), vec![Value::Text(pipeline.into())]);
    for (test, value) in wanted {
        if let Some(value) = value {
            sql.extend([" AND ", test, " ?"]);
            values.push(value);
        }
    }
    (sql, values)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Deliveries for SqliteStore {
    fn pending(&self, sink: &str, turn: Turn, limit: u64) -> Result<Vec<Delivery>> {
        let order = match turn {
            Turn::Due => "next_at, number",
            Turn::Written => "number",
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM deliveries WHERE pipeline = ?1 AND sink = ?2 AND state = 'pending'
             ORDER BY {order} LIMIT ?3"
        );
        self.all(&sql, params![self.pipeline, sink, whole(limit)], stored)
    }

    fn record_attempts(&self, now: Micros, attempts: &[Attempt]) -> Result<()> {
        let work = |connection: &Connection| {
            attempts.iter().try_for_each(|attempt| self.record_attempt(connection, now, attempt))
        };
        self.transact(work, |_| Ok(false))
    }

    fn attempts_since(&self, sink: &str, since: Micros, limit: u64) -> Result<Vec<Micros>> {
        let sql = "SELECT last_at FROM deliveries WHERE pipeline = ?1 AND sink = ?2 AND last_at > ?3
                   ORDER BY last_at DESC LIMIT ?4";
        self.all(sql, params![self.pipeline, sink, since, whole(limit)], |row| row.get(0))
    }

    fn deliveries(&self, filter: &DeliveryFilter, limit: u64) -> Result<Vec<Delivery>> {
        let (condition, mut values) = condition(&self.pipeline, filter);
        values.push(Value::Integer(whole(limit)));
        let sql = format!("SELECT {COLUMNS} FROM deliveries WHERE {condition} ORDER BY number DESC LIMIT ?");
        self.all(&sql, params_from_iter(values), stored)
    }

    fn delivery(&self, id: &str) -> Result<Option<Delivery>> {
        let sql = format!("SELECT {COLUMNS} FROM deliveries WHERE pipeline = ?1 AND id = ?2");
        self.one(&sql, params![self.pipeline, id], stored)
    }

    fn redeliver(&self, id: &str, now: Micros) -> Result<bool> {
        let is_there = Cell::new(false);
        let work = |connection: &Connection| {
            is_there.set(self.revive(connection, id, now)?);
            Ok(())
        };
        self.transact(work, |_| Ok(false))?;
        Ok(is_there.get())
    }

    fn forget_deliveries(&self, before: Micros, max: u64) -> Result<u64> {
        let forgotten = Cell::new(0);
        let work = |connection: &Connection| {
            let sql = "DELETE FROM deliveries WHERE number IN (
                           SELECT number FROM deliveries WHERE pipeline = ?1 AND settled_at < ?2 LIMIT ?3)";
            let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
            forgotten.set(statement.execute(params![self.pipeline, before, whole(max)]).map_err(storage_error)? as u64);
            let sql = "DELETE FROM delivery_keys WHERE (pipeline, sink, key) IN (
                           SELECT pipeline, sink, key FROM delivery_keys AS past WHERE pipeline = ?1 AND until < (
                               SELECT max(row_time) - ?2 FROM delivery_keys AS own
                               WHERE own.pipeline = past.pipeline AND own.sink = past.sink) LIMIT ?3)";
            execute(connection, sql, params![self.pipeline, LATEST, whole(max)])
        };
        self.transact(work, |_| Ok(false))?;
        Ok(forgotten.get())
    }
}
