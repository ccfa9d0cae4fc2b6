//! `cornjacket explain`: what a pipeline compiles to, and, of a running one, what its windows wait for.

mod time;
mod verdict;
mod watermarks;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use cornjacket_compiler::{Pipeline, load, render};
use cornjacket_operators::REGISTRY;

use crate::remote::Where;
use crate::{Failure, INPUT_IS_WRONG};

/// What `explain --help` begins with.
pub const ABOUT: &str = "\
Show what a pipeline compiles to: the nodes that rows go through on their way from the event types to the sinks. Of each: \
what it does, its columns, what identifies a row, how rows are spread over its tasks, what it remembers and what bounds \
that, and how its time runs. Nothing is run.

With --watermarks it asks a running pipeline instead: how far time has come at each node, what a window still waits for, \
and which partition of which event type holds it back.";

/// What `explain --help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  cornjacket explain pipelines/iot.yaml
  cornjacket explain pipelines/iot.yaml --format dot | dot -Tsvg > iot.svg
  cornjacket explain pipelines/iot.yaml --json | jq '.nodes[] | select(.state) | {name, state}'

For a README on GitHub, which draws a fenced block of the language mermaid:
  cornjacket explain pipelines/iot.yaml --format mermaid

Why does a window not close? While the pipeline runs:
  cornjacket explain --watermarks
  cornjacket explain --watermarks --json | jq -r 'select(.waits_for) | .says'
The same facts by SQL: cornjacket query 'SELECT * FROM cornjacket.clocks'

Exit codes: 0 done, 1 the pipeline file is wrong, 2 no pipeline answers (with --watermarks).";

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The pipeline file. With --watermarks it need not be named: the running pipeline knows itself.
    #[arg(required_unless_present = "watermarks")]
    pub file: Option<PathBuf>,
    /// How to show it; text unless set, and with --watermarks lines of JSON where no terminal reads.
    #[arg(long)]
    pub format: Option<Format>,
    /// Short for --format json.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Ask a running pipeline how far time has come, and what holds it back.
    #[arg(long)]
    pub watermarks: bool,
    /// Where it is.
    #[command(flatten)]
    pub place: Where,
}

/// How to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For reading: a tree, then a block per node.
    Text,
    /// A flowchart that GitHub, GitLab and many editors draw.
    Mermaid,
    /// A graph for Graphviz.
    Dot,
    /// For programs.
    Json,
}

/// Explains a file, or a running pipeline.
pub fn explain(arguments: &Arguments) -> Result<(), Failure> {
    let format = if arguments.json { Some(Format::Json) } else { arguments.format };
    let pipeline = arguments.file.as_deref().map(compile).transpose()?;
    let text = match pipeline {
        _ if arguments.watermarks => watermarks::text(arguments, pipeline.as_ref(), format)?,
        Some(pipeline) => {
            let explanation = cornjacket_compiler::explain(&pipeline);
            match format.unwrap_or(Format::Text) {
                Format::Text => explanation.text(),
                Format::Mermaid => explanation.mermaid(),
                Format::Dot => explanation.dot(),
                Format::Json => explanation.json(),
            }
        }
        None => return Err(Failure::Input(anyhow!("name a pipeline file, such as pipelines/iot.yaml"))),
    };
    match stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("it cannot be written").map_err(Failure::Environment),
    }
}

/// Compiles the file, and shows what is wrong with it.
fn compile(file: &Path) -> Result<Pipeline, Failure> {
    let outcome = load(file, &|name| std::env::var(name).ok(), &REGISTRY);
    if !outcome.diagnostics.is_empty() {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
        eprintln!("{}", render(&outcome.diagnostics, colour));
    }
    outcome.pipeline.ok_or(Failure::Told(INPUT_IS_WRONG))
}
