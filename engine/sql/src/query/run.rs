//! Queries on threads of their own.
//!
//! The reader and the computation meet in a channel of a few batches. The reader holds the only handle of the computing
//! task, so a reader that goes away, or whose time is up, ends it. The slot that bounds how many run at once belongs to
//! the task, not to the reader: a cancelled query counts for as long as it still computes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use cornjacket_core::guard;
use cornjacket_core::print::check_printable;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execute_stream;
use futures::{Stream, StreamExt};
use thread_priority::ThreadPriority;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::faults::error_of;
use super::memory::{Share, Total};
use super::{QueryError, QueryOptions, counted, plan};

/// How many batches a query may be ahead of its reader.
const AHEAD: usize = 2;

/// The answer of a query.
pub struct Rows {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows as they are computed; the stream ends after the first error.
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, QueryError>> + Send>>,
}

/// What a query is made of.
pub(super) struct Query {
    pub(super) state: SessionState,
    pub(super) sql: String,
    pub(super) params: Vec<ScalarValue>,
    pub(super) slot: OwnedSemaphorePermit,
}

/// Of 99. On Linux this is a niceness of 12: beside a thread of the ordinary priority it gets some 6 % of a processor,
/// and all of it when nobody else wants it.
const PRIORITY: u8 = 20;

/// Taking events in comes first.
fn yield_to_others() {
    let Ok(priority) = PRIORITY.try_into() else { return };
    if let Err(error) = thread_priority::set_current_thread_priority(ThreadPriority::Crossplatform(priority)) {
        tracing::debug!(?error, "queries run with the priority of everything else");
    }
}

/// The threads that queries run on.
pub(super) struct Threads {
    runtime: Option<Runtime>,
    memory: Arc<Total>,
}

impl Threads {
    pub(super) fn start(stack_bytes: usize, options: &QueryOptions) -> Result<Self, QueryError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("query")
            .thread_stack_size(stack_bytes)
            .on_thread_start(yield_to_others)
            .enable_time()
            .build();
        let failed = |error| QueryError::Failed(format!("the threads for queries cannot be started: {error}"));
        Ok(Self { runtime: Some(runtime.map_err(failed)?), memory: Total::new(options.total_bytes) })
    }

    /// Plans the query and starts it.
    pub(super) async fn run(&self, query: Query, options: &QueryOptions) -> Result<Rows, QueryError> {
        let Some(runtime) = &self.runtime else { return Err(QueryError::Failed("shutting down".into())) };
        let limit = Limit { deadline: Instant::now() + options.timeout, timeout: options.timeout };
        let (schema_sender, schema) = oneshot::channel();
        let (sender, batches) = mpsc::channel(AHEAD);
        let memory = Share::new(options.memory_bytes, &self.memory);
        let mut task = Task(runtime.spawn(async move {
            match query.start(memory).await {
                Ok((stream, slot)) => {
                    let _ = schema_sender.send(Ok(stream.schema()));
                    deliver(stream, &sender).await;
                    drop(slot);
                }
                Err(error) => {
                    let _ = schema_sender.send(Err(error));
                }
            }
        }));
        let schema = match limit.hold(schema).await? {
            Ok(schema) => schema?,
            Err(_) => return Err(task.failure().await.unwrap_or_else(ended)),
        };
        let answer = Answer { batches, task, limit, is_over: false };
        let batches = futures::stream::unfold(answer, |mut answer| async move {
            let item = answer.next().await?;
            Some((item, answer))
        });
        Ok(Rows { schema, batches: Box::pin(batches) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for queries is not allowed where a runtime may be dropped, and nothing of theirs is worth keeping.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Query {
    async fn start(self, memory: Share) -> Result<(SendableRecordBatchStream, OwnedSemaphorePermit), QueryError> {
        let Self { mut state, sql, params, slot } = self;
        // `now()` is one time for the whole query: this one.
        state.mark_start_execution();
        let plan = plan::plan(&state, &sql, params).await?;
        let executed = async {
            let plan = state.create_physical_plan(&plan).await?;
            execute_stream(counted::bound(plan)?, Arc::new(context(&state, memory)?))
        };
        let stream = executed.await.map_err(|error| error_of(&error, Some(&state)))?;
        Ok((stream, slot))
    }
}

/// Where a query computes: with memory of its own and no disk.
fn context(state: &SessionState, memory: Share) -> Result<TaskContext, DataFusionError> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(memory))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    Ok(TaskContext::from(state).with_runtime(runtime))
}

async fn deliver(mut stream: SendableRecordBatchStream, sender: &mpsc::Sender<Result<RecordBatch, QueryError>>) {
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|error| error_of(&error, None)).and_then(|batch| {
            check_printable(&batch).map_err(|error| QueryError::invalid(error.to_string()))?;
            Ok(batch)
        });
        let failed = batch.is_err();
        if sender.send(batch).await.is_err() || failed {
            return;
        }
    }
}

/// When a query must be done.
struct Limit {
    deadline: Instant,
    timeout: Duration,
}

impl Limit {
    async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, QueryError> {
        timeout_at(self.deadline, work).await.map_err(|_| QueryError::Timeout(self.timeout))
    }
}

/// A computing task that ends with its handle.
struct Task(JoinHandle<()>);

impl Task {
    /// Why a task that gives nothing more has not come to its end: a panic inside a library is said with its words.
    async fn failure(&mut self) -> Option<QueryError> {
        let error = (&mut self.0).await.err()?;
        Some(match error.try_into_panic() {
            Ok(panic) => {
                QueryError::invalid(format!("this cannot be computed; a bug was met: {}", guard::words_of(&*panic)))
            }
            Err(_) => ended(),
        })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The reader's end of a query.
struct Answer {
    batches: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    task: Task,
    limit: Limit,
    is_over: bool,
}

impl Answer {
    async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        if self.is_over {
            return None;
        }
        let item = match self.limit.hold(self.batches.recv()).await {
            Err(late) => Some(Err(late)),
            Ok(Some(batch)) => Some(batch),
            // A task that panicked closes the channel like one that is done; an answer cut short must not look whole.
            Ok(None) => self.task.failure().await.map(Err),
        };
        self.is_over = !matches!(item, Some(Ok(_)));
        item
    }
}

fn ended() -> QueryError {
    QueryError::Failed("it ended before its time".into())
}
