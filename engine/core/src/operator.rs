//! Operators: synchronous, without I/O, one instance per task (a node times a partition).
//!
//! Time and failure are not their business. The engine calls `on_batch` for the rows of an epoch in a fixed order, then
//! `on_watermark` once at its end, so an operator that does the same for the same calls is deterministic.
//! State is kept in **parts**: immutable batches, each saved once and from then on only referred to, so a snapshot costs
//! what changed since the last one.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::batch::Batch;
use crate::error::Result;
use crate::time::Micros;

/// Where an operator puts what it makes.
#[derive(Debug, Default)]
pub struct Output {
    /// The number of the epoch that is being computed.
    pub epoch: u64,
    /// Rows for the next node, in order.
    pub batches: Vec<Batch>,
    /// Rows that missed every window they belong to.
    pub late: Vec<Batch>,
    /// Rows that an expression failed on, and how.
    pub failed: Vec<(Batch, String)>,
    /// Results that could not be computed of rows taken before, with what can be told of them, and why.
    pub lost: Vec<(Batch, String)>,
    /// Whether results are to be given one by one where one of them may fail: it is lost then, and no other.
    pub one_by_one: bool,
    /// Bytes that the epoch's rows have grown by through what was computed of them.
    pub grown: usize,
    /// How many rows it left out because a condition says so.
    pub filtered: u64,
    /// How many rows went into its state.
    pub absorbed: u64,
}

impl Output {
    /// An empty output of an epoch.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Emits rows; empty batches are left out.
    pub fn emit(&mut self, batch: Batch) {
        if batch.num_rows() > 0 {
            self.batches.push(batch);
        }
    }
}

/// Names a part of saved state within a pipeline; never used twice.
pub type PartId = u64;

/// A part of an operator's state: what the operator calls it, and its rows.
#[derive(Clone, Debug)]
pub struct StatePart {
    /// The operator's own name for it, such as the window it belongs to.
    pub label: String,
    /// Names the part.
    pub id: PartId,
    /// Its rows.
    pub rows: RecordBatch,
}

/// Collects an operator's state for a snapshot.
pub trait StateWriter {
    /// Saves rows that no earlier snapshot has; the id is for [`StateWriter::keep`] next time.
    fn save(&mut self, label: String, rows: RecordBatch) -> PartId;

    /// Says that a part saved or restored earlier still belongs to the state.
    fn keep(&mut self, label: String, id: PartId);
}

/// One instance of an operator.
pub trait Operator: Send {
    /// Takes rows. `port` is the number of the input they come from.
    ///
    /// # Errors
    /// When it could not be done and the state may be half changed: it is thrown away then.
    fn on_batch(&mut self, port: usize, batch: Batch, output: &mut Output) -> Result<()>;

    /// Learns that an epoch ends, and that no more rows before `watermark` will come that are not late. Called once an
    /// epoch, after its rows, as soon as there is a watermark; it never falls, and need not have risen.
    ///
    /// # Errors
    /// As [`Operator::on_batch`].
    fn on_watermark(&mut self, watermark: Micros, output: &mut Output) -> Result<()> {
        let _ = (watermark, output);
        Ok(())
    }

    /// The least watermark at which it would emit something; `None` if it waits for nothing.
    fn next_timer(&self) -> Option<Micros> {
        None
    }

    /// Hands over its state.
    ///
    /// # Errors
    /// When the state cannot be expressed as rows.
    fn snapshot(&mut self, writer: &mut dyn StateWriter) -> Result<()> {
        let _ = writer;
        Ok(())
    }

    /// Takes back the state of a snapshot, into a fresh instance.
    ///
    /// # Errors
    /// When the parts are not its own.
    fn restore(&mut self, parts: Vec<StatePart>, watermark: Option<Micros>) -> Result<()> {
        let _ = watermark;
        if parts.is_empty() { Ok(()) } else { Err(crate::Error::Corrupt("state for an operator without state".into())) }
    }

    /// Bytes of memory it holds, approximately.
    fn size(&self) -> usize {
        0
    }
}

/// A configured operator of the graph, from which the engine makes one instance per task.
pub trait OperatorFactory: fmt::Debug + Send + Sync {
    /// Its kind, such as `tumble`.
    fn kind(&self) -> &'static str;

    /// The columns of its output.
    fn schema(&self) -> SchemaRef;

    /// The columns of its input that it looks at or gives on; `None` if that may be all.
    fn reads(&self) -> Option<Vec<usize>> {
        None
    }

    /// Whether its output depends on rows of earlier epochs, so that it must see the log again after a change.
    fn is_stateful(&self) -> bool;

    /// Makes an instance.
    ///
    /// # Errors
    /// When something it is made of cannot be built.
    fn create(&self) -> Result<Box<dyn Operator>>;

    /// What it does, on one line. This is its identity: state is reused after an edit of the file only where this text and
    /// everything upstream stayed the same.
    fn describe(&self) -> String;

    /// What it does, for people: a step a line, in the words of SQL. Its wording may change from version to version.
    fn summary(&self) -> String {
        self.describe()
    }

    /// The windows it keeps, if it keeps any.
    fn windows(&self) -> Option<Windows> {
        None
    }

    /// Where a column of its input, or a field of a struct in it, comes out unchanged, if it does.
    fn position_of(&self, column: usize, field: Option<&str>) -> Option<usize> {
        let _ = (column, field);
        None
    }
}

/// The windows of an operator, as far as everything around it has to know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// How wide they are, in µs.
    pub width: Micros,
    /// For how long after its end a window still takes rows and gives updates, in µs.
    pub lateness: Micros,
    /// Which output columns identify a row: the window, and what is grouped by.
    pub key: Vec<usize>,
}
