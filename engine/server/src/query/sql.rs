//! SQL over HTTP: the answer is streamed, so any number of rows may be asked for.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cornjacket_core::door::Detail;
use cornjacket_sql::query::{QueryError, Rows, row_objects, type_name};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{QueryService, after};
use crate::http::{Answered, Problem};

const DEFAULT_LIMIT: u64 = 10_000;
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
    let Question { sql, params, limit } = question(request).await?;
    after::wait(&service, waiting.after.as_deref(), waiting.wait.as_deref(), &headers).await?;
    let Rows { schema, batches } = service.engine.query(&sql, &params).await.map_err(problem)?;
    let mut batches = batches.fuse();
    // What fails before the first row can still be told with a status of its own.
    let mut first = batches.next().await.transpose().map_err(problem)?;
    while first.as_ref().is_some_and(|rows| rows.num_rows() == 0) {
        first = batches.next().await.transpose().map_err(problem)?;
    }
    let batches = futures::stream::iter(first.map(Ok)).chain(batches);
    Ok(stream(&schema, batches, limit.unwrap_or(DEFAULT_LIMIT)))
}

fn stream(
    schema: &SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, QueryError>> + Send + 'static,
    limit: u64,
) -> Response {
    let head = head(schema);
    let state = (Box::pin(batches), limit, true);
    let body = futures::stream::try_unfold(Some(state), |state| async move {
        let Some((mut batches, left, is_first)) = state else { return Ok(None) };
        match batches.next().await.transpose()? {
            None => Ok(Some((Bytes::from_static(b"],\"truncated\":false}\n"), None))),
            Some(batch) => {
                let (mut text, given) = rows_text(&batch, left, is_first)?;
                let truncated = (given as u64) < batch.num_rows() as u64;
                if truncated {
                    text.extend_from_slice(b"],\"truncated\":true}\n");
                    return Ok(Some((Bytes::from(text), None)));
                }
                let is_first = is_first && given == 0;
                Ok(Some((Bytes::from(text), Some((batches, left - given as u64, is_first)))))
            }
        }
    });
    // An error in mid-stream breaks the connection off, so that a cut answer does not look whole.
    let body = body.map_err(|error: QueryError| {
        tracing::warn!(%error, "a query failed after its first rows");
        std::io::Error::other(error)
    });
    let whole = futures::stream::once(async move { Ok(head) }).chain(body);
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(whole)).into_response()
}

fn head(schema: &SchemaRef) -> Bytes {
    let column =
        |field: &Arc<arrow::datatypes::Field>| json!({"name": field.name(), "type": type_name(field.data_type())});
    let columns: Vec<Value> = schema.fields().iter().map(column).collect();
    Bytes::from(format!("{{\"columns\":{},\"rows\":[", Value::Array(columns)))
}

fn rows_text(batch: &RecordBatch, limit: u64, is_first: bool) -> Result<(Vec<u8>, usize), QueryError> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX).min(batch.num_rows());
    let mut text = Vec::new();
    for (number, row) in row_objects(&batch.slice(0, wanted))?.into_iter().enumerate() {
        if number > 0 || !is_first {
            text.push(b',');
        }
        write_row(&mut text, batch, &row).map_err(|error| QueryError::Failed(error.to_string()))?;
    }
    Ok((text, wanted))
}

/// A row as an object whose members stand in the order of the columns.
fn write_row(text: &mut Vec<u8>, batch: &RecordBatch, row: &Map<String, Value>) -> serde_json::Result<()> {
    for (number, field) in batch.schema().fields().iter().enumerate() {
        text.push(if number == 0 { b'{' } else { b',' });
        serde_json::to_writer(&mut *text, field.name())?;
        text.push(b':');
        serde_json::to_writer(&mut *text, row.get(field.name()).unwrap_or(&Value::Null))?;
    }
    text.extend_from_slice(if batch.num_columns() == 0 { b"{}" } else { b"}" });
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("b", DataType::Int64, true), Field::new("a", DataType::Int64, true)]))
    }

    fn rows(values: &[i64]) -> RecordBatch {
        let column = || Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_new(schema(), vec![column(), column()]).expect("two columns")
    }

    async fn text(batches: Vec<Result<RecordBatch, QueryError>>, limit: u64) -> Result<String, axum::Error> {
        let response = stream(&schema(), futures::stream::iter(batches), limit);
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
        Ok(String::from_utf8(bytes.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn rows_are_cut_at_the_limit_and_say_so() {
        let head = r#"{"columns":[{"name":"b","type":"bigint"},{"name":"a","type":"bigint"}],"rows":["#;
        let one = r#"{"b":1,"a":1}"#;
        let two = r#"{"b":2,"a":2}"#;
        let cases: [(&[&[i64]], u64, String, bool); 7] = [
            (&[], 5, String::new(), false),
            (&[&[]], 0, String::new(), false),
            (&[&[1]], 0, String::new(), true),
            (&[&[1], &[], &[2]], 2, format!("{one},{two}"), false),
            (&[&[1, 2]], 1, one.into(), true),
            (&[&[1], &[2]], 1, one.into(), true),
            (&[&[1], &[]], 1, one.into(), false),
        ];
        for (batches, limit, expected, truncated) in cases {
            let given = text(batches.iter().map(|values| Ok(rows(values))).collect(), limit).await.expect("whole");
            assert_eq!(given, format!("{head}{expected}],\"truncated\":{truncated}}}\n"), "{batches:?} {limit}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_fails_in_the_middle_is_not_whole() {
        assert!(text(vec![Ok(rows(&[1])), Err(QueryError::Failed("storage".into()))], 10).await.is_err());
    }
}
