//! Ten thousand triggers, a receiver that fails in every way it can, and `kill -9` in between. In the end each trigger has
//! arrived; every attempt had its one id and its one body, signed; and nothing was sent that nobody asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Client;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use uuid::Uuid;

use crate::process::{Process, number};
use crate::receiver::{Receiver, Reply, Request};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Of seven events the last is cold and triggers nothing.
const EVENTS: u64 = 11_666;
const TRIGGERS: usize = 10_000;
const BATCH: u64 = 100;
/// Events are this far apart in their own time, and windows this long.
const STEP_MS: u64 = 100;
const WINDOW_MS: u64 = 10_000;
/// 2026-01-01.
const BEGIN_MS: u64 = 1_767_225_600_000;

fn pipeline(receiver: &Receiver) -> String {
    let settings = format!("secret: {SECRET}, timeout: 1s, retry: {{ first: 20ms, factor: 1.5 }}, concurrency: 32");
    let (hot, windows) = (receiver.url("/hot"), receiver.url("/windows"));
    format!(
        "
pipeline: storm
events:
  sensor.reading:
    payload: {{ value: double, number: bigint }}
    watermark: {{ delay: 5s, idle: 10m, max_ahead: 1m }}
sources: {{ api: {{ http: {{}} }} }}
streams:
  hot: SELECT aggregate_id AS device, number, value FROM sensor.reading WHERE value > 80
  windows: |
    SELECT device, w.start AS window_start, n FROM (
      SELECT tumble(interval '10 seconds') AS w, device, count(*) AS n FROM hot GROUP BY w, device)
sinks:
  page_hot: {{ webhook: {{ from: hot, url: '{hot}', {settings} }} }}
  page_windows: {{ webhook: {{ from: windows, url: '{windows}', {settings} }} }}
"
    )
}

