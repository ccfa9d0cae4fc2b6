//! CloudEvents 1.0: events with an envelope of their own.
//!
//! `type` is the event type, `subject` (or else `source`) the aggregate id, `time` the event time and `data` the payload.
//! What identifies one is `source` and `id` together, so the event id is a hash of both. `id`, `source` and everything
//! that has no place in our envelope are kept in the metadata, as the object `cloudevent`.
//!
//! The specification: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>, with its JSON format and its
//! HTTP binding. Data must be JSON, since the catalogue knows nothing else.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::door::Rejection;
use crate::id::EventId;
use crate::time::{Micros, format_rfc3339, is_valid_event_time, parse_rfc3339};

use super::envelope::{self, Envelope};
use super::fault::{Faults, Found, Path, Rule, clip, quoted};
use super::{Limits, base64, metadata, text};

/// The only version.
const VERSION: &str = "1.0";

/// More attributes of the sender's own than this are refused, so that looking for repeated ones takes no time.
const MAX_EXTENSIONS: usize = 64;

/// A `CloudEvent` as it was read.
#[derive(Default)]
pub(super) struct CloudEvent<'de> {
    /// The attributes of the specification; one that is there and wrong is empty, with a fault.
    named: [Option<Cow<'de, str>>; NAMES.len()],
    /// Attributes of the sender's own, with their JSON.
    extensions: Vec<(Cow<'de, str>, Cow<'de, str>)>,
    data: Option<Cow<'de, RawValue>>,
    time: Option<Micros>,
    trace_id: Option<String>,
    /// The members that the metadata gets.
    metadata: String,
}

/// The attributes of the specification, those that must be there first.
const NAMES: [&str; 8] = ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];
const REQUIRED: usize = 4;
const SPECVERSION: usize = 0;
const ID: usize = 1;
const SOURCE: usize = 2;
const TYPE: usize = 3;
const SUBJECT: usize = 4;
const TIME: usize = 5;
const CONTENT_TYPE: usize = 6;
const SCHEMA: usize = 7;

/// Reads structured mode: one JSON object. An error means that it is not JSON.
pub(super) fn read<'de>(text: &'de str, limits: &Limits, faults: &mut Faults) -> Result<CloudEvent<'de>, Rejection> {
    let mut event = CloudEvent::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    if !text.trim_start().starts_with('{') {
        let any: &RawValue = serde_json::from_str(text).map_err(|error| envelope::not_json(text, &error))?;
        let expected = "a JSON object with specversion, id, source and type";
        faults.mismatch(Rule::CLOUD_EVENT, &Path::Root("event"), expected, &found(any.get()));
        return Ok(event);
    }
    let read = deserializer.deserialize_map(Members { event: &mut event, limits, faults });
    read.and_then(|()| deserializer.end()).map_err(|error| envelope::not_json(text, &error))?;
    event.finish(faults);
    Ok(event)
}

/// Reads binary mode: the attributes came beside the data. An error means that the data is not JSON.
pub(super) fn from_parts<'de>(
    attributes: &'de [(String, String)],
    body: &'de [u8],
    limits: &Limits,
    faults: &mut Faults,
) -> Result<CloudEvent<'de>, Rejection> {
    let mut event = CloudEvent::default();
    if !body.iter().all(u8::is_ascii_whitespace) {
        let text = text::check(body, limits)?;
        let data: &RawValue = serde_json::from_str(text).map_err(|error| envelope::not_json(text, &error))?;
        event.data = Some(Cow::Borrowed(data));
    }
    for (name, value) in attributes {
        match NAMES.iter().position(|known| known == name) {
            Some(index) => event.set(index, Cow::Borrowed(value), faults),
            // Texts always serialize.
            None => event.extend(name.into(), serde_json::to_string(value).unwrap_or_default().into(), faults),
        }
    }
    event.finish(faults);
    Ok(event)
}

impl<'de> CloudEvent<'de> {
    fn get(&self, index: usize) -> Option<&str> {
        self.named[index].as_deref()
    }

    fn set(&mut self, index: usize, value: Cow<'de, str>, faults: &mut Faults) {
        if self.named[index].is_some() {
            faults.add(Rule::CLOUD_EVENT, NAMES[index], "is there twice");
        } else if value.is_empty() {
            faults.add(Rule::CLOUD_EVENT, NAMES[index], "must not be empty");
        }
        self.named[index] = Some(value);
    }

    fn extend(&mut self, name: Cow<'de, str>, json: Cow<'de, str>, faults: &mut Faults) {
        if self.extensions.len() == MAX_EXTENSIONS {
            return faults.add(Rule::CLOUD_EVENT, clip(&name), format!("is one more than {MAX_EXTENSIONS} extensions"));
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            let message = "is no name of an attribute: they have lower-case letters and digits only";
            return faults.add(Rule::CLOUD_EVENT, clip(&name), message);
        }
        if self.extensions.iter().any(|(known, _)| *known == name) {
            return faults.add(Rule::CLOUD_EVENT, clip(&name), "is there twice");
        }
        self.extensions.push((name, json));
    }

