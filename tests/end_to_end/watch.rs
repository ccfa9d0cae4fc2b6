//! `run --watch`: a changed file is taken up without losing an event; one that cannot be is told and left.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::Process;

fn write(file: &Path, expression: &str, partitions: u32) {
    let text = format!(
        "pipeline: watched\n\
         events: {{ sensor.reading: {{ payload: {{ value: double }} }} }}\n\
         topics: {{ sensor-events: {{ partitions: {partitions} }} }}\n\
         sources: {{ api: {{ http: {{}} }} }}\n\
         streams: {{ s: \"SELECT event_id, {expression} AS v FROM sensor.reading\" }}\n\
         sinks: {{ all: {{ projection: {{ from: s, key: [event_id] }} }} }}\n"
    );
    std::fs::write(file, text).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_taken_up_while_events_come() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("watched.yaml");
    write(&file, "value", 2);
    let log = folder.path().join("log");
    let told = std::fs::File::create(&log).expect("a file");
    let process = Process::start_telling(&file, &folder.path().join("data"), &["--watch"], told).await;
    let process = Arc::new(process);
    let stop = Arc::new(AtomicBool::new(false));
    let posting = tokio::spawn({
        let (process, stop) = (Arc::clone(&process), Arc::clone(&stop));
        async move {
            let (mut accepted, mut refused) = (0_u64, 0_u64);
            while !stop.load(Ordering::SeqCst) {
                let event = json!({"event_type": "sensor.reading", "aggregate_id": "d", "payload": {"value": 1}});
                // A connection may be cut between two requests; what was answered counts.
                let url = format!("{}/api/v1/events", process.ingest);
                match process.client.post(url).json(&event).send().await {
                    Ok(response) if response.status() == 202 => accepted += 1,
                    _ => refused += 1,
                }
            }
            (accepted, refused)
        }
    });
    let values = "SELECT DISTINCT v FROM all_rows".replace("all_rows", "\"all\"");
    process.sql_until(&values, |rows| rows == [json!({"v": 1.0})]).await;
    write(&file, "value * 2", 2);
    until(&process, &values, &json!({"v": 2.0})).await;
    // Broken, and then with another number of partitions: both are left, and the last good one goes on.
    write(&file, "vlaue", 2);
    says(&log, "the changed file has errors").await;
    write(&file, "value * 3", 3);
    says(&log, "the changed file cannot be taken up").await;
    assert_eq!(process.sql(&values).await, [json!({"v": 2.0})]);
    write(&file, "value * 4", 2);
    until(&process, &values, &json!({"v": 4.0})).await;
    stop.store(true, Ordering::SeqCst);
    let (accepted, refused) = posting.await.expect("posted");
    let stored = process.sql("SELECT count(*) AS n FROM sensor.reading").await[0]["n"].as_u64().expect("a count");
    assert!(accepted > 0 && stored >= accepted && stored <= accepted + refused, "{accepted} {refused} {stored}");
    let all = process.sql_until("SELECT count(*) AS n FROM \"all\"", |rows| rows == [json!({"n": stored})]).await;
    assert_eq!(all, [json!({"n": stored})]);
    process.assert_balanced().await;
}

/// Waits until the process has logged something.
async fn says(log: &Path, words: &str) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !std::fs::read_to_string(log).expect("a log").contains(words) {
        assert!(Instant::now() < deadline, "never said: {words}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until every row has this value. Between two rounds a request may fail.
async fn until(process: &Process, sql: &str, row: &serde_json::Value) {
    for _ in 0..1_200 {
        let answer =
            process.client.post(format!("{}/api/v1/sql", process.query)).json(&json!({"sql": sql})).send().await;
        if let Ok(answer) = answer
            && let Ok(answer) = answer.json::<serde_json::Value>().await
            && answer["rows"] == json!([row])
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never {row}");
}
