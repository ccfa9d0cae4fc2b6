//! Pipelines with webhooks, and what a test asks of their deliveries.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, binary};
use crate::receiver::Request;

/// A pipeline with webhooks: `hot` has a row for each event.
pub struct Pipeline {
    pub folder: TempDir,
    pub data: PathBuf,
}

impl Pipeline {
    /// Each sink is a name, a URL and more settings.
    pub fn new(sinks: &[(&str, &str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let pipeline = Self { folder, data };
        pipeline.write(sinks);
        pipeline
    }

    pub fn write(&self, sinks: &[(&str, &str, &str)]) {
        let sink = |(name, url, settings): &(&str, &str, &str)| {
            format!("  {name}: {{ webhook: {{ from: hot, url: \"{url}\", {settings} }} }}\n")
        };
        let sinks: String = sinks.iter().map(sink).collect();
        let text = format!(
            "
pipeline: hooks
events:
  sensor.reading: {{ payload: {{ value: double }} }}
sources: {{ api: {{ http: {{}} }} }}
streams:
  hot: SELECT aggregate_id AS device, value FROM sensor.reading
sinks:
  newest: {{ projection: {{ from: sensor.reading, key: [aggregate_id] }} }}
{sinks}"
        );
        std::fs::write(self.file(), text).expect("written");
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("hooks.yaml")
    }

    pub async fn start(&self, arguments: &[&str]) -> Process {
        Process::start_with(&self.file(), &self.data, arguments).await
    }

    /// `cornjacket COMMAND…` against the process that runs.
    pub async fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = binary();
        command.args(arguments).arg("--data-dir").arg(&self.data);
        let output = tokio::task::spawn_blocking(move || command.output().expect("runs")).await.expect("runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
    }
}

pub fn event(device: &str, value: f64) -> Value {
    json!({"event_type": "sensor.reading", "aggregate_id": device, "payload": {"value": value}})
}

pub fn event_at(device: &str, value: f64, time: u64) -> Value {
    let mut event = event(device, value);
    event["event_time"] = json!(time);
    event
}

pub async fn ask(process: &Process, path: &str) -> Value {
    let response = process.client.get(format!("{}{path}", process.actions)).send().await.expect("answers");
    let status = response.status();
    let answer = response.json().await.expect("JSON");
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Waits until the only action has counted so many, and gives it.
pub async fn counted(process: &Process, what: &str, count: u64) -> Value {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let action = ask(process, "/api/v1/actions").await["actions"][0].clone();
        if action[what] == json!(count) {
            return action;
        }
        assert!(Instant::now() < deadline, "{what} is not {count}: {action}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn deliveries(process: &Process, query: &str) -> Vec<Value> {
    let answer = ask(process, &format!("/api/v1/deliveries{query}")).await;
    answer["deliveries"].as_array().expect("a list").clone()
}

/// Waits until the newest delivery fits.
pub async fn newest(process: &Process, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let found = deliveries(process, "?limit=1").await.into_iter().next().unwrap_or_default();
        if fits(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "still {found}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn values(seen: &[Request]) -> Vec<f64> {
    let value = |request: &Request| serde_json::from_slice::<Value>(&request.body).expect("JSON")["value"].as_f64();
    seen.iter().map(|request| value(request).expect("a value")).collect()
}
