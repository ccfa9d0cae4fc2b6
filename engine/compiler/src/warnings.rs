//! What runs, but perhaps not as meant: parts that nothing uses, and parts that are there twice.

use cornjacket_core::aggregate::Relation;

use crate::components::warn_of_doubts;
use crate::lower::ReadySink;
use crate::node::{Entry, Node, Span};
use crate::report::{Care, Report};
use crate::streams::Streams;

/// Warns of a pipeline without errors.
pub(crate) fn warn(root: &Node, streams: &Streams, sinks: &[ReadySink], report: &mut Report) {
    let sources = entries(root, "sources");
    if sources.is_empty() {
        let hint = "add one, such as `sources: { api: { http: {} } }`";
        report.warning("CJ407", &place(root, "sources"), "the pipeline has no source, so no event can come in", hint);
    }
    for stream in &streams.streams {
        if is_always_empty(&stream.relation) {
            let message = format!("no row ever passes the conditions of `{}`", stream.name);
            let hint = "its WHERE is false whatever the row is: correct it, or remove the stream";
            report.warning("CJ310", &stream.name_span, message, hint);
        }
    }
    if sinks.is_empty() {
        let hint = "add one, such as a `projection`";
        report.warning(
            "CJ406",
            &place(root, "sinks"),
            "the pipeline has no sink, so nothing comes of its events",
            hint,
        );
        return;
    }
    unused_streams(streams, sinks, report);
    if report.care() == Care::Check {
        warn_of_doubts(sinks, root.entry("sinks"), report);
        kept_for_ever(root, streams, sinks, report);
    }
    twins(entries(root, "sinks"), report);
}

fn entries<'a>(root: &'a Node, section: &str) -> &'a [Entry] {
    root.entry(section).and_then(|entry| entry.value.entries()).unwrap_or_default()
}

/// Where to point at for something that a section does not have.
fn place(root: &Node, section: &str) -> Span {
    root.entry(section).or_else(|| root.entry("pipeline")).map_or(0..0, |entry| entry.key_span.clone())
}

fn unused_streams(streams: &Streams, sinks: &[ReadySink], report: &mut Report) {
    for stream in &streams.streams {
        let is_read = sinks.iter().any(|sink| sink.from == stream.name)
            || streams.streams.iter().any(|other| other.reads.contains(&stream.name));
        if !is_read {
            let message = format!("nothing reads the stream `{}`, so it is not computed", stream.name);
            report.warning("CJ306", &stream.name_span, message, "read it in a sink or another stream, or remove it");
        }
    }
}

/// A table with a row for each window grows as long as time goes on.
fn kept_for_ever(root: &Node, streams: &Streams, sinks: &[ReadySink], report: &mut Report) {
    for sink in sinks {
        let is_kept = sink.factory.projection().is_some() && sink.factory.retain().is_none();
        if !is_kept || !has_windows(&sink.from, streams) {
            continue;
        }
        let Some(entry) = root.entry("sinks").and_then(|section| section.value.entry(&sink.name)) else { continue };
        let message = format!("`{}` has a row for each window and keeps them all, so it grows for ever", sink.name);
        let hint = "say how long rows are wanted, such as `retain: 90d` (or 3650d for ten years)";
        report.warning("CJ414", &entry.key_span, message, hint);
    }
}

/// Whether rows of a stream come out of windows, its own or those of a stream that it reads.
fn has_windows(name: &str, streams: &Streams) -> bool {
    fn is_windowed(relation: &Relation, streams: &Streams) -> bool {
        match relation {
            Relation::Table { name, .. } => has_windows(name, streams),
            Relation::Transform { input, .. } => is_windowed(input, streams),
            Relation::Union { inputs } => inputs.iter().any(|input| is_windowed(input, streams)),
            Relation::Tumble { .. } => true,
        }
    }
    streams.get(name).is_some_and(|stream| is_windowed(&stream.relation, streams))
}

/// Sinks of one kind with the same settings do the same work twice.
fn twins(sinks: &[Entry], report: &mut Report) {
    for (at, sink) in sinks.iter().enumerate() {
        let Some(twin) = sinks[..at].iter().find(|other| other.value.says_the_same_as(&sink.value)) else { continue };
        let (line, _) = report.file().line_column(twin.key_span.start);
        let message = format!("`{}` does just what `{}` on line {line} does", sink.key, twin.key);
        report.warning("CJ408", &sink.key_span, message, "remove one of them, or change its settings");
    }
}

/// Whether a condition of the relation itself keeps every row out; what it reads is judged where it is declared.
fn is_always_empty(relation: &Relation) -> bool {
    match relation {
        Relation::Table { .. } => false,
        Relation::Transform { input, transform } => transform.is_always_empty() || is_always_empty(input),
        Relation::Union { inputs } => !inputs.is_empty() && inputs.iter().all(is_always_empty),
        Relation::Tumble { input, .. } => is_always_empty(input),
    }
}
