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
    check_depth(body, limits.max_depth)?;
    check_escapes(body)?;
    Ok(text)
}

pub(super) fn reject(kind: RejectionKind, code: &'static str, message: String) -> Rejection {
    Rejection { kind, code, message, details: Vec::new() }
}

/// Counting every opening bracket is quick and settles it for nearly all bodies; only more than `max` are looked at.
fn check_depth(body: &[u8], max: usize) -> Result<(), Rejection> {
    let brackets = body.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if brackets <= max || depth(body) <= max {
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
    // Most bodies have no backslash, and finding that out is quick.
    let mut at = if body.contains(&b'\\') { 0 } else { body.len() };
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
    let is_exponent = |pair: &[u8]| matches!(pair, [b'0'..=b'9', b'e' | b'E']);
    // Most texts can have no such number, and finding that out is quick.
    if bytes.len() <= MAX_DIGITS && !bytes.windows(2).any(is_exponent) {
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

/// Whether a JSON value is a number that the JSON reader cannot represent.
pub(super) fn is_beyond_range(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && serde_json::from_str::<f64>(raw).is_err()
}
