//! Batches against the real binary: `kill -9` and SIGTERM in their middle, and slow clients by the hundred.
//!
//! `KILLS` says how often to kill, `CLIENTS` how many slow clients there are; `SEED` repeats a run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{Body, Client};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::process::{Process, number};

const PIPELINE: &str = "
pipeline: batches
events:
  sensor.reading: { payload: { value: double }, watermark: { delay: 5s } }
sources: { api: { http: {} } }
sinks:
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
";

fn written(folder: &Path) -> (PathBuf, PathBuf) {
    let pipeline = folder.join("batches.yaml");
    std::fs::write(&pipeline, PIPELINE).expect("written");
    (pipeline, folder.join("data"))
}

/// The lines of a batch: its events say which they are.
fn lines(batch: u64, from: u64, to: u64) -> String {
    let line = |n| {
        format!("{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"b{batch}\",\"payload\":{{\"value\":{n}}}}}\n")
    };
    (from..to).map(line).collect()
}

/// How many events of a batch are stored; they are its first ones, once each and in its order.
async fn is_beginning(process: &Process, batch: u64) -> u64 {
    let sql = format!(
        "SELECT count(*) AS n, count(DISTINCT value) AS different, coalesce(max(value), -1) AS last FROM sensor.reading \
         WHERE aggregate_id = 'b{batch}'"
    );
    let found = process.sql(&sql).await.remove(0);
    let stored = found["n"].as_u64().expect("a number");
    let last = format!("{:.1}", found["last"].as_f64().expect("a number") + 1.0);
    assert_eq!(
        (&found["different"], last),
        (&json!(stored), format!("{stored}.0")),
        "batch {batch} is stored without gaps, and once"
    );
    assert_eq!(stored_order(process, &format!("b{batch}")).await, Ok(()));
    stored
}

/// Whether the first 10,000 events of an aggregate are in the order of their values.
pub async fn stored_order(process: &Process, aggregate: &str) -> Result<(), Value> {
    let path = format!("/api/v1/events?event_type=sensor.reading&aggregate_id={aggregate}&limit=10000");
    let (status, answer) = process.get(&path).await;
    assert_eq!(status, 200, "{answer}");
    let events = answer["events"].as_array().expect("events");
    let value = |event: &Value| event["payload"]["value"].as_f64();
    let wrong = events.windows(2).find(|pair| value(&pair[0]) >= value(&pair[1]));
    wrong.map_or(Ok(()), |pair| Err(json!(pair)))
}

fn post(client: &Client, ingest: &str, key: &str, body: impl Into<Body>) -> reqwest::RequestBuilder {
    let post = client.post(format!("{ingest}/api/v1/events/batch")).header("content-type", "application/x-ndjson");
    post.header("idempotency-key", key).body(body)
}

/// Sent again under its key until it is answered, a batch is stored once and in its order; each kill leaves a beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_over_kills_is_stored_once() {
    const EVENTS: u64 = 30_000;
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let (kills, seed) = (number("KILLS", 4), number("SEED", u64::from(std::process::id())));
    eprintln!("SEED={seed} KILLS={kills}");
    let (mut left, mut batch, mut parts) = (kills, 0, 0);
    let mut process = Process::start(&pipeline, &data).await;
    while left > 0 || batch == 0 {
        let body = lines(batch, 0, EVENTS);
        loop {
            let client = Client::new();
            let sending = tokio::spawn(post(&client, &process.ingest, &format!("batch {batch}"), body.clone()).send());
            let dice = (seed ^ ((left * 1_000 + batch) * 0x9e37_79b9)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
            tokio::time::sleep(Duration::from_millis(dice % 600)).await;
            if left > 0 && !sending.is_finished() {
                process.kill();
                left -= 1;
                sending.abort();
                process = Process::start(&pipeline, &data).await;
                let stored = is_beginning(&process, batch).await;
                parts += u64::from(stored > 0 && stored < EVENTS);
                continue;
            }
            let response = sending.await.expect("a task").expect("an answer");
            let status = response.status();
            let answer: Value = response.json().await.expect("JSON");
            assert_eq!((status.as_u16(), &answer), (202, &json!({"accepted": EVENTS, "rejected": []})));
            assert_eq!(is_beginning(&process, batch).await, EVENTS);
            break;
        }
        batch += 1;
    }
    eprintln!("{kills} kills in {batch} batches of {EVENTS}; {parts} of them left a batch stored in part");
    process.assert_balanced().await;
}

