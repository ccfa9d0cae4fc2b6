//! Bodies of many events: taking them in, against decoding them; and the whole way to the rows of windows, against taking
//! them in.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::client::Connection;
use crate::floor::BATCH;
use crate::http::PIPELINE;
use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::{Floor, Process};
use crate::world::scattered;

/// Where the real process takes them.
pub const ROUTE: &str = "/api/v1/events/batch";
/// Events of a body.
const EVENTS: usize = 10_000;
/// Bodies under way at one time.
const CONNECTIONS: usize = 2;
/// Devices that the events are of.
const DEVICES: usize = 1_000;
/// Seconds of event time that a body spans; ten bodies are a window.
const SPAN: usize = 1;

/// Windows of ten seconds into a projection.
const WINDOWS: &str = "
pipeline: bench
events: { sensor.reading: { payload: { value: double, unit: string }, watermark: { delay: 5s } } }
sources: { api: { http: {} } }
streams:
  windows: |
    SELECT device, w.start AS window_start, n, mean, most FROM (
      SELECT tumble(interval '10 seconds') AS w, aggregate_id AS device, count(*) AS n, avg(value) AS mean,
             max(value) AS most FROM sensor.reading GROUP BY w, device)
sinks: { window_rows: { projection: { from: windows, key: [device, window_start] } } }
";

/// Lines of events in the order of their time, from a second of the year 2026 on.
pub fn body(first_second: usize, events: usize, devices: usize) -> Vec<u8> {
    let mut text = String::with_capacity(events * 160);
    for number in 0..events {
        let (second, millis) = (first_second + number * SPAN / events, number * SPAN * 1_000 / events % 1_000);
        let (day, hour, minute) = (second / 86_400 + 1, second / 3_600 % 24, second / 60 % 60);
        let device = scattered(first_second * EVENTS + number) % devices;
        let value = scattered(number + 1) % 1_000;
        let _ = writeln!(
            text,
            "{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"device-{device}\",\"event_time\":\
             \"2026-01-{day:02}T{hour:02}:{minute:02}:{:02}.{millis:03}Z\",\"payload\":{{\"value\":{}.{},\"unit\":\"celsius\"}}}}",
            second % 60,
            value / 10,
            value % 10
        );
    }
    text.into_bytes()
}

/// The bodies of a run; those of another begin an hour later.
fn bodies(run: usize, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| body(run * 3_600 + number * SPAN, EVENTS, DEVICES)).collect()
}

/// Posts bodies, each connection the next one that is there, and says how long it took.
pub fn post(port: u16, route: &str, bodies: &[Vec<u8>], events: usize) -> Result<Duration> {
    let next = AtomicUsize::new(0);
    let one = || -> Result<()> {
        let mut connection = Connection::open(port)?;
        while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = connection.post(route, "application/x-ndjson", body)?;
            ensure!(answer.status == 202, "a body was refused: {}", answer.text());
            let answer: Value = serde_json::from_slice(&answer.body)?;
            ensure!(answer["accepted"].as_u64() == Some(events as u64), "not everything was accepted: {answer}");
        }
        Ok(())
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    Ok(started.elapsed())
}

#[allow(clippy::cast_precision_loss, reason = "events in a second, for people")]
fn rate(bodies: usize, time: Duration) -> f64 {
    (bodies * EVENTS) as f64 / time.as_secs_f64()
}

/// An event that no batch has, in the far past of the windows.
const LAST: &str = r#"{"event_type":"sensor.reading","aggregate_id":"last","event_time":"2026-01-01T00:00:00Z","payload":{"value":0,"unit":"celsius"}}"#;

/// Bodies of a run.
fn count(sizes: &Sizes) -> usize {
    if sizes.small { 2 } else { 100 }
}

pub fn ingest(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let ours = Process::start(sizes, PIPELINE)?;
    let floor = Floor::start()?;
    let (port, given) = (ours.port("ingest")?, bodies(0, count(sizes)));
    let warm = &given[..given.len().min(10)];
    post(port, ROUTE, warm, EVENTS)?;
    post(floor.port, BATCH, warm, EVENTS)?;
    let mut comparison = interleaved(
        ("events/s", 0.5),
        runs,
        || {
            let time = post(port, ROUTE, &given, EVENTS)?;
            // What the engine has still to do is not to slow down the floor.
            ours.settle(LAST)?;
            Ok(rate(given.len(), time))
        },
        || Ok(rate(given.len(), post(floor.port, BATCH, &given, EVENTS)?)),
    )?;
    comparison.note = format!("{} bodies of {EVENTS} events", given.len());
    Ok(comparison)
}

pub fn whole_way(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let (ours, ingest) = (Process::start(sizes, WINDOWS)?, Process::start(sizes, PIPELINE)?);
    let (count, mut run, mut rows) = (count(sizes), 0, 0);
    let mut whole = || -> Result<f64> {
        run += 1;
        let given = bodies(run, count);
        let port = ours.port("ingest")?;
        // Events of every partition, behind the windows of all others, let these close.
        let closing = body(run * 3_600 + count * SPAN + 60, 256, 256);
        let started = Instant::now();
        post(port, ROUTE, &given, EVENTS)?;
        post(port, ROUTE, &[closing], 256)?;
        ours.settle(LAST)?;
        let time = started.elapsed();
        rows = check_windows(&ours, run, count)?;
        Ok(rate(count, time))
    };
    let port = ingest.port("ingest")?;
    let given = bodies(0, count);
    whole()?;
    post(port, ROUTE, &given, EVENTS)?;
    let mut comparison = interleaved(("events/s", 0.6), runs, whole, || {
        let time = post(port, ROUTE, &given, EVENTS)?;
        ingest.settle(LAST)?;
        Ok(rate(count, time))
    })?;
    comparison.note = format!("{count} bodies of {EVENTS} events, {rows} rows of windows");
    Ok(comparison)
}

/// Whether the rows of a run's windows hold all of its events; says how many rows there are.
fn check_windows(ours: &Process, run: usize, count: usize) -> Result<u64> {
    let (day, hour) = (run / 24 + 1, run % 24);
    let sql = format!(
        "SELECT count(*) AS windows, sum(n) AS events FROM window_rows WHERE window_start >= TIMESTAMP '2026-01-{day:02}T{hour:02}:00:00Z' \
         AND window_start < TIMESTAMP '2026-01-{day:02}T{hour:02}:{:02}:{:02}Z'",
        (count * SPAN + 10) / 60,
        (count * SPAN + 10) % 60
    );
    let found = ours.sql(&sql)?;
    let row = found.first().context("no row")?;
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    ensure!(number(&row["events"]) == Some((count * EVENTS) as u64), "the windows of {count} bodies hold {row}");
    number(&row["windows"]).context("no count")
}
