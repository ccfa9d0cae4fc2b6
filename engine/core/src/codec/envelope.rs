//! The envelope: what is around the payload. The payload itself is only delimited here, since its columns are known by
//! the event type, which may come after it.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::door::{Rejection, RejectionKind};
use crate::id::EventId;
use crate::time::{Micros, format_rfc3339, is_valid_event_time, parse_rfc3339};

use super::fault::{Faults, Found, Path, Rule, clip, quoted, reason};
use super::text::is_beyond_range;
use super::{instant, metadata, text};

/// What an envelope says. What is missing or wrong is `None`, with a fault.
#[derive(Default)]
pub(super) struct Envelope<'de> {
    pub event_type: Option<Cow<'de, str>>,
    pub aggregate_id: Option<Cow<'de, str>>,
    /// Valid JSON.
    pub payload: Option<&'de str>,
    pub event_time: Option<Micros>,
    pub event_id: Option<EventId>,
    pub metadata: Option<metadata::Sent<'de>>,
    pub trace_id: Option<Cow<'de, str>>,
    /// Whether it is a `CloudEvent` instead; nothing else is read of it then.
    pub is_cloud_event: bool,
}

/// The fields, those that must be there first.
const FIELDS: [&str; 7] = ["event_type", "aggregate_id", "payload", "event_time", "event_id", "metadata", "trace_id"];
const REQUIRED: usize = 3;

/// The member that tells a `CloudEvent`, which has no `event_type`.
const SPECVERSION: &str = "specversion";

/// The greatest length of an aggregate id, in bytes.
pub(super) const MAX_AGGREGATE_ID: usize = 1024;

/// Reads an envelope; an error means that the text is not JSON.
pub(super) fn read<'de>(text: &'de str, faults: &mut Faults) -> Result<Envelope<'de>, Rejection> {
    let mut envelope = Envelope::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_any(Reader { envelope: &mut envelope, faults });
    let read = read.and_then(|()| deserializer.end());
    if envelope.is_cloud_event {
        return Ok(envelope);
    }
    read.map_err(|error| not_json(text, &error))?;
    Ok(envelope)
}

pub(super) fn not_json(text: &str, error: &serde_json::Error) -> Rejection {
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default().as_bytes();
    let rest = line.get(error.column().saturating_sub(2)..).unwrap_or_default();
    let is_near = |word: &str| rest.windows(word.len()).take(3).any(|window| window == word.as_bytes());
    let hint = if is_near("NaN") || is_near("Infinity") { "; JSON has no NaN and no Infinity, send null" } else { "" };
    let message =
        format!("the body is not JSON: {} at line {} column {}{hint}", reason(error), error.line(), error.column());
    text::reject(RejectionKind::Malformed, "invalid_json", message)
}

struct Reader<'a, 'de> {
    envelope: &'a mut Envelope<'de>,
    faults: &'a mut Faults,
}

impl<'de> Reader<'_, 'de> {
    fn read_field<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let Self { envelope, faults } = self;
        let text = |faults| Text { name, faults };
        match name {
            "event_type" => envelope.event_type = map.next_value_seed(text(faults))?,
            "aggregate_id" => {
                let id = map.next_value_seed(text(faults))?;
                envelope.aggregate_id = id.filter(|id| is_aggregate_id(id, faults));
            }
            "payload" => envelope.payload = Some(map.next_value::<&RawValue>()?.get()),
            "event_time" => envelope.event_time = map.next_value_seed(Time { faults })?,
            "event_id" => {
                let id = map.next_value_seed(text(faults))?;
                envelope.event_id = id.and_then(|id| event_id(&id, faults));
            }
            "metadata" => envelope.metadata = metadata::Sent::read(map.next_value()?, faults),
            _ => envelope.trace_id = map.next_value_seed(text(faults))?,
        }
        Ok(())
    }
}

fn event_id(text: &str, faults: &mut Faults) -> Option<EventId> {
    let id = EventId::parse(text);
    if id.is_none() {
        faults.add(Rule::EVENT_ID, "event_id", format!("must be a UUID with hyphens, but is {}", quoted(text)));
    }
    id
}

pub(super) fn is_aggregate_id(id: &str, faults: &mut Faults) -> bool {
    let message = if id.is_empty() {
        "must not be empty".to_owned()
    } else if id.len() > MAX_AGGREGATE_ID {
        format!("must have at most {MAX_AGGREGATE_ID} bytes, but has {}", id.len())
    } else if !id.bytes().all(|byte| matches!(byte, b' '..=b'~')) && id.chars().any(char::is_control) {
        format!("must not have control characters, but is {}", quoted(id))
    } else {
        return true;
    };
    faults.add(Rule::AGGREGATE_ID, "aggregate_id", message);
    false
}

