//! Columns under construction. Unlike Arrow's builders they can be cut back to an earlier length, so that the half of
//! an event that was read before a fault leaves no trace.

use std::mem::take;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field as ArrowField, Fields};

use crate::catalogue::FieldType;
use crate::error::Result;
use crate::time::Micros;

use super::record::Record;

/// A column of values that may be null.
pub(super) struct Column {
    validity: BooleanBufferBuilder,
    pub values: Values,
}

/// The values of a column, by type. A null has a value too, which does not matter.
pub(super) enum Values {
    Boolean(BooleanBufferBuilder),
    Int(Vec<i32>),
    BigInt(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    String(Texts),
    Timestamp(Vec<Micros>),
    Json(Texts),
    List(Box<List>),
    Struct(Record),
}

/// Texts one after the other.
pub(super) struct Texts {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

/// Items of lists one after the other.
pub(super) struct List {
    ends: Vec<i32>,
    pub items: Column,
}

impl Column {
    pub fn new(data_type: &FieldType) -> Self {
        let values = match data_type {
            FieldType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            FieldType::Int => Values::Int(Vec::new()),
            FieldType::BigInt => Values::BigInt(Vec::new()),
            FieldType::Float => Values::Float(Vec::new()),
            FieldType::Double => Values::Double(Vec::new()),
            FieldType::String => Values::String(Texts::new()),
            FieldType::Timestamp => Values::Timestamp(Vec::new()),
            FieldType::Json => Values::Json(Texts::new()),
            FieldType::List(item) => Values::List(Box::new(List { ends: Vec::new(), items: Self::new(item) })),
            FieldType::Struct(fields) => Values::Struct(Record::new(fields)),
        };
        Self { validity: BooleanBufferBuilder::new(0), values }
    }

    pub fn len(&self) -> usize {
        self.validity.len()
    }

    /// Says that the value just added to `values` is complete.
    pub fn end_value(&mut self) {
        self.validity.append(true);
        if let Values::List(list) = &mut self.values {
            list.end();
        }
    }

    pub fn append_null(&mut self) {
        self.validity.append(false);
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int(values) => values.push(0),
            Values::BigInt(values) | Values::Timestamp(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Double(values) => values.push(0.0),
            Values::String(texts) | Values::Json(texts) => texts.push(""),
            Values::List(list) => list.end(),
            Values::Struct(record) => record.append_null(),
        }
    }

    /// Cuts back to a length that it had with all its parts complete.
    pub fn truncate(&mut self, len: usize) {
        self.validity.truncate(len);
        match &mut self.values {
            Values::Boolean(values) => values.truncate(len),
            Values::Int(values) => values.truncate(len),
            Values::BigInt(values) | Values::Timestamp(values) => values.truncate(len),
            Values::Float(values) => values.truncate(len),
            Values::Double(values) => values.truncate(len),
            Values::String(texts) | Values::Json(texts) => texts.truncate(len),
            Values::List(list) => list.truncate(len),
            Values::Struct(record) => record.truncate(len),
        }
    }

    /// Takes the column out as an Arrow array.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let len = self.len();
        let nulls = Some(NullBuffer::new(self.validity.finish())).filter(|nulls| nulls.null_count() > 0);
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int(values) => Arc::new(Int32Array::try_new(take(values).into(), nulls)?),
            Values::BigInt(values) => Arc::new(Int64Array::try_new(take(values).into(), nulls)?),
            Values::Float(values) => Arc::new(Float32Array::try_new(take(values).into(), nulls)?),
            Values::Double(values) => Arc::new(Float64Array::try_new(take(values).into(), nulls)?),
            Values::String(texts) | Values::Json(texts) => texts.finish(nulls)?,
            Values::Timestamp(values) => finish_times(values, nulls)?,
            Values::List(list) => list.finish(nulls)?,
            Values::Struct(record) => record.finish(len, nulls)?,
        })
    }

    /// Takes a struct's fields out, each an Arrow array; nothing of any other column.
    pub fn finish_fields(&mut self) -> Result<Vec<ArrayRef>> {
        match &mut self.values {
            Values::Struct(record) => {
                self.validity.finish();
                record.finish_columns()
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// Takes times out as an Arrow array.
pub(super) fn finish_times(times: &mut Vec<Micros>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    Ok(Arc::new(TimestampMicrosecondArray::try_new(take(times).into(), nulls)?.with_timezone("UTC")))
}

/// An end within a buffer. Decoders take less than 2 GiB at a time, so it always fits.
fn end_of(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

fn start_of(ends: &[i32], row: usize) -> usize {
    row.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |end| usize::try_from(*end).unwrap_or(0))
}

fn offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let offsets: Vec<i32> = std::iter::once(0).chain(take(ends)).collect();
    OffsetBuffer::new(ScalarBuffer::from(offsets))
}

impl Texts {
    pub fn new() -> Self {
        Self { ends: Vec::new(), bytes: Vec::new() }
    }

    pub fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.end();
    }

    /// The bytes, to write the next text onto their end; [`Texts::end`] completes it.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn end(&mut self) {
        self.ends.push(end_of(self.bytes.len()));
    }

    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(start_of(&self.ends, len));
        self.ends.truncate(len);
    }

    pub fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let bytes = Buffer::from_vec(take(&mut self.bytes));
        Ok(Arc::new(StringArray::try_new(offsets(&mut self.ends), bytes, nulls)?))
    }
}

impl List {
    fn end(&mut self) {
        self.ends.push(end_of(self.items.len()));
    }

    fn truncate(&mut self, len: usize) {
        self.items.truncate(start_of(&self.ends, len));
        self.ends.truncate(len);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let items = self.items.finish()?;
        let field = Arc::new(ArrowField::new("item", items.data_type().clone(), true));
        Ok(Arc::new(ListArray::try_new(field, offsets(&mut self.ends), items, nulls)?))
    }
}

/// A struct array of columns; one without fields has its length from `len`.
pub(super) fn finish_struct(
    fields: Fields,
    columns: Vec<ArrayRef>,
    len: usize,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    Ok(Arc::new(StructArray::try_new_with_length(fields, columns, nulls, len)?))
}
