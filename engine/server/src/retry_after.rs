//! `Retry-After`: for how long a service asks to be left alone (RFC 9110, section 10.2.3).
//!
//! A number is one of seconds, however large, and everything else a date in one of the three forms that HTTP knows. What
//! receivers write beside the standard is read too where there is no doubt about it: a fraction of a second, a sign, the
//! date as RFC 3339 has it. What is none of these asks for nothing.

use chrono::{DateTime, Datelike, Months, NaiveDateTime};
use cornjacket_core::time::{Micros, SECOND};
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The span that an answer's headers ask for: of several the longest. It may be longer than anybody should wait.
pub fn asked_for(headers: &HeaderMap, now: Micros) -> Option<Micros> {
    headers.get_all(RETRY_AFTER).iter().filter_map(|value| parse(value.to_str().ok()?, now)).max()
}

fn parse(value: &str, now: Micros) -> Option<Micros> {
    let value = value.trim();
    if value.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        // Two headers that something on the way has made one.
        let numbers = value.split(',').map(|number| seconds(number.trim()));
        if let Some(longest) = numbers.collect::<Option<Vec<_>>>().and_then(|spans| spans.into_iter().max()) {
            return Some(longest);
        }
    }
    date(value, now).map(|date| date.saturating_sub(now).max(0))
}

/// A decimal number of seconds; a fraction is rounded up, so that nobody is too early, and what is negative is over.
fn seconds(number: &str) -> Option<Micros> {
    let (is_negative, digits) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    if is_negative {
        return Some(0);
    }
    // Digits that do not fit are of a number that is too large, and no digits are none.
    let whole: Micros = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(Micros::MAX) };
    let up = i64::from(fraction.bytes().any(|digit| digit != b'0'));
    Some(whole.saturating_add(up).saturating_mul(SECOND))
}

fn date(text: &str, now: Micros) -> Option<Micros> {
    let zoned = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_rfc2822(text));
    if let Ok(date) = zoned {
        return Some(date.timestamp_micros());
    }
    // The day of the week says nothing new, and a wrong one is no reason to come too early.
    let text = text.split_once([',', ' ']).map_or(text, |(_, rest)| rest).trim();
    let text = ["GMT", "UTC"].iter().find_map(|zone| text.strip_suffix(zone)).unwrap_or(text).trim();
    let forms = ["%d %b %Y %H:%M:%S", "%b %e %H:%M:%S %Y"];
    let read = |form: &&str| NaiveDateTime::parse_from_str(text, form).ok();
    let date = forms.iter().find_map(read).or_else(|| of_two_digits(text, now))?;
    Some(date.and_utc().timestamp_micros())
}

/// A date of RFC 850, `06-Nov-94 08:49:37`: the latest of the years that end so and are at most 50 years ahead.
fn of_two_digits(text: &str, now: Micros) -> Option<NaiveDateTime> {
    let (day, rest) = text.split_at_checked(text.rfind('-')?)?;
    let (year, time) = rest.get(1..)?.split_once(' ')?;
    let year: i32 = Some(year).filter(|year| year.len() == 2)?.parse().ok()?;
    let limit = DateTime::from_timestamp_micros(now)?.naive_utc().checked_add_months(Months::new(50 * 12))?;
    let century = limit.year() - limit.year().rem_euclid(100);
    let in_century = |century: i32| {
        NaiveDateTime::parse_from_str(&format!("{day}-{} {time}", century + year), "%d-%b-%Y %H:%M:%S").ok()
    };
    [century, century - 100].into_iter().filter_map(in_century).find(|date| *date <= limit)
}

#[cfg(test)]
mod tests {
    use cornjacket_core::time::parse_rfc3339;
    use reqwest::header::HeaderValue;

    use super::*;

    const NOW: &str = "2026-11-26T12:00:00Z";

    fn seconds_of(value: &str) -> Option<i64> {
        parse(value, parse_rfc3339(NOW).expect("a time")).map(|span| span / SECOND)
    }

    #[test]
    fn every_size_and_form_of_retry_after_is_a_wait() {
        const FOR_EVER: i64 = i64::MAX / SECOND;
        let cases = [
            ("0", 0),
            (" 120 ", 120),
            ("0000120", 120),
            ("+120", 120),
            ("4294967296", 4_294_967_296),
            ("9223372036854775807", FOR_EVER),
            ("18446744073709551616", FOR_EVER),
            ("99999999999999999999999999999999", FOR_EVER),
            ("1.5", 2),
            (".25", 1),
            ("3.0", 3),
            ("99999999999999999999.5", FOR_EVER),
            ("-1", 0),
            ("60, 120", 120),
            ("Thu, 26 Nov 2026 12:01:00 GMT", 60),
            ("Thu, 26 Nov 2026 12:00:60 GMT", 60),
            ("Mon, 26 Nov 2026 12:01:00 GMT", 60),
            ("Thu, 26 Nov 2026 12:01:00 +0000", 60),
            ("Thursday, 26-Nov-26 12:01:00 GMT", 60),
            ("Thu Nov 26 12:01:00 2026", 60),
            ("Thu Nov  6 12:01:00 2026", 0),
            ("2026-11-26T13:01:00+01:00", 60),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 251_606_606_399),
            // Of 2076 and 1976 the nearer one that is at most 50 years ahead.
            ("Thursday, 26-Nov-76 12:00:00 GMT", 1_577_923_200),
            ("Friday, 27-Nov-76 12:00:00 GMT", 0),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
            ("Sun Nov  6 08:49:37 1994", 0),
        ];
        for (value, expected) in cases {
            assert_eq!(seconds_of(value), Some(expected), "{value}");
        }
    }

    #[test]
    fn what_is_no_time_asks_for_nothing() {
        for value in ["", "soon", "-", ".", "1e3", "0x10", "12 monkeys", "NaN", "Thu, 31 Feb 2026 12:01:00 GMT", "é-"]
        {
            assert_eq!(seconds_of(value), None, "{value}");
        }
    }

    #[test]
    fn of_several_headers_the_longest_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(asked_for(&headers, 0), None);
        for value in ["10", "soon", "30", "20"] {
            headers.append(RETRY_AFTER, HeaderValue::from_static(value));
        }
        headers.append(RETRY_AFTER, HeaderValue::from_bytes(b"\xff").expect("a value"));
        assert_eq!(asked_for(&headers, 0), Some(30 * SECOND));
    }
}
