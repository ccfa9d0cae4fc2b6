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
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), hint: None }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {}, found {}", plain(&expected.to_string()), found(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = Some(did_you_mean(variant, expected.iter().copied()));
        Self { message: format!("`{variant}` is none of the values allowed here"), hint }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let hint = Some(did_you_mean(field, expected.iter().copied()));
        Self { message: format!("there is no setting `{field}` here"), hint }
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
