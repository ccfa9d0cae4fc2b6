//! The pipeline file to a checked and compiled pipeline.
//!
//! [`load`] reads the YAML, fills in the environment, checks the catalogue, compiles the streams' SQL, configures the
//! components and joins all of it to a graph. Everything that is wrong with the file comes back in one go, each with its
//! place, what is wrong and what to write instead; no input makes it panic.
//!
//! It knows components only through the registry, and SQL only through [`cornjacket_sql`].
//! Codes of diagnostics are listed in `docs/diagnostics.md`.

mod clashes;
mod components;
mod core;
mod events;
mod expand;
mod explain;
mod fields;
mod files;
mod fingerprint;
mod isolated;
mod key;
mod kinds;
mod lower;
mod names;
mod node;
mod order;
mod position;
mod render;
mod report;
mod schema;
mod section;
mod settings;
mod streams;
mod testing;
mod warnings;
mod yaml;
mod yaml_fault;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::component::Registry;
use cornjacket_core::diagnostic::{Diagnostic, SourceFile};
use cornjacket_core::graph::Graph;

pub use components::SourceEntry;
pub use explain::{
    ClockExplanation, ColumnExplanation, ExchangeKind, Explanation, InputExplanation, NodeExplanation, Role,
    SourceExplanation, StateExplanation, TimeExplanation, explain,
};
pub use render::{render, to_json};
pub use schema::{ReferencePage, pipeline_schema, reference_pages};
pub use testing::{Capture, Expected, TargetKind, TestAction, TestCase, TestStep};

use fingerprint::Fingerprint;
use names::{is_identifier, proposed_identifier};
use node::{Node, Span, Value};
use report::{Care, Report};
use streams::Others;

/// A pipeline that can run.
#[derive(Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// Which version of its files this is: the same for the same text.
    pub version: String,
    /// What it is for; empty if the file does not say.
    pub description: String,
    /// Its nodes.
    pub graph: Arc<Graph>,
    /// Its event types and topics.
    pub catalogue: Arc<Catalogue>,
    /// Its sources, in the order of the file.
    pub sources: Vec<SourceEntry>,
    /// Its tests, in the order of the file.
    pub tests: Vec<TestCase>,
    /// The files that it is made of, the pipeline file first.
    pub files: Vec<PathBuf>,
    /// The names of its streams; what a stream reads comes before it.
    pub streams: Vec<String>,
}

/// What came of a pipeline file.
#[derive(Debug)]
pub struct Outcome {
    /// The pipeline; `None` if there is any error.
    pub pipeline: Option<Pipeline>,
    /// Errors and warnings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// The keys that a pipeline file may have.
const SECTIONS: [&str; 9] =
    ["pipeline", "description", "events", "topics", "sources", "streams", "sinks", "functions", "tests"];

/// Loads a pipeline file: reads, checks and compiles it. `environment` gives the values of `${NAME}`. Files that it names
/// are looked for relative to its own folder.
pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>, registry: &Registry) -> Outcome {
    read(path, (environment, registry), Care::Run, None)
}

/// As [`load`], with the sinks that reach outside replaced by captures of what the file's tests look at.
pub fn load_for_tests(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    registry: &Registry,
    capture: Capture<'_>,
) -> Outcome {
    read(path, (environment, registry), Care::Run, Some(capture))
}

/// As [`load`], and warns besides of what is right here but perhaps not elsewhere.
pub fn check(path: &Path, environment: &dyn Fn(&str) -> Option<String>, registry: &Registry) -> Outcome {
    read(path, (environment, registry), Care::Check, None)
}

/// As [`load`], of a text that need not be in a file. Diagnostics call it `path`, and files that it names are looked for
/// relative to the folder of that.
pub fn load_text(
    path: &Path,
    text: String,
    environment: &dyn Fn(&str) -> Option<String>,
    registry: &Registry,
) -> Outcome {
    of_text(path, text, (environment, registry), Care::Run, None)
}

type Known<'a> = (&'a dyn Fn(&str) -> Option<String>, &'a Registry);

fn read(path: &Path, known: Known<'_>, care: Care, capture: Option<Capture<'_>>) -> Outcome {
    match files::read_text(path) {
        Ok(text) => of_text(path, text, known, care, capture),
        Err(reason) => {
            let diagnostic =
                Diagnostic::error("CJ001", None, format!("the pipeline file `{}` {reason}", path.display())).with_hint(
                    if reason.contains("UTF-8") {
                        "save the file as UTF-8, which every editor can do"
                    } else {
                        "give the path of a pipeline file, such as pipelines/iot.yaml"
                    },
                );
            Outcome { pipeline: None, diagnostics: vec![diagnostic] }
        }
    }
}

fn of_text(path: &Path, text: String, known: Known<'_>, care: Care, capture: Option<Capture<'_>>) -> Outcome {
    let mut report = Report::new(Arc::new(SourceFile { path: path.into(), text }), care);
    let folder = path.parent().unwrap_or(Path::new(""));
    let pipeline = compile(folder, known, capture, &mut report);
    let pipeline = pipeline.filter(|_| report.errors() == 0);
    Outcome { pipeline, diagnostics: report.finish() }
}

