//! Settings structs read from the tree, with the place of what does not fit.
//!
//! Components read their settings through an object-safe deserializer, which passes on an error's text but nothing else.
//! So the place is kept beside the error: whoever hands a value out notes the first failure with the value's place.

mod access;
mod error;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error as _, Expected, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use crate::core;
use crate::node::{Entry, Node, Scalar, Span, Value};
use crate::report::Report;
use access::{Entries, Items, Variant};
use error::SettingError;

/// The first failure while settings were read.
#[derive(Debug)]
pub(crate) struct Failure {
    span: Span,
    error: SettingError,
}

type FailureCell = RefCell<Option<Failure>>;

/// Reads a value through `parse`, which may go through object-safe detours. A failure is reported; what concerns the
/// value as a whole (a setting is missing) is placed at its `owner`, the key over it.
pub(crate) fn read_with<T, E: fmt::Display>(
    node: &Node,
    owner: &Span,
    report: &mut Report,
    parse: impl FnOnce(NodeDeserializer<'_>) -> Result<T, E>,
) -> Option<T> {
    let failure = RefCell::new(None);
    let deserializer = NodeDeserializer { node, owner: owner.clone(), failure: &failure };
    let place = deserializer.place();
    match parse(deserializer) {
        Ok(value) => Some(value),
        Err(error) => {
            let fallback = || Failure { span: place, error: SettingError::custom(&error) };
            let Failure { span, error } = failure.into_inner().unwrap_or_else(fallback);
            report.error("CJ007", &span, error.message, error.hint);
            None
        }
    }
}

/// Reads a value of a type; a failure is reported.
pub(crate) fn read<T: DeserializeOwned>(entry: &Entry, report: &mut Report) -> Option<T> {
    read_with(&entry.value, &entry.key_span, report, |deserializer| {
        let (failure, place) = (deserializer.failure, deserializer.place());
        note(failure, &place, T::deserialize(deserializer))
    })
}

/// A deserializer over a value of the tree.
pub(crate) struct NodeDeserializer<'a> {
    node: &'a Node,
    owner: Span,
    failure: &'a FailureCell,
}

fn note<T>(failure: &FailureCell, span: &Span, result: Result<T, SettingError>) -> Result<T, SettingError> {
    result.map_err(|error| {
        let message = error.message.clone();
        failure.borrow_mut().get_or_insert_with(|| Failure { span: span.clone(), error });
        SettingError::custom(message)
    })
}

impl<'a> NodeDeserializer<'a> {
    /// Where to point at when this value does not fit: a map is represented by its key.
    fn place(&self) -> Span {
        match &self.node.value {
            Value::Map(_) | Value::Null => self.owner.clone(),
            Value::Scalar(_) | Value::List(_) => self.node.span.clone(),
        }
    }

    fn entries(&self, entries: &'a [Entry]) -> Entries<'a> {
        Entries { rest: entries.iter(), value: None, failure: self.failure }
    }

    fn items(&self, items: &'a [Node]) -> Items<'a> {
        Items { rest: items.iter(), failure: self.failure }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        let place = self.place();
        let result = match &self.node.value {
            Value::Scalar(scalar) => visitor.visit_str(&scalar.text),
            _ => Err(self.mismatch(&visitor)),
        };
        note(self.failure, &place, result)
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        let place = self.place();
        let result = match &self.node.value {
            Value::Scalar(scalar) if !scalar.quoted || scalar.expanded => visit_number(scalar, visitor),
            _ => Err(self.mismatch(&visitor)),
        };
        note(self.failure, &place, result)
    }

    fn mismatch(&self, expected: &dyn Expected) -> SettingError {
        let unexpected = match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Scalar(scalar) => Unexpected::Str(&scalar.text),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        };
        SettingError::invalid_type(unexpected, expected)
    }
}

fn visit_number<'de, V: Visitor<'de>>(scalar: &Scalar, visitor: V) -> Result<V::Value, SettingError> {
    match core::number(scalar.text.trim()) {
        Some(core::Number::Natural(number)) => visitor.visit_u64(number),
        Some(core::Number::Negative(number)) => visitor.visit_i64(number),
        Some(core::Number::Float(number)) if number.is_finite() => visitor.visit_f64(number),
        _ => Err(SettingError::invalid_type(Unexpected::Str(scalar.text.trim()), &visitor)),
    }
}

fn boolean(scalar: &Scalar) -> Option<bool> {
    core::boolean(scalar.text.trim())
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = SettingError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        match &self.node.value {
            Value::Null => self.deserialize_unit(visitor),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
            Value::Scalar(scalar) if scalar.quoted && !scalar.expanded => self.text(visitor),
            Value::Scalar(scalar) if boolean(scalar).is_some() => self.deserialize_bool(visitor),
            Value::Scalar(scalar) if core::number(scalar.text.trim()).is_some_and(core::Number::is_finite) => {
                self.number(visitor)
            }
            Value::Scalar(_) => self.text(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        let place = self.place();
        let value = match &self.node.value {
            Value::Scalar(scalar) if !scalar.quoted || scalar.expanded => boolean(scalar),
            _ => None,
        };
        let result = match value {
            Some(value) => visitor.visit_bool(value),
            None => Err(self.mismatch(&visitor)),
        };
        note(self.failure, &place, result)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.number(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.text(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.text(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        let (failure, place) = (self.failure, self.place());
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => note(failure, &place, visitor.visit_some(self)),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        let place = self.place();
        let result = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            _ => Err(self.mismatch(&visitor)),
        };
        note(self.failure, &place, result)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, SettingError> {
        let (failure, place) = (self.failure, self.place());
        note(failure, &place, visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        let place = self.place();
        let result = match &self.node.value {
            Value::List(items) => visitor.visit_seq(self.items(items)),
            _ => Err(self.mismatch(&visitor)),
        };
        note(self.failure, &place, result)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, SettingError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, SettingError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        let place = self.place();
        let result = match self.node.entries() {
            Some(entries) => visitor.visit_map(self.entries(entries)),
            None => Err(self.mismatch(&visitor)),
        };
        note(self.failure, &place, result)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SettingError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SettingError> {
        let place = self.place();
        let failure = self.failure;
        let result = match &self.node.value {
            Value::Scalar(scalar) => {
                visitor.visit_enum(Variant { name: &scalar.text, span: self.node.span.clone(), value: None, failure })
            }
            Value::Map(entries) if entries.len() == 1 => {
                let Entry { key, key_span, value } = &entries[0];
                visitor.visit_enum(Variant { name: key, span: key_span.clone(), value: Some(value), failure })
            }
            _ => Err(self.mismatch(&visitor)),
        };
        note(failure, &place, result)
    }

    forward_to_deserialize_any! { i128 u128 bytes byte_buf unit_struct ignored_any }
}
