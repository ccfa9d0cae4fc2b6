//! Medians of interleaved runs, and the table they make.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// How much is measured.
pub struct Sizes {
    /// Only to see that everything runs.
    pub small: bool,
    /// The `cornjacket` to measure.
    pub binary: Option<PathBuf>,
}

impl Sizes {
    /// A number of rows, or a hundredth of it.
    pub fn rows(&self, full: usize) -> usize {
        if self.small { full / 100 } else { full }
    }

    /// For how long something is measured.
    pub fn time(&self, full_seconds: u64) -> Duration {
        if self.small { Duration::from_millis(300) } else { Duration::from_secs(full_seconds) }
    }
}

/// Work in a second, of several runs.
#[derive(Clone, Debug, Default)]
pub struct Rates(Vec<f64>);

impl Rates {
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    }

    /// The distance of the extremes, in parts of the median.
    fn spread(&self) -> f64 {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.0.iter().copied().fold(0.0, f64::max);
        (greatest - least) / self.median()
    }
}

/// What was measured.
pub struct Comparison {
    pub unit: &'static str,
    pub ours: Rates,
    pub floor: Rates,
    /// The least ratio that is good enough.
    pub bar: f64,
    /// What else is worth knowing.
    pub note: String,
    /// Whether ours is to be small, and the floor is the most that it may be.
    is_limit: bool,
}

impl Comparison {
    /// A measure that is to stay below a limit. Its ratio is the limit by what was measured, so 1 and more passes.
    pub fn limited(unit: &'static str, limit: f64, measured: Vec<f64>, note: String) -> Self {
        let (ours, floor) = (Rates(measured), Rates(vec![limit]));
        Self { unit, ours, floor, bar: 1.0, note, is_limit: true }
    }

    fn ratio(&self) -> f64 {
        let ratio = self.ours.median() / self.floor.median();
        if self.is_limit { ratio.recip() } else { ratio }
    }
}

/// A bar on stderr for what takes long; nothing where nobody looks.
pub fn progress(steps: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("  {msg} {bar:40} {human_pos}/{human_len} {eta}");
    let bar = ProgressBar::new(steps).with_message(what);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

/// Measures ours and the floor in turn.
pub fn interleaved(
    (unit, bar): (&'static str, f64),
    runs: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut floor: impl FnMut() -> Result<f64>,
) -> Result<Comparison> {
    let mut comparison =
        Comparison { unit, ours: Rates::default(), floor: Rates::default(), bar, note: String::new(), is_limit: false };
    let shown = progress(2 * runs as u64, "runs");
    for _ in 0..runs {
        comparison.ours.0.push(ours()?);
        shown.inc(1);
        comparison.floor.0.push(floor()?);
        shown.inc(1);
    }
    shown.finish_and_clear();
    Ok(comparison)
}

/// Every comparison, and those of an earlier run.
pub struct Report {
    rows: Vec<(String, Comparison)>,
    earlier: Value,
}

impl Report {
    pub fn new(compare: Option<&Path>) -> Result<Self> {
        let earlier = match compare {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
                serde_json::from_str(&text).with_context(|| format!("{} holds no results", path.display()))?
            }
            None => Value::Null,
        };
        Ok(Self { rows: Vec::new(), earlier })
    }

    pub fn add(&mut self, name: String, comparison: Comparison) {
        self.rows.push((name, comparison));
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["name", "ours", "floor", "unit", "ratio", "bar", "", "spread", "before", "note"]);
        for (name, row) in &self.rows {
            let ratio = row.ratio();
            let before = self.earlier["results"][name]["ratio"].as_f64();
            table.add_row([
                name.clone(),
                shown(row.ours.median()),
                shown(row.floor.median()),
                row.unit.to_string(),
                format!("{ratio:.2}"),
                format!("{:.2}", row.bar),
                (if ratio >= row.bar { "pass" } else { "short" }).to_string(),
                format!("±{:.0}% ±{:.0}%", row.ours.spread() * 50.0, row.floor.spread() * 50.0),
                before.map(|before| format!("{before:.2}")).unwrap_or_default(),
                row.note.clone(),
            ]);
        }
        table
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let mut results = serde_json::Map::new();
        for (name, row) in &self.rows {
            let ratio = row.ratio();
            let value = json!({
                "unit": row.unit, "ours": row.ours.0, "floor": row.floor.0, "ratio": ratio, "bar": row.bar,
                "is_limit": row.is_limit, "pass": ratio >= row.bar, "note": row.note,
            });
            results.insert(name.clone(), value);
        }
        let text = serde_json::to_string_pretty(&json!({"results": results}))?;
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// A number for people.
fn shown(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.1}"),
    }
}
