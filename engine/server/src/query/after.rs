//! Read your writes: `after=<event_id>` answers once that event is reflected.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use cornjacket_core::id::EventId;
use cornjacket_core::setting::Span;
use cornjacket_core::time::SECOND;

use super::{QueryService, blocking, invalid};
use crate::http::Problem;

/// The header that does the same as the parameter.
const HEADER: &str = "cornjacket-after";
const DEFAULT_WAIT: Span = Span(5 * SECOND);
const LONGEST_WAIT: Span = Span(60 * SECOND);

/// Waits until the event that the request names, if it names one, is reflected.
pub async fn wait(
    service: &QueryService,
    after: Option<&str>,
    wait: Option<&str>,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let header = headers.get(HEADER).map(|value| value.to_str().unwrap_or_default());
    let Some(text) = after.or(header) else { return Ok(()) };
    let event =
        EventId::parse(text).ok_or_else(|| invalid(format!("`after` must be an event id, and `{text}` is none")))?;
    let span = wait.map_or(Ok(DEFAULT_WAIT), Span::parse).map_err(|error| invalid(format!("`wait`: {error}")))?;
    if span > LONGEST_WAIT {
        return Err(invalid(format!("`wait` may be {LONGEST_WAIT} at most")));
    }
    let log = service.storage.log.clone();
    let found = blocking(move || log.find(event)).await?;
    let (partition, offset) = found
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "event_not_found", format!("there is no event {event}")))?;
    let mut status = service.status.clone();
    let reflected = status.wait_for(|status| status.positions.get(&partition) > offset);
    let patience = Duration::from_micros(span.0.unsigned_abs());
    match tokio::time::timeout(patience, reflected).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_running", "the engine has ended")),
        Err(_) => {
            let message = format!("event {event} is stored and was not reflected within {span}");
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_yet_reflected", message))
        }
    }
}
