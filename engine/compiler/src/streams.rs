//! The section `streams:`: SQL over events and over other streams, compiled in the order of dependency.
//!
//! What reads something broken is not reported itself: there is one diagnostic per cause.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cornjacket_core::aggregate::Relation;
use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::diagnostic::{Diagnostic, Place, SourceFile};
use cornjacket_core::setting;
use cornjacket_sql::stream::tables_of;
use cornjacket_sql::{SqlFault, StreamOptions, Tables, compile_stream};

use crate::events::Broken;
use crate::files::read_text;
use crate::isolated::isolated;
use crate::names::is_identifier;
use crate::node::{Entry, Span, Value};
use crate::order::{Order, order};
use crate::position::locate;
use crate::report::Report;
use crate::section::{known_settings, refuse_unbuilt};
use crate::settings::read;

/// A stream that compiled.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) name_span: Span,
    pub(crate) relation: Relation,
    /// The streams and event types that it reads.
    pub(crate) reads: BTreeSet<String>,
    /// Whether it takes rows back.
    pub(crate) updating: bool,
}

/// Every stream of the file.
#[allow(clippy::struct_field_names, reason = "the streams are what it holds; the rest is beside them")]
pub(crate) struct Streams {
    /// Those that compiled; what a stream reads comes before it.
    pub(crate) streams: Vec<Stream>,
    /// Names of streams and event types that are wrong, reported already.
    pub(crate) broken: Broken,
    /// The SQL files that they are in.
    pub(crate) files: BTreeSet<PathBuf>,
    /// What is in the file beside them.
    pub(crate) others: Others,
}

impl Streams {
    pub(crate) fn get(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.name == name)
    }
}

/// A stream as it was declared.
struct Declared {
    name: String,
    name_span: Span,
    sql: String,
    origin: Origin,
    lateness: i64,
    lateness_span: Option<Span>,
}

/// Where the SQL of a stream stands.
enum Origin {
    /// In a scalar of the pipeline file, as it is.
    Scalar(Span),
    /// In a scalar that was changed by the environment, so that only the scalar as a whole can be pointed at.
    Expanded(Span),
    File(Arc<SourceFile>),
}

/// The longest SQL of a stream, in bytes: it bounds how deep its expressions nest.
const MAX_SQL: usize = 32 << 10;

/// The most relations on top of each other in a stream, so that they can be walked recursively from here on.
const MAX_DEPTH: usize = 256;

/// Reads and compiles the section. `broken` holds the event types that are wrong.
pub(crate) fn streams(
    section: Option<&Entry>,
    catalogue: &Catalogue,
    (broken, others): (Broken, Others),
    folder: &Path,
    report: &mut Report,
) -> Streams {
    let schemas = catalogue.types.iter().map(|(name, t)| (name.clone(), Arc::clone(t.table_schema()))).collect();
    let streams = Streams { streams: Vec::new(), broken, files: BTreeSet::new(), others };
    let mut compiler = Compiler { tables: Tables { schemas }, streams, report };
    let declared = compiler.declared(section, folder);
    let reads: BTreeMap<&str, BTreeSet<String>> =
        declared.iter().map(|stream| (stream.name.as_str(), reads_of(&stream.sql))).collect();
    let Order { sorted, cycles } = order(&declared.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), &reads);
    for cycle in cycles {
        compiler.report_cycle(&cycle, &declared);
    }
    for index in sorted {
        let stream = &declared[index];
        compiler.compile(stream, &reads[stream.name.as_str()]);
    }
    compiler.streams
}

/// What a stream reads; nothing if that cannot be told, and compiling it says why.
fn reads_of(sql: &str) -> BTreeSet<String> {
    isolated(|| tables_of(sql)).unwrap_or_default().into_iter().collect()
}

/// Names in the file that are neither streams nor event types, and what they are.
pub(crate) type Others = BTreeMap<String, &'static str>;

struct Compiler<'a> {
    tables: Tables,
    streams: Streams,
    report: &'a mut Report,
}

