//! The text of a projection's key: its values joined by `/`, each percent-encoded, as in the path of the HTTP API.
//! Null is `~`, and a value that begins with `~` has that encoded, so that every key has one text and back.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use cornjacket_core::Result;
use cornjacket_core::time::format_rfc3339;

/// The text of a key.
#[must_use]
pub fn key_text(values: &[Option<String>]) -> String {
    let mut text = String::new();
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            text.push('/');
        }
        push_value(&mut text, value.as_deref());
    }
    text
}

/// The key's text of every row.
pub(crate) fn key_texts(rows: &RecordBatch, key: &[usize]) -> Result<Vec<String>> {
    let mut texts = vec![String::new(); rows.num_rows()];
    for (number, at) in key.iter().enumerate() {
        let column = Texts::new(rows.column(*at))?;
        for (row, text) in texts.iter_mut().enumerate() {
            if number > 0 {
                text.push('/');
            }
            push_value(text, column.get(row).as_deref());
        }
    }
    Ok(texts)
}

/// The values of each key column as text, `None` for null.
///
/// # Errors
/// When a column cannot be shown as text.
pub fn key_columns(rows: &RecordBatch, key: &[usize]) -> Result<Vec<Vec<Option<String>>>> {
    let texts = |at: &usize| {
        let column = Texts::new(rows.column(*at))?;
        Ok((0..rows.num_rows()).map(|row| column.get(row)).collect())
    };
    key.iter().map(texts).collect()
}

/// A column's values as text, as keys and filters have them: times as RFC 3339, numbers as Arrow shows them. Both zeros are
/// one key.
pub(crate) struct Texts {
    column: ArrayRef,
    is_time: bool,
}

impl Texts {
    pub(crate) fn new(column: &ArrayRef) -> Result<Self> {
        let is_time = matches!(column.data_type(), DataType::Timestamp(..));
        let column = match column.data_type() {
            DataType::Timestamp(unit, zone) if *unit != TimeUnit::Microsecond => {
                cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?
            }
            DataType::Utf8View | DataType::LargeUtf8 => cast(column, &DataType::Utf8)?,
            // The sum of both zeros is the positive one.
            DataType::Float64 => {
                Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(|value| value + 0.0))
            }
            DataType::Float32 => {
                Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(|value| value + 0.0))
            }
            _ => ArrayRef::clone(column),
        };
        Ok(Self { column, is_time })
    }

    pub(crate) fn get(&self, row: usize) -> Option<String> {
        if self.column.is_null(row) {
            return None;
        }
        if self.is_time {
            return Some(format_rfc3339(self.column.as_primitive::<TimestampMicrosecondType>().value(row)));
        }
        if let Some(texts) = self.column.as_string_opt::<i32>() {
            return Some(texts.value(row).to_string());
        }
        let formatter = ArrayFormatter::try_new(&self.column, &FormatOptions::default()).ok()?;
        formatter.value(row).try_to_string().ok()
    }
}

/// Appends one value's text.
fn push_value(text: &mut String, value: Option<&str>) {
    let Some(value) = value else {
        text.push('~');
        return;
    };
    for (at, byte) in value.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') || (byte == b'~' && at > 0);
        if plain {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

/// The values of a key's text, percent-encoded or not; `None` if an encoding is broken. A key of one column is the whole
/// text, whatever `/` is in it.
#[must_use]
pub fn parse_key(text: &str, columns: usize) -> Option<Vec<Option<String>>> {
    let value = |part| if part == "~" { Some(None) } else { decode(part).map(Some) };
    if columns == 1 { Some(vec![value(text)?]) } else { text.split('/').map(value).collect() }
}

fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                (digit(rest.next()?)? << 4) | digit(rest.next()?)?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_text_and_back() {
        let keys: [&[Option<&str>]; 5] = [
            &[Some("d1")],
            &[Some("a/b"), Some("")],
            &[None, Some("~")],
            &[Some("grün %"), Some("a~b")],
            &[Some("+ &")],
        ];
        for key in keys {
            let key: Vec<Option<String>> = key.iter().map(|value| value.map(str::to_string)).collect();
            assert_eq!(parse_key(&key_text(&key), key.len()), Some(key));
        }
        assert_eq!(key_text(&[Some("a/b".into()), None]), "a%2Fb/~");
        assert_eq!(parse_key("a/b", 1), Some(vec![Some("a/b".into())]));
        assert_eq!(parse_key("%zz", 1), None);
        assert_eq!(parse_key("%ff", 1), None);
        assert_eq!(parse_key("%+f", 1), None);
    }
}
