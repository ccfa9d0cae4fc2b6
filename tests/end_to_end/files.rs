//! Runs over files: they end, with every line in them once, whatever happens on the way.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::process::{Process, binary, number, variable};

/// A reading of a file.
struct Reading {
    device: String,
    micros: i64,
    value: f64,
}

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600_000_000;

fn readings(count: i64) -> Vec<Reading> {
    let reading = |n: i64| Reading {
        device: format!("d{}", n % 7),
        micros: START + n * 50_000,
        value: f64::from(i32::try_from(n * 37 % 1_000).expect("small")) / 8.0,
    };
    (0..count).map(reading).collect()
}

const EVENT: &str =
    "event: { type: sensor.reading, aggregate_id: \"${payload.device}\", event_time: \"${payload.ts}\" }";

fn pipeline(folder: &Path, source: &str) -> PathBuf {
    let text = format!(
        "pipeline: batch\n\
         events:\n  sensor.reading: {{ payload: {{ value: double }} }}\n\
         sources:\n  import: {{ file: {{ path: {source}, {EVENT} }} }}\n\
         streams:\n  minutes: |\n    \
           SELECT device, window.start AS window_start, n, total FROM (SELECT tumble(interval '1 minute') AS window,\n    \
           aggregate_id AS device, count(*) AS n, sum(value) AS total FROM sensor.reading GROUP BY window, device)\n\
         sinks:\n  out: {{ file: {{ from: minutes, path: out.ndjson }} }}\n  \
           newest: {{ projection: {{ from: sensor.reading, key: [aggregate_id] }} }}\n"
    );
    let file = folder.join("batch.yaml");
    std::fs::write(&file, text).expect("written");
    file
}

fn ndjson(readings: &[Reading]) -> String {
    readings.iter().fold(String::new(), |mut text, Reading { device, micros, value }| {
        let _ = writeln!(text, "{}", json!({"device": device, "ts": micros, "value": value}));
        text
    })
}

fn run(pipeline: &Path, data: &Path) -> Child {
    let quiet = ["--log-level", "warn", "--data-dir"];
    let mut command = binary();
    command.arg("run").arg(pipeline).args(quiet).arg(data);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// Runs to the end; gives what it said.
fn run_through(pipeline: &Path, data: &Path) -> String {
    let output = run(pipeline, data).wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

/// The lines of the result, in no order that means anything; none may be there twice.
fn result(folder: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(folder.join("out.ndjson")).expect("a result");
    assert!(text.ends_with('\n') || text.is_empty(), "whole lines");
    let lines: BTreeSet<String> = text.lines().map(str::to_string).collect();
    assert_eq!(lines.len(), text.lines().count(), "a line is there twice");
    lines
}

/// What the windows must hold: every minute of every device, the last one too.
fn expected(readings: &[Reading]) -> BTreeSet<String> {
    let mut windows: std::collections::BTreeMap<(&str, i64), (u64, f64)> = std::collections::BTreeMap::new();
    for Reading { device, micros, value } in readings {
        let window = windows.entry((device, micros.div_euclid(60_000_000))).or_default();
        *window = (window.0 + 1, window.1 + value);
    }
    let line = |((device, minute), (n, total)): ((&str, i64), (u64, f64))| {
        let time = cornjacket_core::time::format_rfc3339(minute * 60_000_000);
        format!(
            "{{\"op\":\"insert\",\"device\":\"{device}\",\"window_start\":\"{time}\",\"n\":{n},\"total\":{total:?}}}"
        )
    };
    windows.into_iter().map(line).collect()
}

#[test]
fn every_format_gives_the_same_and_a_second_run_adds_nothing() {
    let readings = readings(9_000);
    let csv = readings.iter().fold("device,ts,value\n".to_string(), |mut text, Reading { device, micros, value }| {
        let _ = writeln!(text, "{device},{micros},{value}");
        text
    });
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new(StringArray::from_iter_values(readings.iter().map(|r| &r.device)))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(readings.iter().map(|r| r.micros)))),
        ("value", Arc::new(Float64Array::from_iter_values(readings.iter().map(|r| r.value)))),
    ];
    let rows = RecordBatch::try_from_iter(columns).expect("rows");
    let mut parquet = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut parquet, rows.schema(), None).expect("a writer");
    writer.write(&rows).and_then(|()| writer.close().map(|_| ())).expect("written");
    for (name, bytes) in
        [("in.ndjson", ndjson(&readings).into_bytes()), ("in.csv", csv.into_bytes()), ("in.parquet", parquet)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(name), bytes).expect("written");
        let (file, data) = (pipeline(folder.path(), name), folder.path().join("data"));
        assert!(run_through(&file, &data).contains("import: 9000 events stored"), "{name}");
        assert_eq!(result(folder.path()), expected(&readings), "{name}");
        assert!(run_through(&file, &data).contains("import: 0 events stored"), "{name}");
        assert_eq!(result(folder.path()), expected(&readings), "{name}");
    }
}

