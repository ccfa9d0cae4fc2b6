//! Values as JSON, as the API promises them: numbers as JSON numbers (NaN and infinities null), times in RFC 3339 UTC with
//! up to microseconds, bytes in hexadecimal, lists, structs and maps as JSON. What has no form of its own in JSON (an
//! interval, say) is text.

use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use cornjacket_core::time::format_rfc3339;
use serde_json::{Map, Value};

use super::QueryError;

/// The rows of a batch as JSON objects.
///
/// # Errors
/// When a value cannot be written, which happens to types that nobody can store here.
pub fn row_objects(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, QueryError> {
    let schema = batch.schema();
    let object = |row| {
        let fields = schema.fields().iter().zip(batch.columns());
        fields.map(|(field, column)| Ok((field.name().clone(), value_at(column, row)?))).collect()
    };
    (0..batch.num_rows()).map(object).collect()
}

/// One value of a column as JSON; null beyond its end.
///
/// # Errors
/// As [`row_objects`].
pub fn value_at(column: &dyn Array, row: usize) -> Result<Value, QueryError> {
    if row >= column.len() || column.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => column.as_boolean().value(row).into(),
        kind if kind.is_numeric() => number_at(column, row)?,
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::Binary => hex(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => hex(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => hex(column.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => hex(column.as_fixed_size_binary().value(row)),
        DataType::Timestamp(unit, _) => format_rfc3339(micros_at(column, row, *unit)).into(),
        DataType::Dictionary(..) => dictionary_at(column, row)?,
        kind if kind.is_nested() => nested_at(column, row)?,
        _ => text_at(column, row)?,
    })
}

fn number_at(column: &dyn Array, row: usize) -> Result<Value, QueryError> {
    Ok(match column.data_type() {
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float16 => f32::from(column.as_primitive::<Float16Type>().value(row)).into(),
        // Through its shortest text: 0.1 in 32 bits is 0.1 to people, not 0.10000000149011612.
        DataType::Float32 => parsed(&column.as_primitive::<Float32Type>().value(row).to_string()),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Decimal128(_, 0) => {
            let whole = column.as_primitive::<Decimal128Type>().value(row);
            i64::try_from(whole).map_or_else(|_| parsed(&whole.to_string()), Value::from)
        }
        _ => parsed(text_at(column, row)?.as_str().unwrap_or_default()),
    })
}

/// The number that a text is, or null if it is not a finite one.
fn parsed(text: &str) -> Value {
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

fn micros_at(column: &dyn Array, row: usize, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => column.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000_000),
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1_000),
        TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000),
    }
}

fn dictionary_at(column: &dyn Array, row: usize) -> Result<Value, QueryError> {
    let dictionary = column.as_any_dictionary();
    let key = value_at(dictionary.keys(), row)?.as_u64().and_then(|key| usize::try_from(key).ok());
    key.map_or(Ok(Value::Null), |key| value_at(dictionary.values(), key))
}

fn nested_at(column: &dyn Array, row: usize) -> Result<Value, QueryError> {
    match column.data_type() {
        DataType::List(_) => list(&column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(&column.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let pairs = fields.iter().zip(columns);
            pairs.map(|(field, column)| Ok((field.name().clone(), value_at(column, row)?))).collect()
        }
        DataType::Map(..) => map_at(column, row),
        DataType::Union(..) => union_at(column, row),
        _ => text_at(column, row),
    }
}

fn list(items: &dyn Array) -> Result<Value, QueryError> {
    (0..items.len()).map(|row| value_at(items, row)).collect()
}

fn map_at(column: &dyn Array, row: usize) -> Result<Value, QueryError> {
    let entries = column.as_map().value(row);
    let (keys, values) = (entries.column(0), entries.column(1));
    let pair = |at| {
        let key = match value_at(keys, at)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Ok((key, value_at(values, at)?))
    };
    (0..entries.len()).map(pair).collect()
}

/// Unions come from the JSON functions, whose objects and arrays are JSON text.
fn union_at(column: &dyn Array, row: usize) -> Result<Value, QueryError> {
    let union = column.as_union();
    let kind = union.type_id(row);
    let DataType::Union(fields, _) = column.data_type() else { return text_at(column, row) };
    let is_json = fields.iter().any(|(id, field)| id == kind && matches!(field.name().as_str(), "object" | "array"));
    match value_at(&union.value(row), 0)? {
        Value::String(text) if is_json => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
        value => Ok(value),
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

fn text_at(column: &dyn Array, row: usize) -> Result<Value, QueryError> {
    let options = FormatOptions::default();
    let failed = |error: arrow::error::ArrowError| QueryError::Failed(error.to_string());
    let formatter = ArrayFormatter::try_new(column, &options).map_err(failed)?;
    formatter.value(row).try_to_string().map(Value::String).map_err(failed)
}

/// A type's name for people, in the words of the pipeline file where it has one.
#[must_use]
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => "int".into(),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint".into(),
        DataType::Float16 | DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary".into()
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("list<{}>", type_name(item.data_type()))
        }
        DataType::Struct(_) => "struct".into(),
        DataType::Map(..) => "map".into(),
        DataType::Union(..) => "json".into(),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => {
            format!("decimal({p}, {s})")
        }
        other => other.to_string().to_lowercase(),
    }
}
