//! The body of a delivery: the row as JSON, or a text with values of the row in it.
//!
//! Where the body is JSON a value is written as what it is: as JSON, or within quotes as the inside of a JSON string. So no
//! text in a row can break the body or add to it.

use std::borrow::Cow;

use cornjacket_core::component::Fault;
use serde_json::{Map, Value};

/// A body with places for values.
#[derive(Clone, Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Column { name: String, form: Form },
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As JSON.
    Json,
    /// As a part of a JSON string.
    Inside,
    /// As it is.
    Plain,
}

impl Template {
    /// Reads a body's text; `columns` are those of the row.
    pub(super) fn parse(text: &str, columns: &[&str], is_json: bool) -> Result<Self, Fault> {
        let (mut parts, mut rest, mut inside) = (Vec::new(), text, false);
        while let Some(at) = rest.find("${") {
            let before = &rest[..at];
            inside = is_json && ends_inside(before, inside);
            // `$${` is a plain `${`.
            if let Some(before) = before.strip_suffix('$') {
                parts.push(Part::Text(format!("{before}${{")));
                rest = &rest[at + 2..];
                continue;
            }
            parts.push(Part::Text(before.into()));
            let Some(end) = rest[at..].find('}') else {
                let fault = Fault::new("body", "`${` is not closed with `}`");
                return Err(fault.with_hint("write ${column} for a value of the row"));
            };
            let name = &rest[at + 2..at + end];
            if !columns.contains(&name) {
                let fault = Fault::new("body", format!("there is no column `{name}`"));
                return Err(fault.with_hint(format!("available: {}", columns.join(", "))));
            }
            let form = match (is_json, inside) {
                (false, _) => Form::Plain,
                (true, true) => Form::Inside,
                (true, false) => Form::Json,
            };
            parts.push(Part::Column { name: name.into(), form });
            rest = &rest[at + end + 1..];
        }
        parts.push(Part::Text(rest.into()));
        let template = Self { parts };
        if is_json && serde_json::from_str::<Value>(&template.fill(&Map::new())).is_err() {
            let fault = Fault::new("body", "the body is no JSON");
            return Err(
                fault.with_hint("check its quotes and brackets, or write headers: { content-type: text/plain }")
            );
        }
        Ok(template)
    }

    /// The body for a row.
    pub(super) fn fill(&self, row: &Map<String, Value>) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Column { name, form } => shown(row.get(name).unwrap_or(&Value::Null), *form),
        };
        self.parts.iter().map(text).collect()
    }
}

fn shown(value: &Value, form: Form) -> String {
    let text = match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text.as_str()),
        other => Cow::Owned(other.to_string()),
    };
    match form {
        Form::Json => value.to_string(),
        Form::Plain => text.into_owned(),
        Form::Inside => {
            let quoted = Value::String(text.into_owned()).to_string();
            quoted[1..quoted.len() - 1].to_string()
        }
    }
}

/// Whether the end of a piece of JSON lies within a string.
fn ends_inside(text: &str, mut inside: bool) -> bool {
    let mut is_escaped = false;
    for c in text.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if inside => is_escaped = true,
            '"' => inside = !inside,
            _ => {}
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(text: &str, is_json: bool) -> Result<String, String> {
        let row = json!({"device": "a\"b\\\n", "n": 2.5, "none": null, "list": [1]});
        let template =
            Template::parse(text, &["device", "n", "none", "list"], is_json).map_err(|fault| fault.message)?;
        Ok(template.fill(row.as_object().expect("a row")))
    }

    #[test]
    fn values_are_written_as_the_place_wants_them() {
        let cases = [
            (r#"{"d": ${device}, "n": ${n}, "x": ${none}}"#, r#"{"d": "a\"b\\\n", "n": 2.5, "x": null}"#),
            (r#"{"cost": "$${device} of $$${n}", "x": "$"}"#, r#"{"cost": "${device} of $${n}", "x": "$"}"#),
            (r#"{"t": "\"${device}\" ${n} ${none}${list}"}"#, r#"{"t": "\"a\"b\\\n\" 2.5 [1]"}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(filled(text, true).as_deref(), Ok(expected));
        }
        assert_eq!(filled("${device}: ${n}", false).as_deref(), Ok("a\"b\\\n: 2.5"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for (text, message) in [
            ("{\"a\": ${nothing}}", "there is no column `nothing`"),
            ("{\"a\": ${n", "`${` is not closed with `}`"),
            ("{\"a\": ${n}", "the body is no JSON"),
            ("hot: ${n}", "the body is no JSON"),
        ] {
            assert_eq!(filled(text, true), Err(message.into()), "{text}");
        }
    }
}
