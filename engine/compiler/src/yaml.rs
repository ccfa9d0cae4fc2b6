//! YAML text to [`Node`]s.
//!
//! The YAML library gives types to plain scalars (`8`, `on`, `1e3`); those are undone here by reading the text again from
//! the file, since only the reader of a setting knows which type it should have. Depth, size and aliases are bounded, so
//! no file can exhaust the stack or the memory.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, Spanned};

use crate::node::{Entry, Node, Scalar, Span, Value};
use crate::report::Report;
use crate::yaml_fault::{YamlFault, explain};

/// Deeper nesting is refused; the deepest sensible pipeline has about ten levels.
const MAX_DEPTH: usize = 40;
/// More keys and values than this are refused, counted after aliases are followed.
const MAX_NODES: usize = 100_000;

/// Reads the report's file; what is wrong with it is reported, and `None` comes back if it has no tree.
pub(crate) fn parse(report: &mut Report) -> Option<Node> {
    let file = report.file();
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES, max_events: 4 * MAX_NODES },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(&file.text, options) {
        Ok(root) => Some(Converter { text: &file.text, report }.node(root)),
        Err(error) => {
            report_error(&error, report);
            None
        }
    }
}

fn report_error(error: &Error, report: &mut Report) {
    let file = report.file();
    let at = error.location().map_or(0, |location| start_of(&location, &file.text));
    let rendered = error.without_snippet().to_string();
    let message = rendered.lines().next().unwrap_or_default();
    let message = message.split(" at line ").next().unwrap_or(message).trim_end_matches(['.', ':']);
    let YamlFault { span, message, hint } = explain(&file.text, &(at..at), message);
    report.error("CJ002", &span, message, Some(hint));
}

/// Where an error stands: the library gives a line and a column where it has no offset.
fn start_of(location: &Location, text: &str) -> usize {
    if location.span().byte_offset().is_some() {
        return span_of(location, text).start;
    }
    let start = line_start(text, location.line());
    let line = text[start..].split('\n').next().unwrap_or_default();
    let column = usize::try_from(location.column().saturating_sub(1)).unwrap_or(usize::MAX);
    start + line.char_indices().nth(column).map_or(line.len(), |(at, _)| at)
}

/// A value as the library gives it.
enum Raw {
    Null,
    /// A plain scalar that looks like a boolean or a number: its text is taken from the file.
    Typed,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_string()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

/// Bytes of a location, cut to the text and to whole characters.
fn span_of(location: &Location, text: &str) -> Span {
    let bound = |at: Option<u64>| at.and_then(|at| usize::try_from(at).ok()).unwrap_or(0).min(text.len());
    let span = location.span();
    let start = match span.byte_offset() {
        Some(_) => bound(span.byte_offset()),
        None => line_start(text, location.line()),
    };
    let end = bound(span.byte_offset().zip(span.byte_len()).map(|(at, length)| at.saturating_add(length)));
    whole_characters(text, start..end.max(start))
}

fn line_start(text: &str, line: u64) -> usize {
    let before = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    text.split_inclusive('\n').take(before).map(str::len).sum()
}

fn whole_characters(text: &str, span: Range<usize>) -> Span {
    let boundary = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    boundary(span.start)..boundary(span.end)
}

struct Converter<'a> {
    text: &'a str,
    report: &'a mut Report,
}

impl Converter<'_> {
    fn node(&mut self, raw: Spanned<Raw>) -> Node {
        let span = self.span(&raw.referenced, &raw.defined);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Typed => {
                // `!!int "3"` is a number.
                let text = self.text[span.clone()].trim().trim_matches(['"', '\'']);
                Value::Scalar(Scalar { text: text.into(), quoted: false, expanded: false })
            }
            Raw::Text(text) => Value::Scalar(Scalar { quoted: self.is_text(&span), text, expanded: false }),
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(entries) => Value::Map(self.entries(entries)),
        };
        Node { span, value }
    }

    /// An aliased value points at its definition: that is the text to change.
    fn span(&self, referenced: &Location, defined: &Location) -> Span {
        let location = if *defined == Location::UNKNOWN { referenced } else { defined };
        span_of(location, self.text)
    }

    /// Whether a scalar is a text whatever it looks like: by its quotes or its tag.
    fn is_text(&self, span: &Span) -> bool {
        let has_tag = || self.text[..span.start].trim_end().ends_with("!!str");
        self.text[span.start..].starts_with(['"', '\'', '|', '>']) || has_tag()
    }

    /// A key written twice is reported, and its first value counts.
    fn entries(&mut self, raw: Vec<(Spanned<String>, Spanned<Raw>)>) -> Vec<Entry> {
        let mut starts: HashMap<String, usize> = HashMap::new();
        let mut entries = Vec::new();
        for (key, value) in raw {
            let key_span = self.span(&key.referenced, &key.defined);
            if let Some(start) = starts.get(&key.value) {
                let (line, _) = self.report.file().line_column(*start);
                let message = format!("`{}` is here twice; it stands on line {line} already", key.value);
                self.report.error(
                    "CJ003",
                    &key_span,
                    message,
                    Some("remove one of them, or give it another name".into()),
                );
                continue;
            }
            starts.insert(key.value.clone(), key_span.start);
            let value = self.node(value);
            entries.push(Entry { key: key.value, key_span, value });
        }
        entries
    }
}
