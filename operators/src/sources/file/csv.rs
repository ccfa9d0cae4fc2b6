//! CSV: a message a row, as a JSON object by the names in the header.
//!
//! A value's JSON follows from the type that the catalogue gives the column: numbers, booleans and nested values stand
//! as they are if they are such, everything else is text, and the catalogue's check says what does not fit.

use std::fs::File;
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

/// The rows of a file.
pub(super) struct Rows {
    path: PathBuf,
    file: File,
    records: csv::Reader<File>,
    columns: Vec<Column>,
    /// Lines end with CR LF. The reader takes the LF to be the beginning of the next row.
    has_cr: bool,
    offset: u64,
    number: u64,
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
        Ok(Self { path: path.into(), file, records: rows, columns, has_cr, offset, number })
    }

    /// Adds the next row; false at the end of the file.
    fn add_row(&mut self, record: &mut ByteRecord, piece: &mut Piece) -> Result<bool> {
        let before = self.records.position().clone();
        if !self.records.read_byte_record(record).map_err(|error| failed(&self.path, &error))? {
            return Ok(false);
        }
        let after = self.records.position().clone();
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
