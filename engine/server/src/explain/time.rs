//! Times and spans as people say them.

use cornjacket_core::time::{Micros, SECOND, format_rfc3339};

const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;
const DAY: Micros = 24 * HOUR;

/// The time of day, with its date where that is not today's; to milliseconds, in UTC.
pub fn clock_time(time: Micros, now: Micros) -> String {
    let text = format_rfc3339(time - time.rem_euclid(1_000));
    let text = text.trim_end_matches('Z').replace('T', " ");
    match text.split_once(' ') {
        Some((_, of_day)) if time.div_euclid(DAY) == now.div_euclid(DAY) => of_day.into(),
        _ => text,
    }
}

/// A span in its two greatest units: `48 s`, `1 min 5 s`, `3 h 20 min`. Less than a second is rounded up to tenths.
pub fn span(span: Micros) -> String {
    let parts = |great: (Micros, &str), small: (Micros, &str)| {
        let (whole, rest) = (span / great.0, span % great.0 / small.0);
        if rest == 0 { format!("{whole} {}", great.1) } else { format!("{whole} {} {rest} {}", great.1, small.1) }
    };
    match span {
        ..=0 => "0 s".into(),
        1..SECOND => format!("0.{} s", (span / 100_000).max(1)),
        SECOND..MINUTE => format!("{} s", span / SECOND),
        MINUTE..HOUR => parts((MINUTE, "min"), (SECOND, "s")),
        HOUR..DAY => parts((HOUR, "h"), (MINUTE, "min")),
        DAY.. => parts((DAY, "d"), (HOUR, "h")),
    }
}

#[cfg(test)]
mod tests {
    use cornjacket_core::time::parse_rfc3339;

    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let cases = [
            (0, "0 s"),
            (7, "0.1 s"),
            (250_000, "0.2 s"),
            (48 * SECOND + 999_999, "48 s"),
            (65 * SECOND, "1 min 5 s"),
            (2 * HOUR, "2 h"),
            (3 * HOUR + 20 * MINUTE + 9 * SECOND, "3 h 20 min"),
            (400 * DAY + HOUR, "400 d 1 h"),
        ];
        for (micros, text) in cases {
            assert_eq!(span(micros), text);
        }
    }

    #[test]
    fn todays_times_have_no_date() {
        let at = |text: &str| parse_rfc3339(text).expect("a time");
        let now = at("2026-01-02T12:00:00Z");
        assert_eq!(clock_time(at("2026-01-02T10:05:00Z"), now), "10:05:00");
        assert_eq!(clock_time(at("2026-01-02T10:05:00.250001Z"), now), "10:05:00.250");
        assert_eq!(clock_time(at("2026-01-01T10:05:00Z"), now), "2026-01-01 10:05:00");
    }
}
