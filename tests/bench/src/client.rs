//! An HTTP client that costs next to nothing: one keep-alive connection that a thread writes to and reads from.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// After how many seconds to come again, where it says so.
    pub retry_after: Option<u64>,
}

impl Answer {
    pub fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

impl Connection {
    pub fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, read: Vec::with_capacity(4_096) })
    }

    pub fn get(&mut self, path: &str) -> Result<Answer> {
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").as_bytes())?;
        self.answer()
    }

    pub fn post(&mut self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let head = post_head(path, content_type, body.len());
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer> {
        self.read.clear();
        loop {
            if let Some(head) = head(&self.read)
                && let Some(body) = head.body(&self.read)
            {
                return Ok(Answer { status: head.status, body, retry_after: head.retry_after });
            }
            let mut part = [0; 16_384];
            match self.stream.read(&mut part)? {
                0 => bail!("the connection was closed"),
                n => self.read.extend_from_slice(&part[..n]),
            }
        }
    }
}

/// The lines before the body of a POST.
pub fn post_head(path: &str, content_type: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n")
}

/// What the head of an answer says.
pub struct Head {
    pub status: u16,
    /// Where the body begins.
    begin: usize,
    /// How long it is; `None` where it comes in chunks.
    length: Option<usize>,
    retry_after: Option<u64>,
}

/// The head of an answer, once it is there to its end.
pub fn head(read: &[u8]) -> Option<Head> {
    let end = read.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let number = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let length = usize::try_from(number("content-length:").unwrap_or(0)).ok()?;
    let is_chunked = text.contains("transfer-encoding: chunked");
    let length = if is_chunked { None } else { Some(length) };
    Some(Head { status, begin: end + 4, length, retry_after: number("retry-after:") })
}

impl Head {
    /// Whether the answer is there to its end.
    pub fn is_whole(&self, read: &[u8]) -> bool {
        self.body(read).is_some()
    }

    /// The body, once it is there to its end.
    fn body(&self, read: &[u8]) -> Option<Vec<u8>> {
        match self.length {
            Some(length) => Some(read.get(self.begin..self.begin + length)?.to_vec()),
            None => chunks(&read[self.begin..]),
        }
    }
}

/// The body that chunks make, once the last of them is there.
fn chunks(mut read: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = read.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&read[..end]).ok()?.trim(), 16).ok()?;
        let chunk = read.get(end + 2..end + 2 + length)?;
        let rest = read.get(end + 2 + length + 2..)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
        read = rest;
    }
}