    /// Checks what can be checked once everything is read.
    fn finish(&mut self, faults: &mut Faults) {
        for (name, _) in NAMES.iter().zip(&self.named).take(REQUIRED).filter(|(_, value)| value.is_none()) {
            faults.add(Rule::CLOUD_EVENT, name, "is required, but missing");
        }
        if let Some(other) = self.get(SPECVERSION).filter(|version| *version != VERSION && !version.is_empty()) {
            faults.add(Rule::CLOUD_EVENT, "specversion", format!("must be \"{VERSION}\", but is {}", quoted(other)));
        }
        if let Some(content_type) = self.get(CONTENT_TYPE).filter(|content_type| !content_type.is_empty()) {
            self.check_content_type(content_type, faults);
        }
        self.time = self.get(TIME).and_then(|text| time(text, faults));
        let parent = self.extensions.iter().find(|(name, _)| name == "traceparent");
        self.trace_id = parent.and_then(|(_, json)| trace_id(json.trim_matches('"')));
        self.metadata = self.members();
    }

    /// Of an event without data it does not matter what kind of data it has.
    fn check_content_type(&self, content_type: &str, faults: &mut Faults) {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let Some((_, subtype)) = essence.split_once('/').filter(|(main, sub)| !main.is_empty() && !sub.is_empty())
        else {
            let message = format!("must be a media type such as application/json, but is {}", quoted(content_type));
            return faults.add(Rule::CLOUD_EVENT, "datacontenttype", message);
        };
        if self.data.is_some() && subtype != "json" && !subtype.ends_with("+json") {
            let message = format!("must be JSON, such as application/json, but is {}", quoted(content_type));
            faults.add(Rule::DATA_TYPE, "datacontenttype", message);
        }
    }

    /// What the metadata keeps: everything that is nowhere in the envelope or the payload.
    fn members(&self) -> String {
        let mut members = String::from("\"cloudevent\":{");
        let named = [ID, SOURCE, SUBJECT, CONTENT_TYPE, SCHEMA];
        let named = named.iter().filter_map(|index| Some((NAMES[*index], self.get(*index)?)));
        // Texts always serialize.
        let named = named.map(|(name, value)| (name, Cow::Owned(serde_json::to_string(value).unwrap_or_default())));
        let own = self.extensions.iter().map(|(name, json)| (&**name, Cow::Borrowed(&**json)));
        for (index, (name, json)) in named.chain(own).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            members.extend([comma, "\"", name, "\":", &json]);
        }
        members.push('}');
        members
    }

    /// The attribute that is the aggregate id.
    fn aggregate(&self) -> usize {
        if self.named[SUBJECT].is_some() { SUBJECT } else { SOURCE }
    }

    /// The envelope that it is to us.
    pub fn envelope<'e>(&'e self, faults: &mut Faults) -> Envelope<'e> {
        let aggregate_id = self.get(self.aggregate()).filter(|id| !id.is_empty());
        let identity = self.get(SOURCE).zip(self.get(ID));
        Envelope {
            event_type: self.get(TYPE).filter(|name| !name.is_empty()).map(Cow::Borrowed),
            aggregate_id: aggregate_id.filter(|id| envelope::is_aggregate_id(id, faults)).map(Cow::Borrowed),
            payload: Some(self.data.as_deref().map_or(NOTHING, RawValue::get)),
            event_time: self.time,
            event_id: identity.map(|(source, id)| event_id(source, id)),
            metadata: Some(metadata::Sent::of(&self.metadata)),
            trace_id: self.trace_id.as_deref().map(Cow::Borrowed),
            is_cloud_event: true,
        }
    }

    /// A rejection with the places that the sender knows.
    pub fn in_its_words(&self, mut rejection: Rejection) -> Rejection {
        let names = [
            ("event_type", "type"),
            ("aggregate_id", NAMES[self.aggregate()]),
            ("event_time", "time"),
            ("payload", "data"),
        ];
        for detail in &mut rejection.details {
            let renamed = names.iter().find_map(|(ours, theirs)| {
                let rest = detail.path.strip_prefix(ours)?;
                (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{theirs}{rest}"))
            });
            detail.path = renamed.unwrap_or_else(|| std::mem::take(&mut detail.path));
        }
        if let [only] = rejection.details.as_slice() {
            rejection.message = format!("`{}` {}", only.path, only.message);
        }
        rejection
    }
}

