//! `generator`: made-up events at a rate, to try a pipeline and to load it.
//!
//! What it makes follows from its seed and the event's number alone. Its position is stored in one commit with the events,
//! so it goes on with the next number after a crash. With `limit` it ends, and so does a run that has nothing else to wait
//! for.

use std::any::Any;
use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::catalogue::{EventType, Field, FieldType};
use cornjacket_core::component::{BuiltSource, Description, Fault, SourceContext, SourceSpec, parse_settings};
use cornjacket_core::door::{Bundle, EnvelopeTemplate, Message, Rejects};
use cornjacket_core::environment::{Clock, Environment};
use cornjacket_core::setting::Span;
use cornjacket_core::source::{Progress, Pull, Reader, ReaderFactory, Unit};
use cornjacket_core::template::Template;
use cornjacket_core::time::{Micros, SECOND, format_rfc3339, parse_rfc3339};
use cornjacket_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::messages::EventSettings;

/// Its entry in the registry.
pub const SPEC: SourceSpec = SourceSpec {
    description: Description {
        kind: "generator",
        summary: "Makes up events at a rate, to try a pipeline or to load it.",
        guarantee: "Every number is made once, also over crashes: the position is stored in one commit with the events. \
                    The same seed makes the same payloads.",
        example: "events: 10/s\nevent: { type: sensor.reading, aggregate_id: \"d${random.5}\" }",
        schema: || schemars::schema_for!(Settings),
    },
    parse: parse_settings::<Settings>,
    build,
};

/// What a text may have in it beside the payload's fields.
const VARIABLES: [&str; 2] = ["number", "random."];
/// Events of a bundle at most, and how much time one may stand for.
const MAX_EVENTS: u64 = 4_096;
const SLOT: Micros = SECOND / 20;

/// Settings of the generator.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How many: `1000/s`, `30/m`, `5/h`, or `max` for as many as can be stored.
    #[schemars(example = "1000/s", regex(pattern = r"^([0-9]+/[smh]|max)$"))]
    pub events: String,
    /// What they are. Texts may have `${number}`, `${random.N}` (a whole number below N) and `${payload.field}`.
    pub event: EventSettings,
    /// How fields of the payload are made; the others follow from their type in the catalogue.
    #[serde(default)]
    #[schemars(extend("examples" = [{ "value": { "between": [15, 30] } }]))]
    pub fields: BTreeMap<String, FieldSettings>,
    /// After how many it ends; never unless set.
    #[serde(default)]
    #[schemars(example = 100_000)]
    pub limit: Option<NonZeroU64>,
    /// The event time of the first event, RFC 3339; each later event is one step of the rate further on. Unless set, events
    /// happen when they are made.
    #[serde(default)]
    #[schemars(example = "2026-01-01T00:00:00Z")]
    pub start: Option<String>,
    /// Another seed makes other values.
    #[serde(default)]
    pub seed: u64,
}

/// How a field is made: one of these.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldSettings {
    /// Always this value.
    #[serde(default)]
    #[schemars(example = 21.5)]
    pub value: Option<Value>,
    /// One of these values.
    #[serde(default)]
    #[schemars(example = ["celsius", "fahrenheit"])]
    pub one_of: Option<Vec<Value>>,
    /// A number from the first to the second.
    #[serde(default)]
    #[schemars(example = (15, 30))]
    pub between: Option<(f64, f64)>,
    /// A sine wave.
    #[serde(default)]
    #[schemars(extend("examples" = [{ "low": 15, "high": 30, "every": "24h" }]))]
    pub wave: Option<Wave>,
    /// A text with `${number}` and `${random.N}` in it.
    #[serde(default)]
    #[schemars(example = "room-${random.4}")]
    pub text: Option<String>,
}

/// A sine wave over event time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// Its least value.
    #[schemars(example = 15)]
    pub low: f64,
    /// Its greatest value.
    #[schemars(example = 30)]
    pub high: f64,
    /// How long a wave is.
    pub every: Span,
}

/// How a field is made.
#[derive(Clone, Debug)]
enum Plan {
    Value(Value),
    OneOf(Vec<Value>),
    Between(f64, f64),
    Wave(Wave),
    Text(Template),
    Boolean,
    Time,
}

