//! NDJSON: a message a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cornjacket_core::Result;
use cornjacket_core::door::Message;

use super::reader::{BUNDLE_BYTES, BUNDLE_MESSAGES, FormatReader, Piece, Place, failed};

/// The longest line that is an event; of a longer one this much is kept.
const MAX_LINE: usize = 1 << 20;

/// The lines of a file.
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    number: u64,
}

impl Lines {
    pub(super) fn open(path: &Path, place: &Place) -> Result<Self> {
        let mut file = File::open(path).map_err(|error| failed(path, &error))?;
        file.seek(SeekFrom::Start(place.offset)).map_err(|error| failed(path, &error))?;
        let file = BufReader::with_capacity(256 << 10, file);
        Ok(Self { path: path.into(), file, offset: place.offset, number: place.number })
    }

    /// Adds the next line; false at the end of the file.
    fn add_line(&mut self, piece: &mut Piece) -> std::io::Result<bool> {
        let start = piece.bytes.len();
        let limit = (MAX_LINE + 2) as u64;
        let read = self.file.by_ref().take(limit).read_until(b'\n', &mut piece.bytes)?;
        if read == 0 {
            return Ok(false);
        }
        let mut length = read as u64;
        let is_cut = read as u64 == limit && piece.bytes.last() != Some(&b'\n');
        if is_cut {
            length += skip_line(&mut self.file)?;
        }
        if self.offset == 0 && piece.bytes[start..].starts_with(b"\xef\xbb\xbf") {
            piece.bytes.drain(start..start + 3);
        }
        self.offset += length;
        self.number += 1;
        let line = piece.bytes[start..].trim_ascii();
        let end = start + line.len() + (piece.bytes[start..].len() - piece.bytes[start..].trim_ascii_start().len());
        if line.is_empty() {
            piece.bytes.truncate(start);
            return Ok(true);
        }
        let fault =
            is_cut.then(|| format!("the line has {length} bytes, and {MAX_LINE} are allowed; its start is kept"));
        piece.messages.push(Message { bytes: start..end, number: self.number, fault });
        Ok(true)
    }
}

/// Passes over the rest of a line; says how many bytes it was.
fn skip_line(file: &mut BufReader<File>) -> std::io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            return Ok(skipped);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        skipped += used as u64;
        file.consume(used);
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

impl FormatReader for Lines {
    fn next(&mut self) -> Result<Option<Piece>> {
        let mut piece = Piece::default();
        while piece.bytes.len() < BUNDLE_BYTES && piece.messages.len() < BUNDLE_MESSAGES {
            if !self.add_line(&mut piece).map_err(|error| failed(&self.path, &error))? {
                break;
            }
        }
        (piece.offset, piece.number) = (self.offset, self.number);
        Ok(Some(piece).filter(|piece| !piece.messages.is_empty()))
    }

    fn bytes_read(&self) -> u64 {
        self.offset
    }
}
