//! `cornjacket send`: hands events in, each of them once, however often it has to be tried.
//!
//! A thread reads lines and gives each event without an identity one that follows from its input, its place and its text.
//! They are sent in batches, one after the other, so that their order stays; a batch that has no answer is sent again.

mod lines;
mod post;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::body::Bytes;
use clap::{Args, ValueEnum};
use cornjacket_operators::sources::http::zstd;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::remote::{Where, runtime};
use crate::{Failure, INPUT_IS_WRONG};
use lines::{Input, Line, Lines};
use post::{Post, Request};
use report::Report;

/// What `send --help` begins with.
pub const ABOUT: &str = "\
Send events to a running pipeline: one, a file, or what comes on stdin, an event a line.

Each event is stored once, however often it has to be sent: an event without an event_id gets one that follows from its
file, its line and its text. So a file whose sending broke off is just sent again. What the service cannot take at the
moment (429, 503, a restart) is sent again until it can.";

/// What `send --help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  cornjacket send '{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"d1\",\"payload\":{\"value\":21.5,\"unit\":\"celsius\"}}'
  cornjacket send --event-type sensor.reading --aggregate-id d1 --payload '{\"value\":21.5,\"unit\":\"celsius\"}'
  cornjacket send readings.ndjson
  cornjacket send readings.ndjson --rejected wrong.ndjson
  mosquitto_sub -t readings | cornjacket send
  zcat readings-2026-01-*.gz | cornjacket send --idempotency-key january
  cornjacket send --url https://ingest.example --api-key \"$KEY\" readings.ndjson

Exit codes: 0 every event is stored, 1 some were rejected or the input is wrong, 2 no pipeline answers.";

/// Arguments of `send`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Events in JSON, or files that have one a line (or are one, or an array); `-` or nothing for stdin.
    #[arg(value_name = "EVENT|FILE")]
    inputs: Vec<String>,
    /// A file of events.
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    event: Parts,
    /// What the input is called: under this name a line is stored once, also where the file has changed around it or it comes
    /// on stdin.
    #[arg(long, value_name = "NAME")]
    idempotency_key: Option<String>,
    /// A file that takes the lines that were rejected, as they are.
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    /// How to compress batches; zstd unless the service is on this machine.
    #[arg(long)]
    compress: Option<Compression>,
    /// For how many seconds to go on trying where nothing gets through.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    retry_for: u32,
    /// Lines of JSON, on a terminal too: one for each event that was rejected, and a summary.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// An event in parts.
#[derive(Debug, Args)]
struct Parts {
    /// One event of this type.
    #[arg(long, requires_all = ["aggregate_id", "payload"], conflicts_with_all = ["inputs", "file"])]
    event_type: Option<String>,
    /// What it belongs to.
    #[arg(long, requires = "event_type")]
    aggregate_id: Option<String>,
    /// Its payload in JSON.
    #[arg(long, requires = "event_type")]
    payload: Option<String>,
    /// When it happened; now unless set.
    #[arg(long, requires = "event_type")]
    event_time: Option<String>,
    /// Its UUID; the same one again is stored once.
    #[arg(long, requires = "event_type")]
    event_id: Option<String>,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    None,
    Zstd,
}

/// Bytes of a batch, about.
const BATCH_BYTES: usize = 1 << 20;
/// Lines of a batch at most; the door's limit of rejected ones is above.
const BATCH_LINES: usize = 5_000;
/// How long a batch waits for more lines before it is sent as it is.
const PAUSE: Duration = Duration::from_millis(50);
/// Lines that are read ahead.
const READ_AHEAD: usize = 2_048;

/// Sends what is given.
pub fn send(arguments: &Arguments) -> Result<(), Failure> {
    let inputs = inputs(arguments)?;
    let runtime = runtime()?;
    let is_one = matches!(inputs.as_slice(), [Input::Event(_)]);
    let bar = bar(&inputs);
    let post = Post::new(&arguments.place, Duration::from_secs(arguments.retry_for.into()), bar.clone())?;
    let report = Report::new(&inputs, arguments.json, arguments.rejected.as_deref(), bar)?;
    let reading = read(inputs, arguments.idempotency_key.clone())?;
    let is_local =
        ["http://127.", "http://localhost", "http://[::1]"].iter().any(|local| post.base().starts_with(local));
    let by_place = if is_local { Compression::None } else { Compression::Zstd };
    let mut sending = Sending { post, report, reading, compress: arguments.compress.unwrap_or(by_place) };
    runtime.block_on(async { if is_one { sending.one().await } else { sending.all().await } })
}

/// What is to be sent.
fn inputs(arguments: &Arguments) -> Result<Vec<Input>, Failure> {
    if let Some(event_type) = &arguments.event.event_type {
        return Ok(vec![Input::Event(event(event_type, &arguments.event)?)]);
    }
    let given = arguments.inputs.iter().map(|text| match text.as_str() {
        "-" => Input::Stdin,
        text if text.trim_start().starts_with('{') => Input::Event(text.replace(['\n', '\r'], " ")),
        text => Input::File(text.into()),
    });
    let mut inputs: Vec<Input> = given.collect();
    inputs.extend(arguments.file.iter().map(|path| Input::File(path.clone())));
    if inputs.is_empty() {
        if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            let text = "there is nothing to send: give an event in JSON, a file, or lines on stdin (see `cornjacket send --help`)";
            return Err(Failure::Input(anyhow!(text)));
        }
        inputs.push(Input::Stdin);
    }
    for input in &inputs {
        if let Input::File(path) = input {
            let opened = std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()));
            drop(opened.map_err(Failure::Input)?);
        }
    }
    Ok(inputs)
}

