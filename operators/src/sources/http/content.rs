//! What a request says of its body: the kind of JSON, the `CloudEvent`'s attributes beside it, the compression, and the
//! `Idempotency-Key`.

use axum::http::{HeaderMap, HeaderValue, header};
use cornjacket_core::door::{ClientId, Form};
use cornjacket_core::id::EventId;
use sha2::{Digest, Sha256};

use super::Caller;
use super::answer::Problem;

/// The greatest length of an `Idempotency-Key`.
const MAX_KEY_BYTES: usize = 255;

/// What headers of `CloudEvents` begin with.
const PREFIX: &str = "ce-";

/// The body of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// An event a line.
    Lines,
    /// One JSON array.
    Array,
    /// One of the two: it is not said.
    Either,
    /// One event.
    One(Form),
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// What the content type is. Types that are no JSON are refused even where the body would do, since a browser sends some of
/// them, and none at all, across sites without asking.
enum Type {
    Missing,
    Json,
    Lines,
    CloudEvent,
    CloudEvents,
}

/// What kind of JSON the body of a single event is.
pub(super) fn of_event(headers: &HeaderMap) -> Result<Form, Problem> {
    let is_coded = |encoding: &&HeaderValue| !encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(is_coded) {
        let error =
            format!("a single event is not compressed ({encoding:?}): /api/v1/events/batch takes gzip and zstd");
        return Err(Problem::unsupported(error));
    }
    match content_type(headers)? {
        Type::CloudEvent => Ok(Form::CloudEvent),
        Type::Missing | Type::Json => Ok(attributes(headers)?.map_or(Form::Any, Form::CloudEventData)),
        Type::Lines | Type::CloudEvents => {
            Err(Problem::unsupported("this path takes one event: send several to /api/v1/events/batch".into()))
        }
    }
}

/// What kind of batch a body is.
pub(super) fn of_batch(headers: &HeaderMap) -> Result<(Batch, Coding), Problem> {
    let coding = coding(headers)?;
    let batch = match content_type(headers)? {
        Type::Lines => Batch::Lines,
        Type::CloudEvents => Batch::Array,
        Type::CloudEvent => Batch::One(Form::CloudEvent),
        other => match (attributes(headers)?, other) {
            (Some(attributes), _) => Batch::One(Form::CloudEventData(attributes)),
            (None, Type::Json) => Batch::Array,
            (None, _) => Batch::Either,
        },
    };
    if matches!(batch, Batch::One(_)) && coding != Coding::Identity {
        return Err(Problem::unsupported("a single event is not compressed: send an array or lines".into()));
    }
    Ok((batch, coding))
}

fn coding(headers: &HeaderMap) -> Result<Coding, Problem> {
    let listed = headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let listed = listed.flat_map(|list| list.split(',')).map(|coding| coding.trim().to_ascii_lowercase());
    // None at all may be said as often as one likes.
    let mut codings = listed.filter(|coding| !coding.is_empty() && coding != "identity");
    let coding = match codings.next().as_deref() {
        None => Some(Coding::Identity),
        Some("gzip" | "x-gzip") => Some(Coding::Gzip),
        Some("zstd") => Some(Coding::Zstd),
        Some(_) => None,
    };
    coding.filter(|_| codings.next().is_none()).ok_or_else(|| {
        let error = "the content encoding is not supported: send gzip, zstd, or none";
        Problem::unsupported(error.into()).with_header("accept-encoding", "gzip, zstd")
    })
}

fn content_type(headers: &HeaderMap) -> Result<Type, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        if headers.contains_key(header::ORIGIN) {
            return Err(Problem::unsupported(
                "from a web page the content type has to be said: send application/json".into(),
            ));
        }
        return Ok(Type::Missing);
    };
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let charset = parts.find_map(|part| part.split_once('=').filter(|(name, _)| name.trim() == "charset"));
    let charset = charset.map(|(_, value)| value.trim());
    let is_utf8 =
        matches!(charset.map(|charset| charset.trim_matches('"')), None | Some("utf-8" | "utf8" | "us-ascii"));
    let known = match essence {
        "application/json" | "text/json" => Some(Type::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Some(Type::Lines)
        }
        "application/cloudevents+json" => Some(Type::CloudEvent),
        "application/cloudevents-batch+json" => Some(Type::CloudEvents),
        other if other.starts_with("application/") && other.ends_with("+json") => Some(Type::Json),
        _ => None,
    };
    known.filter(|_| is_utf8).ok_or_else(|| {
        let how = "with curl, --json DATA or -H 'content-type: application/json'";
        Problem::unsupported(format!("the content type is {value:?}: send application/json in UTF-8 ({how})"))
    })
}

/// The attributes of a `CloudEvent` in binary mode; `None` if the headers are of none. The content type is one of them.
fn attributes(headers: &HeaderMap) -> Result<Option<Vec<(String, String)>>, Problem> {
    if !headers.contains_key("ce-specversion") {
        return Ok(None);
    }
    let mut attributes = Vec::new();
    for (name, value) in headers {
        let name = match name.as_str().strip_prefix(PREFIX) {
            // What the data is, its own header says.
            Some("datacontenttype") => continue,
            Some(name) => name,
            None if name == header::CONTENT_TYPE => "datacontenttype",
            None => continue,
        };
        let value = unescaped(value).ok_or_else(|| Problem::wrong_attribute(name))?;
        attributes.push((name.to_owned(), value));
    }
    Ok(Some(attributes))
}

