//! Ingest of NDJSON batches over HTTP: the real process, against a route that decodes the same bodies with `arrow-json` and
//! stores nothing.

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{is_whole, yaml};
use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::{Floor, Ours};

/// Events of a body.
pub const EVENTS: usize = 10_000;
/// Where batches are decoded and not stored.
const FLOOR: &str = "/floor/batch";
/// Where they are stored.
pub const BATCH: &str = "/api/v1/events/batch";
/// Connections that send one body after the other.
const CONNECTIONS: usize = 2;

pub fn ingest(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let time = if sizes.small { Duration::from_millis(300) } else { Duration::from_secs(4) };
    let (ours, floor) = (Ours::start(sizes, &yaml())?, Floor::start()?);
    let bodies: Arc<Vec<String>> =
        Arc::new((0..4).map(|number| body(number, EVENTS, "2026-01-01T00:00:00Z")).collect());
    let load = |port, path| runtime.block_on(load((port, path), &bodies, time));
    load(ours.ingest, BATCH)?;
    load(floor.port, FLOOR)?;
    let (ours, floor) = (|| load(ours.ingest, BATCH), || load(floor.port, FLOOR));
    let mut comparison = interleaved(("events/s", 0.5), runs, ours, floor)?;
    comparison.note = format!("{EVENTS} events a body, {CONNECTIONS} connections");
    Ok(comparison)
}

/// Lines of events; their time is the same for all.
pub fn body(number: usize, events: usize, time: &str) -> String {
    let line = |at: usize| {
        let device = (number * 7_919 + at * 31) % 1_000;
        let value = f64::from(u32::try_from(at % 1_000).unwrap_or(0)) / 10.0;
        format!(
            "{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"device-{device}\",\"event_time\":\"{time}\",\"payload\":{{\"value\":{value},\"unit\":\"celsius\"}}}}\n"
        )
    };
    (0..events).map(line).collect()
}

async fn load((port, path): (u16, &'static str), bodies: &Arc<Vec<String>>, time: Duration) -> Result<f64> {
    let (started, until) = (Instant::now(), Instant::now() + time);
    let mut tasks = Vec::new();
    for number in 0..CONNECTIONS {
        let bodies = Arc::clone(bodies);
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let mut sent = number;
            while Instant::now() < until {
                send(&mut stream, path, &bodies[sent % bodies.len()]).await?;
                sent += 1;
            }
            Ok::<_, anyhow::Error>(sent - number)
        }));
    }
    let mut sent = 0;
    for task in tasks {
        sent += task.await??;
    }
    #[allow(clippy::cast_precision_loss, reason = "events in a second, for people")]
    Ok((sent * EVENTS) as f64 / started.elapsed().as_secs_f64())
}

/// Sends a body and reads the answer, which says that all of it was taken.
pub async fn send(stream: &mut TcpStream, path: &str, body: &str) -> Result<()> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        if stream.read_buf(&mut answer).await? == 0 {
            bail!("the connection was closed");
        }
    }
    if !answer.starts_with(b"HTTP/1.1 202") {
        bail!("refused: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

/// The floor's route.
pub fn floor() -> Router {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let payload = vec![Field::new("value", DataType::Float64, true), text("unit")];
    let payload = Field::new("payload", DataType::Struct(payload.into()), true);
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![text("event_type"), text("aggregate_id"), text("event_time"), payload]));
    let decode = move |body: Bytes| {
        let schema = Arc::clone(&schema);
        async move {
            let decoded = tokio::task::spawn_blocking(move || rows(schema, &body)).await;
            match decoded {
                Ok(Ok(rows)) => (StatusCode::ACCEPTED, rows.to_string()),
                _ => (StatusCode::BAD_REQUEST, String::new()),
            }
        }
    };
    Router::new().route(FLOOR, post(decode)).layer(DefaultBodyLimit::disable())
}

fn rows(schema: SchemaRef, body: &[u8]) -> Result<usize> {
    let mut rows = 0;
    for batch in ReaderBuilder::new(schema).with_batch_size(EVENTS).build(Cursor::new(body))? {
        rows += batch?.num_rows();
    }
    Ok(rows)
}
