//! What is sent: events a line, each with an identity, so that sending it again stores it once.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use cornjacket_core::id::EventId;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// The greatest length of a line: what the door takes.
const MAX_LINE: usize = 1 << 20;
/// A file up to this size may also be one JSON text over several lines: an event, or an array of them.
const MAX_TEXT: u64 = 16 << 20;

/// A line that is no blank one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which input it is of, from 0.
    pub input: usize,
    /// Which line of that, from 1; in an array, which item.
    pub number: u64,
    /// As it was there.
    pub text: Vec<u8>,
    /// The id it is sent with, and the place in the text where that goes in, instead of so many bytes.
    id: Option<(String, usize, usize)>,
    /// Whether it is longer than an event may be; the text is cut then.
    pub is_too_long: bool,
    /// How many bytes of all inputs were read by then.
    pub read: u64,
}

impl Line {
    /// Adds what is sent of it.
    pub fn write(&self, body: &mut Vec<u8>) {
        let Some((id, at, instead)) = &self.id else { return body.extend_from_slice(&self.text) };
        body.extend_from_slice(&self.text[..*at]);
        body.extend_from_slice(id.as_bytes());
        body.extend_from_slice(&self.text[at + instead..]);
    }
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// One event.
    Event(String),
    /// A file.
    File(PathBuf),
    /// What comes on stdin.
    Stdin,
}

impl Input {
    /// How people know it.
    pub fn name(&self) -> String {
        match self {
            Self::Event(_) => "the event".into(),
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "stdin".into(),
        }
    }

    /// What its events' identities begin with. A file that is as it was is the same input; nothing else is, unless it is
    /// said.
    pub fn key(&self, number: usize, said: Option<&str>) -> io::Result<String> {
        match (said, self) {
            (Some(said), _) => Ok(format!("said\0{said}\0{number}")),
            (None, Self::File(path)) => {
                let changed = std::fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                Ok(format!("file\0{}\0{}", std::fs::canonicalize(path)?.display(), changed.as_nanos()))
            }
            (None, _) => Ok(format!("once\0{}", uuid::Uuid::new_v4())),
        }
    }

    /// How many bytes it has, if that is known.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Event(text) => Some(text.len() as u64),
            Self::File(path) => std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len()),
            Self::Stdin => None,
        }
    }
}

/// The lines of an input.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    input: usize,
    key: String,
    number: u64,
    read: u64,
    /// Lines that a JSON text was made into, the last first.
    made: Vec<Vec<u8>>,
}

impl Lines {
    /// Begins to read; `read` bytes were read of other inputs.
    pub fn open(input: &Input, number: usize, key: String, read: u64) -> io::Result<Self> {
        let (reader, made): (Box<dyn BufRead>, _) = match input {
            Input::Event(text) => (Box::new(io::empty()), vec![text.clone().into_bytes()]),
            Input::Stdin => (Box::new(BufReader::with_capacity(1 << 18, io::stdin())), Vec::new()),
            Input::File(path) => match whole_text(path)? {
                Some(made) => (Box::new(io::empty()), made),
                None => (Box::new(BufReader::with_capacity(1 << 18, File::open(path)?)), Vec::new()),
            },
        };
        Ok(Self { reader, input: number, key, number: 0, read, made })
    }

    /// How many bytes of all inputs were read.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// The next line.
    pub fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let mut text = Vec::new();
            let is_too_long = match self.made.pop() {
                Some(made) => {
                    self.read += made.len() as u64;
                    text = made;
                    text.len() > MAX_LINE
                }
                None => match self.read_line(&mut text)? {
                    None => return Ok(None),
                    Some(is_too_long) => is_too_long,
                },
            };
            self.number += 1;
            let text = text.trim_ascii().to_vec();
            if text.is_empty() && !is_too_long {
                continue;
            }
            let id = if is_too_long { None } else { identified(&text, || identity(&self.key, self.number, &text)) };
            return Ok(Some(Line { input: self.input, number: self.number, text, id, is_too_long, read: self.read }));
        }
    }

    /// Reads up to a line break; whether the line is too long, in which case only its beginning is kept.
    fn read_line(&mut self, text: &mut Vec<u8>) -> io::Result<Option<bool>> {
        // The line break and what blanks there may be are no part of the event.
        let most = MAX_LINE as u64 + 1_024;
        let mut read = self.reader.by_ref().take(most).read_until(b'\n', text)? as u64;
        if read == 0 {
            return Ok(None);
        }
        if read == most && !text.ends_with(b"\n") {
            read += self.reader.skip_until(b'\n')? as u64;
        }
        self.read += read;
        let is_too_long = text.trim_ascii().len() > MAX_LINE;
        Ok(Some(is_too_long))
    }
}

/// What a file holds that is one JSON text over several lines, the last first; `None` where its lines are to be read.
fn whole_text(path: &Path) -> io::Result<Option<Vec<Vec<u8>>>> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.len() > MAX_TEXT {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(MAX_TEXT).read_to_end(&mut text)?;
    let first = text.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_array = first.starts_with(b"[");
    if !is_array && serde_json::from_slice::<&RawValue>(first).is_ok() {
        return Ok(None);
    }
    if is_array {
        let items = serde_json::from_slice::<Vec<&RawValue>>(&text).ok();
        return Ok(items.map(|items| items.iter().rev().map(|item| one_line(item)).collect()));
    }
    let whole = serde_json::from_slice::<&RawValue>(&text).ok();
    Ok(whole.filter(|whole| whole.get().starts_with('{')).map(|whole| vec![one_line(whole)]))
}

