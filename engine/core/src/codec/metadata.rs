//! The metadata column: the client's object with what the door knows beside it.
//!
//! Keys of the client stay as it sent them; `source`, `trace_id`, `idempotency_key` and what the source knows of the message
//! (`topic`) are added where it set none.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Context;
use super::fault::{Faults, Rule, clip};
use super::text::number_beyond_range;

/// The metadata object that a client sent.
#[derive(Default)]
pub(super) struct Sent<'de> {
    /// What stands between its braces.
    members: &'de str,
    has_source: bool,
    pub has_trace_id: bool,
    has_idempotency_key: bool,
}

impl<'de> Sent<'de> {
    /// Members that are none of the names that the door adds, as they stand between the braces of valid JSON.
    pub fn of(members: &'de str) -> Self {
        Self { members, ..Self::default() }
    }

    /// Takes the object; `None` for null, or with a fault for anything else.
    pub fn read(raw: &'de RawValue, faults: &mut Faults) -> Option<Self> {
        let text = raw.get();
        if text == "null" {
            return None;
        }
        let members = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).map(str::trim);
        let Some(members) = members else {
            faults.add(Rule::ENVELOPE, "metadata", "must be an object");
            return None;
        };
        let mut sent = Self { members, ..Self::default() };
        if let Err(error) = serde_json::Deserializer::from_str(text).deserialize_map(Keys(&mut sent)) {
            faults.broken(Rule::ENVELOPE, "metadata", &error);
        }
        if let Some(number) = number_beyond_range(text) {
            faults.add(Rule::ENVELOPE, "metadata", format!("must have numbers of 64 bits, but has {}", clip(number)));
        }
        Some(sent)
    }
}

impl Sent<'_> {
    /// Whether the client set this name.
    fn has(&self, name: &str) -> bool {
        if self.members.is_empty() {
            return false;
        }
        let members = format!("{{{}}}", self.members);
        serde_json::from_str(&members).is_ok_and(|members: serde_json::Value| members.get(name).is_some())
    }
}

struct Keys<'a, 'm>(&'a mut Sent<'m>);

impl<'de> Visitor<'de> for Keys<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "source" => self.0.has_source = true,
                "trace_id" => self.0.has_trace_id = true,
                "idempotency_key" => self.0.has_idempotency_key = true,
                _ => {}
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Writes the metadata of an event onto the end of the bytes; says whether there is any.
pub(super) fn write(
    bytes: &mut Vec<u8>,
    sent: Option<&Sent<'_>>,
    trace_id: Option<&str>,
    context: &Context<'_>,
) -> bool {
    let start = bytes.len();
    let none = Sent::default();
    let sent = sent.unwrap_or(&none);
    let key = context.client_id.map(|client| client.original.as_str());
    let members = [
        ("source", Some(context.source).filter(|source| !source.is_empty() && !sent.has_source)),
        ("trace_id", trace_id.filter(|_| !sent.has_trace_id)),
        ("idempotency_key", key.filter(|_| !sent.has_idempotency_key)),
    ];
    let known = context.metadata.iter().filter(|(name, _)| !sent.has(name));
    let known = known.map(|(name, value)| (*name, Some(value.as_str())));
    for (name, value) in members.into_iter().chain(known) {
        if let Some(value) = value {
            separate(bytes, start);
            bytes.push(b'"');
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b"\":");
            // Writing into memory does not fail.
            let _ = serde_json::to_writer(&mut *bytes, value);
        }
    }
    if !sent.members.is_empty() {
        separate(bytes, start);
        bytes.extend_from_slice(sent.members.as_bytes());
    }
    if bytes.len() > start {
        bytes.push(b'}');
    }
    bytes.len() > start
}

fn separate(bytes: &mut Vec<u8>, start: usize) {
    bytes.push(if bytes.len() == start { b'{' } else { b',' });
}
