//! Aggregates that need a group's rows in an order, such as `nth_value(x, 2 ORDER BY y)`: the pane keeps the rows and
//! computes when asked. It costs memory for every row, so it is only used where an accumulator cannot merge.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take, take_record_batch};
use cornjacket_core::Result;
use cornjacket_core::aggregate::Groups;
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::aggregate::LoweredAggregate;

use super::aggregation::{GroupBy, accumulator, arguments, filter_of};
use super::chain::compute_error;

/// The rows of one pane.
pub(super) struct RowGroups {
    plan: Arc<GroupBy>,
    rows: Vec<RecordBatch>,
}

impl RowGroups {
    pub(super) fn new(plan: Arc<GroupBy>) -> Self {
        Self { plan, rows: Vec::new() }
    }

    fn compute(&self, rows: &RecordBatch) -> DataFusionResult<RecordBatch> {
        let mut indices = vec![0; rows.num_rows()];
        let mut columns = Vec::new();
        let mut groups = 1;
        if let Some(mut values) = self.plan.group_values()? {
            values.intern(&rows.columns()[..self.plan.keys], &mut indices)?;
            groups = values.len();
            columns = values.emit(EmitTo::All)?;
        }
        for aggregate in &self.plan.aggregates {
            let order = Self::order(aggregate, rows)?;
            let sorted = take_record_batch(rows, &order)?;
            let sorted_indices: Vec<usize> =
                order.values().iter().map(|row| indices[usize::try_from(*row).unwrap_or(0)]).collect();
            let mut accumulator = accumulator(&aggregate.aggregate)?;
            let values = arguments(&aggregate.aggregate, &sorted)?;
            accumulator.update_batch(&values, &sorted_indices, filter_of(aggregate, &sorted)?.as_ref(), groups)?;
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.plan.output), columns)?)
    }

    /// The rows in the order that the aggregate asks for; rows that it leaves equal stay in the order they came.
    fn order(aggregate: &LoweredAggregate, rows: &RecordBatch) -> DataFusionResult<UInt64Array> {
        let count = u64::try_from(rows.num_rows()).unwrap_or(u64::MAX);
        let arrived = UInt64Array::from_iter_values(0..count);
        if aggregate.aggregate.order_bys().is_empty() {
            return Ok(arrived);
        }
        let mut columns = Vec::new();
        for sort in aggregate.aggregate.order_bys() {
            columns.push(SortColumn {
                values: sort.expr.evaluate(rows)?.into_array(rows.num_rows())?,
                options: Some(sort.options),
            });
        }
        columns.push(SortColumn { values: Arc::new(arrived.clone()), options: None });
        let sorted = lexsort_to_indices(&columns, None)?;
        let rows = take(&arrived, &sorted, None)?;
        Ok(rows.as_primitive().clone())
    }

    fn take_rows(&mut self) -> Result<RecordBatch> {
        let rows = concat_batches(&self.plan.input, &self.rows)?;
        self.rows.clear();
        Ok(rows)
    }
}

impl Groups for RowGroups {
    fn update(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows.push(rows.clone());
        Ok(())
    }

    fn merge(&mut self, state: &RecordBatch) -> Result<()> {
        self.update(state)
    }

    fn take_state(&mut self) -> Result<RecordBatch> {
        self.take_rows()
    }

    fn evaluate(&mut self) -> Result<RecordBatch> {
        let rows = self.take_rows()?;
        if rows.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.plan.output)));
        }
        self.compute(&rows).map_err(compute_error)
    }

    fn len(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }

    fn size(&self) -> usize {
        self.rows.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}
