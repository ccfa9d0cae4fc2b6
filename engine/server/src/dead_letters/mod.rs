//! Dead letters over HTTP: the query service shows them, the ingest service takes them in again or discards them.

mod replay;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cornjacket_compiler::Pipeline;
use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::dead_letter::{LetterFilter, LetterState, StoredDeadLetter};
use cornjacket_core::door::{Door, EnvelopeTemplate};
use cornjacket_core::environment::Clock;
use cornjacket_core::store::{Storage, Store};
use cornjacket_core::time::{Micros, format_rfc3339, parse_rfc3339};
use serde_json::{Value, json};

use crate::http::{Answered, Problem};

const DEFAULT_LIMIT: u64 = 100;
const MOST: u64 = 10_000;
/// The greatest length of an edited body.
const MAX_BODY: usize = 16 << 20;

type Pairs = Query<Vec<(String, String)>>;

/// What the handlers share.
pub struct DeadLetterService {
    pub(self) store: Arc<dyn Store>,
    pub(self) door: Arc<dyn Door>,
    pub(self) clock: Arc<dyn Clock>,
    pub(self) catalogue: Arc<Catalogue>,
    pub(self) pipeline: String,
    /// The pipeline's sources, with how their messages become events.
    pub(self) sources: BTreeMap<String, Option<Arc<EnvelopeTemplate>>>,
}

impl DeadLetterService {
    /// A service over a pipeline's storage and door.
    pub fn new(pipeline: &Pipeline, storage: &Storage, door: Arc<dyn Door>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let sources = pipeline.sources.iter().map(|source| (source.name.clone(), source.built.envelope()));
        Arc::new(Self {
            store: Arc::clone(&storage.store),
            door,
            clock,
            catalogue: Arc::clone(&pipeline.catalogue),
            pipeline: pipeline.name.clone(),
            sources: sources.collect(),
        })
    }
}

/// What the query service shows.
pub fn read_routes(service: Arc<DeadLetterService>) -> Router {
    Router::new()
        .route("/api/v1/dead_letters", get(list))
        .route("/api/v1/dead_letters/{id}", get(one))
        .with_state(service)
}

/// What the ingest service does with them.
pub fn write_routes(service: Arc<DeadLetterService>) -> Router {
    Router::new()
        .route("/api/v1/dead_letters/{id}/replay", post(replay))
        .route("/api/v1/dead_letters/{id}/discard", post(discard))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(service)
}

fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> cornjacket_core::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let failed = |text: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", text);
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

/// `GET /api/v1/dead_letters?reason&source&state&event_id&from&to&before&limit`
async fn list(State(service): State<Arc<DeadLetterService>>, pairs: Pairs) -> Answered {
    let (filter, limit) = wanted(&pairs)?;
    let store = Arc::clone(&service.store);
    let letters = blocking(move || store.dead_letters(&filter, limit)).await?;
    let more = letters.len() as u64 == limit;
    let next = letters.last().filter(|_| more).map(|last| last.id);
    let shown: Vec<Value> = letters.into_iter().map(shown).collect();
    Ok(Json(json!({"dead_letters": shown, "limit": limit, "next_before": next})).into_response())
}

fn wanted(pairs: &Pairs) -> Result<(LetterFilter, u64), Problem> {
    let (mut filter, mut limit) = (LetterFilter::default(), DEFAULT_LIMIT);
    for (name, value) in &pairs.0 {
        let time = || -> Result<Option<Micros>, Problem> {
            let time = parse_rfc3339(value);
            time.map(Some).ok_or_else(|| invalid(format!("`{name}` must be a time such as 2026-01-01T00:00:00Z")))
        };
        match name.as_str() {
            "reason" => filter.reason = Some(value.clone()),
            "source" => filter.source = Some(value.clone()),
            "event_id" => filter.event_id = Some(value.clone()),
            "from" => filter.from = time()?,
            "to" => filter.to = time()?,
            "state" => {
                let state = LetterState::parse(value);
                filter.state = Some(state.ok_or_else(|| invalid("`state` is open, replayed or discarded"))?);
            }
            "before" => {
                let before = value.parse();
                filter.before = Some(before.map_err(|_| invalid("`before` is the number of a dead letter"))?);
            }
            "limit" => {
                let number = value.parse().ok().filter(|limit| *limit <= MOST);
                limit = number.ok_or_else(|| invalid(format!("`limit` must be a whole number up to {MOST}")))?;
            }
            _ => {
                let known = "reason, source, state, event_id, from, to, before, limit";
                return Err(invalid(format!("there is no parameter `{name}`; known are {known}")));
            }
        }
    }
    Ok((filter, limit))
}

