//! The sections `sources:` and `sinks:`: `name: { kind: settings }`.
//!
//! The compiler knows nothing of any kind. Kinds come from the registry, settings are read and checked by the component,
//! and its faults are placed here by the names of the settings.

use std::any::Any;
use std::sync::Arc;

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::component::{Fault, ParseSettings, Registry, SinkContext, SinkSpec, SourceSpec, erased};

use crate::lower::ReadySink;
use crate::names::did_you_mean;
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
}

/// Reads the section `sources:`.
pub(crate) fn sources(section: Option<&Entry>, registry: &Registry, report: &mut Report) -> Vec<SourceEntry> {
    let specs: &'static [SourceSpec] = registry.sources;
    let mut sources = Vec::new();
    for entry in known_settings(section, None, report) {
        let Some((kind, spec)) = kind_of(entry, specs, |spec| spec.description.kind, report) else { continue };
        if let Some(settings) = parse(kind, spec.parse, report) {
            sources.push(SourceEntry { name: entry.key.clone(), spec, settings });
        }
    }
    sources
}

/// Reads the section `sinks:`, and checks and configures each against what it reads.
pub(crate) fn sinks(
    section: Option<&Entry>,
    registry: &Registry,
    catalogue: &Catalogue,
    streams: &Streams,
    report: &mut Report,
) -> Vec<ReadySink> {
    let specs: &'static [SinkSpec] = registry.sinks;
    let mut ready = Vec::new();
    for entry in known_settings(section, None, report) {
        let Some((kind, spec)) = kind_of(entry, specs, |spec| spec.description.kind, report) else { continue };
        let Some(settings) = parse(kind, spec.parse, report) else { continue };
        let from = (spec.from)(&*settings).to_string();
        let Some(context) = context(&entry.key, &from, kind, (catalogue, streams), report) else { continue };
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
    let names = || specs.iter().map(&name_of);
    let Some([kind]) = entry.value.entries() else {
        let example = names().next().unwrap_or("kind");
        let message = format!("`{}` needs exactly one kind with its settings under it", entry.key);
        let hint =
            format!("write {}: {{ {example}: {{ … }} }}; kinds: {}", entry.key, names().collect::<Vec<_>>().join(", "));
        report.error("CJ401", &entry.key_span, message, Some(hint));
        return None;
    };
    let spec = specs.iter().find(|spec| name_of(spec) == kind.key);
    if spec.is_none() {
        let hint = did_you_mean(&kind.key, names());
        report.error("CJ402", &kind.key_span, format!("there is no kind `{}` here", kind.key), Some(hint));
    }
    Some((kind, spec?))
}

fn parse(kind: &Entry, parse: ParseSettings, report: &mut Report) -> Option<Box<dyn Any + Send + Sync>> {
    read_with(&kind.value, &kind.key_span, report, |deserializer| {
        parse(&mut <dyn erased::Deserializer>::erase(deserializer))
    })
}

/// What a sink is built from; `None` if it reads nothing there is, which is reported unless its cause is already.
fn context(
    name: &str,
    from: &str,
    kind: &Entry,
    (catalogue, streams): (&Catalogue, &Streams),
    report: &mut Report,
) -> Option<SinkContext> {
    let context = |schema, event_type, updating| SinkContext { name: name.into(), schema, event_type, updating };
    if let Some(stream) = streams.get(from) {
        return Some(context(Arc::clone(stream.relation.schema()), None, stream.updating));
    }
    if let Some(event_type) = catalogue.types.get(from) {
        return Some(context(Arc::clone(event_type.table_schema()), Some(Arc::clone(event_type)), false));
    }
    if !streams.broken.contains(from) {
        let known = streams.streams.iter().map(|stream| stream.name.as_str());
        let hint = did_you_mean(from, known.chain(catalogue.types.keys().map(String::as_str)));
        let place = kind.value.entry("from").map_or(&kind.key_span, |setting| &setting.value.span);
        report.error("CJ404", place, format!("there is no stream or event type `{from}`"), Some(hint));
    }
    None
}

fn report_fault(fault: Fault, kind: &Entry, report: &mut Report) {
    let span = place_of(&fault, kind);
    report.error("CJ405", &span, fault.message, fault.hint);
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
