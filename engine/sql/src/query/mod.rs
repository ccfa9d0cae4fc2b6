//! Read-only SQL over projections, event types and system tables.
//!
//! Queries run on threads of their own, so that the heaviest one takes no thread from the doors; each has a memory pool
//! and a time limit of its own, and ends when nobody reads its answer any more.

mod errors;
mod json;
mod table;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use cornjacket_core::Result as CoreResult;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{Stream, StreamExt};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

pub use errors::QueryError;
pub use json::{row_objects, type_name};

const CATALOG: &str = "cornjacket_tables";
/// The schema of names without a dot: the projections.
const PROJECTIONS: &str = "projections";

/// A table that can be read.
pub trait TableSource: Send + Sync {
    /// Its columns.
    fn schema(&self) -> SchemaRef;

    /// Gives these columns, in this order, of every row; stops when `sink` answers false. May block.
    ///
    /// # Errors
    /// When the rows cannot be read.
    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> CoreResult<()>;
}

/// What a query may use.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// Bytes of memory per query.
    pub memory_bytes: usize,
    /// Time from the question to the last row.
    pub timeout: Duration,
    /// Queries at one time.
    pub concurrency: usize,
    /// Bytes of SQL text.
    pub max_sql_bytes: usize,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            memory_bytes: 256 * 1024 * 1024,
            timeout: Duration::from_secs(30),
            concurrency: 8,
            max_sql_bytes: 64 * 1024,
        }
    }
}

/// The answer to a query.
pub struct Rows {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows; an error ends them.
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, QueryError>> + Send>>,
}

/// Answers queries.
pub struct QueryEngine {
    state: SessionState,
    catalog: Arc<MemoryCatalogProvider>,
    options: QueryOptions,
    permits: Arc<Semaphore>,
    /// `None` only while it is dropped: a runtime may not be dropped where others run.
    runtime: Option<Runtime>,
}

impl Drop for QueryEngine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl QueryEngine {
    /// An engine without tables.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub fn new(options: QueryOptions) -> Result<Self, QueryError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("query")
            .enable_time()
            .build()
            .map_err(|error| QueryError::Failed(error.to_string()))?;
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, PROJECTIONS)
            .with_information_schema(true)
            .with_target_partitions(1);
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let mut state = SessionStateBuilder::new().with_config(config).with_default_features().build();
        let catalog = Arc::new(MemoryCatalogProvider::new());
        state.catalog_list().register_catalog(CATALOG.into(), Arc::clone(&catalog) as _);
        datafusion_functions_json::register_all(&mut state).map_err(|error| QueryError::Failed(error.to_string()))?;
        let permits = Arc::new(Semaphore::new(options.concurrency));
        Ok(Self { state, catalog, options, permits, runtime: Some(runtime) })
    }

    /// Makes a table known; without a schema it belongs to the projections.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn register(&self, schema: Option<&str>, name: &str, table: Arc<dyn TableSource>) -> Result<(), QueryError> {
        let failed = |error: DataFusionError| QueryError::Failed(error.to_string());
        let schema = schema.unwrap_or(PROJECTIONS);
        let tables = match self.catalog.schema(schema) {
            Some(tables) => tables,
            None => {
                let tables: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                self.catalog.register_schema(schema, Arc::clone(&tables)).map_err(failed)?;
                tables
            }
        };
        tables.register_table(name.into(), Arc::new(table::Table::new(table))).map(|_| ()).map_err(failed)
    }

    /// Plans a query and starts it.
    ///
    /// # Errors
    /// When the SQL is wrong or not read-only, or a limit is met before the first row.
    pub async fn query(&self, sql: &str, params: &[serde_json::Value]) -> Result<Rows, QueryError> {
        if sql.len() > self.options.max_sql_bytes {
            let most = self.options.max_sql_bytes;
            return Err(QueryError::Invalid { message: format!("the SQL is longer than {most} bytes"), hint: None });
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| QueryError::Busy)?;
        let Some(runtime) = &self.runtime else { return Err(QueryError::Busy) };
        let params = params.iter().map(json::parameter).collect::<Result<Vec<_>, _>>()?;
        let (context, sql, deadline) = (self.context()?, sql.to_string(), Instant::now() + self.options.timeout);
        let timeout = self.options.timeout;
        let planned = runtime.spawn(async move {
            let planned = tokio::time::timeout_at(deadline, plan(&context, &sql, params)).await;
            planned.map_err(|_| QueryError::Timeout(timeout))?.map_err(|error| errors::of(&error, &context))
        });
        let stream = planned.await.map_err(|error| QueryError::Failed(error.to_string()))??;
        let schema = stream.schema();
        let (sender, receiver) = mpsc::channel(4);
        runtime.spawn(feed(stream, sender, (deadline, timeout), permit));
        let batches = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|batch| (batch, receiver))
        });
        Ok(Rows { schema, batches: Box::pin(batches) })
    }

    /// A session with the shared tables and memory of its own.
    fn context(&self) -> Result<SessionContext, QueryError> {
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(self.options.memory_bytes)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|error| QueryError::Failed(error.to_string()))?;
        let state = SessionStateBuilder::new_from_existing(self.state.clone()).with_runtime_env(runtime).build();
        Ok(SessionContext::new_with_state(state))
    }
}

async fn plan(
    context: &SessionContext,
    sql: &str,
    params: Vec<ScalarValue>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let mut frame = context.sql_with_options(sql, read_only).await?;
    if !params.is_empty() {
        frame = frame.with_param_values(params)?;
    }
    frame.execute_stream().await
}

/// Hands batches on until the end, the deadline, or nobody takes them.
async fn feed(
    mut stream: SendableRecordBatchStream,
    to: mpsc::Sender<Result<RecordBatch, QueryError>>,
    (deadline, timeout): (Instant, Duration),
    permit: OwnedSemaphorePermit,
) {
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout_at(deadline, stream.next()) => next,
            () = to.closed() => return,
        };
        let batch = match next {
            Err(_) => Err(QueryError::Timeout(timeout)),
            Ok(None) => break,
            Ok(Some(batch)) => batch.map_err(|error| errors::of_running(&error)),
        };
        let failed = batch.is_err();
        // A reader that does not read must not hold the query's place for ever.
        let sent = tokio::time::timeout_at(deadline, to.send(batch)).await;
        if failed || !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    drop(permit);
}

#[cfg(test)]
mod tests;