/// A batch that does not end is ended with the service: what it sent is stored, and its answer says how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_batch_is_drained_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let mut process = Process::start(&pipeline, &data).await;
    let (give, take) = mpsc::channel::<Result<String, std::io::Error>>(4);
    let body =
        Body::wrap_stream(futures::stream::unfold(take, |mut take| async move { Some((take.recv().await?, take)) }));
    let client = Client::new();
    let answer = tokio::spawn(post(&client, &process.ingest, "endless", body).send());
    for part in 0..20 {
        give.send(Ok(lines(0, part * 100, part * 100 + 100))).await.expect("it is read");
    }
    // Half a line is no event.
    give.send(Ok("{\"event_type\"".into())).await.expect("it is read");
    process.sql_until("SELECT count(*) AS n FROM sensor.reading", |rows| rows[0]["n"].as_u64() == Some(2_000)).await;
    // The batch never ends by itself, so this would not either.
    assert!(process.terminate().success());
    let response = answer.await.expect("a task").expect("an answer");
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(response.status(), 503);
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!((&answer["code"], &answer["accepted"]), (&json!("closing"), &json!(2_000)), "{answer}");
    drop(give);
    // Whoever sends it again from its beginning has it there once.
    let process = Process::start(&pipeline, &data).await;
    assert_eq!(is_beginning(&process, 0).await, 2_000);
    let again = post(&client, &process.ingest, "endless", lines(0, 0, 2_500)).send().await.expect("an answer");
    assert_eq!(again.json::<Value>().await.expect("JSON"), json!({"accepted": 2_500, "rejected": []}));
    assert_eq!(is_beginning(&process, 0).await, 2_500);
    process.assert_balanced().await;
}

/// A request that is sent by half, in one of several ways, and then a byte from time to time.
async fn dawdle(ingest: String, number: u64) {
    let address = ingest.trim_start_matches("http://").to_string();
    let kinds = ["/api/v1/events", "/api/v1/events/batch", "/api/v1/dead_letters/1/replay"];
    let path = kinds[usize::try_from(number % 3).expect("small")];
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n["
    );
    // A quarter of them do not even end the head.
    let head = if number.is_multiple_of(4) {
        head.split("content-length").next().unwrap_or_default().to_string()
    } else {
        head
    };
    loop {
        let Ok(mut stream) = TcpStream::connect(&address).await else { return };
        let _ = stream.write_all(head.as_bytes()).await;
        if !number.is_multiple_of(4) {
            let _ = stream.write_all(&vec![b' '; 300_000]).await;
        }
        // Until it is let go.
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_hold_nobody_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let process = Process::start(&pipeline, &data).await;
    let clients = number("CLIENTS", 60);
    let before = process.memory_kib();
    let slow: Vec<_> = (0..clients).map(|number| tokio::spawn(dawdle(process.ingest.clone(), number))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (began, mut times, mut sent) = (Instant::now(), Vec::new(), 0_u64);
    while began.elapsed() < Duration::from_secs(5) {
        let start = Instant::now();
        process
            .accept(&json!({"event_type": "sensor.reading", "aggregate_id": "b0", "payload": {"value": sent}}))
            .await;
        times.push(start.elapsed());
        sent += 1;
        if sent.is_multiple_of(50) {
            let answer =
                post(&process.client, &process.ingest, &format!("{sent}"), lines(0, sent, sent + 100)).send().await;
            assert_eq!(answer.expect("an answer").json::<Value>().await.expect("JSON")["accepted"], 100);
            sent += 100;
        }
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let grown = process.memory_kib().saturating_sub(before) / 1024;
    eprintln!(
        "{clients} slow clients: {} single events, {median:?} at the median, {worst:?} at worst; {grown} MiB more",
        times.len()
    );
    // The slow ones never end: whoever waited for them would wait until they are let go.
    assert!(median < Duration::from_secs(1) && worst < Duration::from_secs(20), "{median:?} {worst:?}");
    assert!(grown < 300, "{grown} MiB more");
    for slow in slow {
        slow.abort();
    }
    assert_eq!(is_beginning(&process, 0).await, sent);
    process.assert_balanced().await;
}
