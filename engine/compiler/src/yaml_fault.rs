//! What is wrong with a file that is not YAML, in words that do not need YAML's own, and at the character itself.
//!
//! The library says what it expected where it gave up, which is often far behind the mistake. The mistakes that people make
//! are few, so the lines around that place are looked at for each of them.

mod brackets;

use crate::node::Span;
use brackets::brackets;

/// What is wrong, where, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct YamlFault {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: String,
}

fn fault_at(span: Span, message: impl Into<String>, hint: impl Into<String>) -> YamlFault {
    YamlFault { span, message: message.into(), hint: hint.into() }
}

/// Explains the library's message about a place of the text.
pub(crate) fn explain(text: &str, at: &Span, message: &str) -> YamlFault {
    let at = at.start.min(text.len());
    let line = Line::at(text, at);
    let known = invisible(text)
        .or_else(|| documents(text, at, message))
        .or_else(|| tab(text, &line))
        .or_else(|| alias(&line, message))
        .or_else(|| escape(text, at, message))
        .or_else(|| first_character(&line, message))
        .or_else(|| comment(text, &line, message))
        .or_else(|| braces_around(&line))
        .or_else(|| brackets(text, at, message))
        .or_else(|| quotes(&line, message))
        .or_else(|| merge(&line, message))
        .or_else(|| colon(text, &line, message))
        .or_else(|| indentation(text, &line, message))
        .or_else(|| keys(text, at, message))
        .or_else(|| leftover(text, at, message));
    known.unwrap_or_else(|| YamlFault {
        span: at..at,
        message: format!("the file is not valid YAML: {message}"),
        hint: "check the indentation and quotes here and on the line above".into(),
    })
}

/// A line of the text.
#[derive(Clone, Copy)]
struct Line<'a> {
    start: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn at(text: &'a str, at: usize) -> Self {
        let start = text[..at].rfind('\n').map_or(0, |found| found + 1);
        let line = text[start..].split('\n').next().unwrap_or_default();
        Self { start, text: line.trim_end_matches('\r') }
    }

    fn before(self, text: &'a str) -> Option<Self> {
        (self.start > 0).then(|| Self::at(text, self.start - 1))
    }

    /// The nearest line above that says something.
    fn said_before(self, text: &'a str) -> Option<Self> {
        let mut line = self.before(text)?;
        while line.body().is_empty() || line.body().starts_with('#') {
            line = line.before(text)?;
        }
        Some(line)
    }

    fn body(self) -> &'a str {
        self.text.trim()
    }

    fn indent(self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }

    fn span(self) -> Span {
        let start = self.start + self.indent();
        start..start + self.body().len()
    }

    /// Where the value after `key:` begins within the line, and the value.
    fn value(self) -> Option<(usize, &'a str)> {
        let at = self.text.find(": ")?;
        let value = self.text[at + 2..].trim_start();
        (!value.is_empty()).then(|| (self.text.len() - value.len(), value))
    }
}

fn invisible(text: &str) -> Option<YamlFault> {
    let bad = |c: &char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}');
    let (at, c) = text.char_indices().find(|(_, c)| bad(c))?;
    let message = format!("here is an invisible character (U+{:04X})", u32::from(c));
    Some(fault_at(at..at + c.len_utf8(), message, "delete it and type the text again"))
}

fn documents(text: &str, at: usize, message: &str) -> Option<YamlFault> {
    if !message.contains("multiple") {
        return None;
    }
    let marker = |line: &&str| line.trim_end() == "---" || line.trim_end() == "...";
    let mut start = 0;
    let mut found = None;
    for line in text.split_inclusive('\n') {
        if marker(&line) && start > 0 && start <= at {
            found = Some(start..start + 3);
        }
        start += line.len();
    }
    Some(fault_at(
        found.unwrap_or(at..at),
        "the file ends here, and another begins",
        "remove this line: a file holds one pipeline",
    ))
}

fn tab(text: &str, line: &Line<'_>) -> Option<YamlFault> {
    let with_tab = |line: &Line<'_>| line.text[..line.indent()].find('\t').map(|at| line.start + at);
    let at = with_tab(line).or_else(|| with_tab(&line.before(text)?))?;
    Some(fault_at(at..at + 1, "the line is indented by a tab", "indent with spaces: two for each level"))
}

fn alias(line: &Line<'_>, message: &str) -> Option<YamlFault> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if !message.contains("anchor") && !message.contains("alias") {
        return None;
    }
    let mark = line.text.find(['*', '&'])?;
    let rest = &line.text[mark + 1..];
    let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
    let span = line.start + mark..line.start + mark + 1 + name.len();
    if name.is_empty() {
        let hint = format!("put it into quotes: \"{}\"", value_at(line.text, mark));
        return Some(fault_at(span, "a text that begins with `*` or `&` needs quotes", hint));
    }
    let hint = format!("write `&{name}` before what it stands for, or put a text that begins with `*` into quotes");
    Some(fault_at(span, format!("`*{name}` stands for something that is not named before"), hint))
}

