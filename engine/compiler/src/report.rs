//! Collects what is wrong, so that all of it is shown together.

use std::collections::BTreeMap;
use std::sync::Arc;

use cornjacket_core::diagnostic::{Diagnostic, Place, Severity, SourceFile};

use crate::node::Span;

/// What a file is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// To run it here and now.
    Run,
    /// To find what may be wrong with it anywhere.
    Check,
}

/// The diagnostics of a pipeline file.
pub(crate) struct Report {
    file: Arc<SourceFile>,
    care: Care,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    /// Starts and ends of values that could not be filled in.
    unfilled: BTreeMap<usize, usize>,
}

impl Report {
    pub(crate) fn new(file: Arc<SourceFile>, care: Care) -> Self {
        Self { file, care, diagnostics: Vec::new(), errors: 0, unfilled: BTreeMap::new() }
    }

    /// What the file is looked at for.
    pub(crate) fn care(&self) -> Care {
        self.care
    }

    pub(crate) fn file(&self) -> Arc<SourceFile> {
        Arc::clone(&self.file)
    }

    /// An error at a place of the pipeline file.
    pub(crate) fn error(&mut self, code: &'static str, span: &Span, message: impl Into<String>, hint: Option<String>) {
        let mut diagnostic = Diagnostic::error(code, Some(self.place(span)), message);
        diagnostic.hint = hint;
        self.push(diagnostic);
    }

    /// A warning at a place of the pipeline file.
    pub(crate) fn warning(&mut self, code: &'static str, span: &Span, message: impl Into<String>, hint: &str) {
        self.push(Diagnostic::warning(code, Some(self.place(span)), message).with_hint(hint));
    }

    /// Says that a value could not be filled in, which is reported: nothing else that is found at it has a cause of its own.
    pub(crate) fn mark_unfilled(&mut self, span: &Span) {
        self.unfilled.insert(span.start, span.end);
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.severity == Severity::Error);
        if !self.follows_from_unfilled(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    fn follows_from_unfilled(&self, diagnostic: &Diagnostic) -> bool {
        let Some(place) = &diagnostic.place else { return false };
        let before = self.unfilled.range(..=place.span.start).next_back();
        Arc::ptr_eq(&place.file, &self.file) && before.is_some_and(|(_, end)| place.span.start < *end)
    }

    /// How many errors there are so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// All of them in the order of the file; what points into other files comes last. What is wrong with an aliased value
    /// is there once, however often the value is used.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        let own = Arc::clone(&self.file);
        self.diagnostics.sort_by_key(|diagnostic| match &diagnostic.place {
            None => (0, String::new(), 0),
            Some(place) if Arc::ptr_eq(&place.file, &own) => (1, String::new(), place.span.start),
            Some(place) => (2, place.file.path.display().to_string(), place.span.start),
        });
        let at = |diagnostic: &Diagnostic| diagnostic.place.as_ref().map(|place| place.span.clone());
        self.diagnostics.dedup_by(|b, a| a.code == b.code && a.message == b.message && at(a) == at(b));
        self.diagnostics
    }

    fn place(&self, span: &Span) -> Place {
        Place { file: self.file(), span: span.clone() }
    }
}
