//! The sections `sources:` and `sinks:`: `name: { kind: settings }`.
//!
//! The compiler knows nothing of any kind. Kinds come from the registry, settings are read and checked by the component,
//! and its faults are placed here by the names of the settings.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::component::{
    BuiltSource, Fault, ParseSettings, Registry, SinkContext, SinkSpec, SourceContext, SourceSpec, erased,
};
use cornjacket_core::graph::Doubt;

use crate::key;
use cornjacket_sql::stream::plain_types;

use crate::kinds;
use crate::lower::ReadySink;
use crate::names::{did_you_mean, meant};
use crate::node::{Entry, Node, Span, Value};
use crate::report::Report;
use crate::section::known_settings;
use crate::settings::read_with;
use crate::streams::Streams;

/// A source of the pipeline with its settings.
#[derive(Debug)]
pub struct SourceEntry {
    /// Its name in the file.
    pub name: String,
    /// Its kind.
    pub spec: &'static SourceSpec,
    /// Its settings, of the type that the kind's `parse` makes.
    pub settings: Box<dyn Any + Send + Sync>,
    /// What it was configured to.
    pub built: BuiltSource,
}

/// Reads the section `sources:`.
pub(crate) fn sources(
    section: Option<&Entry>,
    registry: &Registry,
    (catalogue, folder): (&Arc<Catalogue>, &Path),
    report: &mut Report,
) -> Vec<SourceEntry> {
    let specs: &'static [SourceSpec] = registry.sources;
    let mut sources = Vec::new();
    for entry in known_settings(section, None, report) {
        let Some((kind, spec)) = kind_of(entry, specs, |spec| spec.description.kind, report) else { continue };
        let Some(settings) = parse(kind, spec.parse, report) else { continue };
        let name = entry.key.clone();
        let context =
            SourceContext { name: name.clone(), catalogue: Arc::clone(catalogue), folder: folder.to_path_buf() };
        match (spec.build)(&*settings, &context) {
            Ok(built) => sources.push(SourceEntry { name, spec, settings, built }),
            Err(faults) => faults.into_iter().for_each(|fault| report_fault(fault, kind, report)),
        }
    }
    sources
}

/// Reads the section `sinks:`, and checks and configures each against what it reads.
pub(crate) fn sinks(
    section: Option<&Entry>,
    registry: &Registry,
    (catalogue, folder): (&Catalogue, &Path),
    streams: &Streams,
    report: &mut Report,
) -> Vec<ReadySink> {
    let specs: &'static [SinkSpec] = registry.sinks;
    let mut ready = Vec::new();
    for entry in known_settings(section, None, report) {
        let Some((kind, spec)) = kind_of(entry, specs, |spec| spec.description.kind, report) else { continue };
        let Some(settings) = parse(kind, spec.parse, report) else { continue };
        let from = (spec.from)(&*settings).to_string();
        let Some(context) = context((&entry.key, folder), &from, kind, (catalogue, streams), report) else { continue };
        match (spec.build)(&*settings, &context) {
            Ok(factory) => ready.push(ReadySink { name: entry.key.clone(), from, factory }),
            Err(faults) => faults.into_iter().for_each(|fault| report_fault(fault, kind, report)),
        }
    }
    ready
}

/// The entry of the kind under a component's name, and the kind's spec.
fn kind_of<'a, S>(
    entry: &'a Entry,
    specs: &'static [S],
    name_of: impl Fn(&S) -> &'static str,
    report: &mut Report,
) -> Option<(&'a Entry, &'static S)> {
    let names: Vec<&'static str> = specs.iter().map(&name_of).collect();
    let Some([kind]) = entry.value.entries().filter(|entries| !is_settings(entries, &names)) else {
        let message = format!("`{}` needs exactly one kind with its settings under it", entry.key);
        report.error("CJ401", &entry.key_span, message, Some(kinds::no_kind(entry, &names)));
        return None;
    };
    let spec = specs.iter().find(|spec| name_of(spec) == kind.key);
    if spec.is_none() {
        let (message, hint) = kinds::unknown(&kind.key, &names);
        report.error("CJ402", &kind.key_span, message, Some(hint));
    }
    Some((kind, spec?))
}

/// One setting alone, such as `type: http`, is no kind with settings under it.
fn is_settings(entries: &[Entry], names: &[&str]) -> bool {
    matches!(entries, [only] if only.value.text().is_some() && !names.contains(&only.key.as_str()))
}

fn parse(kind: &Entry, parse: ParseSettings, report: &mut Report) -> Option<Box<dyn Any + Send + Sync>> {
    read_with(&kind.value, &kind.key_span, report, |deserializer| {
        parse(&mut <dyn erased::Deserializer>::erase(deserializer))
    })
}

