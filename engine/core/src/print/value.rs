//! One value as JSON.

use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};

use super::NonFinite;
use crate::error::{Error, Result};
use crate::json::is_marked;
use crate::time::format_rfc3339;

/// The rows of a batch as JSON objects.
///
/// # Errors
/// When a value cannot be written, which [`super::check_printable`] finds before.
pub fn row_objects(batch: &RecordBatch, non_finite: NonFinite) -> Result<Vec<Map<String, Value>>> {
    let schema = batch.schema();
    let printer = Printer(non_finite);
    let object = |row| {
        let fields = schema.fields().iter().zip(batch.columns());
        fields.map(|(field, column)| Ok((field.name().clone(), printer.value_at(field, column, row)?))).collect()
    };
    (0..batch.num_rows()).map(object).collect()
}

/// Writes values one by one.
#[derive(Clone, Copy)]
pub(super) struct Printer(pub(super) NonFinite);

impl Printer {
    /// One value of a column; null beyond its end.
    pub(super) fn value_at(self, field: &Field, column: &dyn Array, row: usize) -> Result<Value> {
        match self.plain_at(column, row)? {
            Value::String(text) if is_marked(field) => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
            value => Ok(value),
        }
    }

    fn plain_at(self, column: &dyn Array, row: usize) -> Result<Value> {
        if row >= column.len() || column.is_null(row) {
            return Ok(Value::Null);
        }
        Ok(match column.data_type() {
            DataType::Null => Value::Null,
            DataType::Boolean => column.as_boolean().value(row).into(),
            DataType::Float16 => self.float(f32::from(column.as_primitive::<Float16Type>().value(row)).into()),
            // Through its shortest text: 0.1 in 32 bits is 0.1 to people, not 0.10000000149011612.
            DataType::Float32 => self.parsed(&column.as_primitive::<Float32Type>().value(row).to_string()),
            DataType::Float64 => self.float(column.as_primitive::<Float64Type>().value(row)),
            kind if kind.is_numeric() => self.number_at(column, row)?,
            DataType::Utf8 => column.as_string::<i32>().value(row).into(),
            DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
            DataType::Utf8View => column.as_string_view().value(row).into(),
            DataType::Binary => hex(column.as_binary::<i32>().value(row)),
            DataType::LargeBinary => hex(column.as_binary::<i64>().value(row)),
            DataType::BinaryView => hex(column.as_binary_view().value(row)),
            DataType::FixedSizeBinary(_) => hex(column.as_fixed_size_binary().value(row)),
            DataType::Timestamp(unit, _) => format_rfc3339(micros_at(column, row, *unit)).into(),
            DataType::Dictionary(..) => self.dictionary_at(column, row)?,
            kind if kind.is_nested() => self.nested_at(column, row)?,
            _ => text_at(column, row)?,
        })
    }

    fn float(self, value: f64) -> Value {
        let named = || match self.0 {
            NonFinite::Null => Value::Null,
            NonFinite::Text => super::non_finite_text(value).into(),
        };
        if value.is_finite() { value.into() } else { named() }
    }

    /// The number that a text is.
    fn parsed(self, text: &str) -> Value {
        text.parse().map_or(Value::Null, |value| self.float(value))
    }

    fn number_at(self, column: &dyn Array, row: usize) -> Result<Value> {
        Ok(match column.data_type() {
            DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
            DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
            DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
            DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
            DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
            DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
            DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
            DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
            DataType::Decimal128(_, 0) => {
                let whole = column.as_primitive::<Decimal128Type>().value(row);
                i64::try_from(whole).map_or_else(|_| self.parsed(&whole.to_string()), Value::from)
            }
            _ => self.parsed(text_at(column, row)?.as_str().unwrap_or_default()),
        })
    }

    fn dictionary_at(self, column: &dyn Array, row: usize) -> Result<Value> {
        let dictionary = column.as_any_dictionary();
        let key = self.plain_at(dictionary.keys(), row)?.as_u64().and_then(|key| usize::try_from(key).ok());
        key.map_or(Ok(Value::Null), |key| self.plain_at(dictionary.values(), key))
    }

    fn nested_at(self, column: &dyn Array, row: usize) -> Result<Value> {
        match column.data_type() {
            DataType::List(item) => self.list(item, &column.as_list::<i32>().value(row)),
            DataType::LargeList(item) => self.list(item, &column.as_list::<i64>().value(row)),
            DataType::FixedSizeList(item, _) => self.list(item, &column.as_fixed_size_list().value(row)),
            DataType::ListView(item) => self.list(item, &column.as_list_view::<i32>().value(row)),
            DataType::LargeListView(item) => self.list(item, &column.as_list_view::<i64>().value(row)),
            DataType::Struct(fields) => {
                let columns = column.as_struct().columns();
                let pairs = fields.iter().zip(columns);
                pairs.map(|(field, column)| Ok((field.name().clone(), self.value_at(field, column, row)?))).collect()
            }
            DataType::Map(entries, _) => self.map_at(entries, column, row),
            DataType::Union(..) => {
                let union = column.as_union();
                self.plain_at(&union.value(row), 0)
            }
            _ => text_at(column, row),
        }
    }

    fn list(self, item: &Field, items: &dyn Array) -> Result<Value> {
        (0..items.len()).map(|row| self.value_at(item, items, row)).collect()
    }

    fn map_at(self, fields: &Field, column: &dyn Array, row: usize) -> Result<Value> {
        let entries = column.as_map().value(row);
        let (keys, values) = (entries.column(0), entries.column(1));
        let DataType::Struct(fields) = fields.data_type() else { return text_at(column, row) };
        let Some(value_field) = fields.get(1) else { return text_at(column, row) };
        let pair = |at| {
            let key = match self.plain_at(keys, at)? {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Ok((key, self.value_at(value_field, values, at)?))
        };
        (0..entries.len()).map(pair).collect()
    }
}

fn micros_at(column: &dyn Array, row: usize, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => column.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000_000),
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1_000),
        TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000),
    }
}

fn hex(bytes: &[u8]) -> Value {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

fn text_at(column: &dyn Array, row: usize) -> Result<Value> {
    let options = FormatOptions::default();
    let text = ArrayFormatter::try_new(column, &options)?.value(row).try_to_string();
    Ok(Value::String(text.map_err(|error| Error::Compute(error.to_string()))?))
}