/// The payload of an event without data: what of it is required is then named.
const NOTHING: &str = "{}";

/// Senders choose ids within their source. The word keeps them apart from identities of other kinds.
fn event_id(source: &str, id: &str) -> EventId {
    let hash = Sha256::new()
        .chain_update("cloudevent")
        .chain_update(source.len().to_be_bytes())
        .chain_update(source)
        .chain_update(id)
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    EventId::v8(bytes)
}

fn time(text: &str, faults: &mut Faults) -> Option<Micros> {
    let message = match parse_rfc3339(text) {
        Some(time) if is_valid_event_time(time) => return Some(time),
        Some(time) => format!("must be in the years 1970 to 2261, but is {}", format_rfc3339(time)),
        None if text.is_empty() => return None,
        None => format!("must be a time (RFC 3339 text), but is the text {}", quoted(text)),
    };
    faults.add(Rule::EVENT_TIME, "time", message);
    None
}

/// The trace id in a `traceparent` of the W3C; one that is not in its form says nothing.
fn trace_id(parent: &str) -> Option<String> {
    let mut parts = parent.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_whole = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16);
    (is_whole && trace.bytes().any(|byte| byte != b'0')).then(|| trace.to_owned())
}

/// What a value is, for messages.
fn found(json: &str) -> Found<'_> {
    match json.as_bytes().first() {
        Some(b'"') => Found::Text(json.trim_matches('"')),
        Some(b'{') => Found::Object,
        Some(b'[') => Found::List,
        Some(b'n') => Found::Null,
        Some(b't' | b'f') => Found::Boolean(json == "true"),
        _ => Found::Beyond(json),
    }
}

/// Reads the members of the object.
struct Members<'a, 'de> {
    event: &'a mut CloudEvent<'de>,
    limits: &'a Limits,
    faults: &'a mut Faults,
}

/// A text that borrows where it can.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Members<'_, 'de> {
    fn read(&mut self, name: Cow<'de, str>, value: &'de RawValue) {
        let is_absent = value.get() == "null";
        match (NAMES.iter().position(|known| *known == name), &*name) {
            _ if is_absent => {}
            (Some(index), _) => match self.text(NAMES[index], value) {
                Some(text) => self.event.set(index, text, self.faults),
                None => self.event.named[index] = Some(Cow::Borrowed("")),
            },
            (None, "data") => self.data("data", Cow::Borrowed(value)),
            (None, "data_base64") => {
                if let Some(data) = self.text("data_base64", value).and_then(|text| self.decoded(&text)) {
                    self.data("data_base64", Cow::Owned(data));
                }
            }
            (None, _) => self.extension(name, value.get()),
        }
    }

    fn text(&mut self, name: &'static str, value: &'de RawValue) -> Option<Cow<'de, str>> {
        let text: Option<Text<'de>> = serde_json::from_str(value.get()).ok();
        if text.is_none() {
            self.faults.mismatch(Rule::CLOUD_EVENT, &Path::Root(name), "a text", &found(value.get()));
        }
        text.map(|Text(text)| text)
    }

    fn data(&mut self, name: &'static str, data: Cow<'de, RawValue>) {
        if self.event.data.is_some() {
            self.faults.add(Rule::CLOUD_EVENT, name, "is there beside other data");
        }
        self.event.data = Some(data);
    }

    fn decoded(&mut self, text: &str) -> Option<Box<RawValue>> {
        let decoded = match base64::decode(text) {
            Some(bytes) => text::check(&bytes, self.limits).map_err(|rejection| rejection.message).and_then(|text| {
                RawValue::from_string(text.trim().to_owned()).map_err(|_| "its bytes are not JSON".into())
            }),
            None => Err("it is not base64".into()),
        };
        let fault = |reason| self.faults.add(Rule::CLOUD_EVENT, "data_base64", format!("cannot be read: {reason}"));
        decoded.map_err(fault).ok()
    }

    /// Extensions are texts, booleans or whole numbers of 32 bits.
    fn extension(&mut self, name: Cow<'de, str>, json: &'de str) {
        let is_value = match json.as_bytes().first() {
            Some(b'"' | b't' | b'f') => true,
            Some(b'{' | b'[') => false,
            _ => json.parse::<i32>().is_ok(),
        };
        if is_value {
            return self.event.extend(name, Cow::Borrowed(json), self.faults);
        }
        let path = Path::Root("event");
        let expected = "a text, true or false, or a whole number of 32 bits";
        self.faults.mismatch(Rule::CLOUD_EVENT, &Path::Field(&path, &name), expected, &found(json));
    }
}

impl<'de> Visitor<'de> for Members<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a CloudEvent")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            let value: &'de RawValue = map.next_value()?;
            self.read(name, value);
        }
        Ok(())
    }
}
