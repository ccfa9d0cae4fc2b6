//! The compiled graph: nodes in topological order, joined by exchanges.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::batch::Batch;
use crate::catalogue::{Catalogue, EventType};
use crate::component::Fault;
use crate::delivery::{Action, Trigger};
use crate::error::Result;
use crate::operator::OperatorFactory;
use crate::projection::{ProjectionSpec, ProjectionWrite};

/// Position of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// How rows get from one node's tasks to the next one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Task n feeds task n. Nodes joined like this run as one.
    Forward,
    /// By the hash of these columns of the rows.
    Hash(Vec<usize>),
    /// All to task 0.
    Gather,
}

/// An edge, seen from its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The node whose output it carries.
    pub node: NodeId,
    /// How.
    pub exchange: Exchange,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// The stored events of a type; one task a partition of its topic. Rows have the table schema.
    Source {
        /// The type.
        event_type: Arc<EventType>,
        /// Which columns of the table schema anything downstream reads; the others may come as nulls or empty text.
        columns: Vec<usize>,
    },
    /// An operator.
    Operator(Arc<dyn OperatorFactory>),
    /// A sink.
    Sink(Arc<dyn SinkFactory>),
}

/// A node of the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// Unique; the user's name for the stream or sink, with a suffix for the parts of one stream.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
    /// Where its rows come from; all have the same columns.
    pub inputs: Vec<Input>,
    /// The columns of its output (of a sink: of its input).
    pub schema: SchemaRef,
    /// How many tasks it runs as.
    pub tasks: u32,
    /// Identity of the node and everything upstream of it.
    pub fingerprint: String,
}

/// A checked and compiled pipeline.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The pipeline's name.
    pub pipeline: String,
    /// The event types.
    pub catalogue: Arc<Catalogue>,
    /// The nodes; inputs come before what reads them.
    pub nodes: Vec<Node>,
}

/// What a sink wants done with an epoch's rows.
#[derive(Debug, Default)]
pub struct SinkOutput {
    /// Rows for its projection, part of the epoch's transaction.
    pub write: Option<ProjectionWrite>,
    /// Lines for the sink's outlet; without one they are printed once the epoch is committed.
    pub lines: Vec<String>,
    /// What is to be sent outside, as deliveries in the epoch's transaction.
    pub triggers: Vec<Trigger>,
    /// How many rows it left out on purpose.
    pub suppressed: u64,
    /// How many rows others of the same epoch stand for.
    pub superseded: u64,
}

/// A sink's working instance: one for all tasks.
pub trait Sink: Send {
    /// What becomes of an epoch's rows. Batches come in a fixed order; weights are consolidated here.
    ///
    /// # Errors
    /// When the rows cannot be brought into form.
    fn on_epoch(&mut self, epoch: u64, batches: Vec<Batch>) -> Result<SinkOutput>;
}

/// A file beside the store that a sink's lines are appended to, exact over crashes: lines are made durable before their
/// epoch is committed, the epoch records how long the outlet is then, and whatever lies behind that is cut off.
pub trait Outlet: Send {
    /// Puts lines behind the first `length` bytes, in place of whatever is there, makes them durable and says how long it is
    /// now. The same call may be made again.
    ///
    /// # Errors
    /// [`crate::Error::Full`] and [`crate::Error::Unavailable`] are tried again.
    fn write(&mut self, length: u64, lines: &[String]) -> Result<u64>;
}

/// Something about a sink's settings that is right, but perhaps not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It does nothing as long as this setting is empty.
    Off(Fault),
    /// What it sends can be forged.
    Unsigned(Fault),
    /// It sends to an address that others cannot reach, or that strangers should not make it reach.
    PrivateAddress(Fault),
}

/// A configured sink of the graph.
pub trait SinkFactory: fmt::Debug + Send + Sync {
    /// Its kind, such as `projection`.
    fn kind(&self) -> &'static str;

    /// The table that it keeps, if it keeps one.
    fn projection(&self) -> Option<Arc<ProjectionSpec>> {
        None
    }

    /// For how long its rows are kept, if not for ever. It is no part of its identity: it can be changed at any time.
    fn retain(&self) -> Option<crate::time::Micros> {
        None
    }

    /// The columns of its input that it looks at; `None` if that may be all.
    fn reads(&self) -> Option<Vec<usize>> {
        None
    }

    /// Whether a new sink of this kind begins with the retained events (else with what comes from now on).
    fn starts_at_beginning(&self) -> bool;

    /// Makes the instance.
    ///
    /// # Errors
    /// When something it is made of cannot be built.
    fn create(&self) -> Result<Box<dyn Sink>>;

    /// Opens its outlet, if it has one, and cuts off what lies behind the committed length; `None` if no epoch ever wrote
    /// to it.
    ///
    /// # Errors
    /// When it cannot be opened, or does not hold what was committed.
    fn outlet(&self, committed: Option<u64>) -> Result<Option<Box<dyn Outlet>>> {
        let _ = committed;
        Ok(None)
    }

    /// The file that it writes, if it writes one: no other sink may, and no source should read it.
    fn writes(&self) -> Option<std::path::PathBuf> {
        None
    }

    /// Looks whether what it writes to outside the store can be written, and says what was found; `None` if there is
    /// nothing.
    ///
    /// # Errors
    /// Why it cannot, for the user.
    fn probe(&self) -> std::result::Result<Option<String>, String> {
        Ok(None)
    }

    /// Where and how its triggers are sent, if it gives any.
    fn action(&self) -> Option<Arc<Action>> {
        None
    }

    /// What stands in its place in a test of the pipeline, which does all that it does but reach outside; `None` if its
    /// rows are looked at instead.
    fn rehearsal(&self) -> Option<Arc<dyn SinkFactory>> {
        None
    }

    /// What is right here, but perhaps not meant: `check` says so.
    fn doubts(&self) -> Vec<Doubt> {
        Vec::new()
    }

    /// What it does, on one line: its identity (see [`OperatorFactory::describe`]).
    fn describe(&self) -> String;

    /// What it does, for people: a step a line. Its wording may change from version to version.
    fn summary(&self) -> String {
        self.describe()
    }
}
