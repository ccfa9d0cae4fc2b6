//! What comes from the environment: `${NAME}`, `${NAME:-default}` and `${file:/path}` inside values.
//!
//! Expansion works on parsed values, so that nothing in a variable can break the file or add settings to it. What was
//! expanded is not expanded again. Lower-case placeholders (`${topic.1}`) stay: they are filled per message.
//! `$${` stands for a literal `${`.

use std::ops::Range;
use std::path::Path;

use crate::files::read_text;
use crate::node::{Node, Scalar, Span, Value};
use crate::position::locate;
use crate::report::{Care, Report};

/// Looks up an environment variable.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where texts are templates, whose own reader knows `$${`: by the section and the key of the setting.
const TEMPLATES: [(&str, &str); 2] = [("sources", "event"), ("sinks", "body")];

/// Expands every value of the tree in place.
pub(crate) fn expand(root: &mut Node, environment: Environment<'_>, report: &mut Report) {
    expand_in(root, &mut Vec::new(), environment, report);
}

/// `keys` lead to the node.
fn expand_in(node: &mut Node, keys: &mut Vec<String>, environment: Environment<'_>, report: &mut Report) {
    let span = node.span.clone();
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| expand_in(item, keys, environment, report)),
        Value::Map(entries) => {
            for entry in entries {
                keys.push(entry.key.clone());
                expand_in(&mut entry.value, keys, environment, report);
                keys.pop();
            }
        }
        Value::Scalar(scalar) if scalar.text.contains("${") => {
            let is_template = TEMPLATES.iter().any(|(section, setting)| {
                keys.first().is_some_and(|key| key == section) && keys.iter().any(|key| key == setting)
            });
            let (text, faults) = expand_text(&scalar.text, is_template, environment);
            if report.care() == Care::Check {
                warn_of_required(&scalar.text, &span, environment, report);
            }
            let is_unfilled = !faults.is_empty();
            for fault in faults {
                let place = locate(&report.file().text, &span, &scalar.text, &fault.at);
                report.error(fault.code, &place, fault.message, Some(fault.hint));
            }
            if is_unfilled {
                report.mark_unfilled(&span);
            }
            let expanded = text != scalar.text;
            *scalar = Scalar { text, quoted: scalar.quoted, expanded };
        }
        Value::Null | Value::Scalar(_) => {}
    }
}

/// Variables without a default that are set here: elsewhere they may not be.
fn warn_of_required(text: &str, span: &Span, environment: Environment<'_>, report: &mut Report) {
    let mut at = 0;
    while let Some(found) = text[at..].find("${").map(|found| at + found) {
        at = found + 2;
        let Some(name) = text[at..].split_once('}').map(|(name, _)| name) else { return };
        if text[..found].ends_with('$') || !is_variable(name) || environment(name).is_none() {
            continue;
        }
        let place = locate(&report.file().text, span, text, &(found..at + name.len() + 1));
        let message = format!("`{name}` is set here but has no default: where it is not set, the file is wrong");
        let hint = format!("give it a default if one makes sense: ${{{name}:-…}}");
        report.warning("CJ013", &place, message, &hint);
    }
}

/// What is wrong with a placeholder, and where in the text.
struct Fault {
    at: Range<usize>,
    code: &'static str,
    message: String,
    hint: String,
}

fn expand_text(text: &str, is_template: bool, environment: Environment<'_>) -> (String, Vec<Fault>) {
    let (mut out, mut faults) = (String::new(), Vec::new());
    let mut at = 0;
    while let Some(found) = text[at..].find("${").map(|found| at + found) {
        out.push_str(&text[at..found]);
        if out.ends_with('$') {
            out.push_str(if is_template { "${" } else { "{" });
            at = found + 2;
            continue;
        }
        let Some(length) = text[found..].find('}') else {
            faults.extend(unclosed(text, found));
            out.push_str(&text[found..]);
            return (out, faults);
        };
        let inner = &text[found + 2..found + length];
        at = found + length + 1;
        match value_of(inner, environment) {
            Ok(Some(value)) => out.push_str(&value),
            Ok(None) => out.push_str(&text[found..at]),
            Err((code, message, hint)) => faults.push(Fault { at: found..at, code, message, hint }),
        }
    }
    out.push_str(&text[at..]);
    (out, faults)
}

