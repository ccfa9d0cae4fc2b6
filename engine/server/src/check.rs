//! `cornjacket check`: everything that is wrong with pipeline files, in one go.
//!
//! It reads what `run` reads and compiles it in the same way, but starts nothing and writes nothing. With `--connect` it
//! also looks at whatever `run` would open.

mod brokers;
mod connections;
mod data;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write, stdout};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use cornjacket_compiler::{Outcome, Pipeline, render, to_json};
use cornjacket_core::diagnostic::Severity;
use cornjacket_core::graph::NodeKind;
use cornjacket_operators::REGISTRY;
use serde_json::{Value, json};

use crate::mqtt_url::MqttUrl;
use crate::{ENVIRONMENT_IS_WRONG, Failure, INPUT_IS_WRONG, cli};
use connections::Finding;

/// What `check --help` begins with.
pub const ABOUT: &str = "\
Say everything that is wrong with pipeline files, in one go, without running anything.

Each error and warning has a code, its file, line and column with the text itself, what is wrong, and what to write \
instead. SQL errors point at the very word, also in a file of its own. Errors keep a pipeline from running; warnings do \
not. `run` makes the same checks before it starts; `check` warns besides of what works here but perhaps not elsewhere.

Of a folder, every *.yaml and *.yml file in it and below that has a `pipeline:` is checked.

With --data, a data folder is looked at instead: whether its files are whole, every block of events and every part of a \
snapshot is as it was written, no event is missing, and the counts of the ledger are what there is. It is for a folder that no \
process uses: after a crash of the machine, a full or failing disk, or before a copy of it is relied on. Nothing in it is \
changed. It reads everything, so a large folder takes its time.";

/// What `check --help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  cornjacket check pipelines/iot.yaml
  cornjacket check .                                    # every pipeline of a repository
  cornjacket check --json pipelines | jq '.files[].diagnostics[] | \"\\(.file):\\(.line) \\(.message)\"'
  cornjacket check --connect pipelines/iot.yaml && cornjacket run pipelines/iot.yaml
  cornjacket check --data data                          # a table; lines of JSON if piped or with --json
  cornjacket check --data /backup/data | jq 'select(.ok == false).faults[]'

With --json one document is printed: {\"files\":[{\"file\",\"ok\",\"diagnostics\":[…]}],\"errors\":n,\"warnings\":n}; a diagnostic \
has severity, code, message, help, file, line, column, end_line and end_column. With --connect there is also \
\"connections\":[{\"connection\",\"ok\",\"message\"}]. With --data each check is a line: {\"check\",\"of\",\"looked_at\",\"ok\",\
\"faults\":[{\"place\",\"what\",\"remedy\"}]}; what could not be checked has \"ok\":null.

Exit codes: 0 right (perhaps with warnings), 1 an error in a file, or a data folder that is damaged, 2 a path cannot be read \
or, with --connect, something cannot be opened, or, with --data, a process uses the folder.";

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Pipeline files, or folders of them.
    #[arg(required_unless_present = "data", conflicts_with = "data", value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// Look at a data folder that no process uses instead: everything that is damaged or missing in it.
    #[arg(long, value_name = "DIR", conflicts_with = "connect")]
    pub data: Option<PathBuf>,
    /// One JSON document instead of text; with --data lines of JSON, as when piped.
    #[arg(long)]
    pub json: bool,
    /// Look also at what `run` would open: data folder, ports, and what sources and sinks connect to. Nothing is changed.
    #[arg(long)]
    pub connect: bool,
    /// With --connect: the folder that everything would be kept in.
    #[arg(long, env = "CJ_DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// With --connect: the address that the services would listen on.
    #[arg(long, env = "CJ_HOST", default_value = "127.0.0.1", value_parser = cli::host)]
    pub host: IpAddr,
    /// With --connect: the port that would take events in; 0 takes any that is free.
    #[arg(long, env = "CJ_INGESTION_PORT", default_value_t = 8080)]
    pub ingestion_port: u16,
    /// With --connect: the port that would answer queries; 0 takes any that is free.
    #[arg(long, env = "CJ_QUERY_PORT", default_value_t = 8081)]
    pub query_port: u16,
    /// With --connect: the port that would say what became of deliveries; 0 takes any that is free.
    #[arg(long, env = "CJ_ACTIONS_PORT", default_value_t = 8082)]
    pub actions_port: u16,
    /// With --connect: the MQTT broker that mqtt sources would subscribe to; the embedded one unless set.
    #[arg(
        long,
        env = "CJ_MQTT_URL",
        value_name = "URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub mqtt_url: MqttUrl,
}

