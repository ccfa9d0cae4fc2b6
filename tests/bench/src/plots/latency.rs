//! How latencies are spread: to the answer, to the row being readable, to the webhook being received.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use plotters::style::RGBColor;

use super::chart::{Axis, BLUE, GREEN, HEAD, Layout, ORANGE, SIZE, legend, line, panel, picture};
use super::statistics::{percentile, sorted};
use super::write_csv;
use crate::latency::{HOT, RATE, Times, measure};
use crate::measure::Sizes;

/// From where to where latencies are shown, in ms, and how many steps there are to ten times as much.
const RANGE: (f64, f64) = (0.1, 1_000.0);
const STEPS: f64 = 20.0;

/// What is shown as one line.
struct Spread {
    what: &'static str,
    color: RGBColor,
    /// In ms, in their order.
    times: Vec<f64>,
}

pub fn draw(folder: &Path, sizes: &Sizes) -> Result<()> {
    let (runs, seconds) = if sizes.small { (1, 1) } else { (6, 10) };
    eprintln!("latency …");
    let measured = measure(sizes, runs, seconds)?;
    let spread = |what, color, of: fn(&Times) -> &Vec<Duration>| {
        let times = measured.iter().flat_map(of).map(|time| time.as_secs_f64() * 1e3);
        Spread { what, color, times: sorted(times) }
    };
    let spreads = [
        spread("202, durable", BLUE, |run| &run.answers),
        spread("row readable", GREEN, |run| &run.rows),
        spread("webhook received", ORANGE, |run| &run.hooks),
    ];
    let columns: Vec<Vec<(f64, f64)>> = spreads.iter().map(|spread| histogram(&spread.times)).collect();
    let rows = (0..columns[0].len())
        .map(|at| std::iter::once(columns[0][at].0).chain(columns.iter().map(|column| column[at].1)).collect());
    write_csv(&folder.join("latency.csv"), "from_ms,answer_percent,row_percent,webhook_percent", rows)?;
    let below = format!(
        "{RATE} events/s on 64 connections for {} s, counted from when each was due; one of {HOT} calls a webhook",
        runs * usize::try_from(seconds)?
    );
    plot(&folder.join("latency.svg"), &below, &spreads, &columns)
}

/// The percentage of times in each step, by where the step begins.
fn histogram(times: &[f64]) -> Vec<(f64, f64)> {
    let decades = (RANGE.1 / RANGE.0).log10();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few steps")]
    let steps = (decades * STEPS).round() as u32;
    let begin = |step: u32| RANGE.0 * 10_f64.powf(f64::from(step) / STEPS);
    let below = |limit: f64| times.partition_point(|time| *time < limit);
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    let part = |from, to| (below(to) - below(from)) as f64 * 100.0 / times.len().max(1) as f64;
    // The first and the last step hold what lies beyond them.
    let from = |step| if step == 0 { 0.0 } else { begin(step) };
    let to = |step| if step + 1 == steps { f64::INFINITY } else { begin(step + 1) };
    (0..steps).map(|step| (begin(step), part(from(step), to(step)))).collect()
}

/// The outline of a histogram.
fn outline(histogram: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> + '_ {
    let width = 10_f64.powf(1.0 / STEPS);
    histogram.iter().flat_map(move |(from, part)| [(*from, *part), (from * width, *part)])
}

fn plot(file: &Path, below: &str, spreads: &[Spread], columns: &[Vec<(f64, f64)>]) -> Result<()> {
    let most = columns.iter().flatten().map(|(_, part)| *part).fold(1.0, f64::max);
    let milliseconds = |number: f64| format!("{number} ms");
    let x = Axis::log("latency", RANGE.0..RANGE.1, milliseconds);
    // The legend stands above the lines.
    let y = Axis::from_zero("events in a step of 1/20 decade", most * 1.4, |number| format!("{number} %"));
    picture(file, ("How latencies are spread", below), |root| {
        let (_, area) = root.split_vertically(HEAD);
        let mut panel = panel(&area, x, y)?;
        for (spread, column) in spreads.iter().zip(columns) {
            line(&mut panel, outline(column), spread.color)?;
        }
        let entries: Vec<_> = spreads.iter().map(|spread| (spread.color, described(spread))).collect();
        legend(root, (i32::try_from(SIZE.0)? - 500, HEAD + 36), Layout::Column, &entries)
    })
}

fn described(spread: &Spread) -> String {
    let at = |part| percentile(&spread.times, part);
    format!("{}: half in {:.1} ms, 99 % in {:.1} ms, all in {:.0} ms", spread.what, at(0.5), at(0.99), at(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_holds_every_time_once() {
        let times = sorted([0.01, 0.1, 0.5, 1.0, 1.01, 30.0, 5_000.0]);
        let steps = histogram(&times);
        assert_eq!(steps.len(), 80);
        let sum: f64 = steps.iter().map(|(_, part)| part).sum();
        assert!((sum - 100.0).abs() < 1e-9, "{sum}");
        assert!((steps[0].1 - 200.0 / 7.0).abs() < 1e-9, "below the range belongs to its first step");
        assert!(steps[79].1 > 0.0);
    }
}
