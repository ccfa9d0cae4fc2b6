//! Schemas of values, built so that each has a description and lets `${NAME}` pass.
//!
//! Any value may come from the environment, numbers too, so what is not text anyway is also a text with a placeholder in
//! it. Keywords of JSON Schema concern only values of their own type, hence one schema holds several types where that is
//! possible, instead of an `anyOf`: editors give better messages and completions for it.

use serde_json::{Map, Value, json};

/// A text with a placeholder that is filled when the file is read.
pub(super) const PLACEHOLDER: &str = r"\$\{(?:[A-Z_][A-Z0-9_]*(?::-[^}]*)?|file:[^}]+)\}";

/// What a name of a source, stream or sink looks like.
pub(super) const NAME: &str = "^[a-z][a-z0-9_]{0,62}$";

/// What to say about a text that is no name.
pub(super) const NAME_MESSAGE: &str =
    "write lower-case letters, digits and `_`, beginning with a letter, at most 63 of them";

/// A schema in the making.
#[derive(Clone, Debug)]
pub(super) struct Shape(Map<String, Value>);

impl From<Shape> for Value {
    fn from(shape: Shape) -> Self {
        Self::Object(shape.0)
    }
}

impl Shape {
    /// A value of one of some types.
    pub(super) fn new(types: &[&str], description: &str) -> Self {
        let types = if let [one] = types { json!(one) } else { json!(types) };
        Self(Map::from_iter([("type".into(), types), ("description".into(), description.into())]))
    }

    /// A text.
    pub(super) fn text(description: &str) -> Self {
        Self::new(&["string"], description)
    }

    /// A text that may look like a number or a boolean.
    pub(super) fn free_text(description: &str) -> Self {
        Self::new(&["string", "number", "boolean"], description)
    }

    /// A text of a form; `message` says what to write instead of another one.
    pub(super) fn pattern(description: &str, pattern: &str, message: &str) -> Self {
        Self::text(description).with("pattern", or_placeholder(pattern)).with("patternErrorMessage", message)
    }

    /// `true` or `false`.
    pub(super) fn boolean(description: &str) -> Self {
        Self::new(&["boolean", "string"], description).only_placeholders("write true or false")
    }

    /// A number.
    pub(super) fn number(description: &str) -> Self {
        Self::new(&["number", "string"], description).only_placeholders("write a number, without quotes")
    }

    /// A whole number.
    pub(super) fn integer(description: &str) -> Self {
        Self::new(&["integer", "string"], description).only_placeholders("write a whole number, without quotes")
    }

    /// One of some words, each with what it means.
    pub(super) fn choice(description: &str, words: &[(&str, &str)]) -> Self {
        let (values, meanings): (Vec<&str>, Vec<&str>) = words.iter().copied().unzip();
        let listed = json!({ "type": "string", "enum": values, "enumDescriptions": meanings });
        Self(Map::from_iter([
            ("description".into(), description.into()),
            ("anyOf".into(), json!([listed, placeholder()])),
        ]))
    }

    /// A span of time.
    pub(super) fn span(description: &str) -> Self {
        let message = "write a whole number and us, ms, s, m, h or d, such as 5s";
        Self::pattern(description, "^[0-9]+ *(us|ms|s|m|h|d)$", message)
    }

    /// A list.
    pub(super) fn list(description: &str, item: impl Into<Value>) -> Self {
        Self::new(&["array"], description).with("items", item.into())
    }