/// Checks the files and says what was found.
pub fn check(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(folder) = &arguments.data {
        return data::check(folder, arguments.json);
    }
    let chosen = Chosen::by(&arguments.paths);
    let environment = |name: &str| std::env::var(name).ok();
    let checked = chosen
        .files
        .iter()
        .map(|file| Checked { path: file.clone(), outcome: cornjacket_compiler::check(file, &environment, &REGISTRY) });
    let checked: Vec<Checked> = checked.collect();
    let pipelines: Vec<&Pipeline> = checked.iter().filter_map(|file| file.outcome.pipeline.as_ref()).collect();
    let findings = if arguments.connect { connections::findings(arguments, &pipelines) } else { Vec::new() };
    let text = if arguments.json {
        let mut text = document(&checked, &findings, arguments.connect).to_string();
        text.push('\n');
        text
    } else {
        report(&checked, &findings, &chosen)
    };
    // Whoever reads has perhaps seen enough; what was found stays what it is.
    let _ = stdout().lock().write_all(text.as_bytes());
    for complaint in &chosen.complaints {
        eprintln!("error: {complaint}");
    }
    let is_unreadable = !chosen.complaints.is_empty() || checked.iter().any(Checked::is_unreadable);
    if is_unreadable || findings.iter().any(|finding| finding.outcome.is_err()) {
        return Err(Failure::Told(ENVIRONMENT_IS_WRONG));
    }
    if checked.is_empty() || checked.iter().any(|file| !file.is_right()) {
        return Err(Failure::Told(INPUT_IS_WRONG));
    }
    Ok(())
}

/// The files that the paths stand for.
#[derive(Default)]
pub struct Chosen {
    pub files: Vec<PathBuf>,
    /// YAML files in folders that are no pipelines.
    skipped: usize,
    /// Folders that cannot be read, and why.
    pub complaints: Vec<String>,
}

impl Chosen {
    /// A folder stands for the pipelines in it.
    pub fn by(paths: &[PathBuf]) -> Self {
        let mut chosen = Self::default();
        for path in paths {
            if path.is_dir() {
                chosen.add_folder(path);
            } else {
                chosen.add(path.clone());
            }
        }
        chosen
    }

    /// A path that is named twice is checked once.
    fn add(&mut self, file: PathBuf) {
        if !self.files.contains(&file) {
            self.files.push(file);
        }
    }

    fn add_folder(&mut self, folder: &Path) {
        let mut found = BTreeSet::new();
        self.yaml_files(folder, &mut found);
        for file in found {
            if is_pipeline(&file) { self.add(file) } else { self.skipped += 1 }
        }
    }

    /// Links to folders are not followed: they may lead in a circle.
    fn yaml_files(&mut self, folder: &Path, found: &mut BTreeSet<PathBuf>) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.complaints.push(format!("the folder {} cannot be read: {error}", folder.display()));
                return;
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.yaml_files(&path, found);
            } else if is_yaml && path.is_file() {
                found.insert(path);
            }
        }
    }
}

