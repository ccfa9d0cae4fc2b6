//! Ingest over HTTP: the real process, against the same route in a process that decodes and answers without storing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cornjacket_core::codec::{Context, Decoder, Limits};
use cornjacket_core::door::{Answer, Bundle, BundleAnswer, Door, Refusal, Submission};
use cornjacket_operators::sources::http::{Settings, routes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::batch;
use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::{Floor, Ours};
use crate::world::pipeline;

const SQL: &str = "SELECT value FROM sensor.reading WHERE value > 1000";

pub fn ingest_64(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    ingest(sizes, runs, 64, 0.5)
}

pub fn ingest_256(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    ingest(sizes, runs, 256, 0.7)
}

/// Queries that sort and join everything, as many at a time as there may be, and one more.
const HEAVY: &str = "SELECT count(*) AS n, sum(a.value * b.value) AS s FROM sensor.reading a JOIN sensor.reading b \
                     ON a.aggregate_id = b.aggregate_id GROUP BY a.unit ORDER BY s";
const QUERIES: usize = 9;

/// The real process under the heaviest queries, against itself without any.
pub fn under_queries(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let time = if sizes.small { Duration::from_millis(300) } else { Duration::from_secs(5) };
    let ours = Ours::start(sizes, &yaml())?;
    runtime.block_on(load(ours.ingest, 64, time))?;
    let asked = Arc::new(AtomicU64::new(0));
    let mut comparison = interleaved(
        ("events/s", 0.9),
        runs,
        || {
            let asking: Vec<_> = (0..QUERIES).map(|_| runtime.spawn(ask(ours.query, Arc::clone(&asked)))).collect();
            let rate = runtime.block_on(async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                load(ours.ingest, 64, time).await
            });
            asking.iter().for_each(tokio::task::JoinHandle::abort);
            Ok(rate?.0)
        },
        || Ok(runtime.block_on(load(ours.ingest, 64, time))?.0),
    )?;
    comparison.note = format!("64 connections; {QUERIES} joins at a time, {} answered", asked.load(Ordering::Relaxed));
    Ok(comparison)
}

/// Asks the heavy query again and again.
async fn ask(port: u16, asked: Arc<AtomicU64>) {
    let body = format!("{{\"sql\":\"{HEAVY}\"}}");
    let request = format!(
        "POST /api/v1/sql HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    loop {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return };
        if stream.write_all(request.as_bytes()).await.is_err() {
            return;
        }
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await.is_ok_and(|bytes| bytes > 0) {}
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

/// Events come in, and nothing of them is computed that takes long.
pub fn yaml() -> String {
    format!(
        "pipeline: bench\n\
         events: {{ sensor.reading: {{ payload: {{ value: double, unit: string }} }} }}\n\
         sources: {{ api: {{ http: {{}} }} }}\nstreams: {{ results: \"{SQL}\" }}\n\
         sinks: {{ out: {{ stdout: {{ from: results }} }} }}\n"
    )
}

fn ingest(sizes: &Sizes, runs: usize, connections: usize, bar: f64) -> Result<Comparison> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let time = if sizes.small { Duration::from_millis(300) } else { Duration::from_secs(4) };
    let ours = Ours::start(sizes, &yaml())?;
    let floor = Floor::start()?;
    let load = |port| runtime.block_on(load(port, connections, time));
    let (mut late_ours, mut late_floor) = (Vec::new(), Vec::new());
    // The first requests of a process are slower; nobody asks about them.
    load(ours.ingest)?;
    load(floor.port)?;
    let mut comparison = interleaved(
        ("events/s", bar),
        runs,
        || {
            let (rate, p99) = load(ours.ingest)?;
            late_ours.push(p99);
            Ok(rate)
        },
        || {
            let (rate, p99) = load(floor.port)?;
            late_floor.push(p99);
            Ok(rate)
        },
    )?;
    late_ours.sort_unstable();
    late_floor.sort_unstable();
    let middle = |late: &[Duration]| late[late.len() / 2].as_secs_f64() * 1e3;
    comparison.note = format!("p99 {:.1} ms, floor {:.1} ms", middle(&late_ours), middle(&late_floor));
    Ok(comparison)
}

/// Keep-alive connections that each send the next request when they have the answer. Gives answers in a second and the
/// 99th percentile of their times.
async fn load(port: u16, connections: usize, time: Duration) -> Result<(f64, Duration)> {
    let until = Instant::now() + time;
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for number in 0..connections {
        tasks.push(tokio::spawn(one_connection(port, number, until, Arc::clone(&count))));
    }
    let started = Instant::now();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "answers in a second, for people")]
    Ok((count.load(Ordering::Relaxed) as f64 / elapsed, p99))
}

async fn one_connection(port: u16, number: usize, until: Instant, count: Arc<AtomicU64>) -> Result<Vec<Duration>> {
    let body = format!(
        "{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"device-{number}\",\"payload\":{{\"value\":21.5,\"unit\":\"celsius\"}}}}"
    );
    let request = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (mut answer, mut times) = (Vec::with_capacity(1_024), Vec::new());
    while Instant::now() < until {
        let started = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        while !is_whole(&answer) {
            if stream.read_buf(&mut answer).await? == 0 {
                bail!("the connection was closed");
            }
        }
        if !answer.starts_with(b"HTTP/1.1 202") {
            bail!("refused: {}", String::from_utf8_lossy(&answer));
        }
        times.push(started.elapsed());
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(times)
}

/// Whether an answer with a content length is there to its end.
pub fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    answer.len() >= head + 4 + length.unwrap_or(0)
}

/// Decodes as the real door does and answers at once.
struct Answering(std::sync::Mutex<Decoder>);

impl Door for Answering {
    fn submit(&self, submission: Submission<Vec<u8>>) -> Answer {
        let context = Context {
            ingested_at: crate::world::START,
            random: [1; 10],
            client_id: None,
            source: "api",
            metadata: &[],
        };
        let Ok(mut decoder) = self.0.lock() else { return Box::pin(std::future::ready(Err(Refusal::Closing))) };
        let answer = match decoder.decode(&submission.body, &context) {
            Ok(accepted) => Ok(accepted.id),
            Err(rejection) => Err(Refusal::Rejected(rejection)),
        };
        // What is decoded is not kept.
        if decoder.rows() >= 8_192 {
            drop(decoder.finish());
        }
        Box::pin(std::future::ready(answer))
    }

    fn submit_bundle(&self, _: Arc<Bundle>) -> BundleAnswer {
        Box::pin(std::future::ready(Err(Refusal::Closing)))
    }
}

/// Serves the floor until the process is killed.
pub fn serve_floor(port: u16) -> Result<()> {
    let (compiled, _) = pipeline(SQL, 4)?;
    let door = Answering(std::sync::Mutex::new(Decoder::new(&compiled.catalogue, Limits::default())));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let routes = routes(Arc::new(door), &Settings::default(), "api").merge(batch::floor());
        axum::serve(listener, routes).await?;
        Ok(())
    })
}
