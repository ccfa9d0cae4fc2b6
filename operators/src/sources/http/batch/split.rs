//! Cuts the bytes of a batch into its events, without reading them: lines, or the items of a JSON array.
//!
//! All events of a chunk lie in one buffer, and an event is a range of it. What is longer than an event may be is skipped
//! while it comes, so that it takes no memory.

use std::ops::Range;

use cornjacket_core::door::Message;
use memchr::memchr;

use super::super::content::Batch;

/// Bytes of a chunk, about.
const CHUNK_BYTES: usize = 1 << 19;

/// Cuts a batch into events.
pub(super) struct Splitter {
    shape: Shape,
    max_bytes: usize,
    max_messages: usize,
    buffer: Vec<u8>,
    messages: Vec<Message>,
    /// Where the event begins that is not whole yet.
    start: usize,
    /// Up to where the buffer was looked at.
    at: usize,
    /// Whether that event is too long, so that its bytes are let go.
    is_skipping: bool,
    /// How many events were found.
    count: u64,
    /// How many bytes of the body came before the buffer's, or were let go.
    before: u64,
    has_content: bool,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Lines,
    /// Either an array or lines: the first character tells.
    Unknown,
    /// `[`.
    Opening,
    /// An item; after `[` there may be none.
    Item {
        is_first: bool,
    },
    /// The rest of an item.
    Within(Nesting),
    /// A comma or `]`.
    Behind,
    /// Nothing more.
    Closed,
}

/// How far an item was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Nesting {
    depth: u32,
    in_text: bool,
    is_escaped: bool,
}

/// Events to hand in together.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub bytes: Vec<u8>,
    pub messages: Vec<Message>,
    /// The place of the first one in the batch, from 0.
    pub first: u64,
}

/// What ends an array before its end.
type Broken = String;

impl Splitter {
    /// For events of at most so many bytes, and chunks of at most so many events.
    pub fn new(batch: &Batch, max_bytes: usize, max_messages: usize) -> Self {
        let shape = match batch {
            Batch::Lines => Shape::Lines,
            Batch::Array => Shape::Opening,
            Batch::Either | Batch::One(_) => Shape::Unknown,
        };
        Self {
            shape,
            max_bytes,
            max_messages,
            buffer: Vec::new(),
            messages: Vec::new(),
            start: 0,
            at: 0,
            is_skipping: false,
            count: 0,
            before: 0,
            has_content: false,
        }
    }

    /// Where more bytes of the body go.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there are whole events.
    pub fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Whether the body had nothing but white space so far.
    pub fn is_blank(&self) -> bool {
        !self.has_content
    }

    /// Looks at what has come; true if it stopped because a chunk is full.
    pub fn scan(&mut self) -> Result<bool, Broken> {
        while self.at < self.buffer.len() {
            if self.is_full() {
                return Ok(true);
            }
            match self.shape {
                Shape::Lines => self.line(),
                Shape::Within(nesting) => self.within(nesting),
                other => self.between(other)?,
            }
        }
        self.let_go();
        Ok(self.is_full())
    }

    /// The body is at its end.
    pub fn end(&mut self) -> Result<(), Broken> {
        match self.shape {
            Shape::Lines if self.is_skipping || self.start < self.buffer.len() => self.push_line(self.buffer.len()),
            Shape::Lines | Shape::Unknown | Shape::Closed => {}
            Shape::Opening if self.is_blank() => {}
            _ => return Err(format!("the array is cut off: it has {} whole events and no `]`", self.count)),
        }
        Ok(())
    }

    /// Takes the whole events out; what follows them stays.
    pub fn take(&mut self) -> Chunk {
        let rest = self.buffer.split_off(self.start);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        self.before += bytes.len() as u64;
        self.at -= self.start;
        self.start = 0;
        let messages = std::mem::take(&mut self.messages);
        Chunk { bytes, first: self.count - messages.len() as u64, messages }
    }

    fn is_full(&self) -> bool {
        self.start >= CHUNK_BYTES || self.messages.len() >= self.max_messages
    }

