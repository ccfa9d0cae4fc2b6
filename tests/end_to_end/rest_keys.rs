//! Rows of projections by their key over HTTP: keys are values of their columns' types, so a row is found however its key is
//! written, and what is no value of the type is told.

use reqwest::Url;
use serde_json::{Value, json};

use crate::process::Process;

const PIPELINE: &str = "
pipeline: keys
events:
  thing.seen:
    payload:
      t: { type: string, optional: true }
      b: { type: bigint, optional: true }
      i: { type: int, optional: true }
      d: { type: double, optional: true }
      f: { type: float, optional: true }
      at: { type: timestamp, optional: true }
      yes: { type: boolean, optional: true }
sources: { api: { http: {} } }
streams:
  made: SELECT event_id, aggregate_id, b, CAST(d AS decimal(12, 2)) AS price, CAST(at AS date) AS day FROM thing.seen
sinks:
  by_text: { projection: { from: thing.seen, key: [t] } }
  by_bigint: { projection: { from: thing.seen, key: [b] } }
  by_int: { projection: { from: thing.seen, key: [i] } }
  by_double: { projection: { from: thing.seen, key: [d] } }
  by_float: { projection: { from: thing.seen, key: [f] } }
  by_time: { projection: { from: thing.seen, key: [at] } }
  by_boolean: { projection: { from: thing.seen, key: [yes] } }
  by_id: { projection: { from: made, key: [event_id] } }
  by_price: { projection: { from: made, key: [price] } }
  by_day: { projection: { from: made, key: [day] } }
  by_two: { projection: { from: thing.seen, key: [t, b] } }
  by_three: { projection: { from: thing.seen, key: [at, yes, d] } }
";

/// A process with one event for each of these payloads; gives the last id.
async fn started(folder: &tempfile::TempDir, payloads: &[Value]) -> (Process, String) {
    let pipeline = folder.path().join("keys.yaml");
    std::fs::write(&pipeline, PIPELINE).expect("written");
    let process = Process::start(&pipeline, &folder.path().join("data")).await;
    let mut last = String::new();
    for payload in payloads {
        last = process.accept(&json!({"event_type": "thing.seen", "aggregate_id": "a", "payload": payload})).await;
    }
    let (status, answer) = process.get(&format!("/api/v1/projections?after={last}&wait=30s")).await;
    assert_eq!(status, 200, "{answer}");
    (process, last)
}

/// Each of these paths is answered with the row of a key.
async fn found(process: &Process, table: &str, paths: &[&str], key: &str) {
    for path in paths {
        let (status, row) = process.get(&format!("/api/v1/projections/{table}/{path}")).await;
        assert_eq!((status, &row["aggregate_id"]), (200, &json!(key)), "{table}/{path}: {row}");
    }
}

async fn missing(process: &Process, table: &str, paths: &[&str]) {
    for path in paths {
        let (status, answer) = process.get(&format!("/api/v1/projections/{table}/{path}")).await;
        assert_eq!((status, answer), (404, json!({"error": "projection not found"})), "{table}/{path}");
    }
}

/// Each of these paths is refused with words that name the column and its type.
async fn refused(process: &Process, table: &str, paths: &[&str], words: &str) {
    for path in paths {
        let (status, answer) = process.get(&format!("/api/v1/projections/{table}/{path}")).await;
        let told = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && told.contains(words), "{table}/{path}: {status} {answer}");
    }
}

#[tokio::test]
async fn numbers_are_found_however_they_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let payloads = [json!({"b": 1, "i": 1000, "d": 1.0, "f": 0.1}), json!({"b": -7, "i": 0, "d": -0.0, "f": 2})];
    let (process, _) = started(&folder, &payloads).await;
    found(&process, "by_bigint", &["1", "1.0", "+1", "%2B1", "01", "1e0", "10e-1", "1?wait=1s"], "1").await;
    found(&process, "by_bigint", &["-7", "-7.000", "-0.7e1"], "-7").await;
    found(&process, "by_int", &["1000", "1e3", "1E3", "1000.0"], "1000").await;
    found(&process, "by_int", &["0", "-0", "0.0", "-0.0"], "0").await;
    found(&process, "by_double", &["1", "1.0", "+1", "1e0", "1.00"], "1.0").await;
    found(&process, "by_double", &["0", "-0", "0.0", "-0.0", "0e5"], "0.0").await;
    found(&process, "by_float", &["0.1", "1e-1", "0.10", ".1"], "0.1").await;
    found(&process, "by_price", &["1", "1.0", "1.00", "%2B1.000", "1e0"], "1.00").await;
    found(&process, "by_price", &["0", "-0.0"], "0.00").await;
    missing(&process, "by_bigint", &["2", "1e1", "~"]).await;
    missing(&process, "by_double", &["1.0000001", "NaN"]).await;
    refused(&process, "by_bigint", &["one", "1.5", "", "1/1", "9223372036854775808", "NaN"], "`b` is of type bigint")
        .await;
    refused(&process, "by_int", &["2147483648", "0x10"], "`i` is of type int").await;
    refused(&process, "by_double", &["warm", "1,5", "1e999"], "`d` is of type double").await;
    refused(&process, "by_price", &["cheap"], "`price` is of type decimal").await;
    // Filters read values in the same way.
    for (filter, n) in [("b%3D1.0", 1), ("b%3D%2B1", 1), ("b%3D2", 0), ("d%3D-0", 1), ("d%3D1e0", 1)] {
        let (_, page) = process.get(&format!("/api/v1/projections/by_bigint?filter={filter}")).await;
        assert_eq!(page["total"], n, "{filter}: {page}");
    }
    refused(&process, "by_bigint?filter=b%3Done&x=", &[""], "`b` is of type bigint").await;
    process.assert_balanced().await;
}

