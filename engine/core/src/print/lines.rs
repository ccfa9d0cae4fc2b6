//! Rows as lines of JSON and as cells, from whole columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, LineDelimited, NullableEncoder, WriterBuilder};
use serde_json::Value;

use super::value::Printer;
use super::{NonFinite, non_finite_text};
use crate::error::{Error, Result};
use crate::json::is_marked;
use crate::time::format_rfc3339;

/// Each row as a JSON object; nulls are written.
///
/// # Errors
/// When a value cannot be printed, which [`super::check_printable`] finds before.
pub fn json_lines(rows: &RecordBatch, non_finite: NonFinite) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    let builder = WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Printers(non_finite)));
    let mut writer = builder.build::<_, LineDelimited>(&mut bytes);
    writer.write(rows)?;
    writer.finish()?;
    let text = String::from_utf8(bytes).map_err(|error| Error::Compute(error.to_string()))?;
    Ok(text.lines().map(str::to_string).collect())
}

/// A column's values as the text of cells: what JSON has in quotes stands there without, null is `None`.
///
/// # Errors
/// As [`json_lines`].
pub fn cell_texts(field: &Field, column: &ArrayRef) -> Result<Vec<Option<String>>> {
    let printer = Printer(NonFinite::Text);
    let cell = |row| {
        // JSON is written as it is, with its quotes.
        if is_marked(field)
            && let Some(texts) = column.as_string_opt::<i32>()
        {
            return Ok(texts.is_valid(row).then(|| texts.value(row).to_string()));
        }
        Ok(match printer.value_at(field, column, row)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        })
    };
    (0..column.len()).map(cell).collect()
}

/// Makes the encoders of columns that are printed in a way of our own.
#[derive(Debug)]
struct Printers(NonFinite);

impl EncoderFactory for Printers {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> std::result::Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            // Structs, of which a row is one, and lists are written part by part, and their parts come here by themselves.
            DataType::Null | DataType::Boolean | DataType::Struct(_) | DataType::List(_) => return Ok(None),
            kind if kind.is_integer() || (*kind == DataType::Utf8 && !is_marked(field)) => return Ok(None),
            DataType::Float64 => Box::new(Doubles(array.as_primitive::<Float64Type>().values(), self.0)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Box::new(Times(array.as_primitive::<TimestampMicrosecondType>().values()))
            }
            _ => Box::new(Values { printer: Printer(self.0), field, array }),
        };
        // A dictionary's key may point to null.
        Ok(Some(NullableEncoder::new(encoder, array.logical_nulls())))
    }
}

struct Doubles<'a>(&'a [f64], NonFinite);

impl Encoder for Doubles<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0[row];
        if value.is_finite() {
            // Writing to a vector cannot fail.
            let _ = serde_json::to_writer(out, &value);
        } else if self.1 == NonFinite::Text {
            out.extend_from_slice(format!("\"{}\"", non_finite_text(value)).as_bytes());
        } else {
            out.extend_from_slice(b"null");
        }
    }
}

struct Times<'a>(&'a [i64]);

impl Encoder for Times<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(format_rfc3339(self.0[row]).as_bytes());
        out.push(b'"');
    }
}

/// Everything else, value by value.
struct Values<'a> {
    printer: Printer,
    field: &'a Field,
    array: &'a dyn Array,
}

impl Encoder for Values<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        // What cannot be printed was found before; this is what is left of it.
        let value = self.printer.value_at(self.field, self.array, row).unwrap_or(Value::Null);
        let _ = serde_json::to_writer(out, &value);
    }
}