/// The envelope of an event that is given in parts.
fn event(event_type: &str, parts: &Parts) -> Result<String, Failure> {
    let payload: Value = serde_json::from_str(parts.payload.as_deref().unwrap_or_default())
        .context("--payload is not JSON")
        .map_err(Failure::Input)?;
    let members = [
        ("event_type", Some(json!(event_type))),
        ("aggregate_id", parts.aggregate_id.as_ref().map(|id| json!(id))),
        ("payload", Some(payload)),
        ("event_time", parts.event_time.as_ref().map(|time| json!(time))),
        ("event_id", parts.event_id.as_ref().map(|id| json!(id))),
    ];
    let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(Value::Object(members.collect::<Map<_, _>>()).to_string())
}

/// How far it is, if somebody looks.
fn bar(inputs: &[Input]) -> ProgressBar {
    if matches!(inputs, [Input::Event(_)]) {
        return ProgressBar::hidden();
    }
    let bytes: Option<u64> = inputs.iter().map(Input::bytes).sum();
    let target = ProgressDrawTarget::stderr_with_hz(10);
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::with_draw_target(Some(bytes), target),
            "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
        ),
        None => (ProgressBar::with_draw_target(None, target), "{spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

type Read = mpsc::Receiver<std::io::Result<Line>>;

/// Reads the lines of all inputs, one after the other, in a thread of its own.
fn read(inputs: Vec<Input>, said: Option<String>) -> Result<Read, Failure> {
    let (give, take) = mpsc::channel(READ_AHEAD);
    let reading = move || {
        let mut read = 0;
        for (number, input) in inputs.iter().enumerate() {
            let name = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", input.name()));
            let lines = input.key(number, said.as_deref()).and_then(|key| Lines::open(input, number, key, read));
            let mut lines = match lines {
                Ok(lines) => lines,
                // Nobody listens where sending has failed before.
                Err(error) => return drop(give.blocking_send(Err(name(error)))),
            };
            while let Some(line) = lines.next().map_err(name).transpose() {
                let is_over = line.is_err();
                if give.blocking_send(line).is_err() || is_over {
                    return;
                }
            }
            read = lines.read();
        }
    };
    let started = std::thread::Builder::new().name("read".into()).spawn(reading);
    started.context("the process cannot start its threads").map_err(Failure::Environment)?;
    Ok(take)
}

/// What the service says of a batch.
#[derive(Deserialize)]
struct Answer {
    accepted: u64,
    rejected: Vec<Rejected>,
}

/// What it says of an event of it.
#[derive(Deserialize)]
struct Rejected {
    index: usize,
    #[serde(flatten)]
    why: Map<String, Value>,
}

struct Sending<'a> {
    post: Post<'a>,
    report: Report,
    reading: Read,
    compress: Compression,
}

impl Sending<'_> {
    /// Sends one event, which has an answer of its own.
    async fn one(&mut self) -> Result<(), Failure> {
        let line = self.reading.recv().await.transpose().context("the event cannot be read").map_err(Failure::Input)?;
        let mut body = Vec::new();
        if let Some(line) = line {
            line.write(&mut body);
        }
        let request = Request {
            path: "/api/v1/events",
            content_type: "application/json",
            encoding: None,
            body: Bytes::from(body),
        };
        let answer = self.post.send(&request).await?;
        self.report.one(&answer)
    }

    async fn all(&mut self) -> Result<(), Failure> {
        let outcome = self.batches().await;
        let rejected = self.report.end()?;
        outcome?;
        if rejected > 0 { Err(Failure::Told(INPUT_IS_WRONG)) } else { Ok(()) }
    }

    async fn batches(&mut self) -> Result<(), Failure> {
        loop {
            let (lines, outcome) = self.next().await;
            if !lines.is_empty() {
                self.batch(&lines).await?;
            }
            outcome.context("the input cannot be read").map_err(Failure::Input)?;
            if lines.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits for lines, and takes as many as a batch has and are there; none at the end. What is there is sent before an
    /// error is told.
    async fn next(&mut self) -> (Vec<Line>, std::io::Result<()>) {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && lines.len() < BATCH_LINES {
            let next = match self.reading.try_recv() {
                Ok(next) => Some(next),
                Err(_) if lines.is_empty() => self.reading.recv().await,
                Err(_) => tokio::time::timeout(PAUSE, self.reading.recv()).await.unwrap_or(None),
            };
            match next {
                None => break,
                Some(Err(error)) => return (lines, Err(error)),
                Some(Ok(line)) if line.is_too_long => self.report.too_long(&line),
                Some(Ok(line)) => {
                    bytes += line.text.len();
                    lines.push(line);
                }
            }
        }
        (lines, Ok(()))
    }

    async fn batch(&mut self, lines: &[Line]) -> Result<(), Failure> {
        let mut body = Vec::new();
        for line in lines {
            line.write(&mut body);
            body.push(b'\n');
        }
        let encoding = (self.compress == Compression::Zstd).then_some("zstd");
        if encoding.is_some() {
            body = zstd(&body).await.context("a batch cannot be compressed").map_err(Failure::Environment)?;
        }
        let (path, content_type) = ("/api/v1/events/batch", "application/x-ndjson");
        let answer = self.post.send(&Request { path, content_type, encoding, body: Bytes::from(body) }).await?;
        let answer: Answer =
            serde_json::from_slice(&answer).context("the answer cannot be read").map_err(Failure::Environment)?;
        if answer.accepted + answer.rejected.len() as u64 != lines.len() as u64 {
            return Err(Failure::Environment(anyhow!(
                "{} does not say of every event what became of it",
                self.post.base()
            )));
        }
        self.report.stored(answer.accepted, lines);
        for Rejected { index, why } in answer.rejected {
            if let Some(line) = lines.get(index) {
                self.report.rejected(line, why)?;
            }
        }
        Ok(())
    }
}