/// A small generator of its own, so that a run can be repeated.
fn scramble(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

fn device(number: u64) -> String {
    format!("d{}", number % 5)
}

fn is_hot(number: u64) -> bool {
    number % 7 != 6
}

fn event(number: u64) -> Value {
    let time = BEGIN_MS + number * STEP_MS;
    let value = if is_hot(number) { 95.5 } else { 20.0 };
    // The same event has the same id however often it is posted.
    let id = Uuid::from_u128(u128::from(number) + (7 << 76) + (2 << 62)).to_string();
    json!({"event_type": "sensor.reading", "aggregate_id": device(number), "event_time": time, "event_id": id,
           "payload": {"value": value, "number": number}})
}

/// The fate of a call. Some of them act and do not say so; to the caller that is all the same.
fn fate(dice: u64) -> Reply {
    match dice % 100 {
        0..8 => Reply::status(500),
        8..12 => Reply::status(503),
        12..15 => Reply::Answer(429, "retry-after: 0\r\n", "not so fast"),
        15 => Reply::Answer(429, "retry-after: 1\r\n", ""),
        16..18 => Reply::Answer(302, "location: /elsewhere\r\n", ""),
        18..26 => Reply::Reset,
        26..28 => Reply::Hang,
        28..31 => Reply::Slow(Duration::from_millis(dice / 100 % 900), 500),
        31..40 => Reply::Slow(Duration::from_millis(dice / 100 % 200), 204),
        _ => Reply::Answer(200, "", "thanks"),
    }
}

/// What the receiver knows of each id.
#[derive(Default)]
struct Book {
    /// The path and body of the first attempt.
    first: BTreeMap<String, (String, Vec<u8>)>,
    taken: BTreeSet<String>,
    attempts: usize,
    wrong: Vec<String>,
}

impl Book {
    fn note(&mut self, verifier: &Webhook, request: &Request, reply: &Reply) {
        self.attempts += 1;
        let (id, what) = (request.id(), (request.path.clone(), request.body.clone()));
        if let Err(error) = verifier.verify(&request.body, &request.headers) {
            self.wrong.push(format!("{id}: {error}"));
        }
        let first = self.first.entry(id.clone()).or_insert_with(|| what.clone());
        if *first != what {
            self.wrong.push(format!("{id} had the body {:?} first, and then {:?}", first.1, what.1));
        }
        if matches!(reply, Reply::Answer(200, ..) | Reply::Slow(_, 204)) {
            self.taken.insert(id);
        }
    }

    /// Whether something was tried and has not been taken yet.
    fn is_waiting(&self) -> bool {
        self.first.len() > self.taken.len()
    }

    /// The bodies that came to a path; no two ids have the same.
    fn bodies(&self, path: &str) -> BTreeSet<String> {
        let bodies: Vec<&Vec<u8>> = self.first.values().filter(|(at, _)| at == path).map(|(_, body)| body).collect();
        let distinct: BTreeSet<String> = bodies.iter().map(|body| String::from_utf8_lossy(body).into()).collect();
        assert_eq!(distinct.len(), bodies.len(), "a row had two ids");
        distinct
    }
}

async fn storm(seed: u64) -> (Receiver, Arc<Mutex<Book>>) {
    let book = Arc::<Mutex<Book>>::default();
    let (noted, verifier) = (Arc::clone(&book), Webhook::new(SECRET).expect("a secret"));
    let receiver = Receiver::start(move |request, before| {
        let reply = fate(scramble(seed ^ before as u64));
        noted.lock().note(&verifier, request, &reply);
        reply
    });
    (receiver.await, book)
}

/// Posts batches from where the one before stopped, until they are so many or the process is gone.
async fn post(url: String, begin: Arc<Mutex<u64>>, batches: u64) {
    let client = Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
    for _ in 0..batches {
        let from = *begin.lock();
        let to = (from + BATCH).min(EVENTS);
        if from == to {
            return;
        }
        let lines: String = (from..to).map(|number| format!("{}\n", event(number))).collect();
        let request = client.post(format!("{url}/api/v1/events/batch")).header("content-type", "application/x-ndjson");
        let Ok(response) = request.body(lines).send().await else { return };
        let status = response.status();
        let Ok(text) = response.text().await else { return };
        assert_eq!(status, 202, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(answer["accepted"], json!(to - from), "{answer}");
        *begin.lock() = to;
    }
}

/// Lets every window close: each partition hears of a later time.
async fn close_windows(process: &Process) {
    let later = BEGIN_MS + 2 * EVENTS * STEP_MS;
    let event = |n| {
        json!({"event_type": "sensor.reading", "aggregate_id": format!("closing{n}"), "event_time": later,
               "payload": {"value": 1.0, "number": n}})
    };
    let events: Vec<Value> = (0..300).map(event).collect();
    let response = process.client.post(format!("{}/api/v1/events/batch", process.ingest)).json(&events).send().await;
    assert_eq!(response.expect("answers").status(), 202);
}

async fn actions(process: &Process) -> BTreeMap<String, Value> {
    let response = process.client.get(format!("{}/api/v1/actions", process.actions)).send().await.expect("answers");
    let answer: Value = response.json().await.expect("JSON");
    let list = answer["actions"].as_array().expect("a list");
    list.iter().map(|action| (action["name"].as_str().expect("a name").to_string(), action.clone())).collect()
}

async fn until_delivered(process: &Process, expected: &[(&str, usize)]) {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let actions = actions(process).await;
        let left = |(name, count): &(&str, usize)| actions[*name]["delivered"] != json!(count);
        let waiting = actions.values().any(|action| action["pending"] != json!(0));
        if !waiting && !expected.iter().any(left) {
            return;
        }
        assert!(Instant::now() < deadline, "not delivered: {actions:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What must arrive, from the events alone.
fn expected() -> (BTreeSet<String>, BTreeSet<String>) {
    let hot: Vec<u64> = (0..EVENTS).filter(|number| is_hot(*number)).collect();
    let mut windows: BTreeMap<(u64, String), u64> = BTreeMap::new();
    for number in &hot {
        *windows.entry((number * STEP_MS / WINDOW_MS, device(*number))).or_default() += 1;
    }
    let row = |number: &u64| json!({"device": device(*number), "number": number, "value": 95.5}).to_string();
    let window = |((at, device), n): ((u64, String), u64)| {
        let seconds = at * WINDOW_MS / 1_000;
        let start = format!("2026-01-01T00:{:02}:{:02}Z", seconds / 60, seconds % 60);
        json!({"device": device, "window_start": start, "n": n}).to_string()
    };
    (hot.iter().map(row).collect(), windows.into_iter().map(window).collect())
}

/// As rows, whatever the order of their columns.
fn rows(bodies: &BTreeSet<String>) -> BTreeSet<String> {
    bodies.iter().map(|body| serde_json::from_str::<Value>(body).expect("JSON").to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_trigger_arrives_through_kills_and_a_failing_receiver() {
    let (kills, seed) = (number("KILLS", 5), number("SEED", u64::from(std::process::id())));
    eprintln!("SEED={seed} KILLS={kills}");
    let began = Instant::now();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, data) = (folder.path().join("storm.yaml"), folder.path().join("data"));
    let (receiver, book) = storm(seed).await;
    std::fs::write(&file, pipeline(&receiver)).expect("written");
    let (posted, share) = (Arc::new(Mutex::new(0)), EVENTS / BATCH / (kills + 1) + 1);
    let mut busy = 0;
    for number in 0..kills {
        let mut process = Process::start(&file, &data).await;
        let posting = tokio::spawn(post(process.ingest.clone(), Arc::clone(&posted), share));
        tokio::time::sleep(Duration::from_millis(scramble(seed + number) % 2_000)).await;
        process.kill();
        busy += u64::from(book.lock().is_waiting());
        posting.await.expect("posted");
    }
    let process = Process::start(&file, &data).await;
    let before = book.lock().taken.len();
    post(process.ingest.clone(), Arc::clone(&posted), u64::MAX).await;
    assert_eq!(*posted.lock(), EVENTS);
    close_windows(&process).await;
    let (hot, windows) = expected();
    assert_eq!(hot.len(), TRIGGERS);
    until_delivered(&process, &[("page_hot", hot.len()), ("page_windows", windows.len())]).await;
    let book = std::mem::take(&mut *book.lock());
    eprintln!(
        "{} triggers in {} attempts, {busy} kills while some waited, {before} taken before the last process; {:?}",
        hot.len() + windows.len(),
        book.attempts,
        began.elapsed()
    );
    assert!(busy * 2 >= kills, "the kills came when nothing was to do");
    assert!(book.wrong.is_empty(), "{:#?}", &book.wrong[..book.wrong.len().min(10)]);
    assert_eq!(rows(&book.bodies("/hot")), rows(&hot), "page_hot");
    assert_eq!(rows(&book.bodies("/windows")), rows(&windows), "page_windows");
    assert_eq!(book.first.len(), hot.len() + windows.len(), "something else was called");
    let missing: Vec<&String> = book.first.keys().filter(|id| !book.taken.contains(*id)).collect();
    assert!(missing.is_empty(), "{missing:?} are said to be delivered, and were not taken");
    process.assert_balanced().await;
}
