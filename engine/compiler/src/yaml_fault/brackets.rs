//! Brackets and braces that do not pair, and texts that hold some.

use super::{Line, YamlFault, fault_at};

/// Brackets and braces that do not pair.
pub(super) fn brackets(text: &str, at: usize, message: &str) -> Option<YamlFault> {
    let about =
        ["flow", "bracket", "indicator", "mapping keys", "node content", "flow construct", "unexpected character"];
    if !about.iter().any(|word| message.contains(word)) {
        return None;
    }
    let here = text[at..].chars().next().unwrap_or(' ');
    if message.contains("misplaced") && matches!(here, '}' | ']') {
        let hint = "remove it, or put a text that holds it into quotes";
        return Some(fault_at(at..at + 1, format!("this `{here}` closes nothing"), hint));
    }
    let Some(unpaired) = unpaired(text, at) else {
        return if message.contains("unexpected character") { None } else { stray_text(text, at) };
    };
    match unpaired {
        Unpaired::Open(open, c) => {
            let closing = if c == '{' { '}' } else { ']' };
            let (number, _) = line_column(text, open);
            let here = Line::at(text, at);
            let is_inside = here.start <= open || !message.contains("did not find");
            if is_inside && at > open && closes_later(text, open) {
                return stray_text(text, at);
            }
            Some(fault_at(
                open..open + 1,
                format!("the `{c}` on line {number} is not closed"),
                format!("add `{closing}` where it ends"),
            ))
        }
        Unpaired::Close(at, c, None) => Some(fault_at(
            at..at + 1,
            format!("this `{c}` closes nothing"),
            "remove it, or put a text that holds it into quotes",
        )),
        Unpaired::Close(at, c, Some(open)) => {
            let wanted = if text[open..].starts_with('{') { '}' } else { ']' };
            let (number, _) = line_column(text, open);
            let message = format!("`{c}` stands where the `{}` of line {number} should be closed", &text[open..=open]);
            Some(fault_at(at..at + 1, message, format!("write `{wanted}` before it")))
        }
    }
}

/// Text behind a closed bracket or quote inside of braces, as in `pattern: [A-Z]+`.
fn stray_text(text: &str, at: usize) -> Option<YamlFault> {
    let line = Line::at(text, at);
    let (value_at, value) = enclosing_value(&line, at)?;
    let end = line.text[value_at..].find('}').filter(|_| value.starts_with("${"));
    let value = end.map_or(value, |end| &line.text[value_at..=value_at + end]);
    let span = line.start + value_at..line.start + value_at + value.len();
    if let Some((first, _)) = value.split_once(": ").filter(|_| !value.contains(['[', '{', '$'])) {
        let (before, key) = first.rsplit_once(' ').unwrap_or(("", first));
        let start = line.start + value_at + before.len();
        let message = format!("a comma is missing before `{}`", key.trim());
        return Some(fault_at(
            start + 1..start + 1 + key.len(),
            message,
            "settings inside of braces stand between commas",
        ));
    }
    let quote = if value.contains('\'') { '"' } else { '\'' };
    Some(fault_at(
        span,
        format!("the text `{value}` needs quotes: it holds characters with a meaning in YAML"),
        format!("write {quote}{value}{quote}"),
    ))
}

/// The value after the last `: ` before a place, up to the comma or brace behind it.
fn enclosing_value<'a>(line: &Line<'a>, at: usize) -> Option<(usize, &'a str)> {
    let column = at.saturating_sub(line.start).min(line.text.len());
    let start = line.text[..floor(line.text, column)].rfind(": ").or_else(|| line.text.rfind(": "))? + 2;
    let rest = &line.text[start..];
    let mut depth = 0_i32;
    let end = rest.char_indices().find(|(_, c)| {
        depth += i32::from(matches!(c, '[' | '{')) - i32::from(matches!(c, ']' | '}'));
        depth < 0 || (depth == 0 && *c == ',')
    });
    let value = rest[..end.map_or(rest.len(), |(at, _)| at)].trim_end();
    (!value.is_empty()).then_some((start, value))
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

enum Unpaired {
    Open(usize, char),
    Close(usize, char, Option<usize>),
}

/// The first bracket that has no partner; quotes, comments and blocks of text are passed over. Text behind a place counts
/// only while a bracket is open there.
fn unpaired(text: &str, at: usize) -> Option<Unpaired> {
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut scan = Scan::new(text);
    while let Some((place, c)) = scan.next() {
        if place > at + 400 || (place > at && open.is_empty()) {
            break;
        }
        match c {
            '{' | '[' if scan.opens_value(place) || !open.is_empty() => open.push((place, c)),
            '}' | ']' => match open.pop() {
                Some((_, opener)) if (opener == '{') == (c == '}') => {}
                Some((opener, _)) => return Some(Unpaired::Close(place, c, Some(opener))),
                None if scan.looks_flow(place) => return Some(Unpaired::Close(place, c, None)),
                None => {}
            },
            _ => {}
        }
    }
    open.first().map(|(place, c)| Unpaired::Open(*place, *c))
}

/// Whether the bracket there is closed by what follows, brackets counted alone.
fn closes_later(text: &str, open: usize) -> bool {
    let mut depth = 0_i32;
    for c in text[open..].chars().take(2_000) {
        depth += i32::from(matches!(c, '[' | '{')) - i32::from(matches!(c, ']' | '}'));
        if depth == 0 {
            return true;
        }
    }
    false
}

/// The characters of a text that are outside of quotes and comments.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn next(&mut self) -> Option<(usize, char)> {
        loop {
            let c = self.text[self.at..].chars().next()?;
            let place = self.at;
            self.at += c.len_utf8();
            let after_space = self.text[..place].ends_with([' ', '\n', '[', '{', ',']) || place == 0;
            match c {
                '#' if after_space => self.skip_to('\n'),
                '"' | '\'' if after_space => self.skip_to(c),
                _ => return Some((place, c)),
            }
        }
    }

    fn skip_to(&mut self, end: char) {
        let mut escaped = false;
        while let Some(c) = self.text[self.at..].chars().next() {
            self.at += c.len_utf8();
            if c == end && !escaped {
                return;
            }
            escaped = c == '\\' && end == '"' && !escaped;
        }
    }

    /// Whether a bracket there begins a value rather than standing in a text.
    fn opens_value(&self, place: usize) -> bool {
        let before = self.text[..place].trim_end_matches(' ');
        before.is_empty() || before.ends_with([':', '-', '\n', ',', '[', '{'])
    }

    fn looks_flow(&self, place: usize) -> bool {
        let line = Line::at(self.text, place);
        line.text[..place - line.start].contains(['{', '['])
    }
}

fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    (before.matches('\n').count() + 1, at - before.rfind('\n').map_or(0, |at| at + 1))
}
