//! The sections `events:` and `topics:`: what may enter, and where it is kept.

use std::collections::{BTreeMap, BTreeSet};

use cornjacket_core::catalogue::{Catalogue, EventType, Field, UnknownFields, WatermarkPolicy, default_topic};
use cornjacket_core::setting;
use cornjacket_core::time::{Micros, SECOND};
use serde::Deserialize;

use crate::fields::{is_type, payload_fields};
use crate::names::{is_identifier, proposed_identifier};
use crate::node::{Entry, Node};
use crate::report::Report;
use crate::section::known_settings;
use crate::settings::read;

/// What the file says of events and topics.
pub(crate) struct Events {
    pub(crate) catalogue: Catalogue,
    /// Event types that are declared but wrong: whatever reads them is not reported a second time.
    pub(crate) broken: Broken,
}

/// Names of event types and streams that are wrong, which is reported.
#[derive(Debug, Default)]
pub(crate) struct Broken {
    names: BTreeSet<String>,
    /// The whole section `events:` is wrong, so no event type is known.
    events: bool,
}

impl Broken {
    pub(crate) fn insert(&mut self, name: impl Into<String>) {
        self.names.insert(name.into());
    }

    /// Whether a name is that of something wrong; event types have a dot in their names, streams have none.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name) || (self.events && name.contains('.'))
    }
}

/// The settings of an event type.
const SETTINGS: [&str; 4] = ["topic", "payload", "unknown_fields", "watermark"];

/// The most partitions that a topic may have.
const MAX_PARTITIONS: u32 = 1024;

/// Reads both sections.
pub(crate) fn events(events: Option<&Entry>, topics: Option<&Entry>, report: &mut Report) -> Events {
    let (mut types, mut broken, mut used) = (Vec::new(), Broken::default(), BTreeSet::new());
    broken.events = events.is_some_and(|entry| entry.value.entries().is_none());
    for entry in known_settings(events, None, report) {
        if let Some(event_type) = event_type(entry, report) {
            used.insert(event_type.topic.clone());
            types.push(event_type);
            continue;
        }
        for part in entry.value.entries().unwrap_or_default() {
            broken.insert(format!("{}.{}", entry.key, part.key));
        }
        broken.insert(entry.key.clone());
    }
    let (mut partitions, mut retain) = (BTreeMap::new(), BTreeMap::new());
    for entry in known_settings(topics, None, report) {
        if broken.names.is_empty() && !broken.events && !used.contains(&entry.key) {
            let topics = used.iter().map(|topic| format!("`{topic}`")).collect::<Vec<_>>().join(", ");
            let hint = format!("remove it, or name it as the `topic:` of an event type; in use are {topics}");
            report.warning("CJ108", &entry.key_span, format!("no event type goes to the topic `{}`", entry.key), &hint);
        }
        let (count, span) = topic(entry, report);
        partitions.extend(count.map(|count| (entry.key.clone(), count)));
        retain.extend(span.map(|span| (entry.key.clone(), span)));
    }
    Events { catalogue: Catalogue { retain, ..Catalogue::new(types, partitions) }, broken }
}

fn event_type(entry: &Entry, report: &mut Report) -> Option<EventType> {
    let before = report.errors();
    let name_is_right = check_name(entry, report);
    if is_nested(entry) && !name_is_right {
        return None;
    }
    if !looks_like_payload(entry, report) {
        known_settings(Some(entry), Some(&SETTINGS), report);
    }
    entry.value.entries()?;
    let topic = topic_of(entry, report);
    let fields = match entry.value.entry("payload") {
        Some(payload) => payload_fields(payload, report),
        None => Some(Vec::<Field>::new()),
    };
    let unknown_fields = match entry.value.entry("unknown_fields") {
        Some(setting) => read::<UnknownFieldsSetting>(setting, report).map(UnknownFields::from),
        None => Some(UnknownFields::default()),
    };
    let watermark = match entry.value.entry("watermark") {
        Some(setting) => watermark(setting, report),
        None => Some(WatermarkPolicy::default()),
    };
    let event_type = EventType::new(entry.key.as_str(), topic?, fields?, unknown_fields?, watermark?);
    (report.errors() == before && name_is_right).then_some(event_type)
}

/// A key without a dot that has no settings of an event type under it: `sensor:` over `reading:`, or a section that is
/// indented too far.
fn is_nested(entry: &Entry) -> bool {
    let is_setting = |inner: &Entry| SETTINGS.contains(&inner.key.as_str());
    !entry.key.contains('.') && entry.value.entries().is_some_and(|entries| !entries.iter().any(is_setting))
}

/// Reports fields that stand beside where `payload:` should be over them.
fn looks_like_payload(entry: &Entry, report: &mut Report) -> bool {
    let fields = entry.value.entries().unwrap_or_default();
    let is_field = |field: &Entry| {
        let name = field.value.text().or_else(|| field.value.entry("type")?.value.text());
        !SETTINGS.contains(&field.key.as_str()) && name.is_some_and(is_type)
    };
    let Some(first) = fields.iter().find(|field| is_field(field)) else { return false };
    if entry.value.entry("payload").is_some() {
        return false;
    }
    let message = format!("`{}` is a field of the payload, and there is no `payload:` over it", first.key);
    let hint = format!("write payload: {{ {}: … }}", first.key);
    report.error("CJ006", &first.key_span, message, Some(hint));
    true
}

