//! `cornjacket query`: asks a running pipeline.

use std::io::{IsTerminal, Write, stdout};

use anyhow::Context;
use comfy_table::Table;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::remote::{Service, Where, harmless, runtime};
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

/// Asks and shows the answer.
pub fn query(arguments: &cli::Query) -> Result<(), Failure> {
    let answer = runtime()?.block_on(ask(&arguments.place, &arguments.sql, arguments.limit))?;
    match show(&answer, arguments) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if is_closed_pipe(&error) => Ok(()),
        shown => shown.context("the answer cannot be written").map_err(Failure::Environment),
    }
}

/// The rows that a running pipeline answers each of several questions with.
pub fn rows(place: &Where, sql: &[&str]) -> Result<Vec<Vec<Map<String, Value>>>, Failure> {
    let runtime = runtime()?;
    let mut answers = Vec::new();
    for sql in sql {
        let answer = runtime.block_on(ask(place, sql, u64::from(u32::MAX)))?;
        let rows = answer.rows.iter().map(|row| serde_json::from_str(row.get())).collect::<Result<_, _>>();
        answers.push(rows.context("the answer cannot be read").map_err(Failure::Environment)?);
    }
    Ok(answers)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn ask(place: &Where, sql: &str, limit: u64) -> Result<Answer, Failure> {
    let query = place.service(Service::Query)?;
    let question = query.request(Method::POST, "/api/v1/sql").json(&json!({"sql": sql, "limit": limit}));
    query.json(question).await
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