impl Compiler<'_> {
    fn declared(&mut self, section: Option<&Entry>, folder: &Path) -> Vec<Declared> {
        let mut declared = Vec::new();
        for entry in known_settings(section, None, self.report) {
            // A name that is no name is reported; its SQL could not be read by anyone.
            match declare(entry, folder, self.report).filter(|stream| is_identifier(&stream.name)) {
                Some(stream) => {
                    if let Origin::File(file) = &stream.origin {
                        self.streams.files.insert(file.path.clone());
                    }
                    declared.push(stream);
                }
                None => {
                    self.streams.broken.insert(entry.key.clone());
                }
            }
        }
        declared
    }

    fn report_cycle(&mut self, cycle: &[usize], declared: &[Declared]) {
        let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|at| declared[*at].name.as_str()).collect();
        let Some(first) = cycle.first() else { return };
        let (message, hint) = if cycle.len() == 1 {
            (format!("the stream `{}` reads itself", names[0]), "read an event type or another stream".to_string())
        } else {
            let message = format!("these streams read each other in a circle: {}", names.join(" <- "));
            (message, "let one of them read event types only".to_string())
        };
        self.report.error("CJ301", &declared[*first].name_span, message, Some(hint));
        for at in cycle {
            self.streams.broken.insert(declared[*at].name.as_str());
        }
    }

    fn compile(&mut self, stream: &Declared, reads: &BTreeSet<String>) {
        if reads.iter().any(|name| self.streams.broken.contains(name)) {
            self.streams.broken.insert(stream.name.clone());
            return;
        }
        let options = StreamOptions { lateness: stream.lateness };
        let compiled =
            isolated(|| compile(&stream.sql, &self.tables, options)).unwrap_or_else(|reason| internal(&reason));
        let compiled = compiled.map_err(|faults| self.report_faults(stream, faults)).ok();
        let checked = compiled.and_then(|relation| self.check_updates(stream, relation));
        match checked {
            Some((relation, updating)) => {
                self.tables.schemas.insert(stream.name.clone(), Arc::clone(relation.schema()));
                let (name, name_span) = (stream.name.clone(), stream.name_span.clone());
                self.streams.streams.push(Stream { name, name_span, relation, reads: reads.clone(), updating });
            }
            None => {
                self.streams.broken.insert(stream.name.clone());
            }
        }
    }

    /// Whether the stream takes rows back; `None` if it cannot work that way.
    fn check_updates(&mut self, stream: &Declared, relation: Relation) -> Option<(Relation, bool)> {
        let nature = Nature::of(&relation, &self.streams);
        if nature.windows_over_updates {
            let message = format!("the window of `{}` would count rows that are taken back later", stream.name);
            let hint = "set `lateness` only on the last windowed stream of a chain; windows over updates are not supported in this version";
            self.report.error("CJ305", &stream.name_span, message, Some(hint.into()));
            return None;
        }
        if let (Some(span), false) = (&stream.lateness_span, nature.has_window) {
            let message = format!("`lateness` has no effect on `{}`, which has no window", stream.name);
            self.report.error(
                "CJ304",
                span,
                message,
                Some("remove it, or set it on the stream with the window".into()),
            );
            return None;
        }
        Some((relation, nature.reads_updates || (nature.has_window && stream.lateness > 0)))
    }

    fn report_faults(&mut self, stream: &Declared, faults: Vec<SqlFault>) {
        for fault in faults {
            let place = self.place_of(stream, &fault);
            let mut diagnostic = Diagnostic::error(fault.code, Some(place), fault.message);
            diagnostic.hint = self.other_name(&diagnostic).or(fault.hint);
            self.report.push(diagnostic);
        }
    }

    /// A table that is no table, but something else of this file.
    fn other_name(&self, diagnostic: &Diagnostic) -> Option<String> {
        let name = diagnostic.message.split('`').nth(1).filter(|_| diagnostic.code == "CJ209")?;
        let what = self.streams.others.get(name)?;
        Some(format!("`{name}` is a {what}; SQL reads event types and streams: {}", names_of(&self.tables).join(", ")))
    }

    fn place_of(&self, stream: &Declared, fault: &SqlFault) -> Place {
        let file = self.report.file();
        match (&stream.origin, &fault.span) {
            (Origin::File(sql_file), span) => Place {
                file: Arc::clone(sql_file),
                span: span.clone().unwrap_or_else(|| 0..stream.sql.trim_end().len()),
            },
            (Origin::Scalar(scalar), Some(wanted)) => {
                let span = locate(&file.text, scalar, &stream.sql, wanted);
                Place { file, span }
            }
            (Origin::Expanded(scalar), Some(_)) => Place { file, span: scalar.clone() },
            (Origin::Scalar(_) | Origin::Expanded(_), None) => Place { file, span: stream.name_span.clone() },
        }
    }
}

fn names_of(tables: &Tables) -> Vec<&str> {
    tables.schemas.keys().map(String::as_str).collect()
}

fn compile(sql: &str, tables: &Tables, options: StreamOptions) -> Result<Relation, Vec<SqlFault>> {
    let relation = compile_stream(sql, tables, options)?;
    if depth(&relation) <= MAX_DEPTH {
        return Ok(relation);
    }
    let (message, hint) = ("the SQL is nested too deeply".into(), Some("write it as several streams".into()));
    Err(vec![SqlFault { code: "CJ309", span: None, message, hint }])
}

fn depth(relation: &Relation) -> usize {
    1 + match relation {
        Relation::Table { .. } => 0,
        Relation::Transform { input, .. } | Relation::Tumble { input, .. } => depth(input),
        Relation::Union { inputs } => inputs.iter().map(depth).max().unwrap_or(0),
    }
}

