//! Diagnostics for people (a block each, with the line and a caret under the text) and for programs (JSON).

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use cornjacket_core::diagnostic::{Diagnostic, Place, Severity, SourceFile};
use serde_json::{Value, json};

/// Writes diagnostics as text, one block each: the code and what is wrong, file, line and column, the line with a caret,
/// and what to write instead.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let block = |diagnostic: &Diagnostic| renderer.render(&[group(diagnostic)]).clone() + "\n";
    diagnostics.iter().map(block).collect::<Vec<_>>().join("\n")
}

/// Writes diagnostics as a JSON array of `severity`, `code`, `message`, `help`, `file`, `line`, `column`, `end_line` and
/// `end_column` (lines and columns from 1, columns in characters, the end exclusive; null where there is no place).
#[must_use]
pub fn to_json(diagnostics: &[Diagnostic]) -> Value {
    diagnostics.iter().map(object).collect()
}

fn group(diagnostic: &Diagnostic) -> Group<'_> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
    let mut group = Group::with_title(title);
    if let Some(place) = &diagnostic.place {
        group = group.element(snippet(place));
    }
    match &diagnostic.hint {
        Some(hint) => group.element(Level::HELP.message(hint.as_str())),
        None => group,
    }
}

/// Only the line of the place is handed over, so that many diagnostics of a large file do not cost its size each.
fn snippet(place: &Place) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    let text = place.file.text.as_str();
    let span = within(text, &place.span);
    let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let length = text[start..].find('\n').unwrap_or(text.len() - start);
    let line = text[start..start + length].trim_end_matches('\r');
    let from = (span.start - start).min(line.len());
    let to = (span.end - start).min(line.len()).max(from);
    let (number, _) = place.file.line_column(start);
    Snippet::source(line)
        .line_start(number)
        .path(place.file.path.display().to_string())
        .annotation(AnnotationKind::Primary.span(from..to))
}

/// The span cut to the text and to whole characters.
fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let boundary = |at: usize| {
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(span.start);
    start..boundary(span.end).max(start)
}

fn object(diagnostic: &Diagnostic) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let position = |at: fn(&Place) -> usize| {
        let place = diagnostic.place.as_ref()?;
        let file: &SourceFile = &place.file;
        Some(file.line_column(at(place)))
    };
    let (start, end) = (position(|place| place.span.start), position(|place| place.span.end));
    json!({
        "severity": severity,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "help": diagnostic.hint,
        "file": diagnostic.place.as_ref().map(|place| place.file.path.display().to_string()),
        "line": start.map(|(line, _)| line),
        "column": start.map(|(_, column)| column),
        "end_line": end.map(|(line, _)| line),
        "end_column": end.map(|(_, column)| column),
    })
}
