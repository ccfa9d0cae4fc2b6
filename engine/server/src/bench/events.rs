//! Synthetic events: of each event type of a pipeline, with payloads that its catalogue takes.
//!
//! They are made before anything is measured, as lines of bodies; a single event is a piece of a body. They carry
//! neither ids nor times: the service gives each one its own, so the same line sent again is another event, of now.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use axum::body::Bytes;
use cornjacket_core::catalogue::{Catalogue, EventType, Field, FieldType};
use cornjacket_core::time::format_rfc3339;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::pattern;
use crate::environment::of_machine;

/// Single events that differ, at least.
const LEAST: usize = 8_192;
/// Bodies that differ, at least.
const LEAST_BODIES: usize = 4;
/// Of so many events one lacks an optional field.
const LACKS: u32 = 10;
/// Items of a list.
const ITEMS: usize = 3;
/// How far numbers are from their only bound, or from 0.
const SPREAD: f64 = 100.0;

/// Events that are ready to be sent.
pub(super) struct Events {
    /// Bodies of lines, each with as many events.
    pub(super) bodies: Vec<Bytes>,
    /// Each of those events by itself.
    pub(super) single: Vec<Bytes>,
    /// The event types that they are of, in turn.
    pub(super) types: Vec<String>,
}

impl Events {
    /// Makes events of these types, each type's of so many aggregates in turn, in bodies of `batch` lines.
    ///
    /// # Errors
    /// When no values were found that a field takes; the message names it.
    pub(super) fn make(catalogue: &Catalogue, only: &[String], keys: usize, batch: usize) -> anyhow::Result<Self> {
        let types = chosen(catalogue, only)?;
        let mut maker = Maker::new(&types)?;
        let wanted = (keys * types.len()).max(LEAST).max(LEAST_BODIES * batch);
        let (mut bodies, mut single) = (Vec::new(), Vec::new());
        while single.len() < wanted {
            let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(batch));
            for number in single.len()..single.len() + batch {
                let event_type = &types[number % types.len()];
                let event = maker.event(event_type, number / types.len() % keys)?;
                serde_json::to_writer(&mut text, &event)?;
                ends.push(text.len());
                text.push(b'\n');
            }
            let body = Bytes::from(text);
            let mut start = 0;
            for end in ends {
                single.push(body.slice(start..end));
                start = end + 1;
            }
            bodies.push(body);
        }
        Ok(Self { bodies, single, types: types.iter().map(|event_type| event_type.name.clone()).collect() })
    }

    /// One event of each type.
    pub(super) fn one_of_each(&self) -> &[Bytes] {
        self.single.get(..self.types.len()).unwrap_or(&self.single)
    }
}

fn chosen(catalogue: &Catalogue, only: &[String]) -> anyhow::Result<Vec<Arc<EventType>>> {
    let known = || catalogue.types.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let named = |name: &String| {
        let event_type = catalogue.types.get(name).cloned();
        event_type.with_context(|| format!("--event-type {name} is not in the pipeline, which has {}", known()))
    };
    let types: Vec<Arc<EventType>> = if only.is_empty() {
        catalogue.types.values().cloned().collect()
    } else {
        only.iter().map(named).collect::<Result<_, _>>()?
    };
    if types.is_empty() {
        bail!("the pipeline declares no event type, so there is nothing to send: add a section `events:`");
    }
    Ok(types)
}

/// Makes values.
struct Maker {
    dice: StdRng,
    now: String,
    /// The texts of fields that restrict them, by event type and path.
    texts: HashMap<String, Vec<String>>,
}

impl Maker {
    fn new(types: &[Arc<EventType>]) -> anyhow::Result<Self> {
        let now = format_rfc3339(of_machine().clock.now());
        let mut maker = Self { dice: StdRng::seed_from_u64(1), now, texts: HashMap::new() };
        for event_type in types {
            maker.learn(&event_type.name, &event_type.fields)?;
        }
        Ok(maker)
    }

    /// Finds the texts of restricted fields.
    fn learn(&mut self, place: &str, fields: &[Field]) -> anyhow::Result<()> {
        for field in fields {
            let place = format!("{place}.{}", field.name);
            if let FieldType::Struct(inner) = innermost(&field.data_type) {
                self.learn(&place, inner)?;
            }
            if field.one_of.is_none() && field.pattern.is_none() {
                continue;
            }
            let texts = pattern::texts(field, &mut self.dice);
            if texts.is_empty() {
                return Err(anyhow!(
                    "no text was found that the field {place} takes (one_of, pattern and max_length together): measure \
                     other event types with --event-type, or relax the field"
                ));
            }
            self.texts.insert(place, texts);
        }
        Ok(())
    }

    fn event(&mut self, event_type: &EventType, key: usize) -> anyhow::Result<Value> {
        let payload = if event_type.fields.is_empty() {
            json!({"value": self.dice.random_range(0..100)})
        } else {
            self.object(&event_type.name, &event_type.fields, key)?
        };
        Ok(json!({"event_type": event_type.name, "aggregate_id": format!("bench-{key}"), "payload": payload}))
    }

    fn object(&mut self, place: &str, fields: &[Field], key: usize) -> anyhow::Result<Value> {
        let mut object = Map::new();
        for field in fields {
            if field.optional && self.dice.random_ratio(1, LACKS) {
                continue;
            }
            let place = format!("{place}.{}", field.name);
            object.insert(field.name.clone(), self.value(&place, field, &field.data_type, key)?);
        }
        Ok(Value::Object(object))
    }