impl<'de> Visitor<'de> for Reader<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = [false; FIELDS.len()];
        while let Some(key) = map.next_key_seed(FieldName { faults: self.faults, is_envelope: seen[0] })? {
            let Key::Field(index) = key else {
                if matches!(key, Key::SpecVersion) {
                    self.envelope.is_cloud_event = true;
                    return Err(A::Error::custom("a CloudEvent"));
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let Some((name, seen)) = FIELDS.get(index).zip(seen.get_mut(index)) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if *seen {
                self.faults.add(Rule::ENVELOPE, name, "is there twice");
                map.next_value::<IgnoredAny>()?;
            } else {
                *seen = true;
                self.read_field(name, &mut map)?;
            }
        }
        for (name, _) in FIELDS.iter().zip(seen).take(REQUIRED).filter(|(_, seen)| !seen) {
            self.faults.add(Rule::ENVELOPE, name, "is required, but missing");
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        no_envelope(self.faults, &Found::Null);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        no_envelope(self.faults, &Found::Boolean(value));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        no_envelope(self.faults, &Found::Whole(number.into()));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        no_envelope(self.faults, &Found::Whole(number.into()));
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        no_envelope(self.faults, &Found::Real(number));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        no_envelope(self.faults, &Found::Text(text));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        no_envelope(self.faults, &Found::List);
        IgnoredAny.visit_seq(items).map(drop)
    }
}

fn no_envelope(faults: &mut Faults, found: &Found<'_>) {
    faults.mismatch(
        Rule::ENVELOPE,
        &Path::Root("event"),
        "a JSON object with event_type, aggregate_id and payload",
        found,
    );
}

/// A key of the envelope.
enum Key {
    /// The number of the field.
    Field(usize),
    /// The object is no envelope, but a `CloudEvent`.
    SpecVersion,
    /// Another, with a fault.
    Unknown,
}

/// Reads a key of the envelope.
struct FieldName<'a> {
    faults: &'a mut Faults,
    /// Whether it is an envelope for sure.
    is_envelope: bool,
}

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        if let Some(index) = FIELDS.iter().position(|field| *field == name) {
            return Ok(Key::Field(index));
        }
        if name == SPECVERSION && !self.is_envelope {
            return Ok(Key::SpecVersion);
        }
        self.faults.unknown(Rule::ENVELOPE, clip(name), name, FIELDS.into_iter());
        Ok(Key::Unknown)
    }
}

/// Reads a text of the envelope.
struct Text<'a> {
    name: &'static str,
    faults: &'a mut Faults,
}

impl Text<'_> {
    fn is_optional(&self) -> bool {
        FIELDS.iter().skip(REQUIRED).any(|field| *field == self.name)
    }

    fn mismatch(self, found: &Found<'_>) {
        self.faults.mismatch(Rule::ENVELOPE, &Path::Root(self.name), "a text", found);
    }
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if let Some(text) = text::plain(raw) {
            return Ok(Some(Cow::Borrowed(text)));
        }
        if is_beyond_range(raw) {
            self.mismatch(&Found::Beyond(raw));
            return Ok(None);
        }
        serde_json::Deserializer::from_str(raw).deserialize_any(self).map_err(D::Error::custom)
    }
}

/// The methods of a visitor for values that are of a wrong type: a fault, and `None`.
macro_rules! wrong_types {
    ($($method:ident($($value:ident: $type:ty)?) => $found:expr;)*) => {
        $(fn $method<E: Error>(self $(, $value: $type)?) -> Result<Self::Value, E> {
            self.mismatch(&$found);
            Ok(None)
        })*

        fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
            self.mismatch(&Found::List);
            IgnoredAny.visit_seq(items).map(|_| None)
        }

        fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
            self.mismatch(&Found::Object);
            IgnoredAny.visit_map(object).map(|_| None)
        }
    };
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        if !self.is_optional() {
            self.mismatch(&Found::Null);
        }
        Ok(None)
    }

    wrong_types! {
        visit_bool(value: bool) => Found::Boolean(value);
        visit_i64(number: i64) => Found::Whole(number.into());
        visit_u64(number: u64) => Found::Whole(number.into());
        visit_f64(number: f64) => Found::Real(number);
    }
}

/// Reads the event time.
struct Time<'a> {
    faults: &'a mut Faults,
}

impl Time<'_> {
    fn mismatch(self, found: &Found<'_>) {
        self.faults.mismatch(Rule::EVENT_TIME, &Path::Root("event_time"), instant::EXPECTED, found);
    }

    fn check(self, time: Option<Micros>, found: &Found<'_>) -> Option<Micros> {
        match time {
            Some(time) if is_valid_event_time(time) => return Some(time),
            Some(time) => {
                let message = format!("must be in the years 1970 to 2261, but is {}", format_rfc3339(time));
                self.faults.add(Rule::EVENT_TIME, "event_time", message);
            }
            None => self.mismatch(found),
        }
        None
    }
}

impl<'de> DeserializeSeed<'de> for Time<'_> {
    type Value = Option<Micros>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if let Some(text) = text::plain(raw) {
            return Ok(self.check(parse_rfc3339(text), &Found::Text(text)));
        }
        if is_beyond_range(raw) {
            self.mismatch(&Found::Beyond(raw));
            return Ok(None);
        }
        serde_json::Deserializer::from_str(raw).deserialize_any(self).map_err(D::Error::custom)
    }
}

impl<'de> Visitor<'de> for Time<'_> {
    type Value = Option<Micros>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(instant::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.check(parse_rfc3339(text), &Found::Text(text)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.check(instant::from_whole(number.into()), &Found::Whole(number.into())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.check(instant::from_whole(number.into()), &Found::Whole(number.into())))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(self.check(instant::from_real(number), &Found::Real(number)))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    wrong_types! {
        visit_bool(value: bool) => Found::Boolean(value);
    }
}
