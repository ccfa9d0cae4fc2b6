//! The sections `sources:` and `sinks:`, from the registry.

use cornjacket_core::component::{Description, SinkSpec, SourceSpec};
use serde_json::{Map, Value, json};

use super::settings::editor_settings;
use super::shape::{NAME, NAME_MESSAGE, Shape};

/// The section `sources:`.
pub(super) fn sources(specs: &[SourceSpec]) -> Shape {
    let description = "Where events come in: `name: { kind: its settings }`.";
    section(description, "source", &specs.iter().map(|spec| spec.description).collect::<Vec<_>>())
}

/// The section `sinks:`.
pub(super) fn sinks(specs: &[SinkSpec]) -> Shape {
    let description = "Where rows go: `name: { kind: its settings }`. A sink reads an event type or a stream.";
    section(description, "sink", &specs.iter().map(|spec| spec.description).collect::<Vec<_>>())
}

/// The example of a component as a value; its test says so when it is no YAML.
pub(super) fn example(description: &Description) -> Value {
    serde_saphyr::from_str(description.example).unwrap_or_default()
}

fn section(description: &str, what: &str, kinds: &[Description]) -> Shape {
    let properties: Map<String, Value> = kinds.iter().map(|kind| (kind.kind.into(), settings(kind).into())).collect();
    let list = kinds.iter().map(|kind| format!("`{}`: {}", kind.kind, kind.summary)).collect::<Vec<_>>().join("\n- ");
    let text = format!("A {what}: exactly one kind with its settings under it.\n\n- {list}");
    let mut component = Shape::new(&["object"], &text)
        .with("properties", properties)
        .with("additionalProperties", false)
        .with("minProperties", 1)
        .with("maxProperties", 1);
    let mut section = Shape::new(&["object", "null"], description)
        .with("propertyNames", json!({ "pattern": NAME, "patternErrorMessage": NAME_MESSAGE }));
    for kind in kinds {
        let body = format!("{}:{}", kind.kind, escaped(&nested(kind.example, 2)));
        component = component.snippet(kind.kind, kind.summary, &body.into());
        let body = format!("${{1:{what}}}:\n  {}:{}", kind.kind, escaped(&nested(kind.example, 4)));
        section = section.snippet(kind.kind, kind.summary, &body.into());
    }
    if let Some(first) = kinds.first() {
        let body = json!({ first.kind: example(first) });
        component = component.example(body.clone());
        section = section.example(json!({ format!("my_{what}"): body }));
    }
    section.with("additionalProperties", Value::from(component))
}

/// The settings of one kind.
fn settings(kind: &Description) -> Shape {
    let description = format!("{}\n\n{}", kind.summary, kind.guarantee);
    let example = example(kind);
    let mut shape = Shape::new(&["object"], &description);
    for (keyword, value) in editor_settings(kind) {
        if keyword != "description" {
            shape = shape.with(&keyword, value);
        }
    }
    if example.as_object().is_some_and(Map::is_empty) {
        return shape.example(example);
    }
    shape.snippet("Example", kind.summary, &in_snippet(example.clone())).example(example)
}

/// An example as it stands under a key, so many spaces further in.
pub(super) fn nested(example: &str, spaces: usize) -> String {
    let line = |line: &str| if line.is_empty() { "\n".into() } else { format!("\n{}{line}", " ".repeat(spaces)) };
    match example.trim_end() {
        "" => " {}".into(),
        flow if flow.starts_with('{') => format!(" {flow}"),
        lines => lines.lines().map(line).collect(),
    }
}

/// A text that means itself in a snippet, where `$` and `}` have a meaning.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('$', "\\$").replace('}', "\\}")
}

/// A value whose texts mean themselves in a snippet.
fn in_snippet(value: Value) -> Value {
    match value {
        Value::String(text) => escaped(&text).into(),
        Value::Array(items) => items.into_iter().map(in_snippet).collect(),
        Value::Object(entries) => entries.into_iter().map(|(key, value)| (key, in_snippet(value))).collect(),
        other => other,
    }
}
