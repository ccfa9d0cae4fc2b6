//! The answers: 202 with the id or the number of events, or what is wrong, always as JSON.

use std::time::Duration;

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

pub(super) fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: Body,
    /// More headers that the answer needs: names in lower case, and values.
    headers: Vec<(&'static str, String)>,
}

#[derive(Debug, Serialize)]
struct Body {
    error: String,
    code: &'static str,
    details: Vec<Detail>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self { status, body: Body { error: error.into(), code, details: Vec::new() }, headers: Vec::new() }
    }

    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The connection is of no more use: part of the request was not read.
    pub fn closing(self) -> Self {
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

    pub fn wrong_attribute(name: &str) -> Self {
        let error = format!("the header ce-{name} is not UTF-8 once it is percent-decoded");
        Self::new(StatusCode::BAD_REQUEST, "invalid_cloudevent", error)
    }

    pub fn too_large(max_bytes: usize) -> Self {
        let error = format!("the event has more than the {max_bytes} bytes that are allowed");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error).closing()
    }

    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time").closing()
    }

    pub fn unreadable(error: &dyn std::fmt::Display) -> Self {
        let error = format!("the body cannot be read: {error}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", error).closing()
    }

    pub fn empty() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "empty_body", "the body is empty, and events were expected")
    }

    pub fn no_batch(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", error).closing()
    }

    pub fn too_many_rejected(limit: usize) -> Self {
        let error = format!("more than {limit} events were rejected, so the rest was not read");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "too_many_rejected", error).closing()
    }

    pub fn all_rejected() -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "all_rejected", "every event was rejected")
    }

    pub fn busy() -> Self {
        let error = "there is more to do than can be done now, try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error).with_header("retry-after", RETRY_BUSY)
    }

    /// The caller hands in more events than its key allows.
    pub fn over_rate(wait: Duration) -> Self {
        // At least a second, so that nobody tries again at once.
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        let error = format!("this key hands in more events than it may, try again in {seconds} s");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", error).with_header("retry-after", seconds.to_string())
    }

    pub fn closing_down() -> Self {
        Refusal::Closing.into()
    }

    fn down(code: &'static str, error: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error).with_header("retry-after", RETRY_DOWN)
    }

    #[cfg(test)]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer, with more members of the JSON object, which begin with a comma.
    pub fn with_members(self, members: &str) -> Response {
        // Texts and numbers always serialize.
        let mut body = serde_json::to_string(&self.body).unwrap_or_default();
        body.truncate(body.len().saturating_sub(1));
        body.extend([members, "}"]);
        let mut response = json(self.status, body);
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
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
        Self { status, body, headers: Vec::new() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.with_members("")
    }
}