/// Line breaks between tokens mean nothing in JSON, and within texts there are none.
fn one_line(value: &RawValue) -> Vec<u8> {
    value.get().replace(['\n', '\r'], " ").into_bytes()
}

/// The identity of a line: the same line at the same place of the same input has the same.
fn identity(key: &str, number: u64, text: &[u8]) -> EventId {
    let hash = Sha256::new().chain_update(key.len().to_be_bytes()).chain_update(key);
    let hash = hash.chain_update(number.to_be_bytes()).chain_update(text).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    EventId::v8(id)
}

/// The members that tell whether an event has an identity of its own.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    event_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    specversion: Option<&'a RawValue>,
}

/// A member that is there, be it null.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Where an id goes into an event that has none. What is no event the door says; it has no identity.
fn identified(text: &[u8], id: impl FnOnce() -> EventId) -> Option<(String, usize, usize)> {
    let members = serde_json::from_slice::<Members<'_>>(text).ok().filter(|_| text.starts_with(b"{"))?;
    match members.event_id {
        // A CloudEvent's id is its source and id.
        _ if members.specversion.is_some() => None,
        None => {
            let is_empty = text[1..].trim_ascii_start().starts_with(b"}");
            Some((format!("\"event_id\":\"{}\"{}", id(), if is_empty { "" } else { "," }), 1, 0))
        }
        Some(value) if value.get() == "null" => {
            let at = value.get().as_ptr().addr() - text.as_ptr().addr();
            Some((format!("\"{}\"", id()), at, value.get().len()))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(text: &str, key: &str) -> Vec<Line> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let mut lines = Lines::open(&Input::File(file.path().into()), 0, key.into(), 0).expect("it opens");
        std::iter::from_fn(|| lines.next().expect("it reads")).collect()
    }

    fn sent(line: &Line) -> String {
        let mut body = Vec::new();
        line.write(&mut body);
        String::from_utf8(body).expect("UTF-8")
    }

    #[test]
    fn events_without_an_identity_get_one() {
        let text = "{\"a\":1}\n\n  {} \r\n{\"event_id\": null ,\"a\":{\"event_id\":1}}\n{\"a\":1,\"event_id\":\"x\"}\n\
                    {\"specversion\":\"1.0\"}\n{\"a\":\n[1]";
        let lines = lines(text, "k");
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3, 4, 5, 6, 7, 8]);
        let id = |at: usize| identity("k", lines[at].number, &lines[at].text);
        assert_eq!(sent(&lines[0]), format!("{{\"event_id\":\"{}\",\"a\":1}}", id(0)));
        assert_eq!(sent(&lines[1]), format!("{{\"event_id\":\"{}\"}}", id(1)));
        assert_eq!(sent(&lines[2]), format!("{{\"event_id\": \"{}\" ,\"a\":{{\"event_id\":1}}}}", id(2)));
        for as_it_is in &lines[3..] {
            assert_eq!(sent(as_it_is).as_bytes(), as_it_is.text);
        }
        assert_eq!(lines[6].read, text.len() as u64);
    }

    #[test]
    fn an_identity_is_the_inputs_the_places_and_the_texts() {
        let ids = |text: &str, key: &str| lines(text, key).iter().map(sent).collect::<Vec<_>>();
        let (once, again) =
            (ids("{\"a\":1}\n{\"a\":1}\n{\"a\":2}\n", "k"), ids("{\"a\":1}\n{\"a\":1}\n{\"a\":3}\n", "k"));
        assert_eq!(once[..2], again[..2]);
        assert!(once[0] != once[1] && once[2] != again[2]);
        assert_ne!(once[0], ids("{\"a\":1}\n", "l")[0]);
    }

    #[test]
    fn a_file_may_be_one_text_over_several_lines() {
        let pretty = lines("{\n  \"a\": 1\n}\n", "k");
        assert_eq!((pretty.len(), &*pretty[0].text), (1, &b"{   \"a\": 1 }"[..]));
        let array = lines("[{\"a\":1},\n {\"a\":\n2}, 3]", "k");
        let texts: Vec<_> = array.iter().map(|line| (line.number, String::from_utf8_lossy(&line.text))).collect();
        assert_eq!(texts, [(1, "{\"a\":1}".into()), (2, "{\"a\": 2}".into()), (3, "3".into())]);
        assert_eq!(lines("[1,\n{", "k").len(), 2, "lines, each of which is wrong");
    }

    #[test]
    fn a_line_that_is_too_long_takes_no_memory() {
        let long = format!("{{\"a\":\"{}\"}}\n{{}}\n", "x".repeat(3 << 20));
        let lines = lines(&long, "k");
        assert!(lines[0].is_too_long && lines[0].text.len() < 2 << 20);
        assert_eq!((lines[1].number, lines[1].is_too_long, lines[1].read), (2, false, long.len() as u64));
        let most = format!("{{\"a\":\"{}\"}}", "x".repeat((1 << 20) - 8));
        assert!(!super::tests::lines(&most, "k")[0].is_too_long);
    }
}
