//! Batches: the rows that flow along the edges of the graph.
//!
//! A row has the columns that SQL sees and, beside them, a [`Lineage`]: its row time (the event time, selected or not),
//! its partition's clock as it was when the row arrived, and which event it came from. Expressions never touch the
//! lineage; filters and shuffles only move a selection of row numbers along, so an unused lineage costs four bytes a row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, Int8Array, Int64Array, RecordBatch,
    RecordBatchOptions, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{FilterBuilder, filter, filter_record_batch, take, take_record_batch};
use arrow::datatypes::{Int8Type, Int64Type, TimestampMicrosecondType, UInt32Type};

use crate::error::Result;
use crate::time::Micros;

/// Where rows come from, shared by all batches made from one source batch.
#[derive(Clone, Debug)]
pub struct Origins {
    /// Row time: event time, or for a window's row its end − 1 µs.
    pub time: TimestampMicrosecondArray,
    /// The clock of the row's partition as it was when the row arrived; `i64::MIN` before any.
    pub clock: Int64Array,
    /// What orders rows of one key and equal time: the event's offset, or for an aggregate's row its epoch.
    pub order: Int64Array,
    /// The event that a row is; `None` for rows of aggregates.
    pub event_id: Option<FixedSizeBinaryArray>,
    /// +1 for a row that is inserted, −1 for one that is taken back; `None` where all are +1.
    pub weight: Option<Int8Array>,
}

/// The lineage of a batch's rows: a selection out of [`Origins`].
#[derive(Clone, Debug)]
pub struct Lineage {
    origins: Arc<Origins>,
    selection: Option<UInt32Array>,
}

impl Lineage {
    /// The lineage of a batch whose rows are exactly the origins'.
    #[must_use]
    pub fn new(origins: Origins) -> Self {
        Self { origins: Arc::new(origins), selection: None }
    }

    fn select<A: Array + Clone + 'static>(&self, column: &A) -> Result<ArrayRef> {
        Ok(match &self.selection {
            None => Arc::new(column.clone()),
            Some(rows) => take(column, rows, None)?,
        })
    }

    /// Row times.
    ///
    /// # Errors
    /// Never for a lineage made by this module's functions; as all of these.
    pub fn time(&self) -> Result<TimestampMicrosecondArray> {
        Ok(self.select(&self.origins.time)?.as_primitive::<TimestampMicrosecondType>().clone())
    }

    /// Clocks; `i64::MIN` before any.
    ///
    /// # Errors
    /// As [`Lineage::time`].
    pub fn clock(&self) -> Result<Int64Array> {
        Ok(self.select(&self.origins.clock)?.as_primitive::<Int64Type>().clone())
    }

    /// What orders rows of equal key and time.
    ///
    /// # Errors
    /// As [`Lineage::time`].
    pub fn order(&self) -> Result<Int64Array> {
        Ok(self.select(&self.origins.order)?.as_primitive::<Int64Type>().clone())
    }

    /// Event ids, or `None` for rows of aggregates.
    ///
    /// # Errors
    /// As [`Lineage::time`].
    pub fn event_id(&self) -> Result<Option<FixedSizeBinaryArray>> {
        let ids = self.origins.event_id.as_ref().map(|ids| self.select(ids)).transpose()?;
        Ok(ids.map(|ids| ids.as_fixed_size_binary().clone()))
    }

    /// Weights, or `None` where every row is an insertion.
    ///
    /// # Errors
    /// As [`Lineage::time`].
    pub fn weight(&self) -> Result<Option<Int8Array>> {
        let weights = self.origins.weight.as_ref().map(|weights| self.select(weights)).transpose()?;
        Ok(weights.map(|weights| weights.as_primitive::<Int8Type>().clone()))
    }

    fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        // Origins fit into u32: a source batch never has more rows than a block.
        let selection = match &self.selection {
            Some(rows) => filter(rows, keep)?,
            None => filter(&row_numbers(keep.len()), keep)?,
        };
        Ok(Self { origins: Arc::clone(&self.origins), selection: Some(selection.as_primitive::<UInt32Type>().clone()) })
    }

    fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let selection = match &self.selection {
            Some(selected) => take(selected, rows, None)?.as_primitive::<UInt32Type>().clone(),
            None => rows.clone(),
        };
        Ok(Self { origins: Arc::clone(&self.origins), selection: Some(selection) })
    }
}

