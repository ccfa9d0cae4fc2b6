//! Rows as JSON: numbers as JSON numbers, NaN and infinities null, times as RFC 3339 in UTC.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use cornjacket_core::time::format_rfc3339;
use datafusion::common::ScalarValue;
use serde_json::{Map, Number, Value};

use super::QueryError;

fn failed(error: impl std::fmt::Display) -> QueryError {
    QueryError::Failed(error.to_string())
}

/// Each row as an object.
///
/// # Errors
/// When a value cannot be shown.
pub fn row_objects(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, QueryError> {
    let mut objects = vec![Map::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        for (object, value) in objects.iter_mut().zip(values(column)?) {
            object.insert(field.name().clone(), value);
        }
    }
    Ok(objects)
}

fn values(column: &ArrayRef) -> Result<Vec<Value>, QueryError> {
    use DataType as T;
    match column.data_type() {
        T::Boolean => each(column, |row| Value::Bool(column.as_boolean().value(row))),
        T::UInt64 => each(column, |row| column.as_primitive::<UInt64Type>().value(row).into()),
        other if other.is_integer() => {
            let whole = cast(column, &T::Int64).map_err(failed)?;
            each(column, |row| whole.as_primitive::<Int64Type>().value(row).into())
        }
        T::Float16 | T::Float32 | T::Float64 => {
            let numbers = cast(column, &T::Float64).map_err(failed)?;
            let number = |row| Number::from_f64(numbers.as_primitive::<Float64Type>().value(row));
            each(column, |row| number(row).map_or(Value::Null, Value::Number))
        }
        T::Utf8 | T::LargeUtf8 | T::Utf8View => {
            let texts = cast(column, &T::Utf8).map_err(failed)?;
            each(column, |row| texts.as_string::<i32>().value(row).into())
        }
        T::Timestamp(_, zone) => {
            let micros = cast(column, &T::Timestamp(TimeUnit::Microsecond, zone.clone())).map_err(failed)?;
            each(column, |row| format_rfc3339(micros.as_primitive::<TimestampMicrosecondType>().value(row)).into())
        }
        T::Decimal128(_, scale) => {
            let scale = *scale;
            each(column, |row| decimal(column.as_primitive::<Decimal128Type>().value(row), scale, column, row))
        }
        T::List(_) | T::LargeList(_) | T::FixedSizeList(..) | T::Struct(_) | T::Map(..) => nested(column),
        T::Null => Ok(vec![Value::Null; column.len()]),
        _ => shown(column),
    }
}

fn each(column: &ArrayRef, value: impl Fn(usize) -> Value) -> Result<Vec<Value>, QueryError> {
    Ok((0..column.len()).map(|row| if column.is_null(row) { Value::Null } else { value(row) }).collect())
}

/// A decimal is a number where JSON's readers keep it exact, else text.
fn decimal(value: i128, scale: i8, column: &ArrayRef, row: usize) -> Value {
    if scale == 0 && let Ok(whole) = i64::try_from(value) {
        return whole.into();
    }
    ArrayFormatter::try_new(column, &FormatOptions::default())
        .map_or(Value::Null, |formatter| Value::String(formatter.value(row).to_string()))
}

fn nested(column: &ArrayRef) -> Result<Vec<Value>, QueryError> {
    if let Some(structs) = column.as_struct_opt() {
        let fields = structs.columns().iter().map(values).collect::<Result<Vec<_>, _>>()?;
        let object = |row: usize| {
            let members = structs.column_names().into_iter().zip(&fields);
            Value::Object(members.map(|(name, values)| (name.to_string(), values[row].clone())).collect())
        };
        return each(column, object);
    }
    let list = |row: usize| match column.data_type() {
        DataType::List(_) => Some(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Some(column.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => Some(column.as_fixed_size_list().value(row)),
        _ => None,
    };
    let mut rows = Vec::with_capacity(column.len());
    for row in 0..column.len() {
        if column.is_null(row) {
            rows.push(Value::Null);
            continue;
        }
        match list(row) {
            Some(items) => rows.push(Value::Array(values(&items)?)),
            None => return shown(column),
        }
    }
    Ok(rows)
}

/// Everything else as Arrow shows it.
fn shown(column: &ArrayRef) -> Result<Vec<Value>, QueryError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options).map_err(failed)?;
    each(column, |row| formatter.value(row).try_to_string().map_or(Value::Null, Value::String))
}

/// A type's name as the API has it.
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
        DataType::List(item) | DataType::LargeList(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::Struct(_) => "struct".into(),
        other => other.to_string().to_lowercase(),
    }
}

/// A parameter of a query.
pub(super) fn parameter(value: &Value) -> Result<ScalarValue, QueryError> {
    match value {
        Value::Null => Ok(ScalarValue::Null),
        Value::Bool(value) => Ok(ScalarValue::from(*value)),
        Value::Number(number) => Ok(match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => ScalarValue::from(whole),
            (None, number) => ScalarValue::Float64(number),
        }),
        Value::String(text) => Ok(ScalarValue::from(text.as_str())),
        _ => {
            let message = "a parameter must be a string, a number, true, false or null".into();
            Err(QueryError::Invalid { message, hint: None })
        }
    }
}
