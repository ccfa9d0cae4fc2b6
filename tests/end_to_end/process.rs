//! A running `cornjacket`, and how tests talk to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Response};
use serde_json::{Value, json};

/// Long, since many tests share the machine; nothing takes as long unless it never comes.
const PATIENCE: Duration = Duration::from_mins(2);

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cornjacket"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CJ_")) {
        command.env_remove(name);
    }
    // Many run at once.
    for port in ["CJ_INGESTION_PORT", "CJ_QUERY_PORT", "CJ_ACTIONS_PORT", "CJ_MQTT_PORT"] {
        command.env(port, "0");
    }
    command
}

pub fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/iot.yaml")
}

/// A process that is killed when the test ends.
pub struct Process {
    child: Child,
    pub client: Client,
    pub ingest: String,
    pub query: String,
    pub actions: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts a pipeline on any free ports and waits until it is ready.
    pub async fn start(pipeline: &Path, data: &Path) -> Self {
        Self::start_with(pipeline, data, &[]).await
    }

    /// As [`Process::start`], with more arguments.
    pub async fn start_with(pipeline: &Path, data: &Path, arguments: &[&str]) -> Self {
        Self::start_telling(pipeline, data, arguments, Stdio::inherit()).await
    }

    /// As [`Process::start_with`]; what it logs goes there.
    pub async fn start_telling(pipeline: &Path, data: &Path, arguments: &[&str], log: impl Into<Stdio>) -> Self {
        let mut command = binary();
        command.arg("run").arg(pipeline).args(["--log-level", "warn", "--data-dir"]).arg(data).args(arguments);
        command.stderr(log);
        Self::start_as(command, data, None).await
    }

    /// Starts a command that runs a pipeline; its ports are looked up in the data folder unless they are known.
    pub async fn start_as(mut command: Command, data: &Path, known: Option<Value>) -> Self {
        // What a killed process left would be read as the new one's.
        let file = data.join("ports.json");
        let _ = std::fs::remove_file(&file);
        let child = command.stdout(Stdio::null()).spawn().expect("starts");
        let client = Client::new();
        let mut process = Self { child, client, ingest: String::new(), query: String::new(), actions: String::new() };
        process.wait_until_ready(&file, known).await;
        process
    }

    async fn wait_until_ready(&mut self, file: &Path, known: Option<Value>) {
        let deadline = Instant::now() + PATIENCE;
        let place = |port: &Value| format!("http://127.0.0.1:{}", port.to_string().trim_matches('"'));
        loop {
            assert!(Instant::now() < deadline, "not ready in time");
            assert!(self.child.try_wait().expect("a child").is_none(), "ended before it was ready");
            let written = || std::fs::read_to_string(file).ok();
            let parsed = |text: String| serde_json::from_str(&text).expect("ports.json is whole or not there");
            if let Some(ports) = known.clone().or_else(|| written().map(parsed)) {
                (self.ingest, self.query) = (place(&ports["ingest"]), place(&ports["query"]));
                self.actions = place(&ports["actions"]);
                let ready = self.client.get(format!("{}/health/ready", self.query)).send().await;
                if ready.is_ok_and(|response| response.status().is_success()) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("ended");
    }

    /// Asks it to end, and waits.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("ended")
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal_to(self.id(), name);
    }

    /// How much of the machine's memory it has, in KiB.
    pub fn memory_kib(&self) -> u64 {
        memory_of(self.child.id(), "VmRSS:").expect("a process")
    }

    /// The most that it ever had, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        memory_of(self.child.id(), "VmHWM:").expect("a process")
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most that each process which it started ever had, in KiB.
    pub fn peaks_of_children_kib(&self) -> BTreeMap<u32, u64> {
        Self::peaks_of_children_of(self.id())
    }

    /// The same, by the process's number.
    pub fn peaks_of_children_of(process: u32) -> BTreeMap<u32, u64> {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
        let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<u32> =
            lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
        children.into_iter().filter_map(|child| Some((child, memory_of(child, "VmHWM:")?))).collect()
    }

    pub async fn post(&self, event: &Value) -> Response {
        self.client.post(format!("{}/api/v1/events", self.ingest)).json(event).send().await.expect("answers")
    }

    /// Posts an event that is taken; gives its id.
    pub async fn accept(&self, event: &Value) -> String {
        let response = self.post(event).await;
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(status, 202, "{body}");
        body["event_id"].as_str().expect("an id").to_string()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.client.get(format!("{}{path}", self.query)).send().await.expect("answers");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// Every event and every row is accounted for: what each test ends with.
    pub async fn assert_balanced(&self) {
        let (status, answer) = self.get("/api/v1/audit").await;
        assert_eq!(status, 200, "{answer}");
        let checks = answer["checks"].as_array().expect("checks");
        let wrong: Vec<_> = checks.iter().filter(|check| check["holds"] != json!(true)).collect();
        assert!(answer["balanced"] == json!(true) && wrong.is_empty() && !checks.is_empty(), "{wrong:#?}");
    }

    pub async fn sql_answer(&self, sql: &str) -> (u16, Value) {
        let body = json!({"sql": sql, "limit": 1_000_000_000});
        let response =
            self.client.post(format!("{}/api/v1/sql", self.query)).json(&body).send().await.expect("answers");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    pub async fn sql(&self, sql: &str) -> Vec<Value> {
        let (status, answer) = self.sql_answer(sql).await;
        assert_eq!(status, 200, "{sql}: {answer}");
        answer["rows"].as_array().expect("rows").clone()
    }

    /// Asks until the answer fits.
    pub async fn sql_until(&self, sql: &str, fits: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.sql(sql).await;
            if fits(&rows) {
                return rows;
            }
            assert!(Instant::now() < deadline, "{sql}: still {rows:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Sends a process a signal.
pub fn signal_to(process: u32, name: &str) {
    let arguments = [format!("-{name}"), process.to_string()];
    assert!(Command::new("kill").args(arguments).status().expect("kill").success());
}

/// A line of the system's account of a process's memory, in KiB.
pub fn memory_of(process: u32, line: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|found| found.strip_prefix(line))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The number that an environment variable of a test has, if it has one.
pub fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The same, or the number that it has unless set.
pub fn number(name: &str, default: u64) -> u64 {
    variable(name).unwrap_or(default)
}

/// Runs a command to its end.
pub fn output(arguments: &[&str]) -> Output {
    binary().args(arguments).output().expect("runs")
}
