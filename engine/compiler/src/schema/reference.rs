//! The reference pages of sources and sinks, from the registry alone.

use cornjacket_core::component::{Description, Registry};
use serde_json::{Map, Value};

use super::components::nested;
use super::settings::plain_settings;
use super::shape::plain;

/// A page of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencePage {
    /// Its path inside `docs/reference/`, such as `sinks/projection.md`.
    pub path: String,
    /// Its text, in Markdown.
    pub text: String,
}

/// Which section of the pipeline file a component stands in.
#[derive(Clone, Copy)]
struct Section {
    key: &'static str,
    what: &'static str,
    title: &'static str,
}

const SOURCES: Section = Section { key: "sources", what: "source", title: "Sources" };
const SINKS: Section = Section { key: "sinks", what: "sink", title: "Sinks" };

const NOTE: &str = "<!-- Made from the settings of the components by their test: UPDATE_GOLDEN=1 cargo test -p \
                    cornjacket-compiler reference. Change the doc comments there, not this page. -->";

/// Every page: the index and one for each source and sink, in the order of the registry.
#[must_use]
pub fn reference_pages(registry: &Registry) -> Vec<ReferencePage> {
    let sources: Vec<Description> = registry.sources.iter().map(|spec| spec.description).collect();
    let sinks: Vec<Description> = registry.sinks.iter().map(|spec| spec.description).collect();
    let mut pages = vec![index(&sources, &sinks)];
    pages.extend(sources.iter().map(|source| page(SOURCES, source)));
    pages.extend(sinks.iter().map(|sink| page(SINKS, sink)));
    pages
}

fn index(sources: &[Description], sinks: &[Description]) -> ReferencePage {
    let text = format!(
        "{NOTE}\n\n# Sources and sinks\n\nA source or sink is written `name: {{ kind: its settings }}` under `sources:` or \
         `sinks:` of the pipeline file.\nAny value may come from the environment: `${{NAME}}`, `${{NAME:-default}}` or \
         `${{file:/path}}`. Paths are relative to the\npipeline file. [An editor](../editor.md) shows the same as these \
         pages while you write.\n{}{}",
        list(SOURCES, sources),
        list(SINKS, sinks),
    );
    ReferencePage { path: "README.md".into(), text }
}

/// The kinds of a section, with links to their pages.
fn list(Section { key, title, .. }: Section, kinds: &[Description]) -> String {
    let row = |kind: &Description| format!("| [`{0}`]({key}/{0}.md) | {1} |\n", kind.kind, cell(kind.summary));
    let rows: String = kinds.iter().map(row).collect();
    format!("\n## {title}\n\n| kind | |\n|---|---|\n{rows}")
}

fn page(section: Section, kind: &Description) -> ReferencePage {
    let Section { key, what, .. } = section;
    let name = kind.kind;
    let schema = plain_settings(kind);
    let text = format!(
        "{NOTE}\n\n# The {what} `{name}`\n\n{summary}\n\n**Guarantee.** {guarantee}\n\n## Example\n\n```yaml\n{key}:\n  \
         my_{what}:\n    {name}:{example}\n```\n\n## Settings\n\n{settings}\n[All sources and sinks](../README.md)\n",
        summary = kind.summary,
        guarantee = kind.guarantee,
        example = nested(kind.example, 6),
        settings = settings(&schema),
    );
    ReferencePage { path: format!("{key}/{name}.md"), text }
}

fn settings(schema: &Map<String, Value>) -> String {
    let mut rows = Vec::new();
    collect_rows("", schema, &mut rows);
    if rows.is_empty() {
        return "It has no settings: write `{}`.\n".into();
    }
    let rows: String = rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect();
    format!("| setting | type | default | what it is | example |\n|---|---|---|---|---|\n{rows}")
}

