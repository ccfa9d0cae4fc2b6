//! One query: planned, and computed as it is read.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use cornjacket_core::print::check_printable;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::execute_stream;
use futures::{Stream, StreamExt};

use super::faults::error_of;
use super::memory::Share;
use super::{QueryError, counted, plan};

/// The answer of a query.
pub struct Rows {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows as they are computed; whoever meets an error reads no further.
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, QueryError>> + Send>>,
}

/// Plans a query and starts it.
pub(super) async fn start(
    mut state: SessionState,
    sql: &str,
    params: Vec<ScalarValue>,
    memory: Share,
) -> Result<Rows, QueryError> {
    // `now()` is one time for the whole query: this one.
    state.mark_start_execution();
    let plan = plan::plan(&state, sql, params).await?;
    let executed = async {
        let plan = state.create_physical_plan(&plan).await?;
        execute_stream(counted::bound(plan)?, Arc::new(context(&state, memory)?))
    };
    let stream = executed.await.map_err(|error| error_of(&error, Some(&state)))?;
    let schema = stream.schema();
    let batches = stream.map(|batch| batch.map_err(|error| error_of(&error, None)).and_then(printable));
    Ok(Rows { schema, batches: Box::pin(batches) })
}

fn printable(batch: RecordBatch) -> Result<RecordBatch, QueryError> {
    check_printable(&batch).map_err(|error| QueryError::invalid(error.to_string()))?;
    Ok(batch)
}

/// Where a query computes: with memory of its own and no disk.
fn context(state: &SessionState, memory: Share) -> Result<TaskContext, DataFusionError> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(memory))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    Ok(TaskContext::from(state).with_runtime(runtime))
}
