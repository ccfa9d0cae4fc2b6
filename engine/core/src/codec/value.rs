//! A JSON value into a column, checked against its type and its field's rules.
//!
//! A value that does not fit adds a fault, is read to its end and leaves the column as it is, so that the rest of the
//! event is checked as well. A number beyond any range breaks the quick reading off; the careful one, for events that
//! have such numbers, looks at each value's text first.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::catalogue::Field;
use crate::time::parse_rfc3339;

use super::column::{Column, Values};
use super::fault::{Faults, Found, Path, Rule, clip, quoted};
use super::instant;
use super::record::Place;
use super::text::{is_beyond_range, number_beyond_range};
use super::usual::Scanner;

/// Reads one value into one more row of a column.
pub(super) struct Value<'s> {
    /// The field whose rules hold; `None` for items of lists.
    pub field: Option<&'s Field>,
    pub column: &'s mut Column,
    pub place: Place<'s>,
    pub faults: &'s mut Faults,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        match self.column.values {
            Values::Json(_) => <&RawValue>::deserialize(deserializer).map(|raw| self.json(raw.get())),
            // The JSON reader's own floating point numbers can be off by the last bit.
            Values::Float(_) | Values::Double(_) => {
                <&RawValue>::deserialize(deserializer).map(|raw| self.real_text(raw.get()))
            }
            _ if self.place.careful => self.checked_text(<&RawValue>::deserialize(deserializer)?.get()),
            _ => deserializer.deserialize_any(&mut self),
        }
    }
}

/// Beyond this a floating point number no longer tells whole numbers apart.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

