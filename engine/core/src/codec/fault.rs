//! What is wrong with an event: every fault with its place, collected and reported together.

use std::fmt;

use crate::door::{Detail, Rejection, RejectionKind};

/// More faults of one event than this are counted, not listed, so that a hostile body cannot make a huge answer.
const MAX_DETAILS: usize = 50;

/// Texts of the event are quoted up to this many characters.
const MAX_QUOTED: usize = 40;

/// A place in an event, linked back to the root through the stack of the readers, so that it costs nothing until a
/// fault asks for it.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    /// A field of the envelope.
    Root(&'static str),
    /// A field of an object.
    Field(&'p Path<'p>, &'p str),
    /// An item of a list.
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{}", clip(name)),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A value that stands where another was expected.
pub(super) enum Found<'a> {
    Null,
    Boolean(bool),
    Whole(i128),
    Real(f64),
    /// A number beyond every type, as it was sent.
    Beyond(&'a str),
    Text(&'a str),
    List,
    Object,
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Whole(value) => write!(f, "the number {value}"),
            Self::Real(value) => write!(f, "the number {value:?}"),
            Self::Beyond(raw) => write!(f, "the number {}", clip(raw)),
            Self::Text(value) => write!(f, "the text {}", quoted(value)),
            Self::List => f.write_str("a list"),
            Self::Object => f.write_str("an object"),
        }
    }
}

/// A rule that an event can break: its stable code, and whose rule it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub kind: RejectionKind,
    pub code: &'static str,
}

impl Rule {
    pub const ENVELOPE: Self = Self { kind: RejectionKind::Malformed, code: "invalid_envelope" };
    pub const CLOUD_EVENT: Self = Self { kind: RejectionKind::Malformed, code: "invalid_cloudevent" };
    pub const DATA_TYPE: Self = Self { kind: RejectionKind::Invalid, code: "unsupported_datacontenttype" };
    pub const EVENT_TYPE: Self = Self { kind: RejectionKind::Invalid, code: "unknown_event_type" };
    pub const PAYLOAD: Self = Self { kind: RejectionKind::Invalid, code: "invalid_payload" };
    pub const EVENT_TIME: Self = Self { kind: RejectionKind::Invalid, code: "invalid_event_time" };
    pub const TOO_FAR_AHEAD: Self = Self { kind: RejectionKind::Invalid, code: "too_far_ahead" };
    pub const EVENT_ID: Self = Self { kind: RejectionKind::Invalid, code: "invalid_event_id" };
    pub const AGGREGATE_ID: Self = Self { kind: RejectionKind::Invalid, code: "invalid_aggregate_id" };
}

/// The faults of one event; kept between events for its memory.
#[derive(Default)]
pub(super) struct Faults {
    found: Vec<(Rule, Detail)>,
    unlisted: usize,
}

impl Faults {
    pub fn clear(&mut self) {
        self.found.clear();
        self.unlisted = 0;
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn add(&mut self, rule: Rule, path: impl fmt::Display, message: impl Into<String>) {
        if self.found.len() < MAX_DETAILS {
            self.found.push((rule, Detail { path: path.to_string(), message: message.into() }));
        } else {
            self.unlisted += 1;
        }
    }

    /// Adds that there is no field of this name, with the nearest that there is. The search takes time, so it is left
    /// out where the fault is not listed.
    pub fn unknown<'a>(
        &mut self,
        rule: Rule,
        path: impl fmt::Display,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) {
        let hint = if self.found.len() < MAX_DETAILS { did_you_mean(name, known) } else { String::new() };
        self.add(rule, path, format!("is no field here{hint}"));
    }

    /// Adds that a value is of another type than expected.
    pub fn mismatch(&mut self, rule: Rule, path: &Path<'_>, expected: &str, found: &Found<'_>) {
        self.add(rule, path, format!("must be {expected}, but is {found}"));
    }

    /// Adds why something could not be read to its end.
    pub fn broken(&mut self, rule: Rule, path: impl fmt::Display, error: &serde_json::Error) {
        self.add(rule, path, format!("cannot be read: {}", reason(error)));
    }

    /// How many there are, to go back to with [`Faults::truncate`].
    pub fn count(&self) -> usize {
        self.found.len() + self.unlisted
    }

    /// Forgets all but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.found.truncate(count);
        self.unlisted = count.saturating_sub(self.found.len());
    }

    /// The rejection of the event. A broken envelope names the code before what does not fit the catalogue.
    pub fn reject(&mut self) -> Rejection {
        let leading = |(rule, _): &&(Rule, Detail)| rule.kind == RejectionKind::Malformed;
        let rule = self.found.iter().find(leading).or(self.found.first()).map_or(Rule::ENVELOPE, |(rule, _)| *rule);
        let count = self.count();
        let mut details: Vec<Detail> = self.found.drain(..).map(|(_, detail)| detail).collect();
        let message = match details.first() {
            Some(Detail { path, message }) if count == 1 => format!("`{path}` {message}"),
            _ => format!("the event has {count} faults"),
        };
        if self.unlisted > 0 {
            let message = format!("and {} more faults", self.unlisted);
            details.push(Detail { path: String::new(), message });
        }
        Rejection { kind: rule.kind, code: rule.code, message, details }
    }
}

/// What a JSON error says, without its line and column.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// A text in quotes, cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", clip(text))
}

/// The beginning of a text.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// ", did you mean `…`?" with the candidate nearest to a name, if one is near.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    // The distance takes time in the product of the lengths, and no long name is a typing error.
    if name.len() > 64 {
        return String::new();
    }
    let distance = |candidate: &'a str| (strsim::osa_distance(name, candidate), candidate);
    match candidates.map(distance).min() {
        Some((distance, candidate)) if distance <= (name.len() / 3).max(1) => format!(", did you mean `{candidate}`?"),
        _ => String::new(),
    }
}
