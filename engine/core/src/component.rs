//! Component specs and the registry: one file and one line per source, operator and sink.
//!
//! A component's settings struct is its contract. From it, and from nothing else, come the checks of the pipeline file,
//! the JSON Schema and the reference page. The compiler knows components only through this module.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use schemars::Schema;

use crate::aggregate::Relation;
use crate::catalogue::Catalogue;
use crate::door::EnvelopeTemplate;
use crate::graph::SinkFactory;
use crate::operator::OperatorFactory;
use crate::source::ReaderFactory;

/// What is wrong with settings: which setting (empty: the whole component), what, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting's name, such as `key`; the place in the file is found by it.
    pub setting: String,
    /// The item within the setting if it is a list.
    pub index: Option<usize>,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault of a setting.
    #[must_use]
    pub fn new(setting: impl Into<String>, message: impl Into<String>) -> Self {
        Self { setting: setting.into(), index: None, message: message.into(), hint: None }
    }

    /// Names the item of the list.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a component says of itself.
#[derive(Clone, Copy)]
pub struct Description {
    /// Its kind: the key in the pipeline file.
    pub kind: &'static str,
    /// One line.
    pub summary: &'static str,
    /// What it guarantees, and what happens on failure.
    pub guarantee: &'static str,
    /// An example of its settings, in YAML.
    pub example: &'static str,
    /// The JSON Schema of its settings.
    pub schema: fn() -> Schema,
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)
    }
}

/// Reads settings from any deserializer (the pipeline file's keeps the places of faults); the result is downcast by the
/// component's own `build`.
pub type ParseSettings =
    fn(&mut dyn erased::Deserializer) -> std::result::Result<Box<dyn Any + Send + Sync>, erased::Error>;

/// What a source is built from beside its settings.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// The source's name.
    pub name: String,
    /// The event types that it may bring.
    pub catalogue: Arc<Catalogue>,
    /// The folder of the pipeline file, which paths are relative to.
    pub folder: PathBuf,
}

/// A configured source.
#[derive(Clone, Debug)]
pub enum BuiltSource {
    /// Clients come to it: the server gives it a place to listen.
    Served {
        /// How its messages become events; `None` if each is a whole envelope.
        envelope: Option<Arc<EnvelopeTemplate>>,
    },
    /// The process reads it.
    Read(Arc<dyn ReaderFactory>),
}

impl BuiltSource {
    /// How its messages become events; `None` if each is a whole envelope.
    pub fn envelope(&self) -> Option<Arc<EnvelopeTemplate>> {
        match self {
            Self::Read(reader) => reader.envelope(),
            Self::Served { envelope } => envelope.clone(),
        }
    }
}

/// A source's entry.
#[derive(Clone, Copy, Debug)]
pub struct SourceSpec {
    /// What it says of itself.
    pub description: Description,
    /// Reads its settings.
    pub parse: ParseSettings,
    /// Checks the settings and configures the source. It does no I/O.
    pub build: fn(&(dyn Any + Send + Sync), &SourceContext) -> std::result::Result<BuiltSource, Vec<Fault>>,
}

/// What a sink is built from beside its settings.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// The sink's name.
    pub name: String,
    /// The columns of the stream it reads.
    pub schema: SchemaRef,
    /// The event type if it reads one directly; its table schema is `schema`.
    pub event_type: Option<Arc<crate::catalogue::EventType>>,
    /// Whether the stream takes rows back (weights −1 occur).
    pub updating: bool,
    /// The columns that identify a row of the stream, where that follows from its SQL.
    pub key: Option<Vec<usize>>,
    /// The folder of the pipeline file, which paths are relative to.
    pub folder: PathBuf,
}

/// A sink's entry.
#[derive(Clone, Copy, Debug)]
pub struct SinkSpec {
    /// What it says of itself.
    pub description: Description,
    /// Reads its settings.
    pub parse: ParseSettings,
    /// The name of the stream or event type that parsed settings read from.
    pub from: fn(&(dyn Any + Send + Sync)) -> &str,
    /// Checks the settings against the stream and configures the sink.
    pub build: fn(&(dyn Any + Send + Sync), &SinkContext) -> std::result::Result<Arc<dyn SinkFactory>, Vec<Fault>>,
}

/// An operator's entry.
#[derive(Clone, Copy, Debug)]
pub struct OperatorSpec {
    /// Its kind.
    pub kind: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Configures the operator for a relation if it is the one for it.
    pub build: fn(&Relation) -> Option<Arc<dyn OperatorFactory>>,
}

/// Every component that there is, in the order of the documentation.
#[derive(Clone, Copy, Debug)]
pub struct Registry {
    /// Sources.
    pub sources: &'static [SourceSpec],
    /// Operators.
    pub operators: &'static [OperatorSpec],
    /// Sinks.
    pub sinks: &'static [SinkSpec],
}

/// Reads settings of type `T`: what [`ParseSettings`] wants, for a settings struct.
///
/// # Errors
/// When the settings do not fit the struct.
pub fn parse_settings<T: serde::de::DeserializeOwned + Any + Send + Sync>(
    deserializer: &mut dyn erased::Deserializer,
) -> std::result::Result<Box<dyn Any + Send + Sync>, erased::Error> {
    erased::deserialize::<T>(deserializer).map(|settings| Box::new(settings) as _)
}

/// Object-safe deserialization (the `erased-serde` crate).
pub mod erased {
    pub use erased_serde::{Deserializer, Error, deserialize};
}
