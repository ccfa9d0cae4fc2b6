//! Memory over time under a load of four fifths of what the machine can do, with everything on: windows, projections,
//! snapshots, retention. Nothing may grow, nothing may be left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::chart::{Axis, BLUE, GREEN, HEAD, Layout, ORANGE, legend, line, panel, picture, short, with_commas};
use super::load::{Counts, Pace, Timed, run};
use super::statistics::slope;
use super::write_csv;
use crate::client::Connection;
use crate::measure::{Sizes, progress};
use crate::process::Process;

/// Windows and the newest row of each device, and what is over after a while is deleted: the disk is to stay the same too.
const PIPELINE: &str = "
pipeline: bench
events: { sensor.reading: { payload: { value: double, unit: string }, watermark: { delay: 5s } } }
topics: { sensor-events: { partitions: 8, retain: 2m } }
sources: { api: { http: {} } }
streams:
  windows: |
    SELECT device, w.start AS window_start, n, mean, most FROM (
      SELECT tumble(interval '10 seconds') AS w, aggregate_id AS device, count(*) AS n, avg(value) AS mean,
             max(value) AS most FROM sensor.reading GROUP BY w, device)
sinks:
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
  window_rows: { projection: { from: windows, key: [device, window_start], time: window_start, retain: 2m } }
";

const DEVICES: usize = 10_000;
/// Events of a body.
const EVENTS: usize = 1_000;
const CONNECTIONS: usize = 4;
/// Bodies of a connection, which it sends in turn.
const BODIES: usize = 25;
/// The part of what the machine can do.
const PART: f64 = 0.8;
/// What of the time counts as the beginning, in which buffers and caches fill up.
const BEGINNING: f64 = 1.0 / 6.0;

/// An event that no other one waits for.
const LAST: &str = r#"{"event_type":"sensor.reading","aggregate_id":"last","payload":{"value":0,"unit":"celsius"}}"#;

/// What was seen at one time.
struct Sample {
    minute: f64,
    megabytes: f64,
    /// Events accepted in a second since the sample before.
    rate: f64,
    /// Events that the engine had still to work off.
    lag: f64,
    /// Bytes of the data folder, in MB.
    disk: f64,
}

pub fn draw(folder: &Path, sizes: &Sizes, minutes: f64) -> Result<()> {
    let process = Process::start(sizes, PIPELINE)?;
    let mut bodies: Vec<Vec<Timed>> = (0..CONNECTIONS)
        .map(|connection| (0..BODIES).map(|at| Timed::new(connection * BODIES + at, EVENTS, DEVICES)).collect())
        .collect();
    eprintln!("memory, capacity …");
    let (capacity, before) = capacity(&process, &mut bodies, sizes.time(30))?;
    let rate = capacity * PART;
    let time = if sizes.small { Duration::from_secs(2) } else { Duration::from_secs_f64(minutes * 60.0) };
    eprintln!("memory, {} events/s of {} for {} s …", with_commas(rate), with_commas(capacity), time.as_secs());
    let counts = Counts::default();
    let port = process.port("ingest")?;
    let (_, samples) = run(port, &mut bodies, Pace::Rate(rate), &counts, || sample(&process, &counts, time))?;
    let rows = samples.iter().map(|sample| vec![sample.minute, sample.megabytes, sample.rate, sample.lag, sample.disk]);
    write_csv(&folder.join("memory.csv"), "minute,resident_mb,events_per_s,lag_events,disk_mb", rows)?;
    process.settle(LAST)?;
    // The event to wait for is one of them, here and after the capacity was measured.
    let stored = before + counts.accepted() + 1;
    check(&process, stored)?;
    plot(&folder.join("memory.svg"), &samples, &summary(&samples, rate, stored))
}

/// What is taken in and worked off in a second when everything comes as fast as it is answered; and how many that were.
fn capacity(process: &Process, bodies: &mut [Vec<Timed>], time: Duration) -> Result<(f64, u64)> {
    let port = process.port("ingest")?;
    let load = |bodies: &mut [Vec<Timed>], time| -> Result<(f64, u64)> {
        let (counts, began) = (Counts::default(), Instant::now());
        run(port, bodies, Pace::Answers, &counts, || {
            std::thread::sleep(time);
            Ok(())
        })?;
        process.settle(LAST)?;
        #[allow(clippy::cast_precision_loss, reason = "events in a second")]
        Ok((counts.accepted() as f64 / began.elapsed().as_secs_f64(), counts.accepted() + 1))
    };
    let (_, warm) = load(bodies, time / 3)?;
    let (capacity, measured) = load(bodies, time)?;
    Ok((capacity, warm + measured))
}

