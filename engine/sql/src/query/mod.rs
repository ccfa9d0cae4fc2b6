//! Read-only SQL over tables that someone else keeps.
//!
//! A [`QueryEngine`] knows tables by the [`TableSource`] trait and answers SELECTs (or EXPLAIN, SHOW, DESCRIBE) as streams
//! of batches. Nothing that a client writes can change anything or reach a file, and each query has a memory pool of its
//! own. Time, real memory and how many run at once are for whoever gives the engine a thread: it needs one with a stack of
//! [`STACK_BYTES`], and computes there and nowhere else.
//!
//! Whoever stops reading ends the query: dropping [`Rows`] stops the computation and the scans behind it.

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
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::memory::Share;
use crate::functions::{Bounds, ShortCircuits, install};

pub use memory::Budget;
pub use run::Rows;
pub use table::TableSource;

/// The catalog that holds every schema; nobody needs to write it.
const CATALOG: &str = "pipeline";
/// The schema that names without a dot belong to.
const PROJECTIONS: &str = "projections";
/// Plans are trees, and a long expression is a deep one. The memory is only used when a plan is that deep.
pub const STACK_BYTES: usize = 128 << 20;

/// What one query may take.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct QueryOptions {
    /// The most memory that it may hold, in bytes, by `DataFusion`'s account.
    pub memory_bytes: usize,
    /// The longest SQL text, in bytes.
    pub max_sql_bytes: usize,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, max_sql_bytes: 64 << 10 }
    }
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
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
    budget: Arc<dyn Budget>,
}

impl QueryEngine {
    /// An engine without tables, whose queries share a budget with others.
    ///
    /// # Errors
    /// [`QueryError::Failed`] when there is something wrong with its functions.
    pub fn new(options: QueryOptions, budget: Arc<dyn Budget>) -> Result<Self, QueryError> {
        let catalog = Arc::new(MemoryCatalogProvider::new());
        let state = session(&catalog, options.memory_bytes)?;
        let engine = Self { options, state, catalog, budget };
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

    /// Starts a query; its rows are computed as they are read. `params` are the values of `$1`, `$2`, …
    ///
    /// # Errors
    /// Any [`QueryError`]; those that come later are in the stream, which ends with them.
    pub async fn query(&self, sql: &str, params: &[Value]) -> Result<Rows, QueryError> {
        let most = self.options.max_sql_bytes;
        if sql.len() > most {
            return Err(QueryError::invalid(format!("the SQL is {} bytes long, and {most} are allowed", sql.len())));
        }
        let params = plan::parameters(params)?;
        run::start(self.state.clone(), sql, params, Share::new(self.options.memory_bytes, &self.budget)).await
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