/// A rate; `None` for as fast as can be.
fn rate(text: &str) -> std::result::Result<Option<Micros>, Fault> {
    if text == "max" {
        return Ok(None);
    }
    let wrong = || Fault::new("events", format!("`{text}` is no rate")).with_hint("write 10/s, 30/m, 5/h or max");
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let unit = match unit {
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        _ => return Err(wrong()),
    };
    let count: Micros = count.trim().parse().map_err(|_| wrong())?;
    if !(1..=1_000_000).contains(&(count * SECOND / unit).max(1)) || count < 1 {
        let message = format!("`{text}` is not between one event an hour and a million a second");
        return Err(Fault::new("events", message).with_hint("write max for as many as can be stored"));
    }
    Ok(Some((unit / count).max(1)))
}

fn build(settings: &(dyn Any + Send + Sync), context: &SourceContext) -> std::result::Result<BuiltSource, Vec<Fault>> {
    let Some(settings) = settings.downcast_ref::<Settings>() else {
        return Err(vec![Fault::new("", "these are not the settings of a generator")]);
    };
    let mut faults = Vec::new();
    let step = rate(&settings.events).map_err(|fault| faults.push(fault)).unwrap_or_default();
    let start = settings.start.as_ref().map(|text| (text, parse_rfc3339(text)));
    if let Some((text, None)) = start {
        let message = format!("`{text}` is no time");
        faults.push(Fault::new("start", message).with_hint("write it as 2026-01-01T00:00:00Z"));
    }
    let envelope = settings.event.template(context, &VARIABLES).map_err(|found| faults.extend(found)).ok();
    let plans = envelope.as_ref().map(|envelope| plans(settings, &envelope.event_type, &mut faults));
    match (envelope, plans, faults.is_empty()) {
        (Some(envelope), Some(plans), true) => Ok(BuiltSource::Read(Arc::new(Generator {
            source: context.name.as_str().into(),
            step,
            start: start.and_then(|(_, start)| start),
            limit: settings.limit.map(NonZeroU64::get),
            seed: settings.seed,
            envelope,
            plans,
            rate: settings.events.clone(),
        }))),
        _ => Err(faults),
    }
}

fn plans(settings: &Settings, event_type: &EventType, faults: &mut Vec<Fault>) -> Vec<(String, Plan)> {
    let mut plans = Vec::new();
    for field in &event_type.fields {
        if !settings.fields.contains_key(&field.name) && !field.optional {
            plans.push((field.name.clone(), by_type(field)));
        }
    }
    for (name, field) in &settings.fields {
        match plan_of(field) {
            Ok(plan) => plans.push((name.clone(), plan)),
            Err(message) => faults.push(Fault::new(format!("fields.{name}"), message)),
        }
    }
    plans
}

fn plan_of(field: &FieldSettings) -> std::result::Result<Plan, String> {
    let FieldSettings { value, one_of, between, wave, text } = field.clone();
    let text = text.map(|text| Template::parse(&text, &VARIABLES)).transpose()?;
    let plans = [
        value.map(Plan::Value),
        one_of.map(Plan::OneOf),
        between.map(|(low, high)| Plan::Between(low, high)),
        wave.map(Plan::Wave),
        text.map(Plan::Text),
    ];
    let mut plans = plans.into_iter().flatten();
    match (plans.next(), plans.next()) {
        (Some(Plan::OneOf(values)), None) if values.is_empty() => Err("`one_of` has no value to choose from".into()),
        (Some(Plan::Between(low, high)), None) if low > high => Err(format!("{low} is more than {high}")),
        (Some(plan), None) => Ok(plan),
        _ => Err("a field is made in one way: value, one_of, between, wave or text".into()),
    }
}