/// Looks at the process again and again for a time.
fn sample(process: &Process, counts: &Counts, time: Duration) -> Result<Vec<Sample>> {
    let (began, step) = (Instant::now(), (time / 720).max(Duration::from_secs(1)));
    let (mut samples, mut before) = (Vec::new(), (0, began));
    let shown = progress(time.as_secs(), "s");
    while began.elapsed() < time {
        std::thread::sleep(step);
        let (accepted, now) = (counts.accepted(), Instant::now());
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        samples.push(Sample {
            minute: began.elapsed().as_secs_f64() / 60.0,
            megabytes: process.memory()? as f64 / 1e6,
            rate: (accepted - before.0) as f64 / (now - before.1).as_secs_f64(),
            lag: lag(process)?,
            disk: process.disk()? as f64 / 1e6,
        });
        before = (accepted, now);
        shown.set_position(began.elapsed().as_secs());
    }
    shown.finish_and_clear();
    Ok(samples)
}

/// Events that the engine has still to work off.
fn lag(process: &Process) -> Result<f64> {
    let metrics = Connection::open(process.port("query")?)?.get("/metrics")?;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("cornjacket_engine_lag_events "));
    line.and_then(|number| number.trim().parse().ok()).context("no metric cornjacket_engine_lag_events")
}

/// Whether every event that was accepted is stored and accounted for.
fn check(process: &Process, accepted: u64) -> Result<()> {
    let answer = Connection::open(process.port("query")?)?.get("/api/v1/audit")?;
    let audit: Value = serde_json::from_slice(&answer.body).with_context(|| answer.text())?;
    ensure!(audit["balanced"] == true, "the audit does not balance: {audit}");
    let metrics = Connection::open(process.port("query")?)?.get("/metrics")?;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let stored: Option<u64> = text
        .lines()
        .find_map(|line| line.strip_prefix("cornjacket_events_accepted_total{")?.rsplit_once(' ')?.1.parse().ok());
    ensure!(stored == Some(accepted), "{accepted} events were accepted, {stored:?} stored");
    Ok(())
}

/// What the line below the title says.
fn summary(samples: &[Sample], rate: f64, stored: u64) -> String {
    let end = samples.last().map_or(0.0, |sample| sample.minute);
    let late: Vec<&Sample> = samples.iter().filter(|sample| sample.minute >= end * BEGINNING).collect();
    let points: Vec<(f64, f64)> = late.iter().map(|sample| (sample.minute / 60.0, sample.megabytes)).collect();
    let least = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let grown = slope(&points).unwrap_or(0.0);
    format!(
        "{} events/s, {:.0} % of capacity; {} events, none lost. After the first sixth {least:.0} to {most:.0} MB, {grown:+.0} MB/h",
        with_commas(rate),
        PART * 100.0,
        with_commas(u64_to_f64(stored)),
    )
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn u64_to_f64(number: u64) -> f64 {
    number as f64
}

fn plot(file: &Path, samples: &[Sample], below: &str) -> Result<()> {
    let end = samples.last().map_or(1.0, |sample| sample.minute);
    let greatest = |of: fn(&Sample) -> f64| samples.iter().map(of).fold(1.0, f64::max);
    let x = |name| Axis::until(name, end, |minute| format!("{minute}"));
    picture(file, ("Memory over time at 80 % of capacity", below), |root| {
        let (_, area) = root.split_vertically(HEAD);
        let (upper, lower) = area.split_vertically(250);
        let mut panel_of_bytes =
            panel(&upper, x(""), Axis::from_zero("MB", greatest(|s| s.megabytes.max(s.disk)), short))?;
        line(&mut panel_of_bytes, samples.iter().map(|s| (s.minute, s.disk)), ORANGE)?;
        line(&mut panel_of_bytes, samples.iter().map(|s| (s.minute, s.megabytes)), BLUE)?;
        let mut panel_of_events =
            panel(&lower, x("minutes"), Axis::from_zero("events", greatest(|s| s.rate.max(s.lag)), short))?;
        line(&mut panel_of_events, samples.iter().map(|s| (s.minute, s.lag)), ORANGE)?;
        line(&mut panel_of_events, samples.iter().map(|s| (s.minute, s.rate)), GREEN)?;
        let of_bytes = [(BLUE, "resident memory".into()), (ORANGE, "data folder".into())];
        legend(root, (600, HEAD - 2), Layout::Row, &of_bytes)?;
        let of_events = [(GREEN, "accepted in a second".into()), (ORANGE, "not yet worked off".into())];
        legend(root, (560, HEAD + 249), Layout::Row, &of_events)
    })
}
