//! Kinds of sources and sinks that are not where they should be, and what to write instead.

use crate::names::{did_you_mean, meant};
use crate::node::{Entry, Value};

/// Kinds of the language; a build need not have all of them.
const SOURCES: [&str; 5] = ["http", "mqtt", "kafka", "file", "generator"];
const SINKS: [&str; 7] = ["projection", "inference", "webhook", "kafka", "file", "stdout", "timescale"];

/// What to write where there is not exactly one kind under a name.
pub(crate) fn no_kind(entry: &Entry, names: &[&str]) -> String {
    let name = &entry.key;
    let kinds = names.join(", ");
    let entries = entry.value.entries().unwrap_or_default();
    let under = |kind: &str, settings: &str| format!("write {name}: {{ {kind}: {{{settings}}} }}");
    if let Some(kind) = entry.value.text().and_then(|kind| meant(kind, names.iter().copied())) {
        return format!("{}; settings go into the inner braces", under(kind, ""));
    }
    if let Some(kind) = named_by_setting(entries, names) {
        let others =
            entries.iter().filter(|setting| !is_kind_setting(setting)).map(|setting| format!("{}: …", setting.key));
        let settings = others.collect::<Vec<_>>().join(", ");
        let settings = if settings.is_empty() { settings } else { format!(" {settings} ") };
        return format!("the kind is the key over its settings: {}", under(kind, &settings));
    }
    if names.contains(&name.as_str()) {
        let settings = entries.iter().map(|setting| format!("{}: …", setting.key)).collect::<Vec<_>>().join(", ");
        let settings = if settings.is_empty() { settings } else { format!(" {settings} ") };
        return format!("`{name}` is a kind, and a name stands over it: my_{name}: {{ {name}: {{{settings}}} }}");
    }
    let (kind, beside): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|part| names.contains(&part.key.as_str()));
    match (kind.as_slice(), beside.as_slice()) {
        ([kind], [_, ..]) if matches!(kind.value.value, Value::Null) => {
            let settings = beside.iter().map(|part| format!("`{}`", part.key)).collect::<Vec<_>>().join(", ");
            format!("indent {settings} further, so that they are under `{}`", kind.key)
        }
        ([_, ..], _) if kind.len() > 1 || !beside.is_empty() => {
            format!("give each kind a name of its own; kinds here: {kinds}")
        }
        ([], [_, ..]) => {
            let settings = beside.iter().map(|part| format!("{}: …", part.key)).collect::<Vec<_>>().join(", ");
            format!(
                "write the kind over its settings: {}; kinds: {kinds}",
                under(names.first().unwrap_or(&"kind"), &format!(" {settings} "))
            )
        }
        _ => format!("{}; kinds: {kinds}", under(names.first().unwrap_or(&"kind"), "")),
    }
}

fn is_kind_setting(setting: &Entry) -> bool {
    matches!(setting.key.as_str(), "type" | "kind" | "connector")
}

/// The kind that a `type:` names, as other tools have it.
fn named_by_setting<'a>(entries: &[Entry], names: &[&'a str]) -> Option<&'a str> {
    let setting = entries.iter().find(|setting| is_kind_setting(setting))?;
    meant(setting.value.text()?, names.iter().copied())
}

/// What is wrong with a kind that is not known, and what to write.
pub(crate) fn unknown(kind: &str, names: &[&str]) -> (String, String) {
    let list = names.join(", ");
    let here_are_sinks = names.contains(&"projection");
    let (ours, others, what) =
        if here_are_sinks { (&SINKS[..], &SOURCES[..], "source") } else { (&SOURCES[..], &SINKS[..], "sink") };
    if ours.contains(&kind) {
        return (format!("the kind `{kind}` is not in this version"), format!("kinds here: {list}"));
    }
    if others.contains(&kind) {
        return (format!("`{kind}` is a kind of {what}"), format!("move it to `{what}s:`; kinds here: {list}"));
    }
    (format!("there is no kind `{}` here", kind.escape_debug()), did_you_mean(kind, names.iter().copied()))
}
