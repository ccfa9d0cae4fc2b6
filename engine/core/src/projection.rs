//! Projections: tables kept up to date from the stream.

use std::sync::Arc;

use arrow::array::{FixedSizeBinaryArray, Int8Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};

use crate::time::Micros;

/// A projection's table.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectionSpec {
    /// Its name, which is the sink's.
    pub name: String,
    /// The columns, as the pipeline computes them (key columns included).
    pub schema: SchemaRef,
    /// Positions of the key columns in `schema`, in the order of the key.
    pub key: Vec<usize>,
    /// Position of the column that time queries and retention go by.
    pub time: Option<usize>,
}

impl ProjectionSpec {
    /// A time in the unit of the time column; in microseconds if there is none.
    #[must_use]
    pub fn time_in_unit(&self, time: Micros) -> i64 {
        let unit = self.time.map(|at| self.schema.field(at).data_type());
        match unit {
            Some(DataType::Timestamp(TimeUnit::Second, _)) => time.div_euclid(1_000_000),
            Some(DataType::Timestamp(TimeUnit::Millisecond, _)) => time.div_euclid(1_000),
            Some(DataType::Timestamp(TimeUnit::Nanosecond, _)) => time.saturating_mul(1_000),
            _ => time,
        }
    }
}

/// How rows meet the row of the same key that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// The greater row time stays, then the greater order, then the later of this write.
    Newest,
    /// A changelog: rows are applied in their order, weight −1 deletes, +1 inserts or replaces.
    Changelog,
}

/// Rows of one epoch for one projection.
#[derive(Clone, Debug)]
pub struct ProjectionWrite {
    /// The table.
    pub projection: Arc<ProjectionSpec>,
    /// How they meet what is there.
    pub mode: WriteMode,
    /// The rows, with the projection's columns. At most one per key in mode `Newest`.
    pub rows: RecordBatch,
    /// Row time of each.
    pub time: TimestampMicrosecondArray,
    /// What orders rows of equal time.
    pub order: Int64Array,
    /// The event each row is; `None` for aggregates.
    pub event_id: Option<FixedSizeBinaryArray>,
    /// Weight of each, in mode `Changelog`; `None` means all +1.
    pub weight: Option<Int8Array>,
}
