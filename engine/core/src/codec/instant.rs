//! Points in time as JSON has them: RFC 3339 text, or a number whose size tells its unit.

use crate::time::{MAX_EVENT_TIME, Micros, SECOND, parse_rfc3339};

/// What a time may look like, for messages.
pub(super) const EXPECTED: &str = "a time (RFC 3339 text, or epoch seconds, milliseconds or microseconds)";

/// Numbers from here on are milliseconds, those below seconds: the year 5138, or 3 March 1973.
const MILLIS_FROM: i64 = 100_000_000_000;
/// Numbers from here on are microseconds: the year 5138, or 3 March 1973.
const MICROS_FROM: i64 = 100_000_000_000_000;

/// Reads a whole number. What its unit puts beyond the last accepted event time is no time: it is more likely in a unit
/// that nobody expects, such as nanoseconds, than meant.
pub(super) fn from_whole(number: i128) -> Option<Micros> {
    let number = i64::try_from(number).ok()?;
    let unit = match number.unsigned_abs() {
        size if size < MILLIS_FROM.unsigned_abs() => SECOND,
        size if size < MICROS_FROM.unsigned_abs() => 1_000,
        _ => 1,
    };
    number.checked_mul(unit).filter(|time| time.unsigned_abs() <= MAX_EVENT_TIME.unsigned_abs())
}

/// Reads a number with a fraction, by the same bounds.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // The bounds are exact as floats.
pub(super) fn from_real(number: f64) -> Option<Micros> {
    let unit = match number.abs() {
        size if size < MILLIS_FROM as f64 => SECOND as f64,
        size if size < MICROS_FROM as f64 => 1_000.0,
        _ => 1.0,
    };
    let time = (number * unit).round();
    (time.abs() < (MAX_EVENT_TIME + 1) as f64).then_some(time as Micros)
}

/// Reads a text: RFC 3339, or a number by its size.
pub(super) fn from_text(text: &str) -> Option<Micros> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i128>() {
        return from_whole(number);
    }
    let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let real = text.parse::<f64>().ok().filter(|number| is_number && number.is_finite());
    real.map_or_else(|| parse_rfc3339(text), from_real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        let time = 1_767_225_610_250_000;
        assert_eq!(from_whole(1_767_225_610), Some(time - 250_000));
        assert_eq!(from_whole(1_767_225_610_250), Some(time));
        assert_eq!(from_whole(1_767_225_610_250_000), Some(time));
        assert_eq!(from_whole(1_767_225_610_250_000_000), None);
        assert_eq!(from_whole(99_999_999_999), None, "the year 5138 in seconds");
        assert_eq!(from_whole(100_000_000_000), Some(100_000_000_000_000));
        assert_eq!(from_whole(99_999_999_999_999), None, "the year 5138 in milliseconds");
        assert_eq!(from_whole(100_000_000_000_000), Some(100_000_000_000_000));
        assert_eq!(from_whole(MAX_EVENT_TIME.into()), Some(MAX_EVENT_TIME));
        assert_eq!(from_whole(i128::from(MAX_EVENT_TIME) + 1), None);
        assert_eq!(from_whole(i128::from(i64::MIN)), None);
        assert_eq!(from_real(1_767_225_610.25), Some(time));
        assert_eq!(from_real(1_767_225_610_250.0), Some(time));
        assert_eq!(from_real(1e300), None);
        assert_eq!(from_real(9_214_646_400_000_000.0), None, "2262");
        assert_eq!(from_real(-1.5), Some(-1_500_000));
    }
}
