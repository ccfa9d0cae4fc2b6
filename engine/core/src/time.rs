//! Times are microseconds since 1970-01-01T00:00:00Z, in Arrow `Timestamp(µs, "UTC")`, everywhere.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, NaiveDate, SecondsFormat};

/// Microseconds since the Unix epoch, or a span of microseconds.
pub type Micros = i64;

/// One second.
pub const SECOND: Micros = 1_000_000;

/// The greatest event time that is accepted: the last microsecond of the year 2261.
pub const MAX_EVENT_TIME: Micros = 9_214_646_400 * SECOND - 1;

/// The Arrow type of every time column.
#[must_use]
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Whether an event may have happened at this time (1970 to 2261).
#[must_use]
pub fn is_valid_event_time(time: Micros) -> bool {
    (0..=MAX_EVENT_TIME).contains(&time)
}

/// The years 1 to 9999 in UTC.
pub(crate) const CALENDAR: std::ops::RangeInclusive<Micros> = -62_135_596_800 * SECOND..=253_402_300_800 * SECOND - 1;

/// Reads an RFC 3339 time; digits beyond microseconds are cut off, and a second 60, which leap seconds have, is the first of the
/// next minute. `None` if it is not one, or outside the years 1 to 9999.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Micros> {
    let parsed = parse_usual(text.as_bytes());
    let parsed = parsed.or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros()));
    parsed.filter(|time| CALENDAR.contains(time))
}

/// The form that nearly all times have, `2026-01-01T00:00:10.250Z`; everything else, a leap second too, is left to the
/// library, which takes several times as long.
fn parse_usual(text: &[u8]) -> Option<Micros> {
    let (whole, rest) = text.split_at_checked(19)?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2] = whole else {
        return None;
    };
    let number = |digits: &[&u8]| {
        let mut digits = digits.iter();
        digits.try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(**digit - b'0')))
    };
    let day = NaiveDate::from_ymd_opt(
        i32::try_from(number(&[y1, y2, y3, y4])?).ok()?,
        number(&[m1, m2])?,
        number(&[d1, d2])?,
    )?;
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[n1, n2])?, number(&[s1, s2])?);
    let fraction = match rest.split_last()? {
        (b'Z', []) => 0,
        (b'Z', [b'.', digits @ ..]) if matches!(digits.len(), 1..=9) => {
            let padded = digits.iter().chain(std::iter::repeat(&b'0')).take(6);
            let is_number = digits.iter().all(u8::is_ascii_digit);
            is_number.then(|| padded.fold(0, |number, digit| number * 10 + Micros::from(digit - b'0')))?
        }
        _ => return None,
    };
    let in_range = hour < 24 && minute < 60 && second < 60;
    let days = day.signed_duration_since(NaiveDate::default()).num_days();
    let seconds = days * 86_400 + Micros::from(hour * 3_600 + minute * 60 + second);
    in_range.then(|| seconds * SECOND + fraction)
}

/// Writes a time as RFC 3339 in UTC with as many digits of the second as it needs (none, 3 or 6).
#[must_use]
pub fn format_rfc3339(time: Micros) -> String {
    match DateTime::from_timestamp_micros(time) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None => format!("{time}us"),
    }
}

/// Writes a span as the pipeline file has it, in the greatest unit that leaves no rest: `5s`, `90s`, `1m`, `36h`, `7d`.
#[must_use]
pub fn format_span(span: Micros) -> String {
    const UNITS: [(Micros, &str); 5] =
        [(86_400 * SECOND, "d"), (3_600 * SECOND, "h"), (60 * SECOND, "m"), (SECOND, "s"), (1_000, "ms")];
    let unit = UNITS.iter().find(|(unit, _)| span != 0 && span % unit == 0);
    match unit {
        Some((unit, name)) => format!("{}{name}", span / unit),
        None if span == 0 => "0s".into(),
        None => format!("{span}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_1970_and_2261() {
        assert_eq!(parse_rfc3339("2261-12-31T23:59:59.999999Z"), Some(MAX_EVENT_TIME));
        assert!(is_valid_event_time(0));
        assert!(!is_valid_event_time(-1));
        assert!(!is_valid_event_time(MAX_EVENT_TIME + 1));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, expected) in [
            ("0001-01-01T00:00:00Z", Some(*CALENDAR.start())),
            ("9999-12-31T23:59:59.999999Z", Some(*CALENDAR.end())),
            ("0001-01-01T00:00:00+01:00", None),
            ("9999-12-31T23:59:59-01:00", None),
            ("0000-12-31T23:59:59Z", None),
            ("1970-01-01T00:00:60Z", Some(60 * SECOND)),
            ("1970-01-01T24:00:00Z", None),
            ("1970-02-30T00:00:00Z", None),
            ("1970-01-01T00:00:00+25:00", None),
        ] {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn spans_are_written_in_one_unit() {
        let spans =
            [0, 250_000, SECOND, 90 * SECOND, 120 * SECOND, 5_400 * SECOND, 86_400 * SECOND, 7].map(format_span);
        assert_eq!(spans, ["0s", "250ms", "1s", "90s", "2m", "90m", "1d", "7us"]);
    }

    #[test]
    fn the_usual_form_is_read_as_the_library_reads_it() {
        let usual = ["2026-01-01T00:00:10Z", "1969-12-31T23:59:59.25Z", "2024-02-29T23:59:59.123456789Z"];
        let mut read = 0;
        for text in usual {
            // Every byte in every place, and every length.
            for (at, byte) in (0..text.len()).flat_map(|at| (b' '..=b'~').map(move |byte| (at, byte))) {
                let mut changed = text.as_bytes().to_vec();
                changed[at] = byte;
                for end in [text.len(), at] {
                    let changed = std::str::from_utf8(&changed[..end]).expect("ASCII");
                    let ours = parse_usual(changed.as_bytes());
                    let library = DateTime::parse_from_rfc3339(changed).ok().map(|time| time.timestamp_micros());
                    assert!(ours.is_none() || ours == library, "{changed}: {ours:?} and {library:?}");
                    read += u32::from(ours.is_some());
                }
            }
            assert!(parse_usual(text.as_bytes()).is_some(), "{text}");
        }
        assert!(read > 200, "{read}");
    }

    #[test]
    fn texts_go_both_ways() {
        for text in ["2026-01-01T00:00:10Z", "2026-01-01T00:00:10.250Z", "2026-01-01T00:00:10.250001Z"] {
            assert_eq!(format_rfc3339(parse_rfc3339(text).expect("a time")), text);
        }
        assert_eq!(parse_rfc3339("2026-01-01T02:00:00+02:00"), parse_rfc3339("2026-01-01T00:00:00Z"));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
