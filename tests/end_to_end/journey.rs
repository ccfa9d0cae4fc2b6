//! What a user does on the first day, and what the process promises around it.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::process::{Process, binary, example, output};

fn reading(device: &str, value: f64, unit: &str, time: &str) -> Value {
    let payload = json!({"value": value, "unit": unit});
    json!({"event_type": "sensor.reading", "aggregate_id": device, "event_time": time, "payload": payload})
}

#[tokio::test]
async fn an_event_is_read_back_as_a_projection_and_by_sql() {
    let data = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(&example(), data.path()).await;
    process.accept(&reading("d/1 ü", 20.0, "celsius", "2026-01-01T00:00:10Z")).await;
    process.accept(&reading("d/1 ü", 212.0, "fahrenheit", "2026-01-01T00:00:20Z")).await;
    let older = process.accept(&reading("d/1 ü", -5.0, "celsius", "2026-01-01T00:00:05Z")).await;

    // Reading one's own writes; an older event does not overwrite a newer one.
    let key = "d%2F1%20%C3%BC";
    let (status, row) = process.get(&format!("/api/v1/projections/sensor_state/{key}?after={older}&wait=5s")).await;
    assert_eq!(status, 200, "{row}");
    assert_eq!(row["projection_type"], "sensor_state");
    assert_eq!(row["aggregate_id"], "d/1 ü");
    assert_eq!(row["state"], json!({"value": 212.0, "unit": "fahrenheit"}));
    assert_eq!(row["last_event_timestamp"], "2026-01-01T00:00:20Z");
    let (status, page) = process.get("/api/v1/projections/sensor_state?limit=5&filter=unit%3Dfahrenheit").await;
    assert_eq!((status, &page["total"], &page["projections"][0]), (200, &json!(1), &row), "{page}");

    // An event a minute on closes the minute before.
    process.accept(&reading("d2", 1.0, "celsius", "2026-01-01T00:02:00Z")).await;
    let last = process.accept(&reading("d/1 ü", 1.0, "celsius", "2026-01-01T00:02:00Z")).await;
    let (status, row) =
        process.get(&format!("/api/v1/projections/device_minute/{key}/2026-01-01T00%3A00%3A00Z?after={last}")).await;
    assert_eq!(status, 200, "{row}");
    assert_eq!(row["state"]["readings"], 3);
    assert!((row["state"]["avg_celsius"].as_f64().expect("a number") - 115.0 / 3.0).abs() < 1e-9, "{row}");
    assert_eq!(row["last_event_id"], Value::Null);

    let rows = process.sql("SELECT event_type, count(*) AS n, max(value) AS most FROM sensor.reading GROUP BY 1").await;
    assert_eq!(rows, [json!({"event_type": "sensor.reading", "n": 5, "most": 212.0})]);
    let rows =
        process.sql("SELECT sum(end_offset) AS stored, sum(reflected_offset) AS seen FROM cornjacket.topics").await;
    assert_eq!(rows, [json!({"stored": 5, "seen": 5})]);
    let (status, events) = process.get("/api/v1/events?aggregate_id=d2&from=2026-01-01T00:02:00Z&limit=5").await;
    assert_eq!((status, events["truncated"].as_bool()), (200, Some(false)), "{events}");
    assert_eq!(events["events"][0]["payload"], json!({"value": 1.0, "unit": "celsius"}), "{events}");
    assert_eq!(events["events"].as_array().map(Vec::len), Some(1));
    let (status, found) = process.get(&format!("/api/v1/events/{last}")).await;
    assert_eq!((status, &found["event"]["aggregate_id"]), (200, &json!("d/1 ü")), "{found}");
    assert_eq!(found["trace"]["projections"], json!(["sensor_state"]), "{found}");
    assert_eq!((&found["trace"]["topic"], &found["trace"]["reflected"]), (&json!("sensor-events"), &json!(true)));
    let (status, problem) = process.get("/api/v1/events?event_type=sensor.raeding").await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_parameter")), "{problem}");
    let unknown = process.get("/api/v1/events/00000000-0000-7000-8000-000000000000").await;
    assert_eq!((unknown.0, &unknown.1["code"]), (404, &json!("event_not_found")));
    process.assert_balanced().await;
    assert_eq!(process.terminate().code(), Some(0));
    assert!(!data.path().join("ports.json").exists());

    let process = Process::start(&example(), data.path()).await;
    let rows = process.sql("SELECT aggregate_id, value FROM sensor_state ORDER BY aggregate_id").await;
    assert_eq!(rows, [json!({"aggregate_id": "d/1 ü", "value": 1.0}), json!({"aggregate_id": "d2", "value": 1.0})]);
    process.assert_balanced().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_clearly() {
    let data = tempfile::tempdir().expect("a folder");
    let process = Process::start(&example(), data.path()).await;
    let refused = [
        (
            json!({"event_type": "sensor.reading", "aggregate_id": "d", "payload": {"value": "x"}}),
            422,
            "invalid_payload",
        ),
        (json!({"event_type": "sensor.raeding", "aggregate_id": "d", "payload": {}}), 422, "unknown_event_type"),
        (reading("d", 1.0, "celsius", "2099-01-01T00:00:00Z"), 422, "too_far_ahead"),
        (json!([1, 2]), 400, "invalid_envelope"),
    ];
    for (event, status, code) in refused {
        let response = process.post(&event).await;
        let actual = response.status().as_u16();
        let body: Value = response.json().await.expect("JSON");
        assert_eq!((actual, &body["code"]), (status, &json!(code)), "{event}: {body}");
    }
    assert_eq!(
        process.get("/api/v1/projections/sensor_state/nobody").await,
        (404, json!({"error": "projection not found"}))
    );
    assert_eq!(process.get("/api/v1/projections/nothing").await, (404, json!({"error": "projection not found"})));
    let unknown = "00000000-0000-7000-8000-000000000000";
    let (status, body) = process.get(&format!("/api/v1/projections/sensor_state?after={unknown}")).await;
    assert_eq!((status, &body["code"]), (404, &json!("event_not_found")));
    let (status, body) = process.sql_answer("SELECT nothing FROM sensor_state").await;
    assert_eq!((status, &body["code"]), (400, &json!("invalid_sql")), "{body}");
    let (status, body) = process.sql_answer("DROP TABLE sensor_state").await;
    assert_eq!((status, &body["code"]), (400, &json!("read_only")), "{body}");
    assert_eq!(process.get("/health").await, (200, json!({"status": "healthy"})));
    assert_eq!(process.get("/nowhere").await.0, 404);
    let metrics = process.client.get(format!("{}/metrics", process.ingest)).send().await.expect("answers");
    assert!(metrics.text().await.expect("text").contains("cornjacket_events_rejected_total"));

    // The same id again is the same event.
    let id = "6f1c1f6e-94a4-4d1c-9f0f-0d4f3d1d7c11";
    let mut event = reading("d", 1.0, "celsius", "2026-01-01T00:00:00Z");
    event["event_id"] = json!(id);
    assert_eq!(process.accept(&event).await, id);
    assert_eq!(process.accept(&event).await, id);
    assert_eq!(process.sql("SELECT count(*) AS n FROM sensor.reading").await, [json!({"n": 1})]);
    process.assert_balanced().await;
}

#[tokio::test]
async fn one_process_holds_a_data_folder_and_the_command_line_finds_it() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().to_str().expect("UTF-8");
    let nobody = output(&["query", "SELECT 1", "--data-dir", folder]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("cornjacket run"));

    let process = Process::start(&example(), data.path()).await;
    let second =
        binary().arg("run").arg(example()).args(["--data-dir", folder]).stdin(Stdio::null()).output().expect("runs");
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is in use by another cornjacket"));

    let last = process.accept(&reading("d1", 1.5, "celsius", "2026-01-01T00:00:00Z")).await;
    process.get(&format!("/api/v1/projections/sensor_state/d1?after={last}")).await;
    let sql = "SELECT aggregate_id, value FROM sensor_state";
    let answer = output(&["query", sql, "--data-dir", folder]);
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "{\"aggregate_id\":\"d1\",\"value\":1.5}\n");
    assert_eq!(output(&["query", "SELECT", "--data-dir", folder]).status.code(), Some(1));
    let audit = output(&["audit", "--data-dir", folder]);
    assert_eq!(audit.status.code(), Some(0), "{}", String::from_utf8_lossy(&audit.stdout));
}

#[test]
fn a_wrong_file_is_told_with_its_place_and_exit_code_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.yaml");
    let text = std::fs::read_to_string(example())
        .expect("the example")
        .replace("sql_file: ../sql/device_minute.sql", "sql: SELECT vlaue FROM sensor.reading");
    std::fs::write(&file, text).expect("written");
    let told = output(&["run", file.to_str().expect("UTF-8"), "--data-dir", folder.path().to_str().expect("UTF-8")]);
    assert_eq!(told.status.code(), Some(1));
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(text.contains("CJ208") && text.contains("did you mean `value`") && text.contains("wrong.yaml:"), "{text}");
}
