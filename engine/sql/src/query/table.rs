//! A [`TableSource`] as `DataFusion` sees it: a scan streams through a short channel from a thread that may block.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};

use super::TableSource;

/// Batches that wait between the scan and the query.
const WAITING: usize = 4;

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
        let whole = self.source.schema();
        let projection: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..whole.fields().len()).collect());
        let schema: SchemaRef = Arc::new(whole.project(&projection).unwrap_or_else(|_| Schema::empty()));
        let scan = Scan { source: Arc::clone(&self.source), projection, schema: Arc::clone(&schema) };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, [], false, limit)?))
    }
}

struct Scan {
    source: Arc<dyn TableSource>,
    projection: Vec<usize>,
    schema: SchemaRef,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scan")
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), WAITING);
        let (to, source, projection) = (builder.tx(), Arc::clone(&self.source), self.projection.clone());
        builder.spawn_blocking(move || {
            // When nobody reads any more the channel is closed, and the scan stops.
            let outcome = source.scan(&projection, &mut |rows| to.blocking_send(Ok(rows)).is_ok());
            outcome.map_err(|error| DataFusionError::External(Box::new(error)))
        });
        builder.build()
    }
}
