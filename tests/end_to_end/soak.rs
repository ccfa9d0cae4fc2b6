//! Nothing stops it: the real binary under load, with poison events, hostile queries and `kill -9` all at once. Nothing that
//! was accepted is lost, windows equal batch over the rows that were not set aside, every sink has what it should, and the
//! books balance. Poison may not slow the door down to less than four fifths.
//!
//! `MINUTES` says for how long each of the two runs goes on (the rate is only judged from one minute on), `KILLS` how often it
//! is killed, `SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::kills::scramble;
use crate::process::{Process, binary, number, variable};
use crate::receiver::{Receiver, Reply};

const CLIENTS: u64 = 6;
/// Events in a request.
const BATCH: u64 = 50;

fn pipeline(hook: &str) -> String {
    format!(
        "
pipeline: soak
events:
  soak.reading:
    payload:
      kind: string
      value: {{ type: double, optional: true }}
      n: {{ type: bigint, optional: true }}
      zero: {{ type: bigint, optional: true }}
      note: {{ type: string, optional: true }}
      doc: {{ type: json, optional: true }}
    watermark: {{ delay: 4s, idle: 2s, max_ahead: 1m }}
sources: {{ api: {{ http: {{}} }} }}
streams:
  checked: |
    SELECT event_id AS id, aggregate_id AS device, value, kind, CASE kind
      WHEN 'overflow' THEN CAST(n * n AS varchar)
      WHEN 'division' THEN CAST(n / zero AS varchar)
      WHEN 'date' THEN CAST(to_timestamp_seconds(n) AS varchar)
      WHEN 'lpad' THEN lpad(note, n, note)
      WHEN 'repeat' THEN repeat(note, n)
      WHEN 'cast' THEN CAST(CAST(note AS bigint) AS varchar)
      WHEN 'nan' THEN CAST(sqrt(value) AS varchar)
      WHEN 'json' THEN doc ->> 'a' END AS made
    FROM soak.reading
  by_device: |
    SELECT device, w.start AS window_start, n, total FROM (
      SELECT tumble(interval '2 seconds') AS w, device, count(*) AS n, sum(value) AS total FROM checked GROUP BY w, device)
  hot: SELECT id, value FROM checked WHERE value > 990
sinks:
  windows: {{ projection: {{ from: by_device, key: [device, window_start] }} }}
  newest: {{ projection: {{ from: checked, key: [device] }} }}
  lines: {{ file: {{ from: checked, path: lines.ndjson }} }}
  table: {{ file: {{ from: by_device, path: table.csv }} }}
  page: {{ webhook: {{ from: hot, url: '{hook}' }} }}
"
    )
}

/// A payload of each kind that something may fail on.
fn poison() -> Vec<Value> {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    vec![
        json!({"kind": "overflow", "n": i64::MAX}),
        json!({"kind": "overflow", "n": i64::MIN}),
        json!({"kind": "division", "n": 1, "zero": 0}),
        json!({"kind": "division", "n": i64::MIN, "zero": -1}),
        json!({"kind": "date", "n": 9_000_000_000_000_i64}),
        json!({"kind": "date", "n": i64::MIN}),
        json!({"kind": "lpad", "n": i64::MAX, "note": "x"}),
        json!({"kind": "repeat", "n": 50_000_000_000_i64, "note": "xy"}),
        json!({"kind": "cast", "note": "\u{0}no number\u{ffff}"}),
        json!({"kind": "nan", "value": -1.0}),
        json!({"kind": "json", "doc": "{\"a\": [1, "}),
        json!({"kind": "json", "doc": deep}),
        json!({"kind": "plain", "note": "x".repeat(400_000)}),
        json!({"kind": "plain", "value": 1e308}),
    ]
}