impl Value<'_> {
    /// Takes a value in the usual form; `None` where it is not in that form, or does not fit.
    pub fn read_usual(mut self, scanner: &mut Scanner<'_>) -> Option<()> {
        let before = self.faults.count();
        match (&mut self.column.values, scanner.next_value()?) {
            (_, b'n') => {
                scanner.word("null")?;
                self.null();
            }
            (Values::Float(_) | Values::Double(_), b'-' | b'0'..=b'9') => {
                let (number, _) = scanner.number()?;
                self.real(number.parse().ok()?);
            }
            (Values::Int(_) | Values::BigInt(_), b'-' | b'0'..=b'9') => {
                let number = scanner.number().and_then(|(number, has_point)| (!has_point).then_some(number));
                self.whole(number?.parse::<i64>().ok()?.into());
            }
            (Values::String(_) | Values::Timestamp(_), b'"') => self.text(scanner.characters()?),
            (Values::Boolean(_), b't') => {
                scanner.word("true")?;
                self.boolean(true);
            }
            (Values::Boolean(_), b'f') => {
                scanner.word("false")?;
                self.boolean(false);
            }
            (Values::Struct(record), b'{') => {
                record.read_usual(scanner, self.place, self.faults)?;
                self.column.end_value();
            }
            _ => return None,
        }
        (self.faults.count() == before).then_some(())
    }

    fn fault(&mut self, message: impl Into<String>) {
        self.faults.add(Rule::PAYLOAD, self.place.path, message);
    }

    fn mismatch(&mut self, found: &Found<'_>) {
        self.faults.mismatch(Rule::PAYLOAD, self.place.path, expected(&self.column.values), found);
    }

    fn null(&mut self) {
        if self.field.is_none_or(|field| field.optional) {
            self.column.append_null();
        } else {
            self.mismatch(&Found::Null);
        }
    }

    fn json(&mut self, raw: &str) {
        if let Some(number) = number_beyond_range(raw) {
            return self.fault(format!("must have numbers of 64 bits, but has {}", clip(number)));
        }
        match &mut self.column.values {
            _ if raw == "null" => self.null(),
            Values::Json(texts) => {
                texts.push(raw);
                self.column.end_value();
            }
            _ => {}
        }
    }

    /// Takes the text of a value that should be a floating point number.
    fn real_text(&mut self, raw: &str) {
        match raw.parse::<f64>() {
            Ok(number) if number.is_finite() => self.real(number),
            Ok(_) => self.fault(format!("must be a number of 64 bits, but is {}", clip(raw))),
            // It is no number, so that no range can break this off.
            Err(_) => {
                let mut deserializer = serde_json::Deserializer::from_str(raw);
                if let Err(error) = deserializer.deserialize_any(&mut *self) {
                    self.faults.broken(Rule::PAYLOAD, self.place.path, &error);
                }
            }
        }
    }

    /// Takes the text of any value.
    fn checked_text<E: Error>(&mut self, raw: &str) -> Result<(), E> {
        if is_beyond_range(raw) {
            self.mismatch(&Found::Beyond(raw));
            return Ok(());
        }
        serde_json::Deserializer::from_str(raw).deserialize_any(self).map_err(E::custom)
    }

    /// Takes a whole number, of whatever spelling.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // Floats take the nearest they have.
    fn whole(&mut self, number: i128) {
        let real = number as f64;
        if !self.is_within(real) {
            return;
        }
        let fits = match &mut self.column.values {
            Values::Int(values) => i32::try_from(number).map(|number| values.push(number)).is_ok(),
            Values::BigInt(values) => i64::try_from(number).map(|number| values.push(number)).is_ok(),
            Values::Float(values) => push_float(values, real),
            Values::Double(values) => {
                values.push(real);
                true
            }
            Values::Timestamp(values) => instant::from_whole(number).map(|time| values.push(time)).is_some(),
            _ => false,
        };
        if fits {
            self.column.end_value();
        } else {
            self.mismatch(&Found::Whole(number));
        }
    }

    /// Takes a number that was spelled with a point or an exponent, or is beyond 64 bits.
    #[allow(clippy::cast_possible_truncation)] // Whole and below 2^53.
    fn real(&mut self, number: f64) {
        if matches!(self.column.values, Values::Int(_) | Values::BigInt(_)) {
            return match number {
                _ if number.fract() == 0.0 && number.abs() < MAX_EXACT => self.whole(i128::from(number as i64)),
                _ => self.mismatch(&Found::Real(number)),
            };
        }
        if !self.is_within(number) {
            return;
        }
        let fits = match &mut self.column.values {
            Values::Float(values) => push_float(values, number),
            Values::Double(values) => {
                values.push(number);
                true
            }
            Values::Timestamp(values) => instant::from_real(number).map(|time| values.push(time)).is_some(),
            _ => false,
        };
        if fits {
            self.column.end_value();
        } else {
            self.mismatch(&Found::Real(number));
        }
    }

    fn is_within(&mut self, number: f64) -> bool {
        let Some(field) = self.field else { return true };
        let bound = match (field.min, field.max) {
            (Some(min), _) if number < min => format!("must be at least {min}, but is {number:?}"),
            (_, Some(max)) if number > max => format!("must be at most {max}, but is {number:?}"),
            _ => return true,
        };
        self.fault(bound);
        false
    }

    fn text(&mut self, text: &str) {
        match &mut self.column.values {
            Values::String(texts) => {
                if let Some(message) = self.field.and_then(|field| broken_rule(field, text)) {
                    return self.fault(message);
                }
                texts.push(text);
            }
            Values::Timestamp(times) => match parse_rfc3339(text) {
                Some(time) => times.push(time),
                None => return self.mismatch(&Found::Text(text)),
            },
            _ => return self.mismatch(&Found::Text(text)),
        }
        self.column.end_value();
    }

    fn boolean(&mut self, value: bool) {
        match &mut self.column.values {
            Values::Boolean(values) => {
                values.append(value);
                self.column.end_value();
            }
            _ => self.mismatch(&Found::Boolean(value)),
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // A float column takes the nearest it has.
fn push_float(values: &mut Vec<f32>, number: f64) -> bool {
    let number = number as f32;
    if number.is_finite() {
        values.push(number);
    }
    number.is_finite()
}

/// What a text breaks of its field's rules.
fn broken_rule(field: &Field, text: &str) -> Option<String> {
    if let Some(allowed) = field.one_of.as_ref().filter(|allowed| !allowed.iter().any(|value| value == text)) {
        return Some(format!("must be one of {}, but is {}", allowed.join(", "), quoted(text)));
    }
    // A text has at least as many bytes as characters, so that most need no counting.
    if let Some(max) = field.max_length.filter(|max| text.len() > *max) {
        let length = text.chars().count();
        if length > max {
            return Some(format!("must have at most {max} characters, but has {length}"));
        }
    }
    let pattern = field.pattern.as_ref().filter(|pattern| !pattern.is_match(text))?;
    Some(format!("must match the pattern {pattern}, but is {}", quoted(text)))
}

fn expected(values: &Values) -> &'static str {
    match values {
        Values::Boolean(_) => "true or false",
        Values::Int(_) => "a whole number of 32 bits (int)",
        Values::BigInt(_) => "a whole number of 64 bits (bigint)",
        Values::Float(_) => "a number of 32 bits (float)",
        Values::Double(_) => "a number (double)",
        Values::String(_) => "a text (string)",
        Values::Timestamp(_) => instant::EXPECTED,
        Values::Json(_) => "any JSON but null",
        Values::List(_) => "a list",
        Values::Struct(_) => "an object",
    }
}

impl<'de> Visitor<'de> for &mut Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(expected(&self.column.values))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.null();
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.boolean(value);
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.whole(i128::from(number));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.whole(i128::from(number));
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.real(number);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Values::List(list) = &mut self.column.values else {
            self.mismatch(&Found::List);
            return IgnoredAny.visit_seq(items).map(drop);
        };
        for index in 0.. {
            let path = Path::Item(self.place.path, index);
            let place = Place { path: &path, ..self.place };
            let item = Value { field: None, column: &mut list.items, place, faults: self.faults };
            if items.next_element_seed(item)?.is_none() {
                break;
            }
        }
        self.column.end_value();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        let Values::Struct(record) = &mut self.column.values else {
            self.mismatch(&Found::Object);
            return IgnoredAny.visit_map(object).map(drop);
        };
        record.read(object, self.place, self.faults)?;
        self.column.end_value();
        Ok(())
    }
}
