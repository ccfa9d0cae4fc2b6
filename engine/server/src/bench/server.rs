//! The pipeline as a process of its own, on a data folder that is thrown away.
//!
//! It is this program's `run`. It ends in order when its stdin does, so it is not left behind however the measuring
//! process ends.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use reqwest::Method;
use tempfile::TempDir;

use crate::memory::bytes_in;
use crate::remote::{Service, Where};
use crate::{Failure, INPUT_IS_WRONG};

/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long it may take to end in order; the folder is thrown away in any case.
const LAST_PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take from its last connection to its end, where it ends by itself.
const END: Duration = Duration::from_secs(1);
/// How often is looked whether it is ready, or has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of its messages that are shown.
const SHOWN: usize = 4_096;
/// What `run` would take from the environment and must not: it is to listen to nobody else.
const NOT_FOR_IT: [&str; 5] =
    ["CJ_API_KEYS_FILE", "CJ_MQTT_URL", "CJ_MQTT_PASSWORD_FILE", "CJ_LOG_FORMAT", "CJ_ACTIONS_ALLOW_NETS"];
/// Ticks of processor time in a second, as Linux counts them for programs.
const TICKS: f64 = 100.0;

/// A folder that is removed in the end, on the disk that a data folder is on, or would be.
pub(super) fn folder(data_dir: &Path) -> anyhow::Result<TempDir> {
    let beside = disk_of(data_dir)?;
    tempfile::Builder::new().prefix(".cornjacket-bench-").tempdir_in(&beside).with_context(|| {
        format!("no folder can be made in {}: say with --data-dir where data would be kept", beside.display())
    })
}

/// The nearest folder above, or the data folder itself where a disk is mounted there.
fn disk_of(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(data_dir).context("--data-dir is no path")?;
    let above = path.ancestors().skip(1).find(|above| above.is_dir()).unwrap_or(Path::new("/"));
    let disk = |folder: &Path| folder.metadata().ok().map(|known| known.dev());
    let is_mounted = path.is_dir() && disk(&path) != disk(above);
    Ok(if is_mounted { path } else { above.to_path_buf() })
}

/// A process that runs a pipeline.
pub(super) struct Server {
    child: Child,
    data: PathBuf,
    messages: PathBuf,
}

/// What it took of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Seconds of processor time since its start.
    pub(super) cpu_seconds: f64,
    /// Bytes of memory now.
    pub(super) resident_bytes: u64,
    /// Bytes of memory at most.
    pub(super) peak_bytes: u64,
}

impl Server {
    /// Starts it in a folder.
    pub(super) fn start(pipeline: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (data, messages) = (folder.join("data"), folder.join("messages"));
        let program = std::env::current_exe().context("this program's own file is not known")?;
        let mut command = Command::new(program);
        for name in NOT_FOR_IT {
            command.env_remove(name);
        }
        command.arg("run").arg(pipeline).arg("--data-dir").arg(&data);
        command.args(["--host", "127.0.0.1", "--ingestion-port", "0", "--query-port", "0", "--actions-port", "0"]);
        command.args(["--mqtt-port", "0", "--log-level", "warn", "--until-stdin-ends"]);
        let log = File::create(&messages).with_context(|| format!("{} cannot be written", messages.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().context("the pipeline cannot be started")?;
        Ok(Self { child, data, messages })
    }

    /// Where it can be reached.
    pub(super) fn place(&self) -> Where {
        Where { url: None, data_dir: self.data.clone(), api_key: None }
    }

    /// Waits until it answers.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            self.is_alive()?;
            // Its ports are not known at first.
            if let Ok(query) = self.place().service(Service::Query)
                && query.request(Method::GET, "/health/ready").send().await.is_ok_and(|it| it.status().is_success())
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Failure::Environment(anyhow!(
            "the pipeline was not ready within {} s{}",
            PATIENCE.as_secs(),
            self.last_messages()
        )))
    }

    /// Says why, if it has ended.
    pub(super) fn is_alive(&mut self) -> Result<(), Failure> {
        let ended = self.child.try_wait().context("the pipeline's process is gone").map_err(Failure::Environment)?;
        let Some(status) = ended else { return Ok(()) };
        let error = anyhow!("the pipeline has ended ({status}){}", self.last_messages());
        let is_input = status.code() == Some(INPUT_IS_WRONG.into());
        Err(if is_input { Failure::Input(error) } else { Failure::Environment(error) })
    }

    /// As [`Server::is_alive`], of a process whose connections broke off: it may be about to end.
    pub(super) async fn lives_on(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < END {
            self.is_alive()?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn last_messages(&self) -> String {
        let text = std::fs::read(&self.messages).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN)..]).trim().to_string();
        if text.is_empty() { text } else { format!("; it said:\n{text}") }
    }

    /// What it takes of the machine; `None` where the system does not say so in `/proc`.
    pub(super) fn usage(&self) -> Option<Usage> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).ok();
        let (status, times) = (read("status")?, read("stat")?);
        Some(Usage {
            cpu_seconds: cpu_seconds(&times)?,
            resident_bytes: bytes_in(&status, "VmRSS:")?,
            peak_bytes: bytes_in(&status, "VmHWM:")?,
        })
    }

    /// Lets it end in order.
    pub(super) fn stop(&mut self) {
        drop(self.child.stdin.take());
        let began = Instant::now();
        while began.elapsed() < LAST_PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        // Where it has ended, this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Of `/proc/PID/stat`: user and system time, the 14th and 15th fields; the second is a name that may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_of_a_process_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        let status = "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n";
        assert_eq!((bytes_in(status, "VmHWM:"), bytes_in(status, "VmRSS:")), (Some(2_048 << 10), Some(1_024 << 10)));
        assert_eq!(bytes_in(status, "VmSwap:"), None);
    }

    #[test]
    fn the_folder_is_beside_the_data_and_goes() {
        let root = tempfile::tempdir().expect("a folder");
        for data_dir in ["data", "not/there/yet"] {
            let made = folder(&root.path().join(data_dir)).expect("made");
            let path = made.path().to_path_buf();
            assert_eq!(path.parent(), Some(root.path()));
            drop(made);
            assert!(!path.exists());
        }
    }
}
