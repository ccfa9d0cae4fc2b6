//! Filters and computed columns as one chain over a batch.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use cornjacket_core::aggregate::Transform;
use cornjacket_core::batch::Batch;
use cornjacket_core::{Error, Result};
use datafusion::common::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;

/// One step of a chain.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Rows for which the expression is true go on.
    Filter(Arc<dyn PhysicalExpr>),
    /// The columns are replaced by these expressions' values.
    Project { expressions: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef },
}

/// The compiled form of everything between two stateful nodes.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    steps: Vec<Step>,
    schema: SchemaRef,
    /// For each column that comes out, the input column it is, if it is one unchanged.
    origin: Vec<Option<usize>>,
}

impl Chain {
    pub(super) fn new(input: &SchemaRef) -> Self {
        Self { steps: Vec::new(), schema: Arc::clone(input), origin: (0..input.fields().len()).map(Some).collect() }
    }

    pub(super) fn then(mut self, step: Step) -> Self {
        if let Step::Project { expressions, schema } = &step {
            let column = |e: &Arc<dyn PhysicalExpr>| e.downcast_ref::<Column>().and_then(|c| self.origin[c.index()]);
            self.origin = expressions.iter().map(column).collect();
            self.schema = Arc::clone(schema);
        }
        self.steps.push(step);
        self
    }
}

/// `DataFusion`'s error as the core's.
pub(super) fn compute_error(error: DataFusionError) -> Error {
    match error {
        DataFusionError::ArrowError(arrow, _) => Error::Arrow(*arrow),
        other => Error::Compute(other.strip_backtrace()),
    }
}

fn project(rows: &RecordBatch, expressions: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef) -> Result<RecordBatch> {
    let n = rows.num_rows();
    let value = |e: &Arc<dyn PhysicalExpr>| e.evaluate(rows).and_then(|v| v.into_array(n)).map_err(compute_error);
    let columns = expressions.iter().map(value).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(n));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

impl Transform for Chain {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn apply(&self, mut batch: Batch) -> Result<Batch> {
        for step in &self.steps {
            if batch.num_rows() == 0 {
                return Ok(batch.with_rows(RecordBatch::new_empty(Arc::clone(&self.schema))));
            }
            batch = match step {
                Step::Filter(predicate) => {
                    let keep = predicate.evaluate(&batch.rows).and_then(|v| v.into_array(batch.num_rows()));
                    batch.filter(keep.map_err(compute_error)?.as_boolean())?
                }
                Step::Project { expressions, schema } => batch.with_rows(project(&batch.rows, expressions, schema)?),
            };
        }
        Ok(batch)
    }

    fn position_of(&self, input: usize) -> Option<usize> {
        self.origin.iter().position(|origin| *origin == Some(input))
    }

    fn describe(&self) -> String {
        let step = |step: &Step| match step {
            Step::Filter(predicate) => format!("filter {predicate}"),
            Step::Project { expressions, schema } => {
                let column = |(e, f): (&Arc<dyn PhysicalExpr>, &Arc<arrow::datatypes::Field>)| match e.to_string() {
                    text if text.starts_with(&format!("{}@", f.name())) => f.name().clone(),
                    text => format!("{text} AS {}", f.name()),
                };
                let columns: Vec<_> = expressions.iter().zip(schema.fields()).map(column).collect();
                format!("select {}", columns.join(", "))
            }
        };
        self.steps.iter().map(step).collect::<Vec<_>>().join("; ")
    }
}
