//! `cornjacket schema`: the JSON Schema of the pipeline file, for editors.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use cornjacket_compiler::pipeline_schema;
use cornjacket_operators::REGISTRY;

use crate::Failure;

/// What `schema --help` begins with.
pub const ABOUT: &str = "\
Print the JSON Schema of the pipeline file. With it an editor completes names and values, shows
what a setting means, and underlines what is wrong while you type. `cornjacket check` finds more: it
knows your event types, columns and SQL.

The schema holds the sources and sinks of this version: write it anew after an update.";

/// What `schema --help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  cornjacket schema --output pipeline.schema.json
  cornjacket schema | jq '.properties.sinks.additionalProperties.properties | keys'

In VS Code, install the extension YAML (redhat.vscode-yaml). Then begin the pipeline file with

  # yaml-language-server: $schema=pipeline.schema.json

where the path is relative to that file; or name your files in .vscode/settings.json:

  { \"yaml.schemas\": { \"./pipeline.schema.json\": [\"pipelines/*.yaml\"] } }

Every editor that runs yaml-language-server (Neovim, Helix, Emacs, Zed) reads the first line in the same way.
`cornjacket init` makes a project that has it already.

Exit codes: 0 done, 2 the file cannot be written.";

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The file to write, instead of the terminal; one that is there is replaced.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The text of the schema.
pub fn text() -> String {
    format!("{:#}\n", pipeline_schema(&REGISTRY))
}

/// Prints or writes the schema.
pub fn schema(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(path) = &arguments.output {
        return write(path).map_err(Failure::Environment);
    }
    // Whoever reads has perhaps seen enough.
    let _ = stdout().lock().write_all(text().as_bytes());
    Ok(())
}

fn write(path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, text()).with_context(|| format!("the schema cannot be written to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_written_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipeline.schema.json");
        std::fs::write(&path, "old").unwrap();
        let written = schema(&Arguments { output: Some(path.clone()) });
        assert!(written.is_ok(), "{written:?}");
        let schema: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert!(schema["properties"]["sinks"].is_object(), "{schema}");
        let nowhere = Arguments { output: Some(folder.path().join("none/schema.json")) };
        assert!(matches!(super::schema(&nowhere), Err(Failure::Environment(_))));
    }
}
