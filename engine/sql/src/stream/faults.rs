//! `DataFusion`'s errors as faults of the SQL text, with their place and a remedy.

use std::ops::Range;

use datafusion::common::{Column, DataFusionError, Location, SchemaError, Span};
use datafusion::sql::sqlparser::parser::ParserError;

use super::{SqlFault, Tables};

/// The text that a fault is about, and what it may name.
pub(super) struct Context<'a> {
    pub(super) sql: &'a str,
    pub(super) tables: &'a Tables,
}

impl Context<'_> {
    /// Byte offset of a line and column (both from 1, in characters).
    fn offset(&self, location: Location) -> Option<usize> {
        let line_index = usize::try_from(location.line).ok()?.checked_sub(1)?;
        let column = usize::try_from(location.column).ok()?.checked_sub(1)?;
        let start: usize = self.sql.split_inclusive('\n').take(line_index).map(str::len).sum();
        let line = self.sql.get(start..)?.split('\n').next()?;
        Some(start + line.char_indices().nth(column).map_or(line.len(), |(at, _)| at))
    }

    fn range(&self, span: Span) -> Option<Range<usize>> {
        Some(self.offset(span.start)?..self.offset(span.end)?)
    }

    /// Where a word stands alone in the text, in any case.
    pub(super) fn find_word(&self, word: &str) -> Option<Range<usize>> {
        let text = self.sql.to_ascii_lowercase();
        let word = word.to_ascii_lowercase();
        let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        text.match_indices(&word).find_map(|(at, _)| {
            let end = at + word.len();
            let alone = !part_of_word(text[..at].chars().next_back()) && !part_of_word(text[end..].chars().next());
            (alone && !word.is_empty()).then_some(at..end)
        })
    }
}

/// What an error means to who wrote the SQL.
pub(super) fn fault_of(error: &DataFusionError, context: &Context<'_>) -> SqlFault {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let span = diagnostic.span.and_then(|span| context.range(span));
            let mut fault = fault_of(inner, context);
            fault.span = span.or(fault.span);
            fault
        }
        DataFusionError::Context(_, inner) => fault_of(inner, context),
        DataFusionError::Collection(errors) if !errors.is_empty() => fault_of(&errors[0], context),
        DataFusionError::Shared(inner) => fault_of(inner, context),
        DataFusionError::SQL(parser, _) => syntax_fault(parser, context),
        DataFusionError::SchemaError(schema, _) => schema_fault(schema, context),
        DataFusionError::Plan(message) => plan_fault(message, context),
        DataFusionError::NotImplemented(message) => {
            SqlFault::new("CJ206", format!("this SQL is not supported: {}", first_sentence(message)))
        }
        other => SqlFault::new("CJ203", first_sentence(&other.strip_backtrace())),
    }
}

fn syntax_fault(error: &ParserError, context: &Context<'_>) -> SqlFault {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => "it is nested too deeply".into(),
    };
    let (message, place) = split_place(&text);
    let span = place.and_then(|location| context.offset(location)).map(|start| start..context.token_end(start));
    SqlFault::new("CJ201", format!("the SQL does not parse: {message}")).about(span)
}

impl Context<'_> {
    fn token_end(&self, start: usize) -> usize {
        let rest = &self.sql[start..];
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        start + word.max(rest.chars().next().map_or(0, char::len_utf8))
    }
}

/// Takes ` at Line: 2, Column: 5` off a parser's message.
fn split_place(text: &str) -> (String, Option<Location>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return (text.to_string(), None) };
    let mut numbers = place.split(", Column: ").map(|number| number.trim().parse::<u64>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(line), Some(column)) => (message.to_string(), Some(Location { line, column })),
        _ => (text.to_string(), None),
    }
}

fn schema_fault(error: &SchemaError, context: &Context<'_>) -> SqlFault {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields, context),
        SchemaError::AmbiguousReference { field } => {
            SqlFault::new("CJ207", format!("`{}` could be a column of several tables", field.name))
                .with_hint(format!("write the table's name before it: table.{}", field.name))
                .about(context.find_word(&field.name))
        }
        other => SqlFault::new("CJ204", first_sentence(&other.to_string()))
            .with_hint("give each column its own name with AS"),
    }
}

fn unknown_column(field: &Column, valid: &[Column], context: &Context<'_>) -> SqlFault {
    let names: Vec<&str> = valid.iter().map(|column| column.name.as_str()).collect();
    let camel = names.iter().find(|name| name.eq_ignore_ascii_case(&field.name) && **name != field.name);
    let hint = match (camel, nearest(&field.name, &names)) {
        (Some(name), _) => format!("SQL reads names without quotes in lower case: write \"{name}\""),
        (None, Some(name)) => format!("did you mean `{name}`? Available: {}", names.join(", ")),
        (None, None) if names.is_empty() => "no columns are available here".into(),
        (None, None) => format!("available: {}", names.join(", ")),
    };
    SqlFault::new("CJ208", format!("there is no column `{}`", field.name))
        .with_hint(hint)
        .about(context.find_word(&field.name))
}

fn plan_fault(message: &str, context: &Context<'_>) -> SqlFault {
    if let Some(name) = message.strip_prefix("table '").and_then(|rest| rest.split_once("' not found")) {
        return unknown_table(name.0, context);
    }
    if let Some(rest) = message.strip_prefix("Invalid function '") {
        return unknown_function(rest, context);
    }
    SqlFault::new("CJ203", first_sentence(message))
}

fn unknown_table(full: &str, context: &Context<'_>) -> SqlFault {
    let name = full.strip_prefix("cornjacket.").unwrap_or(full);
    let name = name.strip_prefix("streams.").unwrap_or(name);
    let names: Vec<&str> = context.tables.schemas.keys().map(String::as_str).collect();
    let hint = match nearest(name, &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "declare event types under `events:`".into(),
        None => format!("event types and streams here: {}", names.join(", ")),
    };
    SqlFault::new("CJ209", format!("there is no event type or stream `{name}`"))
        .with_hint(hint)
        .about(context.find_word(name))
}

fn unknown_function(rest: &str, context: &Context<'_>) -> SqlFault {
    let name = rest.split('\'').next().unwrap_or(rest);
    let fault = SqlFault::new("CJ210", format!("there is no function `{name}`")).about(context.find_word(name));
    if matches!(name, "hop" | "session") {
        return fault.with_hint("of the window functions only tumble(interval '…') is available in this version");
    }
    match rest.split("Did you mean '").nth(1).and_then(|near| near.split('\'').next()) {
        Some(near) => fault.with_hint(format!("did you mean `{near}`?")),
        None => fault,
    }
}

/// The name that was probably meant, if one is near enough.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance = |other: &str| datafusion::common::utils::datafusion_strsim::levenshtein(name, other);
    let best = names.iter().min_by_key(|other| distance(other))?;
    (distance(best) <= 1 + name.chars().count() / 3).then_some(best)
}

fn first_sentence(message: &str) -> String {
    let line = message.lines().next().unwrap_or(message);
    line.trim_end_matches('.').to_string()
}
