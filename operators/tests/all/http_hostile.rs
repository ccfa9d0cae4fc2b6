//! Slow clients by the hundred, and bodies that were damaged at random (`RUNS` says how many, `SEED` which).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::Request;
use cornjacket_operators::sources::http::{Patience, Settings, routes_with};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tower::ServiceExt;

use crate::http::{CheckingDoor, Client, GOOD, post, request_to, serve_door};
use crate::http_batch;

/// Names the test that has a process of its own.
const ALONE: &str = "CORNJACKET_TEST_ALONE";

/// Runs a test of this binary in a process of its own, where nobody else's memory is counted. True in that process: the
/// test goes on there, and its caller is done.
fn is_alone(test: &str) -> bool {
    if std::env::var(ALONE).is_ok_and(|name| name == test) {
        return true;
    }
    let name = format!("{}::{test}", module_path!().split_once("::").map_or("", |(_, module)| module));
    let mut command = std::process::Command::new(std::env::current_exe().expect("this binary"));
    let output = command.args(["--exact", &name, "--nocapture"]).env(ALONE, test).output().expect("it runs");
    let (status, told) = (output.status, [output.stdout, output.stderr].concat());
    let told = String::from_utf8_lossy(&told);
    // A name that fits nothing would pass as well.
    assert!(status.success() && told.contains("1 passed"), "{name} in its own process: {told}");
    false
}

/// Bytes of this process's memory that are in use.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
}

fn slow_client(address: SocketAddr, number: usize) -> Client {
    let mut client = Client::new(address);
    let lines = "{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"slow\",\"payload\":{\"value\":1}}\n".repeat(100);
    let (path, body) = match number % 4 {
        // A head that does not end, a body that begins, one that has come by half, and a batch.
        0 => return client.tap(b"POST /api/v1/events HTTP/1.1\r\nhost: x\r\nx-a: "),
        1 => ("/api/v1/events", vec![b' '; 1_000]),
        2 => ("/api/v1/events", vec![b' '; 1 << 20]),
        _ => ("/api/v1/events/batch", lines.into_bytes()),
    };
    let whole = request_to(path, "content-type: application/json\r\n", &body);
    let whole = if number % 4 == 3 { request_to(path, "content-type: application/x-ndjson\r\n", &body) } else { whole };
    let part = whole.len() / 2;
    client.send(&whole[..part]);
    client
}

impl Client {
    fn tap(mut self, bytes: &[u8]) -> Self {
        self.send(bytes);
        self
    }
}

/// Together the slow ones hold 64 MB, which is all that there is for bodies.
#[test]
fn five_hundred_slow_clients_hold_nobody_up() {
    if !is_alone("five_hundred_slow_clients_hold_nobody_up") {
        return;
    }
    let door = CheckingDoor::new();
    let address = serve_door(Arc::clone(&door) as _, Patience { read_budget: 32 << 20, ..Patience::default() }, None);
    let before = memory();
    let mut slow: Vec<Client> = (0..500).map(|number| slow_client(address, number)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let trickle = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for client in &mut slow {
                    client.send(b" ");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        })
    };
    // Ingest goes on: single events, large ones and batches.
    let large = http_batch::event("large", format!("1,\"pad\":\"{}\"", "x".repeat(900_000)));
    let (mut slowest, began) = (Duration::ZERO, Instant::now());
    while began.elapsed() < Duration::from_secs(6) {
        let start = Instant::now();
        assert_eq!(post(address, "", GOOD.as_bytes()).status, 202);
        let reply = post(address, "", large.as_bytes());
        assert_eq!(reply.status, 202, "{}", reply.json);
        assert_eq!(http_batch::post(address, "", format!("{GOOD}\n{GOOD}").as_bytes()).json["accepted"], 2);
        slowest = slowest.max(start.elapsed());
        // What this door keeps is the test's own memory, and more of it the faster events are taken.
        door.stored.lock().clear();
    }
    stop.store(true, Ordering::Relaxed);
    trickle.join().expect("it ends");
    // The slow ones never end: whoever waited for them would wait for ever.
    assert!(slowest < Duration::from_mins(1), "{slowest:?}");
    let grown = memory().saturating_sub(before);
    assert!(grown < 400 << 20, "{grown} bytes more");
}

