//! Sinks and sources that get in each other's way outside: two sinks that write one file, a source that reads what a sink
//! writes.

use cornjacket_core::component::BuiltSource;

use crate::components::SourceEntry;
use crate::lower::ReadySink;
use crate::node::{Node, Span};
use crate::report::Report;

/// Reports what clashes. `sinks` and `sources` are those that are right by themselves.
pub(crate) fn check(root: &Node, sources: &[SourceEntry], sinks: &[ReadySink], report: &mut Report) {
    for (index, sink) in sinks.iter().enumerate() {
        let Some(path) = sink.factory.writes() else { continue };
        let place = place_of_path(root, &sink.name);
        if let Some(other) = sinks[..index].iter().find(|other| other.factory.writes().as_ref() == Some(&path)) {
            let message = format!("the sinks `{}` and `{}` would write the same file", other.name, sink.name);
            report.error("CJ409", &place, message, Some("give one of them another path".into()));
        }
        let reads = |source: &&SourceEntry| matches!(&source.built, BuiltSource::Read(reader) if reader.reads(&path));
        if let Some(source) = sources.iter().find(reads) {
            let message = format!("the source `{}` would read what the sink `{}` writes", source.name, sink.name);
            let hint = "write to another folder, or let the source's pattern leave the file out";
            report.error("CJ410", &place, message, Some(hint.into()));
        }
    }
}

/// Where the sink's path stands, or its name.
fn place_of_path(root: &Node, sink: &str) -> Span {
    let entry = root.entry("sinks").and_then(|sinks| sinks.value.entry(sink));
    let kind = entry.and_then(|entry| entry.value.entries()).and_then(<[_]>::first);
    let path = kind.and_then(|kind| kind.value.entry("path")).map(|path| path.value.span.clone());
    path.or_else(|| entry.map(|entry| entry.key_span.clone())).unwrap_or(0..0)
}