/// Whether a file has a `pipeline:` at its top. Its text is looked at rather than parsed, since a pipeline that does not
/// parse is what `check` is for; a file that cannot be read counts, so that somebody hears of it.
fn is_pipeline(file: &Path) -> bool {
    let Ok(bytes) = std::fs::read(file) else { return true };
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_start_matches('\u{feff}');
    let is_key = |line: &str| {
        let rest = ["pipeline", "\"pipeline\"", "'pipeline'"].iter().find_map(|key| line.strip_prefix(key));
        rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    let in_braces = text.trim_start().strip_prefix('{').is_some_and(|rest| is_key(rest.trim_start()));
    in_braces || text.lines().any(is_key)
}

/// A file and what came of it.
struct Checked {
    path: PathBuf,
    outcome: Outcome,
}

impl Checked {
    fn is_right(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.outcome.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// Whether the file is not there or closed to us, which is no fault in it.
    fn is_unreadable(&self) -> bool {
        std::fs::File::open(&self.path).is_err()
    }

    /// What the pipeline is made of.
    fn parts(&self) -> Option<String> {
        let pipeline = self.outcome.pipeline.as_ref()?;
        let sinks = pipeline.graph.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Sink(_))).count();
        let (sources, streams) = (pipeline.sources.len(), pipeline.streams.len());
        Some([counted(sources, "source"), counted(streams, "stream"), counted(sinks, "sink")].join(", "))
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn document(checked: &[Checked], findings: &[Finding], connect: bool) -> Value {
    let file = |file: &Checked| {
        let diagnostics = to_json(&file.outcome.diagnostics);
        json!({"file": file.path.display().to_string(), "ok": file.is_right(), "diagnostics": diagnostics})
    };
    let (errors, warnings) = totals(checked);
    let files: Vec<Value> = checked.iter().map(file).collect();
    let mut document = json!({"files": files, "errors": errors, "warnings": warnings});
    if connect {
        document["connections"] = findings.iter().map(Finding::to_json).collect();
    }
    document
}

fn totals(checked: &[Checked]) -> (usize, usize) {
    let total = |severity| checked.iter().map(|file| file.count(severity)).sum();
    (total(Severity::Error), total(Severity::Warning))
}

fn report(checked: &[Checked], findings: &[Finding], chosen: &Chosen) -> String {
    let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut text = String::new();
    for file in checked.iter().filter(|file| !file.outcome.diagnostics.is_empty()) {
        text += &render(&file.outcome.diagnostics, colour);
        text.push('\n');
    }
    for finding in findings {
        text += &finding.line(colour);
    }
    text += &summary(checked);
    text.push('\n');
    if chosen.skipped > 0 {
        let skipped = counted(chosen.skipped, "other YAML file");
        text.extend([skipped.as_str(), " without a `pipeline:` at the top: skipped\n"]);
    }
    text
}

/// The last line: how many files, and what is wrong with them.
fn summary(checked: &[Checked]) -> String {
    let (errors, warnings) = totals(checked);
    let warned = if warnings > 0 { format!(", {}", counted(warnings, "warning")) } else { String::new() };
    match checked {
        [] => "no pipeline file was found: a pipeline file has a line such as `pipeline: iot`".into(),
        [file] if errors == 0 => {
            format!("{} is right: {}{warned}", file.path.display(), file.parts().unwrap_or_default())
        }
        [file] => format!("{}: {}{warned}", file.path.display(), counted(errors, "error")),
        files if errors == 0 => format!("{} files are right{}", files.len(), warned.replacen(',', ":", 1)),
        files => format!("{} files: {}{warned}", files.len(), counted(errors, "error")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stand_for_the_pipelines_below_them_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        write("b.yaml", "# first\npipeline: b\n");
        write("a/c.yml", "\u{feff}\"pipeline\" : c\n");
        write("a/json.yaml", "{ 'pipeline': d }\n");
        write("a/compose.yaml", "services:\n  pipeline: {}\n");
        write("a/pipelines.yaml", "pipelines:\n  - x\n");
        write("notes.txt", "pipeline: x\n");
        let b = folder.path().join("b.yaml");
        let chosen = Chosen::by(&[folder.path().to_path_buf(), b.clone()]);
        let expected = ["a/c.yml", "a/json.yaml", "b.yaml"].map(|name| folder.path().join(name));
        assert_eq!((chosen.files.as_slice(), chosen.skipped), (expected.as_slice(), 2));
        assert_eq!(Chosen::by(&[b.clone(), b]).files.len(), 1);
    }

    #[test]
    fn the_last_line_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let checked = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            let outcome = cornjacket_compiler::check(&path, &|_| None, &REGISTRY);
            Checked { path: PathBuf::from(name), outcome }
        };
        let right = "pipeline: x\nevents: { a.b: { payload: { v: int } } }\nsources: { api: { http: {} } }\n\
                     streams: { s: SELECT v FROM a.b }\nsinks: { out: { stdout: { from: s } } }\n";
        assert_eq!(summary(&[checked("r.yaml", right)]), "r.yaml is right: 1 source, 1 stream, 1 sink");
        let warned = || checked("w.yaml", "pipeline: x\nevents: { a.b: {} }\nsources: { api: { http: {} } }\n");
        assert_eq!(summary(&[warned()]), "w.yaml is right: 1 source, 0 streams, 0 sinks, 1 warning");
        let wrong = || checked("x.yaml", "pipeline: x\nsourcess: {}\nsinkss: {}\n");
        assert_eq!(summary(&[wrong()]), "x.yaml: 2 errors");
        assert_eq!(summary(&[wrong(), warned(), checked("r.yaml", right)]), "3 files: 2 errors, 1 warning");
        assert_eq!(summary(&[warned(), checked("r.yaml", right)]), "2 files are right: 1 warning");
        let document = document(&[wrong(), warned()], &[], false);
        assert_eq!((&document["errors"], &document["warnings"]), (&json!(2), &json!(1)));
        assert_eq!((&document["files"][0]["ok"], &document["files"][1]["ok"]), (&json!(false), &json!(true)));
        assert_eq!(document["files"][0]["diagnostics"][0]["code"], "CJ006");
    }
}
