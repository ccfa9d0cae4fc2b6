//! What is checked of a body before it is read as JSON: size, encoding, depth, and escapes that are no characters.
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
