//! The keys that a map of the pipeline file may have.

use crate::names::did_you_mean;
use crate::node::{Entry, Value};
use crate::report::Report;

/// The entries under a key. Reports it if there is no map under it, and every key that is not `known` (any is if `None`).
pub(crate) fn known_settings<'a>(
    entry: Option<&'a Entry>,
    known: Option<&'static [&'static str]>,
    report: &mut Report,
) -> &'a [Entry] {
    let Some(entry) = entry else { return &[] };
    let Some(entries) = entry.value.entries() else {
        let message = format!("expected a map under `{}`, found {}", entry.key, entry.value.kind());
        let first =
            known.and_then(|known| known.first()).map_or("setting: value".into(), |setting| format!("{setting}: …"));
        let example = match entry.key.as_str() {
            "events" => "sensor.reading: { payload: { value: double } }",
            "topics" => "sensor-events: { partitions: 8 }",
            "sources" => "api: { http: {} }",
            "streams" => "readings: SELECT … FROM …",
            "sinks" => "state: { projection: { from: …, key: […] } }",
            "watermark" => "delay: 5s",
            _ => first.as_str(),
        };
        let dashes = if matches!(entry.value.value, Value::List(_)) { ", without dashes and brackets" } else { "" };
        let hint = format!("write lines such as `{example}` under it{dashes}");
        report.error("CJ007", &entry.value.span, message, Some(hint));
        return &[];
    };
    if let Some(known) = known {
        unknown_keys(entries, known, report);
    }
    entries
}

/// Reports every key that is not known.
pub(crate) fn unknown_keys(entries: &[Entry], known: &[&str], report: &mut Report) {
    for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
        let message = format!("there is no setting `{}` here", entry.key.escape_debug());
        report.error("CJ006", &entry.key_span, message, Some(unknown_key_hint(entry, known)));
    }
}

/// What to write instead of an unknown key.
fn unknown_key_hint(entry: &Entry, known: &[&str]) -> String {
    if let (Some((key, value)), Value::Null) = (entry.key.split_once(':'), &entry.value.value) {
        return format!("write a space after the colon: {key}: {value}");
    }
    if matches!(entry.value.value, Value::Null) && entry.key.contains(' ') {
        return "a comma ends a value inside of braces: put the text before it, with this, into quotes".into();
    }
    match entry.key.as_str() {
        "required" if known.contains(&"optional") => {
            "leave it out: a field is required unless it is `optional: true`".into()
        }
        "default" if known.contains(&"optional") => {
            format!(
                "make the field `optional: true`, and give the default in SQL: coalesce(field, {})",
                entry.value.text().unwrap_or("…")
            )
        }
        key => did_you_mean(key, known.iter().copied()),
    }
}

/// Reports a setting of the language that this version does not have: it is refused, not ignored.
pub(crate) fn refuse_unbuilt(entry: &Entry, setting: &str, hint: &str, report: &mut Report) {
    if let Some(found) = entry.value.entry(setting) {
        let message = format!("`{setting}` is not supported in this version");
        report.error("CJ009", &found.key_span, message, Some(hint.into()));
    }
}