/// An event type is a table of SQL: two parts, which need no quotes there.
fn check_name(entry: &Entry, report: &mut Report) -> bool {
    let parts: Vec<&str> = entry.key.split('.').collect();
    let is_right = parts.len() == 2 && parts.iter().all(|part| is_identifier(part));
    if !is_right {
        let message = format!("`{}` is no name for an event type", entry.key.escape_debug());
        report.error("CJ101", &entry.key_span, message, Some(name_hint(entry)));
    }
    is_right
}

fn name_hint(entry: &Entry) -> String {
    let under = entry.value.entries().and_then(<[Entry]>::first);
    if matches!(entry.key.as_str(), "topics" | "sources" | "streams" | "sinks") {
        return format!("`{}:` is a section of its own: begin its line at the left edge", entry.key);
    }
    if let (true, Some(inner)) = (is_nested(entry) && is_identifier(&entry.key), under) {
        return format!("write both parts as one key: `{}.{}:`", entry.key, inner.key);
    }
    let parts: Vec<String> = entry.key.split('.').map(proposed_identifier).collect();
    let proposal = match parts.as_slice() {
        [_] | [] => "sensor.reading".to_string(),
        [domain, rest @ ..] => format!("{domain}.{}", rest.join("_")),
    };
    format!("write two lower-case parts joined by a dot, such as {proposal}")
}

fn topic_of(entry: &Entry, report: &mut Report) -> Option<String> {
    let Some(setting) = entry.value.entry("topic") else { return Some(default_topic(&entry.key).to_string()) };
    let topic: String = read(setting, report)?;
    is_topic(&topic, &setting.value, report).then_some(topic)
}

/// Kafka's rule for topic names.
fn is_topic(name: &str, node: &Node, report: &mut Report) -> bool {
    let is_right = !name.is_empty()
        && name.len() <= 249
        && name != "."
        && name != ".."
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !is_right {
        let hint = "use letters, digits, `-`, `_` and `.`, at most 249 of them, such as sensor-events";
        report.error("CJ107", &node.span, format!("`{name}` is no name for a topic"), Some(hint.into()));
    }
    is_right
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum UnknownFieldsSetting {
    Keep,
    Reject,
}

impl From<UnknownFieldsSetting> for UnknownFields {
    fn from(setting: UnknownFieldsSetting) -> Self {
        match setting {
            UnknownFieldsSetting::Keep => Self::Keep,
            UnknownFieldsSetting::Reject => Self::Reject,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatermarkSettings {
    delay: Option<setting::Span>,
    idle: Option<setting::Span>,
    max_ahead: Option<setting::Span>,
    per: Option<ClockPer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClockPer {
    Partition,
    Aggregate,
}

fn watermark(entry: &Entry, report: &mut Report) -> Option<WatermarkPolicy> {
    known_settings(Some(entry), None, report);
    entry.value.entries()?;
    let settings: WatermarkSettings = read(entry, report)?;
    if matches!(settings.per, Some(ClockPer::Aggregate)) {
        let place = entry.value.entry("per").unwrap_or(entry).value.span.clone();
        let message = "a clock per aggregate is not supported in this version";
        report.error(
            "CJ009",
            &place,
            message,
            Some("write `per: partition`, and a `delay` as long as devices buffer".into()),
        );
        return None;
    }
    let default = WatermarkPolicy::default();
    let or = |span: Option<setting::Span>, default| span.map_or(default, |span| span.0);
    Some(WatermarkPolicy {
        delay: or(settings.delay, default.delay),
        idle: or(settings.idle, default.idle),
        max_ahead: or(settings.max_ahead, default.max_ahead),
    })
}

/// How many partitions a topic has and how long its events are kept, if its settings are right and say so.
fn topic(entry: &Entry, report: &mut Report) -> (Option<u32>, Option<Micros>) {
    let name = Node { span: entry.key_span.clone(), ..entry.value.clone() };
    is_topic(&entry.key, &name, report);
    known_settings(Some(entry), Some(&["partitions", "retain"]), report);
    (partitions(entry, report), retained(entry, report))
}

/// For less than this nobody could look at what came of an event.
const LEAST_RETAINED: Micros = 60 * SECOND;

fn retained(entry: &Entry, report: &mut Report) -> Option<Micros> {
    let setting = entry.value.entry("retain")?;
    let setting::Span(span) = read(setting, report)?;
    if span >= LEAST_RETAINED {
        return Some(span);
    }
    let message = format!("a topic cannot keep its events for only {}", setting::Span(span));
    let hint = "write a span of at least 1m, such as 7d; without `retain` events are kept for ever";
    report.error("CJ106", &setting.value.span, message, Some(hint.into()));
    None
}

fn partitions(entry: &Entry, report: &mut Report) -> Option<u32> {
    let setting = entry.value.entry("partitions")?;
    let count: u32 = read(setting, report)?;
    if (1..=MAX_PARTITIONS).contains(&count) {
        return Some(count);
    }
    let message = format!("a topic cannot have {count} partitions");
    report.error("CJ105", &setting.value.span, message, Some(format!("write a number from 1 to {MAX_PARTITIONS}")));
    None
}
