//! Compiles a stream's SQL to a [`Relation`].
//!
//! `DataFusion` parses, resolves names and types, and simplifies; what comes out is a tree of scans, filters,
//! projections, unions and aggregates. [`lower`] turns that tree into relations, and refuses with a remedy what cannot
//! be computed on an unbounded stream. No plan of `DataFusion` is ever executed here: only its expressions and
//! accumulators are.

mod aggregation;
#[cfg(test)]
mod aggregation_tests;
mod buffered;
mod chain;
mod faults;
mod lower;
mod mismatch;
mod readable;
mod session;
mod syntax;
mod words;

pub(crate) use session::session_state;

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::datatypes::SchemaRef;
use cornjacket_core::aggregate::Relation;

/// The tables that a stream's SQL may name: event types (`sensor.reading`) and other streams (`readings`).
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Columns by name.
    pub schemas: BTreeMap<String, SchemaRef>,
}

/// Settings of a stream beside its SQL.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    /// For how long after its end a window still takes rows, in µs.
    pub lateness: i64,
}

/// What is wrong with a stream's SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlFault {
    /// Code of the diagnostic.
    pub code: &'static str,
    /// The bytes of the SQL text that it is about, if known.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl SqlFault {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, span: None, message: message.into(), hint: None }
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn about(mut self, span: Option<Range<usize>>) -> Self {
        self.span = span;
        self
    }
}

/// Compiles a stream's SQL.
///
/// # Errors
/// Every fault that was found, at least one.
pub fn compile_stream(sql: &str, tables: &Tables, options: StreamOptions) -> Result<Relation, Vec<SqlFault>> {
    let session = session::Session::new(tables);
    let plan = session.plan(sql)?;
    let relation = lower::Lowering::new(&session, sql, options).relation(&plan).map_err(|fault| vec![fault])?;
    check_columns(&relation)?;
    Ok(relation)
}

/// The tables that a stream's SQL reads, by their names as written, without compiling it; empty if it does not parse.
#[must_use]
pub fn tables_of(sql: &str) -> Vec<String> {
    session::Session::new(&Tables::default()).tables_of(sql)
}

/// A text with the user's names of types in place of the engine's (`Utf8`, `Float64`).
#[must_use]
pub fn plain_types(text: &str) -> String {
    words::plain(text)
}

/// A column's name for people: one that was given none goes by what it is, such as `count(*)`.
#[must_use]
pub fn plain_column(name: &str) -> String {
    readable::column_name(name)
}

/// A stream is a table to others, so its columns need names that differ.
fn check_columns(relation: &Relation) -> Result<(), Vec<SqlFault>> {
    let mut seen = std::collections::BTreeSet::new();
    let doubled = relation.schema().fields().iter().find(|field| !seen.insert(field.name().clone()));
    match doubled {
        None => Ok(()),
        Some(field) => Err(vec![
            SqlFault::new("CJ204", format!("two columns of the stream are called `{}`", field.name()))
                .with_hint(format!("give one of them another name: … AS {}_2", field.name())),
        ]),
    }
}

#[cfg(test)]
mod tests;