/// `kill -9` at any moment, again and again, until a run comes through.
#[tokio::test]
async fn a_killed_import_goes_on_and_ends_as_if_nothing_had_happened() {
    let seed = variable("SEED").unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut killed = 0;
    for round in 0..number("KILLS", 30).div_ceil(10) {
        let readings = readings(120_000);
        let folder = tempfile::tempdir().expect("a folder");
        let half = readings.len() / 2;
        std::fs::write(folder.path().join("in-a.ndjson"), ndjson(&readings[..half])).expect("written");
        std::fs::write(folder.path().join("in-b.ndjson"), ndjson(&readings[half..])).expect("written");
        let (file, data) = (pipeline(folder.path(), "\"in-*.ndjson\""), folder.path().join("data"));
        for _ in 0..10 {
            let mut child = run(&file, &data);
            std::thread::sleep(Duration::from_millis(random.random_range(20..400)));
            if child.try_wait().expect("a child").is_some() {
                break;
            }
            child.kill().expect("kill -9");
            child.wait().expect("ended");
            killed += 1;
        }
        run_through(&file, &data);
        assert_eq!(result(folder.path()), expected(&readings), "round {round}");
        Process::start_with(&file, &data, &["--stay"]).await.assert_balanced().await;
    }
    println!("{killed} kills");
}

#[tokio::test]
async fn wrong_lines_are_dead_letters_with_their_place_and_grown_or_replaced_files_are_read_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("in.ndjson");
    let (file, data) = (pipeline(folder.path(), "in.ndjson"), folder.path().join("data"));
    let good = |value: f64| format!("{{\"device\":\"d1\",\"ts\":1767225600,\"value\":{value}}}\n");
    let long = format!("{{\"device\":\"{}\"}}\n", "x".repeat(2 << 20));
    let mut text = format!("\u{feff}{}\n\r\n[1]\n{{\"value\":1}}\n{}", good(1.0).trim_end(), long);
    text += &good(2.0);
    std::fs::write(&input, text.as_bytes()).expect("written");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"{\"device\":\"\xff\"}\n");
    bytes.extend_from_slice(good(3.0).trim_end().as_bytes());
    std::fs::write(&input, &bytes).expect("written");
    assert!(run_through(&file, &data).contains("import: 3 events stored, 4 wrong, kept as dead letters"));

    bytes.push(b'\n');
    bytes.extend_from_slice(good(4.0).as_bytes());
    std::fs::write(&input, &bytes).expect("written");
    assert!(run_through(&file, &data).contains("import: 1 event stored"));
    std::fs::write(&input, good(5.0).as_bytes()).expect("written");
    assert!(run_through(&file, &data).contains("import: 1 event stored"));

    let process = Process::start_with(&file, &data, &["--stay"]).await;
    let rows = process.sql("SELECT count(*) AS n, sum(value) AS total FROM sensor.reading").await;
    assert_eq!(rows, [json!({"n": 5, "total": 15.0})]);
    let rows =
        process.sql("SELECT reason, place FROM cornjacket.dead_letters WHERE source = 'import' ORDER BY place").await;
    let place = |line: u32, reason: &str| json!({"reason": reason, "place": format!("in.ndjson:{line}")});
    let expected: Vec<Value> =
        vec![place(3, "validation"), place(4, "validation"), place(5, "decode"), place(7, "decode")];
    assert_eq!(rows, expected);
    process.assert_balanced().await;
}

#[test]
fn what_cannot_be_read_or_written_is_said_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, data) = (pipeline(folder.path(), "in.ndjson"), folder.path().join("data"));
    let fail = |expected: &str| {
        let output = run(&file, &data).wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    fail("in.ndjson does not exist");
    std::fs::write(folder.path().join("in.ndjson"), ndjson(&readings(10))).expect("written");
    std::fs::remove_dir_all(&data).expect("removed");
    std::fs::write(folder.path().join("out.ndjson"), "mine\n").expect("written");
    fail("this pipeline's data folder did not write it");
    assert_eq!(std::fs::read_to_string(folder.path().join("out.ndjson")).expect("there"), "mine\n");
}
