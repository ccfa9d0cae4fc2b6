//! `http`: events by `POST /api/v1/events`, one envelope a request.
//!
//! A client has its 202 only after the event is durable, and the event's id with it. Whatever goes wrong before that
//! has an answer that says whether to send again: a 4xx never will be taken, a 503 may be, after `Retry-After`. A
//! client that saw no answer sends the same `event_id` or `Idempotency-Key` again, which is stored once.
//!
//! Memory is bounded: a body by its limit while it is read, all bodies that are being read together by a budget. A
//! client that sends too slowly is let go.

mod answer;
mod body;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cornjacket_core::component::{BuiltSource, Description, SourceSpec, parse_settings};
use cornjacket_core::door::{ClientId, Door, Submission};
use cornjacket_core::id::EventId;
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use answer::Problem;
use body::{Budget, Reader};

/// Its entry in the registry.
pub const SPEC: SourceSpec = SourceSpec {
    description: Description {
        kind: "http",
        summary: "Takes events by HTTP: POST /api/v1/events on the ingest port.",
        guarantee: "202 only when the event is durable. The same event_id or Idempotency-Key again gives the same \
                    answer and no second event. While the log cannot be written clients get 503 and Retry-After.",
        example: "max_body_bytes: 65536",
        schema: || schemars::schema_for!(Settings),
    },
    parse: parse_settings::<Settings>,
    build: |_, _| Ok(BuiltSource::Served),
};

/// Settings of the http source.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The greatest size of an event, in bytes; 1 MiB unless set, and never more.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_048_576), example = 65_536, extend("default" = 1_048_576))]
    pub max_body_bytes: Option<NonZeroU32>,
}

const MAX_BODY_BYTES: usize = 1 << 20;

/// How long a client may take to send a body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How many bytes of bodies may be in the making at once, over all connections.
const READ_BUDGET: usize = 64 << 20;

/// The greatest length of an `Idempotency-Key`.
const MAX_KEY_BYTES: usize = 255;

/// Who sent a request: what authentication found out, put into the request's extensions. Idempotency keys are the
/// caller's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub Arc<str>);

/// How a source's routes treat clients, beside its settings.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a client may take to send a body.
    pub read_timeout: Duration,
    /// How many bytes of bodies may be in the making at once.
    pub read_budget: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self { read_timeout: READ_TIMEOUT, read_budget: READ_BUDGET }
    }
}

struct Ingest {
    door: Arc<dyn Door>,
    source: Arc<str>,
    reader: Reader,
}

/// The routes of a source, with answers in JSON for whatever they do not know. The server that they run in sees to the
/// time that headers may take, and should let clients close their half of the connection.
pub fn routes(door: Arc<dyn Door>, settings: &Settings, source_name: &str) -> Router {
    routes_with(door, settings, source_name, Patience::default())
}

/// As [`routes`], with other bounds.
pub fn routes_with(door: Arc<dyn Door>, settings: &Settings, source_name: &str, patience: Patience) -> Router {
    let max_bytes = settings.max_body_bytes.and_then(|bytes| usize::try_from(bytes.get()).ok());
    let max_bytes = max_bytes.map_or(MAX_BODY_BYTES, |bytes| bytes.min(MAX_BODY_BYTES));
    let reader = Reader { max_bytes, timeout: patience.read_timeout, budget: Budget::new(patience.read_budget) };
    let ingest = Arc::new(Ingest { door, source: source_name.into(), reader });
    let post_only = async |request: Request| Problem::wrong_method(request.method()).into_response();
    Router::new()
        .route("/api/v1/events", post(take_event).fallback(post_only))
        .with_state(ingest)
        .fallback(async |request: Request| Problem::not_found(request.uri().path()).into_response())
}

async fn take_event(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    match ingest.take(request).await {
        Ok(id) => answer::accepted(id),
        Err(problem) => problem.into_response(),
    }
}

impl Ingest {
    async fn take(&self, request: Request) -> Result<EventId, Problem> {
        let (parts, body) = request.into_parts();
        check_type(&parts.headers)?;
        let client_id = client_id(&parts.headers, parts.extensions.get::<Caller>())?;
        let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = self.reader.read(body, declared).await?;
        let answer = self.door.submit(Submission { body, client_id, source: Arc::clone(&self.source) });
        Ok(answer.await?)
    }
}

/// Only JSON in plain UTF-8. Other types are refused even where the body would do, since a browser sends some of them
/// across sites without asking.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(Problem::unsupported(format!("the content encoding {encoding:?} is not supported here")));
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let is_json = essence == "application/json" || essence.starts_with("application/") && essence.ends_with("+json");
    let charset = parts.find_map(|part| part.strip_prefix("charset="));
    match charset.map(|charset| charset.trim_matches('"')) {
        None | Some("utf-8" | "utf8" | "us-ascii") if is_json => Ok(()),
        _ => Err(Problem::unsupported(format!("the content type is {value:?}, send application/json in UTF-8"))),
    }
}

/// The identity in the `Idempotency-Key`, if there is one.
fn client_id(headers: &HeaderMap, caller: Option<&Caller>) -> Result<Option<ClientId>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    // Of two different keys neither can be trusted to be the event's.
    if keys.any(|other| other != key) {
        return Err(Problem::wrong_key());
    }
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES);
    let key = key.ok_or_else(Problem::wrong_key)?;
    let caller = caller.map_or("", |caller| &caller.0);
    // The length keeps a caller's name and the key apart.
    let hash = Sha256::new().chain_update(caller.len().to_be_bytes()).chain_update(caller).chain_update(key).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Ok(Some(ClientId { id: EventId::v8(id), original: key.to_owned() }))
}
