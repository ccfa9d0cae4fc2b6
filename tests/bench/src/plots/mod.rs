//! Plots of what a single figure does not tell: throughput by the size of a batch, how latencies are spread, memory over
//! time. Each is a picture (SVG) and the numbers it shows (CSV) beside it.

mod chart;
mod latency;
mod load;
mod memory;
mod statistics;
mod throughput;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::measure::Sizes;

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plot {
    /// Events in a second by the events of a body, against decoding alone.
    Throughput,
    /// How latencies at 2,000 events in a second are spread.
    Latency,
    /// Memory over time at four fifths of what the machine can do.
    Memory,
}

/// Draws some plots, or all, into a folder.
pub fn draw(folder: &Path, only: &[Plot], sizes: &Sizes, minutes: f64) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let all = Plot::value_variants();
    for plot in all.iter().filter(|plot| only.is_empty() || only.contains(plot)) {
        match plot {
            Plot::Throughput => throughput::draw(folder, sizes)?,
            Plot::Latency => latency::draw(folder, sizes)?,
            Plot::Memory => memory::draw(folder, sizes, minutes)?,
        }
    }
    Ok(())
}

/// Writes the numbers of a picture: a line for each row, with as many decimals as matter.
fn write_csv(file: &Path, header: &str, rows: impl IntoIterator<Item = Vec<f64>>) -> Result<()> {
    let mut text = format!("{header}\n");
    for row in rows {
        let row: Vec<String> = row.iter().map(|number| ((number * 1e4).round() / 1e4).to_string()).collect();
        let _ = writeln!(text, "{}", row.join(","));
    }
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
