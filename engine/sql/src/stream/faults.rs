//! `DataFusion`'s errors as faults of the SQL text, with their place and a remedy.
//!
//! Names that are not there are dealt with here, what does not parse in [`super::syntax`], what does not fit together in
//! [`super::mismatch`].

use std::ops::Range;

use arrow::datatypes::{DataType, Fields};
use datafusion::common::{Column, DataFusionError, Location, SchemaError, Span};

use super::words::{find_word, find_words, nearest, type_name};
use super::{SqlFault, Tables, mismatch, syntax};

/// The text that a fault is about, and what it may name.
pub(super) struct Context<'a> {
    pub(super) sql: &'a str,
    pub(super) tables: &'a Tables,
}

impl Context<'_> {
    /// Byte offset of a line and column (both from 1, in characters).
    pub(super) fn offset(&self, location: Location) -> Option<usize> {
        let line_index = usize::try_from(location.line).ok()?.checked_sub(1)?;
        let column = usize::try_from(location.column).ok()?.checked_sub(1)?;
        let start: usize = self.sql.split_inclusive('\n').take(line_index).map(str::len).sum();
        let line = self.sql.get(start..)?.split('\n').next()?;
        Some(start + line.char_indices().nth(column).map_or(line.len(), |(at, _)| at))
    }

    fn range(&self, span: Span) -> Option<Range<usize>> {
        Some(self.offset(span.start)?..self.offset(span.end)?)
    }

    /// Where a word stands alone in the text, in any case, outside of comments and texts.
    pub(super) fn find_word(&self, word: &str) -> Option<Range<usize>> {
        find_word(self.sql, word)
    }

    /// Where the first of some words stands.
    pub(super) fn find_any(&self, words: &[&str]) -> Option<Range<usize>> {
        words.iter().find_map(|word| self.find_word(word))
    }

    /// Where a text stands exactly so.
    pub(super) fn find_text(&self, text: &str) -> Option<Range<usize>> {
        let at = self.sql.find(text)?;
        (!text.is_empty()).then(|| at..at + text.len())
    }

    /// The type of a column, if the tables agree on it.
    pub(super) fn type_of(&self, column: &str) -> Option<&DataType> {
        let mut types = self.tables.schemas.values().filter_map(|schema| {
            schema.fields().iter().find(|field| field.name() == column).map(|field| field.data_type())
        });
        let first = types.next()?;
        types.all(|other| other == first).then_some(first)
    }

    /// The fields of a nested column.
    pub(super) fn fields_of(&self, column: &str) -> Option<&Fields> {
        match self.type_of(column)? {
            DataType::Struct(fields) => Some(fields),
            _ => None,
        }
    }
}

/// What an error means to who wrote the SQL. `DataFusion` sometimes has several.
pub(super) fn faults_of(error: &DataFusionError, context: &Context<'_>) -> Vec<SqlFault> {
    let mut faults: Vec<SqlFault> = match error {
        DataFusionError::Collection(errors) if !errors.is_empty() => {
            errors.iter().flat_map(|error| faults_of(error, context)).collect()
        }
        other => vec![fault_of(other, context)],
    };
    faults.dedup();
    faults
}

/// The first of them.
pub(super) fn fault_of(error: &DataFusionError, context: &Context<'_>) -> SqlFault {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let span = diagnostic.span.and_then(|span| context.range(span));
            let mut fault = fault_of(inner, context);
            // What was looked for in the text is nearer than the engine's place of a whole query or of one operand.
            let is_whole = span.as_ref().is_some_and(|span| span.len() >= context.sql.trim().len());
            fault.span = if is_whole || matches!(fault.code, "CJ201" | "CJ203") {
                fault.span.or(span)
            } else {
                span.or(fault.span)
            };
            fault
        }
        DataFusionError::Context(_, inner) => fault_of(inner, context),
        DataFusionError::Collection(errors) if !errors.is_empty() => fault_of(&errors[0], context),
        DataFusionError::Shared(inner) => fault_of(inner, context),
        DataFusionError::SQL(parser, _) => syntax::fault(parser, context),
        DataFusionError::SchemaError(schema, _) => schema_fault(schema, context),
        DataFusionError::Plan(message) => plan_fault(message, context),
        other => mismatch::fault(&other.strip_backtrace(), context),
    }
}

