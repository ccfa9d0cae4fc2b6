//! `cornjacket tail`: what changes in a running pipeline, as it changes.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use eventsource_stream::{Event, Eventsource};
use futures::StreamExt;
use reqwest::{Method, header};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Failure;
use crate::remote::{Remote, Service, Where, harmless, runtime};

pub const ABOUT: &str = "\
Follow a projection or an event type of a running pipeline.

Of a projection every row that changes is shown as it is then, with the columns of its key in front; of an event type
every event, once it is durable. A stream in between is followed by giving it a projection. When the connection breaks it is
made again, and nothing is left out: events go on where they were, and of a projection every row is shown that changed
meanwhile.";

pub const EXAMPLES: &str = "\
Examples:
  cornjacket tail sensor_state
  cornjacket tail sensor_state --all
  cornjacket tail sensor.reading | jq .payload.value
  cornjacket tail sensor.reading --limit 1

Exit codes: 0 ended by Ctrl-C or --limit, 1 there is no such projection or event type, 2 no pipeline answers.";

/// How often and after which time a broken connection is made again.
const ATTEMPTS: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);
/// A column is as wide as its name, and not narrower than this.
const NARROWEST: usize = 10;

/// Arguments of `tail`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A projection, or an event type such as sensor.reading.
    name: String,
    /// Show the rows that a projection has already, before the changes.
    #[arg(long)]
    all: bool,
    /// End after this many rows.
    #[arg(long, value_name = "ROWS")]
    limit: Option<u64>,
    /// Lines of JSON, on a terminal too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// Follows until it is told to end.
pub fn tail(arguments: &Arguments) -> Result<(), Failure> {
    let as_json = arguments.json || !stdout().is_terminal();
    let mut tail = Tail { arguments, last_id: None, shown: 0, table: (!as_json).then(Table::default) };
    runtime()?.block_on(async {
        tokio::select! {
            outcome = tail.run() => outcome,
            interrupted = tokio::signal::ctrl_c() => interrupted.context("signals cannot be heard").map_err(Failure::Environment),
        }
    })
}

#[derive(Deserialize)]
struct Listed {
    projections: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

struct Tail<'a> {
    arguments: &'a Arguments,
    last_id: Option<String>,
    shown: u64,
    /// How rows are shown on a terminal.
    table: Option<Table>,
}