    fn value(&mut self, place: &str, field: &Field, data_type: &FieldType, key: usize) -> anyhow::Result<Value> {
        Ok(match data_type {
            FieldType::Boolean => self.dice.random::<bool>().into(),
            FieldType::Int => self.whole(place, field, i64::from(i32::MIN), i64::from(i32::MAX))?,
            // Beyond 53 bits a number in JSON is not everywhere what it was.
            FieldType::BigInt => self.whole(place, field, -(1 << 53), 1 << 53)?,
            FieldType::Float | FieldType::Double => self.real(field),
            FieldType::String => self.text(place, field, key),
            FieldType::Timestamp => self.now.clone().into(),
            FieldType::Json => json!({"number": self.dice.random_range(0..100)}),
            FieldType::List(item) => {
                let items = (0..ITEMS).map(|_| self.value(place, field, item, key));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            FieldType::Struct(fields) => self.object(place, fields, key)?,
        })
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "within 53 bits, as just bounded")]
    fn whole(&mut self, place: &str, field: &Field, least: i64, most: i64) -> anyhow::Result<Value> {
        let (low, high) = bounds(field);
        let (low, high) = (low.ceil().max(least as f64) as i64, high.floor().min(most as f64) as i64);
        if low > high {
            bail!("no whole number is between the min and the max of the field {place}: put them right");
        }
        Ok(self.dice.random_range(low..=high).into())
    }

    fn real(&mut self, field: &Field) -> Value {
        let (low, high) = bounds(field);
        let exact = low + (high - low) * self.dice.random::<f64>();
        let rounded = (exact * 100.0).round() / 100.0;
        json!(if (low..=high).contains(&rounded) { rounded } else { exact })
    }

    fn text(&mut self, place: &str, field: &Field, key: usize) -> Value {
        if let Some(texts) = self.texts.get(place) {
            return texts[self.dice.random_range(0..texts.len())].as_str().into();
        }
        let text = format!("{}-{key}", field.name);
        let length = text.chars().count();
        // The end is what tells one from another.
        let skipped = field.max_length.map_or(0, |most| length.saturating_sub(most));
        text.chars().skip(skipped).collect::<String>().into()
    }
}

fn innermost(data_type: &FieldType) -> &FieldType {
    match data_type {
        FieldType::List(item) => innermost(item),
        other => other,
    }
}

/// Between what numbers are made.
fn bounds(field: &Field) -> (f64, f64) {
    match (field.min, field.max) {
        (Some(low), Some(high)) => (low, high),
        (Some(low), None) => (low, low + SPREAD),
        (None, Some(high)) => (high - SPREAD, high),
        (None, None) => (0.0, SPREAD),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use cornjacket_core::codec::{Context, Decoder, Limits};

    use super::*;

    const PIPELINE: &str = "
pipeline: p
events:
  order.placed:
    payload:
      count: { type: int, min: 1, max: 3 }
      total: { type: bigint, min: 100 }
      ratio: { type: float, min: 0, max: 1 }
      price: { type: double, max: 0 }
      colour: { type: string, one_of: [red, green] }
      code: { type: string, pattern: '[A-Z]{3}[0-9]+', max_length: 6 }
      short: { type: string, max_length: 4 }
      at: timestamp
      more: json
      tags: list<string>
      gift: boolean
      note: { type: string, optional: true }
      place: { city: string, grade: { type: int, min: 5, max: 5 } }
    unknown_fields: reject
  bare.event: {}
sources: { api: { http: {} } }
sinks: { newest: { projection: { from: order.placed, key: [aggregate_id] } } }
";

    fn catalogue() -> Arc<Catalogue> {
        let registry = &cornjacket_operators::REGISTRY;
        let outcome = cornjacket_compiler::load_text(Path::new("p.yaml"), PIPELINE.into(), &|_| None, registry);
        assert!(outcome.pipeline.is_some(), "{:?}", outcome.diagnostics);
        outcome.pipeline.expect("compiles").catalogue
    }

    #[test]
    fn the_door_takes_every_event_that_is_made() {
        let catalogue = catalogue();
        let events = Events::make(&catalogue, &[], 700, 1_000).expect("made");
        assert_eq!(events.types, ["bare.event", "order.placed"]);
        assert!(events.bodies.len() >= 4 && events.single.len() == events.bodies.len() * 1_000);
        let mut decoder = Decoder::new(&catalogue, Limits::default());
        let context = Context { ingested_at: 0, random: [1; 10], client_id: None, source: "api", metadata: &[] };
        let (mut keys, mut lacking) = (BTreeSet::new(), 0);
        for event in &events.single {
            let text = String::from_utf8_lossy(event).into_owned();
            assert!(decoder.decode(event, &context).is_ok(), "{text}");
            let event: Value = serde_json::from_str(&text).expect("JSON");
            let is_order = event["event_type"] == "order.placed";
            lacking += usize::from(is_order && event["payload"].get("note").is_none());
            keys.insert((is_order, event["aggregate_id"].to_string()));
        }
        assert_eq!(keys.len(), 2 * 700);
        assert!(lacking > 0, "optional fields may lack");
        let line = events.bodies[0].split(|byte| *byte == b'\n').nth(1).expect("a line");
        assert_eq!(line, &events.single[1][..]);
    }

    #[test]
    fn event_types_can_be_chosen() {
        let only = Events::make(&catalogue(), &["bare.event".into()], 1, 10).expect("made");
        assert_eq!(only.types, ["bare.event"]);
        let unknown = Events::make(&catalogue(), &["x.y".into()], 1, 10).err().expect("refused").to_string();
        assert!(unknown.contains("bare.event, order.placed"), "{unknown}");
    }
}
