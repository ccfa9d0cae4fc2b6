//! `cornjacket audit`: whether every event and every row is accounted for, and the place where one is not.

use std::io::{IsTerminal, Write, stdout};
use std::sync::Arc;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use comfy_table::{Cell, Color, Table};
use cornjacket_core::graph::Graph;
use cornjacket_core::store::Storage;
use cornjacket_runtime::audit::{Check, audit};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use crate::http::{Answered, Problem};
use crate::remote::{Service, Where, runtime};
use crate::{Failure, INPUT_IS_WRONG};

pub const ABOUT: &str = "\
Hold the ledger of a running pipeline against what there is.

Every row is counted where it passes, in the transaction that it belongs to. The audit adds up: what the door stored is in
the log, what is in the log was read, what each node gave the next one took, and what came to a sink was written, or there
is a reason why not. One line that does not balance means that something got lost or came twice, and says where.";

pub const EXAMPLES: &str = "\
Examples:
  cornjacket audit
  cornjacket audit --json | jq 'select(.holds | not)'

Exit codes: 0 everything balances, 1 something does not, 2 no pipeline answers.";

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Lines of JSON, on a terminal too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

type Books = (Arc<Graph>, Storage);

/// `GET /api/v1/audit`
pub fn routes(graph: Arc<Graph>, storage: Storage) -> Router {
    Router::new().route("/api/v1/audit", get(answer)).with_state(Arc::new((graph, storage)))
}

async fn answer(State(books): State<Arc<Books>>) -> Answered {
    let failed = |text: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", text);
    let work = tokio::task::spawn_blocking(move || audit(&books.0, &books.1)).await;
    let checks = work.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    let balanced = checks.iter().all(|check| check.holds);
    Ok(Json(json!({"balanced": balanced, "checks": checks})).into_response())
}

#[derive(Deserialize)]
struct Answer {
    checks: Vec<Check>,
}

/// Asks a running pipeline, and shows what it says.
pub fn command(arguments: &Arguments) -> Result<(), Failure> {
    let query = arguments.place.service(Service::Query)?;
    let answer: Answer = runtime()?.block_on(query.json(query.request(Method::GET, "/api/v1/audit")))?;
    show(&answer.checks, arguments.json || !stdout().is_terminal())
        .context("the answer cannot be written")
        .map_err(Failure::Environment)?;
    let wrong = answer.checks.iter().filter(|check| !check.holds).count();
    if wrong > 0 {
        eprintln!(
            "{wrong} of {} checks do not hold: events or rows got lost there, or came twice",
            answer.checks.len()
        );
        return Err(Failure::Told(INPUT_IS_WRONG));
    }
    Ok(())
}

fn show(checks: &[Check], as_json: bool) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    if as_json {
        for check in checks {
            writeln!(out, "{}", serde_json::to_string(check)?)?;
        }
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(["check", "of", "what must be equal", "left", "right", ""]);
    for check in checks {
        let verdict = if check.holds { Cell::new("holds") } else { Cell::new("DOES NOT HOLD").fg(Color::Red) };
        let texts = [&check.check, &check.node, &check.equation].map(Cell::new);
        let numbers = [check.left, check.right].map(Cell::new);
        table.add_row(texts.into_iter().chain(numbers).chain([verdict]));
    }
    writeln!(out, "{table}")?;
    Ok(())
}
