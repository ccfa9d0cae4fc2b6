//! `cornjacket dlq`: looks at dead letters, puts them right and sends them through the door again, or discards them.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::Value;

use crate::remote::{Remote, Service, Where, harmless, runtime};
use crate::{Failure, INPUT_IS_WRONG};

pub const ABOUT: &str = "\
Look at dead letters, put them right and send them through the door again, or discard them.

What a source sent and the pipeline could not take (no JSON, wrong types, too far ahead), rows that were late for their
window, and rows that a computation or a sink failed on are kept as dead letters, with the bytes as they came.";

pub const EXAMPLES: &str = "\
Examples:
  cornjacket dlq list --reason decode
  cornjacket dlq show 17
  cornjacket dlq edit 17                      opens $EDITOR, then sends what was edited
  cornjacket dlq edit 17 --body-file right.json
  cornjacket dlq replay --all --reason max_ahead --dry-run
  cornjacket dlq replay 17 18 19
  cornjacket dlq discard --all --source devices

Exit codes: 0 done, 1 something was not taken or the numbers are wrong, 2 no pipeline answers.";

/// Arguments of `dlq`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show dead letters, the newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        /// Lines of JSON, on a terminal too.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Where,
    },
    /// Show one with everything that is known of it.
    Show {
        /// Its number.
        id: i64,
        /// As JSON, on a terminal too.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Where,
    },
    /// Edit the body of one in $EDITOR (or give the new one), and send that through the door.
    Edit {
        /// Its number.
        id: i64,
        /// The new body.
        #[arg(long, value_name = "TEXT")]
        body: Option<String>,
        /// A file with the new body; `-` for stdin.
        #[arg(long, value_name = "FILE", conflicts_with = "body")]
        body_file: Option<PathBuf>,
        /// Only say whether it would be taken.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        place: Where,
    },
    /// Send them through the door again.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Only say which would be taken.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        place: Where,
    },
    /// Say that they are not wanted. They stay to be looked at until retention deletes them.
    Discard {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        place: Where,
    },
}

#[derive(Debug, Args)]
struct Filter {
    /// Of this reason: decode, validation, `max_ahead`, late, compute, sink, webhook.
    #[arg(long)]
    reason: Option<String>,
    /// Of this source, stream or sink.
    #[arg(long)]
    source: Option<String>,
    /// In this state: open, replayed or discarded.
    #[arg(long)]
    state: Option<String>,
    /// Recorded at or after this time.
    #[arg(long)]
    from: Option<String>,
    /// Recorded before this time.
    #[arg(long)]
    to: Option<String>,
}

#[derive(Debug, Args)]
struct Which {
    /// Their numbers.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<i64>,
    /// Every open one that fits --reason, --source, --from and --to.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

impl Filter {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let pair = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let pairs = [
            pair("reason", &self.reason),
            pair("source", &self.source),
            pair("state", &self.state),
            pair("from", &self.from),
            pair("to", &self.to),
        ];
        pairs.into_iter().flatten().collect()
    }
}

/// How many are asked for at a time.
const PAGE: u64 = 1_000;

/// Does what is asked.
pub fn dlq(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = runtime()?;
    match &arguments.what {
        What::List { filter, limit, json, place } => {
            let letters = runtime.block_on(list(&place.service(Service::Query)?, filter.pairs(), *limit))?;
            print_list(&letters, *json || !stdout().is_terminal())
        }
        What::Show { id, json, place } => {
            let letter = runtime.block_on(one(&place.service(Service::Query)?, *id))?;
            print_one(&letter, *json || !stdout().is_terminal())
        }
        What::Edit { id, body, body_file, dry_run, place } => {
            let letter = runtime.block_on(one(&place.service(Service::Query)?, *id))?;
            let given = body.as_ref().map(|text| text.clone().into_bytes());
            let edited = given.map_or_else(|| new_body(&letter, body_file.as_deref()), |body| Ok(Some(body)))?;
            let Some(edited) = edited else {
                eprintln!("nothing was changed, so nothing is sent; to send it as it is: cornjacket dlq replay {id}");
                return Ok(());
            };
            let door = place.service(Service::Ingest)?;
            let answer = runtime.block_on(replay(&door, *id, *dry_run, edited))?;
            say(&format!("{id}: {}", outcome(&answer)))
        }
        What::Replay { which, dry_run, place } => {
            let ids = runtime.block_on(numbers(which, place))?;
            let door = place.service(Service::Ingest)?;
            runtime.block_on(each(&ids, async |id| replay(&door, id, *dry_run, Vec::new()).await))
        }
        What::Discard { which, place } => {
            let ids = runtime.block_on(numbers(which, place))?;
            let door = place.service(Service::Ingest)?;
            let discard = async |id| {
                let path = format!("/api/v1/dead_letters/{id}/discard");
                door.json(door.request(Method::POST, &path)).await
            };
            runtime.block_on(each(&ids, discard))
        }
    }
}

