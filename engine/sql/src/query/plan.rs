//! SQL text to a logical plan that only reads.
//!
//! Two nets, since each catches what the other cannot see: the parsed statement must be of a kind that reads, and the plan
//! must have no node that writes (`SELECT … INTO`, an INSERT inside of WITH).

use std::collections::HashSet;

use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use serde_json::Value;

use super::faults::error_of;
use super::{QueryError, size};
use crate::dialect::parse_all;

/// Parameters from JSON.
pub(super) fn parameters(params: &[Value]) -> Result<Vec<ScalarValue>, QueryError> {
    let scalar = |(index, value): (usize, &Value)| match value {
        Value::Null => Ok(ScalarValue::Null),
        Value::Bool(value) => Ok(ScalarValue::Boolean(Some(*value))),
        Value::String(text) => Ok(ScalarValue::Utf8(Some(text.clone()))),
        Value::Number(number) => Ok(match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => ScalarValue::Int64(Some(whole)),
            (None, Some(whole)) => ScalarValue::UInt64(Some(whole)),
            (None, None) => ScalarValue::Float64(number.as_f64()),
        }),
        Value::Array(_) | Value::Object(_) => {
            let number = index + 1;
            Err(QueryError::invalid(format!("parameter ${number} is no text, number, boolean or null")))
        }
    };
    params.iter().enumerate().map(scalar).collect()
}

/// Parses and resolves one statement, checks that it only reads, and puts the parameters in.
pub(super) async fn plan(state: &SessionState, sql: &str, params: Vec<ScalarValue>) -> Result<LogicalPlan, QueryError> {
    let statement = parse(state, sql)?;
    let plan = state.statement_to_plan(statement).await.map_err(|error| error_of(&error, Some(state)))?;
    // Before anything walks the whole plan.
    size::check_steps(&plan)?;
    let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    if reads.verify_plan(&plan).is_err() {
        return Err(QueryError::NotReadOnly("the statement writes".into()));
    }
    check_column_names(&plan)?;
    check_parameters(&plan, params.len())?;
    plan.with_param_values(ParamValues::from(params)).map_err(|error| error_of(&error, Some(state)))
}

fn parse(state: &SessionState, sql: &str) -> Result<Statement, QueryError> {
    size::check_operators(sql)?;
    let mut statements = parse_all(state, sql).map_err(|error| error_of(&error, None))?;
    match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => {
            size::check_expansion(check_reads(&statement)?)?;
            Ok(statement)
        }
        (None, _) => Err(QueryError::invalid("there is no statement")),
        (Some(_), more) => Err(QueryError::NotReadOnly(format!("these are {} statements", more + 1))),
    }
}

/// The statement that is answered or explained, if it only reads.
fn check_reads(statement: &Statement) -> Result<&SqlStatement, QueryError> {
    match statement {
        Statement::Statement(inner) if is_read(inner) => return Ok(inner),
        Statement::Explain(explain) => return check_reads(&explain.statement),
        _ => {}
    }
    let text = statement.to_string();
    let verb = text.split_whitespace().next().unwrap_or_default().to_uppercase();
    Err(QueryError::NotReadOnly(format!("this is a {verb} statement")))
}

fn is_read(statement: &SqlStatement) -> bool {
    match statement {
        SqlStatement::Explain { statement, .. } => is_read(statement),
        SqlStatement::Query(_)
        | SqlStatement::ExplainTable { .. }
        | SqlStatement::ShowTables { .. }
        | SqlStatement::ShowColumns { .. }
        | SqlStatement::ShowFunctions { .. }
        | SqlStatement::ShowVariable { .. } => true,
        _ => false,
    }
}

/// Rows are objects, so two columns of one name would be one.
fn check_column_names(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut seen = HashSet::new();
    match plan.schema().fields().iter().find(|field| !seen.insert(field.name())) {
        None => Ok(()),
        Some(twice) => Err(QueryError::Invalid {
            message: format!("two columns of the result are called `{}`", twice.name()),
            hint: Some("give each column its own name with AS".into()),
        }),
    }
}

fn check_parameters(plan: &LogicalPlan, given: usize) -> Result<(), QueryError> {
    let names = plan.get_parameter_names().map_err(|error| error_of(&error, None))?;
    let mut wanted = 0;
    for name in &names {
        match name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()) {
            Some(number) if number > 0 => wanted = wanted.max(number),
            _ => return Err(QueryError::invalid(format!("`{name}` is no parameter: write $1, $2, …"))),
        }
    }
    if wanted == given {
        return Ok(());
    }
    Err(QueryError::invalid(format!("the SQL has {wanted} parameters, and {given} values were given")))
}
