//! What SQL compiles to, behind object-safe traits: chains of expressions and grouped aggregates. The SQL crate
//! implements them; operators use them without knowing the engine behind.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::batch::Batch;
use crate::error::Result;

/// A chain of filters and computed columns: stateless, the same for every row alone.
pub trait Transform: fmt::Debug + Send + Sync {
    /// The columns that come out.
    fn schema(&self) -> &SchemaRef;

    /// Applies the chain to a batch.
    ///
    /// # Errors
    /// When an expression fails on a row (a cast that overflows, a division by zero).
    fn apply(&self, batch: Batch) -> Result<Batch>;

    /// Whether nothing ever comes out, whatever goes in, as far as that is plain to see.
    fn is_always_empty(&self) -> bool {
        false
    }

    /// The columns of the input that it looks at or gives on; `None` if that may be all.
    fn reads(&self) -> Option<Vec<usize>>;

    /// Where column `input` of the input comes out unchanged, if it does.
    fn position_of(&self, input: usize) -> Option<usize>;

    /// Where the field of a struct in column `input` comes out unchanged, if it does.
    fn position_of_field(&self, input: usize, field: &str) -> Option<usize>;

    /// What it does: its identity.
    fn describe(&self) -> String;

    /// What it does, for people: a step a line, in the words of SQL.
    fn summary(&self) -> String {
        self.describe()
    }
}

/// Makes the aggregation state of one window pane.
///
/// The input of the aggregation is a prepared batch: the key columns first, then the arguments of the aggregates, as
/// the transform before it laid them out.
pub trait Aggregation: fmt::Debug + Send + Sync {
    /// How many of the input's first columns are the keys.
    fn keys(&self) -> usize;

    /// The columns of [`Groups::evaluate`]: the keys, then one per aggregate.
    fn schema(&self) -> &SchemaRef;

    /// An empty pane.
    ///
    /// # Errors
    /// When an accumulator cannot be made for its argument types.
    fn create(&self) -> Result<Box<dyn Groups>>;

    /// What it computes: its identity.
    fn describe(&self) -> String;

    /// The aggregates, for people: in the words of SQL, joined by commas.
    fn summary(&self) -> String {
        self.describe()
    }
}

/// The aggregates of the groups of one window pane.
pub trait Groups: Send {
    /// Adds prepared rows.
    ///
    /// # Errors
    /// When an accumulator fails, such as by overflow.
    fn update(&mut self, rows: &RecordBatch) -> Result<()>;

    /// Adds state given by [`Groups::take_state`] of the same aggregation.
    ///
    /// # Errors
    /// When the state is not this aggregation's.
    fn merge(&mut self, state: &RecordBatch) -> Result<()>;

    /// Gives up its whole state as a batch and is empty afterwards.
    ///
    /// # Errors
    /// When an accumulator cannot express its state.
    fn take_state(&mut self) -> Result<RecordBatch>;

    /// Gives up the keys and results of every group and is empty afterwards.
    ///
    /// # Errors
    /// When an accumulator fails.
    fn evaluate(&mut self) -> Result<RecordBatch>;

    /// How many groups it holds.
    fn len(&self) -> usize;

    /// Whether it holds no group.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory it holds, approximately.
    fn size(&self) -> usize;
}

/// What a compiled stream is made of, before it becomes nodes of the graph.
#[derive(Clone, Debug)]
pub enum Relation {
    /// An event type or another stream, by name.
    Table {
        /// Its name as it was registered.
        name: String,
        /// Its columns.
        schema: SchemaRef,
    },
    /// Filters and computed columns.
    Transform {
        /// Where the rows come from.
        input: Box<Relation>,
        /// What is done to them.
        transform: Arc<dyn Transform>,
    },
    /// The rows of several relations with the same columns.
    Union {
        /// Where the rows come from.
        inputs: Vec<Relation>,
    },
    /// Tumbling windows.
    Tumble {
        /// Where the rows come from: prepared as [`Aggregation`] wants them.
        input: Box<Relation>,
        /// Windows and aggregates.
        window: TumbleSpec,
    },
}

impl Relation {
    /// The columns of its rows.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        match self {
            Self::Table { schema, .. } => schema,
            Self::Transform { transform, .. } => transform.schema(),
            Self::Union { inputs } => inputs[0].schema(),
            Self::Tumble { window, .. } => &window.schema,
        }
    }
}

/// A tumbling window and what is aggregated in it.
#[derive(Clone, Debug)]
pub struct TumbleSpec {
    /// The width of a window in µs; windows are [n·width, (n+1)·width) from the Unix epoch.
    pub width: i64,
    /// For how long after its end a window still takes rows and emits updates, in µs.
    pub lateness: i64,
    /// The aggregates.
    pub aggregation: Arc<dyn Aggregation>,
    /// Where the window's struct (`start`, `end`) stands among the output columns; the aggregation's follow in order.
    pub window_at: usize,
    /// The output columns.
    pub schema: SchemaRef,
}
