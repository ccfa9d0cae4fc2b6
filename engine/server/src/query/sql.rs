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
use cornjacket_sql::query::{QueryError, Rows};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::Value;

use super::format::{Format, Writer};
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
    let Rows { schema, batches } = service.engine.query(&sql, &params).await.map_err(problem)?;
    let mut batches = batches.fuse();
    // What fails before the first row can still be told with a status of its own.
    let mut first = batches.next().await.transpose().map_err(problem)?;
    while first.as_ref().is_some_and(|rows| rows.num_rows() == 0) {
        first = batches.next().await.transpose().map_err(problem)?;
    }
    let batches = futures::stream::iter(first.map(Ok)).chain(batches);
    stream(format, &schema, batches, limit.unwrap_or(format.default_limit())).map_err(problem)
}

fn stream(
    format: Format,
    schema: &SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, QueryError>> + Send + 'static,
    limit: u64,
) -> Result<Response, QueryError> {
    let (writer, head) = Writer::begin(format, schema)?;
    let state = Some((Box::pin(batches), writer, limit));
    let body = futures::stream::try_unfold(state, |state| async move {
        let Some((mut batches, mut writer, left)) = state else { return Ok(None) };
        let Some(batch) = batches.next().await.transpose()? else {
            return Ok(Some((Bytes::from(writer.end(false)?), None)));
        };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(batch.num_rows());
        let mut piece = writer.rows(&batch.slice(0, wanted))?;
        if wanted < batch.num_rows() {
            piece.extend(writer.end(true)?);
            return Ok(Some((Bytes::from(piece), None)));
        }
        Ok(Some((Bytes::from(piece), Some((batches, writer, left - wanted as u64)))))
    });
    // An error in mid-stream breaks the connection off, so that a cut answer does not look whole.
    let body = body.map_err(|error: QueryError| {
        tracing::warn!(%error, "a query failed after its first rows");
        std::io::Error::other(error)
    });
    let whole = futures::stream::once(async move { Ok(Bytes::from(head)) }).chain(body);
    Ok(([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(whole)).into_response())
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
        text_as(Format::Json, batches, limit).await
    }

    async fn text_as(
        format: Format,
        batches: Vec<Result<RecordBatch, QueryError>>,
        limit: u64,
    ) -> Result<String, axum::Error> {
        let bytes = answered(format, batches, limit).await?;
        Ok(String::from_utf8(bytes).expect("UTF-8"))
    }

    async fn answered(
        format: Format,
        batches: Vec<Result<RecordBatch, QueryError>>,
        limit: u64,
    ) -> Result<Vec<u8>, axum::Error> {
        let response = stream(format, &schema(), futures::stream::iter(batches), limit).expect("begins");
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
        Ok(bytes.to_vec())
    }

    #[tokio::test]
    async fn every_form_has_the_same_rows() {
        let batches = || vec![Ok(rows(&[1, 2])), Ok(rows(&[])), Ok(rows(&[3]))];
        assert_eq!(text_as(Format::Csv, batches(), u64::MAX).await.expect("whole"), "b,a\n1,1\n2,2\n3,3\n");
        let lines = "{\"b\":1,\"a\":1}\n{\"b\":2,\"a\":2}\n";
        assert_eq!(text_as(Format::Ndjson, batches(), 2).await.expect("whole"), lines);
        let bytes = answered(Format::Arrow, batches(), u64::MAX).await.expect("whole");
        let read = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
        let read: Vec<RecordBatch> = read.collect::<Result<_, _>>().expect("batches");
        assert_eq!(read, [rows(&[1, 2]), rows(&[3])]);
        assert_eq!(text_as(Format::Csv, vec![], u64::MAX).await.expect("whole"), "b,a\n");
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
