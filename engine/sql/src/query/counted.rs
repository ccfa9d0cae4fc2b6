//! Rows without columns, kept as a number.
//!
//! `count(*)` over a product of tables asks for no column, so the side of a [`CrossJoinExec`] that is held in memory is a
//! list of batches that weigh nothing by the memory pool's account, and yet fill the machine. Here they become one batch
//! that only says how many rows there are: nothing grows, and the time limit ends what takes too long.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::joins::CrossJoinExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;

/// The plan with every held side that has no columns counted.
pub(super) fn bound(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let count = |plan: Arc<dyn ExecutionPlan>| {
        let Some(join) = plan.downcast_ref::<CrossJoinExec>() else { return Ok(Transformed::no(plan)) };
        if !join.left().schema().fields().is_empty() {
            return Ok(Transformed::no(plan));
        }
        let counted = Arc::new(Counted { input: Arc::clone(join.left()) });
        let joined: Arc<dyn ExecutionPlan> = Arc::new(CrossJoinExec::new(counted, Arc::clone(join.right())));
        Ok(Transformed::yes(joined))
    };
    plan.transform_up(count).data()
}

/// All rows of its input, which have no columns, as one batch.
#[derive(Debug)]
struct Counted {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Counted {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl ExecutionPlan for Counted {
    fn name(&self) -> &'static str {
        "Counted"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if let (Some(input), 0) = (children.pop(), children.len()) {
            Ok(Arc::new(Self { input }))
        } else {
            internal_err!("rows of one input are counted")
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.input.schema();
        let input = self.input.execute(partition, context)?;
        let empty = Arc::clone(&schema);
        let total = async move {
            let rows = input.try_fold(0_usize, |rows, batch| async move { Ok(rows.saturating_add(batch.num_rows())) });
            let options = RecordBatchOptions::new().with_row_count(Some(rows.await?));
            Ok(RecordBatch::try_new_with_options(empty, vec![], &options)?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(total))))
    }
}