    /// A map of known settings.
    pub(super) fn object<S: Into<Value>>(
        description: &str,
        settings: impl IntoIterator<Item = (&'static str, S)>,
    ) -> Self {
        let properties: Map<String, Value> =
            settings.into_iter().map(|(name, shape)| (name.to_string(), shape.into())).collect();
        Self::new(&["object"], description).with("properties", properties).with("additionalProperties", false)
    }

    /// A map from names of a form to values of a shape; nothing is an empty one.
    pub(super) fn map(description: &str, (pattern, message): (&str, &str), value: impl Into<Value>) -> Self {
        Self::new(&["object", "null"], description)
            .with("propertyNames", json!({ "pattern": pattern, "patternErrorMessage": message }))
            .with("additionalProperties", value.into())
    }

    /// Sets a keyword.
    pub(super) fn with(mut self, keyword: &str, value: impl Into<Value>) -> Self {
        self.0.insert(keyword.into(), value.into());
        self
    }

    /// Names the settings that must be there.
    pub(super) fn require(self, settings: &[&str]) -> Self {
        self.with("required", json!(settings))
    }

    /// Nothing does too.
    pub(super) fn or_nothing(mut self) -> Self {
        allow_null(&mut self.0);
        self
    }

    /// Adds an example.
    pub(super) fn example(self, example: impl Into<Value>) -> Self {
        self.pushed("examples", example.into())
    }

    /// Says what holds when it is left out.
    pub(super) fn default(self, value: impl Into<Value>) -> Self {
        self.with("default", value)
    }

    /// Adds what an editor offers to insert. `$1` and `${1:text}` in it are places to fill in.
    pub(super) fn snippet(self, label: &str, description: &str, body: &Value) -> Self {
        self.pushed("defaultSnippets", json!({ "label": label, "description": description, "body": body }))
    }

    fn pushed(mut self, keyword: &str, item: Value) -> Self {
        if let Value::Array(items) = self.0.entry(keyword).or_insert_with(|| json!([])) {
            items.push(item);
        }
        self
    }

    fn only_placeholders(self, message: &str) -> Self {
        self.with("pattern", PLACEHOLDER).with("patternErrorMessage", message)
    }
}

/// The schema of a placeholder alone.
pub(super) fn placeholder() -> Value {
    json!({ "type": "string", "pattern": PLACEHOLDER })
}

/// A pattern that lets a placeholder pass too.
pub(super) fn or_placeholder(pattern: &str) -> String {
    format!("(?:{pattern})|{PLACEHOLDER}")
}

/// Lets a schema take nothing (`null`) too.
pub(super) fn allow_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.push(json!({ "type": "null" }));
        return;
    }
    let Some(types) = schema.get_mut("type") else { return };
    match types {
        Value::Array(types) if !types.contains(&json!("null")) => types.push(json!("null")),
        Value::String(one) if one != "null" => *types = json!([one, "null"]),
        _ => {}
    }
}

/// Calls `visit` with every schema directly inside a schema. What is data of the user (examples, defaults) is none.
pub(super) fn for_each_inner(schema: &mut Map<String, Value>, visit: &mut dyn FnMut(&mut Map<String, Value>)) {
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("properties" | "patternProperties" | "definitions", Value::Object(named)) => {
                named.values_mut().filter_map(Value::as_object_mut).for_each(&mut *visit);
            }
            ("anyOf" | "allOf" | "oneOf", Value::Array(choices)) => {
                choices.iter_mut().filter_map(Value::as_object_mut).for_each(&mut *visit);
            }
            ("items" | "additionalProperties" | "if" | "then" | "else" | "not", Value::Object(inner)) => visit(inner),
            _ => {}
        }
    }
}

/// Puts a `markdownDescription` beside every description: it says the default as well.
pub(super) fn add_markdown(schema: &mut Value) {
    if let Value::Object(schema) = schema {
        add_markdown_inside(schema);
    }
}

fn add_markdown_inside(schema: &mut Map<String, Value>) {
    for_each_inner(schema, &mut add_markdown_inside);
    let Some(Value::String(description)) = schema.get("description") else { return };
    let markdown = match schema.get("default") {
        Some(default) => format!("{description}\n\nDefault: `{}`", plain(default)),
        None => description.clone(),
    };
    schema.entry("markdownDescription").or_insert(markdown.into());
}

/// A value as one writes it on a line of YAML; keys in the order of the alphabet.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if needs_quotes(text) => format!("{text:?}"),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) if entries.is_empty() => "{}".into(),
        Value::Object(entries) => {
            let mut entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{key}: {}", plain(value))).collect();
            entries.sort();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty()
        || text.contains(['{', '}', '[', ']', ',', '#', '"', '\n'])
        || text.contains(": ")
        || text.starts_with(['*', '&', '!', '%', '@', '`', '\'', '>', '|', ' ', '-', '?'])
        || text.parse::<f64>().is_ok()
        || ["true", "false", "null", "~"].contains(&text)
}