/// A fault of the SQL engine rather than of the SQL.
fn internal(reason: &str) -> Result<Relation, Vec<SqlFault>> {
    let message = format!("the SQL engine failed on this stream: {reason}");
    let hint = Some("write it in another way, perhaps as several streams, and report this".into());
    Err(vec![SqlFault { code: "CJ308", span: None, message, hint }])
}

/// What a relation does with time and with rows taken back.
#[derive(Clone, Copy, Default)]
struct Nature {
    has_window: bool,
    reads_updates: bool,
    windows_over_updates: bool,
}

impl Nature {
    fn of(relation: &Relation, streams: &Streams) -> Self {
        match relation {
            Relation::Table { name, .. } => {
                Self { reads_updates: streams.get(name).is_some_and(|stream| stream.updating), ..Self::default() }
            }
            Relation::Transform { input, .. } => Self::of(input, streams),
            Relation::Union { inputs } => {
                inputs.iter().map(|input| Self::of(input, streams)).fold(Self::default(), Self::or)
            }
            Relation::Tumble { input, window } => {
                let input = Self::of(input, streams);
                let over = input.reads_updates || (input.has_window && window.lateness > 0);
                Self { has_window: true, windows_over_updates: input.windows_over_updates || over, ..input }
            }
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            has_window: self.has_window || other.has_window,
            reads_updates: self.reads_updates || other.reads_updates,
            windows_over_updates: self.windows_over_updates || other.windows_over_updates,
        }
    }
}

fn declare(entry: &Entry, folder: &Path, report: &mut Report) -> Option<Declared> {
    let lateness_entry = entry.value.entry("lateness");
    let (sql, origin) = match &entry.value.value {
        Value::Scalar(_) => inline(entry, report)?,
        Value::List(_) => {
            let hint = format!("write the SQL itself, without dashes and brackets: {}: SELECT … FROM …", entry.key);
            report.error("CJ007", &entry.value.span, "a stream is one SQL text, and this is a list", Some(hint));
            return None;
        }
        _ => long_form(entry, folder, report)?,
    };
    let lateness = match lateness_entry {
        Some(setting) => read::<setting::Span>(setting, report)?.0,
        None => 0,
    };
    let lateness_span = lateness_entry.filter(|_| lateness > 0).map(|setting| setting.value.span.clone());
    if sql.len() > MAX_SQL {
        let message = format!("the SQL of `{}` is longer than {} KiB", entry.key, MAX_SQL >> 10);
        report.error("CJ309", &entry.key_span, message, Some("write it as several streams".into()));
        return None;
    }
    Some(Declared { name: entry.key.clone(), name_span: entry.key_span.clone(), sql, origin, lateness, lateness_span })
}

fn long_form(entry: &Entry, folder: &Path, report: &mut Report) -> Option<(String, Origin)> {
    let before = report.errors();
    known_settings(Some(entry), Some(&["sql", "sql_file", "lateness", "ttl", "time_zone"]), report);
    refuse_unbuilt(entry, "ttl", "leave it out: no state of this version needs one", report);
    refuse_unbuilt(entry, "time_zone", "leave it out: windows by day follow UTC", report);
    let found = match (entry.value.entry("sql"), entry.value.entry("sql_file")) {
        (Some(sql), None) => inline(sql, report),
        (None, Some(path)) => from_file(path, folder, report),
        (Some(_), Some(path)) => {
            let hint = Some("keep one of them".into());
            report.error("CJ303", &path.key_span, "a stream has either `sql` or `sql_file`, not both", hint);
            None
        }
        (None, None) => {
            if report.errors() == before {
                let hint = Some("write `sql: SELECT …` or `sql_file: path.sql` under it".into());
                report.error("CJ303", &entry.key_span, format!("the stream `{}` has no SQL", entry.key), hint);
            }
            None
        }
    };
    found.filter(|_| report.errors() == before)
}

fn inline(entry: &Entry, report: &mut Report) -> Option<(String, Origin)> {
    let sql: String = read(entry, report)?;
    let span = entry.value.span.clone();
    let is_expanded = matches!(&entry.value.value, Value::Scalar(scalar) if scalar.expanded);
    Some((sql, if is_expanded { Origin::Expanded(span) } else { Origin::Scalar(span) }))
}

fn from_file(entry: &Entry, folder: &Path, report: &mut Report) -> Option<(String, Origin)> {
    let path = folder.join(read::<String>(entry, report)?);
    match read_text(&path) {
        Ok(text) => Some((text.clone(), Origin::File(Arc::new(SourceFile { path, text })))),
        Err(reason) => {
            let message = format!("the SQL file `{}` {reason}", path.display());
            let hint = "the path is relative to the pipeline file".to_string();
            report.error("CJ302", &entry.value.span, message, Some(hint));
            None
        }
    }
}