/// A header's value as it was meant: without the quotes of a quoted string, then percent-decoded once (the HTTP binding of
/// `CloudEvents`, section 3.1.3.2). `None` if that is not UTF-8.
fn unescaped(value: &HeaderValue) -> Option<String> {
    let bytes = value.as_bytes();
    let quoted = bytes.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let bytes = quoted.map_or_else(|| bytes.to_vec(), without_backslashes);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some((first, more)) = rest.split_first() {
        let digit = |at: usize| char::from(*more.get(at)?).to_digit(16);
        let code = digit(0).zip(digit(1)).filter(|_| *first == b'%').map(|(high, low)| high << 4 | low);
        decoded.push(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(*first));
        rest = if code.is_some() { &more[2..] } else { more };
    }
    String::from_utf8(decoded).ok()
}

fn without_backslashes(quoted: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let is_kept = |byte: &&u8| {
        escaped = **byte == b'\\' && !escaped;
        !escaped
    };
    quoted.iter().filter(is_kept).copied().collect()
}

/// What an `Idempotency-Key` says.
pub(super) struct Key {
    text: String,
    caller: String,
}

impl Key {
    /// The key of a request, if it has one. Keys are the caller's own.
    pub fn of(headers: &HeaderMap, caller: Option<&Caller>) -> Result<Option<Self>, Problem> {
        let mut keys = headers.get_all("idempotency-key").iter();
        let Some(key) = keys.next() else { return Ok(None) };
        // Of two different keys neither can be trusted to be the event's.
        if keys.any(|other| other != key) {
            return Err(Problem::wrong_key());
        }
        let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES);
        let text = key.ok_or_else(Problem::wrong_key)?.to_owned();
        Ok(Some(Self { text, caller: caller.map_or_else(String::new, |caller| caller.name.to_string()) }))
    }

    /// The identity of the request's only event.
    pub fn identity(self) -> ClientId {
        ClientId { id: id(self.hash()), original: self.text }
    }

    /// The identity of the event at a place of the request's batch.
    pub fn identity_at(&self, index: u64) -> ClientId {
        // No key has a zero byte, so this is nobody's key.
        let hash = self.hash().chain_update([0]).chain_update(index.to_be_bytes());
        ClientId { id: id(hash), original: format!("{}/{index}", self.text) }
    }

    fn hash(&self) -> Sha256 {
        // The length keeps a caller's name and the key apart.
        Sha256::new().chain_update(self.caller.len().to_be_bytes()).chain_update(&self.caller).chain_update(&self.text)
    }
}

fn id(hash: Sha256) -> EventId {
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    EventId::v8(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn attributes_are_unescaped_once() {
        // The examples of the HTTP binding, and texts that are no escapes.
        let cases = [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("\"quoted \\\"text\\\" \\\\\"", "quoted \"text\" \\"),
            ("100%25%20", "100% "),
            ("100% %zz %4", "100% %zz %4"),
            ("\"", "\""),
            ("grün", "grün"),
        ];
        for (value, expected) in cases {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            assert_eq!(unescaped(&value).as_deref(), Some(expected));
        }
        assert_eq!(unescaped(&HeaderValue::from_static("%ff")), None);
    }

    #[test]
    fn a_request_says_what_its_body_is() {
        let of =
            |pairs: &[(&'static str, &str)]| of_batch(&headers(pairs)).map_err(|problem| problem.status().as_u16());
        assert_eq!(of(&[]), Ok((Batch::Either, Coding::Identity)));
        assert_eq!(of(&[("content-type", "application/JSONL; charset=utf-8")]), Ok((Batch::Lines, Coding::Identity)));
        let zipped = [("content-type", "application/cloudevents-batch+json"), ("content-encoding", "gzip")];
        assert_eq!(of(&zipped), Ok((Batch::Array, Coding::Gzip)));
        assert_eq!(of(&[("content-encoding", "gzip"), ("content-encoding", "zstd")]), Err(415));
        assert_eq!(of(&[("content-encoding", "br")]), Err(415));
        for coding in ["GZIP", "Gzip", "X-GZip", "gzip, identity", "Identity,GZIP"] {
            assert_eq!(of(&[("content-encoding", coding)]), of(&[("content-encoding", "gzip")]), "{coding}");
        }
        assert_eq!(of(&[("content-encoding", "IDENTITY")]), of(&[]));
        assert_eq!(of(&[("content-encoding", "gzip, zstd")]), Err(415));
        assert_eq!(of(&[("origin", "https://elsewhere.example")]), Err(415));
        assert_eq!(of(&[("ce-specversion", "1.0"), ("content-type", "text/plain")]), Err(415));
        let attributes = [("specversion", "1.0"), ("id", "a b"), ("datacontenttype", "application/json")];
        let expected = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let binary = [
            ("ce-specversion", "1.0"),
            ("ce-id", "a%20b"),
            ("ce-datacontenttype", "text/xml"),
            ("content-type", "application/json"),
            ("x-other", "1"),
        ];
        assert_eq!(of(&binary), Ok((Batch::One(Form::CloudEventData(expected.clone())), Coding::Identity)));
        assert_eq!(of_event(&headers(&binary)).ok(), Some(Form::CloudEventData(expected)));
    }
}
