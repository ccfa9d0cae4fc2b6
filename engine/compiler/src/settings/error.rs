//! Why settings could not be read, in the words of the file rather than of Rust.

use std::fmt;

use serde::de::{Expected, Unexpected};

use crate::names::did_you_mean;

/// Why settings could not be read.
#[derive(Debug)]
pub(crate) struct SettingError {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SettingError {}

impl serde::de::Error for SettingError {
    /// What follows `: write` in a component's own message is what to write.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        match message.split_once(": write ") {
            Some((message, hint)) => Self { message: message.to_string(), hint: Some(format!("write {hint}")) },
            None => Self { message, hint: None },
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = plain(&expected.to_string());
        let hint = remedy(&wanted, unexpected);
        Self { message: format!("expected {wanted}, found {}", found(unexpected)), hint }
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = Some(did_you_mean(variant, expected.iter().copied()));
        Self { message: format!("`{variant}` is none of the values allowed here"), hint }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let hint = match expected {
            [] => "leave it out: there are no settings here".into(),
            _ => did_you_mean(field, expected.iter().copied()),
        };
        Self { message: format!("there is no setting `{field}` here"), hint: Some(hint) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { message: format!("the setting `{field}` is missing"), hint: Some(format!("add `{field}: …`")) }
    }
}

/// Rust's words for types in the words of the file.
fn plain(expected: &str) -> String {
    match expected {
        "a string" | "string" | "a borrowed string" => "a text".into(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative and not too large".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number that is not too large".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        other if other.starts_with("struct ") || other == "a map" => "a map of settings".into(),
        other => other.into(),
    }
}

/// What to write, where the kind of the value alone tells.
fn remedy(wanted: &str, unexpected: Unexpected<'_>) -> Option<String> {
    let hint = match (wanted, unexpected) {
        ("a list", Unexpected::Str(text)) => {
            match text.strip_prefix('-').filter(|rest| rest.starts_with(char::is_alphabetic)) {
                Some(item) => format!("write a space after the dash: - {item}"),
                None => format!("write it in brackets: [{text}]"),
            }
        }
        ("a list", Unexpected::Unit) => "write a list in brackets after the colon: [a, b]".into(),
        ("true or false", Unexpected::Str(text)) => match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => "write true, without quotes".into(),
            "false" | "no" | "off" | "n" | "0" => "write false, without quotes".into(),
            _ => "write true or false".into(),
        },
        ("true or false", _) => "write true or false".into(),
        (_, Unexpected::Str(text)) if wanted.contains("number") && text.parse::<f64>().is_ok() => {
            format!("write it without quotes: {text}")
        }
        (_, Unexpected::Str(_) | Unexpected::Float(_) | Unexpected::Signed(_)) if wanted.contains("not negative") => {
            "write a whole number, such as 8".into()
        }
        (_, _) if wanted.contains("number") => "write a number, such as 8".into(),
        ("a map of settings", Unexpected::Str(text)) if is_word(text) => {
            format!("write settings in braces: {{ setting: {text} }}, or {{}} for none")
        }
        ("a map of settings", _) => "write `setting: value` lines under it, without dashes".into(),
        ("a text", Unexpected::Seq) => "write one value, without brackets and dashes".into(),
        ("a text", Unexpected::Map) => "write one value, without settings under it".into(),
        ("a text", Unexpected::Unit) => {
            "write a value after the colon; one that begins with `!`, `&` or `#` needs quotes".into()
        }
        _ => return None,
    };
    Some(hint)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains([' ', ':'])
}

fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Str(text) => format!("`{text}`"),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a map".into(),
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("`{value}`"),
        Unexpected::Signed(value) => format!("`{value}`"),
        Unexpected::Float(value) => format!("`{value}`"),
        other => other.to_string(),
    }
}
