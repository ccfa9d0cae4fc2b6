//! What the process takes of the machine: time until it is ready, memory when idle and with a million keys in open windows.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::batch::{ROUTE, post};
use crate::measure::{Comparison, Sizes, progress};
use crate::process::{Process, folder};

/// A window that stays open, since no event comes that is an hour later.
const PIPELINE: &str = "
pipeline: bench
events: { sensor.reading: { payload: { value: double, unit: string }, watermark: { delay: 5s, idle: 1h } } }
sources: { api: { http: {} } }
streams:
  windows: |
    SELECT device, w.start AS window_start, n, mean, most FROM (
      SELECT tumble(interval '1 hour') AS w, aggregate_id AS device, count(*) AS n, avg(value) AS mean,
             max(value) AS most FROM sensor.reading GROUP BY w, device)
sinks: { window_rows: { projection: { from: windows, key: [device, window_start] } } }
";

fn example(sizes: &Sizes) -> Result<Process> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/iot.yaml");
    Process::start_in(sizes, &file, folder()?)
}

pub fn start(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let measured = (0..runs).map(|_| Ok(example(sizes)?.started_in.as_secs_f64() * 1e3));
    let measured = measured.collect::<Result<Vec<f64>>>()?;
    let note = "pipelines/iot.yaml on an empty data folder, to /health/ready".to_string();
    Ok(Comparison::limited("ms", 300.0, measured, note))
}

pub fn memory(sizes: &Sizes, runs: usize) -> Result<Vec<(&'static str, Comparison)>> {
    Ok(vec![("idle", idle(sizes, runs)?), ("state", state(sizes, runs)?)])
}

#[allow(clippy::cast_precision_loss, reason = "megabytes, for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn idle(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let mut measured = Vec::new();
    for _ in 0..runs {
        let process = example(sizes)?;
        std::thread::sleep(sizes.time(3));
        measured.push(megabytes(process.memory()?));
    }
    Ok(Comparison::limited("MB", 80.0, measured, "resident, pipelines/iot.yaml without events".into()))
}

/// Events of a body.
const EVENTS: usize = 10_000;
/// How long the engine may take to put its state into a snapshot: it does so every ten seconds.
const SNAPSHOT: Duration = Duration::from_secs(15);

/// Bodies of events within one hour; each event is of the next of these devices.
fn bodies(rows: usize, devices: usize) -> Vec<Vec<u8>> {
    let body = |numbers: std::ops::Range<usize>| {
        let mut text = String::with_capacity(numbers.len() * 160);
        for number in numbers {
            let _ = writeln!(
                text,
                "{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"device-{}\",\"event_time\":\
                 \"2026-01-01T00:00:00Z\",\"payload\":{{\"value\":{}.5,\"unit\":\"celsius\"}}}}",
                number % devices,
                number % 100
            );
        }
        text.into_bytes()
    };
    (0..rows).step_by(EVENTS).map(|first| body(first..first + EVENTS)).collect()
}

/// One event of the same hour.
const LAST: &str = r#"{"event_type":"sensor.reading","aggregate_id":"device-0","event_time":"2026-01-01T00:00:00Z","payload":{"value":0,"unit":"celsius"}}"#;

/// Bytes of state, as the engine reports them; of all operators together.
fn state_bytes(process: &Process) -> Result<u64> {
    let rows = process.sql("SELECT sum(state_bytes) AS bytes FROM cornjacket.operators")?;
    let bytes = &rows.first().context("no row")?["bytes"];
    bytes.as_u64().or_else(|| bytes.as_str()?.parse().ok()).context("no bytes of state")
}

/// The bytes of the state once it is all in Arrow batches, which a snapshot leaves behind: what is kept for speed, such as
/// hash tables, is not among them.
fn arrow_bytes(process: &Process, is_small: bool) -> Result<u64> {
    let (began, mut least) = (Instant::now(), state_bytes(process)?);
    while began.elapsed() < SNAPSHOT && !is_small {
        std::thread::sleep(Duration::from_millis(500));
        least = least.min(state_bytes(process)?);
    }
    Ok(least)
}

/// How much the process grows by the state of many keys, for each byte of that state in Arrow batches. The same number of
/// events of few keys comes first, so that what is kept of events in any case is there already.
fn state(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let keys = sizes.rows(1_000_000);
    let (few, many) = (bodies(keys, 100), bodies(keys, keys));
    let (mut measured, mut note) = (Vec::new(), String::new());
    let shown = progress(runs as u64, "runs");
    for _ in 0..runs {
        let process = Process::start(sizes, PIPELINE)?;
        let port = process.port("ingest")?;
        post(port, ROUTE, &few, EVENTS)?;
        process.settle(LAST)?;
        let (before, state_before) = (process.memory()?, state_bytes(&process)?);
        post(port, ROUTE, &many, EVENTS)?;
        process.settle(LAST)?;
        let reported = state_bytes(&process)?;
        let bytes = arrow_bytes(&process, sizes.small)?;
        let grown = process.memory()?.saturating_sub(before);
        ensure!(bytes > state_before, "the engine reports no more state with {keys} keys: {bytes} bytes");
        measured.push(megabytes(grown) / megabytes(bytes));
        note = format!(
            "{keys} keys: grown by {:.1} MB, state {:.1} MB in Arrow, {:.1} MB before a snapshot",
            megabytes(grown),
            megabytes(bytes),
            megabytes(reported)
        );
        shown.inc(1);
    }
    shown.finish_and_clear();
    Ok(Comparison::limited("x", 3.0, measured, note))
}
