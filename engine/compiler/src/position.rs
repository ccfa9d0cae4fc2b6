//! From a place in a scalar's text back to the bytes of the file.
//!
//! YAML changes a scalar's white space (indentation goes, folded lines join) and quoting, never the order of its visible
//! characters. So text and source are walked side by side: visible characters are paired, white space is skipped on
//! either side. That is exact for every token, whatever the style of the scalar.

use std::ops::Range;

use crate::node::Span;

/// Where the bytes `wanted` of a scalar's text stand in the source. `span` is the scalar's place there.
pub(crate) fn locate(source: &str, span: &Span, text: &str, wanted: &Range<usize>) -> Span {
    let mut walk = Walk::new(source, span);
    let (mut start, mut end) = (None, None);
    for (at, c) in text.char_indices() {
        if at >= wanted.end && start.is_some() {
            break;
        }
        if c.is_whitespace() {
            continue;
        }
        let found = walk.advance_to(c);
        if at >= wanted.start {
            start.get_or_insert(found.start);
            end = Some(found.end);
        }
    }
    // Nothing visible follows: the fault is at the end of the text.
    let start = start.unwrap_or(walk.at);
    start..end.unwrap_or(start).max(start)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
}

struct Walk<'a> {
    source: &'a str,
    style: Style,
    at: usize,
    end: usize,
}

impl<'a> Walk<'a> {
    fn new(source: &'a str, span: &Span) -> Self {
        let scalar = source.get(span.clone()).unwrap_or_default();
        let (style, skip) = match scalar.chars().next() {
            Some('\'') => (Style::Single, 1),
            Some('"') => (Style::Double, 1),
            // The line that opens a block holds its indicators and perhaps a comment.
            Some('|' | '>') => (Style::Plain, scalar.find('\n').map_or(scalar.len(), |at| at + 1)),
            _ => (Style::Plain, 0),
        };
        let end = span.start + scalar.len();
        Self { source, style, at: (span.start + skip).min(end), end }
    }

    /// Goes past the next occurrence of `wanted` and says where it was.
    fn advance_to(&mut self, wanted: char) -> Range<usize> {
        while let Some((c, length, escape)) = self.peek() {
            let found = self.at..self.at + length;
            self.at = found.end;
            // What an escape stands for is not decoded: an escape of something visible pairs with whatever comes.
            if escape == Some(true) || (escape.is_none() && c == wanted) {
                return found;
            }
        }
        self.at..self.at
    }

    /// The next character, how many bytes it takes, and for an escape whether it stands for something visible.
    fn peek(&self) -> Option<(char, usize, Option<bool>)> {
        let rest = self.source.get(self.at..self.end)?;
        let mut chars = rest.chars();
        let first = chars.next()?;
        match (self.style, first, chars.next()) {
            (Style::Double, '\\', Some(escape)) => {
                let digits = match escape {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                let length = rest.chars().take(2 + digits).map(char::len_utf8).sum();
                Some((first, length, Some(matches!(escape, '"' | '\\' | '/' | 'x' | 'u' | 'U'))))
            }
            (Style::Single, '\'', Some('\'')) => Some((first, 2, None)),
            _ => Some((first, first.len_utf8(), None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use cornjacket_core::diagnostic::SourceFile;

    use super::*;
    use crate::report::{Care, Report};

    /// Every scalar style holds the same SQL; the word `wrong` is found in each.
    #[test]
    fn tokens_are_found_in_every_style_of_scalar() {
        let styles = [
            "s: SELECT 'it''s' AS a, wrong FROM t\n",
            "s: SELECT 'é' AS a,\n   wrong\n   FROM t\n",
            "s: |\n  SELECT 'ü' AS a,\n    wrong\n  FROM t\n",
            "s: |2-   # SQL with wrong comment\n    SELECT a,\n\n    wrong FROM t",
            "s: >-\n  SELECT a,\n  wrong FROM t\n",
            "s: 'SELECT ''it'' AS a, wrong FROM t'\n",
            "s: \"SELECT \\\"A\\\" AS a,\\n\\\n    \\u0041, wrong FROM t\"\n",
            "s: |\r\n  SELECT a,\r\n  wrong FROM t\r\n",
        ];
        for yaml in styles {
            let file = Arc::new(SourceFile { path: PathBuf::from("t.yaml"), text: yaml.into() });
            let mut report = Report::new(file, Care::Run);
            let root = crate::yaml::parse(&mut report).expect(yaml);
            let value = &root.entry("s").expect(yaml).value;
            let text = value.text().expect(yaml);
            let at = text.rfind("wrong").expect(yaml);
            let found = locate(yaml, &value.span, text, &(at..at + 5));
            assert_eq!(&yaml[found.clone()], "wrong", "{yaml}");
            assert_eq!(found.start, yaml.rfind("wrong").expect(yaml), "{yaml}");
            let beyond = locate(yaml, &value.span, text, &(text.len()..text.len()));
            assert!(beyond.end <= yaml.len(), "{yaml}");
        }
    }
}
