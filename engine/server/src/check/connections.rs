//! What `run` would open: the data folder, the ports, and what sources and sinks connect to. It is only looked at: nothing
//! is made, written or kept open.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use cornjacket_compiler::Pipeline;
use cornjacket_core::component::BuiltSource;
use cornjacket_core::graph::NodeKind;
use serde_json::{Value, json};

use super::{Arguments, brokers};
use crate::folder::{holder, ports_of};

/// What was found at one connection.
#[derive(Debug)]
pub struct Finding {
    /// What it is, such as `data folder data`.
    pub connection: String,
    /// What was found, or why it cannot be used.
    pub outcome: Result<String, String>,
}

impl Finding {
    /// `ok` or `failed`, the connection, and what was found.
    pub fn line(&self, colour: bool) -> String {
        let (word, code, text) = match &self.outcome {
            Ok(found) => ("ok    ", "32", found),
            Err(reason) => ("failed", "31", reason),
        };
        let word = if colour { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_string() };
        format!("{word} {}: {text}\n", self.connection)
    }

    /// The same for programs.
    pub fn to_json(&self) -> Value {
        let (ok, text) = match &self.outcome {
            Ok(found) => (true, found),
            Err(reason) => (false, reason),
        };
        json!({"connection": self.connection, "ok": ok, "message": text})
    }
}

/// Looks at every connection that `run` would open for these pipelines.
pub fn findings(arguments: &Arguments, pipelines: &[&Pipeline]) -> Vec<Finding> {
    let Arguments { data_dir, host, ingestion_port, query_port, actions_port, mqtt_url, .. } = arguments;
    let port = |what: &str, port: u16, flag: &str| Finding {
        connection: format!("{what} port {port} on {host}"),
        outcome: port_is_free(*host, port, data_dir, flag),
    };
    let mut findings = vec![
        Finding { connection: format!("data folder {}", data_dir.display()), outcome: folder_is_usable(data_dir) },
        port("ingest", *ingestion_port, "--ingestion-port"),
        port("query", *query_port, "--query-port"),
        port("actions", *actions_port, "--actions-port"),
    ];
    // Further connections of pipelines belong here.
    for pipeline in pipelines {
        findings.extend(sources(pipeline));
        findings.extend(brokers::findings(mqtt_url, pipeline));
        findings.extend(sinks(pipeline));
    }
    findings
}

fn sources(pipeline: &Pipeline) -> impl Iterator<Item = Finding> {
    pipeline.sources.iter().filter_map(|source| match &source.built {
        BuiltSource::Served { .. } => None,
        BuiltSource::Read(reader) => Some(Finding {
            connection: format!("source {} of {}", source.name, pipeline.name),
            outcome: reader.probe(),
        }),
    })
}

fn sinks(pipeline: &Pipeline) -> impl Iterator<Item = Finding> {
    pipeline.graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Sink(sink) => {
            let outcome = sink.probe().transpose()?;
            Some(Finding { connection: format!("sink {} of {}", node.name, pipeline.name), outcome })
        }
        _ => None,
    })
}

fn port_is_free(host: IpAddr, port: u16, data_dir: &Path, flag: &str) -> Result<String, String> {
    let error = match TcpListener::bind(SocketAddr::new(host, port)) {
        Ok(_) if !host.is_loopback() => return Ok("free, and open to others: `run` wants --insecure for that".into()),
        Ok(_) if port == 0 => return Ok("`run` takes any that is free".into()),
        Ok(_) => return Ok("free".into()),
        Err(error) => error,
    };
    let ours = ports_of(data_dir).is_some_and(|ports| [ports.ingest, ports.query, ports.actions].contains(&Some(port)));
    Err(match error.kind() {
        ErrorKind::AddrInUse if ours => "in use by the cornjacket that runs on this data folder".into(),
        ErrorKind::AddrInUse => format!("in use by another process: end it, or choose another port with {flag}"),
        ErrorKind::PermissionDenied => format!("this user may not open it: choose one from 1024 on with {flag}"),
        ErrorKind::AddrNotAvailable => "this machine does not have that address: choose another with --host".into(),
        _ => format!("cannot be opened: {error}"),
    })
}