fn compile(
    folder: &Path,
    (environment, registry): Known<'_>,
    capture: Option<Capture<'_>>,
    report: &mut Report,
) -> Option<Pipeline> {
    let mut root = yaml::parse(report)?;
    expand::expand(&mut root, environment, report);
    check_root(&root, report)?;
    root.rename_keys(|key| names::nearest(key, SECTIONS));
    let name = name(&root, report);
    let description = description(&root, report);
    check_names(&root, report);
    let events = events::events(root.entry("events"), root.entry("topics"), report);
    let catalogue = Arc::new(events.catalogue);
    let others = others(&root, &catalogue);
    let streams = streams::streams(root.entry("streams"), &catalogue, (events.broken, others), folder, report);
    let sources = components::sources(root.entry("sources"), registry, (&catalogue, folder), report);
    let sinks = components::sinks(root.entry("sinks"), registry, (&catalogue, folder), &streams, report);
    clashes::check(&root, &sources, &sinks, report);
    let targets =
        testing::Targets { catalogue: &catalogue, streams: &streams, sinks: &sinks, is_whole: report.errors() == 0 };
    let tests = testing::tests(root.entry("tests"), &targets, report);
    if report.errors() > 0 {
        return None;
    }
    warnings::warn(&root, &streams, &sinks, report);
    let name = name?;
    let names = streams.streams.iter().map(|stream| stream.name.clone()).collect();
    let files = std::iter::once(report.file().path.clone()).chain(streams.files.iter().cloned()).collect();
    let version = version(&report.file().text, &streams.files);
    let sinks = match capture {
        Some(capture) => testing::captured(sinks, &tests, (&catalogue, &streams), folder, capture),
        None => sinks,
    };
    match lower::lower(&name, &catalogue, &streams.streams, sinks, registry) {
        Ok(graph) => Some(Pipeline {
            name,
            version,
            description,
            graph: Arc::new(graph),
            catalogue,
            sources,
            tests,
            files,
            streams: names,
        }),
        Err(missing) => {
            let span = streams.get(&missing.stream).map_or(0..0, |stream| stream.name_span.clone());
            let message =
                format!("`{}` cannot be computed: no operator is registered for a part of it", missing.stream);
            report.error("CJ307", &span, message, Some("write it with filters, columns, UNION ALL and windows".into()));
            None
        }
    }
}

/// Twelve digits that stand for the text of all files.
fn version(text: &str, files: &BTreeSet<PathBuf>) -> String {
    let texts = files.iter().map(|file| files::read_text(file).unwrap_or_default());
    let mut digits = texts.fold(Fingerprint::of("file").with(text), |all, text| all.with(&text)).finish();
    digits.truncate(12);
    digits
}

/// Checks that the file is a map of known sections, and names the sections that this version does not have.
fn check_root(root: &Node, report: &mut Report) -> Option<()> {
    if matches!(root.value, Value::Null) {
        let hint = Some("begin with `pipeline: name`".into());
        report.error("CJ008", &(0..0), "the file says nothing, so there is no pipeline in it", hint);
        return None;
    }
    let Some(entries) = root.entries() else {
        let message = format!("a pipeline file is a map of sections, and this is {}", root.kind());
        report.error("CJ007", &root.span, message, Some("begin with `pipeline: name`".into()));
        return None;
    };
    section::unknown_keys(entries, &SECTIONS, report);
    if let Some(functions) = root.entry("functions") {
        let hint = Some("use the functions of SQL".into());
        report.error("CJ009", &functions.key_span, "`functions` are not supported in this version", hint);
    }
    Some(())
}

fn name(root: &Node, report: &mut Report) -> Option<String> {
    let Some(entry) = root.entry("pipeline") else {
        let hint = Some("add a first line such as `pipeline: iot`".into());
        report.error("CJ008", &(0..0), "the pipeline has no name", hint);
        return None;
    };
    if entry.value.text().is_none() {
        let hint = Some("write a name after the colon, such as `pipeline: iot`".into());
        report.error("CJ008", &entry.key_span, "the pipeline has no name", hint);
        return None;
    }
    let name: String = settings::read(entry, report)?;
    let is_right = is_identifier(&name.replace('-', "_"));
    if !is_right {
        let hint = format!("write `{}`", proposed_identifier(&name));
        report.error("CJ011", &entry.value.span, format!("`{name}` is no name for a pipeline"), Some(hint));
    }
    is_right.then_some(name)
}

fn description(root: &Node, report: &mut Report) -> String {
    root.entry("description").and_then(|entry| settings::read(entry, report)).unwrap_or_default()
}

/// Names that somebody could read from by mistake.
fn others(root: &Node, catalogue: &Catalogue) -> Others {
    let mut others: Others = catalogue.types.values().map(|found| (found.topic.clone(), "topic")).collect();
    for (section, what) in [("sources", "source"), ("sinks", "sink")] {
        let entries = root.entry(section).and_then(|entry| entry.value.entries()).unwrap_or_default();
        others.extend(entries.iter().map(|entry| (entry.key.clone(), what)));
    }
    others
}

/// Sources, streams and sinks share one space of names.
fn check_names(root: &Node, report: &mut Report) {
    let mut seen: HashMap<&str, (&str, &Span)> = HashMap::new();
    for (section, what) in [("sources", "source"), ("streams", "stream"), ("sinks", "sink")] {
        for entry in root.entry(section).and_then(|entry| entry.value.entries()).unwrap_or_default() {
            if !is_identifier(&entry.key) {
                let message = format!("`{}` is no name for a {what}", entry.key.escape_debug());
                let hint =
                    format!("use lower-case letters, digits and `_`, such as `{}`", proposed_identifier(&entry.key));
                report.error("CJ011", &entry.key_span, message, Some(hint));
            }
            if let Some((other, place)) = seen.insert(&entry.key, (what, &entry.key_span)) {
                let (line, _) = report.file().line_column(place.start);
                let message = format!("the {other} on line {line} is called `{}` too", entry.key);
                let hint = "sources, streams and sinks need names that differ; rename one of them".to_string();
                report.error("CJ012", &entry.key_span, message, Some(hint));
            }
        }
    }
}
