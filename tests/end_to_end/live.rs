//! Live reads of the real binary: what a follower has pieced together is the table, whatever breaks in between; and of
//! events each comes once and in its order, over `kill -9` as well.
//!
//! `SEED` repeats a run, `KILLS` says how often to kill.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eventsource_stream::{Event, Eventsource};
use futures::{Stream, StreamExt};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::kills::scramble;
use crate::process::{Process, binary, number};

const PIPELINE: &str = "
pipeline: live
events:
  sensor.reading: { payload: { value: double }, watermark: { delay: 5s } }
  sensor.other: { payload: { value: double }, watermark: { delay: 5s } }
sources: { api: { http: {} } }
sinks:
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
";
const DEVICES: u64 = 40;

fn written(folder: &Path) -> (PathBuf, PathBuf) {
    let pipeline = folder.join("live.yaml");
    std::fs::write(&pipeline, PIPELINE).expect("written");
    (pipeline, folder.join("data"))
}

fn batch(events: impl Iterator<Item = (u64, u64)>) -> String {
    let line = |(device, value)| {
        format!(
            "{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"d{device}\",\"payload\":{{\"value\":{value}}}}}\n"
        )
    };
    events.map(line).collect()
}

/// Posts batches until told to stop; gives how many events were surely taken.
async fn load(mut ingest: watch::Receiver<String>, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let client = Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
    let (mut number, mut taken) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        let events = (0..20).map(|n| (scramble(seed + number + n) % DEVICES, number + n));
        let url = format!("{}/api/v1/events/batch", *ingest.borrow_and_update());
        let post = client.post(url).header("content-type", "application/x-ndjson").body(batch(events));
        if post.send().await.is_ok_and(|response| response.status() == 202) {
            taken += 20;
        }
        number += 20;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    taken
}

type Messages = Pin<Box<dyn Stream<Item = Event> + Send>>;

async fn open(url: &str, last_id: Option<&str>) -> Option<Messages> {
    let mut request = Client::new().get(url).header("accept", "text/event-stream");
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    let response = request.send().await.ok()?;
    assert_eq!(response.status(), 200);
    Some(messages(response))
}

/// The messages of an answer, up to where its connection breaks.
fn messages(response: Response) -> Messages {
    let whole = response.bytes_stream().eventsource().take_while(|event| std::future::ready(event.is_ok()));
    Box::pin(whole.filter_map(|event| std::future::ready(event.ok())))
}

/// What a follower has pieced together.
#[derive(Default)]
struct Copy {
    rows: BTreeMap<String, Value>,
    last_id: Option<String>,
    resets: u64,
    resumed: u64,
    messages: u64,
}

impl Copy {
    fn take(&mut self, event: &Event) {
        let data: Value = serde_json::from_str(&event.data).expect("JSON");
        match event.event.as_str() {
            "message" => {
                let key = data["aggregate_id"].as_str().expect("text").to_owned();
                let time = |row: &Value| row["state"]["value"].as_f64();
                let before = self.rows.insert(key, data.clone());
                assert!(before.as_ref().and_then(time) <= time(&data), "{before:?} was followed by {data}");
                self.messages += 1;
            }
            "reset" => {
                self.rows.clear();
                self.resets += 1;
            }
            "live" => {}
            other => panic!("{other}: {data}"),
        }
        if !event.id.is_empty() {
            self.last_id = Some(event.id.clone());
        }
    }
}

