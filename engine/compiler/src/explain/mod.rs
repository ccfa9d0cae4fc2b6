//! What a pipeline compiled to, told to people: `cornjacket explain`.
//!
//! [`explain`] makes an [`Explanation`] of a compiled pipeline: plain texts and names, in the words of the pipeline file,
//! without any of the engine's own types. The renderers beside it only lay it out: [`Explanation::text`] for a terminal,
//! [`Explanation::mermaid`] and [`Explanation::dot`] for drawing, [`Explanation::json`] for programs. What JSON calls its
//! members is documented in `docs/api.md` and follows from the fields here.

mod diagram;
mod json;
mod node;
mod text;

use cornjacket_core::component::BuiltSource;
use serde::Serialize;

use crate::Pipeline;

/// A compiled pipeline, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The pipeline's name.
    pub pipeline: String,
    /// What it is for; empty if the file does not say.
    pub description: String,
    /// Where events come from, in the order of the file.
    pub sources: Vec<SourceExplanation>,
    /// What becomes of them; inputs come before what reads them.
    pub nodes: Vec<NodeExplanation>,
}

/// A source of the file: it brings events to the door, which stores them in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceExplanation {
    /// Its name.
    pub name: String,
    /// Its kind, such as `http`.
    pub kind: String,
    /// What it does.
    pub does: String,
    /// Whether it has an end.
    pub bounded: bool,
}

/// What a node is to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The stored events of a type.
    EventType,
    /// A part of a stream.
    Operator,
    /// Where rows go.
    Sink,
}

/// A node of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeExplanation {
    /// Its name, which is unique: the event type's, the stream's with a suffix for its parts, or the sink's.
    pub name: String,
    /// What it is to the user.
    pub role: Role,
    /// Its kind, such as `tumble`.
    pub kind: String,
    /// What it does, a step an item.
    pub does: Vec<String>,
    /// Where its rows come from.
    pub inputs: Vec<InputExplanation>,
    /// How many tasks it runs as.
    pub tasks: u32,
    /// The topic of an event type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The columns of its rows: those that it gives; of a sink its table's, or else those that it takes.
    pub columns: Vec<ColumnExplanation>,
    /// Which columns identify a row; empty if that is not known.
    pub key: Vec<String>,
    /// What it remembers of earlier rows, if anything.
    pub state: Option<StateExplanation>,
    /// How time runs for it.
    pub time: TimeExplanation,
    /// Whether its rows are changes: rows that were given before may be taken back or replaced.
    pub changelog: bool,
    /// Where a new sink begins: `beginning` or `now`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<&'static str>,
}

/// An edge, seen from its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputExplanation {
    /// The node that it comes from.
    pub node: String,
    /// How rows get from its tasks to this node's.
    pub exchange: ExchangeKind,
    /// The columns whose hash decides, of a hash exchange.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
}

/// How rows get from one node's tasks to the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeKind {
    /// Task n feeds task n.
    Forward,
    /// By the hash of columns.
    Hash,
    /// All to one task.
    Gather,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnExplanation {
    /// Its name.
    pub name: String,
    /// Its type, as the pipeline file calls it.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may be null.
    pub nullable: bool,
}

/// What a node remembers, and what bounds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateExplanation {
    /// What is kept.
    pub keeps: String,
    /// What makes that it does not grow for ever, or the lack of it.
    pub bounded_by: String,
}

/// How time runs for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimeExplanation {
    /// What time its rows have; several where rows of several kinds meet.
    pub row_time: Vec<String>,
    /// The event types whose clocks its watermark is the least of.
    pub watermark: Vec<ClockExplanation>,
    /// How wide its windows are, such as `1m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// For how long after its end a window still takes rows, such as `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lateness: Option<String>,
}

/// How the clocks of an event type run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClockExplanation {
    /// The event type.
    pub event_type: String,
    /// How late an event may be.
    pub delay: String,
    /// After how long a silent partition stops holding time back.
    pub idle: String,
    /// How far in the future an event may be.
    pub max_ahead: String,
}

/// Explains a compiled pipeline.
#[must_use]
pub fn explain(pipeline: &Pipeline) -> Explanation {
    let source = |entry: &crate::SourceEntry| {
        let (does, bounded) = match &entry.built {
            BuiltSource::Served { .. } => (entry.spec.description.summary.to_string(), false),
            BuiltSource::Read(reader) => (reader.describe(), reader.is_bounded()),
        };
        SourceExplanation { name: entry.name.clone(), kind: entry.spec.description.kind.into(), does, bounded }
    };
    Explanation {
        pipeline: pipeline.name.clone(),
        description: pipeline.description.clone(),
        sources: pipeline.sources.iter().map(source).collect(),
        nodes: node::explain(&pipeline.graph),
    }
}

impl NodeExplanation {
    /// What it is, in a word: an event type, or its kind.
    fn what(&self) -> &str {
        match self.role {
            Role::EventType => "event type",
            Role::Operator | Role::Sink => &self.kind,
        }
    }
}

impl InputExplanation {
    /// How rows come, where they change places.
    fn moves(&self) -> Option<String> {
        match self.exchange {
            ExchangeKind::Forward => None,
            ExchangeKind::Hash => Some(format!("by hash of {}", self.by.join(", "))),
            ExchangeKind::Gather => Some("all to one task".into()),
        }
    }
}
