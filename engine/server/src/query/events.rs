//! The event store over HTTP: events by type, aggregate and time, and what became of one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use cornjacket_core::Error;
use cornjacket_core::catalogue::{Catalogue, ENVELOPE};
use cornjacket_core::dead_letter::LetterFilter;
use cornjacket_core::delivery::{Delivery, DeliveryFilter};
use cornjacket_core::id::{EventId, partition_of};
use cornjacket_core::log::{Chunk, Columns, EventLog, Positions, TopicPartition};
use cornjacket_core::print::{NonFinite, row_objects};
use cornjacket_core::store::Store;
use cornjacket_core::time::{Micros, parse_rfc3339};
use serde_json::{Map, Value, json};

use super::format::Format;
use super::workers::wire::Question;
use super::{QueryService, arrivals, blocking, invalid, live};
use crate::http::{Answered, Problem};

const DEFAULT_LIMIT: u64 = 100;
const MOST: u64 = 10_000;
/// Events read from the log at a time.
const SLICE_ROWS: usize = 8_192;
/// How long a look through the log may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many of an event's dead letters are shown.
const MAX_LETTERS: u64 = 1_000;

type Pairs = Query<Vec<(String, String)>>;

/// What is asked for.
#[derive(Default)]
pub(super) struct Wanted {
    event_type: Option<String>,
    aggregate_id: Option<String>,
    from: Option<Micros>,
    to: Option<Micros>,
    limit: u64,
}

impl Wanted {
    fn read(pairs: &Pairs, catalogue: &Catalogue) -> Result<Self, Problem> {
        let mut wanted = Self { limit: DEFAULT_LIMIT, ..Self::default() };
        for (name, value) in &pairs.0 {
            let time = || {
                let time = parse_rfc3339(value);
                time.ok_or_else(|| invalid(format!("`{name}` must be a time such as 2026-01-01T00:00:00Z")))
            };
            match name.as_str() {
                "event_type" if catalogue.types.contains_key(value) => wanted.event_type = Some(value.clone()),
                "event_type" => return Err(invalid(format!("there is no event type `{value}`"))),
                "aggregate_id" => wanted.aggregate_id = Some(value.clone()),
                "from" => wanted.from = Some(time()?),
                "to" => wanted.to = Some(time()?),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| *limit <= MOST);
                    wanted.limit =
                        limit.ok_or_else(|| invalid(format!("`limit` must be a whole number up to {MOST}")))?;
                }
                _ => {
                    let known = "event_type, aggregate_id, from, to, limit";
                    return Err(invalid(format!("there is no parameter `{name}`; known are {known}")));
                }
            }
        }
        Ok(wanted)
    }

    /// Where reading begins: partitions that cannot hold what is wanted are passed over.
    fn begin(&self, catalogue: &Catalogue, end: &Positions) -> Positions {
        let topic = self.event_type.as_ref().and_then(|name| catalogue.types.get(name)).map(|t| t.topic.as_str());
        let may_hold = |at: &TopicPartition| {
            let partitions = catalogue.topics.get(&*at.topic).copied().unwrap_or(1);
            let own = self.aggregate_id.as_ref().map(|id| partition_of(id.as_bytes(), partitions));
            topic.is_none_or(|topic| *at.topic == *topic) && own.is_none_or(|own| own == at.partition)
        };
        Positions(end.0.iter().filter(|(at, _)| !may_hold(at)).map(|(at, offset)| (at.clone(), *offset)).collect())
    }

    fn fits(&self, event: &Map<String, Value>) -> bool {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let time = text("event_time").and_then(parse_rfc3339).unwrap_or_default();
        self.aggregate_id.as_deref().is_none_or(|id| text("aggregate_id") == Some(id))
            && self.from.is_none_or(|from| time >= from)
            && self.to.is_none_or(|to| time < to)
    }
}

/// `GET /api/v1/events?event_type&aggregate_id&from&to&limit`; as server-sent events it gives what comes from now on.
pub async fn list(State(service): State<Arc<QueryService>>, pairs: Pairs, headers: HeaderMap) -> Answered {
    let wanted = Wanted::read(&pairs, &service.catalogue)?;
    if live::is_wanted(&headers) {
        if pairs.iter().any(|(name, _)| name == "limit") {
            return Err(invalid("what is followed has no end: leave `limit` out"));
        }
        return arrivals::follow(&service, wanted, live::last_id(&headers));
    }
    let (log, catalogue, limit) = (Arc::clone(&service.storage.log), Arc::clone(&service.catalogue), wanted.limit);
    let (events, truncated) = blocking(move || look(&*log, &catalogue, &wanted)).await?;
    Ok(Json(json!({"events": events, "limit": limit, "truncated": truncated})).into_response())
}

/// The first events that fit, in the order in which they are stored, and whether there are more.
fn look(log: &dyn EventLog, catalogue: &Catalogue, wanted: &Wanted) -> cornjacket_core::Result<(Vec<Value>, bool)> {
    let (end, started) = (log.end(), Instant::now());
    let (mut at, mut events) = (wanted.begin(catalogue, &end), Vec::new());
    loop {
        let (found, behind) = slice(log, catalogue, wanted, (&at, &end))?;
        if behind == at {
            return Ok((events, false));
        }
        at = behind;
        for event in found {
            if events.len() as u64 == wanted.limit {
                return Ok((events, true));
            }
            events.push(event);
        }
        if started.elapsed() > PATIENCE {
            return Err(Error::Unavailable(format!(
                "looking through the log took longer than {} s: name the event_type and aggregate_id, or ask in SQL",
                PATIENCE.as_secs()
            )));
        }
    }
}