const WHOLE: [(&str, &str); 6] = [
    ("application/json", GOOD),
    (
        "application/json",
        r#"[{"event_type":"sensor.reading","aggregate_id":"a","payload":{"value":1}}, {"x": [1, "]"]}]"#,
    ),
    (
        "application/x-ndjson",
        "{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"a\",\"payload\":{\"value\":1}}\n{}\r\n\n7",
    ),
    (
        "application/cloudevents+json",
        r#"{"specversion":"1.0","id":"1","type":"com.example.someevent","source":"/s","subject":"é","data":{"a":[1]},"ext":1}"#,
    ),
    (
        "application/cloudevents+json",
        r#"{"specversion":"1.0","id":"1","type":"com.example.someevent","source":"/s","data_base64":"eyJhIjoxfQ=="}"#,
    ),
    (
        "application/cloudevents-batch+json",
        r#"[{"specversion":"1.0","id":"1","type":"com.example.someevent","source":"/s"}]"#,
    ),
];

/// Room for the bodies of all requests that are being read, in bytes.
const READ_BUDGET: usize = 1 << 20;

const PIECES: [&[u8]; 18] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\",
    b"\n",
    b"null",
    b"1e999",
    b"\\ud800",
    b"\xff",
    b"-",
    b"\0",
    b"specversion",
    b"data_base64",
    b"event_type",
];

fn damage(rng: &mut ChaCha8Rng, body: &mut Vec<u8>) {
    for _ in 0..rng.random_range(0..5) {
        let at = rng.random_range(0..=body.len());
        let end = (at + rng.random_range(0..8)).min(body.len());
        match rng.random_range(0..5) {
            0 => drop(body.drain(at..end)),
            1 => body.truncate(at),
            2 => drop(body.splice(at..end, PIECES.choose(rng).copied().unwrap_or_default().iter().copied())),
            3 => body.insert(at, rng.random()),
            _ => {
                let copy = body[at..end].to_vec();
                let to = rng.random_range(0..=body.len());
                drop(body.splice(to..to, copy));
            }
        }
    }
}

fn hostile_request(rng: &mut ChaCha8Rng) -> Request<Body> {
    let (content_type, whole) = WHOLE.choose(rng).copied().unwrap_or_default();
    let mut body = whole.as_bytes().to_vec();
    damage(rng, &mut body);
    let types = ["application/json", "application/x-ndjson", "application/cloudevents-batch+json", content_type];
    let content_type = if rng.random_bool(0.8) { content_type } else { types.choose(rng).copied().unwrap_or_default() };
    let path = if rng.random_bool(0.5) { "/api/v1/events" } else { "/api/v1/events/batch" };
    let mut request = Request::post(path).header("content-type", content_type);
    if rng.random_bool(0.1) {
        request = request.header("content-encoding", *["gzip", "zstd", "br"].choose(rng).unwrap_or(&""));
    }
    if rng.random_bool(0.2) {
        let mut value = b"a%20\"b\\%zz%ff".to_vec();
        value.truncate(rng.random_range(0..=value.len()));
        request = request.header("ce-specversion", "1.0").header("ce-id", &*value).header("ce-source", "s");
        request = request.header("ce-type", "com.example.someevent").header("idempotency-key", "k");
    }
    // In pieces, as a network has it.
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        body.chunks(rng.random_range(1..64)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    request.body(Body::from_stream(futures::stream::iter(pieces))).expect("a request")
}

#[test]
fn damaged_bodies_have_an_answer_and_leave_nothing_behind() {
    if !is_alone("damaged_bodies_have_an_answer_and_leave_nothing_behind") {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let runs = number("RUNS").unwrap_or(5_000);
    eprintln!("SEED={seed} RUNS={runs}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let door = CheckingDoor::new();
    // The service's own account: what a body has taken of this and does not give back is missing in the end.
    let patience = Patience { read_budget: READ_BUDGET, ..Patience::default() };
    let routes = routes_with(Arc::clone(&door) as _, &Settings::default(), "api", patience);
    let mut after_warming_up = 0;
    runtime.block_on(async {
        for run in 0..runs {
            let request = hostile_request(&mut rng);
            let told = format!("{request:?}");
            let response = routes.clone().oneshot(request).await.expect("an answer");
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
            assert!([202, 400, 413, 415, 422].contains(&status), "run {run}: {status} to {told}");
            let answer: serde_json::Value = serde_json::from_slice(&body).expect("answers are JSON");
            assert!(status == 202 || answer["error"].is_string(), "run {run}: {answer}");
            door.stored.lock().clear();
            if run == runs / 5 {
                after_warming_up = memory();
            }
        }
        let whole = Body::from(vec![b' '; READ_BUDGET - (64 << 10)]);
        let request = Request::post("/api/v1/events").header("content-type", "application/json").body(whole);
        let response = routes.oneshot(request.expect("a request")).await.expect("an answer");
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((status, answer["code"].as_str()), (400, Some("empty_body")), "{answer}");
    });
    // Alone in the process, and after a fifth of the runs: what a request leaves behind would be there thousands of times.
    let grown = memory().saturating_sub(after_warming_up);
    assert!(grown < 64 << 20, "{grown} bytes more");
}
