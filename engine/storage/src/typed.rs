//! Texts as values of a column's type, so that a value is found however it is written: `1`, `1.0` and `1e0` are one number,
//! and a time is the same with any offset.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float32Array, Float64Array, StringArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::DataType;
use cornjacket_core::time::timestamp_type;

use crate::key::Texts;

/// An exponent beyond this leaves every number type.
const MAX_EXPONENT: i32 = 400;
/// Digits of a second's fraction that a time keeps.
const FRACTION_DIGITS: usize = 6;

/// The text under which a row with this value is kept; `None` if the text is no value of that type.
#[must_use]
pub fn stored_text(text: &str, data_type: &DataType) -> Option<String> {
    // A type that no text can be read as is compared as it is shown.
    if !is_binary(data_type) && !can_cast_types(&DataType::Utf8, data_type) {
        return Some(text.to_string());
    }
    Texts::new(&value_of(text, data_type)?).ok()?.get(0)
}

/// A column of this type with the one value that a text stands for.
pub(crate) fn value_of(text: &str, data_type: &DataType) -> Option<ArrayRef> {
    use DataType as T;
    let plain = match data_type {
        T::Float16 | T::Float32 | T::Float64 => return float_of(text, data_type),
        binary if is_binary(binary) => return bytes_of(text, data_type),
        T::Timestamp(..) if !is_within_micros(text) => return None,
        T::Timestamp(..) => return cast_one(&cast_one(&one(text), &timestamp_type())?, data_type),
        whole if whole.is_integer() => plain_number(text, 0)?,
        T::Decimal32(_, scale) | T::Decimal64(_, scale) | T::Decimal128(_, scale) | T::Decimal256(_, scale) => {
            plain_number(text, usize::try_from(*scale).unwrap_or(0))?
        }
        _ => text.to_string(),
    };
    cast_one(&one(&plain), data_type)
}

fn is_binary(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(data_type, T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_))
}

fn one(text: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![text]))
}

fn cast_one(value: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
    cast(value, to).ok().filter(|value| value.is_valid(0))
}

/// A number that is not finite is one only where the text says so.
fn float_of(text: &str, data_type: &DataType) -> Option<ArrayRef> {
    let named = text.trim_start_matches(['+', '-']).starts_with(|first: char| first.is_ascii_alphabetic());
    // Read in its own width: by way of 64 bits it might be rounded twice.
    if *data_type == DataType::Float32 {
        let value = text.parse::<f32>().ok().filter(|value| named || value.is_finite())?;
        return Some(Arc::new(Float32Array::from(vec![value])));
    }
    let value = text.parse::<f64>().ok().filter(|value| named || value.is_finite())?;
    let value: ArrayRef = Arc::new(Float64Array::from(vec![value]));
    cast_one(&value, data_type)
}

/// Bytes are written as hexadecimal digits, in either case.
fn bytes_of(text: &str, data_type: &DataType) -> Option<ArrayRef> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Vec<u8> = text.as_bytes().iter().map(digit).collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some((high << 4) | low),
        _ => None,
    });
    let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
    let value: ArrayRef = Arc::new(arrow::array::BinaryArray::from(vec![&bytes[..]]));
    cast_one(&value, data_type)
}

/// Whether a time has no digit behind the microseconds, which would be cut off.
fn is_within_micros(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    digits.skip(FRACTION_DIGITS).all(|digit| digit == b'0')
}

