//! Arrow values in `SQLite` and back, exactly.
//!
//! Whole numbers, booleans and times are INTEGER (times in their own unit), floats REAL, text TEXT, bytes BLOB. `SQLite`
//! would turn NaN into NULL, so floats that are not finite are kept as TEXT. Every other type (decimals, lists, structs)
//! is a BLOB: an Arrow IPC stream of the one value.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, new_null_array,
};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, UInt64Type};
use cornjacket_core::{Error, Result};
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};

use crate::block::{read_stream, write_stream};
use crate::typed::value_of;

/// A column made ready to be bound row by row.
pub(super) enum Bound {
    Whole(Int64Array),
    Float(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray),
    Other(ArrayRef),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Unsigned,
    Float,
    Text,
    Bytes,
    Other,
}

fn kind_of(data_type: &DataType) -> Kind {
    use DataType as T;
    match data_type {
        T::UInt64 => Kind::Unsigned,
        T::Boolean | T::Date32 | T::Date64 | T::Timestamp(..) | T::Time32(_) | T::Time64(_) | T::Duration(_) => {
            Kind::Whole
        }
        other if other.is_integer() => Kind::Whole,
        T::Float16 | T::Float32 | T::Float64 => Kind::Float,
        T::Utf8 | T::LargeUtf8 | T::Utf8View => Kind::Text,
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => Kind::Bytes,
        _ => Kind::Other,
    }
}

/// `Date32` and `Time32` are only cast from and to 32 bits.
fn is_narrow(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Time32(_))
}

impl Bound {
    pub(super) fn new(column: &ArrayRef) -> Result<Self> {
        Ok(match kind_of(column.data_type()) {
            Kind::Whole if is_narrow(column.data_type()) => {
                Self::Whole(cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?.as_primitive().clone())
            }
            Kind::Whole => Self::Whole(cast(column, &DataType::Int64)?.as_primitive().clone()),
            Kind::Unsigned => Self::Whole(column.as_primitive::<UInt64Type>().unary(u64::cast_signed)),
            Kind::Float => Self::Float(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone()),
            Kind::Text => Self::Text(cast(column, &DataType::Utf8)?.as_string().clone()),
            Kind::Bytes => Self::Bytes(cast(column, &DataType::Binary)?.as_binary().clone()),
            Kind::Other => Self::Other(Arc::clone(column)),
        })
    }

    pub(super) fn at(&self, row: usize) -> Result<Cell<'_>> {
        let is_null = match self {
            Self::Whole(column) => column.is_null(row),
            Self::Float(column) => column.is_null(row),
            Self::Text(column) => column.is_null(row),
            Self::Bytes(column) => column.is_null(row),
            Self::Other(column) => column.is_null(row),
        };
        if is_null {
            return Ok(Cell(ToSqlOutput::Owned(Value::Null)));
        }
        Ok(Cell(match self {
            Self::Whole(column) => ToSqlOutput::Owned(Value::Integer(column.value(row))),
            Self::Float(column) if column.value(row).is_finite() => ToSqlOutput::Owned(Value::Real(column.value(row))),
            Self::Float(column) => ToSqlOutput::Owned(Value::Text(column.value(row).to_string())),
            Self::Text(column) => ToSqlOutput::Borrowed(ValueRef::Text(column.value(row).as_bytes())),
            Self::Bytes(column) => ToSqlOutput::Borrowed(ValueRef::Blob(column.value(row))),
            Self::Other(column) => ToSqlOutput::Owned(Value::Blob(encode_one(column, row)?)),
        }))
    }
}

/// A value to bind.
pub(super) struct Cell<'a>(ToSqlOutput<'a>);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match &self.0 {
            ToSqlOutput::Borrowed(value) => ToSqlOutput::Borrowed(*value),
            ToSqlOutput::Owned(value) => ToSqlOutput::Borrowed(value.into()),
            _ => ToSqlOutput::Owned(Value::Null),
        })
    }
}

fn encode_one(column: &ArrayRef, row: usize) -> Result<Vec<u8>> {
    let schema = Arc::new(Schema::new(vec![Field::new("value", column.data_type().clone(), true)]));
    // A slice would drag the whole column's buffers along.
    let one = arrow::compute::take(column, &arrow::array::UInt64Array::from(vec![row as u64]), None)?;
    let mut bytes = Vec::new();
    write_stream(&RecordBatch::try_new(schema, vec![one])?, &mut bytes)?;
    Ok(bytes)
}

/// Collects a column while rows are read.
pub(super) struct Reading {
    data_type: DataType,
    values: Values,
}

enum Values {
    Whole(Vec<Option<i64>>),
    Float(Vec<Option<f64>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Other(Vec<ArrayRef>),
}

impl Reading {
    pub(super) fn new(data_type: &DataType) -> Self {
        let values = match kind_of(data_type) {
            Kind::Whole | Kind::Unsigned => Values::Whole(Vec::new()),
            Kind::Float => Values::Float(Vec::new()),
            Kind::Text => Values::Text(Vec::new()),
            Kind::Bytes => Values::Bytes(Vec::new()),
            Kind::Other => Values::Other(Vec::new()),
        };
        Self { data_type: data_type.clone(), values }
    }

    pub(super) fn push(&mut self, value: ValueRef<'_>) -> Result<()> {
        let wrong = || Error::Corrupt("a projection's column holds a value of another type".into());
        match &mut self.values {
            Values::Whole(values) => values.push(value.as_i64_or_null().map_err(|_| wrong())?),
            Values::Float(values) => values.push(match value {
                ValueRef::Null => None,
                ValueRef::Real(number) => Some(number),
                ValueRef::Text(text) => {
                    Some(std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or_else(wrong)?)
                }
                _ => return Err(wrong()),
            }),
            Values::Text(values) => values.push(value.as_str_or_null().map_err(|_| wrong())?.map(str::to_string)),
            Values::Bytes(values) => values.push(value.as_blob_or_null().map_err(|_| wrong())?.map(<[u8]>::to_vec)),
            Values::Other(values) => values.push(match value.as_blob_or_null().map_err(|_| wrong())? {
                None => new_null_array(&self.data_type, 1),
                Some(bytes) => Arc::clone(read_stream(bytes, None)?.column(0)),
            }),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<ArrayRef> {
        let to = &self.data_type;
        Ok(match self.values {
            Values::Whole(values) => {
                let whole: Int64Array = values.into_iter().collect();
                match to {
                    DataType::UInt64 => Arc::new(whole.unary::<_, UInt64Type>(i64::cast_unsigned)),
                    narrow if is_narrow(narrow) => cast(&cast(&whole, &DataType::Int32)?, narrow)?,
                    other => cast(&whole, other)?,
                }
            }
            Values::Float(values) => cast(&values.into_iter().collect::<Float64Array>(), to)?,
            Values::Text(values) => cast(&values.into_iter().collect::<StringArray>(), to)?,
            Values::Bytes(values) => {
                let bytes: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
                cast(&BinaryArray::from(bytes), to)?
            }
            Values::Other(values) if values.is_empty() => new_null_array(to, 0),
            Values::Other(values) => concat(&values.iter().map(|value| &**value).collect::<Vec<&dyn Array>>())?,
        })
    }
}

/// A text as a value of a column's type, to compare with; `None` if it is none.
pub(super) fn parse(text: &str, data_type: &DataType) -> Option<Bound> {
    Bound::new(&value_of(text, data_type)?).ok()
}
