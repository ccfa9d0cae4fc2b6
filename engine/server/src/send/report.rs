//! Says what became of what was sent: to people each rejected line as it comes, up to a number, and the sum; to programs all
//! of them.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::Path;

use anyhow::Context;
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use super::lines::{Input, Line};
use crate::Failure;
use crate::remote::harmless;

/// How many rejected lines people are shown.
const SHOWN: u64 = 20;

/// What became of what was sent so far.
pub(super) struct Report {
    names: Vec<String>,
    as_json: bool,
    bar: ProgressBar,
    stored: u64,
    rejected: u64,
    /// Takes the rejected lines.
    file: Option<BufWriter<File>>,
    /// The first that went wrong while a line was told of.
    failure: Option<Failure>,
}

impl Report {
    pub fn new(inputs: &[Input], as_json: bool, file: Option<&Path>, bar: ProgressBar) -> Result<Self, Failure> {
        let file = file.map(|path| File::create(path).with_context(|| format!("{} cannot be written", path.display())));
        let file = file.transpose().map_err(Failure::Environment)?.map(BufWriter::new);
        let as_json = as_json || !stdout().is_terminal();
        let names = inputs.iter().map(Input::name).collect();
        Ok(Self { names, as_json, bar, stored: 0, rejected: 0, file, failure: None })
    }

    /// The answer to a single event.
    pub fn one(&self, answer: &[u8]) -> Result<(), Failure> {
        let answer: Value =
            serde_json::from_slice(answer).context("the answer cannot be read").map_err(Failure::Environment)?;
        if self.as_json {
            print(&answer.to_string())
        } else {
            print(&format!("stored as {}", answer["event_id"].as_str().unwrap_or("?")))
        }
    }

    /// So many events of a batch are stored.
    pub fn stored(&mut self, stored: u64, lines: &[Line]) {
        self.stored += stored;
        self.bar.set_position(lines.last().map_or(0, |line| line.read));
        self.bar.set_message(self.counts());
    }

    /// A line was too long to be sent.
    pub fn too_long(&mut self, line: &Line) {
        let why = json!({"error": "the event has more than 1 MiB", "code": "too_large"});
        let told = self.rejected(line, why.as_object().cloned().unwrap_or_default());
        self.failure = self.failure.take().or(told.err());
    }

    /// A line was rejected.
    pub fn rejected(&mut self, line: &Line, why: Map<String, Value>) -> Result<(), Failure> {
        self.rejected += 1;
        if let Some(file) = &mut self.file {
            let written = file.write_all(&line.text).and_then(|()| file.write_all(b"\n"));
            written.context("a rejected line cannot be kept").map_err(Failure::Environment)?;
        }
        let name = self.names.get(line.input).map_or("", String::as_str);
        if self.as_json {
            let mut object = Map::new();
            object.insert("input".into(), name.into());
            object.insert("line".into(), line.number.into());
            object.extend(why);
            return print(&Value::Object(object).to_string());
        }
        if self.rejected <= SHOWN {
            let text = format!(
                "{name}, line {}: {}",
                line.number,
                why.get("error").and_then(Value::as_str).unwrap_or("rejected")
            );
            self.bar.suspend(|| eprintln!("{}", harmless(&text)));
        }
        Ok(())
    }

    fn counts(&self) -> String {
        format!("{} stored, {} rejected", self.stored, self.rejected)
    }

    /// Says how many there were; how many of them were rejected.
    pub fn end(&mut self) -> Result<u64, Failure> {
        self.bar.finish_and_clear();
        if let Some(file) = &mut self.file {
            file.flush().context("the rejected lines cannot be kept").map_err(Failure::Environment)?;
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let sent = self.stored + self.rejected;
        if self.as_json {
            print(&json!({"sent": sent, "stored": self.stored, "rejected": self.rejected}).to_string())?;
            return Ok(self.rejected);
        }
        if self.rejected > SHOWN {
            eprintln!("… and {} more", self.rejected - SHOWN);
        }
        print(&format!("{sent} sent: {}", self.counts()))?;
        Ok(self.rejected)
    }
}

fn print(line: &str) -> Result<(), Failure> {
    writeln!(stdout(), "{}", harmless(line)).context("the answer cannot be written").map_err(Failure::Environment)
}
