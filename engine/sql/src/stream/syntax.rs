//! SQL that does not parse: which word cannot stand where it does, and what was probably meant.

use std::ops::Range;

use datafusion::common::Location;
use datafusion::sql::sqlparser::parser::ParserError;

use super::SqlFault;
use super::faults::{Context, first_sentence};
use super::words::{find_word, nearest};

/// What a parser's error means to who wrote the SQL.
pub(super) fn fault(error: &ParserError, context: &Context<'_>) -> SqlFault {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => {
            return SqlFault::new("CJ309", "the SQL is nested too deeply").with_hint("write it as several streams");
        }
    };
    let (message, place) = split_place(&text);
    let found = message.rsplit_once(", found: ").map(|(_, found)| found.to_string());
    let start = place.and_then(|location| context.offset(location));
    let at_end = context.sql.trim_end().len();
    let start = start.or_else(|| message.ends_with("found: EOF").then_some(at_end));
    let place = start.map(|start| start..token_end(context.sql, start));
    let fault = SqlFault::new("CJ201", said(&message, found.as_deref())).about(place.clone());
    let place = place.unwrap_or(at_end..at_end);
    match remedy(context.sql, &message, &place) {
        Some((hint, Some(better))) => {
            let word = context.sql.get(better.clone()).unwrap_or_default();
            let message = match word.to_ascii_uppercase().as_str() {
                "CASE" => "this CASE has no END".to_string(),
                "BETWEEN" => "this BETWEEN has one end only".to_string(),
                _ => format!("`{word}` cannot stand here in SQL"),
            };
            SqlFault { message, ..fault }.with_hint(hint).about(Some(better))
        }
        Some((hint, None)) => fault.with_hint(hint),
        None => fault.with_hint(expected_hint(&message)),
    }
}

/// What is wrong, in a sentence.
fn said(message: &str, found: Option<&str>) -> String {
    match found {
        Some("EOF") => "the SQL ends too early".into(),
        Some(found) => format!("`{found}` cannot stand here in SQL"),
        None if message.contains("Unterminated") => "this quote has no end".into(),
        None => format!("the SQL does not parse: {}", first_sentence(message)),
    }
}

/// What would have been right, when nothing better is known.
fn expected_hint(message: &str) -> String {
    let expected = message.strip_prefix("Expected: ").and_then(|rest| rest.split_once(", found")).map(|(e, _)| e);
    match expected {
        Some("an SQL statement") => "a stream is one SELECT … FROM …".into(),
        Some("end of statement") => {
            "the statement was complete before this word: is a comma, an operator or a keyword missing \
                                     before it?"
                .into()
        }
        Some("identifier") => "the name of a table or column is wanted here".into(),
        Some("an expression" | "an expression:") => "a column, a value or a function call is wanted here".into(),
        Some(expected) => format!("{expected} is wanted here"),
        None => "check quotes, commas and parentheses".into(),
    }
}

