//! The keys that a map of the pipeline file may have.

use crate::names::did_you_mean;
use crate::node::Entry;
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
        report.error("CJ007", &entry.value.span, message, Some("write `name: value` lines under it".into()));
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
        let hint = did_you_mean(&entry.key, known.iter().copied());
        report.error("CJ006", &entry.key_span, format!("there is no setting `{}` here", entry.key), Some(hint));
    }
}

/// Reports a setting of the language that this version does not have: it is refused, not ignored.
pub(crate) fn refuse_unbuilt(entry: &Entry, setting: &str, hint: &str, report: &mut Report) {
    if let Some(found) = entry.value.entry(setting) {
        let message = format!("`{setting}` is not supported in this version");
        report.error("CJ009", &found.key_span, message, Some(hint.into()));
    }
}