/// The rows of a map of settings, and of the maps in it, each under its whole name.
fn collect_rows(prefix: &str, schema: &Map<String, Value>, rows: &mut Vec<[String; 5]>) {
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    for name in names_in_order(schema, properties) {
        let Some(Value::Object(setting)) = properties.get(name) else { continue };
        let path = format!("{prefix}{name}");
        let text = |keyword: &str| setting.get(keyword).and_then(Value::as_str).unwrap_or_default();
        let default = match setting.get("default") {
            _ if is_required(schema, name) => "required".into(),
            Some(default) => format!("`{}`", plain(default)),
            None => String::new(),
        };
        let first = setting.get("examples").and_then(|examples| examples.get(0));
        let example = first.map(|example| format!("`{name}: {}`", plain(example))).unwrap_or_default();
        let row = [format!("`{path}`"), type_name(setting), default, described(text("description"), setting), example];
        rows.push(row.map(|text| cell(&text)));
        collect_rows(&format!("{path}."), setting, rows);
        if let Some(Value::Object(item)) = setting.get("items") {
            collect_rows(&format!("{path}[]."), item, rows);
        }
        if let Some(Value::Object(value)) = setting.get("additionalProperties") {
            collect_rows(&format!("{path}.*."), value, rows);
        }
        for variant in setting.get("oneOf").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
        {
            collect_rows(&format!("{path}."), variant, rows);
        }
    }
}

/// Those that must be there first, as they are declared; then the others by the alphabet.
fn names_in_order<'a>(schema: &'a Map<String, Value>, properties: &'a Map<String, Value>) -> Vec<&'a str> {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut names: Vec<&str> = required.collect();
    let mut others: Vec<&str> = properties.keys().map(String::as_str).filter(|name| !names.contains(name)).collect();
    others.sort_unstable();
    names.append(&mut others);
    names
}

fn is_required(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|one| one == name))
}

/// What a value is, in words.
fn type_name(schema: &Map<String, Value>) -> String {
    if let Some(Value::String(title)) = schema.get("title") {
        return title.clone();
    }
    if let Some(Value::Array(words)) = schema.get("enum") {
        return words.iter().map(|word| format!("`{}`", plain(word))).collect::<Vec<_>>().join(", ");
    }
    if let Some(Value::Array(choices)) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
        let mut names: Vec<String> = choices.iter().filter_map(Value::as_object).map(type_name).collect();
        names.dedup();
        return names.join(" or ");
    }
    let name = schema.get("type").and_then(Value::as_str).unwrap_or("any value");
    match name {
        "string" => "text".into(),
        "integer" => format!("whole number{}", bounds(schema)),
        "number" => format!("number{}", bounds(schema)),
        "boolean" => "true or false".into(),
        "array" => list_name(schema),
        "object" => match schema.get("additionalProperties").and_then(Value::as_object) {
            Some(value) => format!("map of {}", type_name(value)),
            None => "map".into(),
        },
        other => other.into(),
    }
}

/// `list of text`, or `[number, number]` for a list of a fixed length.
fn list_name(schema: &Map<String, Value>) -> String {
    let Some(item) = schema.get("items").and_then(Value::as_object).map(type_name) else { return "list".into() };
    let length = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    match (length("minItems"), length("maxItems")) {
        (Some(least), Some(most)) if least == most && most <= 4 => {
            format!("[{}]", (0..most).map(|_| item.as_str()).collect::<Vec<_>>().join(", "))
        }
        _ => format!("list of {item}"),
    }
}

fn bounds(schema: &Map<String, Value>) -> String {
    match (schema.get("minimum").map(plain), schema.get("maximum").map(plain)) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) if least != "0" => format!(", at least {least}"),
        (None, Some(most)) => format!(", at most {most}"),
        _ => String::new(),
    }
}

/// The description, with the meanings of the words that may be written.
fn described(description: &str, schema: &Map<String, Value>) -> String {
    let words = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let meanings = schema.get("enumDescriptions").and_then(Value::as_array).into_iter().flatten();
    let explained = words.zip(meanings.filter_map(Value::as_str)).filter(|(_, meaning)| !meaning.is_empty());
    let explained: String = explained.map(|(word, meaning)| format!(" `{}`: {meaning}", plain(word))).collect();
    format!("{description}{explained}")
}

/// A text as a cell of a table: on one line, and no bar ends it.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
