//! A pipeline that remembers more than it may: it takes no more events out of the log, says so, loses nothing, and goes on
//! when it is given more.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{Process, binary};

/// Every note is remembered for a day.
const PIPELINE: &str = "
pipeline: greedy
events:
  sensor.note: { payload: { text: string }, watermark: { delay: 5s } }
sources: { api: { http: {} } }
streams:
  days: |
    SELECT device, w.start AS day, notes FROM (
      SELECT tumble(interval '1 day') AS w, aggregate_id AS device, array_agg(text) AS notes
      FROM sensor.note GROUP BY w, device)
sinks:
  newest: { projection: { from: sensor.note, key: [aggregate_id] } }
  by_day: { projection: { from: days, key: [device, day], retain: 90d } }
";
const LINES: usize = 500;

fn batch(number: usize) -> String {
    let text = "x".repeat(4_000);
    let line = |n| {
        format!(
            "{{\"event_type\":\"sensor.note\",\"aggregate_id\":\"d{}\",\"payload\":{{\"text\":\"{number} {n} {text}\"}}}}\n",
            n % 10
        )
    };
    (0..LINES).map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_beyond_its_bound_stops_the_engine_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = (folder.path().join("greedy.yaml"), folder.path().join("data"));
    std::fs::write(&pipeline, PIPELINE).expect("written");
    let mut process = Process::start_with(&pipeline, &data, &["--memory", "256MiB"]).await;
    let mut stored = 0;
    let post = |process: &Process, number| {
        let url = format!("{}/api/v1/events/batch", process.ingest);
        process.client.post(url).header("content-type", "application/x-ndjson").body(batch(number)).send()
    };
    let waiting = "SELECT waiting_for FROM cornjacket.pipelines WHERE waiting_for IS NOT NULL";
    let deadline = Instant::now() + Duration::from_mins(2);
    let why = loop {
        let answer = post(&process, stored).await.expect("an answer");
        assert_eq!(answer.status(), 202, "what cannot be remembered is stored all the same");
        stored += 1;
        if let Some(row) = process.sql(waiting).await.pop() {
            break row["waiting_for"].as_str().expect("text").to_owned();
        }
        assert!(Instant::now() < deadline, "{stored} batches and nothing is waited for");
    };
    assert!(why.contains("`days`") && why.contains("--memory") && why.contains("128 MiB"), "{why}");
    assert!(stored * LINES * 4_000 > 100 << 20, "{stored} batches are not too much");
    // It stays so, and all else works.
    for _ in 0..10 {
        assert_eq!(post(&process, stored).await.expect("an answer").status(), 202);
        stored += 1;
    }
    let count = "SELECT count(*) AS n, count(DISTINCT aggregate_id) AS devices FROM sensor.note";
    assert_eq!(process.sql(count).await, [json!({"n": stored * LINES, "devices": 10})]);
    assert_eq!(process.sql("SELECT count(*) AS n FROM newest").await, [json!({"n": 10})]);
    assert_eq!(process.sql(waiting).await.len(), 1);
    let memory = process.memory_kib() >> 10;
    eprintln!("{stored} batches stored, {memory} MiB resident");
    assert!(memory < 700, "{memory} MiB");
    process.assert_balanced().await;
    assert!(process.terminate().success());
    // With more of it everything is taken.
    let process = Process::start_with(&pipeline, &data, &["--memory", "2GiB"]).await;
    let left = "SELECT sum(end_offset - reflected_offset) AS left FROM cornjacket.topics";
    process.sql_until(left, |rows| rows[0]["left"] == json!(0)).await;
    assert!(process.sql(waiting).await.is_empty());
    process.assert_balanced().await;
}

#[test]
fn an_amount_that_is_none_is_told() {
    let mut command = binary();
    command.args(["run", "x.yaml", "--memory", "lots"]).stdout(Stdio::null());
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("512MiB or 2GiB"), "{said}");
}
