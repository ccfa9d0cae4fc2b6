//! Parquet: a message a row, as the JSON of its columns.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use cornjacket_core::catalogue::FieldType;
use cornjacket_core::door::{EnvelopeTemplate, Message};
use cornjacket_core::print::{NonFinite, check_printable, is_printable, json_lines};
use cornjacket_core::{Result, json};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::LogicalType;
use parquet::schema::types::{SchemaDescriptor, TypePtr};

use super::reader::{BUNDLE_MESSAGES, FormatReader, Piece, Place, failed};

/// The rows of a file.
pub(super) struct Rows {
    path: PathBuf,
    columns: Columns,
    batches: ParquetRecordBatchReader,
    row_count: u64,
    number: u64,
    bytes: u64,
}

impl Rows {
    pub(super) fn open(path: &Path, place: &Place, envelope: Option<&Arc<EnvelopeTemplate>>) -> Result<Self> {
        let file = File::open(path).map_err(|error| failed(path, &error))?;
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(path, &error))?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let columns = Columns::new(builder.parquet_schema(), envelope);
        let skipped = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let batches = builder.with_batch_size(BUNDLE_MESSAGES / 2).with_offset(skipped).build();
        let batches = batches.map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.into(), columns, batches, row_count: rows, number: place.offset, bytes })
    }

    fn piece(&mut self, rows: &RecordBatch) -> Result<Piece> {
        let rows = self.columns.of(rows)?;
        let mut piece = Piece::default();
        if check_printable(&rows).is_ok() {
            for line in json_lines(&rows, NonFinite::Text)? {
                self.add(&line, None, &mut piece);
            }
        } else {
            for row in 0..rows.num_rows() {
                let row = rows.slice(row, 1);
                let fault = check_printable(&row).err().map(|error| error.to_string());
                for line in json_lines(&printable(&row)?, NonFinite::Text)? {
                    self.add(&line, fault.clone(), &mut piece);
                }
            }
        }
        (piece.offset, piece.number) = (self.number, self.number);
        Ok(piece)
    }

    fn add(&mut self, line: &str, fault: Option<String>, piece: &mut Piece) {
        let start = piece.bytes.len();
        piece.bytes.extend_from_slice(line.as_bytes());
        self.number += 1;
        piece.messages.push(Message { bytes: start..piece.bytes.len(), number: self.number, fault });
    }
}

/// The row without the values that nobody can print.
fn printable(row: &RecordBatch) -> Result<RecordBatch> {
    let column = |column: &ArrayRef| {
        if is_printable(column) { Arc::clone(column) } else { new_null_array(column.data_type(), column.len()) }
    };
    let nullable =
        row.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(nullable)), row.columns().iter().map(column).collect())?)
}

/// What each column is taken for.
struct Columns(Vec<Kind>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What it is.
    Plain,
    /// Kept as bytes, and written as people write them.
    Uuid,
    /// Text that is JSON.
    Json,
    /// Dates that are read as times, since the catalogue wants that.
    Time,
}

impl Columns {
    fn new(schema: &SchemaDescriptor, envelope: Option<&Arc<EnvelopeTemplate>>) -> Self {
        let is_time = |name: &str| match envelope {
            Some(envelope) => {
                let mut fields = envelope.event_type.fields.iter();
                fields.any(|field| field.name == name && matches!(field.data_type, FieldType::Timestamp))
            }
            None => name == "event_time",
        };
        let kind = |field: &TypePtr| match field.get_basic_info().logical_type_ref() {
            Some(LogicalType::Uuid) => Kind::Uuid,
            Some(LogicalType::Json) => Kind::Json,
            _ if is_time(field.name()) => Kind::Time,
            _ => Kind::Plain,
        };
        Self(schema.root_schema().get_fields().iter().map(kind).collect())
    }

    fn of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let schema = rows.schema();
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (at, (field, column)) in schema.fields().iter().zip(rows.columns()).enumerate() {
            let kind = self.0.get(at).copied().unwrap_or(Kind::Plain);
            let column: ArrayRef = match (field.data_type(), kind) {
                (DataType::FixedSizeBinary(16), Kind::Uuid) => uuid_texts(column),
                (DataType::Date32 | DataType::Date64, Kind::Time) if is_printable(column) => {
                    cast(column, &cornjacket_core::time::timestamp_type())?
                }
                _ => Arc::clone(column),
            };
            let field = Field::new(field.name(), column.data_type().clone(), true);
            fields.push(if kind == Kind::Json { json::marked(field) } else { field });
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }
}

fn uuid_texts(column: &ArrayRef) -> ArrayRef {
    let text = |bytes: Option<&[u8]>| Some(uuid::Uuid::from_slice(bytes?).ok()?.hyphenated().to_string());
    Arc::new(column.as_fixed_size_binary().iter().map(text).collect::<StringArray>())
}

impl FormatReader for Rows {
    fn next(&mut self) -> Result<Option<Piece>> {
        match self.batches.next() {
            Some(Ok(rows)) => self.piece(&rows).map(Some),
            Some(Err(error)) => Err(failed(&self.path, &error)),
            None => Ok(None),
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes.saturating_mul(self.number) / self.row_count.max(1)
    }
}
