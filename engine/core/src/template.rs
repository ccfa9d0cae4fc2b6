//! Texts with placeholders that are filled per message: `${payload.device}`, `${topic.1}`, `${key}`.
//!
//! A message that is only a payload becomes an event by them: `event: { type: …, aggregate_id: "${payload.device}" }`.
//! Which variables there are is the source's to say; `payload.…` there is always.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A field of the payload, by the names on the way to it.
    Payload(Vec<String>),
    /// Something else that the source knows of the message.
    Variable(String),
}

impl Template {
    /// Reads a template. `variables` are the placeholders that the source fills beside `payload.…`; one that ends with
    /// `.` stands for all that begin so.
    ///
    /// # Errors
    /// What is wrong, for the user.
    pub fn parse(text: &str, variables: &[&str]) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find("${") {
            // `$${` is a plain `${`.
            if let Some(before) = rest[..at].strip_suffix('$') {
                parts.push(Part::Text(format!("{before}${{")));
                rest = &rest[at + 2..];
                continue;
            }
            if at > 0 {
                parts.push(Part::Text(rest[..at].into()));
            }
            let inner = &rest[at + 2..];
            let end = inner.find('}').ok_or_else(|| "`${` is not closed with `}`".to_string())?;
            parts.push(placeholder(&inner[..end], variables)?);
            rest = &inner[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { parts })
    }

    /// The fields of the payload that it reads, by their first name.
    pub fn payload_fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Payload(path) => path.first().map(String::as_str),
            _ => None,
        })
    }

    /// Whether it is the same text for every message.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Fills the placeholders for a message.
    ///
    /// # Errors
    /// Which placeholder cannot be filled, and why.
    pub fn fill<'a>(
        &'a self,
        payload: &'a str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Cow<'a, str>, String> {
        if let [part] = self.parts.as_slice() {
            return part.fill(payload, variable);
        }
        let mut text = String::new();
        for part in &self.parts {
            text.push_str(&part.fill(payload, variable)?);
        }
        Ok(Cow::Owned(text))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace("${", "$${"))?,
                Part::Payload(path) => write!(f, "${{payload.{}}}", path.join("."))?,
                Part::Variable(name) => write!(f, "${{{name}}}")?,
            }
        }
        Ok(())
    }
}

fn placeholder(inner: &str, variables: &[&str]) -> Result<Part, String> {
    let is_known = |known: &&str| {
        if known.ends_with('.') { inner.len() > known.len() && inner.starts_with(*known) } else { inner == *known }
    };
    if variables.iter().any(is_known) {
        return Ok(Part::Variable(inner.into()));
    }
    let path: Vec<String> = inner.strip_prefix("payload.").unwrap_or_default().split('.').map(str::to_string).collect();
    if path.iter().all(|name| !name.is_empty()) {
        return Ok(Part::Payload(path));
    }
    let known =
        variables.iter().map(|name| if name.ends_with('.') { format!("${{{name}…}}") } else { format!("${{{name}}}") });
    let known: Vec<String> = known.chain(["${payload.field}".into()]).collect();
    Err(format!("`${{{inner}}}` is nothing that this source can fill in; it knows {}", known.join(", ")))
}

impl Part {
    fn fill<'a>(&'a self, payload: &'a str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Cow<'a, str>, String> {
        match self {
            Self::Text(text) => Ok(Cow::Borrowed(text)),
            Self::Variable(name) => {
                variable(name).map(Cow::Owned).ok_or_else(|| format!("the message has no `{name}`"))
            }
            Self::Payload(path) => {
                let found = path.iter().try_fold(payload, |json, name| field(json, name));
                let found = found.ok_or_else(|| format!("the payload has no `{}`", path.join(".")))?;
                scalar_text(found)
                    .ok_or_else(|| format!("`payload.{}` is no text or number, but {}", path.join("."), kind(found)))
            }
        }
    }
}

/// The value of a field as its JSON text; of two with one name the first.
fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    struct Find<'n>(&'n str);
    impl<'de> Visitor<'de> for Find<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                if found.is_none() && key == self.0 {
                    found = Some(map.next_value::<&RawValue>()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(Find(name)).ok().flatten().map(RawValue::get)
}

/// A text or number as text.
fn scalar_text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => {
            let mut deserializer = serde_json::Deserializer::from_str(json);
            Cow::<str>::deserialize(&mut deserializer).ok().map(|text| Cow::Owned(text.into_owned()))
        }
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json)),
        _ => None,
    }
}

fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'n') => "null",
        _ => "true or false",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, payload: &str) -> Result<String, String> {
        let template = Template::parse(template, &["key", "topic."])?;
        let variable = |name: &str| (name == "topic.1").then(|| "d1".to_string());
        template.fill(payload, &variable).map(Cow::into_owned)
    }

    #[test]
    fn placeholders_are_filled() {
        let payload = r#"{"site": {"id": 7, "name": "N\u00e9e"}, "id": "a", "id": "b", "on": true, "none": null}"#;
        let cases =
            [("d1", "d1"), ("${payload.id}", "a"), ("${payload.site.name}-${payload.site.id}/${topic.1}", "Née-7/d1")];
        for (template, expected) in cases {
            assert_eq!(fill(template, payload).as_deref(), Ok(expected));
        }
        let wrong = [
            ("${payload.nothing}", "the payload has no `nothing`"),
            ("${payload.id.more}", "the payload has no `id.more`"),
            ("${payload.on}", "`payload.on` is no text or number, but true or false"),
            ("${payload.site}", "`payload.site` is no text or number, but an object"),
            ("${payload.none}", "`payload.none` is no text or number, but null"),
            ("${topic.2}", "the message has no `topic.2`"),
            ("a ${payload.id", "`${` is not closed with `}`"),
        ];
        for (template, expected) in wrong {
            assert_eq!(fill(template, payload), Err(expected.into()));
        }
        for unknown in ["${}", "${payload.}", "${Key}"] {
            assert!(fill(unknown, payload).is_err_and(|message| message.contains("it knows ${key}")), "{unknown}");
        }
    }

    #[test]
    fn a_template_shows_as_it_was_written() {
        let text = "x-${payload.a.b}-${topic.1}-${key}";
        assert_eq!(Template::parse(text, &["key", "topic."]).map(|template| template.to_string()).as_deref(), Ok(text));
    }
}
