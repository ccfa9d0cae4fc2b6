//! `cornjacket send`: one event, files and stdin, what is rejected, and each event once over kills of either side.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::stored_order;
use crate::process::{Process, binary};

const PIPELINE: &str = "
pipeline: sending
events:
  sensor.reading: { payload: { value: double } }
sources: { api: { http: {} } }
sinks:
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
";

fn written(folder: &Path) -> (PathBuf, PathBuf) {
    let pipeline = folder.join("sending.yaml");
    std::fs::write(&pipeline, PIPELINE).expect("written");
    (pipeline, folder.join("data"))
}

fn line(value: u64) -> String {
    format!(
        "{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"d{}\",\"payload\":{{\"value\":{value}}}}}\n",
        value % 7
    )
}

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = binary();
    command.arg("send").arg("--data-dir").arg(data).args(arguments);
    command
}

fn send(data: &Path, arguments: &[&str], stdin: &str) -> Output {
    let mut command = command(data, arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut input = child.stdin.take().expect("a pipe");
    // Where arguments say it all, nobody reads.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    child.wait_with_output().expect("it ends")
}

/// The lines of JSON that it prints.
fn said(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

async fn stored(process: &Process) -> Value {
    process.sql("SELECT count(*) AS n, count(DISTINCT value) AS different FROM sensor.reading").await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_lines_and_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let nobody = send(&data, &[line(0).trim()], "");
    assert_eq!(nobody.status.code(), Some(2));
    let process = Process::start(&pipeline, &data).await;
    let one = send(&data, &[line(0).trim()], "");
    assert_eq!(one.status.code(), Some(0), "{one:?}");
    assert_eq!(said(&one)[0]["status"], "accepted");
    let parts = ["--event-type", "sensor.reading", "--aggregate-id", "d1", "--payload", "{\"value\":1}"];
    let timed = ["--event-time", "2026-01-01T00:00:00Z", "--event-id", "0190163d-8694-739b-aea5-966c26f8ad90"];
    let by_parts = send(&data, &[&parts[..], &timed].concat(), "");
    assert_eq!(said(&by_parts)[0]["event_id"], "0190163d-8694-739b-aea5-966c26f8ad90", "{by_parts:?}");
    for (arguments, why) in [
        (vec!["--event-type", "x.y", "--aggregate-id", "d1", "--payload", "{}"], "x.y"),
        (vec!["--event-type", "sensor.reading", "--aggregate-id", "d1", "--payload", "{"], "--payload is not JSON"),
        (vec!["nothing.ndjson"], "nothing.ndjson cannot be read"),
        (vec!["--event-type", "sensor.reading"], "--aggregate-id"),
    ] {
        let wrong = send(&data, &arguments, "");
        let text = String::from_utf8_lossy(&wrong.stderr);
        assert!(wrong.status.code() == Some(1) && text.contains(why), "{arguments:?}: {text}");
    }
    let stdin = send(&data, &["--compress", "zstd"], &(line(2) + "\n" + &line(3)));
    assert_eq!(said(&stdin), [json!({"sent": 2, "stored": 2, "rejected": 0})], "{stdin:?}");
    // What comes on stdin is something new each time, unless it has a name.
    for expected in [5, 7, 7] {
        let name = if expected == 5 { vec![] } else { vec!["--idempotency-key", "once"] };
        assert_eq!(send(&data, &name, &line(4)).status.code(), Some(0));
        let both = send(&data, &name, &line(4));
        assert_eq!(both.status.code(), Some(0));
        let count = stored(&process).await["n"].as_u64().expect("a number");
        assert_eq!(count, if expected == 5 { 6 } else { 7 });
    }
    let pretty = folder.path().join("one.json");
    std::fs::write(
        &pretty,
        "{\n \"event_type\": \"sensor.reading\",\n \"aggregate_id\": \"d1\", \"payload\": {\"value\": 9}\n}\n",
    )
    .expect("written");
    assert_eq!(said(&send(&data, &[pretty.to_str().expect("UTF-8")], ""))[0]["stored"], 1);
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rejected_is_named_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let process = Process::start(&pipeline, &data).await;
    let (file, wrong) = (folder.path().join("readings.ndjson"), folder.path().join("wrong.ndjson"));
    let bad = line(2).replace(":2}", ":\"warm\"}");
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(2 << 20));
    std::fs::write(&file, format!("{}\n{}{bad}no json\n{}{long}\n", line(0), line(1), line(3))).expect("written");
    let (path, kept) = (file.to_str().expect("UTF-8"), wrong.to_str().expect("UTF-8"));
    let output = send(&data, &[path, "--rejected", kept], "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let mut said = said(&output);
    assert_eq!(said.pop(), Some(json!({"sent": 6, "stored": 3, "rejected": 3})));
    said.sort_by_key(|line| line["line"].as_u64());
    let told: Vec<_> =
        said.iter().map(|line| (line["line"].as_u64(), line["code"].as_str().unwrap_or_default())).collect();
    assert_eq!(told, [(Some(4), "invalid_payload"), (Some(5), "invalid_json"), (Some(7), "too_large")], "{said:?}");
    assert_eq!(said[0]["details"][0]["path"], "payload.value");
    assert!(said.iter().all(|line| line["input"] == path));
    let text = std::fs::read_to_string(&wrong).expect("it is there");
    assert!(text.contains(&bad) && text.contains("no json\n"), "the lines as they were");
    // Put right and sent, all is there.
    let right = folder.path().join("right.ndjson");
    std::fs::write(&right, line(2)).expect("written");
    assert_eq!(send(&data, &[right.to_str().expect("UTF-8")], "").status.code(), Some(0));
    assert_eq!(stored(&process).await, json!({"n": 4, "different": 4}));
    process.assert_balanced().await;
}

/// Killed in its middle and started again, on either side, a file is stored once and in its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_stored_once_over_kills_of_either_side() {
    const EVENTS: u64 = 60_000;
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let file = folder.path().join("readings.ndjson");
    std::fs::write(&file, (0..EVENTS).map(line).collect::<String>()).expect("written");
    let path = file.to_str().expect("UTF-8");
    let mut process = Process::start(&pipeline, &data).await;
    let some = |count: u64| move |rows: &[Value]| rows[0]["n"].as_u64().is_some_and(|n| n > count);
    let count = "SELECT count(*) AS n FROM sensor.reading";
    for round in 0..2 {
        let mut child = command(&data, &[path]).stdout(Stdio::null()).spawn().expect("starts");
        process.sql_until(count, some(round * 6_000)).await;
        child.kill().expect("kill -9");
        child.wait().expect("it has ended");
    }
    // What was on its way is stored.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stored_in_part = stored(&process).await["n"].as_u64().expect("a number");
    assert!(stored_in_part < EVENTS, "it was killed in its middle");
    let sending = command(&data, &[path]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    process.sql_until(count, some(stored_in_part)).await;
    process.kill();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // It finds the new process, which has other ports.
    let process = Process::start(&pipeline, &data).await;
    let output = tokio::task::spawn_blocking(|| sending.wait_with_output().expect("it ends")).await.expect("a task");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(said(&output), [json!({"sent": EVENTS, "stored": EVENTS, "rejected": 0})]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("trying again"), "the kill was in its middle");
    assert_eq!(stored(&process).await, json!({"n": EVENTS, "different": EVENTS}));
    for aggregate in ["d0", "d3", "d6"] {
        assert_eq!(stored_order(&process, aggregate).await, Ok(()), "each aggregate's events are in their order");
    }
    process.assert_balanced().await;
}