    /// What belongs to no event, or to one that is too long, is not kept.
    fn let_go(&mut self) {
        let is_within = matches!(self.shape, Shape::Lines | Shape::Within(_));
        let is_too_long = is_within && self.buffer.len() - self.start > self.max_bytes;
        // Blank lines are nothing, however long.
        let is_blank = is_too_long && self.buffer[self.start..].trim_ascii_start().is_empty() && !self.is_skipping;
        self.is_skipping |= is_too_long && !is_blank;
        if self.is_skipping || is_blank || !is_within {
            self.before += (self.buffer.len() - self.start) as u64;
            self.buffer.truncate(self.start);
            self.at = self.start;
        }
    }

    fn line(&mut self) {
        match memchr(b'\n', &self.buffer[self.at..]) {
            Some(length) => {
                self.at += length + 1;
                self.push_line(self.at - 1);
                self.start = self.at;
            }
            None => self.at = self.buffer.len(),
        }
    }

    fn push_line(&mut self, end: usize) {
        let line = self.buffer[self.start..end].trim_ascii_end();
        let (length, blank) = (line.len(), line.len() - line.trim_ascii_start().len());
        if length > blank || self.is_skipping {
            self.push(self.start + blank..self.start + length);
        }
        self.start = end;
    }

    fn push(&mut self, bytes: Range<usize>) {
        self.has_content = true;
        self.count += 1;
        let is_too_long = std::mem::take(&mut self.is_skipping) || bytes.len() > self.max_bytes;
        let fault =
            is_too_long.then(|| format!("the event has more than the {} bytes that are allowed", self.max_bytes));
        let bytes = if is_too_long { bytes.start..bytes.start } else { bytes };
        self.messages.push(Message { bytes, number: self.count, fault });
    }

    /// Looks at one character outside the items.
    fn between(&mut self, shape: Shape) -> Result<(), Broken> {
        let byte = self.buffer[self.at];
        if byte.is_ascii_whitespace() {
            self.at += 1;
            return Ok(());
        }
        self.has_content = true;
        let (next, expected) = match (shape, byte) {
            (Shape::Unknown | Shape::Opening, b'[') => (Some(Shape::Item { is_first: true }), ""),
            (Shape::Unknown, _) => {
                self.shape = Shape::Lines;
                return Ok(());
            }
            (Shape::Item { is_first: true } | Shape::Behind, b']') => (Some(Shape::Closed), ""),
            (Shape::Behind, b',') => (Some(Shape::Item { is_first: false }), ""),
            (Shape::Item { .. }, b',' | b']' | b'}' | b':') => (None, "an event was expected"),
            (Shape::Item { .. }, _) => {
                self.start = self.at;
                self.shape = Shape::Within(Nesting::default());
                return Ok(());
            }
            (Shape::Opening, b'{') => (None, "an array was expected; send lines as application/x-ndjson"),
            (Shape::Opening, _) => (None, "an array was expected"),
            (Shape::Behind, _) => (None, "a comma or `]` was expected"),
            _ => (None, "nothing was expected after the array"),
        };
        let place = self.before + self.at as u64;
        self.shape = next.ok_or_else(|| format!("the body is no JSON array: {expected} at byte {place}"))?;
        self.at += 1;
        self.start = self.at;
        Ok(())
    }

    /// Reads on in an item, to its end if it is there.
    fn within(&mut self, mut nesting: Nesting) {
        let mut at = self.at;
        while let Some(byte) = self.buffer.get(at) {
            let is_end =
                nesting.depth == 0 && !nesting.in_text && matches!(byte, b',' | b']' | b' ' | b'\t' | b'\r' | b'\n');
            if is_end {
                return self.end_item(at);
            }
            let is_closing = matches!(byte, b'}' | b']') && !nesting.in_text;
            nesting.pass(*byte);
            at += 1;
            if is_closing && nesting.depth == 0 {
                return self.end_item(at);
            }
        }
        self.at = at;
        self.shape = Shape::Within(nesting);
    }

    fn end_item(&mut self, end: usize) {
        self.push(self.start..end);
        (self.at, self.start, self.shape) = (end, end, Shape::Behind);
    }
}

impl Nesting {
    fn pass(&mut self, byte: u8) {
        if self.in_text {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}