/// Both zeros are one key: the newer event's row replaces the older one's.
#[tokio::test]
async fn both_zeros_are_one_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let payloads =
        [json!({"d": -0.0, "t": "first"}), json!({"d": 0.0, "t": "second"}), json!({"d": -0.0, "t": "third"})];
    let (process, _) = started(&folder, &payloads).await;
    let (_, page) = process.get("/api/v1/projections/by_double").await;
    assert_eq!(page["total"], 1, "{page}");
    for path in ["0", "-0.0"] {
        let (_, row) = process.get(&format!("/api/v1/projections/by_double/{path}")).await;
        assert_eq!(row["state"]["t"], "third", "{row}");
    }
    process.assert_balanced().await;
}

#[tokio::test]
async fn times_booleans_days_and_ids_are_found_however_they_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let payloads = [
        json!({"at": "2026-01-01T12:00:00.25Z", "yes": true, "d": 2.5}),
        json!({"at": "2026-01-02T00:00:00Z", "yes": false, "d": 0}),
    ];
    let (process, id) = started(&folder, &payloads).await;
    let quarter = [
        "2026-01-01T12:00:00.25Z",
        "2026-01-01T12:00:00.250000Z",
        "2026-01-01T12%3A00%3A00.250%2B00%3A00",
        "2026-01-01T14:00:00.250+02:00",
        "2026-01-01T06:30:00.25-05:30",
        "2026-01-01t12:00:00.25z",
        "2026-01-01%2012:00:00.250",
    ];
    found(&process, "by_time", &quarter, "2026-01-01T12:00:00.250Z").await;
    missing(&process, "by_time", &["2026-01-01T12:00:00Z"]).await;
    refused(&process, "by_time", &["", "noon", "2026-02-30T00:00:00Z"], "`at` is of type timestamp").await;
    found(&process, "by_boolean", &["true", "TRUE", "True"], "true").await;
    refused(&process, "by_boolean", &["", "maybe"], "`yes` is of type boolean").await;
    found(&process, "by_day", &["2026-01-02"], "2026-01-02").await;
    refused(&process, "by_day", &["", "2026-02-30", "today"], "`day` is of type date").await;
    found(&process, "by_id", &[&id, &id.to_uppercase()], &id).await;
    missing(&process, "by_id", &["nobody", "00000000-0000-7000-8000-000000000000"]).await;
    let three = ["2026-01-01T13:00:00.25+01:00/True/25e-1", "2026-01-01T12:00:00.250Z/true/2.50"];
    found(&process, "by_three", &three, "2026-01-01T12:00:00.250Z/true/2.5").await;
    refused(&process, "by_three", &["2026-01-01T12:00:00Z/true"], "3 values (at, yes, d), and the path has 2").await;
}

#[tokio::test]
async fn any_text_is_found_the_empty_one_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let texts =
        ["", "a/b", "100%", "%41", "grün ☃", "~", "a b", "a+b", "?x=1#y", "changes", "\\\"'", "A", "a", "/", " "];
    let payloads: Vec<Value> = texts.iter().map(|text| json!({"t": text, "b": 5})).chain([json!({"b": 6})]).collect();
    let (process, _) = started(&folder, &payloads).await;
    for text in texts {
        let encoded = text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02x}"));
        found(&process, "by_text", &[&encoded], text).await;
        found(&process, "by_two", &[&format!("{encoded}/5"), &format!("{encoded}/5.0")], &format!("{text}/5")).await;
        // As a client's library writes it: a value is one segment of the path.
        let mut url = Url::parse(&process.query).expect("a URL");
        url.path_segments_mut().expect("a base").extend(["api", "v1", "projections", "by_two", text, "5"]);
        if text != "~" {
            let answer = process.client.get(url).send().await.expect("answers");
            assert_eq!(answer.status(), 200, "{text}");
        }
    }
    // A key of one column may have its `/` as it is, and null is `~`.
    found(&process, "by_text", &["a/b"], "a/b").await;
    found(&process, "by_text", &["a+b"], "a+b").await;
    missing(&process, "by_text", &["nobody", "a/b/", "b", "a%20+b"]).await;
    refused(&process, "by_text", &["%zz", "%ff", "%"], "percent-encoded").await;
    found(&process, "by_two", &["~/6"], "~/6").await;
    refused(&process, "by_two", &["a/b/5", "a", ""], "2 values (t, b)").await;
    process.assert_balanced().await;
}
