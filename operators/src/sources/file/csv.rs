//! CSV: a message a row, as a JSON object by the names in the header.
//!
//! A value's JSON follows from the type that the catalogue gives the column: numbers, booleans and nested values stand
//! as they are if they are such, everything else is text, and the catalogue's check says what does not fit.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cornjacket_core::Result;
use cornjacket_core::catalogue::FieldType;
use cornjacket_core::door::{EnvelopeTemplate, Message};
use csv::{ByteRecord, Position, ReaderBuilder, Trim};
use serde_json::value::RawValue;

use super::reader::{BUNDLE_BYTES, BUNDLE_MESSAGES, FormatReader, Piece, Place, failed};

/// The longest row that is an event.
const MAX_ROW: u64 = 1 << 20;
/// What is read for a row at most, which may begin behind what was read for the one before.
const MAX_READ: u64 = 2 * MAX_ROW;

/// The rows of a file.
///
/// A quote that is not closed would take the rest of the file for one value. So a row that is longer than a row may be, that goes
/// on to the end of the file within quotes, or of several lines where a quote is closed in the middle of a value, is taken to
/// be wrong: its first line is a dead letter, and reading goes on with the next line.
pub(super) struct Rows {
    path: PathBuf,
    file: File,
    records: csv::Reader<Bounded>,
    columns: Vec<Column>,
    /// Lines end with CR LF. The reader takes the LF to be the beginning of the next row.
    has_cr: bool,
    /// Of the file, as it was when this bundle was begun.
    length: u64,
    offset: u64,
    number: u64,
}

/// A file of which no more is read for a row than a row may have.
struct Bounded {
    file: File,
    /// How much may still be read for the row at hand.
    left: u64,
}

/// What the file says when a row is longer than that.
const TOO_LONG: &str = "the row is too long";

impl Read for Bounded {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::Error::other(TOO_LONG));
        }
        let read = self.file.read(to)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

struct Column {
    /// Its name as JSON.
    name: String,
    kind: Kind,
}

/// What a column's values are, as JSON.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Boolean,
    /// Numbers; times may be numbers too.
    Number,
    /// Any JSON.
    Nested,
}

impl Kind {
    fn of(field: Option<&FieldType>) -> Self {
        match field {
            None | Some(FieldType::String) => Self::Text,
            Some(FieldType::Boolean) => Self::Boolean,
            Some(FieldType::Int | FieldType::BigInt | FieldType::Float | FieldType::Double | FieldType::Timestamp) => {
                Self::Number
            }
            Some(FieldType::Json | FieldType::List(_) | FieldType::Struct(_)) => Self::Nested,
        }
    }

    /// A value as JSON, or `None` if it has to be text.
    fn json(self, value: &str) -> Option<&str> {
        match self {
            Self::Text => None,
            Self::Boolean => match value {
                "true" | "TRUE" | "True" => Some("true"),
                "false" | "FALSE" | "False" => Some("false"),
                _ => None,
            },
            Self::Number => {
                let starts_so = value.starts_with(|first: char| first == '-' || first.is_ascii_digit());
                (starts_so && serde_json::from_str::<&RawValue>(value).is_ok()).then_some(value)
            }
            Self::Nested => serde_json::from_str::<&RawValue>(value).is_ok().then_some(value),
        }
    }
}

impl Rows {
    pub(super) fn open(path: &Path, place: &Place, envelope: Option<&Arc<EnvelopeTemplate>>) -> Result<Self> {
        let file = File::open(path).map_err(|error| failed(path, &error))?;
        let again = file.try_clone().map_err(|error| failed(path, &error))?;
        let again = Bounded { file: again, left: MAX_READ };
        let mut rows = ReaderBuilder::new().flexible(true).trim(Trim::Headers).from_reader(again);
        let header = rows.byte_headers().map_err(|error| failed(path, &error))?.clone();
        let fields = envelope.map(|envelope| envelope.event_type.fields.as_slice()).unwrap_or_default();
        let mut columns = Vec::new();
        for name in &header {
            let name = std::str::from_utf8(name).map_err(|error| failed(path, &error))?;
            let name = name.trim_start_matches('\u{feff}');
            let field = fields.iter().find(|field| field.name == name);
            let kind = Kind::of(field.map(|field| &field.data_type));
            columns.push(Column { name: serde_json::Value::from(name).to_string(), kind });
        }
        let mut next = [0];
        // At the end of the file there is no byte, and no row either.
        let has_cr = file.read_at(&mut next, rows.position().byte()).is_ok_and(|read| read == 1) && next == *b"\n";
        if place.offset > 0 {
            let mut position = Position::new();
            position.set_byte(place.offset).set_line(place.number);
            rows.seek(position).map_err(|error| failed(path, &error))?;
        }
        let (offset, number) = (rows.position().byte(), rows.position().line());
        Ok(Self { path: path.into(), file, records: rows, columns, has_cr, length: 0, offset, number })
    }