/// The end of the word, number or character that starts there.
fn token_end(sql: &str, start: usize) -> usize {
    let rest = &sql[start..];
    let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    start + word.max(rest.chars().next().map_or(0, char::len_utf8))
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

type Remedy = (String, Option<Range<usize>>);

/// What was probably meant, and a better place for the fault if there is one.
fn remedy(sql: &str, message: &str, place: &Range<usize>) -> Option<Remedy> {
    let token = sql.get(place.clone()).unwrap_or_default();
    let before = sql[..place.start.min(sql.len())].trim_end();
    let simple = |hint: &str| Some((hint.to_string(), None));
    if message.contains("Unterminated") {
        return simple("end it with the same quote; a quote inside a text is written twice: 'it''s'");
    }
    if ["‘", "’", "“", "”"].contains(&token) {
        return simple("write straight quotes: 'text' for a text, \"name\" for a name");
    }
    if token.starts_with('{') || token.starts_with('}') {
        return simple("SQL has no templates; an environment variable is written ${NAME}, in upper case");
    }
    if let Some(remedy) = misspelt_keyword(sql, before, place) {
        return Some(remedy);
    }
    if let Some(remedy) = by_clause(sql, message, before, token) {
        return Some(remedy);
    }
    by_token(sql, message, before, place)
}

const KEYWORDS: [&str; 14] = [
    "select", "from", "where", "group", "having", "order", "limit", "union", "join", "between", "case", "when", "and",
    "distinct",
];

/// The word before or at the fault is nearly a keyword: `FORM`, `WERE`.
fn misspelt_keyword(sql: &str, before: &str, place: &Range<usize>) -> Option<Remedy> {
    let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    for range in [start..before.len(), place.clone()] {
        let word = sql.get(range.clone())?.to_ascii_lowercase();
        let is_word = word.len() > 3 && !KEYWORDS.contains(&word.as_str()) && word.chars().all(char::is_alphabetic);
        let near = nearest(&word, &KEYWORDS).filter(|near| near.len() > 3 && is_slip(&word, near));
        if let (true, Some(near)) = (is_word, near) {
            let meant = near.to_ascii_uppercase();
            return Some((format!("did you mean {meant} instead of {}?", &sql[range.clone()]), Some(range)));
        }
    }
    None
}

/// A slip of the finger: one letter, or letters in another order.
fn is_slip(word: &str, keyword: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    sorted(word) == sorted(keyword) || datafusion::common::utils::datafusion_strsim::levenshtein(word, keyword) == 1
}

/// Clauses out of order or without their end.
fn by_clause(sql: &str, message: &str, before: &str, token: &str) -> Option<Remedy> {
    let upper = token.to_ascii_uppercase();
    if let (Some(case), None) = (find_word(sql, "case"), find_word(sql, "end")) {
        return Some(("a CASE ends with END: CASE WHEN … THEN … ELSE … END".into(), Some(case)));
    }
    if upper == "FROM" && find_word(before, "where").is_some() && find_word(before, "from").is_none() {
        return Some(("FROM comes before WHERE: SELECT … FROM … WHERE …".into(), None));
    }
    if upper == "AS" && find_word(before, "group").is_some() {
        return Some(("give the name in the SELECT, and write the name in the GROUP BY".into(), None));
    }
    if message.ends_with("found: EOF") && message.starts_with("Expected: AND") {
        return Some(("BETWEEN has two ends: BETWEEN 1 AND 10".into(), find_word(sql, "between")));
    }
    if find_word(sql, "descriptor").is_some() {
        let hint = "windows are written tumble(interval '1 minute') in the SELECT and the GROUP BY";
        return Some((hint.into(), find_word(sql, "tumble")));
    }
    None
}

fn by_token(sql: &str, message: &str, before: &str, place: &Range<usize>) -> Option<Remedy> {
    let token = sql.get(place.clone()).unwrap_or_default();
    let touches = before.len() == place.start;
    let simple = |hint: String| Some((hint, None));
    let is_word = token.starts_with(|c: char| c.is_alphabetic() || c == '_');
    if message.contains("found: EOF") {
        let open = sql.matches('(').count() > sql.matches(')').count();
        let last = before.rsplit(char::is_whitespace).next().unwrap_or_default();
        return simple(if open {
            "a `(` is not closed: add `)`".into()
        } else {
            format!("something is missing after `{last}`")
        });
    }
    if message.starts_with("Expected: an SQL statement") && !sql.trim().contains(char::is_whitespace) {
        if sql.trim().to_ascii_lowercase().ends_with(".sql") {
            let hint =
                format!("this is SQL itself, not the path of a file; for that write {{ sql_file: {} }}", sql.trim());
            return Some((hint, Some(0..sql.trim_end().len())));
        }
        return simple("a stream is one SELECT … FROM …".into());
    }
    match token {
        ")" if sql.matches(')').count() > sql.matches('(').count() => {
            simple("there is no `(` for it: remove it".into())
        }
        "=" if before.ends_with('=') => simple("equality is written with one `=`".into()),
        "-" if before.ends_with(char::is_alphanumeric) => {
            simple("a name with a dash needs double quotes; an event type is written with a dot: sensor.reading".into())
        }
        _ if is_word && touches && before.ends_with(|c: char| c.is_ascii_digit()) => {
            simple("a span of time is written interval '1 minute'".into())
        }
        _ if message.starts_with("Expected: ), found") => simple(format!("a `)` is missing before `{token}`")),
        _ if is_word && before.ends_with(|c: char| c.is_alphanumeric() || c == '"') && follows_select_list(before) => {
            simple(format!("a comma is missing before `{token}`, or FROM"))
        }
        _ => None,
    }
}

/// Whether the text so far is a SELECT without its FROM.
fn follows_select_list(before: &str) -> bool {
    find_word(before, "select").is_some() && find_word(before, "from").is_none()
}
