//! SQL over HTTP: the answer is streamed, so any number of rows may be asked for.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use cornjacket_core::door::Detail;
use cornjacket_sql::query::QueryError;
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::Value;

use super::format::Format;
use super::workers::wire;
use super::{QueryService, after};
use crate::http::{Answered, Problem};

/// How long a question may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
    limit: Option<u64>,
}

/// Parameters that every read takes.
#[derive(Debug, Deserialize)]
pub struct Waiting {
    after: Option<String>,
    wait: Option<String>,
}

fn problem(error: QueryError) -> Problem {
    let (status, code) = match &error {
        QueryError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_sql"),
        QueryError::NotReadOnly(_) => (StatusCode::BAD_REQUEST, "read_only"),
        QueryError::Timeout(_) => (StatusCode::REQUEST_TIMEOUT, "query_timeout"),
        QueryError::Memory(_) => (StatusCode::UNPROCESSABLE_ENTITY, "query_memory"),
        QueryError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too_many_queries"),
        QueryError::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "query_failed"),
    };
    let text = error.to_string();
    let hint = if let QueryError::Invalid { hint, .. } = error { hint } else { None };
    let details = hint.into_iter().map(|message| Detail { path: "sql".into(), message }).collect();
    Problem { details, ..Problem::new(status, code, text) }
}

/// Reads the question; who sends it drop by drop must not hold a connection for ever.
async fn question(request: Request) -> Result<Question, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, Json::<Question>::from_request(request, &()));
    let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time");
    let question = read.await.map_err(|_| late())?;
    let wrong = |error: JsonRejection| Problem::new(error.status(), "invalid_request", error.body_text());
    question.map(|Json(question)| question).map_err(wrong)
}

/// `POST /api/v1/sql`
pub async fn answer(
    State(service): State<Arc<QueryService>>,
    waiting: Result<Query<Waiting>, QueryRejection>,
    headers: HeaderMap,
    request: Request,
) -> Answered {
    let Query(waiting) = waiting.map_err(|error| super::invalid(error.body_text()))?;
    let format =
        Format::accepted(&headers).map_err(|text| Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", text))?;
    let Question { sql, params, limit } = question(request).await?;
    after::wait(&service, waiting.after.as_deref(), waiting.wait.as_deref(), &headers).await?;
    let limit = limit.unwrap_or(format.default_limit());
    let answer = service.workers.ask(wire::Question { sql, params, format, limit }).await.map_err(problem)?;
    let pieces = futures::stream::unfold(answer, |mut answer| async move {
        let piece = answer.next().await?;
        Some((piece, answer))
    });
    // An error in mid-stream breaks the connection off, so that a cut answer does not look whole.
    let pieces = pieces.map_err(|error: QueryError| {
        tracing::warn!(%error, "a query failed after its first rows");
        std::io::Error::other(error)
    });
    Ok(([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(pieces)).into_response())
}
