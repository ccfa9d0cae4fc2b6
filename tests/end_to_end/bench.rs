//! `cornjacket bench`: what it measures adds up, and it leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process::{Process, binary, example, output};

/// Rules of every kind, and an event type that nothing reads.
const PIPELINE: &str = "
pipeline: orders
events:
  order.placed:
    payload:
      count: { type: int, min: 1, max: 3 }
      colour: { type: string, one_of: [red, green] }
      code: { type: string, pattern: '[A-Z]{3}-[0-9]{2,4}' }
      note: { type: string, optional: true, max_length: 5 }
      place: { city: string, at: timestamp }
    unknown_fields: reject
  order.forgotten: { payload: { price: double } }
sources: { api: { http: {} } }
streams: { few: 'SELECT aggregate_id AS who, count, colour FROM order.placed WHERE count = 1' }
sinks:
  newest: { projection: { from: order.placed, key: [aggregate_id] } }
  single: { projection: { from: few, key: [who] } }
";

const SMALL: [&str; 4] = ["--connections", "4", "--keys", "50"];

fn bench(pipeline: &Path, data: &Path, more: &[&str]) -> Command {
    let mut command = binary();
    command.arg("bench").arg(pipeline).arg("--data-dir").arg(data).args(SMALL).args(more);
    for (flag, value) in [("--seconds", "1"), ("--batch", "500")] {
        if !more.contains(&flag) {
            command.args([flag, value]);
        }
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it in a task of its own, beside what the test serves.
async fn measured(pipeline: &Path, data: &Path, more: &[&str]) -> Value {
    let mut command = bench(pipeline, data, more);
    let output = tokio::task::spawn_blocking(move || command.output().expect("runs")).await.expect("a task");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn assert_measured(load: &Value) {
    for name in ["events", "events_per_second", "bytes_per_second", "p50_ms", "p99_ms", "max_ms"] {
        assert!(number(&load[name]) > 0.0, "{name}: {load}");
    }
    assert!(number(&load["p50_ms"]) <= number(&load["p99_ms"]) && number(&load["p99_ms"]) <= number(&load["max_ms"]));
}

fn assert_accounted_for(report: &Value) {
    assert_eq!((&report["audit"]["balanced"], &report["audit"]["wrong"]), (&json!(true), &json!([])), "{report}");
    assert!(number(&report["audit"]["checks"]) > 0.0);
    assert_eq!(report["audit"]["stored"], report["accepted"], "{report}");
    assert_eq!((&report["rejected"], &report["dead_letters"]["count"]), (&json!(0), &json!(0)), "{report}");
    let measured: u64 = ["single", "batches", "paced"].iter().filter_map(|load| report[load]["events"].as_u64()).sum();
    assert!(report["accepted"].as_u64().expect("a number") > measured, "the warming up comes on top");
    assert!(report["catch_up_seconds"].is_f64(), "{report}");
}

/// What it made in a folder and has not removed.
fn left_behind(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_its_own_is_measured_and_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = measured(&example(), &folder.path().join("data"), &["--rate", "200"]).await;
    assert_eq!((&report["pipeline"], &report["url"]), (&json!("iot"), &Value::Null));
    assert_eq!(report["event_types"], json!(["sensor.reading", "user.login"]));
    assert!(number(&report["disk"]["syncs_per_second"]) > 0.0 && number(&report["disk"]["p50_ms"]) > 0.0);
    for load in ["single", "batches", "paced"] {
        assert_measured(&report[load]);
    }
    assert_eq!((&report["paced"]["events"], &report["paced"]["rate"]), (&json!(200), &json!(200)));
    assert!(number(&report["batches"]["cpu_seconds_per_million"]) > 0.0, "{report}");
    assert!(number(&report["memory"]["peak_bytes"]) >= number(&report["memory"]["resident_bytes"]));
    assert_accounted_for(&report);
    assert_eq!(left_behind(folder.path()), Vec::<PathBuf>::new());
    assert!(!folder.path().join("data").exists(), "the user's folder is not touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_runs_has_exactly_the_accepted_events() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = (folder.path().join("orders.yaml"), folder.path().join("data"));
    std::fs::write(&pipeline, PIPELINE).expect("written");
    let process = Process::start(&pipeline, &data).await;
    let (url, query_url) = (process.ingest.clone(), process.query.clone());
    let no_data = folder.path().join("elsewhere");
    // The query service is found by its URL, or in the data folder.
    let by_url = measured(&pipeline, &no_data, &["--url", &url, "--query-url", &query_url, "--rate", "0"]).await;
    let by_folder = measured(&pipeline, &data, &["--url", &url, "--event-type", "order.placed"]).await;
    let unknown = bench(&pipeline, &no_data, &["--url", &url]).output().expect("runs");
    let text = String::from_utf8_lossy(&unknown.stderr);
    assert!(unknown.status.code() == Some(1) && text.contains("--query-url"), "{text}");
    for report in [&by_url, &by_folder] {
        assert_eq!(report["url"], json!(url));
        assert_measured(&report["single"]);
        assert_measured(&report["batches"]);
        assert_accounted_for(report);
        assert_eq!((&report["disk"], &report["memory"]), (&Value::Null, &Value::Null));
    }
    assert_eq!((&by_url["paced"], &by_folder["event_types"]), (&Value::Null, &json!(["order.placed"])));
    let accepted = number(&by_url["accepted"]) + number(&by_folder["accepted"]);
    let (_, audit) = process.get("/api/v1/audit").await;
    let log = audit["checks"].as_array().expect("checks").iter().filter(|check| check["check"] == "log");
    assert!((log.map(|check| number(&check["left"])).sum::<f64>() - accepted).abs() < 0.5, "{accepted}: {audit}");
    let keys = process.sql("SELECT count(*) AS n FROM newest").await;
    assert_eq!(keys, [json!({"n": 50})]);
    process.assert_balanced().await;
}

/// A key that may hand in few events a second is told to wait, which is no error, and what was accepted is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_rates_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data, keys) =
        (folder.path().join("orders.yaml"), folder.path().join("data"), folder.path().join("keys.txt"));
    std::fs::write(&pipeline, PIPELINE).expect("written");
    let hash = Sha256::digest(b"a key").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    std::fs::write(&keys, format!("bench {hash} ingest,query rate=300/s\n")).expect("written");
    let process = Process::start_with(&pipeline, &data, &["--api-keys-file", keys.to_str().expect("UTF-8")]).await;
    let more = ["--url", &process.ingest, "--query-url", &process.query, "--batch", "100"];
    let nobody = bench(&pipeline, &data, &more).output().expect("runs");
    let text = String::from_utf8_lossy(&nobody.stderr);
    assert!(nobody.status.code() == Some(1) && text.contains("a key is needed"), "{text}");
    let report = measured(&pipeline, &data, &[&more[..], &["--api-key", "a key"]].concat()).await;
    assert_accounted_for(&report);
    assert!(number(&report["put_off"]) > 0.0, "{report}");
}

#[test]
fn what_cannot_be_measured_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("wrong.yaml");
    let hook = "\n  hook: { webhook: { from: few, url: 'http://127.0.0.1:9/' } }\n";
    let out = "\n  out: { file: { from: few, path: out.ndjson, format: ndjson } }\n";
    let http = "api: { http: {} }";
    for (yaml, more, wrong) in [
        (PIPELINE.replace(http, "api: { mqtt: { topics: ['a'] } }"), vec![], "add `api: { http: {} }`"),
        (PIPELINE.to_owned() + hook, vec![], "the sink `hook` would call its URL"),
        (PIPELINE.to_owned() + out, vec![], "--allow-outside"),
        (PIPELINE.to_owned(), vec!["--event-type", "order.plced"], "which has order.forgotten, order.placed"),
        (PIPELINE.replace("max_length: 5", "max_length: 1, pattern: '[a-z]{3}'"), vec![], "order.placed.note"),
        (PIPELINE.replace("from: few", "from: fw"), vec![], "CJ"),
        (PIPELINE.to_owned(), vec!["--seconds", "0"], "--seconds"),
    ] {
        std::fs::write(&path, yaml).expect("written");
        let output = bench(&path, &folder.path().join("data"), &more).output().expect("runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(wrong), "{wrong}: {text}");
        assert_eq!(left_behind(folder.path()), Vec::<PathBuf>::new());
    }
    let nobody = ["--url", "http://127.0.0.1:1", "--query-url", "http://127.0.0.1:1"];
    std::fs::write(&path, PIPELINE).expect("written");
    let output = bench(&path, &folder.path().join("data"), &nobody).output().expect("runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn help_teaches() {
    let text = String::from_utf8(output(&["bench", "--help"]).stdout).expect("UTF-8");
    for expected in ["--connections", "--query-url", "Examples:", "Exit codes:", "[default: 10000]"] {
        assert!(text.contains(expected), "{expected}");
    }
}

/// The ports of the process that is being measured, once it listens.
fn port_of_measured(folder: &Path) -> (PathBuf, u16) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        assert!(Instant::now() < deadline, "it did not start");
        for made in left_behind(folder) {
            let ports = std::fs::read_to_string(made.join("data/ports.json")).unwrap_or_default();
            let port = serde_json::from_str::<Value>(&ports).ok().and_then(|ports| ports["ingest"].as_u64());
            if let Some(port) = port {
                return (made, u16::try_from(port).expect("a port"));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that dies is no figure: the command says how it ended, and with what words.
#[test]
fn a_process_that_dies_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let child = bench(&example(), &folder.path().join("data"), &[]).spawn().expect("starts");
    let (made, _) = port_of_measured(folder.path());
    let pid = std::fs::read_to_string(made.join("data/lock")).expect("it signs the folder");
    std::thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().expect("kill").success());
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && output.stdout.is_empty(), "{output:?}");
    assert!(text.contains("the pipeline has ended (signal: 9"), "{text}");
    assert_eq!(left_behind(folder.path()), Vec::<PathBuf>::new());
}

fn is_open(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Stopped or killed, it leaves no process behind; stopped, no folder either.
#[test]
fn it_can_be_stopped_at_any_time() {
    for signal in ["INT", "TERM", "KILL"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = bench(&example(), &folder.path().join("data"), &["--seconds", "3"]).spawn().expect("starts");
        let (made, port) = port_of_measured(folder.path());
        std::thread::sleep(Duration::from_millis(300));
        assert!(is_open(port) && made.exists());
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill").success());
        let status = child.wait().expect("it ends");
        if signal != "KILL" {
            assert_eq!(status.code(), Some(130), "{signal}");
            assert_eq!(left_behind(folder.path()), Vec::<PathBuf>::new(), "{signal}");
        }
        let deadline = Instant::now() + Duration::from_mins(2);
        while is_open(port) {
            assert!(Instant::now() < deadline, "the process is left behind after {signal}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
