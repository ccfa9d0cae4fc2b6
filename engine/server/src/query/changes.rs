//! A projection's changes as server-sent events.
//!
//! A message is a row as it is now, not a log of everything that it was: who reads slowly gets the newest of each row, and
//! nothing that is older than what it has seen. An id names a place in the changes that the engine keeps in memory. Where a
//! client cannot go on from its id (it was away for long, or the process is another one) it is told to begin anew, and
//! given the whole table.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::IntoResponse;
use axum::response::sse::Event;
use cornjacket_core::Error;
use cornjacket_core::Result;
use cornjacket_core::projection::ProjectionSpec;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};

use super::live::{Follow, begun, last_id};
use super::projections::{Pairs, first, named, not_found, objects, segments};
use super::{QueryService, blocking, invalid};
use crate::http::Answered;

/// Keys that are looked up at a time.
const LOOKED_UP: usize = 1_000;
/// Batches of the whole table that are read ahead of the client.
const READ_AHEAD: usize = 2;
/// How long a client may take for the whole table: it is one consistent read, which the store keeps open.
const TABLE_PATIENCE: Duration = Duration::from_mins(5);

/// `GET /api/v1/projections/{name}/changes?snapshot=true`
pub async fn follow(State(service): State<Arc<QueryService>>, uri: Uri, pairs: Pairs, headers: HeaderMap) -> Answered {
    let (name, _) = segments(&uri);
    let Some(spec) = named(&service, name) else { return Ok(not_found()) };
    let is_whole = match first(&pairs, "snapshot") {
        None | Some("false") => false,
        Some("true" | "") => true,
        Some(other) => return Err(invalid(format!("`snapshot` is true or false, and not `{other}`"))),
    };
    let last = service.changes.last();
    let now = *last.borrow();
    let stage = match last_id(&headers).map(|id| service.place_of(id, &spec.name)) {
        Some(Some(at)) => Stage::Live(at),
        Some(None) => Stage::Reset,
        None if is_whole => Stage::Table,
        None => Stage::Begin(now),
    };
    let changes = Changes { service: Arc::clone(&service), spec, last, stage };
    Ok(service.live.answer(changes)?.into_response())
}

impl QueryService {
    /// The place that an id names, if one can go on from there.
    fn place_of(&self, id: &str, projection: &str) -> Option<u64> {
        let (run, number) = id.split_once('-')?;
        let number = number.parse().ok().filter(|_| run == self.run)?;
        self.changes.after(number, projection).map(|_| number)
    }

    fn id_of(&self, at: u64) -> String {
        format!("{}-{at}", self.run)
    }
}

/// Someone who follows a projection.
struct Changes {
    service: Arc<QueryService>,
    spec: Arc<ProjectionSpec>,
    last: watch::Receiver<u64>,
    stage: Stage,
}

enum Stage {
    /// Nothing was said yet; changes after this number are to come.
    Begin(u64),
    /// The client must forget what it has.
    Reset,
    /// The whole table is to come.
    Table,
    /// The table is coming; then the changes after this number.
    Reading(mpsc::Receiver<Result<Vec<Event>>>, u64),
    /// Changes after this number are to come.
    Live(u64),
}

impl Follow for Changes {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Event>>> {
        self.step().boxed()
    }
}

