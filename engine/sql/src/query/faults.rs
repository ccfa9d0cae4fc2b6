//! `DataFusion`'s errors as [`QueryError`]s, with the names that there are.

use arrow::error::ArrowError;
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::execution::session_state::SessionState;
use datafusion::sql::sqlparser::parser::ParserError;

use super::{CATALOG, PROJECTIONS, QueryError};

/// How many names a hint lists at most.
const MOST_NAMES: usize = 20;

/// What an error means to who wrote the SQL. `state` knows the tables, for hints.
pub(super) fn error_of(error: &DataFusionError, state: Option<&SessionState>) -> QueryError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => error_of(inner, state),
        DataFusionError::Shared(inner) => error_of(inner, state),
        DataFusionError::Collection(errors) if !errors.is_empty() => error_of(&errors[0], state),
        DataFusionError::SQL(parser, _) => syntax(parser),
        DataFusionError::SchemaError(schema, _) => schema_fault(schema),
        DataFusionError::Plan(message) => plan_fault(message, state),
        DataFusionError::NotImplemented(message) => {
            QueryError::invalid(format!("this SQL is not supported: {}", first_sentence(message)))
        }
        DataFusionError::ResourcesExhausted(message) => QueryError::Memory(first_sentence(message)),
        DataFusionError::ArrowError(inner, _) => arrow_fault(inner, state),
        DataFusionError::External(inner) => external(inner.as_ref(), state),
        DataFusionError::Execution(message) => QueryError::invalid(first_sentence(message)),
        // What the library calls internal are calls that it has no words for, and casts that it cannot do.
        DataFusionError::Internal(message) => {
            QueryError::invalid(format!("this cannot be computed: {}", first_sentence(message)))
        }
        other => QueryError::Failed(first_sentence(&other.strip_backtrace())),
    }
}

fn syntax(error: &ParserError) -> QueryError {
    match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => {
            QueryError::invalid(format!("the SQL does not parse: {text}"))
        }
        ParserError::RecursionLimitExceeded => QueryError::invalid("the SQL is nested too deeply"),
    }
}

fn schema_fault(error: &SchemaError) -> QueryError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => QueryError::Invalid {
            message: format!("`{}` could be a column of several tables", field.name),
            hint: Some(format!("write the table's name before it: table.{}", field.name)),
        },
        other => QueryError::invalid(first_sentence(&other.to_string())),
    }
}

fn unknown_column(field: &Column, valid: &[Column]) -> QueryError {
    let names: Vec<String> = valid.iter().map(|column| column.name.clone()).collect();
    let quoted = names.iter().find(|name| name.eq_ignore_ascii_case(&field.name) && **name != field.name);
    let hint = match quoted {
        Some(name) => Some(format!("names without quotes are read in lower case: write \"{name}\"")),
        None => hint(&field.name, &names),
    };
    QueryError::Invalid { message: format!("there is no column `{}`", field.name), hint }
}

fn plan_fault(message: &str, state: Option<&SessionState>) -> QueryError {
    let missing = message.strip_prefix("table '").and_then(|rest| rest.split_once("' not found"));
    let Some((full, _)) = missing else { return QueryError::invalid(first_sentence(message)) };
    let name = short(full);
    let names = state.map(table_names).unwrap_or_default();
    QueryError::Invalid { message: format!("there is no table `{name}`"), hint: hint(name, &names) }
}

/// The name as it is written in a query.
fn short(full: &str) -> &str {
    let name = full.strip_prefix(CATALOG).and_then(|rest| rest.strip_prefix('.')).unwrap_or(full);
    name.strip_prefix(PROJECTIONS).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}

fn table_names(state: &SessionState) -> Vec<String> {
    let Some(catalog) = state.catalog_list().catalog(CATALOG) else { return Vec::new() };
    let mut names = Vec::new();
    for schema in catalog.schema_names() {
        let tables = catalog.schema(&schema).map(|schema| schema.table_names()).unwrap_or_default();
        names.extend(tables.iter().map(|table| short(&format!("{schema}.{table}")).to_string()));
    }
    names.sort_unstable();
    names
}

/// The nearest name if one is near enough, else what there is.
fn hint(name: &str, names: &[String]) -> Option<String> {
    let best = names.iter().min_by_key(|other| levenshtein(name, other))?;
    if levenshtein(name, best) <= 1 + name.chars().count() / 3 {
        return Some(format!("did you mean `{best}`?"));
    }
    let listed = names.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > MOST_NAMES { ", …" } else { "" };
    Some(format!("available: {listed}{more}"))
}

/// A kernel that failed on a value (a division by zero, a cast) is the SQL's fault; what came through from a table is not.
fn arrow_fault(error: &ArrowError, state: Option<&SessionState>) -> QueryError {
    match error {
        ArrowError::ExternalError(inner) => external(inner.as_ref(), state),
        ArrowError::DivideByZero
        | ArrowError::ArithmeticOverflow(_)
        | ArrowError::CastError(_)
        | ArrowError::ParseError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::InvalidArgumentError(_) => QueryError::invalid(first_sentence(&error.to_string())),
        other => QueryError::Failed(first_sentence(&other.to_string())),
    }
}

fn external(error: &(dyn std::error::Error + Send + Sync + 'static), state: Option<&SessionState>) -> QueryError {
    match error.downcast_ref::<DataFusionError>() {
        Some(inner) => error_of(inner, state),
        None => QueryError::Failed(first_sentence(&error.to_string())),
    }
}

fn first_sentence(message: &str) -> String {
    message.lines().next().unwrap_or(message).trim_end_matches('.').to_string()
}
