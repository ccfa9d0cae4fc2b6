//! Ingest over HTTP, one event a request: the real process, against the same route in a process that decodes and answers
//! without storing.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{head, post_head};
use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::{Floor, Process, folder};

/// A pipeline that takes readings in and does nothing with them that anyone would see.
pub const PIPELINE: &str = "
pipeline: bench
events: { sensor.reading: { payload: { value: double, unit: string } } }
sources: { api: { http: {} } }
streams: { results: 'SELECT value FROM sensor.reading WHERE value > 1000' }
sinks: { out: { stdout: { from: results } } }
";

/// Rates and latencies.
type Both = Vec<(&'static str, Comparison)>;

pub fn ingest_64(sizes: &Sizes, runs: usize) -> Result<Both> {
    ingest(sizes, runs, 64, 0.5)
}

pub fn ingest_256(sizes: &Sizes, runs: usize) -> Result<Both> {
    ingest(sizes, runs, 256, 0.7)
}

/// The threads of a load generator: as many as for the floor.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Syncs that a request may wait for beyond what the floor takes.
const SYNCS: u32 = 5;

fn ingest(sizes: &Sizes, runs: usize, connections: usize, bar: f64) -> Result<Both> {
    let runtime = runtime()?;
    let time = sizes.time(4);
    let ours = Process::start(sizes, PIPELINE)?;
    let floor = Floor::start()?;
    let ours = ours.port("ingest").map(|port| (port, ours))?;
    let load = |port| runtime.block_on(load(port, connections, time));
    let (mut late_ours, mut late_floor) = (Vec::new(), Vec::new());
    // The first requests of a process are slower; nobody asks about them.
    load(ours.0)?;
    load(floor.port)?;
    let comparison = interleaved(
        ("events/s", bar),
        runs,
        || {
            let (rate, p99) = load(ours.0)?;
            late_ours.push(p99);
            Ok(rate)
        },
        || {
            let (rate, p99) = load(floor.port)?;
            late_floor.push(p99);
            Ok(rate)
        },
    )?;
    late_floor.sort_unstable();
    let (floor, sync) = (late_floor[late_floor.len() / 2], sync()?);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let note = format!(
        "the floor's {:.1} ms and {SYNCS} syncs of {:.2} ms are allowed",
        milliseconds(floor),
        milliseconds(sync)
    );
    let measured = late_ours.into_iter().map(milliseconds).collect();
    let late = Comparison::limited("ms p99", milliseconds(floor + sync * SYNCS), measured, note);
    Ok(vec![("", comparison), ("p99", late)])
}

/// How long appending a page to a file and syncing it takes: the median.
fn sync() -> Result<Duration> {
    let folder = folder()?;
    let mut file = File::create(folder.path().join("syncs"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        file.write_all(&[1; 4_096])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Keep-alive connections that each send the next request when they have the answer. Gives answers in a second and the
/// 99th percentile of their times.
pub async fn load(port: u16, connections: usize, time: Duration) -> Result<(f64, Duration)> {
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
    let request = format!("{}{body}", post_head("/api/v1/events", "application/json", body.len()));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (mut answer, mut times) = (Vec::with_capacity(1_024), Vec::new());
    while Instant::now() < until {
        let started = Instant::now();
        exchange(&mut stream, request.as_bytes(), &mut answer).await?;
        times.push(started.elapsed());
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(times)
}

/// Sends a request and waits for its answer, which must be 200 or 202.
pub async fn exchange(stream: &mut TcpStream, request: &[u8], answer: &mut Vec<u8>) -> Result<()> {
    stream.write_all(request).await?;
    answer.clear();
    while !head(answer).is_some_and(|head| head.is_whole(answer)) {
        if stream.read_buf(answer).await? == 0 {
            bail!("the connection was closed");
        }
    }
    if !answer.starts_with(b"HTTP/1.1 20") {
        bail!("refused: {}", String::from_utf8_lossy(answer));
    }
    Ok(())
}
