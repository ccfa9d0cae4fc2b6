//! Objects with declared fields, read into one column per field: payloads and the structs inside them.

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use arrow::datatypes::Fields;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::catalogue::{Field, UnknownFields};
use crate::error::Result;

use super::column::{Column, finish_struct};
use super::fault::{Faults, Path, Rule};
use super::usual::Scanner;
use super::value::Value;

/// The columns of an object's fields.
pub(super) struct Record {
    columns: Vec<FieldColumn>,
    arrow: Fields,
    /// Numbers the objects read, so that a field seen in this one need not be reset for the next.
    object: u64,
}

struct FieldColumn {
    field: Field,
    column: Column,
    /// The number of the object that had the field last.
    seen: u64,
}

/// What readers of nested values share.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub path: &'p Path<'p>,
    pub unknown: UnknownFields,
    /// Whether to expect numbers beyond any range, which would break the quick reading off.
    pub careful: bool,
}

impl Record {
    pub fn new(fields: &[Field]) -> Self {
        let column =
            |field: &Field| FieldColumn { field: field.clone(), column: Column::new(&field.data_type), seen: 0 };
        let arrow = fields.iter().map(|field| field.column(false)).collect();
        Self { columns: fields.iter().map(column).collect(), arrow, object: 0 }
    }

    pub fn append_null(&mut self) {
        for entry in &mut self.columns {
            entry.column.append_null();
        }
    }

    pub fn truncate(&mut self, len: usize) {
        for entry in &mut self.columns {
            entry.column.truncate(len);
        }
    }

    /// Takes the columns out, in the order of the fields.
    pub fn finish_columns(&mut self) -> Result<Vec<ArrayRef>> {
        self.columns.iter_mut().map(|entry| entry.column.finish()).collect()
    }

    pub fn finish(&mut self, len: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let columns = self.finish_columns()?;
        finish_struct(self.arrow.clone(), columns, len, nulls)
    }

    /// Reads an object into one more row of every column. Where faults are added the columns may be of unequal length
    /// until they are truncated.
    pub fn read<'de, A: MapAccess<'de>>(
        &mut self,
        mut object: A,
        place: Place<'_>,
        faults: &mut Faults,
    ) -> Result<(), A::Error> {
        self.object += 1;
        let mut expected = 0;
        while let Some(key) =
            object.next_key_seed(FieldKey { columns: &self.columns, expected, unknown: place.unknown })?
        {
            match key {
                Key::Known(index) => {
                    expected = index + 1;
                    self.read_field(index, &mut object, place, faults)?;
                }
                Key::Unknown(name) => {
                    if let Some(name) = name {
                        let names = self.columns.iter().map(|entry| entry.field.name.as_str());
                        faults.unknown(Rule::PAYLOAD, Path::Field(place.path, &name), &name, names);
                    }
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.end_object(place, faults);
        Ok(())
    }

    /// As [`Record::read`], for an object in the usual form; `None` where it is not in that form, or something is wrong with
    /// it.
    pub fn read_usual(&mut self, scanner: &mut Scanner<'_>, place: Place<'_>, faults: &mut Faults) -> Option<()> {
        self.object += 1;
        let (before, mut expected) = (faults.count(), 0);
        scanner.object(|scanner, name| {
            let Some(index) = position(&self.columns, expected, name) else {
                return (place.unknown == UnknownFields::Keep).then(|| scanner.skip_simple())?;
            };
            expected = index + 1;
            let FieldColumn { field, column, seen } = self.columns.get_mut(index)?;
            if std::mem::replace(seen, self.object) == self.object {
                return None;
            }
            let path = Path::Field(place.path, &field.name);
            let place = Place { path: &path, ..place };
            Value { field: Some(field), column, place, faults }.read_usual(scanner)
        })?;
        self.end_object(place, faults);
        (faults.count() == before).then_some(())
    }

    fn read_field<'de, A: MapAccess<'de>>(
        &mut self,
        index: usize,
        object: &mut A,
        place: Place<'_>,
        faults: &mut Faults,
    ) -> Result<(), A::Error> {
        let Some(FieldColumn { field, column, seen }) = self.columns.get_mut(index) else {
            return Err(A::Error::custom("a field that is not there"));
        };
        let path = Path::Field(place.path, &field.name);
        if *seen == self.object {
            faults.add(Rule::PAYLOAD, path, "is there twice");
            object.next_value::<IgnoredAny>()?;
            return Ok(());
        }
        *seen = self.object;
        let place = Place { path: &path, ..place };
        object.next_value_seed(Value { field: Some(field), column, place, faults })
    }

    fn end_object(&mut self, place: Place<'_>, faults: &mut Faults) {
        for FieldColumn { field, column, .. } in self.columns.iter_mut().filter(|entry| entry.seen != self.object) {
            if field.optional {
                column.append_null();
            } else {
                faults.add(Rule::PAYLOAD, Path::Field(place.path, &field.name), "is required, but missing");
            }
        }
    }
}

/// The place of a field, which is the expected one in most cases.
fn position(columns: &[FieldColumn], expected: usize, name: &str) -> Option<usize> {
    let is_it = |entry: &FieldColumn| entry.field.name == name;
    if columns.get(expected).is_some_and(is_it) { Some(expected) } else { columns.iter().position(is_it) }
}

/// Reads a key and finds its field.
struct FieldKey<'a> {
    columns: &'a [FieldColumn],
    /// The field that comes next if the object has them in the declared order, as most have.
    expected: usize,
    unknown: UnknownFields,
}

enum Key {
    Known(usize),
    /// With the name, where it matters.
    Unknown(Option<String>),
}

impl<'de> DeserializeSeed<'de> for FieldKey<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldKey<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        Ok(match position(self.columns, self.expected, name) {
            Some(index) => Key::Known(index),
            None => Key::Unknown((self.unknown == UnknownFields::Reject).then(|| name.to_owned())),
        })
    }
}