/// What a sink is built from; `None` if it reads nothing there is, which is reported unless its cause is already.
fn context(
    (name, folder): (&str, &Path),
    from: &str,
    kind: &Entry,
    (catalogue, streams): (&Catalogue, &Streams),
    report: &mut Report,
) -> Option<SinkContext> {
    let context = |schema, event_type, updating, key| SinkContext {
        name: name.into(),
        schema,
        event_type,
        updating,
        key,
        folder: folder.to_path_buf(),
    };
    if let Some(stream) = streams.get(from) {
        let key = key::of(&stream.relation, streams);
        return Some(context(Arc::clone(stream.relation.schema()), None, stream.updating, key));
    }
    if let Some(event_type) = catalogue.types.get(from) {
        return Some(context(Arc::clone(event_type.table_schema()), Some(Arc::clone(event_type)), false, None));
    }
    if !streams.broken.contains(from) {
        let hint = from_hint(from, catalogue, streams);
        let place = kind.value.entry("from").map_or(&kind.key_span, |setting| &setting.value.span);
        report.error("CJ404", place, format!("there is no stream or event type `{from}`"), Some(hint));
    }
    None
}

/// What to read from instead of something that is no stream and no event type.
fn from_hint(from: &str, catalogue: &Catalogue, streams: &Streams) -> String {
    let names = streams.streams.iter().map(|stream| stream.name.as_str());
    let names: Vec<&str> = names.chain(catalogue.types.keys().map(String::as_str)).collect();
    if let Some(what) = streams.others.get(from) {
        return format!("`{from}` is a {what}; a sink reads an event type or a stream: {}", names.join(", "));
    }
    if from.trim_start().to_ascii_lowercase().starts_with("select ") {
        return "write the SQL as a stream under `streams:`, and its name here".into();
    }
    let bare = from.trim_start_matches(['$', '{']).trim_end_matches('}');
    if from.starts_with('$') {
        return format!("an environment variable is written in upper case and in braces: ${{{}}}", bare.to_uppercase());
    }
    did_you_mean(from, names)
}

fn report_fault(fault: Fault, kind: &Entry, report: &mut Report) {
    let span = place_of(&fault, kind);
    let hint = near_column(&fault).or(fault.hint).as_deref().map(plain_types);
    report.error("CJ405", &span, plain_types(&fault.message), hint);
}

/// The column that was probably meant, where a component says that there is none of a name, and which there are.
fn near_column(fault: &Fault) -> Option<String> {
    let available = fault.hint.as_deref()?;
    let list = available.strip_prefix("available: ")?;
    let name = fault.message.strip_prefix("there is no column `")?.strip_suffix('`')?;
    let columns = list.split(", ").map(|column| column.split(' ').next().unwrap_or_default());
    let bare = name.rsplit('.').next().unwrap_or(name);
    let near = meant(name, columns.clone()).or_else(|| columns.clone().find(|column| *column == bare))?;
    Some(format!("did you mean `{near}`? Available: {list}"))
}

/// Says what is right here but perhaps not meant.
pub(crate) fn warn_of_doubts(sinks: &[ReadySink], section: Option<&Entry>, report: &mut Report) {
    for sink in sinks {
        let entry = section.and_then(|section| section.value.entry(&sink.name));
        let Some([kind]) = entry.and_then(|entry| entry.value.entries()) else { continue };
        for doubt in sink.factory.doubts() {
            let (code, fault) = match doubt {
                Doubt::Off(fault) => ("CJ411", fault),
                Doubt::Unsigned(fault) => ("CJ412", fault),
                Doubt::PrivateAddress(fault) => ("CJ413", fault),
            };
            let span = place_of(&fault, kind);
            report.warning(code, &span, fault.message, fault.hint.as_deref().unwrap_or_default());
        }
    }
}

/// The place of the setting that a fault names, or of the nearest thing around it that is in the file.
fn place_of(fault: &Fault, kind: &Entry) -> Span {
    let mut owner = kind;
    for part in fault.setting.split('.').filter(|part| !part.is_empty()) {
        let Some(inner) = owner.value.entry(part) else { return owner.key_span.clone() };
        owner = inner;
    }
    match (&owner.value, fault.index) {
        (Node { value: Value::List(items), .. }, Some(index)) if index < items.len() => items[index].span.clone(),
        (Node { value: Value::Scalar(_) | Value::List(_), span }, _) => span.clone(),
        _ => owner.key_span.clone(),
    }
}
