//! `union`: the rows of several streams with the same columns, one after the other.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use cornjacket_core::Result;
use cornjacket_core::aggregate::Relation;
use cornjacket_core::batch::Batch;
use cornjacket_core::component::OperatorSpec;
use cornjacket_core::operator::{Operator, OperatorFactory, Output};

/// Its entry in the registry.
pub const SPEC: OperatorSpec = OperatorSpec {
    kind: "union",
    summary: "Joins the rows of several streams into one.",
    build: |relation| match relation {
        Relation::Union { .. } => Some(Arc::new(Factory(Arc::clone(relation.schema())))),
        _ => None,
    },
};

#[derive(Debug)]
struct Factory(SchemaRef);

impl OperatorFactory for Factory {
    fn kind(&self) -> &'static str {
        SPEC.kind
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn is_stateful(&self) -> bool {
        false
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Union))
    }

    fn describe(&self) -> String {
        "union all".into()
    }

    fn summary(&self) -> String {
        "the rows of all its inputs (UNION ALL)".into()
    }
}

struct Union;

impl Operator for Union {
    fn on_batch(&mut self, _: usize, batch: Batch, output: &mut Output) -> Result<()> {
        output.emit(batch);
        Ok(())
    }
}
