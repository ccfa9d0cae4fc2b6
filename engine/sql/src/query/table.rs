//! Tables that queries read.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

/// How many batches a scan may be ahead of who reads it.
const AHEAD: usize = 4;

/// A table that can be read from beginning to end.
pub trait TableSource: Send + Sync {
    /// Its columns.
    fn schema(&self) -> SchemaRef;

    /// Gives these columns, in this order, of every row, and stops when `sink` answers false. With no column at all the
    /// batches only count rows. It may block.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> cornjacket_core::Result<()>;
}

/// A [`TableSource`] as `DataFusion` wants it.
pub(super) struct Table {
    source: Arc<dyn TableSource>,
}

impl Table {
    pub(super) fn new(source: Arc<dyn TableSource>) -> Self {
        Self { source }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        self.source.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = self.source.schema();
        let columns = projection.cloned().unwrap_or_else(|| (0..all.fields().len()).collect());
        let schema = Arc::new(all.project(&columns)?);
        let scan: Arc<dyn PartitionStream> =
            Arc::new(Scan { source: Arc::clone(&self.source), columns, schema: Arc::clone(&schema) });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![scan], None, [], false, limit)?))
    }
}

/// One reading of a table; it knows from the plan which columns are wanted, so that no others are decoded.
struct Scan {
    source: Arc<dyn TableSource>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), AHEAD);
        let sender = stream.tx();
        let (source, columns, schema) = (Arc::clone(&self.source), self.columns.clone(), Arc::clone(&self.schema));
        stream.spawn_blocking(move || {
            let mut failed = None;
            let mut give = |batch: RecordBatch| match conform(&batch, &schema) {
                // A send fails when the query has ended, which ends the scan.
                Ok(batch) => sender.blocking_send(Ok(batch)).is_ok(),
                Err(error) => {
                    failed = Some(error);
                    false
                }
            };
            source.scan(&columns, &mut give).map_err(|error| DataFusionError::External(Box::new(error)))?;
            failed.map_or(Ok(()), Err)
        });
        stream.build()
    }
}

/// The batch under the schema that the plan was made for, so that a source that gives something else fails here.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}
