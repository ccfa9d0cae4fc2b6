//! `http`: events by `POST /api/v1/events`, one a request, and by `POST /api/v1/events/batch`, any number.
//!
//! A client has its 202 only after the event is durable, and the event's id with it. Whatever goes wrong before that
//! has an answer that says whether to send again: a 4xx never will be taken, a 503 may be, after `Retry-After`. A
//! client that saw no answer sends the same `event_id` or `Idempotency-Key` again, which is stored once.
//!
//! Memory is bounded: a body by its limit while it is read, all bodies that are being read together by a budget. A
//! client that sends too slowly is let go.

mod answer;
mod batch;
mod body;
mod content;
mod packed;
mod rate;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cornjacket_core::component::{BuiltSource, Description, SourceSpec, parse_settings};
use cornjacket_core::door::{ClientId, Door, Form, Refusal, Rejection, Submission};
use cornjacket_core::id::EventId;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;

use answer::Problem;
use body::{Budget, Reader};
use content::Key;

pub use packed::zstd;
pub use rate::Rate;

/// Its entry in the registry.
pub const SPEC: SourceSpec = SourceSpec {
    description: Description {
        kind: "http",
        summary: "Takes events by HTTP: POST /api/v1/events and /api/v1/events/batch on the ingest port.",
        guarantee: "202 only when the events are durable. The same event_id, CloudEvent or Idempotency-Key again gives the \
                    same answer and no second event. While the log cannot be written clients get 503 and Retry-After.",
        example: "max_body_bytes: 65536",
        schema: || schemars::schema_for!(Settings),
    },
    parse: parse_settings::<Settings>,
    build: |_, _| Ok(BuiltSource::Served { envelope: None }),
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

/// How long a client may take to send an event, or a batch's next byte.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How many bytes of bodies may be in the making at once, over all connections.
const READ_BUDGET: usize = 64 << 20;

/// How many bytes may be taken beside that for decompressing: some 15 bodies in zstd, a thousand in gzip.
const DECODER_BUDGET: usize = 128 << 20;

/// Who sent a request: what authentication found out, put into the request's extensions. Idempotency keys are the
/// caller's own.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name of the caller's key.
    pub name: Arc<str>,
    /// How many events it may hand in.
    pub rate: Option<Arc<Rate>>,
}

/// How a source's routes treat clients, beside its settings.
#[derive(Clone, Debug)]
pub struct Patience {
    /// How long a client may take to send an event, or a batch's next byte.
    pub read_timeout: Duration,
    /// How many bytes of bodies may be in the making at once.
    pub read_budget: usize,
    /// Says true when batches under way are to end: what they have sent is stored and counted in their answer.
    pub end: Option<watch::Receiver<bool>>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { read_timeout: READ_TIMEOUT, read_budget: READ_BUDGET, end: None }
    }
}

struct Ingest {
    door: Arc<dyn Door>,
    source: Arc<str>,
    reader: Reader,
    decoders: Budget,
    end: Option<watch::Receiver<bool>>,
}

/// Why an event was not taken.
enum Failed {
    /// It is wrong.
    Rejected(Rejection),
    /// Something else is.
    Problem(Problem),
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
    let decoders = Budget::new(DECODER_BUDGET);
    let ingest = Arc::new(Ingest { door, source: source_name.into(), reader, decoders, end: patience.end });
    let post_only = async |request: Request| Problem::wrong_method(request.method()).into_response();
    Router::new()
        .route("/api/v1/events", post(take_event).fallback(post_only))
        .route("/api/v1/events/batch", post(batch::take).fallback(post_only))
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
        let form = content::of_event(&parts.headers)?;
        let key = Key::of(&parts.headers, parts.extensions.get::<Caller>())?;
        self.take_one(&parts, body, form, key.map(Key::identity)).await.map_err(|failed| match failed {
            Failed::Rejected(rejection) => rejection.into(),
            Failed::Problem(problem) => problem,
        })
    }

    /// Takes a body that is one event.
    async fn take_one(
        &self,
        parts: &Parts,
        body: Body,
        form: Form,
        client_id: Option<ClientId>,
    ) -> Result<EventId, Failed> {
        let rate = parts.extensions.get::<Caller>().and_then(|caller| caller.rate.as_deref());
        rate.map_or(Ok(()), |rate| rate.take(1)).map_err(|wait| Failed::Problem(Problem::over_rate(wait)))?;
        let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = self.reader.read(body, declared).await.map_err(Failed::Problem)?;
        let answer = self.door.submit(Submission { body, form, client_id, source: Arc::clone(&self.source) });
        answer.await.map_err(|refusal| match refusal {
            Refusal::Rejected(rejection) => Failed::Rejected(rejection),
            other => Failed::Problem(other.into()),
        })
    }

    fn is_ending(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end.borrow())
    }

    /// Returns when batches are to end.
    async fn told_to_end(&self) {
        match self.end.clone() {
            // Without its sender nobody would tell.
            Some(mut end) => drop(end.wait_for(|end| *end).await),
            None => std::future::pending().await,
        }
    }
}
