//! What the process takes: time to be ready, and memory. The bars are absolute, so the ratio is the bar by what was
//! measured, and 1 is just good enough.

use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;

use crate::batch::{BATCH, send};
use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::Ours;

const MOST_START_MS: f64 = 300.0;
const MOST_IDLE_MB: f64 = 80.0;
/// How many times the bytes of their Arrow columns the states of windows may take.
const MOST_STATE: f64 = 3.0;

fn example(sizes: &Sizes) -> Result<Ours> {
    let file = Path::new("pipelines/iot.yaml");
    let file = file.canonicalize().context("run this in the project's folder")?;
    Ours::run(sizes, &file, tempfile::tempdir_in(".")?)
}

/// `run` of the example until it is ready.
pub fn start(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let mut times = Vec::new();
    // The first one reads the program from the disk.
    example(sizes)?;
    let ours = || {
        let took = example(sizes)?.started_in.as_secs_f64() * 1e3;
        times.push(took);
        Ok(1.0 / took)
    };
    let mut comparison = interleaved(("1/ms", 1.0), runs, ours, || Ok(1.0 / MOST_START_MS))?;
    times.sort_by(f64::total_cmp);
    comparison.note = format!("{:.0} ms, {MOST_START_MS:.0} ms are allowed", times[times.len() / 2]);
    Ok(comparison)
}

/// The resident memory of the example with nothing to do.
#[allow(clippy::cast_precision_loss, reason = "megabytes, for people")]
pub fn idle(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let ours = example(sizes)?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let memory = ours.memory()? as f64 / 1e6;
    let mut comparison = interleaved(("1/MB", 1.0), runs.min(1), || Ok(1.0 / memory), || Ok(1.0 / MOST_IDLE_MB))?;
    comparison.note = format!("{memory:.0} MB, {MOST_IDLE_MB:.0} MB are allowed");
    Ok(comparison)
}

const KEYED: &str = "pipeline: bench\n\
    events: { sensor.reading: { payload: { value: double, unit: string } } }\n\
    sources: { api: { http: {} } }\n\
    streams: { days: \"SELECT device, n, mean, most FROM (SELECT tumble(interval '1 day') AS w, aggregate_id AS device, \
    count(*) AS n, avg(value) AS mean, max(value) AS most FROM sensor.reading GROUP BY w, device)\" }\n\
    sinks: { out: { stdout: { from: days } } }\n";
/// A key of some 14 bytes with its offset, a count, a sum and a count, and a maximum.
const ARROW_BYTES: usize = 14 + 4 + 8 + 16 + 8;

/// A million keys in an open window, as the process grows by them.
#[allow(clippy::cast_precision_loss, reason = "megabytes, for people")]
pub fn keys(sizes: &Sizes, _: usize) -> Result<Comparison> {
    let keys = sizes.rows(1_000_000);
    let ours = Ours::start(sizes, KEYED)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What the doors and caches take is there already when it is measured.
    fill(&runtime, &ours, keys, true)?;
    let before = ours.memory()?;
    fill(&runtime, &ours, keys, false)?;
    let grown = ours.memory()?.saturating_sub(before) as f64;
    let arrow = (keys * ARROW_BYTES) as f64;
    let reported = ours.sql("SELECT sum(state_bytes) AS bytes FROM cornjacket.operators")?;
    let reported = reported[0]["bytes"].as_f64().unwrap_or(0.0);
    let ratio = grown.max(reported) / arrow;
    let mut comparison = interleaved(("1/x", 1.0), 1, || Ok(1.0 / ratio), || Ok(1.0 / MOST_STATE))?;
    comparison.note = format!(
        "{keys} keys: {:.0} MB of columns, {:.0} MB of state, {:.0} MB more resident",
        arrow / 1e6,
        reported / 1e6,
        grown / 1e6
    );
    Ok(comparison)
}

/// An event of each of so many keys, or as many events of one key, and waits until they are computed.
fn fill(runtime: &tokio::runtime::Runtime, ours: &Ours, keys: usize, is_one: bool) -> Result<()> {
    let lines = |from: usize, to: usize| -> String {
        let line = |key: usize| {
            let key = if is_one { 0 } else { key };
            format!(
                "{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"device-{key:07}\",\"payload\":{{\"value\":1.5,\"unit\":\"c\"}}}}\n"
            )
        };
        (from..to).map(line).collect()
    };
    runtime.block_on(async {
        let mut stream = TcpStream::connect(("127.0.0.1", ours.ingest)).await?;
        let mut from = 0;
        while from < keys {
            let to = (from + 10_000).min(keys);
            send(&mut stream, BATCH, &lines(from, to)).await?;
            from = to;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let left = "SELECT sum(end_offset - reflected_offset) AS left FROM cornjacket.topics";
    while ours.sql(left)?[0]["left"].as_i64() != Some(0) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // A snapshot of it is taken as well.
    std::thread::sleep(std::time::Duration::from_secs(if keys > 100_000 { 12 } else { 0 }));
    Ok(())
}