/// A placeholder without its end, if it was meant to be one of ours.
fn unclosed(text: &str, found: usize) -> Option<Fault> {
    let ours =
        text[found + 2..].starts_with(|c: char| c.is_ascii_uppercase()) || text[found + 2..].starts_with("file:");
    ours.then(|| Fault {
        at: found..found + 2,
        code: "CJ005",
        message: "`${` is not closed".into(),
        hint: "end the placeholder with `}`, or write `$${` for a literal `${`".into(),
    })
}

type Unresolved = (&'static str, String, String);

/// The value of a placeholder; `None` if it is filled per message.
fn value_of(inner: &str, environment: Environment<'_>) -> Result<Option<String>, Unresolved> {
    if let Some(path) = inner.strip_prefix("file:") {
        return secret(path).map(Some);
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if !is_variable(name) {
        return misspelt(inner).map_or(Ok(None), Err);
    }
    // As in a shell, `:-` also replaces an empty value.
    let value = environment(name).filter(|value| !value.is_empty() || default.is_none());
    value.or_else(|| default.map(str::to_string)).map(Some).ok_or_else(|| {
        let hint = format!("set {name}, or give it a default: ${{{name}:-…}}");
        ("CJ004", format!("the environment variable `{name}` is not set"), hint)
    })
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// A placeholder that was meant to be an environment variable, in the way of some other tool. What begins in lower case is
/// filled per message.
fn misspelt(inner: &str) -> Option<Unresolved> {
    let bare = inner.strip_prefix("env:").or_else(|| inner.strip_prefix("env.")).unwrap_or(inner).trim();
    let end = bare.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(bare.len());
    let (name, rest) = bare.split_at(end);
    if !is_variable(name) || rest.starts_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    let default = rest.trim_start_matches([':', '-', '=', '?', '|', ' ', '+']);
    let hint = if rest.is_empty() { format!("write ${{{name}}}") } else { format!("write ${{{name}:-{default}}}") };
    Some(("CJ005", format!("`${{{inner}}}` is no placeholder"), hint))
}

/// The text of a secret's file without the line break at its end.
fn secret(path: &str) -> Result<String, Unresolved> {
    match read_text(Path::new(path)) {
        Ok(text) => Ok(text.strip_suffix('\n').map_or(text.as_str(), |text| text.trim_end_matches('\r')).to_string()),
        Err(reason) => Err(("CJ005", format!("`{path}` {reason}"), "give the path of a readable text file".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> (String, Vec<String>) {
        let environment = |name: &str| match name {
            "URL" => Some("http://x".to_string()),
            "NESTED" => Some("${URL}".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let (out, faults) = expand_text(text, false, &environment);
        (out, faults.into_iter().map(|fault| format!("{:?} {}", fault.at, fault.message)).collect())
    }

    #[test]
    fn placeholders_are_filled_once_and_lower_case_ones_stay() {
        let cases = [
            ("a ${URL}/b ${URL:-no}", "a http://x/b http://x"),
            ("${NESTED}", "${URL}"),
            ("${MISSING:-de:-fault}|${EMPTY:-none}|${EMPTY}", "de:-fault|none|"),
            ("${topic.1} ${key} ${payload.ts} ${}", "${topic.1} ${key} ${payload.ts} ${}"),
            ("$${URL} $ {URL} $URL", "${URL} $ {URL} $URL"),
            ("${topic.1", "${topic.1"),
        ];
        for (text, wanted) in cases {
            assert_eq!(expanded(text), (wanted.to_string(), Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_is_named_with_its_place() {
        let (_, faults) = expanded("ä ${NO} ${file:/no/such/file} ${URL");
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("3..8 the environment variable `NO`"), "{faults:?}");
        assert!(faults[1].contains("/no/such/file"), "{faults:?}");
        assert!(faults[2].contains("not closed"), "{faults:?}");
    }
}
