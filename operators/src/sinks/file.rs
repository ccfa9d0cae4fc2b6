//! `file`: one row a line, NDJSON or CSV.
//!
//! Lines are written and synced before their epoch is committed, and the epoch's transaction records how long the file is
//! then; what a crash leaves behind that length is cut off at the next start. So the file holds each row exactly once. A
//! file that this pipeline did not write is never touched.

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cornjacket_core::batch::Batch;
use cornjacket_core::component::{Description, Fault, SinkContext, SinkSpec, parse_settings};
use cornjacket_core::graph::{Outlet, Sink, SinkFactory, SinkOutput};
use cornjacket_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::changes::{Changes, OPERATION, Stream, as_lines};

/// Its entry in the registry.
pub const SPEC: SinkSpec = SinkSpec {
    description: Description {
        kind: "file",
        summary: "Writes rows to a file, one a line, with what happened to each.",
        guarantee: "Effectively once: after a crash the file is cut back to what was committed, and goes on from there. \
                    While the disk is full the pipeline waits. A file that it did not write is refused.",
        example: "from: sensor.reading\npath: out.ndjson",
        schema: || schemars::schema_for!(Settings),
    },
    parse: parse_settings::<Settings>,
    from: |settings| settings.downcast_ref::<Settings>().map_or("", |settings| &settings.from),
    build,
};

/// Settings of the file sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The event type or stream whose rows it writes.
    #[schemars(example = &"minutes")]
    pub from: String,
    /// The file, relative to the pipeline file; its folder must be there.
    #[schemars(example = "out.ndjson")]
    pub path: String,
    /// How rows are written; by the path's ending unless set, `ndjson` if that says nothing.
    #[serde(default)]
    pub format: Option<Format>,
    /// Whether a new sink begins with the retained events or with what comes from now on.
    #[serde(default)]
    #[schemars(extend("default" = "beginning"))]
    pub start: Start,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object a line, with `op`.
    Ndjson,
    /// A header line, then a line a row, `op` first.
    Csv,
}

/// Where a new sink begins.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the retained events.
    #[default]
    Beginning,
    /// With what comes from now on.
    Now,
}

fn build(
    settings: &(dyn Any + Send + Sync),
    context: &SinkContext,
) -> std::result::Result<Arc<dyn SinkFactory>, Vec<Fault>> {
    let Some(settings) = settings.downcast_ref::<Settings>() else {
        return Err(vec![Fault::new("", "these are not the settings of a file")]);
    };
    let by_ending = if Path::new(&settings.path).extension().is_some_and(|ending| ending == "csv") {
        Format::Csv
    } else {
        Format::Ndjson
    };
    let format = settings.format.unwrap_or(by_ending);
    let mut faults = Vec::new();
    if settings.path.trim().is_empty() || settings.path.ends_with('/') {
        faults.push(Fault::new("path", "a file needs a name").with_hint("write path: out.ndjson"));
    }
    let fields = context.schema.fields();
    if fields.iter().any(|field| field.name() == OPERATION) {
        let message = format!("every line has `{OPERATION}` already, which says what happened to the row");
        let hint =
            format!("read from a stream that gives the column another name: SELECT {OPERATION} AS own_{OPERATION}, …");
        faults.push(Fault::new("from", message).with_hint(hint));
    }
    if let Some(nested) = fields.iter().find(|field| format == Format::Csv && field.data_type().is_nested()) {
        let message = format!("`{}` is nested, which CSV cannot hold", nested.name());
        faults.push(Fault::new("format", message).with_hint("write ndjson, or read from a stream with plain columns"));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let stream = Stream { schema: Arc::clone(&context.schema), updating: context.updating, key: context.key.clone() };
    let path = context.folder.join(&settings.path);
    Ok(Arc::new(Factory { path, format, start: settings.start, stream }))
}

#[derive(Clone, Debug)]
struct Factory {
    path: PathBuf,
    format: Format,
    start: Start,
    stream: Stream,
}

impl Factory {
    fn header(&self) -> Option<String> {
        let names = self.stream.schema.fields().iter().map(|field| field.name().as_str());
        let header = || std::iter::once(OPERATION).chain(names).collect::<Vec<_>>().join(",");
        (self.format == Format::Csv).then(header)
    }
}

impl SinkFactory for Factory {
    fn kind(&self) -> &'static str {
        SPEC.description.kind
    }

    fn starts_at_beginning(&self) -> bool {
        self.start == Start::Beginning
    }

    fn create(&self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Lines { format: self.format, stream: self.stream.clone() }))
    }

    fn outlet(&self, committed: Option<u64>) -> Result<Option<Box<dyn Outlet>>> {
        Ok(Some(Box::new(Appended::open(&self.path, committed, self.header())?)))
    }

    fn writes(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    fn probe(&self) -> std::result::Result<Option<String>, String> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let metadata = folder.metadata().map_err(|error| format!("the folder {}: {error}", folder.display()))?;
        if metadata.permissions().readonly() {
            return Err(format!("the folder {} cannot be written", folder.display()));
        }
        match self.path.metadata() {
            Ok(file) => Ok(Some(format!("{} is there, {} bytes", self.path.display(), file.len()))),
            Err(_) => Ok(Some(format!("{} will be made", self.path.display()))),
        }
    }

    fn describe(&self) -> String {
        format!("write {:?} to {}", self.format, self.path.display())
    }

    fn summary(&self) -> String {
        let format = match self.format {
            Format::Ndjson => "JSON",
            Format::Csv => "CSV",
        };
        format!("writes each change as a line of {format} to {}", self.path.display())
    }
}

