//! A fuzzer of functions: every function of both SQL sessions, with extreme and random arguments of its types, in SELECT into
//! every sink, in WHERE, in windows' aggregates and in queries. Whatever comes of a call, the process lives, its memory stays in
//! bounds, every event is a row or a dead letter, the ledger balances, and the next event is computed.
//!
//! `CASES` says how many calls are made on a row each (a million takes some hours), `SEED` repeats a run. What a failed run was
//! made of is left in a folder that the failure names.

mod events;
mod expressions;

use std::path::Path;
use std::time::Duration;

use cornjacket_compiler::load_text;
use cornjacket_operators::REGISTRY;
use cornjacket_sql::listing::{Functions, of_queries, of_streams};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, number};
use crate::receiver::{Receiver, Reply};

/// Streams of a pipeline, events and queries of a round.
const STREAMS: usize = 24;
const EVENTS: usize = 60;
/// Events of a round where many calls are wanted.
const MANY_EVENTS: usize = 200;
const QUERIES: usize = 120;
/// How often a call is written anew until the compiler takes it.
const ATTEMPTS: usize = 40;
/// The most memory that the process may ever have had, and each process that computes its queries.
const MOST_KIB: u64 = 1_500_000;
const MOST_OF_A_QUERY_KIB: u64 = 700_000;
const SINKS: [&str; 5] = ["projection", "ndjson", "csv", "stdout", "webhook"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_of_a_function_ends_the_process() {
    let (cases, seed) = (number("CASES", 4_000), number("SEED", u64::from(std::process::id())));
    eprintln!("SEED={seed} CASES={cases}");
    let mut fuzzer = Fuzzer::new(seed, if cases < 100_000 { EVENTS } else { MANY_EVENTS });
    let receiver = Receiver::start(|_, _| Reply::status(200)).await;
    while fuzzer.done < cases {
        fuzzer.round(&receiver).await;
    }
    eprintln!("{} calls, {} rounds, {} statements refused by the compiler", fuzzer.done, fuzzer.rounds, fuzzer.refused);
}

/// A folder that stays where it is when the test fails.
struct Evidence(Option<TempDir>);

impl Evidence {
    fn path(&self) -> &Path {
        self.0.as_ref().expect("a folder").path()
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = self.0.take().map(TempDir::keep);
            eprintln!("what this round was made of is in {}", kept.unwrap_or_default().display());
        }
    }
}

/// What a stream calls.
enum Call {
    Scalar(String),
    Aggregate(String),
    Operator,
}

struct Fuzzer {
    streams: Functions,
    queries: Functions,
    dice: StdRng,
    /// What is still to be called before everything was.
    walk: Vec<Call>,
    events: usize,
    done: u64,
    rounds: u64,
    refused: u64,
}

fn pipeline(streams: &str, sinks: &str) -> String {
    format!(
        "pipeline: functions\nevents:{}\nsources: {{ api: {{ http: {{}} }} }}\nstreams:\n  control: SELECT event_id AS id, n \
         FROM fuzz.value\n{streams}\nsinks:\n  control_rows: {{ projection: {{ from: control, key: [id] }} }}\n{sinks}",
        events::TYPE
    )
}

impl Fuzzer {
    fn new(seed: u64, events: usize) -> Self {
        Self {
            streams: of_streams(),
            queries: of_queries().expect("a session"),
            dice: StdRng::seed_from_u64(seed),
            walk: Vec::new(),
            events,
            done: 0,
            rounds: 0,
            refused: 0,
        }
    }

    /// What is called next: everything, in an order that differs, and then again.
    fn next_call(&mut self) -> Call {
        if self.walk.is_empty() {
            let scalars = self.streams.scalars.keys().cloned().map(Call::Scalar);
            let aggregates = self.streams.aggregates.keys().cloned().map(Call::Aggregate);
            self.walk = scalars.chain(aggregates).chain((0..40).map(|_| Call::Operator)).collect();
            self.walk.shuffle(&mut self.dice);
        }
        self.walk.pop().unwrap_or(Call::Operator)
    }

