//! What plain scalars are in the core schema of YAML 1.2.

/// A number as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Natural(u64),
    Negative(i64),
    Float(f64),
}

impl Number {
    pub(crate) fn is_finite(self) -> bool {
        !matches!(self, Self::Float(number) if !number.is_finite())
    }
}

/// The number that a plain scalar is: `12`, `+12`, `-3`, `0o17`, `0x1F`, `1.5`, `1e3`, `.5`, `.inf`, `.NaN`.
pub(crate) fn number(text: &str) -> Option<Number> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
            return is_number.then(|| u64::from_str_radix(digits, radix).ok().map(Number::Natural)).flatten();
        }
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => {
            let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
            return Some(Number::Float(sign * f64::INFINITY));
        }
        ".nan" | ".NaN" | ".NAN" if unsigned == text => return Some(Number::Float(f64::NAN)),
        _ => {}
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if unsigned.chars().all(|c| c.is_ascii_digit()) {
        let natural = text.parse().map(Number::Natural);
        if let Ok(whole) = natural.or_else(|_| text.parse().map(Number::Negative)) {
            return Some(whole);
        }
    }
    text.parse().ok().map(Number::Float)
}

/// The boolean that a plain scalar is.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_what_the_core_schema_says() {
        for (text, expected) in [
            ("12", Some(Number::Natural(12))),
            ("+12", Some(Number::Natural(12))),
            ("012", Some(Number::Natural(12))),
            ("-3", Some(Number::Negative(-3))),
            ("0x1F", Some(Number::Natural(31))),
            ("0o10", Some(Number::Natural(8))),
            ("1e3", Some(Number::Float(1000.0))),
            (".5", Some(Number::Float(0.5))),
            ("-.inf", Some(Number::Float(f64::NEG_INFINITY))),
            ("18446744073709551616", Some(Number::Float(18_446_744_073_709_551_616.0))),
            ("0b1", None),
            ("0x", None),
            ("0xG", None),
            ("inf", None),
            ("NaN", None),
            ("1_000", None),
            ("12:30", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        assert!(matches!(number(".NaN"), Some(Number::Float(nan)) if nan.is_nan()));
        assert_eq!(
            ["True", "TRUE", "false", "yes", "on", "tRue"].map(boolean),
            [Some(true), Some(true), Some(false), None, None, None]
        );
    }
}