    /// Adds the next row; false at the end of the file.
    fn add_row(&mut self, record: &mut ByteRecord, piece: &mut Piece) -> Result<bool> {
        let before = self.records.position().clone();
        self.records.get_mut().left = MAX_READ;
        match self.records.read_byte_record(record) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) if error.to_string().contains(TOO_LONG) => return self.add_first_line(&before, piece),
            Err(error) => return Err(failed(&self.path, &error)),
        }
        let after = self.records.position().clone();
        let may_be_open = after.line() > before.line() + 1 || after.byte() >= self.length;
        if may_be_open && !self.is_closed(before.byte(), after.byte())? {
            return self.add_first_line(&before, piece);
        }
        (self.offset, self.number) = (after.byte(), after.line());
        let start = piece.bytes.len();
        let fault = match self.fault_of(record, after.byte() - before.byte()) {
            None => {
                write_object(record, &self.columns, &mut piece.bytes);
                None
            }
            Some(fault) => {
                self.add_raw(before.byte(), after.byte(), &mut piece.bytes)?;
                Some(fault)
            }
        };
        let number = record.position().map_or(before.line(), Position::line) + u64::from(self.has_cr);
        piece.messages.push(Message { bytes: start..piece.bytes.len(), number, fault });
        Ok(true)
    }

    /// Whether the quotes of these bytes of the file begin and end values, and all are closed.
    fn is_closed(&self, from: u64, to: u64) -> Result<bool> {
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, from).map_err(|error| failed(&self.path, &error))?;
        Ok(are_quotes_closed(&bytes))
    }

    /// The first line of a row that cannot be read as one; what stands behind it is read as rows of its own.
    fn add_first_line(&mut self, row: &Position, piece: &mut Piece) -> Result<bool> {
        let (start, length) = (piece.bytes.len(), self.line_length(row.byte())?);
        self.add_raw(row.byte(), row.byte() + length, &mut piece.bytes)?;
        let is_long = length > MAX_ROW;
        let fault = if is_long {
            format!("the row has {length} bytes, and {MAX_ROW} are allowed")
        } else {
            "a quote is not closed, or closed in the middle of a value; a quote inside of quotes is written twice"
                .into()
        };
        let mut next = Position::new();
        next.set_byte(row.byte() + length).set_line(row.line() + 1);
        self.records.get_mut().left = MAX_READ;
        let at = SeekFrom::Start(next.byte());
        self.records.seek_raw(at, next.clone()).map_err(|error| failed(&self.path, &error))?;
        (self.offset, self.number) = (next.byte(), next.line());
        let number = row.line() + u64::from(self.has_cr);
        piece.messages.push(Message { bytes: start..piece.bytes.len(), number, fault: Some(fault) });
        Ok(true)
    }

    /// The length of the line that begins there, with its end.
    fn line_length(&self, from: u64) -> Result<u64> {
        let (mut length, mut bytes) = (0, vec![0; 64 << 10]);
        loop {
            let read = self.file.read_at(&mut bytes, from + length).map_err(|error| failed(&self.path, &error))?;
            // With CR LF a row begins with the LF of the one before.
            let skipped = usize::from(length == 0 && bytes.first() == Some(&b'\n'));
            if let Some(at) = bytes[skipped.min(read)..read].iter().position(|byte| *byte == b'\n') {
                let end = length + (skipped + at) as u64;
                return Ok(if self.has_cr { end } else { end + 1 });
            }
            if read == 0 {
                return Ok(length);
            }
            length += read as u64;
        }
    }

    fn fault_of(&self, record: &ByteRecord, length: u64) -> Option<String> {
        if record.len() != self.columns.len() {
            return Some(format!("the row has {} values, and the header has {}", record.len(), self.columns.len()));
        }
        if length > MAX_ROW {
            return Some(format!("the row has {length} bytes, and {MAX_ROW} are allowed"));
        }
        let wrong = record.iter().zip(&self.columns).find(|(value, _)| std::str::from_utf8(value).is_err());
        wrong.map(|(_, column)| format!("the value of {} is not UTF-8", column.name))
    }

    /// The bytes of a row as they are in the file.
    fn add_raw(&self, from: u64, to: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let start = bytes.len();
        bytes.resize(start + usize::try_from((to - from).min(MAX_ROW)).unwrap_or(0), 0);
        let read = self.file.read_exact_at(&mut bytes[start..], from);
        read.map_err(|error| failed(&self.path, &error))?;
        let row = bytes[start..].trim_ascii().to_vec();
        bytes.truncate(start);
        bytes.extend_from_slice(&row);
        Ok(())
    }
}

/// Whether quotes stand around whole values only, and the last one is closed.
fn are_quotes_closed(row: &[u8]) -> bool {
    let row = row.trim_ascii_start();
    let mut bytes = row.iter().copied().peekable();
    let (mut is_quoted, mut begins) = (false, true);
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if is_quoted && bytes.peek() == Some(&b'"') => {
                bytes.next();
            }
            b'"' if is_quoted => {
                is_quoted = false;
                if !matches!(bytes.peek(), None | Some(b',' | b'\r' | b'\n')) {
                    return false;
                }
            }
            b'"' if begins => is_quoted = true,
            _ => {}
        }
        begins = !is_quoted && matches!(byte, b',' | b'\r' | b'\n');
    }
    !is_quoted
}

/// Writes a row as JSON. Empty values are left out, which is null.
fn write_object(record: &ByteRecord, columns: &[Column], bytes: &mut Vec<u8>) {
    bytes.push(b'{');
    let start = bytes.len();
    for (value, Column { name, kind }) in record.iter().zip(columns) {
        let Some(value) = std::str::from_utf8(value).ok().filter(|value| !value.is_empty()) else { continue };
        if bytes.len() > start {
            bytes.push(b',');
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b':');
        match kind.json(value.trim()) {
            Some(json) => bytes.extend_from_slice(json.as_bytes()),
            None => bytes.extend_from_slice(serde_json::Value::from(value).to_string().as_bytes()),
        }
    }
    bytes.push(b'}');
}

impl FormatReader for Rows {
    fn next(&mut self) -> Result<Option<Piece>> {
        let (mut piece, mut record) = (Piece::default(), ByteRecord::new());
        self.length = self.file.metadata().map_or(0, |metadata| metadata.len());
        while piece.bytes.len() < BUNDLE_BYTES && piece.messages.len() < BUNDLE_MESSAGES {
            if !self.add_row(&mut record, &mut piece)? {
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
