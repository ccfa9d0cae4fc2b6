//! What can go wrong with a query, told to who asked it.

use std::time::Duration;

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::prelude::SessionContext;

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The SQL is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// The SQL would change something.
    #[error("only queries are allowed here: {0}")]
    NotReadOnly(String),
    /// It took too long.
    #[error("the query took longer than {0:?}")]
    Timeout(Duration),
    /// It needed too much memory.
    #[error("the query needs more memory than it may use: {0}")]
    Memory(String),
    /// Too many queries at once.
    #[error("too many queries are running; try again soon")]
    Busy,
    /// It failed for another reason.
    #[error("the query failed: {0}")]
    Failed(String),
}

/// An error of planning.
pub(super) fn of(error: &DataFusionError, context: &SessionContext) -> QueryError {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => of_schema(schema),
        DataFusionError::Plan(message) => of_plan(message, context),
        DataFusionError::SQL(parser, _) => {
            QueryError::Invalid { message: format!("the SQL does not parse: {parser}"), hint: None }
        }
        DataFusionError::NotImplemented(message) => QueryError::Invalid { message: first_line(message), hint: None },
        DataFusionError::ResourcesExhausted(message) => QueryError::Memory(first_line(message)),
        other => QueryError::Invalid { message: first_line(&other.strip_backtrace()), hint: None },
    }
}

/// An error while rows are computed.
pub(super) fn of_running(error: &DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => QueryError::Memory(first_line(message)),
        other => QueryError::Failed(first_line(&other.strip_backtrace())),
    }
}

fn of_schema(error: &SchemaError) -> QueryError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            let hint = (!names.is_empty()).then(|| format!("available: {}", names.join(", ")));
            QueryError::Invalid { message: format!("there is no column `{}`", field.name), hint }
        }
        other => QueryError::Invalid { message: first_line(&other.to_string()), hint: None },
    }
}

fn of_plan(message: &str, context: &SessionContext) -> QueryError {
    if ["DDL", "DML", "Statement"].iter().any(|kind| message.starts_with(&format!("{kind} not supported"))) {
        return QueryError::NotReadOnly(first_line(message));
    }
    let unknown = message.strip_prefix("table '").and_then(|rest| rest.split_once("' not found"));
    let Some((name, _)) = unknown else {
        return QueryError::Invalid { message: first_line(message), hint: None };
    };
    let name = name.split_once('.').map_or(name, |(_, name)| name);
    let name = name.strip_prefix("projections.").unwrap_or(name);
    let hint = Some(format!("tables: {}", table_names(context).join(", ")));
    QueryError::Invalid { message: format!("there is no table `{name}`"), hint }
}

fn table_names(context: &SessionContext) -> Vec<String> {
    let Some(catalog) = context.catalog(super::CATALOG) else { return Vec::new() };
    let of_schema = |schema: String| {
        let tables = catalog.schema(&schema).map(|tables| tables.table_names()).unwrap_or_default();
        let full = move |table: String| if schema == super::PROJECTIONS { table } else { format!("{schema}.{table}") };
        tables.into_iter().map(full).collect::<Vec<_>>()
    };
    let mut names: Vec<String> = catalog.schema_names().into_iter().flat_map(of_schema).collect();
    names.sort();
    names
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or(message).trim_end_matches('.').to_string()
}
