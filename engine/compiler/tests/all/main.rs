//! The compiler from the outside: files in, diagnostics and graphs out, with the real operators and sinks.

mod codes;
mod explain;
mod golden;
mod graph;
mod mutations;
mod schema;

use std::path::{Path, PathBuf};

use cornjacket_compiler::{Outcome, load};
use cornjacket_core::component::{BuiltSource, Description, Registry, SourceSpec, parse_settings};
use cornjacket_operators::{sinks, transform, tumble, union};
use schemars::JsonSchema;
use serde::Deserialize;

/// A path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The environment of every test.
fn environment(name: &str) -> Option<String> {
    match name {
        "CJ_PARTITIONS" => Some("8".into()),
        "CJ_KEY" => Some("aggregate_id".into()),
        _ => None,
    }
}

/// A source without settings, so that what the tests expect does not change with every new component.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

const SOURCE: SourceSpec = SourceSpec {
    description: Description {
        kind: "http",
        summary: "A source of the tests.",
        guarantee: "None.",
        example: "{}",
        schema: || schemars::schema_for!(Nothing),
    },
    parse: parse_settings::<Nothing>,
    build: |_, _| Ok(BuiltSource::Served { envelope: None }),
};

const REGISTRY: Registry = Registry {
    sources: &[SOURCE],
    operators: &[transform::SPEC, union::SPEC, tumble::SPEC],
    sinks: &[sinks::projection::SPEC, sinks::stdout::SPEC],
};

fn load_file(path: &Path) -> Outcome {
    load(path, &environment, &REGISTRY)
}

/// Loads the example, with the components that there are.
fn load_example() -> Outcome {
    load(&repository("pipelines/iot.yaml"), &environment, &cornjacket_operators::REGISTRY)
}

/// Loads a pipeline from a text, as if it were a file among the golden ones.
fn load_text(text: &str) -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pipeline.yaml");
    cornjacket_compiler::load_text(&path, text.to_string(), &environment, &REGISTRY)
}