    fn select(&mut self, call: &Call) -> String {
        let dice = &mut self.dice;
        let value = match call {
            Call::Scalar(name) => expressions::scalar(name, &self.streams, 1, dice),
            Call::Operator => expressions::operation(dice),
            Call::Aggregate(name) => {
                let value = expressions::aggregate(name, &self.streams, dice);
                return format!(
                    "SELECT w.start AS id, k, x FROM (SELECT tumble(interval '1 minute') AS w, aggregate_id AS k, {value} AS x \
                     FROM fuzz.value GROUP BY w, k)"
                );
            }
        };
        match dice.random_range(0..6) {
            0 => format!("SELECT event_id AS id, n AS x FROM fuzz.value WHERE {value} IS NOT NULL"),
            1 => {
                let other = expressions::operation(dice);
                format!("SELECT event_id AS id, n AS x FROM fuzz.value WHERE n > 0 AND {value} = {other}")
            }
            2 => format!(
                "SELECT w.start AS id, k, x FROM (SELECT tumble(interval '1 minute') AS w, {value} AS k, count(*) AS x \
                 FROM fuzz.value GROUP BY w, k)"
            ),
            _ => format!("SELECT event_id AS id, {value} AS x FROM fuzz.value"),
        }
    }

    /// A stream's SQL that is right, if there is one among so many attempts.
    fn statement(&mut self, folder: &Path) -> Option<(String, String)> {
        let call = self.next_call();
        for _ in 0..ATTEMPTS {
            let sql = self.select(&call);
            // If the compiler ends the process, this is what it was given.
            std::fs::write(folder.join("compiled.sql"), &sql).expect("written");
            let kind = SINKS.choose(&mut self.dice).copied().unwrap_or("stdout");
            let text = pipeline(&stream_of(0, &sql), &sink_of(0, kind, "http://127.0.0.1:1/"));
            if load_text(&folder.join("p.yaml"), text, &|_| None, &REGISTRY).pipeline.is_some() {
                return Some((sql, kind.to_string()));
            }
            self.refused += 1;
        }
        None
    }

    async fn round(&mut self, receiver: &Receiver) {
        let evidence = Evidence(Some(tempfile::tempdir().expect("a folder")));
        let folder = evidence.path();
        let (mut streams, mut sinks, mut count) = (String::new(), String::new(), 0);
        for _ in 0..STREAMS * 3 {
            if let Some((sql, kind)) = self.statement(folder) {
                streams.push_str(&stream_of(count, &sql));
                sinks.push_str(&sink_of(count, &kind, &receiver.url("/")));
                count += 1;
            }
            if count == STREAMS {
                break;
            }
        }
        let file = folder.join("p.yaml");
        std::fs::write(&file, pipeline(&streams, &sinks)).expect("written");
        let lines: Vec<Value> =
            (0..self.events).map(|_| events::event(self.dice.random_range(0..5), &mut self.dice)).collect();
        std::fs::write(folder.join("events.json"), json!(lines).to_string()).expect("written");
        let data = folder.join("data");
        let mut process = start(&file, &data).await;
        let taken = send(&process, &lines).await;
        self.done += (taken * count) as u64;
        settle(&mut process, taken).await;
        if self.rounds.is_multiple_of(3) {
            process.kill();
            process = start(&file, &data).await;
            settle(&mut process, taken).await;
        }
        self.query(&mut process, folder, taken).await;
        // The next events are computed, whatever came before them, and close all windows.
        let next: Vec<Value> = ["a", "b", "c"].map(ordinary).into();
        let taken = taken + send(&process, &next).await;
        settle(&mut process, taken).await;
        assert!(process.terminate().success(), "it ends as it should");
        self.rounds += 1;
        if self.rounds.is_multiple_of(20) {
            eprintln!("{} calls", self.done);
        }
    }

    async fn query(&mut self, process: &mut Process, folder: &Path, events: usize) {
        for _ in 0..QUERIES {
            let sql = self.question();
            std::fs::write(folder.join("query.sql"), &sql).expect("written");
            let body = json!({"sql": sql, "limit": 1000});
            let request = process.client.post(format!("{}/api/v1/sql", process.query)).json(&body);
            let response = request.timeout(Duration::from_mins(1)).send().await;
            // An answer that has begun and cannot be finished breaks off, perhaps before its head was sent.
            let Ok(response) = response else {
                assert!(process.is_alive(), "{sql}: it ended the process");
                continue;
            };
            let status = response.status().as_u16();
            let Ok(text) = response.text().await else { continue };
            assert!(matches!(status, 200 | 400..=499 | 503 | 504), "{sql}: {status} {text}");
            let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{sql}: {error}: {text}"));
            assert!(status == 200 || answer["detail"].is_string() || answer["error"].is_string(), "{sql}: {answer}");
            assert!(!text.contains("ERROR: "), "{sql}: an error as if it were data: {text}");
            if status == 200 {
                self.done += events as u64;
            }
        }
        assert!(process.is_alive(), "queries end nothing");
        hold_memory(process);
        assert_eq!(process.sql("SELECT 1 AS one").await, [json!({"one": 1})]);
    }