struct Lines {
    format: Format,
    stream: Stream,
}

impl Sink for Lines {
    fn on_epoch(&mut self, _: u64, batches: Vec<Batch>) -> Result<SinkOutput> {
        if batches.is_empty() {
            return Ok(SinkOutput::default());
        }
        let changes = Changes::of(&batches, &self.stream)?;
        let lines = match self.format {
            Format::Ndjson => changes.json_lines(true)?,
            Format::Csv => changes.csv_lines()?,
        };
        Ok(as_lines(&batches, lines))
    }
}

/// A file that lines are appended to.
struct Appended {
    path: PathBuf,
    file: File,
    header: Option<String>,
}

impl Appended {
    fn open(path: &Path, committed: Option<u64>, header: Option<String>) -> Result<Self> {
        let shown = path.display();
        let failed = |error: std::io::Error| Error::Conflict(format!("the file {shown} cannot be written: {error}"));
        let there = path.metadata().map_or(0, |metadata| metadata.len());
        match committed {
            None if there > 0 => {
                return Err(Error::Conflict(format!(
                    "the file {shown} is there already, and this pipeline's data folder did not write it: move it away, or \
                     give the sink another path"
                )));
            }
            Some(committed) if there < committed => {
                return Err(Error::Conflict(format!(
                    "the file {shown} has {there} bytes and {committed} were written: it was changed or removed. Put it \
                     back, or write it anew by giving the sink another name"
                )));
            }
            _ => {}
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        file.set_len(committed.unwrap_or(0)).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(Self { path: path.into(), file, header })
    }

    fn put(&mut self, length: u64, lines: &[String]) -> std::io::Result<u64> {
        let header = self.header.iter().filter(|_| length == 0);
        let mut text = String::new();
        for line in header.chain(lines) {
            text.push_str(line);
            text.push('\n');
        }
        self.file.seek(SeekFrom::Start(length))?;
        self.file.write_all(text.as_bytes())?;
        let end = length + text.len() as u64;
        self.file.set_len(end)?;
        self.file.sync_data()?;
        Ok(end)
    }
}

impl Outlet for Appended {
    fn write(&mut self, length: u64, lines: &[String]) -> Result<u64> {
        self.put(length, lines).map_err(|error| {
            let text = format!("{}: {error}", self.path.display());
            if error.kind() == ErrorKind::StorageFull { Error::Full(text) } else { Error::Unavailable(text) }
        })
    }
}
