//! The real process on a data folder of its own, and what it takes of the machine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Connection;
use crate::measure::Sizes;

/// How long it may take to be ready: it may have to read a large log first.
const PATIENCE: Duration = Duration::from_mins(1);

/// A `cornjacket run` that is killed when it is not needed any more.
pub struct Process {
    child: Child,
    /// The port of each service, by the name that `ports.json` has for it.
    ports: Value,
    /// From its start to being ready.
    pub started_in: Duration,
    folder: TempDir,
}

impl Process {
    /// Runs a pipeline, given as text.
    pub fn start(sizes: &Sizes, pipeline: &str) -> Result<Self> {
        let folder = folder()?;
        let file = folder.path().join("bench.yaml");
        std::fs::write(&file, pipeline)?;
        Self::start_in(sizes, &file, folder)
    }

    /// Runs a pipeline's file on a folder that may hold a data folder, `data`, already.
    pub fn start_in(sizes: &Sizes, file: &Path, folder: TempDir) -> Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("cornjacket");
        let binary = sizes.binary.clone().unwrap_or(beside);
        let data = folder.path().join("data");
        let mut command = Command::new(&binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CJ_")) {
            command.env_remove(name);
        }
        command.arg("run").arg(file).arg("--data-dir").arg(&data).args(["--log-level", "error"]);
        command.args(["--ingestion-port", "0", "--query-port", "0", "--actions-port", "0", "--mqtt-port", "0"]);
        let started = Instant::now();
        let child = command.stdout(Stdio::null()).spawn().with_context(|| {
            let binary = binary.display();
            format!("{binary} cannot be started: build it with cargo build --release, or name it with --binary")
        })?;
        let mut process = Self { child, ports: Value::Null, started_in: Duration::ZERO, folder };
        process.wait_until_ready(&data.join("ports.json"), started)?;
        Ok(process)
    }

    fn wait_until_ready(&mut self, ports: &Path, started: Instant) -> Result<()> {
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                bail!("the process ended before it was ready: {status}");
            }
            if let Some(ports) = std::fs::read_to_string(ports).ok().and_then(|text| serde_json::from_str(&text).ok()) {
                self.ports = ports;
                let ready = Connection::open(self.port("query")?).and_then(|mut query| query.get("/health/ready"));
                if ready.is_ok_and(|answer| answer.status == 200) {
                    self.started_in = started.elapsed();
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("the process was not ready within {} s", PATIENCE.as_secs())
    }

    /// The port of a service: `ingest`, `query`, `mqtt`.
    pub fn port(&self, service: &str) -> Result<u16> {
        let port = self.ports[service].as_u64().and_then(|port| u16::try_from(port).ok());
        port.with_context(|| format!("the process has no port for `{service}`"))
    }

    /// How much of the machine's memory it has, in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
    }

    /// How many bytes the files of its data folder have.
    pub fn disk(&self) -> Result<u64> {
        let files = std::fs::read_dir(self.folder.path().join("data"))?;
        // A file may be gone between its listing and the look at it.
        Ok(files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum())
    }

    /// The rows that a query gives.
    pub fn sql(&self, sql: &str) -> Result<Vec<Value>> {
        let body = serde_json::json!({ "sql": sql }).to_string();
        let mut query = Connection::open(self.port("query")?)?;
        let answer = query.post("/api/v1/sql", "application/json", body.as_bytes())?;
        ensure!(answer.status == 200, "the query was not answered: {}", answer.text());
        let mut answer: Value = serde_json::from_slice(&answer.body)?;
        Ok(serde_json::from_value(answer["rows"].take())?)
    }

    /// Sends one event and waits until the engine has worked off everything up to it.
    pub fn settle(&self, event: &str) -> Result<()> {
        let answer =
            Connection::open(self.port("ingest")?)?.post("/api/v1/events", "application/json", event.as_bytes())?;
        ensure!(answer.status == 202, "an event was refused: {}", answer.text());
        let answer: Value = serde_json::from_slice(&answer.body)?;
        let id = answer["event_id"].as_str().context("no event id")?;
        let mut query = Connection::open(self.port("query")?)?;
        for _ in 0..60 {
            let answer = query.get(&format!("/api/v1/projections?after={id}&wait=60s"))?;
            match answer.status {
                200 => return Ok(()),
                504 => {}
                _ => bail!("the process did not get on: {}", answer.text()),
            }
        }
        bail!("the engine did not get to the end of the log within an hour")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder in the current one, which is on a disk; the folder for temporary files may be memory.
pub fn folder() -> Result<TempDir> {
    tempfile::Builder::new().prefix(".bench-").tempdir_in(".").context("no folder can be made here")
}

/// This program as the server of a floor.
pub struct Floor {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Floor {
    pub fn start() -> Result<Self> {
        let port = free_port()?;
        let program: PathBuf = std::env::current_exe()?;
        let child = Command::new(program).args(["--serve-floor", &port.to_string()]).spawn()?;
        let floor = Self { child, port };
        wait_for(port).context("the floor was not ready in time")?;
        Ok(floor)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until somebody listens on a port.
pub fn wait_for(port: u16) -> Result<()> {
    for _ in 0..1_000 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nobody listens on port {port}")
}
