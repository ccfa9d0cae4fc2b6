//! Diagnostics for people (a block each, with the line and a caret under the text) and for programs (JSON).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use cornjacket_core::diagnostic::{Diagnostic, Place, Severity, SourceFile};
use serde_json::{Value, json};

/// Writes diagnostics as text, one block each: the code and what is wrong, file, line and column, the line with a caret,
/// and what to write instead.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut lines = Lines::default();
    let mut text = String::new();
    for diagnostic in diagnostics {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &renderer.render(&[group(diagnostic, &mut lines)]);
        text.push('\n');
    }
    text
}

/// Writes diagnostics as a JSON array of `severity`, `code`, `message`, `help`, `file`, `line`, `column`, `end_line` and
/// `end_column` (lines and columns from 1, columns in characters, the end exclusive; null where there is no place).
#[must_use]
pub fn to_json(diagnostics: &[Diagnostic]) -> Value {
    let mut lines = Lines::default();
    diagnostics.iter().map(|diagnostic| object(diagnostic, &mut lines)).collect()
}

/// Where the lines of files start. Counted once a file, so that many diagnostics of a large file do not cost its size
/// each.
#[derive(Default)]
struct Lines(HashMap<*const SourceFile, Vec<usize>>);

impl Lines {
    /// The number (from 1) and the bytes of the line that holds an offset, without its end.
    fn line(&mut self, file: &Arc<SourceFile>, offset: usize) -> (usize, Range<usize>) {
        let text = file.text.as_str();
        let starts = self
            .0
            .entry(Arc::as_ptr(file))
            .or_insert_with(|| std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect());
        let number = starts.partition_point(|start| *start <= offset).max(1);
        let start = starts[number - 1];
        let end = starts.get(number).map_or(text.len(), |next| next - 1);
        (number, start..start + text[start..end].trim_end_matches('\r').len())
    }

    /// Line and column of an offset, both from 1, the column in characters.
    fn line_column(&mut self, file: &Arc<SourceFile>, offset: usize) -> (usize, usize) {
        let offset = boundary(&file.text, offset);
        let (number, line) = self.line(file, offset);
        (number, file.text[line.start..offset].chars().count() + 1)
    }
}

/// The offset cut to the text and to whole characters.
fn boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn group<'a>(diagnostic: &'a Diagnostic, lines: &mut Lines) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
    if let Some(place) = &diagnostic.place {
        group = group.element(snippet(place, lines));
    }
    match &diagnostic.hint {
        Some(hint) => group.element(Level::HELP.message(hint.as_str())),
        None => group,
    }
}

/// The first line of the place, with what is meant of it marked.
fn snippet<'a>(place: &'a Place, lines: &mut Lines) -> Snippet<'a, Annotation<'a>> {
    let text = place.file.text.as_str();
    let start = boundary(text, place.span.start);
    let (number, line) = lines.line(&place.file, start);
    let from = start.min(line.end) - line.start;
    let to = boundary(text, place.span.end).clamp(line.start + from, line.end.max(line.start + from)) - line.start;
    Snippet::source(&text[line])
        .line_start(number)
        .path(place.file.path.display().to_string())
        .annotation(AnnotationKind::Primary.span(from..to))
}

fn object(diagnostic: &Diagnostic, lines: &mut Lines) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let place = diagnostic.place.as_ref();
    let start = place.map(|place| lines.line_column(&place.file, place.span.start));
    let end = place.map(|place| lines.line_column(&place.file, place.span.end));
    json!({
        "severity": severity,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "help": diagnostic.hint,
        "file": place.map(|place| place.file.path.display().to_string()),
        "line": start.map(|(line, _)| line),
        "column": start.map(|(_, column)| column),
        "end_line": end.map(|(line, _)| line),
        "end_column": end.map(|(_, column)| column),
    })
}
