//! `cornjacket explain --watermarks`: how far time has come in a running pipeline, by its system tables.

use std::fmt::Write;
use std::io::{IsTerminal, stdout};

use anyhow::anyhow;
use comfy_table::Table;
use cornjacket_compiler::Pipeline;
use cornjacket_core::time::{Micros, format_rfc3339, parse_rfc3339};
use serde_json::{Map, Value, json};

use super::time::{clock_time, span};
use super::verdict::{Clock, Node, Verdict, says, verdict};
use super::{Arguments, Format};
use crate::{Failure, client};

const PIPELINES: &str = "SELECT * FROM cornjacket.pipelines";
const OPERATORS: &str = "SELECT * FROM cornjacket.operators";
const CLOCKS: &str = "SELECT * FROM cornjacket.clocks ORDER BY event_type, partition";

/// What a running pipeline told, at one moment.
struct Told {
    now: Micros,
    pipeline: String,
    /// What keeps the engine as a whole from getting on.
    trouble: Option<String>,
    nodes: Vec<Node>,
    clocks: Vec<Clock>,
}

/// Asks a running pipeline, and says it in the form that is wanted.
pub fn text(arguments: &Arguments, file: Option<&Pipeline>, format: Option<Format>) -> Result<String, Failure> {
    let by_reader = if stdout().is_terminal() { Format::Text } else { Format::Json };
    let format = format.unwrap_or(by_reader);
    if matches!(format, Format::Mermaid | Format::Dot) {
        let text = "--watermarks are shown as text or JSON: leave --format out, or write --format json";
        return Err(Failure::Input(anyhow!(text)));
    }
    let told = ask(arguments)?;
    if let Some(file) = file.filter(|file| file.name != told.pipeline) {
        return Err(Failure::Input(anyhow!(
            "the file's pipeline is `{}`, and the one that runs there is `{}`: leave the file out, or say where its own \
             runs with --data-dir or --url",
            file.name,
            told.pipeline
        )));
    }
    Ok(if format == Format::Json { told.json() } else { told.text() })
}

fn ask(arguments: &Arguments) -> Result<Told, Failure> {
    let questions = [PIPELINES, OPERATORS, CLOCKS];
    let mut answers = client::rows(&arguments.place, &questions)?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let told = |pipelines: Vec<Row>, operators: Vec<Row>, clocks: Vec<Row>| {
        let pipeline = pipelines.first()?;
        let rebuilding = pipeline.get("rebuilding")?.as_bool()?;
        let rebuild = rebuilding.then(|| "parts that changed are being computed anew from the log".to_string());
        Some(Told {
            now: time(pipeline, "asked_at")?,
            pipeline: word(pipeline, "name")?,
            trouble: word(pipeline, "waiting_for").or(rebuild),
            nodes: operators.iter().map(node).collect::<Option<_>>()?,
            clocks: clocks.iter().map(clock).collect::<Option<_>>()?,
        })
    };
    told(next(), next(), next()).ok_or_else(|| {
        let text = "the running pipeline is of another version: its system tables have other columns";
        Failure::Environment(anyhow!(text))
    })
}

type Row = Map<String, Value>;

fn word(row: &Row, name: &str) -> Option<String> {
    row.get(name)?.as_str().map(str::to_string)
}

fn time(row: &Row, name: &str) -> Option<Micros> {
    parse_rfc3339(row.get(name)?.as_str()?)
}

fn node(row: &Row) -> Option<Node> {
    row.get("waits_for")?;
    Some(Node {
        name: word(row, "name")?,
        kind: word(row, "kind")?,
        event_types: word(row, "event_types")?.split(", ").map(str::to_string).collect(),
        watermark: time(row, "watermark"),
        waits_for: time(row, "waits_for"),
        closes_by: time(row, "closes_by"),
    })
}

fn clock(row: &Row) -> Option<Clock> {
    Some(Clock {
        event_type: word(row, "event_type")?,
        partition: row.get("partition")?.as_i64()?,
        time: time(row, "clock")?,
        last_row_at: time(row, "last_row_at"),
        silent_at: time(row, "silent_at")?,
    })
}

impl Told {
    /// A line per node, then a line per clock.
    fn json(&self) -> String {
        let nodes = self.nodes.iter().map(|node| self.node_json(node));
        let clocks = self.clocks.iter().map(|clock| self.clock_json(clock));
        nodes.chain(clocks).map(|value| format!("{value}\n")).collect()
    }

    fn node_json(&self, node: &Node) -> Value {
        let mut value = json!({
            "node": node.name,
            "kind": node.kind,
            "event_types": node.event_types,
            "watermark": node.watermark.map(format_rfc3339),
            "waits_for": node.waits_for.map(format_rfc3339),
        });
        if let Some(waits_for) = node.waits_for {
            value["closes_by"] = json!(node.closes_by.map(format_rfc3339));
            value["held_by"] = match verdict(node, waits_for, &self.clocks, self.now) {
                Verdict::Held(holder, _) => self.clock_json(holder),
                Verdict::Silent | Verdict::Due => Value::Null,
            };
            value["says"] = json!(says(node, &self.clocks, self.now));
        }
        value
    }

    fn clock_json(&self, clock: &Clock) -> Value {
        json!({
            "event_type": clock.event_type,
            "partition": clock.partition,
            "clock": format_rfc3339(clock.time),
            "last_row_at": clock.last_row_at.map(format_rfc3339),
            "silent_at": format_rfc3339(clock.silent_at),
            "silent": clock.is_silent(self.now),
        })
    }

    fn text(&self) -> String {
        let mut text = format!("pipeline {} at {} UTC\n", self.pipeline, clock_time(self.now, self.now));
        if let Some(trouble) = &self.trouble {
            let _ = writeln!(text, "The engine is not getting on: {trouble}");
        }
        let _ = write!(text, "\n{}\n", self.node_table());
        let waiting: Vec<String> = self.nodes.iter().filter_map(|node| says(node, &self.clocks, self.now)).collect();
        if waiting.is_empty() {
            text += "\nNo window is open.\n";
        }
        for line in waiting {
            let _ = write!(text, "\n{line}\n");
        }
        if self.clocks.is_empty() {
            return text + "\nNo event has come yet, so no clock runs.\n";
        }
        let _ = write!(text, "\n{}\n", self.clock_table());
        text
    }

    fn node_table(&self) -> Table {
        let mut table = table(&["node", "kind", "watermark", "behind", "oldest window closes at"]);
        for node in &self.nodes {
            let watermark = node.watermark.map_or_else(|| "none yet".into(), |time| clock_time(time, self.now));
            let behind = node.watermark.map_or_else(String::new, |time| span(self.now - time));
            let waits_for = node.waits_for.map_or_else(String::new, |time| clock_time(time, self.now));
            table.add_row([&node.name, &node.kind, &watermark, &behind, &waits_for]);
        }
        table
    }

    fn clock_table(&self) -> Table {
        let mut table = table(&["event type", "partition", "clock", "behind", "last row", "silent"]);
        for clock in &self.clocks {
            table.add_row([
                clock.event_type.clone(),
                clock.partition.to_string(),
                clock_time(clock.time, self.now),
                span(self.now - clock.time),
                clock
                    .last_row_at
                    .map_or_else(|| "before the start".into(), |at| format!("{} ago", span(self.now - at))),
                if clock.is_silent(self.now) {
                    "yes".into()
                } else {
                    format!("in {}", span(clock.silent_at - self.now))
                },
            ]);
        }
        table
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}
