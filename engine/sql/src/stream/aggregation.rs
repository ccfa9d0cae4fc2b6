//! Grouped aggregates on `DataFusion`'s vectorised group tables and accumulators.
//!
//! One [`GroupTable`] is one pane. It can give up its whole state as a batch and take such batches back, which is all
//! that snapshots, merging and lateness are built from. An aggregate that needs its rows in an order
//! (`nth_value(… ORDER BY …)`) makes the pane keep rows instead: see [`super::buffered`].

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use cornjacket_core::aggregate::{Aggregation, Groups};
use cornjacket_core::guard::guarded;
use cornjacket_core::print::check_printable;
use cornjacket_core::{Error, Result};
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregate};
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::buffered::RowGroups;
use super::chain::{compute_error, words_of};
use super::readable;

/// The aggregates of a GROUP BY, compiled against the prepared input.
#[derive(Debug)]
pub(super) struct GroupBy {
    pub(super) keys: usize,
    pub(super) aggregates: Vec<LoweredAggregate>,
    pub(super) input: SchemaRef,
    pub(super) key_schema: SchemaRef,
    pub(super) output: SchemaRef,
    state: SchemaRef,
}

impl GroupBy {
    /// `input` is the prepared schema, keys first; `output` the keys and results as the plan names them.
    pub(super) fn new(
        keys: usize,
        aggregates: Vec<LoweredAggregate>,
        input: SchemaRef,
        output: SchemaRef,
    ) -> DataFusionResult<Self> {
        let key_fields: Vec<FieldRef> = input.fields()[..keys].to_vec();
        let mut state_fields = key_fields.clone();
        for (number, aggregate) in aggregates.iter().enumerate() {
            for (part, field) in aggregate.aggregate.state_fields()?.iter().enumerate() {
                state_fields.push(Arc::new(Field::new(format!("{number}.{part}"), field.data_type().clone(), true)));
            }
        }
        let state = Arc::new(Schema::new(state_fields));
        Ok(Self { keys, aggregates, key_schema: Arc::new(Schema::new(key_fields)), input, output, state })
    }

    /// Whether an aggregate is only right over rows in its order; others sort (`array_agg`) or compare (`first_value`).
    fn needs_order(&self) -> bool {
        self.aggregates.iter().any(|lowered| {
            let aggregate = &lowered.aggregate;
            !aggregate.order_bys().is_empty()
                && aggregate.order_sensitivity() == AggregateOrderSensitivity::HardRequirement
        })
    }

    /// The key columns as their own batch schema allows a group table to hold them.
    pub(super) fn group_values(&self) -> DataFusionResult<Option<Box<dyn GroupValues>>> {
        if self.keys == 0 {
            return Ok(None);
        }
        new_group_values(Arc::clone(&self.key_schema), &GroupOrdering::None).map(Some)
    }
}

/// The aggregation of a window: makes the panes of one GROUP BY.
#[derive(Debug)]
pub(super) struct PaneFactory(pub(super) Arc<GroupBy>);

impl PaneFactory {
    /// Computes a window of two rows, with a snapshot in between. Many aggregates find out only then that they cannot work on
    /// their arguments' types, or that what they keep cannot be saved.
    pub(super) fn probe(&self) -> Result<()> {
        let sample = |field: &FieldRef| {
            let null = ScalarValue::try_new_null(field.data_type());
            let value = ScalarValue::new_default(field.data_type()).or_else(|error| match &null {
                Ok(null) if field.is_nullable() => Ok(null.clone()),
                _ => Err(error),
            })?;
            let other = if field.is_nullable() { null? } else { value.clone() };
            ScalarValue::iter_to_array([value, other])
        };
        let fields = self.0.input.fields();
        // A type of which no value can be made up is tried by its first row.
        let Ok(columns) = fields.iter().map(sample).collect::<DataFusionResult<Vec<_>>>() else { return Ok(()) };
        let options = RecordBatchOptions::new().with_row_count(Some(2));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.0.input), columns, &options)?;
        guarded(|| {
            let (mut first, mut again) = (self.create()?, self.create()?);
            first.update(&rows)?;
            again.merge(&first.take_state()?)?;
            again.evaluate().map(|_| ())
        })
    }
}

impl Aggregation for PaneFactory {
    fn keys(&self) -> usize {
        self.0.keys
    }

    fn schema(&self) -> &SchemaRef {
        &self.0.output
    }

    fn create(&self) -> Result<Box<dyn Groups>> {
        if self.0.needs_order() {
            return Ok(Box::new(RowGroups::new(Arc::clone(&self.0))));
        }
        Ok(Box::new(GroupTable::new(Arc::clone(&self.0))?))
    }

    fn summary(&self) -> String {
        self.0.aggregates.iter().map(readable::aggregate).collect::<Vec<_>>().join(", ")
    }

    fn describe(&self) -> String {
        let keys: Vec<_> = self.0.key_schema.fields().iter().map(|field| field.name().as_str()).collect();
        let aggregates: Vec<_> = self.0.aggregates.iter().map(describe_aggregate).collect();
        format!("{} by {}", aggregates.join(", "), if keys.is_empty() { "nothing".into() } else { keys.join(", ") })
    }
}

fn describe_aggregate(aggregate: &LoweredAggregate) -> String {
    match &aggregate.filter {
        Some(filter) => format!("{} where {filter}", aggregate.aggregate.name()),
        None => aggregate.aggregate.name().to_string(),
    }
}