/// Follows a projection, comes again when the connection breaks, and breaks it by itself from time to time.
async fn follow(mut query: watch::Receiver<String>, seed: u64, mut done: watch::Receiver<bool>) -> Copy {
    let (mut copy, mut turn) = (Copy::default(), 0);
    loop {
        turn += 1;
        let path = "/api/v1/projections/newest/changes?snapshot=true";
        let url = format!("{}{path}", *query.borrow_and_update());
        let Some(mut events) = open(&url, copy.last_id.as_deref()).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        copy.resumed += u64::from(copy.last_id.is_some());
        let patience = Duration::from_millis(scramble(seed + turn) % 900);
        let until = tokio::time::sleep(patience);
        tokio::pin!(until);
        loop {
            let is_done = *done.borrow_and_update();
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => copy.take(&event),
                    None => break,
                },
                () = &mut until, if !is_done => break,
                // Everything is written: what comes before a long silence is all that comes.
                () = tokio::time::sleep(Duration::from_secs(4)), if is_done => return copy,
                _ = done.changed(), if !is_done => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_copy_is_the_table_whatever_breaks() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let (kills, seed) = (number("KILLS", 5), number("SEED", u64::from(std::process::id())));
    eprintln!("SEED={seed} KILLS={kills}");
    let mut process = Process::start(&pipeline, &data).await;
    let (query, queries) = watch::channel(process.query.clone());
    let (ingest, ingests) = watch::channel(process.ingest.clone());
    let (stop, (done, dones)) = (Arc::<AtomicBool>::default(), watch::channel(false));
    let loading = tokio::spawn(load(ingests, seed, Arc::clone(&stop)));
    let followers: Vec<_> =
        (0..3).map(|n| tokio::spawn(follow(queries.clone(), seed * 7 + n, dones.clone()))).collect();
    for round in 0..kills {
        tokio::time::sleep(Duration::from_millis(300 + scramble(seed + round) % 1_500)).await;
        process.kill();
        process = Process::start(&pipeline, &data).await;
        query.send_replace(process.query.clone());
        ingest.send_replace(process.ingest.clone());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::SeqCst);
    assert!(loading.await.expect("loaded") > 50, "hardly any load");
    let sql = "SELECT (SELECT count(*) FROM sensor.reading) AS n, sum(end_offset - reflected_offset) AS left FROM cornjacket.topics";
    process.sql_until(sql, |rows| rows[0]["left"] == json!(0)).await;
    done.send_replace(true);
    let (_, page) = process.get("/api/v1/projections/newest?limit=1000").await;
    let table: BTreeMap<String, Value> = page["projections"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["aggregate_id"].as_str().expect("text").to_owned(), row.clone()))
        .collect();
    assert_eq!(table.len() as u64, DEVICES);
    for follower in followers {
        let copy = follower.await.expect("a follower");
        eprintln!("{} messages, {} times resumed, {} resets", copy.messages, copy.resumed, copy.resets);
        assert_eq!(copy.rows, table);
        assert!(copy.resets <= kills && copy.resumed > copy.resets && copy.messages > 100);
    }
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_followed_without_a_gap_over_kills() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let (kills, seed) = (number("KILLS", 4), number("SEED", u64::from(std::process::id())));
    let mut process = Process::start(&pipeline, &data).await;
    let (ingest, ingests) = watch::channel(process.ingest.clone());
    let (mut last_id, mut seen) = (None::<String>, Vec::new());
    let stop = Arc::<AtomicBool>::default();
    let begun = open(&format!("{}/api/v1/events?event_type=sensor.reading", process.query), None).await;
    let mut events = begun.expect("it runs");
    let loading = tokio::spawn(load(ingests, seed, Arc::clone(&stop)));
    let mut rounds = 0;
    let mut deadline = Instant::now() + Duration::from_millis(700);
    let count = loop {
        let next = tokio::time::timeout(Duration::from_millis(700), events.next()).await;
        if let Ok(Some(event)) = &next {
            if event.event == "message" {
                let event: Value = serde_json::from_str(&event.data).expect("JSON");
                seen.push(event["event_id"].as_str().expect("an id").to_owned());
            }
            // What comes behind the last id comes again.
            if !event.id.is_empty() {
                last_id = Some(event.id.clone());
            }
        }
        if Instant::now() > deadline && rounds < kills {
            // An id is only at the end of what comes together, so some of it may come twice.
            process.kill();
            process = Process::start(&pipeline, &data).await;
            ingest.send_replace(process.ingest.clone());
            let url = format!("{}/api/v1/events?event_type=sensor.reading", process.query);
            events = open(&url, last_id.as_deref()).await.expect("it runs");
            (rounds, deadline) = (rounds + 1, Instant::now() + Duration::from_millis(scramble(seed + rounds) % 1_200));
            continue;
        }
        if rounds == kills && Instant::now() > deadline + Duration::from_secs(1) {
            stop.store(true, Ordering::SeqCst);
            let is_late = Instant::now() > deadline + Duration::from_mins(2);
            // Silence is the end once everything that is stored has come.
            if next.is_err() && loading.is_finished() && (is_late || has_all(&process, &seen).await) {
                break seen.len();
            }
        }
    };
    loading.await.expect("loaded");
    let stored = process.sql("SELECT event_id FROM sensor.reading").await;
    let mut stored: Vec<String> = stored.iter().map(|row| row["event_id"].as_str().expect("text").to_owned()).collect();
    seen.sort_unstable();
    seen.dedup();
    stored.sort_unstable();
    assert_eq!(seen.len(), stored.len(), "of {count} messages");
    assert_eq!(seen, stored);
    process.assert_balanced().await;
}

