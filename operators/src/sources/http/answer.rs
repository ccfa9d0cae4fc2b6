//! The answers: 202 with the id, or what is wrong, always as JSON.

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cornjacket_core::door::{Detail, Refusal, Rejection, RejectionKind};
use cornjacket_core::id::EventId;
use serde::Serialize;

/// After how many seconds to try again, where there is too much to do at the moment.
const RETRY_BUSY: &str = "1";
/// After how many seconds to try again, where something is down.
const RETRY_DOWN: &str = "5";

/// The answer to an event that is durable.
pub(super) fn accepted(id: EventId) -> Response {
    let body = format!("{{\"event_id\":\"{id}\",\"status\":\"accepted\"}}");
    json(StatusCode::ACCEPTED, body)
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Why a request failed.
pub(super) struct Problem {
    status: StatusCode,
    body: Body,
    /// Another header that the answer needs: its name in lower case, and its value.
    header: Option<(&'static str, &'static str)>,
}

#[derive(Serialize)]
struct Body {
    error: String,
    code: &'static str,
    details: Vec<Detail>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self { status, body: Body { error: error.into(), code, details: Vec::new() }, header: None }
    }

    fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The connection is of no more use: part of the request was not read.
    fn closing(self) -> Self {
        self.with_header("connection", "close")
    }

    pub fn not_found(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {path}"))
    }

    pub fn wrong_method(method: &Method) -> Self {
        let error = format!("{method} is not possible here, only POST");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", error).with_header("allow", "POST")
    }

    pub fn unsupported(error: String) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", error)
    }

    pub fn wrong_key() -> Self {
        let error = "there is one Idempotency-Key at most, with 1 to 255 visible ASCII characters";
        Self::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", error)
    }

    pub fn too_large(max_bytes: usize) -> Self {
        let error = format!("the event has more than the {max_bytes} bytes that are allowed");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error).closing()
    }

    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time").closing()
    }

    pub fn unreadable(error: &axum::Error) -> Self {
        let error = format!("the body cannot be read: {error}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", error).closing()
    }

    pub fn busy() -> Self {
        let error = "there is more to do than can be done now, try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error).with_header("retry-after", RETRY_BUSY)
    }

    fn down(code: &'static str, error: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error).with_header("retry-after", RETRY_DOWN)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejected(rejection) => rejection.into(),
            Refusal::Busy => Self::busy(),
            Refusal::Unavailable(reason) => Self::down("unavailable", format!("events cannot be stored now: {reason}")),
            Refusal::Closing => Self::down("closing", "the service is shutting down".into()),
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection.kind {
            RejectionKind::Malformed => StatusCode::BAD_REQUEST,
            RejectionKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            RejectionKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        };
        let body = Body { error: rejection.message, code: rejection.code, details: rejection.details };
        Self { status, body, header: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Texts and numbers always serialize.
        let body = serde_json::to_string(&self.body).unwrap_or_default();
        let mut response = json(self.status, body);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }
}
