//! The real process on a data folder of its own, and programs beside it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::measure::Sizes;

/// A program that is killed when nobody measures it any more.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The real process.
pub struct Ours {
    child: Killed,
    pub ingest: u16,
    pub query: u16,
    /// 0 if there is no mqtt source.
    pub mqtt: u16,
    /// How long it took until it was ready.
    pub started_in: Duration,
    _folder: tempfile::TempDir,
}

/// The `cornjacket` to measure.
pub fn binary(sizes: &Sizes) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("cornjacket");
    Ok(sizes.binary.clone().unwrap_or(beside))
}

impl Ours {
    /// Runs the pipeline of this text.
    pub fn start(sizes: &Sizes, pipeline: &str) -> Result<Self> {
        // In the current folder, which is on a disk; the folder for temporary files may be memory.
        let folder = tempfile::tempdir_in(".")?;
        let file = folder.path().join("bench.yaml");
        std::fs::write(&file, pipeline)?;
        Self::run(sizes, &file, folder)
    }

    /// Runs a pipeline file.
    pub fn run(sizes: &Sizes, file: &Path, folder: tempfile::TempDir) -> Result<Self> {
        let (binary, data) = (binary(sizes)?, folder.path().join("data"));
        let mut command = Command::new(&binary);
        command.arg("run").arg(file).arg("--data-dir").arg(&data).args(["--log-level", "error"]).stdout(Stdio::null());
        for port in ["CJ_INGESTION_PORT", "CJ_QUERY_PORT", "CJ_ACTIONS_PORT", "CJ_MQTT_PORT"] {
            command.env(port, "0");
        }
        let started = Instant::now();
        let child = Killed(command.spawn().with_context(|| {
            let shown = binary.display();
            format!("{shown} cannot be started: build it with cargo build --release, or name it with --binary")
        })?);
        let ports = ports_of(&data.join("ports.json"))?;
        let port = |name: &str| ports[name].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        let (ingest, query, mqtt) = (port("ingest"), port("query"), port("mqtt"));
        while get(query, "/health/ready").map_or(true, |(status, _)| status != 200) {
            if started.elapsed() > Duration::from_secs(20) {
                bail!("the process was not ready in time");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { child, ingest, query, mqtt, started_in: started.elapsed(), _folder: folder })
    }

    /// How much of the machine's memory it has, in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// The rows that a query answers with.
    pub fn sql(&self, sql: &str) -> Result<Vec<Value>> {
        let body = serde_json::json!({ "sql": sql }).to_string();
        let (status, text) = exchange(self.query, "POST", "/api/v1/sql", &body)?;
        let answer: Value = serde_json::from_slice(&text)?;
        match answer["rows"].as_array() {
            Some(rows) if status == 200 => Ok(rows.clone()),
            _ => bail!("{answer}"),
        }
    }
}

fn ports_of(file: &Path) -> Result<Value> {
    for _ in 0..20_000 {
        if let Ok(text) = std::fs::read_to_string(file)
            && let Ok(ports) = serde_json::from_str::<Value>(&text)
        {
            return Ok(ports);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("the process was not ready in time")
}

/// `GET`: status and body.
pub fn get(port: u16, path: &str) -> Result<(u16, Vec<u8>)> {
    exchange(port, "GET", path, "")
}

fn exchange(port: u16, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no answer")?;
    let status = String::from_utf8_lossy(answer.get(9..12).unwrap_or_default()).parse()?;
    let chunked = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = &answer[end + 4..];
    Ok((status, if chunked { unchunked(body) } else { body.to_vec() }))
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(at) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(String::from_utf8_lossy(&body[..at]).trim(), 16).unwrap_or(0);
        let (from, to) = (at + 2, at + 2 + size);
        if size == 0 || to > body.len() {
            break;
        }
        whole.extend_from_slice(&body[from..to]);
        body = body.get(to + 2..).unwrap_or_default();
    }
    whole
}

/// This program as the server of the floor.
pub struct Floor {
    _child: Killed,
    pub port: u16,
}

impl Floor {
    pub fn start() -> Result<Self> {
        let port = free_port()?;
        let program: PathBuf = std::env::current_exe()?;
        let child = Killed(Command::new(program).args(["--serve-floor", &port.to_string()]).spawn()?);
        wait_for(port)?;
        Ok(Self { _child: child, port })
    }
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until somebody listens.
pub fn wait_for(port: u16) -> Result<()> {
    for _ in 0..1_000 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nobody listens on port {port}")
}