fn escape(text: &str, at: usize, message: &str) -> Option<YamlFault> {
    if !message.contains("escape") {
        return None;
    }
    let line = Line::at(text, at);
    let known = |c: char| "0abt\tnvfre \"/\\N_LPxuU".contains(c);
    let bytes = line.text.char_indices().zip(line.text.chars().skip(1));
    let (found, next) =
        bytes.filter(|((_, c), _)| *c == '\\').map(|((at, _), next)| (at, next)).find(|(_, next)| !known(*next))?;
    let span = line.start + found..line.start + found + 1 + next.len_utf8();
    let hint = format!("use single quotes, in which `\\` is an ordinary character, or write `\\\\{next}`");
    Some(fault_at(span, format!("`\\{next}` means nothing inside double quotes"), hint))
}

/// Characters that no plain text may begin with.
fn first_character(line: &Line<'_>, message: &str) -> Option<YamlFault> {
    if !message.contains("unexpected character") && !message.contains("directive") && !message.contains("tag") {
        return None;
    }
    let reserved = ['@', '`', '%', '!'];
    let starts = |at: usize| line.text[..at].ends_with([' ', '[', '{', ',']) || at == 0;
    let found = line.text.char_indices().find(|(at, c)| reserved.contains(c) && starts(*at));
    let (at, c) = found?;
    let value = value_at(line.text, at);
    let right = value.trim_matches('`');
    let hint =
        if c == '`' { format!("leave the backticks out: {right}") } else { format!("put it into quotes: \"{value}\"") };
    Some(fault_at(
        line.start + at..line.start + at + value.len(),
        format!("a text that begins with `{c}` needs quotes"),
        hint,
    ))
}

/// The text from there to the end of the value.
fn value_at(line: &str, at: usize) -> &str {
    let rest = &line[at..];
    let in_braces = line[..at].contains(['{', '[']);
    let end = if in_braces { rest.find([',', '}', ']']) } else { rest.find(" #") };
    rest[..end.unwrap_or(rest.len())].trim_end()
}

fn comment(text: &str, line: &Line<'_>, message: &str) -> Option<YamlFault> {
    if !message.contains("comment") {
        return None;
    }
    let line = [Some(*line), line.before(text)].into_iter().flatten().find(|line| line.text.contains(" #"))?;
    let at = line.start + line.text.find(" #")? + 1;
    let hint = "for a text of several lines write `|` after the colon and the text indented below it; in SQL a comment begins with --";
    Some(fault_at(at..line.start + line.text.len(), "a comment cannot stand inside a text", hint))
}

fn quotes(line: &Line<'_>, message: &str) -> Option<YamlFault> {
    if message.contains("unclosed quote") {
        let at = line.text.find(['"', '\'']).map(|at| line.start + at)?;
        return Some(fault_at(at..at + 1, "this quote has no end", "end the text with the same quote"));
    }
    if !message.contains("trailing content") {
        return None;
    }
    let (at, value) = line.value()?;
    let span = line.start + at..line.start + at + value.len();
    if value.starts_with('\'') && value.ends_with('\'') {
        let inner = value.trim_matches('\'').replace('\'', "''");
        return Some(fault_at(
            span,
            "a quote ends this text too early",
            format!("write a quote inside single quotes twice: '{inner}'"),
        ));
    }
    let hint = format!("put all of it into the other quotes, or write `|` and the text below: '{value}'");
    Some(fault_at(span, "the text goes on behind its closing quote", hint))
}

/// `{{ … }}` and `${…}` where YAML reads a map.
fn braces_around(line: &Line<'_>) -> Option<YamlFault> {
    let at = line.text.find("{{")?;
    let end = line.text[at..].find("}}").map_or(line.text.len(), |end| at + end + 2);
    let hint = "there are no templates; an environment variable is written \"${NAME}\", in quotes";
    Some(fault_at(line.start + at..line.start + end, "`{{` begins a map of a map", hint))
}

fn merge(line: &Line<'_>, message: &str) -> Option<YamlFault> {
    let at = line.text.find("<<").filter(|_| message.contains("merge"))?;
    let hint = "write `<<: *name`, where `&name` marks a map above";
    Some(fault_at(
        line.start + at..line.start + at + 2,
        "`<<` takes over the settings of a map, and this is none",
        hint,
    ))
}

/// Keys that are none.
fn keys(text: &str, at: usize, message: &str) -> Option<YamlFault> {
    let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
    if message.contains("null into string") {
        return Some(fault_at(at..end, "a key is missing before this colon", "write the setting's name before it"));
    }
    if message.contains("expected string scalar") {
        let hint = "write a key and a colon before it: key: …";
        return Some(fault_at(at..end, "here a key is wanted, and this is a map or a list", hint));
    }
    None
}

