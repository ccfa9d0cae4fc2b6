//! Types of settings that many components share.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::time::{Micros, SECOND};

/// A span of time written as a number and a unit, such as `500ms`, `5s`, `1m`, `24h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Micros);

const UNITS: [(&str, Micros); 6] =
    [("us", 1), ("ms", 1_000), ("s", SECOND), ("m", 60 * SECOND), ("h", 3_600 * SECOND), ("d", 86_400 * SECOND)];

impl Span {
    /// Reads `5s` and the like; the message of an error says what is expected.
    ///
    /// # Errors
    /// When the text is not a whole number followed by one of us, ms, s, m, h, d, or is too long a span.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        let size = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size);
        match (number.parse::<Micros>(), size) {
            (Ok(number), Some(size)) => number
                .checked_mul(size)
                .filter(|span| *span <= 36_500 * 86_400 * SECOND)
                .map(Self)
                .ok_or_else(|| format!("`{text}` is longer than a hundred years")),
            _ => Err(match proposed(text) {
                Some(span) => format!("`{text}` is not a span of time: write {span} (units: us, ms, s, m, h, d)"),
                None => {
                    format!("`{text}` is not a span of time: write a whole number and us, ms, s, m, h or d, such as 5s")
                }
            }),
        }
    }
}

/// The span that was meant, if it was written as other tools write it: `5`, `1.5s`, `5 seconds`, `PT30S`.
fn proposed(text: &str) -> Option<Span> {
    let text = text.trim().trim_start_matches("interval").trim_matches([' ', '\'', '"']).to_ascii_lowercase();
    let text = text.strip_prefix("pt").unwrap_or(&text);
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let size = match unit.trim() {
        "us" | "microsecond" | "microseconds" => 1,
        "ms" | "msec" | "millisecond" | "milliseconds" | "millis" => 1_000,
        "" | "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600 * SECOND,
        "d" | "day" | "days" => 86_400 * SECOND,
        "w" | "week" | "weeks" => 7 * 86_400 * SECOND,
        _ => return None,
    };
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 6)?;
    let number: Micros = format!("{whole}{fraction}").parse().ok()?;
    let micros = number.checked_mul(size)? / Micros::from(10_i32.pow(digits));
    (micros <= 36_500 * 86_400 * SECOND).then_some(Span(micros))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = UNITS.iter().rev().find(|(_, size)| self.0 % size == 0).unwrap_or(&UNITS[0]);
        if self.0 == 0 { f.write_str("0s") } else { write!(f, "{}{unit}", self.0 / size) }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "span of time",
            "type": "string",
            "pattern": "^[0-9]+ *(us|ms|s|m|h|d)$",
            "patternErrorMessage": "write a whole number and us, ms, s, m, h or d, such as 5s",
            "description": "A span of time: a whole number and a unit out of us, ms, s, m, h, d.",
            "examples": ["5s", "1m", "7d"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, micros) in
            [("5s", 5 * SECOND), ("500ms", 500_000), ("1m", 60 * SECOND), ("7d", 604_800 * SECOND), ("0s", 0)]
        {
            assert_eq!(Span::parse(text), Ok(Span(micros)));
            assert_eq!(Span(micros).to_string(), text);
        }
        let proposals =
            [("5", "5s"), ("1.5s", "1500ms"), ("5 seconds", "5s"), ("PT30S", "30s"), ("interval '2 hours'", "2h")];
        for (text, right) in proposals {
            assert!(Span::parse(text).is_err_and(|message| message.contains(&format!("write {right} "))), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5 weeks", "1.5s", "99999999999999999999s", "40000d"] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }
}
