//! The form that nearly all events have, read in one pass: an envelope whose type comes before its payload, texts without
//! escapes, numbers without exponents, and the payload's fields.
//!
//! Whatever is in this form is taken as the careful readers would take it. Everything else is left to them: what is
//! wrong, too, since they find all that is wrong with an event and say so. So there is no error here, only `None`.

use std::borrow::Cow;

use crate::id::EventId;
use crate::time::{is_valid_event_time, parse_rfc3339};

use super::envelope::{Envelope, MAX_AGGREGATE_ID};
use super::fault::Faults;
use super::table::Table;

/// A longer number is left to the careful readers.
const MAX_NUMBER: usize = 40;

/// Reads JSON from its beginning to its end.
pub(super) struct Scanner<'t> {
    text: &'t str,
    at: usize,
    /// How many objects may still be opened within each other.
    depth: usize,
}

impl<'t> Scanner<'t> {
    pub fn new(text: &'t str, depth: usize) -> Self {
        Self { text, at: 0, depth }
    }

    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Passes this byte, and white space before it.
    fn pass(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Whether there is nothing more.
    pub fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// A text without escapes.
    pub fn characters(&mut self) -> Option<&'t str> {
        self.pass(b'"')?;
        let rest = &self.text.as_bytes()[self.at..];
        let length = plain_length(rest)?;
        let characters = self.text.get(self.at..self.at + length)?;
        self.at += length + 1;
        (rest[length] == b'"').then_some(characters)
    }

    /// A number without an exponent, and whether it has a point.
    pub fn number(&mut self) -> Option<(&'t str, bool)> {
        let first = self.peek()?;
        let rest = &self.text.as_bytes()[self.at..];
        let whole = usize::from(first == b'-');
        let digits = digits(&rest[whole..]);
        let mut end = whole + digits;
        if digits == 0 || digits > 1 && rest[whole] == b'0' {
            return None;
        }
        let has_point = rest.get(end) == Some(&b'.');
        if has_point {
            let decimals = self::digits(&rest[end + 1..]);
            end += 1 + decimals;
            if decimals == 0 {
                return None;
            }
        }
        if end > MAX_NUMBER || matches!(rest.get(end), Some(b'e' | b'E')) {
            return None;
        }
        let number = self.text.get(self.at..self.at + end)?;
        self.at += end;
        Some((number, has_point))
    }

    /// `true`, `false` or `null`.
    pub fn word(&mut self, word: &str) -> Option<()> {
        self.peek()?;
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// The first byte of the next value.
    pub fn next_value(&mut self) -> Option<u8> {
        self.peek()
    }

    /// Passes a value that is no object and no list.
    pub fn skip_simple(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.characters().map(drop),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number().map(drop),
        }
    }

    /// Reads an object: the reader is given each key, and passes its value.
    pub fn object(&mut self, mut member: impl FnMut(&mut Self, &'t str) -> Option<()>) -> Option<()> {
        self.depth = self.depth.checked_sub(1)?;
        self.pass(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
        } else {
            loop {
                let key = self.characters()?;
                self.pass(b':')?;
                member(self, key)?;
                let byte = self.peek()?;
                self.at += 1;
                match byte {
                    b',' => {}
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        self.depth += 1;
        Some(())
    }
}

/// Where the first quote, backslash or control character is. Eight bytes are looked at together: a byte is less than `n` where
/// taking `n` from it sets its highest bit, which was not set before; and one that is sought is less than 1 once what is
/// sought is taken out of it. What a byte borrows from the next one makes only those behind the first hit wrong.
fn plain_length(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = ONES << 7;
    let is_less = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGHEST;
    let is_byte = |word: u64, byte: u8| is_less(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = is_less(word, 0x20) | is_byte(word, b'"') | is_byte(word, b'\\');
        if found != 0 {
            return Some(number * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let place = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    Some(words.len() * 8 + place)
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Reads an envelope, and its payload into the columns of its event type, whose number is put into `table`. Where it is
/// `None`, a row of that table may have been begun; [`Table::roll_back`] puts that right.
pub(super) fn read<'t>(
    text: &'t str,
    depth: usize,
    (tables, table): (&mut [Table], &mut Option<usize>),
    faults: &mut Faults,
) -> Option<Envelope<'t>> {
    let mut envelope = Envelope::default();
    let mut scanner = Scanner::new(text, depth);
    scanner.object(|scanner, key| {
        match key {
            "event_type" if table.is_none() => {
                let name = scanner.characters()?;
                // An unknown one is left to who can say what is meant.
                *table = Some(tables.binary_search_by(|table| table.event_type().name.as_str().cmp(name)).ok()?);
                envelope.event_type = Some(Cow::Borrowed(name));
            }
            "aggregate_id" if envelope.aggregate_id.is_none() => {
                let id = scanner.characters()?;
                let is_usual = !id.is_empty() && id.len() <= MAX_AGGREGATE_ID && id.bytes().all(|b| b < 0x7f);
                envelope.aggregate_id = Some(Cow::Borrowed(is_usual.then_some(id)?));
            }
            "event_time" if envelope.event_time.is_none() => {
                let time = parse_rfc3339(scanner.characters()?).filter(|time| is_valid_event_time(*time));
                envelope.event_time = Some(time?);
            }
            "event_id" if envelope.event_id.is_none() => {
                envelope.event_id = Some(EventId::parse(scanner.characters()?)?);
            }
            "trace_id" if envelope.trace_id.is_none() => {
                envelope.trace_id = Some(Cow::Borrowed(scanner.characters()?));
            }
            "payload" if envelope.payload.is_none() => {
                scanner.next_value()?;
                let begin = scanner.at;
                tables.get_mut((*table)?)?.read_usual(scanner, faults)?;
                envelope.payload = text.get(begin..scanner.at);
            }
            // The metadata, keys that are there twice or unknown, and those of other kinds of events.
            _ => return None,
        }
        Some(())
    })?;
    let is_whole = scanner.is_at_end() && envelope.aggregate_id.is_some() && envelope.payload.is_some();
    is_whole.then_some(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_plain_characters_is_found_whatever_is_around_it() {
        for length in 0..40 {
            for end in 0..=u8::MAX {
                for other in [b'a', 0x7f, 0x80, 0xff, b'#', b'!', b'[', b']', b' '] {
                    // What follows must not matter, not even where it borrows.
                    let mut bytes = vec![other; length];
                    bytes.push(end);
                    bytes.extend([0, b'"', 0x1f, 0x21, b'\\', 0xff, 1, b'"', b'"']);
                    let expected = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
                    assert_eq!(plain_length(&bytes), expected, "{bytes:?}");
                }
            }
        }
        assert_eq!((plain_length(b""), plain_length(b"abcdefghij")), (None, None));
    }
}
