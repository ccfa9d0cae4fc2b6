//! Filters and computed columns as one chain over a batch.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, SchemaRef};
use cornjacket_core::aggregate::Transform;
use cornjacket_core::batch::Batch;
use cornjacket_core::print::check_column;
use cornjacket_core::{Error, Result};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::readable;

/// One step of a chain.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Rows for which the expression is true go on.
    Filter(Arc<dyn PhysicalExpr>),
    /// The columns are replaced by these expressions' values.
    Project { expressions: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef },
}

/// A column, or a field of a struct in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    column: usize,
    field: Option<String>,
}

/// The compiled form of everything between two stateful nodes.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    input: SchemaRef,
    steps: Vec<Step>,
    schema: SchemaRef,
    /// For each column that comes out, the input column it is, if it is one or a field of one unchanged.
    origin: Vec<Option<Origin>>,
    /// For each step, which of the columns before it the steps behind it read, if that is not all of them.
    read_behind: Vec<Option<Vec<bool>>>,
}

impl Chain {
    pub(super) fn new(input: &SchemaRef) -> Self {
        Self {
            input: Arc::clone(input),
            steps: Vec::new(),
            schema: Arc::clone(input),
            origin: (0..input.fields().len()).map(Origin::whole).collect(),
            read_behind: Vec::new(),
        }
    }

    pub(super) fn then(mut self, step: Step) -> Self {
        if let Step::Project { expressions, schema } = &step {
            self.origin = expressions.iter().map(|expression| self.origin_of(expression)).collect();
            self.schema = Arc::clone(schema);
        }
        self.steps.push(step);
        self.read_behind = (0..self.steps.len()).map(|at| self.read_from(at + 1)).collect();
        self
    }

    /// Which columns the steps from here on read, up to those that replace them; `None` if that is all.
    fn read_from(&self, first: usize) -> Option<Vec<bool>> {
        let width = self.steps[..first].iter().rev().find_map(|step| match step {
            Step::Project { schema, .. } => Some(schema.fields().len()),
            Step::Filter(_) => None,
        });
        let mut read = vec![false; width.unwrap_or(self.input.fields().len())];
        let mut mark = |expression| collect_columns(expression).iter().for_each(|column| read[column.index()] = true);
        for step in &self.steps[first..] {
            match step {
                Step::Filter(predicate) => mark(predicate),
                // What comes after this sees its columns, and no longer the ones before.
                Step::Project { expressions, .. } => {
                    expressions.iter().for_each(mark);
                    return Some(read);
                }
            }
        }
        None
    }

    fn origin_of(&self, expression: &Arc<dyn PhysicalExpr>) -> Option<Origin> {
        if let Some(column) = expression.downcast_ref::<Column>() {
            return self.origin[column.index()].clone();
        }
        let call = expression.downcast_ref::<ScalarFunctionExpr>().filter(|call| call.name() == "get_field")?;
        let [of, name] = call.args() else { return None };
        let name = name.downcast_ref::<Literal>()?.value().try_as_str().flatten()?;
        let whole = self.origin_of(of).filter(|origin| origin.field.is_none())?;
        Some(Origin { field: Some(name.into()), ..whole })
    }

    fn position(&self, column: usize, field: Option<&str>) -> Option<usize> {
        let is_it = |origin: &Origin| origin.column == column && origin.field.as_deref() == field;
        self.origin.iter().position(|origin| origin.as_ref().is_some_and(is_it))
    }
}

impl Origin {
    #[allow(clippy::unnecessary_wraps, reason = "computed columns have none")]
    fn whole(column: usize) -> Option<Self> {
        Some(Self { column, field: None })
    }
}

/// `DataFusion`'s error as the core's.
pub(super) fn compute_error(error: DataFusionError) -> Error {
    match error {
        DataFusionError::ArrowError(arrow, _) => Error::Arrow(*arrow),
        other => Error::Compute(words_of(&other)),
    }
}

/// What an error says, without the kind that the library calls it.
pub(super) fn words_of(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Execution(words) => words.clone(),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => words_of(inner),
        other => other.strip_backtrace(),
    }
}

fn project(rows: &RecordBatch, expressions: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef) -> Result<RecordBatch> {
    let n = rows.num_rows();
    let value = |(expression, field): (&Arc<dyn PhysicalExpr>, &FieldRef)| {
        let column = expression.evaluate(rows).and_then(|value| value.into_array(n)).map_err(compute_error)?;
        // A column as it came was looked at where it was made.
        if !expression.is::<Column>() {
            check_column(field, &column)?;
        }
        Ok(column)
    };
    let columns = expressions.iter().zip(schema.fields()).map(value).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(n));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

impl Transform for Chain {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn apply(&self, mut batch: Batch) -> Result<Batch> {
        for (step, read) in self.steps.iter().zip(&self.read_behind) {
            if batch.num_rows() == 0 {
                return Ok(batch.with_rows(RecordBatch::new_empty(Arc::clone(&self.schema))));
            }
            batch = match step {
                Step::Filter(predicate) => {
                    let keep = predicate.evaluate(&batch.rows).and_then(|v| v.into_array(batch.num_rows()));
                    let keep = keep.map_err(compute_error)?;
                    match read {
                        Some(read) => batch.filter_for(keep.as_boolean(), read)?,
                        None => batch.filter(keep.as_boolean())?,
                    }
                }
                Step::Project { expressions, schema } => batch.with_rows(project(&batch.rows, expressions, schema)?),
            };
        }
        Ok(batch)
    }

    fn is_always_empty(&self) -> bool {
        let is_never_true =
            |value: &ScalarValue| matches!(value, ScalarValue::Boolean(Some(false) | None) | ScalarValue::Null);
        self.steps.iter().any(|step| match step {
            Step::Filter(predicate) => {
                predicate.downcast_ref::<Literal>().is_some_and(|literal| is_never_true(literal.value()))
            }
            Step::Project { .. } => false,
        })
    }

    fn reads(&self) -> Option<Vec<usize>> {
        let read = self.read_from(0)?;
        Some((0..read.len()).filter(|column| read[*column]).collect())
    }

    fn position_of(&self, input: usize) -> Option<usize> {
        self.position(input, None)
    }

    fn position_of_field(&self, input: usize, field: &str) -> Option<usize> {
        self.position(input, Some(field))
    }

    fn summary(&self) -> String {
        readable::chain(&self.input, &self.steps)
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
