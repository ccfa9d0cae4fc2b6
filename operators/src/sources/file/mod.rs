//! `file`: events from files, read to their end: NDJSON, CSV and Parquet, one file or all that match a pattern.
//!
//! Where the source stands in each file is stored in one commit with the events, so a process that was killed goes on
//! behind the last event that it stored, and a second run over the same files adds nothing. A file is known by its path
//! and its first bytes: another file under the same path is read from its start. Lines and rows that cannot be used
//! become dead letters with their place, and the rest is read.

mod csv;
mod lines;
mod parquet;
mod reader;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cornjacket_core::component::{BuiltSource, Description, Fault, SourceContext, SourceSpec, parse_settings};
use cornjacket_core::door::EnvelopeTemplate;
use cornjacket_core::environment::Environment;
use cornjacket_core::source::{Reader, ReaderFactory};
use cornjacket_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::messages::EventSettings;

/// Its entry in the registry.
pub const SPEC: SourceSpec = SourceSpec {
    description: Description {
        kind: "file",
        summary: "Reads events from files to their end: NDJSON, CSV or Parquet.",
        guarantee: "Every line or row is stored exactly once, also over crashes and second runs: the position in each \
                    file is stored in one commit with the events. What cannot be used becomes a dead letter with its \
                    place. A run whose sources all end closes every window and ends with exit code 0.",
        example: "path: readings.ndjson",
        schema: || schemars::schema_for!(Settings),
    },
    parse: parse_settings::<Settings>,
    build,
};

/// Settings of the file source.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file, or a pattern such as `readings/*.csv`, relative to the pipeline file. Files are read in the order of
    /// their names.
    #[schemars(example = "readings/*.ndjson")]
    pub path: String,
    /// What is in the files; by their ending unless set (`.ndjson` and `.jsonl`, `.csv`, `.parquet`).
    #[serde(default)]
    pub format: Option<Format>,
    /// How a line or row becomes an event. Without it each line is a whole envelope, which only NDJSON can be.
    #[serde(default)]
    pub event: Option<EventSettings>,
}

/// What is in a file.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// Rows under a header line. An empty value is null.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    fn of(path: &str) -> Option<Self> {
        match Path::new(path).extension()?.to_str()? {
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

fn build(settings: &(dyn Any + Send + Sync), context: &SourceContext) -> std::result::Result<BuiltSource, Vec<Fault>> {
    let Some(settings) = settings.downcast_ref::<Settings>() else {
        return Err(vec![Fault::new("", "these are not the settings of a file")]);
    };
    let mut faults = Vec::new();
    let format = settings.format.or_else(|| Format::of(&settings.path));
    if format.is_none() {
        let message = format!("the ending of `{}` does not say what is in it", settings.path);
        faults.push(Fault::new("path", message).with_hint("add `format: ndjson`, `csv` or `parquet`"));
    }
    if let Err(error) = glob::Pattern::new(&settings.path) {
        faults.push(Fault::new("path", format!("this is no pattern of paths: {error}")));
    }
    if settings.event.is_none() && matches!(format, Some(Format::Csv | Format::Parquet)) {
        let hint = "add event: { type: sensor.reading, aggregate_id: \"${payload.device}\" }";
        let message = "a row is only a payload, and nothing says which event it is";
        faults.push(Fault::new("", message).with_hint(hint));
    }
    let envelope = settings.event.as_ref().map(|event| event.template(context, &[])).transpose();
    let envelope = envelope.map_err(|found| faults.extend(found));
    match (format, envelope, faults.is_empty()) {
        (Some(format), Ok(envelope), true) => Ok(BuiltSource::Read(Arc::new(Files {
            source: context.name.as_str().into(),
            folder: context.folder.clone(),
            path: settings.path.clone(),
            format,
            envelope: envelope.map(Arc::new),
        }))),
        _ => Err(faults),
    }
}

/// Files to read.
#[derive(Debug)]
struct Files {
    source: Arc<str>,
    folder: PathBuf,
    path: String,
    format: Format,
    envelope: Option<Arc<EnvelopeTemplate>>,
}

impl Files {
    /// The files there are, in the order of their names.
    fn find(&self) -> std::result::Result<Vec<PathBuf>, String> {
        let pattern = self.folder.join(&self.path);
        let shown = pattern.display();
        let paths =
            glob::glob(&pattern.to_string_lossy()).map_err(|error| format!("{shown} is no pattern: {error}"))?;
        let files: Vec<PathBuf> = paths
            .map(|path| path.map_err(|error| format!("{} cannot be read: {}", error.path().display(), error.error())))
            .filter(|path| path.as_ref().map_or(true, |path| !path.is_dir()))
            .collect::<std::result::Result<_, _>>()?;
        // Reading goes by position, so a pipe or a device cannot be read.
        if let Some(other) = files.iter().find(|file| !file.is_file()) {
            return Err(format!("{} is not a regular file", other.display()));
        }
        if files.is_empty() {
            let is_pattern = self.path.contains(['*', '?', '[']);
            return Err(if is_pattern {
                format!("no file matches {shown}")
            } else {
                format!("{shown} does not exist")
            });
        }
        Ok(files)
    }
}

impl ReaderFactory for Files {
    fn is_bounded(&self) -> bool {
        true
    }

    fn open(&self, position: Option<&str>, _: &Environment) -> Result<Box<dyn Reader>> {
        let files = self.find().map_err(Error::Conflict)?;
        let reader = reader::FilesReader::new(self, files, position)?;
        Ok(Box::new(reader))
    }

    fn describe(&self) -> String {
        format!("reads {} as {:?}", self.path, self.format).to_lowercase()
    }

    fn envelope(&self) -> Option<Arc<EnvelopeTemplate>> {
        self.envelope.clone()
    }

    fn reads(&self, file: &Path) -> bool {
        let pattern = glob::Pattern::new(&self.folder.join(&self.path).to_string_lossy());
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        pattern.is_ok_and(|pattern| pattern.matches_path_with(file, options))
    }

    fn probe(&self) -> std::result::Result<String, String> {
        let files = self.find()?;
        let mut bytes = 0;
        for file in &files {
            let opened = std::fs::File::open(file).and_then(|file| file.metadata());
            bytes += opened.map_err(|error| format!("{} cannot be read: {error}", file.display()))?.len();
        }
        let what = if files.len() == 1 { "1 file".to_string() } else { format!("{} files", files.len()) };
        Ok(format!("{what}, {bytes} bytes"))
    }
}