    fn question(&mut self) -> String {
        let (functions, dice) = (&self.queries, &mut self.dice);
        let names: Vec<&String> = functions.scalars.keys().collect();
        let aggregates: Vec<&String> = functions.aggregates.keys().collect();
        let windows: Vec<(&String, _)> = functions.windows.iter().chain(&functions.aggregates).collect();
        let scalar = |dice: &mut StdRng| {
            let name = names.choose(dice).map_or("abs", |name| name.as_str());
            expressions::scalar(name, functions, 2, dice)
        };
        let value = match dice.random_range(0..8) {
            0 => expressions::operation(dice),
            1 | 2 => {
                expressions::aggregate(aggregates.choose(dice).map_or("sum", |name| name.as_str()), functions, dice)
            }
            3 => {
                let (name, lists) = windows.choose(dice).expect("functions");
                expressions::window(name, lists, functions, dice)
            }
            _ => scalar(dice),
        };
        match dice.random_range(0..6) {
            0 => format!("SELECT count(*) FROM fuzz.value WHERE {value} IS NOT NULL AND {} IS NOT NULL", scalar(dice)),
            1 => format!("SELECT {value} AS x, count(*) FROM fuzz.value GROUP BY 1 ORDER BY 1"),
            2 => format!("SELECT {value} AS x"),
            3 => format!("SELECT aggregate_id, {value} AS x FROM fuzz.value GROUP BY aggregate_id"),
            _ => format!("SELECT {value} AS x FROM fuzz.value"),
        }
    }
}

fn stream_of(number: usize, sql: &str) -> String {
    format!("  s{number}: |\n    {sql}\n")
}

fn sink_of(number: usize, kind: &str, url: &str) -> String {
    let settings = match kind {
        "projection" => format!("projection: {{ from: s{number}, key: [id] }}"),
        "ndjson" => format!("file: {{ from: s{number}, path: k{number}.ndjson }}"),
        "csv" => format!("file: {{ from: s{number}, path: k{number}.csv }}"),
        "webhook" => format!("webhook: {{ from: s{number}, url: '{url}', start: beginning }}"),
        _ => format!("stdout: {{ from: s{number} }}"),
    };
    format!("  k{number}: {{ {settings} }}\n")
}

fn ordinary(key: &str) -> Value {
    json!({
        "event_type": "fuzz.value", "aggregate_id": key, "event_time": "2026-01-01T03:00:00Z",
        "payload": {"t": "text", "n": 1, "i": 1, "d": 1.5, "b": true, "ts": "2026-01-01T00:00:00Z"},
    })
}

async fn start(pipeline: &Path, data: &Path) -> Process {
    let arguments = ["--actions-allow-nets", "127.0.0.0/8"];
    Process::start_with(pipeline, data, &arguments).await
}

/// Sends events one by one, since each is answered by itself; says how many were taken.
async fn send(process: &Process, events: &[Value]) -> usize {
    let body: String = events.iter().map(|event| format!("{event}\n")).collect();
    let post = process.client.post(format!("{}/api/v1/events/batch", process.ingest));
    let response = post.header("content-type", "application/x-ndjson").body(body).send().await.expect("an answer");
    let answer: Value = response.json().await.expect("JSON");
    usize::try_from(answer["accepted"].as_u64().unwrap_or_else(|| panic!("{answer}"))).expect("small")
}

/// Waits until everything is computed; then every event is a row or a dead letter.
async fn settle(process: &mut Process, taken: usize) {
    let open = "SELECT count(*) AS n FROM fuzz.value WHERE event_id NOT IN (SELECT id FROM control_rows) AND event_id NOT IN \
                (SELECT event_id FROM cornjacket.dead_letters WHERE event_id IS NOT NULL)";
    let deadline = std::time::Instant::now() + Duration::from_mins(3);
    loop {
        assert!(process.is_alive(), "no event ends the process");
        let (stored, waiting) =
            (count(process, "SELECT count(*) AS n FROM fuzz.value").await, count(process, open).await);
        if (stored, waiting) == (taken, 0) {
            break;
        }
        let status = process.sql("SELECT * FROM cornjacket.pipelines").await;
        assert!(std::time::Instant::now() < deadline, "{stored} of {taken} stored, {waiting} not computed: {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    process.assert_balanced().await;
    hold_memory(process);
}

async fn count(process: &Process, sql: &str) -> usize {
    let rows = process.sql(sql).await;
    usize::try_from(rows[0]["n"].as_u64().expect("a number")).expect("small")
}

fn hold_memory(process: &Process) {
    let most = process.peak_memory_kib();
    assert!(most < MOST_KIB, "the process had {most} KiB");
    for (child, most) in process.peaks_of_children_kib() {
        assert!(most < MOST_OF_A_QUERY_KIB, "process {child}, which computes queries, had {most} KiB");
    }
}
