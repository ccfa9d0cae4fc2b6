//! `cornjacket deliveries`: what is sent outside, and what became of it.

use std::io::{IsTerminal, Write, stdout};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Table;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Failure;
use crate::remote::{Remote, Service, Where, harmless, runtime};

pub const ABOUT: &str = "\
Look at what a running pipeline sends outside, and send it again.

A delivery is one row of a webhook sink, with an id and a body that never change. It is pending until its receiver has \
answered with success, then delivered; one that is given up is dead, and a dead letter says why.";

pub const EXAMPLES: &str = "\
Examples:
  cornjacket deliveries list
  cornjacket deliveries list --status dead --action page_oncall
  cornjacket deliveries show msg_5f0c…
  cornjacket deliveries redeliver msg_5f0c…
  cornjacket deliveries list --status dead --json | jq -r .id | xargs cornjacket deliveries redeliver

Exit codes: 0 done, 1 there is no such delivery, 2 no pipeline answers.";

/// Arguments of `deliveries`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List deliveries, the newest first.
    List(List),
    /// Show one with its body.
    Show(Show),
    /// Send some again, now or as soon as the sink's rate and order allow, with the same ids and bodies.
    Redeliver(Redeliver),
}

#[derive(Debug, Args)]
struct List {
    /// Only those that stand so.
    #[arg(long)]
    status: Option<Status>,
    /// Only those of this sink.
    #[arg(long)]
    action: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=10_000))]
    limit: u64,
    /// Lines of JSON, on a terminal too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Where,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Pending,
    Delivered,
    Dead,
}

#[derive(Debug, Args)]
struct Show {
    /// Its id.
    id: String,
    /// One line of JSON, on a terminal too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, Args)]
struct Redeliver {
    /// Their ids.
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    at: Where,
}

#[derive(Deserialize)]
struct Listed {
    deliveries: Vec<Map<String, Value>>,
}

/// Does what is asked.
pub fn deliveries(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = runtime()?;
    match &arguments.command {
        Command::List(list) => runtime.block_on(self::list(list)),
        Command::Show(show) => runtime.block_on(self::show(show)),
        Command::Redeliver(redeliver) => runtime.block_on(self::redeliver(redeliver)),
    }
}

async fn list(list: &List) -> Result<(), Failure> {
    let remote = list.at.service(Service::Actions)?;
    let status = list.status.map(|status| match status {
        Status::Pending => "pending",
        Status::Delivered => "delivered",
        Status::Dead => "dead",
    });
    let limit = list.limit.to_string();
    let mut parameters = vec![("limit", limit.as_str())];
    parameters.extend(status.map(|status| ("status", status)));
    parameters.extend(list.action.as_deref().map(|action| ("action", action)));
    let request = remote.request(Method::GET, "/api/v1/deliveries").query(&parameters);
    let Listed { deliveries } = remote.json(request).await?;
    if list.json || !stdout().is_terminal() {
        return print(&lines(&deliveries));
    }
    if deliveries.is_empty() {
        eprintln!("there are none");
        return Ok(());
    }
    print(&format!("{}\n", table(&deliveries)))
}

async fn show(show: &Show) -> Result<(), Failure> {
    let remote = show.at.service(Service::Actions)?;
    let found: Map<String, Value> = remote.json(remote.request(Method::GET, &path(&show.id, ""))).await?;
    let text = if show.json || !stdout().is_terminal() { lines(&[found]) } else { page(&found) };
    print(&text)
}

async fn redeliver(redeliver: &Redeliver) -> Result<(), Failure> {
    let remote: Remote = redeliver.at.service(Service::Actions)?;
    for id in &redeliver.ids {
        remote.send(remote.request(Method::POST, &path(id, "/redeliver"))).await?;
        print(&format!("{} is due now\n", harmless(id)))?;
    }
    Ok(())
}

/// An id that somebody mistyped must not lead to another path.
fn path(id: &str, what: &str) -> String {
    let escaped: String = id
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || byte == b'_' {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    format!("/api/v1/deliveries/{escaped}{what}")
}

/// Whoever reads may have seen enough.
fn print(text: &str) -> Result<(), Failure> {
    match stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("the answer cannot be written").map_err(Failure::Environment)
        }
        _ => Ok(()),
    }
}

fn lines(deliveries: &[Map<String, Value>]) -> String {
    deliveries.iter().map(|delivery| format!("{}\n", Value::Object(delivery.clone()))).collect()
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => harmless(text),
        Some(other) => other.to_string(),
    }
}

fn table(deliveries: &[Map<String, Value>]) -> Table {
    const COLUMNS: [&str; 6] = ["id", "action", "status", "created_at", "attempts", "last_error"];
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(COLUMNS);
    for delivery in deliveries {
        table.add_row(COLUMNS.map(|name| shown(delivery.get(name))));
    }
    table
}

fn page(delivery: &Map<String, Value>) -> String {
    const NAMES: [&str; 13] = [
        "id",
        "action",
        "status",
        "created_at",
        "row_time",
        "event_id",
        "attempts",
        "next_attempt_at",
        "last_attempt_at",
        "last_status",
        "last_error",
        "settled_at",
        "body",
    ];
    let filled = NAMES.iter().map(|name| (name, shown(delivery.get(*name)))).filter(|(_, text)| !text.is_empty());
    filled.map(|(name, text)| format!("{name:<16} {text}\n")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn delivery() -> Map<String, Value> {
        let object = json!({"id": "msg_1", "action": "page", "status": "dead", "attempts": 3, "event_id": null,
                            "created_at": "2026-01-01T00:00:00Z", "last_error": "the receiver\u{1b}[31m answered 500"});
        object.as_object().cloned().expect("an object")
    }

    #[test]
    fn deliveries_are_shown_without_control_characters() {
        let shown = table(&[delivery()]).to_string();
        assert!(shown.contains("msg_1") && shown.contains("\\u{1b}[31m answered 500"), "{shown}");
        let page = page(&delivery());
        assert!(page.contains("status           dead\n") && !page.contains("event_id"), "{page}");
        assert_eq!(lines(&[delivery()]).lines().count(), 1);
    }

    #[test]
    fn ids_stay_one_part_of_the_path() {
        assert_eq!(path("msg_1", ""), "/api/v1/deliveries/msg_1");
        assert_eq!(path("../x?y", "/redeliver"), "/api/v1/deliveries/%2E%2E%2Fx%3Fy/redeliver");
    }
}