/// A number without exponent, leading `+` and needless zeros; `None` if it is no number, or has more digits behind the point.
fn plain_number(text: &str, scale: usize) -> Option<String> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent = exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= MAX_EXPONENT)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let padded = format!("{}{digits}", "0".repeat(usize::try_from(-point).unwrap_or(0)));
    let point = usize::try_from(point).unwrap_or(0);
    let padded = format!("{padded:0<point$}");
    let (whole, fraction) = padded.split_at(point);
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if fraction.len() > scale {
        return None;
    }
    let sign = if negative && !(whole.is_empty() && fraction.is_empty()) { "-" } else { "" };
    let (whole, dot) = (if whole.is_empty() { "0" } else { whole }, if fraction.is_empty() { "" } else { "." });
    Some(format!("{sign}{whole}{dot}{fraction}"))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn check(data_type: &DataType, written: &[&str], stored: &str) {
        for text in written {
            assert_eq!(stored_text(text, data_type).as_deref(), Some(stored), "{text} as {data_type}");
        }
    }

    fn refused(data_type: &DataType, texts: &[&str]) {
        for text in texts {
            assert_eq!(stored_text(text, data_type), None, "{text} as {data_type}");
        }
    }

    #[test]
    fn whole_numbers_are_found_however_they_are_written() {
        check(&DataType::Int64, &["1", "+1", "1.0", "01", "1e0", "10e-1", "0.1e1", "1."], "1");
        check(&DataType::Int64, &["1000", "1e3", "1E+3", "+1000.00"], "1000");
        check(&DataType::Int64, &["0", "-0", "0.0", "-0e5", "0e-9"], "0");
        check(&DataType::Int64, &["-9223372036854775808", "-9223372036854775808.0"], "-9223372036854775808");
        check(&DataType::UInt64, &["18446744073709551615", "18446744073709551615.0"], "18446744073709551615");
        let none =
            ["", "one", "1.5", "1e-1", "0x10", "1_000", "--1", "e3", ".", "9223372036854775808", "1e400", "1e9999"];
        refused(&DataType::Int64, &none);
        refused(&DataType::Int32, &["2147483648", "NaN"]);
        refused(&DataType::UInt64, &["-1"]);
    }

    #[test]
    fn floats_are_found_however_they_are_written() {
        check(&DataType::Float64, &["1", "1.0", "+1", "1e0", "100e-2"], "1.0");
        check(&DataType::Float64, &["0", "-0", "-0.0", "0.000"], "0.0");
        check(&DataType::Float64, &["NaN", "nan", "-nan"], "NaN");
        check(&DataType::Float64, &["inf", "Infinity", "+inf"], "inf");
        check(&DataType::Float32, &["0.1", "1e-1", "0.10000000149"], "0.1");
        refused(&DataType::Float64, &["", "warm", "1,5", "1e400"]);
    }

    #[test]
    fn decimals_are_found_however_they_are_written() {
        check(&DataType::Decimal128(10, 2), &["1.5", "1.50", "+1.500", "15e-1"], "1.50");
        check(&DataType::Decimal128(10, 2), &["0", "-0.00"], "0.00");
        refused(&DataType::Decimal128(10, 2), &["1.005", "one", "123456789.00"]);
    }

    #[test]
    fn times_are_found_with_any_offset_and_any_zeros() {
        let written = [
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00.000000000Z",
            "2026-01-01T02:00:00+02:00",
            "2025-12-31T18:30:00-05:30",
            "2026-01-01 00:00:00",
            "2026-01-01t00:00:00z",
        ];
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            check(&DataType::Timestamp(unit, Some("UTC".into())), &written, "2026-01-01T00:00:00Z");
        }
        check(&timestamp_type(), &["0001-01-01T00:00:00Z"], "0001-01-01T00:00:00Z");
        check(&timestamp_type(), &["9999-12-31T23:59:59.25+00:00"], "9999-12-31T23:59:59.250Z");
        refused(&timestamp_type(), &["", "now", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00.0000001Z"]);
    }

    #[test]
    fn booleans_dates_and_bytes_are_found_however_they_are_written() {
        check(&DataType::Boolean, &["true", "TRUE", "1"], "true");
        refused(&DataType::Boolean, &["", "maybe", "2"]);
        check(&DataType::Date32, &["2026-01-01"], "2026-01-01");
        refused(&DataType::Date32, &["", "2026-02-30", "spring"]);
        check(&DataType::FixedSizeBinary(2), &["ab01", "AB01"], "ab01");
        refused(&DataType::FixedSizeBinary(2), &["ab0", "ab", "zz00"]);
        check(&DataType::Utf8, &["1.0"], "1.0");
        check(&DataType::Utf8, &[""], "");
    }
}