/// The accumulator of an aggregate for many groups, vectorised where the aggregate can do that.
pub(super) fn accumulator(aggregate: &Arc<AggregateFunctionExpr>) -> DataFusionResult<Box<dyn GroupsAccumulator>> {
    if aggregate.groups_accumulator_supported() {
        return aggregate.create_groups_accumulator();
    }
    let aggregate = Arc::clone(aggregate);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}

/// The arguments' values, then those of the aggregate's ORDER BY, as accumulators want them.
pub(super) fn arguments(aggregate: &AggregateFunctionExpr, rows: &RecordBatch) -> DataFusionResult<Vec<ArrayRef>> {
    let value = |e: &Arc<dyn PhysicalExpr>| e.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
    let ordering = aggregate.order_bys().iter().map(|sort| value(&sort.expr));
    aggregate.expressions().iter().map(value).chain(ordering).collect()
}

pub(super) fn filter_of(aggregate: &LoweredAggregate, rows: &RecordBatch) -> DataFusionResult<Option<BooleanArray>> {
    let Some(filter) = &aggregate.filter else { return Ok(None) };
    let value = filter.evaluate(rows)?.into_array(rows.num_rows())?;
    Ok(Some(value.as_boolean().clone()))
}

/// The groups of one pane.
struct GroupTable {
    plan: Arc<GroupBy>,
    /// `None` for a GROUP BY of nothing but the window: one group, there once a row was.
    values: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    groups: usize,
    /// Group of each row of the batch at hand; kept to reuse its memory.
    indices: Vec<usize>,
}

impl GroupTable {
    fn new(plan: Arc<GroupBy>) -> Result<Self> {
        let values = plan.group_values().map_err(compute_error)?;
        let accumulators = plan.aggregates.iter().map(|a| accumulator(&a.aggregate)).collect::<DataFusionResult<_>>();
        Ok(Self { values, accumulators: accumulators.map_err(compute_error)?, plan, groups: 0, indices: Vec::new() })
    }

    fn intern(&mut self, rows: &RecordBatch) -> DataFusionResult<()> {
        if let Some(values) = &mut self.values {
            values.intern(&rows.columns()[..self.plan.keys], &mut self.indices)?;
            self.groups = values.len();
        } else {
            self.indices.clear();
            self.indices.resize(rows.num_rows(), 0);
            self.groups = 1;
        }
        Ok(())
    }

    fn try_update(&mut self, rows: &RecordBatch) -> Result<()> {
        let input =
            |aggregate: &LoweredAggregate| Ok((arguments(&aggregate.aggregate, rows)?, filter_of(aggregate, rows)?));
        let inputs = self.plan.aggregates.iter().map(input).collect::<DataFusionResult<Vec<_>>>();
        // Nothing has changed yet.
        let inputs = inputs.map_err(|error| Error::Refused(words_of(&error)))?;
        self.intern(rows).map_err(compute_error)?;
        for (accumulator, (values, filter)) in self.accumulators.iter_mut().zip(&inputs) {
            let updated = accumulator.update_batch(values, &self.indices, filter.as_ref(), self.groups);
            updated.map_err(compute_error)?;
        }
        Ok(())
    }

    fn try_merge(&mut self, state: &RecordBatch) -> DataFusionResult<()> {
        self.intern(state)?;
        let mut at = self.plan.keys;
        for (aggregate, accumulator) in self.plan.aggregates.iter().zip(&mut self.accumulators) {
            let parts = aggregate.aggregate.state_fields()?.len();
            accumulator.merge_batch(&state.columns()[at..at + parts], &self.indices, self.groups)?;
            at += parts;
        }
        Ok(())
    }

    fn take_keys(&mut self) -> DataFusionResult<Vec<ArrayRef>> {
        self.values.as_mut().map_or_else(|| Ok(Vec::new()), |values| values.emit(EmitTo::All))
    }

    fn try_take(&mut self, schema: &SchemaRef, results: bool) -> DataFusionResult<RecordBatch> {
        let groups = std::mem::take(&mut self.groups);
        let mut columns = self.take_keys()?;
        for accumulator in &mut self.accumulators {
            if results {
                columns.push(accumulator.evaluate(EmitTo::All)?);
            } else {
                columns.extend(accumulator.state(EmitTo::All)?);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(groups));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }

    /// Accumulators need not be usable after they gave everything away, so a pane that goes on starts anew.
    fn take(&mut self, results: bool) -> Result<RecordBatch> {
        let plan = Arc::clone(&self.plan);
        let schema = if results { &plan.output } else { &plan.state };
        let batch = if self.groups == 0 {
            RecordBatch::new_empty(Arc::clone(schema))
        } else {
            self.try_take(schema, results).map_err(compute_error)?
        };
        if results {
            check_printable(&batch)?;
        }
        *self = Self::new(plan)?;
        Ok(batch)
    }
}

impl Groups for GroupTable {
    fn update(&mut self, rows: &RecordBatch) -> Result<()> {
        self.try_update(rows)
    }

    fn merge(&mut self, state: &RecordBatch) -> Result<()> {
        self.try_merge(state).map_err(compute_error)
    }

    fn take_state(&mut self) -> Result<RecordBatch> {
        self.take(false)
    }

    fn evaluate(&mut self) -> Result<RecordBatch> {
        self.take(true)
    }

    fn len(&self) -> usize {
        self.groups
    }

    fn size(&self) -> usize {
        self.values.as_ref().map_or(0, |values| values.size())
            + self.accumulators.iter().map(|a| a.size()).sum::<usize>()
    }
}