async fn has_all(process: &Process, seen: &[String]) -> bool {
    let stored = process.sql("SELECT count(*) AS n FROM sensor.reading").await;
    let distinct: std::collections::BTreeSet<&String> = seen.iter().collect();
    stored[0]["n"].as_u64() == Some(distinct.len() as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_goes_on_over_a_restart_and_says_what_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let mut process = Process::start(&pipeline, &data).await;
    let tail = |arguments: &[&str]| {
        let mut command = binary();
        command.arg("tail").args(arguments).arg("--data-dir").arg(&data).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("starts")
    };
    let event = |value: u64| json!({"event_type": "sensor.reading", "aggregate_id": "d1", "payload": {"value": value}});
    let (events, rows) = (tail(&["sensor.reading", "--limit", "4"]), tail(&["newest", "--limit", "4"]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for value in 0..2 {
        process.accept(&event(value)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    process.kill();
    process = Process::start(&pipeline, &data).await;
    // Of the projection the whole table comes again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for value in 2..4 {
        process.accept(&event(value)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (child, path, expected) in
        [(events, "/payload/value", [0.0, 1.0, 2.0, 3.0]), (rows, "/state/value", [0.0, 1.0, 1.0, 2.0])]
    {
        let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.expect("waited").expect("ended");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        let value = |line: &str| {
            let row: Value = serde_json::from_str(line).expect("a line of JSON");
            row.pointer(path).and_then(Value::as_f64).expect("a number")
        };
        let found: Vec<String> = text.lines().map(value).map(|value| value.to_string()).collect();
        assert_eq!(found, expected.map(|value| value.to_string()), "{text}");
    }
    let output = tail(&["nothing"]).wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("there are newest"), "{said}");
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_are_bounded_and_do_not_hold_up_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let mut process = Process::start(&pipeline, &data).await;
    let url = format!("{}/api/v1/projections/newest/changes", process.query);
    let mut following = Vec::new();
    for _ in 0..256 {
        let mut events = open(&url, None).await.expect("it runs");
        assert_eq!(events.next().await.expect("one").event, "live");
        following.push(events);
    }
    let (status, answer) = process.get("/api/v1/projections/newest/changes").await;
    assert_eq!((status, &answer["code"]), (503, &json!("too_many_streams")), "{answer}");
    following.truncate(250);
    let began = Instant::now();
    let again = || Client::new().get(&url).header("last-event-id", "nonsense").send();
    let answer = loop {
        let answer = again().await.expect("it answers");
        if answer.status() == 200 {
            break answer;
        }
        assert!(began.elapsed() < Duration::from_mins(2), "those who left keep their places");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    eprintln!("room after {:?}", began.elapsed());
    let mut events = messages(answer);
    assert_eq!(events.next().await.expect("one").event, "reset");
    let (status, answer) = process.get("/api/v1/projections/nothing/changes").await;
    assert_eq!(status, 404, "{answer}");
    process.assert_balanced().await;
    let began = Instant::now();
    assert!(process.terminate().success());
    // Each of them would hold the end up until it is cut off.
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    assert!(following.pop().expect("one").next().await.is_none());
}