/// What is known at least of the character at which reading stopped.
fn leftover(text: &str, at: usize, message: &str) -> Option<YamlFault> {
    let c = text[at..].chars().next().filter(|c| !c.is_whitespace());
    let span = at..at + c.map_or(0, char::len_utf8);
    if message.contains("unexpected character") || message.contains("must be separated") {
        let hint = "remove it, or put the text that it belongs to into quotes";
        return Some(fault_at(span, format!("`{}` cannot stand here", c.unwrap_or(' ')), hint));
    }
    if message.contains("expected ','") {
        let hint = "close the bracket, or write a comma between two settings";
        return Some(fault_at(span, "a comma or a closing bracket is missing before this", hint));
    }
    message.contains("trailing content").then(|| {
        let hint = "put all of the text into the quotes, or leave the quotes out";
        fault_at(span, "the text goes on behind its closing quote", hint)
    })
}

fn colon(text: &str, line: &Line<'_>, message: &str) -> Option<YamlFault> {
    if message.contains("expected ':'") {
        let body = line.body();
        let above = line.said_before(text);
        if above.is_some_and(|above| above.body().ends_with(['|', '>']) && above.indent() >= line.indent()) {
            return Some(fault_at(
                line.span(),
                "the text of a block is indented further than its key",
                "indent it by two more spaces",
            ));
        }
        return Some(fault_at(line.span(), format!("a colon is missing after `{body}`"), format!("write `{body}:`")));
    }
    if !message.contains("mapping values") {
        return None;
    }
    let is_nested = line.value().is_some_and(|(_, value)| value.contains(": "));
    let above = line.said_before(text);
    let is_missing = |above: &Line<'_>| !has_key(above.body()) && (above.indent() <= line.indent() || !is_nested);
    if let Some(missing) = above.filter(is_missing) {
        return Some(missing_colon(&missing));
    }
    let (at, value) = line.value().unwrap_or((line.indent(), ""));
    if !value.contains(": ") && !value.ends_with(':') {
        let has_value = above.is_some_and(|above| above.indent() < line.indent() && above.value().is_some());
        let hint = "give it the same indentation as the line above, or leave the value above out";
        let message = "this line is indented further than the line above, which has a value already";
        return has_value.then(|| fault_at(line.span(), message, hint));
    }
    let quote = if value.contains('"') { '\'' } else { '"' };
    let is_sql = value.to_ascii_uppercase().starts_with("SELECT");
    let hint = if is_sql {
        "write `|` after the key and the SQL indented on the lines below".to_string()
    } else {
        format!("put the text into quotes: {quote}{value}{quote}")
    };
    Some(fault_at(
        line.start + at..line.start + at + value.len(),
        "a text with a colon and a space in it needs quotes",
        hint,
    ))
}

/// A line that was meant to be `key: value`.
fn missing_colon(line: &Line<'_>) -> YamlFault {
    let body = line.body();
    let (message, hint) = match (body.split_once(':'), body.split_once('=')) {
        (Some((key, value)), _) => {
            ("a space is missing after the colon".to_string(), format!("write `{key}: {value}`"))
        }
        (None, Some((key, value))) => (
            "a key and its value are joined with a colon".to_string(),
            format!("write `{}: {}`", key.trim(), value.trim()),
        ),
        (None, None) => (format!("a colon is missing after `{body}`"), format!("write `{body}:`")),
    };
    fault_at(line.span(), message, hint)
}

fn has_key(body: &str) -> bool {
    body.contains(": ") || body.ends_with(':') || body.starts_with("- ") || body == "-"
}

fn indentation(text: &str, line: &Line<'_>, message: &str) -> Option<YamlFault> {
    if message.contains("document start") {
        let first = text.lines().find(|line| !line.trim().is_empty() && !line.trim().starts_with('#'))?;
        let start = first.as_ptr() as usize - text.as_ptr() as usize;
        let indent = first.len() - first.trim_start().len();
        let hint = "let every section begin at the left edge";
        return (indent > 0).then(|| fault_at(start..start + indent, "the first section is indented", hint));
    }
    let about = ["did not find expected key", "indentation", "block", "expected '-'"];
    if !about.iter().any(|word| message.contains(word)) {
        return None;
    }
    let mut widths = Vec::new();
    let mut above = line.said_before(text);
    while let Some(found) = above {
        if widths.last().is_none_or(|last| found.indent() < *last) {
            widths.push(found.indent());
        }
        above = found.said_before(text);
    }
    let widths: Vec<String> = widths.iter().map(ToString::to_string).collect();
    let message = format!("this line is indented by {} spaces, which belongs to nothing above", line.indent());
    let hint = format!("indent it by {}, as the lines above that it belongs beside", widths.join(" or "));
    Some(fault_at(line.span(), message, hint))
}