fn row_numbers(rows: usize) -> UInt32Array {
    (0..u32::try_from(rows).unwrap_or(u32::MAX)).collect::<Vec<_>>().into()
}

/// Rows on an edge: what SQL sees of them, and their lineage.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The columns that SQL sees.
    pub rows: RecordBatch,
    /// Row time, clock and origin of each row.
    pub lineage: Lineage,
}

impl Batch {
    /// A batch of rows that no event is: what an operator emits at a time of its own.
    #[must_use]
    pub fn computed(rows: RecordBatch, time: Micros, clock: Micros, order: i64, weight: Option<Int8Array>) -> Self {
        let n = rows.num_rows();
        let origins = Origins {
            time: TimestampMicrosecondArray::from_value(time, n).with_timezone("UTC"),
            clock: Int64Array::from_value(clock, n),
            order: Int64Array::from_value(order, n),
            event_id: None,
            weight,
        };
        Self { rows, lineage: Lineage::new(origins) }
    }

    /// How many rows it has.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// The rows for which `keep` is true (null counts as false).
    ///
    /// # Errors
    /// When `keep` has another length.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        if keep.null_count() == 0 && keep.true_count() == keep.len() {
            return Ok(self.clone());
        }
        Ok(Self { rows: filter_record_batch(&self.rows, keep)?, lineage: self.lineage.filter(keep)? })
    }

    /// As [`Batch::filter`], where only these columns are read afterwards: the others are cut to the same length and hold
    /// other rows' values, which costs nothing.
    ///
    /// # Errors
    /// When `keep` has another length.
    pub fn filter_for(&self, keep: &BooleanArray, read: &[bool]) -> Result<Self> {
        let kept = keep.true_count();
        if kept == keep.len() && keep.null_count() == 0 {
            return Ok(self.clone());
        }
        let predicate = FilterBuilder::new(keep).optimize().build();
        let column = |(column, read): (&ArrayRef, &bool)| {
            if *read { predicate.filter(column) } else { Ok(column.slice(0, kept)) }
        };
        let columns = self.rows.columns().iter().zip(read).map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(kept));
        let rows = RecordBatch::try_new_with_options(self.rows.schema(), columns, &options)?;
        Ok(Self { rows, lineage: self.lineage.filter(keep)? })
    }

    /// These rows, in this order.
    ///
    /// # Errors
    /// When a row number is out of bounds.
    pub fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let lineage = self.lineage.take(rows)?;
        if self.rows.num_columns() == 0 {
            // Arrow's kernel loses the row count of a batch without columns.
            let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
            return Ok(Self {
                rows: RecordBatch::try_new_with_options(self.rows.schema(), vec![], &options)?,
                lineage,
            });
        }
        Ok(Self { rows: take_record_batch(&self.rows, rows)?, lineage })
    }

    /// The first half of the rows, and the rest.
    ///
    /// # Errors
    /// When Arrow's kernels fail, which they do not on numbers of rows that are there.
    pub fn halves(&self) -> Result<(Self, Self)> {
        let rows = u32::try_from(self.num_rows()).unwrap_or(u32::MAX);
        let middle = rows / 2;
        let first = self.take(&UInt32Array::from_iter_values(0..middle))?;
        Ok((first, self.take(&UInt32Array::from_iter_values(middle..rows))?))
    }

    /// The same rows with other columns, computed row by row from them.
    #[must_use]
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        debug_assert_eq!(rows.num_rows(), self.num_rows());
        Self { rows, lineage: self.lineage.clone() }
    }
}