impl Changes {
    async fn step(&mut self) -> Result<Vec<Event>> {
        match &mut self.stage {
            Stage::Begin(at) => {
                let at = *at;
                self.stage = Stage::Live(at);
                Ok(vec![begun(&self.service.id_of(at))])
            }
            Stage::Reset => {
                self.stage = Stage::Table;
                Ok(vec![Event::default().event("reset").data("{}")])
            }
            Stage::Table => {
                // Rows that change while the table is read come again after it.
                let at = *self.last.borrow();
                self.stage = Stage::Reading(self.read_table(), at);
                Ok(Vec::new())
            }
            Stage::Reading(rows, at) => {
                let at = *at;
                if let Some(events) = rows.recv().await {
                    return events;
                }
                self.stage = Stage::Live(at);
                Ok(vec![begun(&self.service.id_of(at))])
            }
            Stage::Live(at) => {
                let at = *at;
                self.last
                    .wait_for(|last| *last > at)
                    .await
                    .map_err(|_| Error::Unavailable("the engine has ended".into()))?;
                let Some((changed, now)) = self.service.changes.after(at, &self.spec.name) else {
                    self.stage = Stage::Reset;
                    return Ok(Vec::new());
                };
                let mut events = self.rows_of(&changed).await?;
                if let Some(last) = events.pop() {
                    events.push(last.id(self.service.id_of(now)));
                }
                self.stage = Stage::Live(now);
                Ok(events)
            }
        }
    }

    fn read_table(&self) -> mpsc::Receiver<Result<Vec<Event>>> {
        let (give, take) = mpsc::channel(READ_AHEAD);
        let (store, spec, began) = (Arc::clone(&self.service.storage.store), Arc::clone(&self.spec), Instant::now());
        tokio::task::spawn_blocking(move || {
            let scanned = store.scan(&spec, &mut |rows| {
                let events = messages(&spec, &rows);
                began.elapsed() < TABLE_PATIENCE && give.blocking_send(events).is_ok()
            });
            let late = || Error::Unavailable(format!("the table was not read within {} s", TABLE_PATIENCE.as_secs()));
            let outcome = scanned.and_then(|()| if began.elapsed() < TABLE_PATIENCE { Ok(()) } else { Err(late()) });
            if let Err(error) = outcome {
                // Who has gone does not need to know.
                let _ = give.blocking_send(Err(error));
            }
        });
        take
    }

    /// The rows of changed keys, as they are now.
    async fn rows_of(&self, changed: &[RecordBatch]) -> Result<Vec<Event>> {
        let mut keys = Vec::new();
        let mut seen = HashSet::new();
        // The newest change of a row stands for all.
        for batch in changed.iter().rev() {
            let columns: Vec<usize> = (0..batch.num_columns()).collect();
            let columns = cornjacket_storage::key_columns(batch, &columns)?;
            for row in (0..batch.num_rows()).rev() {
                let key: Vec<Option<String>> = columns.iter().map(|column| column[row].clone()).collect();
                if seen.insert(key.clone()) {
                    keys.push(key);
                }
            }
        }
        keys.reverse();
        let mut events = Vec::new();
        for keys in keys.chunks(LOOKED_UP) {
            let (store, spec, keys) = (Arc::clone(&self.service.storage.store), Arc::clone(&self.spec), keys.to_vec());
            let looked_up = blocking(move || {
                let mut events = Vec::new();
                for key in keys {
                    match store.row(&spec, &key)? {
                        Some(row) => events.extend(messages(&spec, &row)?),
                        None => events.push(gone(&spec, &key)),
                    }
                }
                Ok(events)
            });
            events.extend(looked_up.await.map_err(|problem| Error::Unavailable(problem.error))?);
        }
        Ok(events)
    }
}

/// A message for each row.
fn messages(spec: &ProjectionSpec, rows: &RecordBatch) -> Result<Vec<Event>> {
    let objects = objects(spec, rows).map_err(|problem| Error::Compute(problem.error))?;
    Ok(objects.into_iter().map(|object| Event::default().data(object.to_string())).collect())
}

/// A row that is not there any more.
fn gone(spec: &ProjectionSpec, key: &[Option<String>]) -> Event {
    let name = |at: &usize| spec.schema.field(*at).name().clone();
    let key: Map<String, Value> = spec.key.iter().map(name).zip(key.iter().map(|value| json!(value))).collect();
    Event::default().event("delete").data(json!({"projection_type": spec.name, "key": key}).to_string())
}
