//! Lists, maps and enums of the tree, as serde walks them.

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::{FailureCell, NodeDeserializer, SettingError, note};
use crate::node::{Entry, Node, Span, Value};

pub(super) struct Items<'a> {
    pub(super) rest: std::slice::Iter<'a, Node>,
    pub(super) failure: &'a FailureCell,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = SettingError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, SettingError> {
        let Some(node) = self.rest.next() else { return Ok(None) };
        let value = seed.deserialize(NodeDeserializer { node, owner: node.span.clone(), failure: self.failure });
        note(self.failure, &node.span, value).map(Some)
    }
}

pub(super) struct Entries<'a> {
    pub(super) rest: std::slice::Iter<'a, Entry>,
    pub(super) value: Option<&'a Entry>,
    pub(super) failure: &'a FailureCell,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = SettingError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, SettingError> {
        let Some(entry) = self.rest.next() else { return Ok(None) };
        self.value = Some(entry);
        seed.deserialize(KeyDeserializer { key: &entry.key, span: &entry.key_span, failure: self.failure }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, SettingError> {
        let entry = self.value.take().ok_or_else(|| SettingError::custom("a value was asked for before its key"))?;
        let value = NodeDeserializer { node: &entry.value, owner: entry.key_span.clone(), failure: self.failure };
        let place = value.place();
        note(self.failure, &place, seed.deserialize(value))
    }
}

/// A key or the name of a variant. It notes a failure itself: on the way through an object-safe detour the list of what
/// would have been right is lost.
struct KeyDeserializer<'a> {
    key: &'a str,
    span: &'a Span,
    failure: &'a FailureCell,
}

impl<'de> Deserializer<'de> for KeyDeserializer<'_> {
    type Error = SettingError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        note(self.failure, self.span, visitor.visit_str(self.key))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// An enum's variant: a text, or the only key of a map with the variant's settings under it.
pub(super) struct Variant<'a> {
    pub(super) name: &'a str,
    pub(super) span: Span,
    pub(super) value: Option<&'a Node>,
    pub(super) failure: &'a FailureCell,
}

impl<'a> Variant<'a> {
    fn settings(self) -> Result<NodeDeserializer<'a>, SettingError> {
        let Self { name, span, value, failure } = self;
        match value {
            Some(node) => Ok(NodeDeserializer { node, owner: span, failure }),
            None => note(failure, &span, Err(SettingError::custom(format!("`{name}` needs settings under it")))),
        }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = SettingError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), SettingError> {
        let name = KeyDeserializer { key: self.name, span: &self.span, failure: self.failure };
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = SettingError;

    fn unit_variant(self) -> Result<(), SettingError> {
        match self.value.map(|node| &node.value) {
            None | Some(Value::Null) => Ok(()),
            Some(_) => {
                let error = SettingError::custom(format!("`{}` takes no settings", self.name));
                note(self.failure, &self.span, Err(error))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, SettingError> {
        seed.deserialize(self.settings()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, SettingError> {
        self.settings()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, SettingError> {
        self.settings()?.deserialize_map(visitor)
    }
}
