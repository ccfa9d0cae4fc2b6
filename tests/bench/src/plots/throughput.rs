//! Events in a second by how many come in one body, against decoding the same bodies without storing anything.

use std::path::Path;

use anyhow::Result;

use super::chart::{Axis, BLUE, HEAD, Layout, ORANGE, SIZE, legend, line, panel, picture, short};
use super::write_csv;
use crate::batch::{ROUTE, body, post};
use crate::floor::BATCH;
use crate::http::PIPELINE;
use crate::measure::{Sizes, interleaved};
use crate::process::{Floor, Process};

/// Events of a body.
const SIZES: &[usize] = &[1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000];
/// Bodies of a run at the most, and events.
const MOST_BODIES: usize = 5_000;
const MOST_EVENTS: usize = 600_000;
const DEVICES: usize = 1_000;
const RUNS: usize = 5;

/// What was measured with one size: median rates.
struct Measured {
    events: usize,
    ours: f64,
    floor: f64,
}

pub fn draw(folder: &Path, sizes: &Sizes) -> Result<()> {
    let (ours, floor) = (Process::start(sizes, PIPELINE)?, Floor::start()?);
    let (port, sizes_shown) = (ours.port("ingest")?, if sizes.small { &SIZES[..3] } else { SIZES });
    let mut measured = Vec::new();
    for events in sizes_shown {
        eprintln!("throughput, {events} events a body …");
        measured.push(measure((port, floor.port), *events, if sizes.small { 1 } else { RUNS })?);
    }
    #[allow(clippy::cast_precision_loss, reason = "a size")]
    let rows: Vec<Vec<f64>> = measured.iter().map(|size| vec![size.events as f64, size.ours, size.floor]).collect();
    write_csv(&folder.join("throughput.csv"), "events_per_body,events_per_s,floor_events_per_s", rows.clone())?;
    plot(&folder.join("throughput.svg"), &rows)
}

fn measure((port, floor): (u16, u16), events: usize, runs: usize) -> Result<Measured> {
    let count = (MOST_EVENTS / events).clamp(1, MOST_BODIES);
    let bodies: Vec<Vec<u8>> = (0..count).map(|number| body(number % 3_600, events, DEVICES)).collect();
    #[allow(clippy::cast_precision_loss, reason = "events in a second, for people")]
    let rate = |port, route| Ok((count * events) as f64 / post(port, route, &bodies, events)?.as_secs_f64());
    rate(port, ROUTE)?;
    rate(floor, BATCH)?;
    let rates = interleaved(("events/s", 0.0), runs, || rate(port, ROUTE), || rate(floor, BATCH))?;
    Ok(Measured { events, ours: rates.ours.median(), floor: rates.floor.median() })
}

fn plot(file: &Path, rows: &[Vec<f64>]) -> Result<()> {
    let greatest = rows.iter().map(|row| row[0]).fold(1.0, f64::max);
    let x = Axis::log("events of a body", 1.0..greatest, short);
    let y = Axis::log("events in a second", 1e3..1e7, short);
    let below =
        format!("Lines of JSON over HTTP on two connections, 202 when durable; medians of {RUNS} interleaved runs");
    picture(file, ("Throughput by the size of a batch", &below), |root| {
        let (_, area) = root.split_vertically(HEAD);
        let mut panel = panel(&area, x, y)?;
        line(&mut panel, rows.iter().map(|row| (row[0], row[2])), ORANGE)?;
        line(&mut panel, rows.iter().map(|row| (row[0], row[1])), BLUE)?;
        let entries = [
            (ORANGE, "decoded by arrow-json, nothing stored".to_string()),
            (BLUE, "cornjacket: decoded, stored, synced".into()),
        ];
        let place = (i32::try_from(SIZE.0 / 2)?, i32::try_from(SIZE.1)? - 150);
        legend(root, place, Layout::Column, &entries)
    })
}