/// How a field is made that nobody said how.
fn by_type(field: &Field) -> Plan {
    if let Some(values) = &field.one_of {
        return Plan::OneOf(values.iter().map(|value| Value::from(value.as_str())).collect());
    }
    match &field.data_type {
        FieldType::Boolean => Plan::Boolean,
        FieldType::Int | FieldType::BigInt | FieldType::Float | FieldType::Double => {
            let low = field.min.unwrap_or_else(|| field.max.map_or(0.0, |max| max.min(0.0)));
            Plan::Between(low, field.max.unwrap_or(low + 100.0))
        }
        FieldType::String => Plan::Text(Template::parse("${random.1000}", &VARIABLES).unwrap_or_else(|_| empty())),
        FieldType::Timestamp => Plan::Time,
        FieldType::Json => Plan::Value(json!({})),
        FieldType::List(_) => Plan::Value(json!([])),
        FieldType::Struct(fields) => {
            let nested = fields.iter().filter(|field| !field.optional).map(|field| (field.name.clone(), json!(null)));
            Plan::Value(Value::Object(nested.collect()))
        }
    }
}

fn empty() -> Template {
    Template::parse("", &[]).expect("an empty template is one")
}

/// A configured generator.
#[derive(Debug)]
struct Generator {
    source: Arc<str>,
    /// Time from one event to the next; `None` for as fast as can be.
    step: Option<Micros>,
    start: Option<Micros>,
    limit: Option<u64>,
    seed: u64,
    envelope: EnvelopeTemplate,
    plans: Vec<(String, Plan)>,
    rate: String,
}

impl ReaderFactory for Generator {
    fn is_bounded(&self) -> bool {
        self.limit.is_some()
    }

    fn open(&self, position: Option<&str>, environment: &Environment) -> Result<Box<dyn Reader>> {
        let next = position.map_or(Ok(0), str::parse);
        let next = next.map_err(|_| Error::Corrupt(format!("the position of {} is no number", self.source)))?;
        let clock = Arc::clone(&environment.clock);
        let integers = |name: &String| {
            let field = self.envelope.event_type.fields.iter().find(|field| field.name == *name);
            field.is_some_and(|field| matches!(field.data_type, FieldType::Int | FieldType::BigInt))
        };
        let whole = self.plans.iter().map(|(name, _)| integers(name)).collect();
        let began = clock.monotonic();
        Ok(Box::new(Making {
            source: Arc::clone(&self.source),
            step: self.step,
            start: self.start,
            limit: self.limit.unwrap_or(u64::MAX),
            seed: self.seed,
            envelope: self.envelope.clone(),
            plans: self.plans.clone(),
            whole,
            first: next,
            next,
            began,
            clock,
        }))
    }

    fn describe(&self) -> String {
        format!("makes {} at {}", self.envelope.event_type.name, self.rate)
    }

    fn probe(&self) -> std::result::Result<String, String> {
        Ok(format!("makes events at {}", self.rate))
    }
}

/// A generator at work.
struct Making {
    source: Arc<str>,
    step: Option<Micros>,
    start: Option<Micros>,
    limit: u64,
    seed: u64,
    envelope: EnvelopeTemplate,
    plans: Vec<(String, Plan)>,
    /// Which fields are whole numbers.
    whole: Vec<bool>,
    first: u64,
    next: u64,
    began: Micros,
    clock: Arc<dyn Clock>,
}

impl Making {
    /// How many events are due now, or how long until one is.
    fn due(&self) -> std::result::Result<u64, Duration> {
        let left = self.limit - self.next;
        let Some(step) = self.step else { return Ok(left.min(MAX_EVENTS)) };
        let elapsed = self.clock.monotonic() - self.began;
        let due = u64::try_from(elapsed / step).unwrap_or(0) + 1;
        let made = self.next - self.first;
        if due > made {
            return Ok((due - made).min(left).min(MAX_EVENTS));
        }
        let wait = (i64::try_from(made).unwrap_or(i64::MAX).saturating_mul(step) - elapsed).max(SLOT.min(step));
        Err(Duration::from_micros(u64::try_from(wait).unwrap_or(0)))
    }

    fn time(&self, number: u64, now: Micros) -> Micros {
        let steps = i64::try_from(number).unwrap_or(i64::MAX);
        self.start.map_or(now, |start| start.saturating_add(steps.saturating_mul(self.step.unwrap_or(1_000))))
    }

