//! `cornjacket explain`: of a file, and with `--watermarks` of a process that runs.

use std::path::Path;

use serde_json::{Value, json};

use crate::process::{Process, example, output};

const PIPELINE: &str = "
pipeline: halls
events:
  sensor.reading:
    payload: { value: double }
    watermark: { delay: 5s, idle: 1h }
topics: { sensor-events: { partitions: 2 } }
sources: { api: { http: {} } }
streams:
  minutes: >
    SELECT window.start AS minute, device, n FROM (SELECT tumble(interval '1 minute') AS window, aggregate_id AS device,
    count(*) AS n FROM sensor.reading GROUP BY window, device)
sinks:
  device_minute: { projection: { from: minutes, key: [device, minute] } }
";

fn reading(device: &str, time: &str) -> Value {
    json!({"event_type": "sensor.reading", "aggregate_id": device, "event_time": time, "payload": {"value": 1.0}})
}

/// What `explain --watermarks` says, and its lines of JSON.
fn watermarks(data: &Path, more: &[&str]) -> String {
    let folder = data.to_str().expect("UTF-8");
    let told = output(&[&["explain", "--watermarks", "--data-dir", folder], more].concat());
    assert_eq!(told.status.code(), Some(0), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).expect("UTF-8")
}

fn line(told: &str, name: &str) -> Value {
    let lines = told.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.into_iter().find(|line| line["node"] == name).unwrap_or_else(|| panic!("no {name} in {told}"))
}

async fn seen(process: &Process, events: u64) {
    let sql = "SELECT sum(reflected_offset) AS n FROM cornjacket.topics";
    process.sql_until(sql, |rows| rows[0]["n"] == json!(events)).await;
}

/// Posts readings of other devices until one falls into the other partition; gives their number and that device.
async fn reach_other_partition(process: &Process, time: &str) -> (u64, String) {
    for number in 1..50 {
        let device = format!("other-{number}");
        process.accept(&reading(&device, time)).await;
        seen(process, 1 + number).await;
        if process.sql("SELECT partition FROM cornjacket.clocks").await.len() == 2 {
            return (number, device);
        }
    }
    panic!("fifty devices in one partition");
}

#[tokio::test]
async fn the_partition_that_holds_time_back_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, data) = (folder.path().join("halls.yaml"), folder.path().join("data"));
    std::fs::write(&file, PIPELINE).expect("written");
    let process = Process::start(&file, &data).await;
    assert!(watermarks(&data, &["--format", "text"]).contains("no clock runs"));

    // A device reports once and falls silent; the others go on, and those of the same partition are not among them.
    process.accept(&reading("quiet", "2026-01-01T10:00:30Z")).await;
    seen(&process, 1).await;
    let quiet = process.sql("SELECT partition FROM cornjacket.clocks").await[0]["partition"].clone();
    let (others, device) = reach_other_partition(&process, "2026-01-01T10:00:20Z").await;
    process.accept(&reading(&device, "2026-01-01T10:02:00Z")).await;
    seen(&process, 2 + others).await;

    let told = watermarks(&data, &[]);
    let window = line(&told, "minutes/2");
    assert_eq!(window["waits_for"], "2026-01-01T10:01:00Z", "{told}");
    assert_eq!(window["watermark"], "2026-01-01T10:00:25Z", "{told}");
    assert_eq!((&window["held_by"]["partition"], &window["held_by"]["silent"]), (&quiet, &json!(false)), "{told}");
    assert_eq!(window["held_by"]["clock"], "2026-01-01T10:00:25Z", "{told}");
    assert_eq!(line(&told, "device_minute")["waits_for"], Value::Null, "{told}");
    let says = window["says"].as_str().expect("a sentence");
    let named = format!(
        "minutes/2 waits until 2026-01-01 10:01:00 to close its oldest window; its watermark is 2026-01-01 10:00:25, held \
         by sensor.reading partition {quiet} (last row "
    );
    assert!(says.starts_with(&named) && says.contains("counts as silent in 59 min"), "{says}");
    assert!(says.contains("It is 1 min 30 s behind partition "), "{says}");
    assert!(says.contains("If no row comes, it closes at "), "{says}");

    let text = watermarks(&data, &["--format", "text", file.to_str().expect("UTF-8")]);
    assert!(text.contains(&named) && text.contains("oldest window closes at"), "{text}");

    // As soon as it reports again, the window closes and the next one waits for the other partition.
    process.accept(&reading("quiet", "2026-01-01T10:05:30Z")).await;
    seen(&process, 3 + others).await;
    let window = line(&watermarks(&data, &["--json"]), "minutes/2");
    assert_eq!(window["waits_for"], "2026-01-01T10:03:00Z", "{window}");
    assert_ne!(window["held_by"]["partition"], quiet, "{window}");

    let folder = data.to_str().expect("UTF-8");
    let other = example();
    let other = output(&["explain", other.to_str().expect("UTF-8"), "--watermarks", "--data-dir", folder]);
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stderr).contains("`halls`"));
    assert_eq!(output(&["explain", "--watermarks", "--format", "dot", "--data-dir", folder]).status.code(), Some(1));
    process.assert_balanced().await;
}

#[test]
fn a_file_is_explained_in_four_forms_and_a_wrong_one_is_told() {
    let example = example();
    let example = example.to_str().expect("UTF-8");
    let beginnings =
        [("text", "pipeline iot\n"), ("mermaid", "flowchart TD\n"), ("dot", "digraph \"iot\" {"), ("json", "{\n")];
    for (format, begins) in beginnings {
        let told = output(&["explain", example, "--format", format]);
        let text = String::from_utf8_lossy(&told.stdout);
        assert_eq!(told.status.code(), Some(0), "{text}");
        assert!(text.starts_with(begins) && text.contains("device_minute"), "{text}");
    }
    let json: Value = serde_json::from_slice(&output(&["explain", example, "--json"]).stdout).expect("JSON");
    assert_eq!(json["pipeline"], "iot");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.yaml");
    std::fs::write(&file, PIPELINE.replace("from: minutes", "from: minuts")).expect("written");
    let told = output(&["explain", file.to_str().expect("UTF-8")]);
    assert_eq!((told.status.code(), told.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&told.stderr).contains("CJ404"));
    assert_eq!(output(&["explain"]).status.code(), Some(1));
    let data = folder.path().to_str().expect("UTF-8");
    assert_eq!(output(&["explain", "--watermarks", "--data-dir", data]).status.code(), Some(2));
}
