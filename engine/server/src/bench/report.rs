//! What is shown: a table to people, one JSON object to programs.

use std::io::{Write, stdout};

use anyhow::Context;
use comfy_table::{CellAlignment, Table};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use super::books::{Audit, DeadLetters};
use super::disk::Disk;
use super::figures::{Percentiles, per_second, rounded};
use super::load::Outcome;
use crate::Failure;
use crate::remote::harmless;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) pipeline: String,
    /// Where events were sent, if not to a process of its own.
    pub(super) url: Option<String>,
    pub(super) event_types: Vec<String>,
    pub(super) keys: u32,
    /// Seconds of each measure.
    pub(super) seconds: u32,
    pub(super) disk: Option<Disk>,
    pub(super) single: Measured,
    pub(super) batches: Measured,
    /// From the last answer to a batch until the engine had computed everything; `None` if not within ten minutes.
    pub(super) catch_up_seconds: Option<f64>,
    pub(super) paced: Option<Measured>,
    pub(super) memory: Option<Memory>,
    /// Events that were answered with 202, of all measures and those around them.
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    /// Why the first of those was.
    pub(super) first_rejection: Option<String>,
    /// Requests that were told to come again later.
    pub(super) put_off: u64,
    pub(super) dead_letters: DeadLetters,
    pub(super) audit: Audit,
}

/// A load.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) connections: u32,
    /// Events of a request.
    pub(super) batch: u32,
    /// Events in a second that were asked for, where that was fixed.
    pub(super) rate: Option<u32>,
    /// Events that were answered with 202.
    pub(super) events: u64,
    pub(super) events_per_second: f64,
    pub(super) bytes_per_second: f64,
    #[serde(flatten)]
    pub(super) times: Percentiles,
    /// Seconds of processor time that the process took for a million events.
    pub(super) cpu_seconds_per_million: Option<f64>,
}

/// What the process has of the machine's memory at the end, and had at most.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) resident_bytes: u64,
    pub(super) peak_bytes: u64,
}

impl Measured {
    pub(super) fn new(outcome: Outcome, (connections, batch, rate): (u32, u32, Option<u32>)) -> Self {
        let events = outcome.tally.accepted;
        Self {
            connections,
            batch,
            rate,
            events,
            events_per_second: per_second(events, outcome.elapsed),
            bytes_per_second: per_second(outcome.bytes, outcome.elapsed),
            times: outcome.times.percentiles(),
            cpu_seconds_per_million: None,
        }
    }

    /// Adds how much processor time it took.
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    pub(super) fn took(&mut self, cpu_seconds: Option<f64>) {
        self.cpu_seconds_per_million =
            cpu_seconds.filter(|_| self.events > 0).map(|seconds| rounded(seconds * 1e6 / self.events as f64));
    }
}