/// `GET /api/v1/dead_letters/{id}`
async fn one(State(service): State<Arc<DeadLetterService>>, Path(id): Path<String>) -> Answered {
    Ok(Json(shown(service.find(&id).await?)).into_response())
}

/// A dead letter as clients see it: its body as text where it is text, else in Base64.
fn shown(stored: StoredDeadLetter) -> Value {
    let StoredDeadLetter { id, recorded_at, version, state, settled_at, letter } = stored;
    let mut object = json!({
        "id": id,
        "recorded_at": format_rfc3339(recorded_at),
        "reason": letter.reason,
        "source": letter.source,
        "message": letter.message,
        "event_id": letter.event_id,
        "event_time": letter.event_time.map(format_rfc3339),
        "place": letter.place,
        "variables": letter.variables,
        "pipeline_version": version,
        "state": state.as_str(),
        "settled_at": settled_at.map(format_rfc3339),
    });
    match String::from_utf8(letter.body) {
        Ok(text) => object["body"] = text.into(),
        Err(bytes) => object["body_base64"] = STANDARD.encode(bytes.into_bytes()).into(),
    }
    object
}

impl DeadLetterService {
    async fn find(&self, id: &str) -> Result<StoredDeadLetter, Problem> {
        let missing = || Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no dead letter `{id}`"));
        let number: i64 = id.parse().map_err(|_| missing())?;
        let store = Arc::clone(&self.store);
        blocking(move || store.dead_letter(number)).await?.ok_or_else(missing)
    }

    async fn settle(&self, id: i64, state: LetterState) -> Result<bool, Problem> {
        let (store, now) = (Arc::clone(&self.store), self.clock.now());
        blocking(move || store.settle_dead_letter(id, state, now)).await
    }
}

fn settled(stored: &StoredDeadLetter) -> Problem {
    let message = format!("dead letter {} is {} already", stored.id, stored.state.as_str());
    Problem::new(StatusCode::CONFLICT, "settled", message)
}

/// `POST /api/v1/dead_letters/{id}/discard`
async fn discard(State(service): State<Arc<DeadLetterService>>, Path(id): Path<String>) -> Answered {
    let stored = service.find(&id).await?;
    if stored.state == LetterState::Replayed {
        return Err(settled(&stored));
    }
    service.settle(stored.id, LetterState::Discarded).await?;
    Ok(Json(json!({"id": stored.id, "state": "discarded"})).into_response())
}

/// `POST /api/v1/dead_letters/{id}/replay?dry_run`, with an edited body if there is one.
async fn replay(
    State(service): State<Arc<DeadLetterService>>,
    Path(id): Path<String>,
    pairs: Pairs,
    body: Bytes,
) -> Answered {
    let dry_run = match pairs.iter().find(|(name, _)| name == "dry_run").map(|(_, value)| value.as_str()) {
        None | Some("false" | "0") => false,
        Some("" | "true" | "1") => true,
        Some(_) => return Err(invalid("`dry_run` is true or false")),
    };
    let stored = service.find(&id).await?;
    if stored.state != LetterState::Open {
        return Err(settled(&stored));
    }
    let edited = (!body.is_empty()).then(|| body.to_vec());
    service.replay(stored, edited, dry_run).await
}
