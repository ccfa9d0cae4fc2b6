//! Parquet: a message a row, as the JSON of its columns.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::writer::{LineDelimited, WriterBuilder};
use cornjacket_core::Result;
use cornjacket_core::door::Message;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::reader::{BUNDLE_MESSAGES, FormatReader, Piece, Place, failed};

/// The rows of a file.
pub(super) struct Rows {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    row_count: u64,
    number: u64,
    bytes: u64,
}

impl Rows {
    pub(super) fn open(path: &Path, place: &Place) -> Result<Self> {
        let file = File::open(path).map_err(|error| failed(path, &error))?;
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(path, &error))?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let skipped = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let batches = builder.with_batch_size(BUNDLE_MESSAGES / 2).with_offset(skipped).build();
        let batches = batches.map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.into(), batches, row_count: rows, number: place.offset, bytes })
    }

    fn piece(&mut self, rows: &RecordBatch) -> Result<Piece> {
        let mut piece = Piece::default();
        let mut writer = WriterBuilder::new().build::<_, LineDelimited>(&mut piece.bytes);
        writer.write(&in_utc(rows)?)?;
        writer.finish()?;
        let mut start = 0;
        for (end, _) in piece.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            self.number += 1;
            piece.messages.push(Message { bytes: start..end, number: self.number, fault: None });
            start = end + 1;
        }
        (piece.offset, piece.number) = (self.number, self.number);
        Ok(piece)
    }
}

/// Times without a zone are taken to be UTC; the JSON of times without one could not be read.
fn in_utc(rows: &RecordBatch) -> Result<RecordBatch> {
    let schema = rows.schema();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        let wanted = match field.data_type() {
            DataType::Timestamp(unit, None) => DataType::Timestamp(*unit, Some("UTC".into())),
            DataType::Date32 | DataType::Date64 => cornjacket_core::time::timestamp_type(),
            other => other.clone(),
        };
        let column: ArrayRef = if wanted == *field.data_type() { Arc::clone(column) } else { cast(column, &wanted)? };
        fields.push(Field::new(field.name(), wanted, true));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
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
