//! Read-only SQL over tables that someone else keeps.
//!
//! A [`QueryEngine`] knows tables by the [`TableSource`] trait and answers one SELECT (or EXPLAIN, SHOW, DESCRIBE) at a
//! time as a stream of batches. Nothing that a client writes can change anything, reach a file, or take more than its
//! share: every query has a memory limit of its own, a time limit that covers planning and the whole of its answer, and
//! only so many run at once. Queries run on threads of their own, so that a heavy one slows no door down.
//!
//! Whoever stops reading ends the query: dropping [`Rows`] cancels the computation and stops the scans behind it.

mod counted;
mod faults;
mod memory;
mod plan;
mod run;
mod size;
mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::prelude::SessionConfig;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::functions::{Bounds, ShortCircuits, install};

pub use run::Rows;
pub use table::TableSource;

/// The catalog that holds every schema; nobody needs to write it.
const CATALOG: &str = "pipeline";
/// The schema that names without a dot belong to.
const PROJECTIONS: &str = "projections";
/// Plans are trees, and a long expression is a deep one. The memory is only used when a plan is that deep.
const STACK_BYTES: usize = 128 << 20;

/// How much queries may take.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// The most memory that one query may hold, in bytes.
    pub memory_bytes: usize,
    /// The most that all of them together may hold, in bytes.
    pub total_bytes: usize,
    /// How long one query may take, from its start to its last row.
    pub timeout: Duration,
    /// How many queries may run at once.
    pub concurrency: usize,
    /// How long others wait for their turn.
    pub patience: Duration,
    /// The longest SQL text, in bytes.
    pub max_sql_bytes: usize,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            total_bytes: 2 << 30,
            timeout: Duration::from_secs(30),
            concurrency: 8,
            patience: Duration::from_secs(5),
            max_sql_bytes: 64 << 10,
        }
    }
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The SQL is wrong, or fails on the rows that it reads.
    #[error("{message}")]
    Invalid {
        /// What is wrong, one sentence without a full stop.
        message: String,
        /// What to write instead, when that is known.
        hint: Option<String>,
    },
    /// The statement would change something; the text says what it is.
    #[error("{0}, and queries only read: write one SELECT")]
    NotReadOnly(String),
    /// It took longer than allowed.
    #[error("the query took longer than {} seconds; narrow it with WHERE or LIMIT", .0.as_secs_f64())]
    Timeout(Duration),
    /// It needed more memory than allowed; the text says where.
    #[error("the query needs more memory than one query may have: {0}")]
    Memory(String),
    /// As many queries run as may run at once.
    #[error("as many queries are running as may run at once; try again")]
    Busy,
    /// It failed for no fault of its own, such as storage that cannot be read.
    #[error("the query failed: {0}")]
    Failed(String),
}

impl QueryError {
    fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: None }
    }
}

/// Answers SQL over registered tables.
pub struct QueryEngine {
    options: QueryOptions,
    state: SessionState,
    catalog: Arc<MemoryCatalogProvider>,
    slots: Arc<Semaphore>,
    threads: run::Threads,
}

impl QueryEngine {
    /// An engine without tables.
    ///
    /// # Errors
    /// [`QueryError::Failed`] when its threads cannot be started.
    pub fn new(options: QueryOptions) -> Result<Self, QueryError> {
        let catalog = Arc::new(MemoryCatalogProvider::new());
        let state = session(&catalog, options.memory_bytes)?;
        let slots = Arc::new(Semaphore::new(options.concurrency));
        let threads = run::Threads::start(STACK_BYTES, &options)?;
        let engine = Self { options, state, catalog, slots, threads };
        engine.schema(PROJECTIONS)?;
        Ok(engine)
    }

    /// Makes a table known. `schema` is what stands before the dot: `sensor` and `reading` for the event type
    /// `sensor.reading`, none for a projection.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] when there is a table of that name.
    pub fn register(&self, schema: Option<&str>, name: &str, table: Arc<dyn TableSource>) -> Result<(), QueryError> {
        let schema = self.schema(schema.unwrap_or(PROJECTIONS))?;
        if schema.table_exist(name) {
            return Err(QueryError::invalid(format!("there is a table `{name}` already")));
        }
        let table = Arc::new(table::Table::new(table));
        schema.register_table(name.into(), table).map_err(|error| QueryError::Failed(error.to_string()))?;
        Ok(())
    }

    /// Starts a query; its rows come as they are computed. `params` are the values of `$1`, `$2`, …
    ///
    /// # Errors
    /// Any [`QueryError`]; those that come later are in the stream, which ends with them.
    pub async fn query(&self, sql: &str, params: &[Value]) -> Result<Rows, QueryError> {
        let most = self.options.max_sql_bytes;
        if sql.len() > most {
            return Err(QueryError::invalid(format!("the SQL is {} bytes long, and {most} are allowed", sql.len())));
        }
        let params = plan::parameters(params)?;
        let slot = tokio::time::timeout(self.options.patience, Arc::clone(&self.slots).acquire_owned());
        // The semaphore is never closed.
        let slot = slot.await.map_err(|_| QueryError::Busy)?.map_err(|_| QueryError::Busy)?;
        let query = run::Query { state: self.state.clone(), sql: sql.to_string(), params, slot };
        self.threads.run(query, &self.options).await
    }

    fn schema(&self, name: &str) -> Result<Arc<dyn datafusion::catalog::SchemaProvider>, QueryError> {
        if let Some(schema) = self.catalog.schema(name) {
            return Ok(schema);
        }
        let schema = Arc::new(MemorySchemaProvider::new());
        let added = self.catalog.register_schema(name, Arc::clone(&schema) as _);
        added.map_err(|error| QueryError::Failed(error.to_string()))?;
        Ok(schema)
    }
}

/// A session that knows no tables.
pub(crate) fn session_state() -> Result<SessionState, QueryError> {
    session(&Arc::new(MemoryCatalogProvider::new()), QueryOptions::default().memory_bytes)
}

fn session(catalog: &Arc<MemoryCatalogProvider>, memory_bytes: usize) -> Result<SessionState, QueryError> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, PROJECTIONS)
        .with_information_schema(true)
        .with_target_partitions(1);
    // Stored text is Utf8, and so is everything that comes of it.
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let state = SessionStateBuilder::new().with_config(config).with_default_features();
    let mut state = state.with_physical_optimizer_rule(Arc::new(ShortCircuits)).build();
    state.catalog_list().register_catalog(CATALOG.into(), Arc::clone(catalog) as _);
    // What functions make is not in the account of the query's memory, so it is bounded by a part of that.
    let most = memory_bytes as u64 / 4;
    let installed = install(&mut state, Bounds { value: most, batch: most });
    installed.map_err(|error| QueryError::Failed(error.to_string()))?;
    Ok(state)
}
