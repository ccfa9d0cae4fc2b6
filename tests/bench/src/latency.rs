//! How long an event takes from its sending until its row can be read, and until a webhook for it is received.
//!
//! Every event has the time at which it is to be sent, and its latency counts from then, also where its connection was
//! still waiting for the answer before. So a process that stands still for a while pays for all events of that while.

use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::client::post_head;
use crate::http::{exchange, runtime};
use crate::measure::{Comparison, Sizes, progress};
use crate::process::Process;

/// Events in a second.
pub const RATE: u64 = 2_000;
/// One event of so many triggers a webhook.
pub const HOT: u64 = 20;
const CONNECTIONS: u64 = 64;
/// Devices whose rows the events renew in turn: each one's next event is seconds away.
const DEVICES: u64 = 20_000;
/// How long is waited for the last ones.
const PATIENCE: Duration = Duration::from_secs(20);

/// When each event arrived, in µs from a beginning; 0 for not yet.
struct Arrivals {
    began: Instant,
    at: Vec<AtomicU64>,
}

impl Arrivals {
    fn new(began: Instant, events: u64) -> Arc<Self> {
        Arc::new(Self { began, at: (0..events).map(|_| AtomicU64::new(0)).collect() })
    }

    fn arrived(&self, number: u64) {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Some(at) = usize::try_from(number).ok().and_then(|number| self.at.get(number)) {
            let _ = at.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn when(&self, number: u64) -> Option<Duration> {
        let at = self.at.get(usize::try_from(number).ok()?)?.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_micros(at))
    }
}

fn pipeline(receiver: u16) -> String {
    format!(
        "pipeline: bench\n\
         events: {{ sensor.reading: {{ payload: {{ value: double, number: bigint }}, watermark: {{ delay: 5s }} }} }}\n\
         sources: {{ api: {{ http: {{}} }} }}\n\
         streams: {{ hot: 'SELECT aggregate_id, number FROM sensor.reading WHERE value > 80' }}\n\
         sinks:\n  newest: {{ projection: {{ from: sensor.reading, key: [aggregate_id] }} }}\n  \
         page: {{ webhook: {{ from: hot, url: 'http://127.0.0.1:{receiver}/', concurrency: 64 }} }}\n"
    )
}

/// How long events of a run took, each from when it was to be sent.
pub struct Times {
    /// To the answer that it is durable.
    pub answers: Vec<Duration>,
    /// To the change of its row being received.
    pub rows: Vec<Duration>,
    /// To its webhook being received.
    pub hooks: Vec<Duration>,
}

pub fn latency(sizes: &Sizes, runs: usize) -> Result<Vec<(&'static str, Comparison)>> {
    let seconds = if sizes.small { 1 } else { 10 };
    let (mut row_times, mut hook_times) = (Percentiles::default(), Percentiles::default());
    for times in measure(sizes, runs, seconds)? {
        row_times.add(times.rows);
        hook_times.add(times.hooks);
    }
    let row = row_times.comparison(50.0, &format!("{RATE} events/s, to the row's change being received"));
    let hook = hook_times.comparison(100.0, &format!("one event of {HOT}, to the POST being received"));
    Ok(vec![("row", row), ("webhook", hook)])
}

/// Measures runs of so many seconds, after one for warming up.
pub fn measure(sizes: &Sizes, runs: usize, seconds: u64) -> Result<Vec<Times>> {
    let runtime = runtime()?;
    let events = RATE * seconds;
    let (began, all) = (Instant::now(), events * (runs as u64 + 1));
    let arrivals = || Arrivals::new(began, all);
    let (answers, rows, hooks) = (arrivals(), arrivals(), arrivals());
    let receiver = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let process = Process::start(sizes, &pipeline(receiver.local_addr()?.port()))?;
    runtime.spawn(receive(receiver, Arc::clone(&hooks)));
    follow(process.port("query")?, Arc::clone(&rows))?;
    let mut measured = Vec::new();
    let shown = progress(runs as u64 + 1, "runs");
    for run in 0..=runs as u64 {
        let numbers = run * events..(run + 1) * events;
        let start = began.elapsed() + Duration::from_millis(50);
        runtime.block_on(send(process.port("ingest")?, numbers.clone(), began + start, &answers))?;
        let due = |number| start + since_first(number - run * events);
        measured.push(Times {
            answers: times(&answers, numbers.clone(), &due)?,
            rows: times(&rows, numbers.clone(), &due)?,
            hooks: times(&hooks, hot(numbers), &due)?,
        });
        shown.inc(1);
    }
    shown.finish_and_clear();
    Ok(measured.split_off(1))
}

fn hot(numbers: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
    numbers.filter(|number| number % HOT == 0)
}

/// When an event is to be sent, from the first one on.
fn since_first(number: u64) -> Duration {
    Duration::from_micros(number * 1_000_000 / RATE)
}

/// Sends events, each at its time: the connections take turns.
async fn send(port: u16, numbers: std::ops::Range<u64>, start: Instant, answers: &Arc<Arrivals>) -> Result<()> {
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let (first, end, answers) = (numbers.start, numbers.end, Arc::clone(answers));
        tasks.push(tokio::spawn(async move {
            let (mut stream, mut answer) = (TcpStream::connect(("127.0.0.1", port)).await?, Vec::new());
            stream.set_nodelay(true)?;
            let mut number = first + connection;
            while number < end {
                tokio::time::sleep_until((start + since_first(number - first)).into()).await;
                exchange(&mut stream, request(number).as_bytes(), &mut answer).await?;
                answers.arrived(number);
                number += CONNECTIONS;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

fn request(number: u64) -> String {
    let value = if number.is_multiple_of(HOT) { 90 } else { 20 };
    let body = format!(
        "{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"device-{}\",\"payload\":{{\"value\":{value},\"number\":{number}}}}}",
        number % DEVICES
    );
    format!("{}{body}", post_head("/api/v1/events", "application/json", body.len()))
}

/// From when each of these was due to when it arrived; waits for those that are under way.
fn times(
    arrivals: &Arrivals,
    numbers: impl Iterator<Item = u64>,
    due: &impl Fn(u64) -> Duration,
) -> Result<Vec<Duration>> {
    let (began, mut times) = (Instant::now(), Vec::new());
    for number in numbers {
        let when = loop {
            if let Some(when) = arrivals.when(number) {
                break when;
            }
            ensure!(began.elapsed() < PATIENCE, "event {number} did not arrive within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(1));
        };
        times.push(when.saturating_sub(due(number)));
    }
    Ok(times)
}

/// Takes webhooks.
async fn receive(listener: tokio::net::TcpListener, arrivals: Arc<Arrivals>) -> std::io::Result<()> {
    let take = post(move |body: String| {
        if let Some(number) = serde_json::from_str(&body).ok().and_then(|row: Value| number(&row)) {
            arrivals.arrived(number);
        }
        std::future::ready("")
    });
    axum::serve(listener, Router::new().fallback(take)).await
}

fn number(row: &Value) -> Option<u64> {
    let number = &row["number"];
    number.as_u64().or_else(|| number.as_str()?.parse().ok())
}

/// Follows the changes of the rows, on a thread that does nothing else. By HTTP 1.0 they come as they are, not in chunks.
fn follow(port: u16, arrivals: Arc<Arrivals>) -> Result<()> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /api/v1/projections/newest/changes HTTP/1.0\r\nhost: bench\r\n\r\n")?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().context("no answer")??;
    ensure!(first.contains(" 200"), "the changes cannot be followed: {first}");
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let change: Option<Value> = line.strip_prefix("data:").and_then(|text| serde_json::from_str(text).ok());
            if let Some(number) = change.and_then(|change| number(&change["state"])) {
                arrivals.arrived(number);
            }
        }
    });
    Ok(())
}

/// Percentiles of each run.
#[derive(Default)]
struct Percentiles {
    middle: Vec<f64>,
    p99: Vec<f64>,
    worst: f64,
}

impl Percentiles {
    fn add(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        self.middle.push(at(50));
        self.p99.push(at(99));
        self.worst = times.last().map_or(self.worst, |time| self.worst.max(time.as_secs_f64() * 1e3));
    }

    fn comparison(mut self, limit: f64, what: &str) -> Comparison {
        self.middle.sort_by(f64::total_cmp);
        let middle = self.middle.get(self.middle.len() / 2).copied().unwrap_or(0.0);
        let note = format!("{what}; p50 {middle:.1} ms, worst {:.1} ms", self.worst);
        Comparison::limited("ms p99", limit, self.p99, note)
    }
}