impl Tail<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut query = self.arguments.place.service(Service::Query)?;
        let path = self.path(&query).await?;
        let mut left = ATTEMPTS;
        loop {
            let heard = self.last_id.clone();
            let failed = match self.follow(&query, &path).await {
                Ok(true) => return Ok(()),
                Ok(false) => anyhow!("the connection has ended"),
                // Before anything was heard, or where the answer is no, trying again is no use.
                Err(Failure::Environment(error)) if self.last_id.is_some() && !is_closed_pipe(&error) => error,
                Err(failure) => return Err(failure),
            };
            left = if self.last_id == heard { left - 1 } else { ATTEMPTS };
            if left == 0 {
                return Err(Failure::Environment(failed));
            }
            tokio::time::sleep(PAUSE).await;
            // A process that was started anew may be at another port.
            if let Ok(again) = self.arguments.place.service(Service::Query) {
                query = again;
            }
        }
    }

    /// Where to follow what is named.
    async fn path(&self, query: &Remote) -> Result<String, Failure> {
        let Arguments { name, all, .. } = self.arguments;
        let listed: Listed = query.json(query.request(Method::GET, "/api/v1/projections")).await?;
        if listed.projections.iter().any(|projection| projection.name == *name) {
            return Ok(format!("/api/v1/projections/{name}/changes?snapshot={all}"));
        }
        if !name.contains('.') {
            let names: Vec<String> = listed.projections.into_iter().map(|projection| projection.name).collect();
            return Err(Failure::Input(anyhow!(
                "there is no projection `{name}`: there are {}; a stream is followed by giving it a projection, and an event \
                 type is named as sensor.reading",
                names.join(", ")
            )));
        }
        if *all {
            return Err(Failure::Input(anyhow!(
                "--all is for projections: `cornjacket query 'SELECT * FROM {name}'` shows the events that there are"
            )));
        }
        Ok(format!("/api/v1/events?event_type={name}"))
    }

    /// Follows over one connection; says whether enough was shown.
    async fn follow(&mut self, query: &Remote, path: &str) -> Result<bool, Failure> {
        let mut request = query.request(Method::GET, path).header(header::ACCEPT, "text/event-stream");
        if let Some(id) = &self.last_id {
            request = request.header("last-event-id", id);
        }
        let mut events = query.send(request).await?.bytes_stream().eventsource();
        while let Some(event) = events.next().await {
            let event = event.context("the connection broke").map_err(Failure::Environment)?;
            if !event.id.is_empty() {
                self.last_id = Some(event.id.clone());
            }
            self.show(&event).context("the rows cannot be written").map_err(Failure::Environment)?;
            if self.arguments.limit.is_some_and(|limit| self.shown >= limit) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn show(&mut self, event: &Event) -> anyhow::Result<()> {
        match event.event.as_str() {
            "message" | "delete" => self.shown += 1,
            "error" => return Err(anyhow!("{}", event.data)),
            "reset" => eprintln!("too much has changed meanwhile: all rows follow"),
            _ => return Ok(()),
        }
        if event.event == "reset" {
            return Ok(());
        }
        let mut out = stdout().lock();
        let Some(table) = &mut self.table else {
            writeln!(out, "{}", event.data)?;
            return Ok(out.flush()?);
        };
        let row: Map<String, Value> = serde_json::from_str(&event.data).context("a row cannot be read")?;
        write!(out, "{}", table.lines(&event.event, &row))?;
        Ok(out.flush()?)
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let gone = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(gone))
}

/// Rows under each other, though nobody knows yet how wide they will be.
#[derive(Default)]
struct Table {
    columns: Vec<(String, usize)>,
}

impl Table {
    /// The row, with a head if it is the first of its kind.
    fn lines(&mut self, kind: &str, row: &Map<String, Value>) -> String {
        let cells = cells(kind, row);
        let is_known = self.columns.len() == cells.len()
            && self.columns.iter().zip(&cells).all(|((known, _), (name, _))| known == name);
        let mut text = String::new();
        if !is_known && kind == "message" {
            let width = |(name, value): &(String, String)| {
                (name.clone(), name.chars().count().max(value.chars().count()).max(NARROWEST))
            };
            self.columns = cells.iter().map(width).collect();
            text = line(self.columns.iter().map(|(name, width)| (name.as_str(), *width)));
            text += &line(self.columns.iter().map(|(name, width)| ("─".repeat((*width).max(name.len())), *width)));
        }
        let widths = self.columns.iter().map(|(_, width)| *width).chain(std::iter::repeat(NARROWEST));
        text + &line(cells.iter().map(|(_, value)| value.as_str()).zip(widths))
    }
}

fn line(cells: impl Iterator<Item = (impl AsRef<str>, usize)>) -> String {
    let padded = cells.map(|(text, width)| format!("{:width$}", text.as_ref()));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}

/// What is shown of a row or an event: its time and key, and the columns or fields that are its own.
fn cells(kind: &str, row: &Map<String, Value>) -> Vec<(String, String)> {
    let shown = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    };
    let get = |name: &str| row.get(name).map(shown).unwrap_or_default();
    if kind == "delete" {
        let key = row.get("key").and_then(Value::as_object);
        let values = key.map(|key| key.values().map(shown).collect::<Vec<_>>().join("/")).unwrap_or_default();
        return vec![("time".into(), String::new()), ("key".into(), values), (String::new(), "deleted".into())];
    }
    let (time, own) = match row.get("state") {
        Some(state) => ("updated_at", state.as_object()),
        None => ("event_time", row.get("payload").and_then(Value::as_object)),
    };
    let key = row.get("aggregate_id").map(|_| ("key".to_owned(), get("aggregate_id")));
    let own = own.into_iter().flatten().map(|(name, value)| (name.clone(), shown(value)));
    [("time".to_owned(), get(time))].into_iter().chain(key).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_under_a_head_that_comes_once() {
        let mut table = Table::default();
        let row = |text: &str| -> Map<String, Value> { serde_json::from_str(text).expect("an object") };
        let first = r#"{"aggregate_id":"d1","updated_at":"10:00","state":{"value":21.5,"unit":"celsius"}}"#;
        let second = r#"{"aggregate_id":"\u001b[31m","updated_at":"10:01","state":{"value":null,"unit":"kelvin"}}"#;
        let text = table.lines("message", &row(first)) + &table.lines("message", &row(second));
        let gone = table.lines("delete", &row(r#"{"projection_type":"p","key":{"aggregate_id":"d1"}}"#));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].starts_with("time        key         "), "{text}");
        assert!(lines[2].starts_with("10:00       d1          ") && lines[3].contains("\\u{1b}[31m"), "{text}");
        assert!(gone.contains("d1") && gone.ends_with("deleted\n"), "{gone}");
    }
}
