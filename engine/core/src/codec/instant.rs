//! Points in time as JSON has them: RFC 3339 text, or a number whose size tells its unit.

use crate::time::{MAX_EVENT_TIME, Micros, SECOND};

/// What a time may look like, for messages.
pub(super) const EXPECTED: &str = "a time (RFC 3339 text, or epoch seconds, milliseconds or microseconds)";

const MAX_SECONDS: i64 = MAX_EVENT_TIME / SECOND;
const MAX_MILLIS: i64 = MAX_EVENT_TIME / 1_000;

/// Reads a whole number. The bounds between the units are the last moment of the year 2261 in seconds and in
/// milliseconds, so every time from 18 April 1970 on has one reading in each unit, and earlier ones have one in
/// seconds.
pub(super) fn from_whole(number: i128) -> Option<Micros> {
    let number = i64::try_from(number).ok()?;
    match number.unsigned_abs() {
        size if size <= MAX_SECONDS.unsigned_abs() => Some(number * SECOND),
        size if size <= MAX_MILLIS.unsigned_abs() => Some(number * 1_000),
        size if size <= MAX_EVENT_TIME.unsigned_abs() => Some(number),
        _ => None,
    }
}

/// Reads a number with a fraction, by the same bounds.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // Bounds and results fit into 53 bits.
pub(super) fn from_real(number: f64) -> Option<Micros> {
    let unit = match number.abs() {
        size if size < (MAX_SECONDS + 1) as f64 => SECOND as f64,
        size if size < (MAX_MILLIS + 1) as f64 => 1_000.0,
        size if size < (MAX_EVENT_TIME + 1) as f64 => 1.0,
        _ => return None,
    };
    Some((number * unit).round() as Micros)
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
        assert_eq!(from_real(1_767_225_610.25), Some(time));
        assert_eq!(from_real(1_767_225_610_250.0), Some(time));
        assert_eq!(from_real(1e300), None);
        assert_eq!(from_real(-1.5), Some(-1_500_000));
    }
}
