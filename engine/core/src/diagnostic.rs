//! What is wrong with a user's file. A diagnostic is not an error of the program: all of them are collected and shown
//! together, each with its place, what is wrong and what to write instead.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A file that diagnostics can point into.
#[derive(Debug)]
pub struct SourceFile {
    /// Its path as the user named it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl SourceFile {
    /// The line and column (both from 1, columns in characters) of a byte offset.
    #[must_use]
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }
}

/// A place in a file: a range of bytes.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    /// The bytes of its text.
    pub span: Range<usize>,
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It runs, but perhaps not as meant.
    Warning,
    /// It cannot run.
    Error,
}

/// One thing that is wrong with a user's file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable code such as `CJ012`, listed in `docs/diagnostics.md`.
    pub code: &'static str,
    /// Where; `None` when it is about no place in a file (the file is missing).
    pub place: Option<Place>,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What to write instead, when that is known.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(code: &'static str, place: Option<Place>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, place, message: message.into(), hint: None }
    }

    /// A warning at a place.
    #[must_use]
    pub fn warning(code: &'static str, place: Option<Place>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
