//! What is checked of a body before it is read as JSON: size, encoding, depth, and escapes that are no characters; and
//! of parts that are kept as they were sent, the range of their numbers.
//!
//! After this the readers can rely on text whose nesting fits the stack and whose every string is Unicode, also in the
//! parts that are kept without being read.

use crate::door::{Rejection, RejectionKind};

use super::Limits;

/// The body as text.
pub(super) fn check<'b>(body: &'b [u8], limits: &Limits) -> Result<&'b str, Rejection> {
    if body.len() > limits.max_body_bytes {
        let message = format!("the event has {} bytes, and {} are allowed", body.len(), limits.max_body_bytes);
        return Err(reject(RejectionKind::TooLarge, "too_large", message));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        let message = format!("the body is not UTF-8 from byte {} on", error.valid_up_to());
        reject(RejectionKind::Malformed, "not_utf8", message)
    })?;
    if body.iter().all(u8::is_ascii_whitespace) {
        let message = "the body is empty, and a JSON object was expected".to_owned();
        return Err(reject(RejectionKind::Malformed, "empty_body", message));
    }
    // Most bodies have few brackets and no backslash, and finding that out is quick.
    let (brackets, has_backslash) = survey(body);
    if brackets > limits.max_depth {
        check_depth(body, limits.max_depth)?;
    }
    if has_backslash {
        check_escapes(body)?;
    }
    Ok(text)
}

/// How many brackets open, counted within strings as well, and whether there is a backslash. Counting in bytes and without
/// a way out lets the compiler look at many bytes at a time.
fn survey(body: &[u8]) -> (usize, bool) {
    const PART: usize = 128;
    let (mut brackets, mut backslashes) = (0, 0_u8);
    for part in body.chunks(PART) {
        let mut of_part = 0_u8;
        for byte in part {
            // `[` and `{` differ in one bit, and no other byte is either with it set.
            of_part += u8::from(*byte | 0x20 == b'{');
            backslashes |= u8::from(*byte == b'\\');
        }
        brackets += usize::from(of_part);
    }
    (brackets, backslashes != 0)
}

pub(super) fn reject(kind: RejectionKind, code: &'static str, message: String) -> Rejection {
    Rejection { kind, code, message, details: Vec::new() }
}

fn check_depth(body: &[u8], max: usize) -> Result<(), Rejection> {
    if depth(body) <= max {
        return Ok(());
    }
    let message = format!("the JSON is nested deeper than {max} levels");
    Err(reject(RejectionKind::Malformed, "too_deep", message))
}

/// The greatest nesting outside strings.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Finds halves of surrogate pairs: JSON can spell them, but they are no characters. Backslashes outside strings are
/// left to the JSON reader.
fn check_escapes(body: &[u8]) -> Result<(), Rejection> {
    let mut at = 0;
    while let Some(next) = body[at..].iter().position(|byte| *byte == b'\\') {
        at += next;
        let width = match unit(&body[at..]) {
            Some(0xd800..=0xdbff) if matches!(unit(&body[at + 6..]), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                let message = format!("the escape at byte {at} is half of a surrogate pair, which is no character");
                return Err(reject(RejectionKind::Malformed, "invalid_json", message));
            }
            _ => 2,
        };
        at = (at + width).min(body.len());
    }
    Ok(())
}

/// The code unit of a `\uXXXX` that the bytes begin with.
fn unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// A number without an exponent can have this many digits and still be within the range of a double.
const MAX_DIGITS: usize = 308;

/// The first number in valid JSON that the JSON reader cannot represent. Parts that are kept as they were sent must not
/// have one, or nobody could read them later.
pub(super) fn number_beyond_range(json: &str) -> Option<&str> {
    let bytes = json.as_bytes();
    // Most texts can have no such number, and finding that out is quick: without a way out the compiler looks at many
    // bytes at a time.
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    let exponents = pairs.fold(0, |any, (a, b)| any | (u8::from(a.is_ascii_digit()) & u8::from(*b | 0x20 == b'e')));
    if bytes.len() <= MAX_DIGITS && exponents == 0 {
        return None;
    }
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => string_end(bytes, at),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end = at + bytes[at..].iter().take_while(is_part).count();
                if let Some(number) = json.get(at..end).filter(|number| is_beyond_range(number)) {
                    return Some(number);
                }
                end
            }
            _ => at + 1,
        };
    }
    None
}

/// Where the string that begins at a quote ends.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// The characters of a valid JSON value if it is a string without escapes, as most are.
pub(super) fn plain(raw: &str) -> Option<&str> {
    let characters = raw.strip_prefix('"')?.strip_suffix('"')?;
    (!characters.as_bytes().contains(&b'\\')).then_some(characters)
}

/// Whether a JSON value is a number that the JSON reader cannot represent.
pub(super) fn is_beyond_range(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && serde_json::from_str::<f64>(raw).is_err()
}