/// The events that fit in a slice of the log between two places, and the place behind it.
pub(super) fn slice(
    log: &dyn EventLog,
    catalogue: &Catalogue,
    wanted: &Wanted,
    (from, until): (&Positions, &Positions),
) -> cornjacket_core::Result<(Vec<Value>, Positions)> {
    let types = catalogue.types.keys().filter(|name| wanted.event_type.as_ref().is_none_or(|only| only == *name));
    // The envelope is all that is answered; the payload's fields are in its text.
    let envelope: Vec<usize> = (0..cornjacket_core::catalogue::stored::FIELDS).collect();
    let columns = Columns::Only(types.map(|name| (name.clone(), envelope.clone())).collect::<BTreeMap<_, _>>());
    let slice = log.read(from, Some(until), SLICE_ROWS, &columns)?;
    let mut found = Vec::new();
    for chunk in &slice.chunks {
        found.extend(objects(chunk)?.into_iter().filter(|event| wanted.fits(event)).map(shown));
    }
    Ok((found, slice.end))
}

fn objects(chunk: &Chunk) -> cornjacket_core::Result<Vec<Map<String, Value>>> {
    let columns: Vec<usize> = (0..ENVELOPE.len()).collect();
    let rows = chunk.event_type.table_rows(&chunk.rows, Some(&columns))?.project(&columns)?;
    row_objects(&rows, NonFinite::Null)
}

/// JSON texts as the JSON that they are.
fn shown(mut event: Map<String, Value>) -> Value {
    for name in ["payload", "metadata"] {
        if let Some(value) = event.get_mut(name)
            && let Some(parsed) = value.as_str().and_then(|text| serde_json::from_str(text).ok())
        {
            *value = parsed;
        }
    }
    Value::Object(event)
}

/// `GET /api/v1/events/{id}`: one event, and what became of it.
pub async fn one(State(service): State<Arc<QueryService>>, Path(id): Path<String>) -> Answered {
    let id = EventId::parse(&id).ok_or_else(|| invalid(format!("`{id}` is no event id")))?;
    let storage = service.storage.clone();
    let found = blocking(move || {
        let Some((at, offset)) = storage.log.find(id)? else { return Ok(None) };
        let event = stored(&*storage.log, &at, offset)?;
        let text = id.to_string();
        let outcome = (letters(&*storage.store, &text)?, deliveries(&*storage.store, &text)?);
        Ok(Some((event, outcome, at, offset)))
    });
    let Some((event, (letters, deliveries), at, offset)) = found.await? else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "event_not_found", format!("there is no event {id}")));
    };
    let reflected = service.status.borrow().positions.get(&at) > offset;
    let trace = json!({
        "topic": &*at.topic,
        "partition": at.partition,
        "offset": offset,
        "reflected": reflected,
        "projections": newest_of(&service, id).await,
        "deliveries": deliveries,
        "dead_letters": letters,
    });
    Ok(Json(json!({"event": event, "trace": trace})).into_response())
}

/// The event at an offset.
fn stored(log: &dyn EventLog, at: &TopicPartition, offset: i64) -> cornjacket_core::Result<Value> {
    let end = log.end();
    let mut from = end.clone();
    from.0.insert(at.clone(), offset);
    let until = Positions(BTreeMap::from([(at.clone(), offset + 1)]));
    let slice = log.read(&from, Some(&until), 1, &Columns::All)?;
    let of = |chunk: &Chunk| {
        let row = chunk.offsets.values().iter().position(|found| *found == offset)?;
        Some(objects(chunk).map(|mut events| shown(events.swap_remove(row))))
    };
    slice
        .chunks
        .iter()
        .find_map(of)
        .unwrap_or_else(|| Err(Error::Corrupt("an event that is known is not there".into())))
}

/// What went wrong with an event.
fn letters(store: &dyn Store, id: &str) -> cornjacket_core::Result<Vec<Value>> {
    let filter = LetterFilter { event_id: Some(id.into()), ..LetterFilter::default() };
    let found = store.dead_letters(&filter, MAX_LETTERS)?.into_iter().map(|stored| {
        let (letter, state) = (stored.letter, stored.state.as_str());
        let (reason, source, message) = (letter.reason, letter.source, letter.message);
        json!({"id": stored.id, "reason": reason, "source": source, "message": message, "state": state})
    });
    Ok(found.collect())
}

/// What was sent because of an event: where a webhook's row is the event itself. A row that was computed from many events
/// has the id of none.
fn deliveries(store: &dyn Store, id: &str) -> cornjacket_core::Result<Vec<Value>> {
    let filter = DeliveryFilter { event_id: Some(id.into()), ..DeliveryFilter::default() };
    let shown = |one: Delivery| json!({"id": one.id, "action": one.sink, "status": one.state.as_str(), "attempts": one.attempts});
    Ok(store.deliveries(&filter, MAX_LETTERS)?.into_iter().map(shown).collect())
}

/// The projections in which a row is this event.
async fn newest_of(service: &QueryService, id: EventId) -> Vec<String> {
    let mut names = Vec::new();
    for name in service.projections.keys() {
        let sql = format!("SELECT last_event_id FROM \"{name}\" WHERE last_event_id = $1 LIMIT 1");
        let (params, format) = (vec![Value::from(id.to_string())], Format::Ndjson);
        let Ok(mut answer) = service.workers.ask(Question { sql, params, format, limit: 1 }).await else { continue };
        if let Some(Ok(line)) = answer.next().await
            && !line.is_empty()
        {
            names.push(name.clone());
        }
    }
    names
}