fn folder_is_usable(path: &Path) -> Result<String, String> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err("is a file: choose another with --data-dir".into()),
        Ok(_) => match holder(path) {
            Ok(Err(process)) => Err(format!(
                "in use by another cornjacket (process {process}): end it, or choose another folder with --data-dir"
            )),
            Ok(Ok(_)) => can_write(path).map(|()| "there, writable, and nobody holds it".into()),
            Err(error) => Err(format!("its lock cannot be opened: {error}")),
        },
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => would_be_made(path),
        Err(error) => Err(format!("cannot be looked at: {error}")),
    }
}

/// `run` makes the folder and those above it, so the nearest one that is there must be writable.
fn would_be_made(path: &Path) -> Result<String, String> {
    let whole = std::path::absolute(path).map_err(|error| error.to_string())?;
    let above = whole.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    if !above.is_dir() {
        return Err(format!("cannot be made: {} is a file", above.display()));
    }
    can_write(above)
        .map(|()| "not there yet, `run` makes it".into())
        .map_err(|reason| format!("cannot be made in {}: {reason}", above.display()))
}

/// Whether files can be made in a folder, without making one that anybody can see.
fn can_write(folder: &Path) -> Result<(), String> {
    match unnamed_file(folder) {
        Ok(_) => Ok(()),
        // Not every file system and kernel has unnamed files; there the permissions must do.
        Err(error) if is_unsupported(&error) => {
            let is_closed = std::fs::metadata(folder).is_ok_and(|found| found.permissions().readonly());
            if is_closed { Err("it is read-only".into()) } else { Ok(()) }
        }
        Err(error) => Err(format!("cannot be written: {error}")),
    }
}

/// A file without a name, which is gone once it is closed.
#[cfg(target_os = "linux")]
fn unnamed_file(folder: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(folder)
}

#[cfg(not(target_os = "linux"))]
fn unnamed_file(_: &Path) -> std::io::Result<File> {
    Err(ErrorKind::Unsupported.into())
}

fn is_unsupported(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::IsADirectory | ErrorKind::InvalidInput)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::DataFolder;

    #[test]
    fn the_data_folder_is_looked_at_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made/later");
        assert_eq!(folder_is_usable(&path), Ok("not there yet, `run` makes it".into()));
        assert!(!folder.path().join("made").exists());
        assert_eq!(folder_is_usable(folder.path()), Ok("there, writable, and nobody holds it".into()));
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);

        let held = DataFolder::hold(&path).expect("held");
        let reason = folder_is_usable(&path).expect_err("in use");
        assert!(reason.contains(&format!("process {}", std::process::id())), "{reason}");
        drop(held);
        assert!(folder_is_usable(&path).is_ok());

        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a file");
        assert!(folder_is_usable(&file).expect_err("a file").contains("is a file"));
        assert!(folder_is_usable(&file.join("below")).expect_err("below a file").contains("is a file"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_found() {
        // Where even root cannot write.
        let closed = Path::new("/proc");
        if closed.is_dir() {
            assert!(folder_is_usable(&closed.join("cornjacket")).is_err());
        }
    }

    #[test]
    fn ports_in_use_are_found() {
        let data = tempfile::tempdir().expect("a folder");
        let host = IpAddr::from([127, 0, 0, 1]);
        let taken = TcpListener::bind((host, 0)).expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let reason = port_is_free(host, port, data.path(), "--query-port").expect_err("in use");
        assert!(reason.contains("--query-port"), "{reason}");
        assert!(port_is_free(host, 0, data.path(), "--query-port").is_ok());
        let finding = Finding { connection: "query port 1".into(), outcome: Err(reason) };
        assert!(finding.line(false).starts_with("failed query port 1: in use"), "{}", finding.line(false));
        assert_eq!(finding.to_json()["ok"], false);
    }
}
