//! The JSON Schema of the pipeline file, for editors, and the reference pages of the components.
//!
//! What a section may hold is said here once more, in the words of JSON Schema, because the checks of the compiler give
//! better messages than a schema can, and an editor wants more than checks: descriptions, examples, snippets. Tests hold
//! the two together. The settings of sources and sinks are not repeated: they come from the registry.
//!
//! The schema is draft 07 with the additions that VS Code's YAML extension reads (`markdownDescription`,
//! `enumDescriptions`, `defaultSnippets`, `patternErrorMessage`). It refuses nothing that the compiler takes, and lets pass
//! some of what the compiler refuses, such as a name that nothing declares. Parts of the language that this version does
//! not have are not in it.

mod catalogue;
mod components;
mod reference;
mod scenarios;
mod settings;
mod shape;
mod streams;

use cornjacket_core::component::Registry;
use serde_json::{Value, json};

pub use reference::{ReferencePage, reference_pages};
use shape::{Shape, add_markdown};

/// The JSON Schema of a pipeline file whose components are those of the registry.
#[must_use]
pub fn pipeline_schema(registry: &Registry) -> Value {
    let sections = vec![
        ("pipeline", name()),
        (
            "description",
            Shape::free_text("What the pipeline is for, in a sentence.")
                .example("Device readings to minute statistics."),
        ),
        ("events", catalogue::events()),
        ("topics", catalogue::topics()),
        ("sources", components::sources(registry.sources)),
        ("streams", streams::streams()),
        ("sinks", components::sinks(registry.sinks)),
        ("tests", scenarios::scenarios()),
    ];
    let mut root = Shape::object("One file is one pipeline: from sources through SQL streams to sinks.", sections)
        .require(&["pipeline"])
        .with("$schema", "http://json-schema.org/draft-07/schema#")
        .with("definitions", json!({ "field": Value::from(catalogue::field()) }))
        .snippet("A whole pipeline", "Events by HTTP, the newest one of each key as a table", &FIRST_PIPELINE.into())
        .into();
    add_markdown(&mut root);
    root
}

fn name() -> Shape {
    let description = "The pipeline's name. Its state in the data folder is kept under it.";
    let message = "write lower-case letters, digits, `_` and `-`, beginning with a letter, at most 63 of them";
    Shape::pattern(description, "^[a-z][a-z0-9_-]{0,62}$", message).example("iot")
}

/// A text rather than a value, for the order of its lines.
const FIRST_PIPELINE: &str = "\
pipeline: ${1:name}

events:
  ${2:sensor.reading}:
    payload:
      ${3:value}: ${4:double}

sources:
  api: { http: {} }

sinks:
  ${5:newest}:
    projection: { from: ${2:sensor.reading}, key: [aggregate_id] }
";