fn schema_fault(error: &SchemaError, context: &Context<'_>) -> SqlFault {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields, context),
        SchemaError::AmbiguousReference { field } => {
            SqlFault::new("CJ207", format!("`{}` could be a column of several tables", field.name))
                .with_hint(format!("write the table's name or alias before it: table.{}", field.name))
                .about(context.find_word(&field.name))
        }
        other => doubled(&other.to_string(), context),
    }
}

/// Two columns of one name, or an aggregate that is grouped by, which is then there as a key and as a result.
fn doubled(message: &str, context: &Context<'_>) -> SqlFault {
    let name = message.split('"').nth(1).unwrap_or_default();
    if name.contains('(') {
        return SqlFault::new("CJ203", "an aggregate cannot be what is grouped by")
            .with_hint("GROUP BY columns only; aggregates stand in the SELECT and in HAVING")
            .about(context.find_word("group"));
    }
    SqlFault::new("CJ204", format!("two columns are called `{name}`"))
        .with_hint("give each column its own name with AS")
        .about(find_words(context.sql, name).nth(1))
}

fn unknown_column(field: &Column, valid: &[Column], context: &Context<'_>) -> SqlFault {
    let place = context.find_word(&field.name);
    if let Some(fault) = unknown_qualifier(field, valid) {
        return fault.about(place);
    }
    SqlFault::new("CJ208", format!("there is no column `{}`", field.name))
        .with_hint(column_hint(&field.name, valid, context))
        .about(place)
}

/// `readings.value` where no table is called `readings`.
fn unknown_qualifier(field: &Column, valid: &[Column]) -> Option<SqlFault> {
    let wanted = field.relation.as_ref()?;
    let same_name = valid.iter().find(|column| column.name == field.name);
    let is_known = valid.iter().any(|column| column.relation.as_ref().is_some_and(|r| r.resolved_eq(wanted)));
    let other = same_name?.relation.as_ref()?;
    (!is_known).then(|| {
        SqlFault::new("CJ208", format!("no table of this SELECT is called `{wanted}`"))
            .with_hint(format!("the column is that of `{other}`: write {other}.{}", field.name))
    })
}

fn column_hint(name: &str, valid: &[Column], context: &Context<'_>) -> String {
    let names: Vec<&str> = valid.iter().map(|column| column.name.as_str()).collect();
    let available = available(&names, context);
    if let Some(camel) = names.iter().find(|other| other.eq_ignore_ascii_case(name) && **other != name) {
        let is_lower = camel.chars().all(|c| !c.is_ascii_uppercase());
        let right = if is_lower { (*camel).to_string() } else { format!("\"{camel}\"") };
        return format!("SQL reads names without quotes in lower case: write {right}");
    }
    if let Some(near) = nearest(name, &names) {
        return format!("did you mean `{near}`? Available: {available}");
    }
    if let Some(hint) = other_meaning(name, context) {
        return hint;
    }
    if names.is_empty() { "no columns are available here".into() } else { format!("available: {available}") }
}

/// What a name that is no column was probably meant to be.
fn other_meaning(name: &str, context: &Context<'_>) -> Option<String> {
    let preceded_by =
        |at: &Range<usize>, what: &str| context.sql[..at.start].trim_end().to_ascii_lowercase().ends_with(what);
    let quoted = format!("\"{name}\"");
    let after_arrow = |(at, _): (usize, &str)| {
        let before = context.sql[..at].trim_end();
        before.ends_with("->") || before.ends_with("->>")
    };
    if context.sql.match_indices(&quoted).any(after_arrow) {
        return Some(format!("names of JSON fields go into single quotes: '{name}'"));
    }
    if context.sql.contains(&quoted) {
        return Some(format!("double quotes are for names of columns; a text goes into single quotes: '{name}'"));
    }
    let mut places = find_words(context.sql, name);
    if places.any(|at| preceded_by(&at, " as") || preceded_by(&at, "\nas")) {
        return Some(format!(
            "a name given with AS is known to what reads the SELECT, not inside it: repeat its expression, or read it one \
             level further out: SELECT … FROM (SELECT … AS {name} FROM …)"
        ));
    }
    if find_words(context.sql, name).any(|at| context.sql[..at.start].trim_end().ends_with("->>")) {
        return Some(format!("names of JSON fields go into single quotes: '{name}'"));
    }
    if matches!(name, "start" | "end") {
        return Some(
            "a window's start and end are known one level further out: SELECT window.start … FROM (SELECT tumble(…) AS window, …)".into(),
        );
    }
    nested_in(name, context).map(|column| format!("it is a field of `{column}`: write {column}['{name}']"))
}

