//! `transform`: filters and computed columns, stateless.
//!
//! When an expression fails on a batch (a division by zero, a cast that overflows, a bug in a library), the batch is halved
//! until the rows at fault stand alone; they become dead letters and every other row goes on. Rows that grow so large by
//! what is computed of them that an epoch would not fit into memory are refused: the engine takes fewer at once then.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use cornjacket_core::aggregate::{Relation, Transform};
use cornjacket_core::batch::Batch;
use cornjacket_core::component::OperatorSpec;
use cornjacket_core::guard::guarded;
use cornjacket_core::operator::{Operator, OperatorFactory, Output};
use cornjacket_core::{Error, Result};

/// Its entry in the registry.
pub const SPEC: OperatorSpec = OperatorSpec {
    kind: "transform",
    summary: "Filters rows and computes columns.",
    build: |relation| match relation {
        Relation::Transform { transform, .. } => Some(Arc::new(Factory(Arc::clone(transform)))),
        _ => None,
    },
};

#[derive(Debug)]
struct Factory(Arc<dyn Transform>);

impl OperatorFactory for Factory {
    fn kind(&self) -> &'static str {
        SPEC.kind
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.schema())
    }

    fn reads(&self) -> Option<Vec<usize>> {
        self.0.reads()
    }

    fn is_stateful(&self) -> bool {
        false
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(TransformOperator(Arc::clone(&self.0))))
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn summary(&self) -> String {
        self.0.summary()
    }

    fn position_of(&self, column: usize, field: Option<&str>) -> Option<usize> {
        match field {
            Some(field) => self.0.position_of_field(column, field),
            None => self.0.position_of(column),
        }
    }
}

/// By how many bytes the rows that a task gives in an epoch may be larger than those that it took.
const MOST_GROWTH: usize = 256 << 20;

struct TransformOperator(Arc<dyn Transform>);

impl TransformOperator {
    /// The columns that it looks at; the others may hold nothing of the row.
    fn as_read(&self, batch: &Batch) -> Result<Batch> {
        Ok(match self.0.reads() {
            Some(columns) => batch.with_rows(batch.rows.project(&columns)?),
            None => batch.clone(),
        })
    }

    fn apply(&self, batch: &Batch, output: &mut Output) -> Result<()> {
        match guarded(|| self.0.apply(batch.clone())) {
            Ok(rows) => {
                output.filtered += (batch.num_rows() - rows.num_rows()) as u64;
                check_growth(batch, &rows, output)?;
                output.emit(rows);
            }
            Err(error @ (Error::Arrow(_) | Error::Compute(_) | Error::Refused(_))) if batch.num_rows() <= 1 => {
                output.failed.push((self.as_read(batch)?, error.words()));
            }
            Err(Error::Arrow(_) | Error::Compute(_) | Error::Refused(_)) => {
                let (first, second) = batch.halves()?;
                self.apply(&first, output)?;
                self.apply(&second, output)?;
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }
}

fn check_growth(before: &Batch, after: &Batch, output: &mut Output) -> Result<()> {
    let size = |batch: &Batch| batch.rows.get_array_memory_size();
    output.grown = output.grown.saturating_add(size(after).saturating_sub(size(before)));
    if output.grown <= MOST_GROWTH {
        return Ok(());
    }
    let most = MOST_GROWTH >> 20;
    Err(Error::Memory(format!("what is computed of the rows takes more than {most} MiB")))
}

impl Operator for TransformOperator {
    fn on_batch(&mut self, _: usize, batch: Batch, output: &mut Output) -> Result<()> {
        self.apply(&batch, output)
    }
}