impl Report {
    /// Shows it.
    pub(super) fn show(&self, as_json: bool) -> Result<(), Failure> {
        let text = if as_json { serde_json::to_string(self) } else { Ok(self.text()) };
        let text = text.context("the report cannot be written").map_err(Failure::Environment)?;
        writeln!(stdout(), "{text}").context("the report cannot be written").map_err(Failure::Environment)
    }

    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["measure", "value", "unit", "p50", "p99", "max"]);
        for row in self.rows() {
            table.add_row(row);
        }
        for column in table.column_iter_mut().filter(|column| column.index != 0 && column.index != 2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        harmless(&format!("{table}\n{}", self.words().join("\n")))
    }

    fn rows(&self) -> Vec<[String; 6]> {
        let mut rows = Vec::new();
        if let Some(disk) = &self.disk {
            rows.push(row("disk: append and fdatasync", count(disk.syncs_per_second), "/s", Some(&disk.times)));
        }
        let Measured { connections, .. } = self.single;
        let name = format!("single events, {connections} connections");
        rows.push(row(&name, count(self.single.events_per_second), "events/s", Some(&self.single.times)));
        rows.extend(self.single.cpu_row());
        let name = format!("batches of {}", HumanCount(self.batches.batch.into()));
        rows.push(row(&name, count(self.batches.events_per_second), "events/s", Some(&self.batches.times)));
        rows.push(row("", format!("{:.1}", self.batches.bytes_per_second / 1e6), "MB/s", None));
        rows.extend(self.batches.cpu_row());
        let caught_up = self.catch_up_seconds.map_or("over 600".into(), |seconds| format!("{seconds:.2}"));
        rows.push(row("  until all is computed", caught_up, "s", None));
        if let Some(paced) = &self.paced {
            let name = format!("at {} events/s", HumanCount(paced.rate.unwrap_or_default().into()));
            rows.push(row(&name, count(paced.events_per_second), "events/s", Some(&paced.times)));
        }
        if let Some(memory) = &self.memory {
            rows.push(row("memory at the end", BinaryBytes(memory.resident_bytes).to_string(), "", None));
            rows.push(row("memory at most", BinaryBytes(memory.peak_bytes).to_string(), "", None));
        }
        rows
    }

    /// What stands below the table.
    fn words(&self) -> Vec<String> {
        let (accepted, checks) = (HumanCount(self.accepted), self.audit.checks);
        let mut words = Vec::new();
        if self.audit.wrong.is_empty() && self.audit.stored >= self.accepted {
            words.push(format!(
                "{accepted} events were accepted, all are stored, and the audit balances ({checks} checks)"
            ));
        }
        if self.rejected > 0 {
            let why = self.first_rejection.as_deref().unwrap_or("?");
            words.push(format!("rejected: {}, the first: {why}", HumanCount(self.rejected)));
        }
        if self.put_off > 0 {
            words.push(format!("told to come again later (429, 503): {} requests", HumanCount(self.put_off)));
        }
        if let Some(first) = &self.dead_letters.first {
            words.push(format!("dead letters: {}, the first: {first}", HumanCount(self.dead_letters.count)));
        }
        words
    }
}

impl Measured {
    fn cpu_row(&self) -> Option<[String; 6]> {
        let seconds = self.cpu_seconds_per_million?;
        Some(row("  processor time", format!("{seconds:.2}"), "s per million events", None))
    }
}

fn row(name: &str, value: String, unit: &str, times: Option<&Percentiles>) -> [String; 6] {
    let time = |of: fn(&Percentiles) -> f64| times.map_or(String::new(), |times| format!("{:.2} ms", of(times)));
    [
        name.into(),
        value,
        unit.into(),
        time(|times| times.p50_ms),
        time(|times| times.p99_ms),
        time(|times| times.max_ms),
    ]
}

/// A whole number that people can read.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive, and far below 2⁶⁴")]
fn count(number: f64) -> String {
    HumanCount(number.round().max(0.0) as u64).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_a_row_for_each_measure() {
        let measured = |rate| Measured {
            connections: 64,
            batch: 10_000,
            rate,
            events: 10,
            events_per_second: 12_345.6,
            bytes_per_second: 2e6,
            times: Percentiles { p50_ms: 1.0, p99_ms: 2.5, max_ms: 9.0 },
            cpu_seconds_per_million: Some(3.0),
        };
        let report = Report {
            pipeline: "p".into(),
            url: None,
            event_types: vec!["a.b".into()],
            keys: 1,
            seconds: 1,
            disk: None,
            single: measured(None),
            batches: measured(None),
            catch_up_seconds: Some(0.25),
            paced: Some(measured(Some(1_000))),
            memory: Some(Memory { resident_bytes: 1 << 20, peak_bytes: 2 << 20 }),
            accepted: 30,
            rejected: 1,
            first_rejection: Some("why\u{1b}[31m".into()),
            put_off: 0,
            dead_letters: DeadLetters { count: 2, first: Some("late of minutes: too late".into()) },
            audit: Audit { balanced: true, checks: 5, wrong: Vec::new(), stored: 30 },
        };
        let text = report.text();
        for expected in [
            "single events, 64 connections ┆   12,346 ┆ events/s",
            "1.00 ms ┆ 2.50 ms ┆ 9.00 ms",
            "batches of 10,000",
            "2.0 ┆ MB/s",
            "at 1,000 events/s",
            "1.00 MiB",
            "30 events were accepted, all are stored, and the audit balances (5 checks)",
            "rejected: 1, the first: why\\u{1b}[31m",
            "dead letters: 2, the first: late of minutes: too late",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