/// The nested column that has a field of this name.
fn nested_in(name: &str, context: &Context<'_>) -> Option<String> {
    let mut columns = context.tables.schemas.values().flat_map(|schema| schema.fields().iter());
    let found = columns.find(|column| match column.data_type() {
        DataType::Struct(fields) => fields.iter().any(|field| field.name() == name),
        _ => false,
    });
    found.map(|column| column.name().clone())
}

/// Columns with their types where those are known.
fn available(names: &[&str], context: &Context<'_>) -> String {
    let shown = names.iter().map(|name| {
        let written =
            if name.chars().any(|c| c.is_ascii_uppercase()) { format!("\"{name}\"") } else { (*name).to_string() };
        match context.type_of(name) {
            Some(data_type) => format!("{written} {}", type_name(data_type)),
            None => written,
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn plan_fault(message: &str, context: &Context<'_>) -> SqlFault {
    if let Some(name) = message.strip_prefix("table '").and_then(|rest| rest.split_once("' not found")) {
        return unknown_table(name.0, context);
    }
    if let Some(name) = message.strip_prefix("Invalid qualifier ") {
        return unknown_table(name, context);
    }
    if let Some(rest) = message.strip_prefix("Invalid function '") {
        return unknown_function(rest, context);
    }
    mismatch::fault(message, context)
}

fn unknown_table(full: &str, context: &Context<'_>) -> SqlFault {
    let name = full.strip_prefix("cornjacket.").unwrap_or(full);
    let name = name.strip_prefix("streams.").unwrap_or(name);
    let names: Vec<&str> = context.tables.schemas.keys().map(String::as_str).collect();
    let quoted = ['"', '\''].iter().find(|quote| context.sql.contains(&format!("{quote}{name}{quote}")));
    let hint = match nearest(name, &names) {
        Some(near) if near == name && quoted.is_some() => format!("write it without the quotes: {near}"),
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "declare event types under `events:`".into(),
        None => format!("event types and streams here: {}", names.join(", ")),
    };
    SqlFault::new("CJ209", format!("there is no event type or stream `{name}`"))
        .with_hint(hint)
        .about(context.find_word(name).or_else(|| context.find_text(name)))
}

/// What other engines call functions, and how to write it here.
const FOREIGN_FUNCTIONS: [(&str, &str); 14] = [
    ("json_extract", "look into JSON with ->>, as in payload ->> 'name'"),
    ("json_value", "look into JSON with ->>, as in payload ->> 'name'"),
    ("json_query", "look into JSON with ->, as in payload -> 'name'"),
    ("get_json_object", "look into JSON with ->>, as in payload ->> 'name'"),
    ("if", "write CASE WHEN … THEN … ELSE … END"),
    ("iif", "write CASE WHEN … THEN … ELSE … END"),
    ("isnull", "write coalesce(…, …), or … IS NULL"),
    ("len", "write length(…)"),
    ("ucase", "write upper(…)"),
    ("lcase", "write lower(…)"),
    ("to_string", "write CAST(… AS string)"),
    ("to_number", "write CAST(… AS double)"),
    ("percentile", "write approx_percentile_cont(…, 0.95)"),
    ("getdate", "use event_time or ingested_at, which are stored with the event"),
];

fn unknown_function(rest: &str, context: &Context<'_>) -> SqlFault {
    let name = rest.split('\'').next().unwrap_or(rest);
    let fault = SqlFault::new("CJ210", format!("there is no function `{name}`")).about(context.find_word(name));
    if matches!(name, "hop" | "session") {
        return fault.with_hint("of the window functions only tumble(interval '…') is available in this version");
    }
    if let Some((_, hint)) = FOREIGN_FUNCTIONS.iter().find(|(foreign, _)| *foreign == name) {
        return fault.with_hint(*hint);
    }
    let near = rest.split("Did you mean '").nth(1).and_then(|near| near.split('\'').next());
    match near.filter(|near| nearest(name, &[near]).is_some()) {
        Some(near) => fault.with_hint(format!("did you mean `{near}`?")),
        None => fault
            .with_hint("functions are those of SQL as Apache DataFusion has them, such as upper, round or coalesce"),
    }
}

/// The first line of a text, without a full stop.
pub(super) fn first_sentence(message: &str) -> String {
    let line = message.lines().next().unwrap_or(message);
    line.trim_end_matches('.').to_string()
}