/// Questions that ask for more than there is.
const HOSTILE: [&str; 8] = [
    "SELECT repeat('x', 9000000000000000000)",
    "SELECT lpad('a', 9223372036854775807, 'b')",
    "SELECT count(*) FROM soak.reading a, soak.reading b, soak.reading c WHERE a.value + b.value > c.value",
    "SELECT 1 / (zero - zero) FROM soak.reading",
    "SELECT sum(n * 9223372036854775807) FROM soak.reading",
    "SELECT * FROM soak.reading ORDER BY nothing",
    "SELECT count(*) FROM generate_series(1, 9000000000000000000)",
    "SELECT array_agg(a.event_id || b.event_id) FROM soak.reading a, soak.reading b",
];

/// What the clients of a run share.
struct Run {
    /// How long a client waits between two batches.
    pause: Duration,
    ingest: watch::Receiver<String>,
    query: watch::Receiver<String>,
    accepted: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Run {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Posts a batch whose events have ids of ours, so that what was accepted is known by them.
    async fn batch(&self, client: &Client, number: u64) {
        let mut ids = Vec::new();
        let mut lines = String::new();
        for at in 0..BATCH {
            let dice = scramble(number * BATCH + at);
            let id = uuid(number * BATCH + at);
            let value = f64::from(u32::try_from(dice % 4_000).expect("small")) / 4.0;
            let event = json!({"event_id": id, "event_type": "soak.reading", "aggregate_id": format!("d{}", dice % 40),
                               "payload": {"value": value, "kind": "plain", "n": dice % 100}});
            lines.extend([event.to_string(), "\n".into()]);
            ids.push(id);
        }
        let url = format!("{}/api/v1/events/batch", self.ingest.borrow().clone());
        let request = client.post(url).header("content-type", "application/x-ndjson").body(lines);
        match request.send().await {
            Ok(answer) if answer.status() == 202 => {
                let Ok(answer) = answer.json::<Value>().await else { return };
                assert_eq!(answer["accepted"], json!(BATCH), "{answer}");
                self.accepted.lock().extend(ids);
            }
            // There is no process at the moment, or it is busy.
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }

    async fn load(self: Arc<Self>, client_number: u64) {
        let client = Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        let mut number = client_number;
        while self.goes_on() {
            self.batch(&client, number).await;
            number += CLIENTS;
            tokio::time::sleep(self.pause).await;
        }
    }

    async fn poison(self: Arc<Self>) {
        let client = Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        while self.goes_on() {
            for (at, payload) in poison().into_iter().enumerate() {
                let event =
                    json!({"event_type": "soak.reading", "aggregate_id": format!("d{}", at % 40), "payload": payload});
                let url = format!("{}/api/v1/events", self.ingest.borrow().clone());
                let Ok(answer) = client.post(url).json(&event).send().await else { continue };
                let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap_or_default());
                if status == 202
                    && let Some(id) = body["event_id"].as_str()
                {
                    self.accepted.lock().push(id.to_string());
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// One query of each kind a second; an answer of any kind is right, and so is none while there is no process.
    async fn ask(self: Arc<Self>) {
        let client = Client::builder().timeout(Duration::from_secs(2)).build().expect("a client");
        while self.goes_on() {
            for sql in HOSTILE {
                let url = format!("{}/api/v1/sql", self.query.borrow().clone());
                let (client, body) = (client.clone(), json!({"sql": sql}));
                // Nobody waits for it.
                tokio::spawn(async move { client.post(url).json(&body).send().await.is_ok() });
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A UUID of version 4 for a number.
fn uuid(number: u64) -> String {
    let (high, low) = (scramble(number), scramble(number ^ u64::MAX));
    format!("{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}", high >> 32, (high >> 16) & 0xffff, high & 0xfff, low >> 52, number)
}

/// Lets a pipeline work under load, killed so often, and holds it to account; gives how many events a second were taken.
async fn soak((time, pause): (Duration, Duration), kills: u64, seed: u64, is_poisoned: bool) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, data) = (folder.path().join("soak.yaml"), folder.path().join("data"));
    let receiver = Receiver::start(|_, _| Reply::status(200)).await;
    std::fs::write(&file, pipeline(&receiver.url("/"))).expect("written");
    let mut process = Process::start(&file, &data).await;
    let (ingest, ingests) = watch::channel(process.ingest.clone());
    let (query, queries) = watch::channel(process.query.clone());
    let run = Arc::new(Run {
        pause,
        ingest: ingests,
        query: queries,
        accepted: Mutex::default(),
        stop: AtomicBool::new(false),
    });
    let mut tasks: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(Arc::clone(&run).load(number))).collect();
    tasks.push(tokio::spawn(Arc::clone(&run).ask()));
    if is_poisoned {
        tasks.push(tokio::spawn(Arc::clone(&run).poison()));
    }
    let mut lived = Duration::ZERO;
    for round in 0..=kills {
        let share = time / u32::try_from(kills + 1).expect("small");
        let life =
            share / 2 + share.mul_f64(f64::from(u32::try_from(scramble(seed + round) % 100).expect("small")) / 100.0);
        let began = Instant::now();
        while began.elapsed() < life {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(process.is_alive(), "the process has ended by itself");
        }
        lived += began.elapsed();
        if round < kills {
            process.kill();
            process = Process::start(&file, &data).await;
            ingest.send_replace(process.ingest.clone());
            query.send_replace(process.query.clone());
        }
    }
    run.stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("a client");
    }
    let accepted = std::mem::take(&mut *run.accepted.lock());
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let rate = accepted.len() as f64 / lived.as_secs_f64();
    check(&mut process, &receiver, folder.path(), &accepted, is_poisoned).await;
    rate
}

async fn ids(process: &Process, sql: &str) -> BTreeSet<String> {
    let rows = process.sql_until(sql, |_| true).await;
    let ids: BTreeSet<String> = rows.iter().filter_map(|row| row["id"].as_str().map(str::to_string)).collect();
    assert_eq!(ids.len(), rows.len(), "{sql}: an id is there twice");
    ids
}

/// Says how far it is, and since when.
fn say(began: Instant, what: &str) {
    eprintln!("{:.1} s: {what}", began.elapsed().as_secs_f64());
}

async fn check(process: &mut Process, receiver: &Receiver, folder: &Path, accepted: &[String], is_poisoned: bool) {
    let began = Instant::now();
    // What was asked last may still be at work.
    until_answered(process).await;
    say(began, "queries are answered");
    let left = "SELECT sum(end_offset - reflected_offset) AS n FROM cornjacket.topics";
    process.sql_until(left, |rows| rows[0]["n"] == 0).await;
    let stored = ids(process, "SELECT event_id AS id FROM soak.reading").await;
    let lost = accepted.iter().filter(|id| !stored.contains(*id)).count();
    assert_eq!(lost, 0, "{lost} of {} accepted events are not stored", accepted.len());
    let aside = ids(process, "SELECT event_id AS id FROM cornjacket.dead_letters").await;
    eprintln!("{} accepted, {} stored, {} set aside", accepted.len(), stored.len(), aside.len());
    assert_eq!(aside.is_empty(), !is_poisoned, "{aside:?}");
    let failing = ["overflow", "division", "date", "lpad", "repeat", "cast", "nan"];
    for kind in failing.into_iter().chain(["json", "plain"]) {
        let of_kind = ids(process, &format!("SELECT event_id AS id FROM soak.reading WHERE kind = '{kind}'")).await;
        let is_right = if failing.contains(&kind) { of_kind.is_subset(&aside) } else { of_kind.is_disjoint(&aside) };
        assert!(is_right, "{kind}: what cannot be computed is set aside, and nothing else is");
    }
    // Millions of ids would not find room in a query's join.
    let fine = format!("kind NOT IN ('{}')", failing.join("', '"));

    say(began, "everything is stored");
    // Silence closes the last windows.
    let batch = format!(
        "SELECT aggregate_id AS device, date_bin(interval '2 seconds', event_time, to_timestamp_micros(0)) AS window_start, \
         count(*) AS n, sum(value) AS total FROM soak.reading WHERE {fine} GROUP BY 1, 2 ORDER BY 1, 2"
    );
    let expected = process.sql(&batch).await;
    let windows = "SELECT device, window_start, n, total FROM windows ORDER BY 1, 2";
    let actual = process.sql_until(windows, |rows| rows.len() >= expected.len()).await;
    assert!(same(&actual, &expected), "windows are not those of batch");

    say(began, "windows are right");
    let used: BTreeSet<String> = stored.difference(&aside).cloned().collect();
    let text = std::fs::read_to_string(folder.join("lines.ndjson")).expect("the file");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let written: BTreeSet<String> = lines.iter().filter_map(id_in).collect();
    assert_eq!(written.len(), lines.len(), "a line is there twice");
    assert!(written == used, "{} lines of {} rows", written.len(), used.len());
    let table = std::fs::read_to_string(folder.join("table.csv")).expect("the file");
    assert_eq!(table.lines().count(), expected.len() + 1, "a line per window, and the header");

    let hot = ids(process, &format!("SELECT event_id AS id FROM soak.reading WHERE value > 990 AND {fine}")).await;
    say(began, "files are right");
    called(receiver, &hot).await;
    say(began, "everyone was called");
    process.assert_balanced().await;
    let audit = binary().arg("audit").arg("--data-dir").arg(folder.join("data")).output().expect("runs");
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    assert!(process.is_alive());
}

/// Waits until there is room for a query again.
async fn until_answered(process: &Process) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while process.sql_answer("SELECT 1").await.0 != 200 {
        assert!(Instant::now() < deadline, "no query is answered");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The row's event in a line of the file or a webhook's body, wherever its columns are.
fn id_in(value: &Value) -> Option<String> {
    let own = value.get("id").and_then(Value::as_str).map(str::to_string);
    own.or_else(|| value.as_object()?.values().find_map(id_in))
}

async fn called(receiver: &Receiver, expected: &BTreeSet<String>) {
    let deadline = Instant::now() + Duration::from_mins(5);
    loop {
        let bodies: BTreeMap<String, Vec<u8>> =
            receiver.seen().into_iter().map(|request| (request.id(), request.body)).collect();
        let bodies = bodies.values().map(|body| serde_json::from_slice::<Value>(body).expect("a body of JSON"));
        let told: Vec<String> = bodies.filter_map(|body| id_in(&body)).collect();
        if told.len() >= expected.len() {
            let told_once: BTreeSet<String> = told.iter().cloned().collect();
            assert!(told_once.len() == told.len() && told_once == *expected, "{} calls", told.len());
            return;
        }
        assert!(Instant::now() < deadline, "{} of {} calls came", told.len(), expected.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sums of doubles depend on their order in the last digits.
fn same(actual: &[Value], expected: &[Value]) -> bool {
    let close = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => a == b,
    };
    let row = |(a, b): (&Value, &Value)| {
        a["device"] == b["device"]
            && a["window_start"] == b["window_start"]
            && a["n"] == b["n"]
            && close(&a["total"], &b["total"])
    };
    actual.len() == expected.len() && actual.iter().zip(expected).all(row)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_and_hostile_queries_stop_nothing_over_kills() {
    let minutes = variable("MINUTES");
    // The short form is about what is right, and not about how much.
    let short = (Duration::from_secs(8), Duration::from_millis(300));
    let time = minutes.map_or(short, |minutes| (Duration::from_mins(minutes), Duration::ZERO));
    let kills = number("KILLS", 2);
    let seed = number("SEED", u64::from(std::process::id()));
    eprintln!("SEED={seed} KILLS={kills}");
    let pure = soak(time, kills, seed, false).await;
    let poisoned = soak(time, kills, seed, true).await;
    let ratio = poisoned / pure;
    eprintln!("{pure:.0} events a second, {poisoned:.0} with poison: {:.0} %", ratio * 100.0);
    // Some seconds beside other tests say little.
    assert!(minutes.is_none() || ratio >= 0.8, "poison slows the door down");
    assert!(ratio > 0.1, "poison stops the door");
}
