//! The server that is a floor: it takes what the real process takes, decodes it, and answers without storing anything.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::routing::post;
use cornjacket_core::codec::{Context, Decoder, Limits};
use cornjacket_core::door::{Answer, Bundle, BundleAnswer, Door, Refusal, Submission};
use cornjacket_core::time::timestamp_type;
use cornjacket_operators::sources::http::{Settings, routes};

use crate::world::{START, pipeline};

/// Where it takes whole bodies of lines.
pub const BATCH: &str = "/batch";
/// Rows of a decoded batch: as many as the real process makes of a chunk.
const BATCH_ROWS: usize = 8_192;

/// Decodes as the real door does and answers at once.
struct Answering(Mutex<Decoder>);

impl Door for Answering {
    fn submit(&self, submission: Submission<Vec<u8>>) -> Answer {
        let context = Context { ingested_at: START, random: [1; 10], client_id: None, source: "api", metadata: &[] };
        let Ok(mut decoder) = self.0.lock() else { return Box::pin(std::future::ready(Err(Refusal::Closing))) };
        let answer = match decoder.decode(&submission.body, &context) {
            Ok(accepted) => Ok(accepted.id),
            Err(rejection) => Err(Refusal::Rejected(rejection)),
        };
        // What is decoded is not kept.
        if decoder.rows() >= BATCH_ROWS {
            drop(decoder.finish());
        }
        Box::pin(std::future::ready(answer))
    }

    fn submit_bundle(&self, _: Arc<Bundle>) -> BundleAnswer {
        Box::pin(std::future::ready(Err(Refusal::Closing)))
    }
}

/// The columns of a reading as they stand in its JSON.
fn schema() -> Arc<Schema> {
    let payload =
        Fields::from(vec![Field::new("value", DataType::Float64, false), Field::new("unit", DataType::Utf8, false)]);
    Arc::new(Schema::new(vec![
        Field::new("event_type", DataType::Utf8, false),
        Field::new("aggregate_id", DataType::Utf8, false),
        Field::new("event_time", timestamp_type(), true),
        Field::new("payload", DataType::Struct(payload), false),
    ]))
}

/// Decodes a body of lines into Arrow columns, and says how many rows they have.
fn rows_of(body: &[u8], schema: &Arc<Schema>) -> Result<usize, ArrowError> {
    let mut decoder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(BATCH_ROWS).build_decoder()?;
    let (mut rest, mut rows) = (body, 0);
    loop {
        let taken = decoder.decode(rest)?;
        rest = &rest[taken..];
        match decoder.flush()? {
            Some(batch) => rows += batch.num_rows(),
            None if rest.is_empty() => return Ok(rows),
            None => {}
        }
    }
}

async fn take(body: Body, schema: Arc<Schema>) -> (StatusCode, String) {
    let Ok(body) = to_bytes(body, usize::MAX).await else { return (StatusCode::BAD_REQUEST, String::new()) };
    match rows_of(&body, &schema) {
        Ok(rows) => (StatusCode::ACCEPTED, format!("{{\"accepted\":{rows},\"rejected\":[]}}")),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
    }
}

/// Serves until the process is killed.
pub fn serve(port: u16) -> Result<()> {
    let (compiled, _) = pipeline("SELECT value FROM sensor.reading", 4)?;
    let door = Answering(Mutex::new(Decoder::new(&compiled.catalogue, Limits::default())));
    let schema = schema();
    let batch = post(move |body: Body| take(body, Arc::clone(&schema)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        axum::serve(listener, routes(Arc::new(door), &Settings::default(), "api").route(BATCH, batch)).await?;
        Ok(())
    })
}