    fn envelope_of(&self, number: u64, now: Micros) -> std::result::Result<Value, String> {
        let mut random = Draw { state: self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
        let time = self.time(number, now);
        let mut payload = Map::new();
        for ((name, plan), whole) in self.plans.iter().zip(&self.whole) {
            payload.insert(name.clone(), make(plan, *whole, (number, time), &mut random)?);
        }
        let payload = Value::Object(payload);
        let text = payload.to_string();
        let mut fill = |template: &Template| fill(template, &text, number, &mut random);
        let mut event = json!({
            "event_type": self.envelope.event_type.name,
            "aggregate_id": fill(&self.envelope.aggregate_id)?,
        });
        let event_time = self.envelope.event_time.as_ref().map(&mut fill).transpose()?;
        event["event_time"] = event_time.unwrap_or_else(|| format_rfc3339(time)).into();
        if let Some(id) = &self.envelope.event_id {
            event["event_id"] = fill(id)?.into();
        }
        event["payload"] = payload;
        Ok(event)
    }

    fn bundle(&mut self, count: u64) -> Bundle {
        let now = self.clock.now();
        let (mut bytes, mut messages) = (Vec::new(), Vec::new());
        for number in self.next..self.next + count {
            let start = bytes.len();
            let fault = match self.envelope_of(number, now) {
                Ok(event) => {
                    bytes.extend_from_slice(event.to_string().as_bytes());
                    None
                }
                Err(fault) => Some(fault),
            };
            messages.push(Message { bytes: start..bytes.len(), number: number + 1, fault });
        }
        self.next += count;
        Bundle {
            source: Arc::clone(&self.source),
            origin: Arc::clone(&self.source),
            bytes,
            messages,
            known: Vec::new(),
            envelope: None,
            position: Some(self.next.to_string()),
            receipts: Vec::new(),
            rejects: Rejects::DeadLetters,
            chain: None,
        }
    }
}

impl Reader for Making {
    fn next(&mut self) -> Result<Pull> {
        if self.next >= self.limit {
            return Ok(Pull::End);
        }
        match self.due() {
            Ok(count) => Ok(Pull::Bundle(self.bundle(count))),
            Err(wait) => Ok(Pull::Wait(wait)),
        }
    }

    fn progress(&self) -> Option<Progress> {
        (self.limit < u64::MAX).then_some(Progress { done: self.next, total: self.limit, unit: Unit::Events })
    }
}

/// `SplitMix64` (Steele, Lea and Flood 2014): numbers that follow from the seed, the same on every machine and version.
struct Draw {
    state: u64,
}

impl Draw {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// From 0 to 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn fill(template: &Template, payload: &str, number: u64, random: &mut Draw) -> std::result::Result<String, String> {
    let random = std::cell::RefCell::new(random);
    let variable = |name: &str| match name.strip_prefix("random.") {
        Some(bound) => bound.parse().ok().map(|bound| random.borrow_mut().below(bound).to_string()),
        None => Some(number.to_string()),
    };
    template.fill(payload, &variable).map(std::borrow::Cow::into_owned)
}

fn make(
    plan: &Plan,
    whole: bool,
    (number, time): (u64, Micros),
    random: &mut Draw,
) -> std::result::Result<Value, String> {
    Ok(match plan {
        Plan::Value(value) => value.clone(),
        Plan::OneOf(values) => values[usize::try_from(random.below(values.len() as u64)).unwrap_or(0)].clone(),
        Plan::Between(low, high) => number_of(low + random.unit() * (high - low), whole),
        Plan::Wave(Wave { low, high, every }) => {
            #[allow(clippy::cast_precision_loss, reason = "a place within a wave")]
            let phase = time.rem_euclid(every.0.max(1)) as f64 / every.0.max(1) as f64;
            number_of(low + (high - low) * (1.0 + (phase * TAU).sin()) / 2.0, whole)
        }
        Plan::Text(template) => fill(template, "{}", number, random)?.into(),
        Plan::Boolean => (random.below(2) == 1).into(),
        Plan::Time => format_rfc3339(time).into(),
    })
}

fn number_of(value: f64, whole: bool) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "whole numbers are wanted")]
    if whole { Value::from(value.round() as i64) } else { Value::from((value * 1e4).round() / 1e4) }
}
