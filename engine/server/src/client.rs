//! `cornjacket query`: asks a running pipeline.

use std::io::{IsTerminal, Write, stdout};
use std::path::Path;

use anyhow::{Context, anyhow};
use comfy_table::Table;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::folder::ports_of;
use crate::{Failure, cli};

#[derive(Deserialize)]
struct Column {
    name: String,
}

#[derive(Deserialize)]
struct Answer {
    columns: Vec<Column>,
    /// Each row's text: its members stay in the order of the columns.
    rows: Vec<Box<RawValue>>,
    truncated: bool,
}

#[derive(Deserialize)]
struct Problem {
    error: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    message: String,
}

/// Asks and shows the answer.
pub fn query(arguments: &cli::Query) -> Result<(), Failure> {
    let url = url(arguments)?;
    let runtime = runtime()?;
    let answer = runtime.block_on(ask(&url, arguments))?;
    match show(&answer, arguments) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if is_closed_pipe(&error) => Ok(()),
        shown => shown.context("the answer cannot be written").map_err(Failure::Environment),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the process cannot start").map_err(Failure::Environment)
}

/// The rows that a running pipeline answers each of several questions with.
pub fn rows(url: Option<&str>, data_dir: &Path, sql: &[&str]) -> Result<Vec<Vec<Map<String, Value>>>, Failure> {
    let runtime = runtime()?;
    let mut answers = Vec::new();
    for sql in sql {
        let (url_given, data_dir) = (url.map(str::to_string), data_dir.to_path_buf());
        let question =
            cli::Query { sql: (*sql).into(), url: url_given, data_dir, limit: u64::from(u32::MAX), json: true };
        let answer = runtime.block_on(ask(&self::url(&question)?, &question))?;
        let rows = answer.rows.iter().map(|row| serde_json::from_str(row.get())).collect::<Result<_, _>>();
        answers.push(rows.context("the answer cannot be read").map_err(Failure::Environment)?);
    }
    Ok(answers)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn url(arguments: &cli::Query) -> Result<String, Failure> {
    if let Some(url) = &arguments.url {
        return Ok(url.trim_end_matches('/').to_string());
    }
    let folder = &arguments.data_dir;
    let port = ports_of(folder).and_then(|ports| ports.query).ok_or_else(|| {
        Failure::Environment(anyhow!(
            "no pipeline runs on the data folder {}: start one with `cornjacket run FILE`, or say where it is with \
             --data-dir or --url",
            folder.display()
        ))
    })?;
    Ok(format!("http://127.0.0.1:{port}"))
}

async fn ask(url: &str, arguments: &cli::Query) -> Result<Answer, Failure> {
    let unreachable = || format!("{url} does not answer: is `cornjacket run` running?");
    let question = json!({"sql": arguments.sql, "limit": arguments.limit});
    let mut client = reqwest::Client::builder();
    if arguments.url.is_none() {
        // What runs on this machine is not reached through a proxy.
        client = client.no_proxy();
    }
    let client = client.build().context("the process cannot start").map_err(Failure::Environment)?;
    let sent = client.post(format!("{url}/api/v1/sql")).json(&question).send().await;
    let response = sent.with_context(unreachable).map_err(Failure::Environment)?;
    let status = response.status();
    let body = response.bytes().await.context("the answer broke off").map_err(Failure::Environment)?;
    if status.is_success() {
        let answer = serde_json::from_slice(&body).context("the answer cannot be read");
        return answer.map_err(Failure::Environment);
    }
    let problem: Problem = serde_json::from_slice(&body).with_context(unreachable).map_err(Failure::Environment)?;
    let help: String = problem.details.iter().map(|detail| format!("\n  help: {}", detail.message)).collect();
    let text = format!("{}{help}", problem.error);
    let wrong = status.is_client_error();
    Err(if wrong { Failure::Input(anyhow!(text)) } else { Failure::Environment(anyhow!(text)) })
}

fn show(answer: &Answer, arguments: &cli::Query) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    if arguments.json || !stdout().is_terminal() {
        for row in &answer.rows {
            writeln!(out, "{}", row.get())?;
        }
    } else {
        writeln!(out, "{}", table(answer)?)?;
    }
    if answer.truncated {
        eprintln!("only the first {} rows are shown: ask for more with --limit", answer.rows.len());
    }
    Ok(())
}

/// Events come from strangers, and a terminal obeys control characters.
fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn table(answer: &Answer) -> anyhow::Result<Table> {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(answer.columns.iter().map(|column| &column.name));
    for row in &answer.rows {
        let row: Map<String, Value> = serde_json::from_str(row.get())?;
        table.add_row(answer.columns.iter().map(|column| match row.get(&column.name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => harmless(text),
            Some(other) => other.to_string(),
        }));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(harmless("grün\n\u{1b}[31m\r"), "grün\n\\u{1b}[31m\\r");
    }

    #[test]
    fn rows_stand_under_their_columns() {
        let text =
            r#"{"columns":[{"name":"b"},{"name":"a"}],"rows":[{"b":1,"a":"x"},{"b":null,"a":true}],"truncated":false}"#;
        let answer: Answer = serde_json::from_str(text).expect("an answer");
        let shown = table(&answer).expect("a table").lines().collect::<Vec<_>>();
        assert!(shown[1].contains("b ┆ a") && shown[3].contains("1 ┆ x") && shown[4].contains("  ┆ true"), "{shown:?}");
    }
}