async fn list(query: &Remote, mut pairs: Vec<(&'static str, String)>, limit: u64) -> Result<Vec<Value>, Failure> {
    let mut letters = Vec::new();
    loop {
        let left = limit.saturating_sub(letters.len() as u64).min(PAGE);
        if left == 0 {
            return Ok(letters);
        }
        let request = query.request(Method::GET, "/api/v1/dead_letters").query(&pairs).query(&[("limit", left)]);
        let mut page: Value = query.json(request).await?;
        if let Some(Value::Array(found)) = page.get_mut("dead_letters").map(Value::take) {
            letters.extend(found);
        }
        let Some(next) = page["next_before"].as_i64() else { return Ok(letters) };
        pairs.retain(|(name, _)| *name != "before");
        pairs.push(("before", next.to_string()));
    }
}

async fn one(query: &Remote, id: i64) -> Result<Value, Failure> {
    query.json(query.request(Method::GET, &format!("/api/v1/dead_letters/{id}"))).await
}

/// The letters that are meant. Of a filter the oldest come first, as they would have come.
async fn numbers(which: &Which, place: &Where) -> Result<Vec<i64>, Failure> {
    if !which.all {
        return Ok(which.ids.clone());
    }
    if which.filter.state.as_deref().is_some_and(|state| state != "open") {
        return Err(Failure::Input(anyhow!("only open dead letters can be replayed or discarded: leave --state out")));
    }
    let mut pairs = which.filter.pairs();
    pairs.retain(|(name, _)| *name != "state");
    pairs.push(("state", "open".into()));
    let letters = list(&place.service(Service::Query)?, pairs, u64::MAX).await?;
    Ok(letters.iter().rev().filter_map(|letter| letter["id"].as_i64()).collect())
}

async fn replay(door: &Remote, id: i64, dry_run: bool, body: Vec<u8>) -> Result<Value, Failure> {
    let path = format!("/api/v1/dead_letters/{id}/replay");
    let request = door.request(Method::POST, &path).query(&[("dry_run", dry_run)]);
    door.json(request.header("content-type", "application/json").body(body)).await
}

/// Does something with each, and says what came of it; goes on after one that is not taken.
async fn each(ids: &[i64], work: impl AsyncFn(i64) -> Result<Value, Failure>) -> Result<(), Failure> {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(ids.len() as u64).with_style(style);
    let (mut done, mut wrong) = (0_u64, 0_u64);
    for id in ids {
        match work(*id).await {
            Ok(answer) => {
                done += 1;
                bar.suspend(|| say(&format!("{id}: {}", outcome(&answer))))?;
            }
            Err(Failure::Input(error)) => {
                wrong += 1;
                bar.suspend(|| eprintln!("{id}: {error:#}"));
            }
            Err(other) => return Err(other),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    eprintln!("{done} done, {wrong} not taken");
    if wrong > 0 { Err(Failure::Told(INPUT_IS_WRONG)) } else { Ok(()) }
}

fn outcome(answer: &Value) -> String {
    match (answer["would"].as_str(), answer["repeated"].as_u64()) {
        (Some(would), _) => format!("would {would}"),
        (None, Some(1)) => "replayed before, and stored once".into(),
        _ => answer["state"].as_str().unwrap_or("done").into(),
    }
}

fn say(line: &str) -> Result<(), Failure> {
    writeln!(stdout(), "{}", harmless(line)).context("the answer cannot be written").map_err(Failure::Environment)
}

fn print_list(letters: &[Value], as_json: bool) -> Result<(), Failure> {
    if as_json {
        return letters.iter().try_for_each(|letter| say(&letter.to_string()));
    }
    if letters.is_empty() {
        eprintln!("there are none");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(["id", "recorded_at", "state", "reason", "source", "place", "message"]);
    for letter in letters {
        let text = |name: &str| match &letter[name] {
            Value::Null => String::new(),
            Value::String(text) => harmless(text),
            other => other.to_string(),
        };
        table.add_row(["id", "recorded_at", "state", "reason", "source", "place", "message"].map(text));
    }
    say(&table.to_string())
}

fn print_one(letter: &Value, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return say(&letter.to_string());
    }
    let names = [
        "id",
        "state",
        "recorded_at",
        "reason",
        "source",
        "place",
        "message",
        "event_id",
        "event_time",
        "variables",
        "pipeline_version",
        "settled_at",
    ];
    for name in names {
        match &letter[name] {
            Value::Null => {}
            Value::String(text) => say(&format!("{name:17} {text}"))?,
            Value::Object(map) if map.is_empty() => {}
            other => say(&format!("{name:17} {other}"))?,
        }
    }
    say("body:")?;
    match body_of(letter) {
        Ok(text) => say(&text),
        Err(bytes) => say(&format!("({} bytes that are no text, in Base64) {}", bytes.len(), STANDARD.encode(&bytes))),
    }
}

/// The body as text; else its bytes.
fn body_of(letter: &Value) -> Result<String, Vec<u8>> {
    match letter["body"].as_str() {
        Some(text) => Ok(text.to_string()),
        None => Err(STANDARD.decode(letter["body_base64"].as_str().unwrap_or_default()).unwrap_or_default()),
    }
}

/// The body that is to be sent; `None` if it was left as it is.
fn new_body(letter: &Value, file: Option<&Path>) -> Result<Option<Vec<u8>>, Failure> {
    if let Some(file) = file {
        let mut bytes = Vec::new();
        let read = if file == Path::new("-") {
            stdin().read_to_end(&mut bytes).map(|_| ())
        } else {
            std::fs::read(file).map(|read| bytes = read)
        };
        read.with_context(|| format!("{} cannot be read", file.display())).map_err(Failure::Input)?;
        return Ok(Some(bytes));
    }
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Failure::Input(anyhow!(
            "there is no terminal to edit on: give the new body with --body TEXT or --body-file FILE"
        )));
    }
    edit(letter)
}

fn edit(letter: &Value) -> Result<Option<Vec<u8>>, Failure> {
    let before = body_of(letter).map_or_else(|bytes| bytes, String::into_bytes);
    let path =
        std::env::temp_dir().join(format!("cornjacket-dead-letter-{}-{}.json", letter["id"], std::process::id()));
    // Nobody else reads it, and it is no link to something else.
    let draft = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    draft
        .and_then(|mut draft| draft.write_all(&before))
        .context("a draft cannot be written")
        .map_err(Failure::Environment)?;
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".into());
    // The variable may hold flags, such as `code --wait`.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(&path).status();
    let after = std::fs::read(&path);
    let _ = std::fs::remove_file(&path);
    let status = status.with_context(|| format!("{editor} cannot be started")).map_err(Failure::Environment)?;
    if !status.success() {
        return Err(Failure::Input(anyhow!("{editor} ended with {status}, so nothing is sent")));
    }
    let mut after = after.context("the draft cannot be read").map_err(Failure::Environment)?;
    // Editors end a file with a line break.
    if after.last() == Some(&b'\n') && before.last() != Some(&b'\n') {
        after.pop();
    }
    Ok((after != before).then_some(after))
}
