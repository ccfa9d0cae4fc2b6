//! An epoch's rows as lines of JSON or CSV, with the operation where it is wanted: `insert`, `delete`, and `update` where a
//! row takes the place of one with the same key.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, SortField};
use cornjacket_core::batch::Batch;
use cornjacket_core::graph::SinkOutput;
use cornjacket_core::print::{NonFinite, cell_texts, json_lines};
use cornjacket_core::{Error, Result};

use super::rows::EpochRows;

/// The column that says what happened to a row.
pub(super) const OPERATION: &str = "op";

/// What sinks know of the stream they read.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) schema: SchemaRef,
    /// Whether it takes rows back.
    pub(super) updating: bool,
    /// The columns that identify a row of it, where that is known.
    pub(super) key: Option<Vec<usize>>,
}

/// Rows and what happened to each.
pub(super) struct Changes {
    rows: RecordBatch,
    operations: Vec<&'static str>,
}

impl Changes {
    /// The net changes of an epoch.
    pub(super) fn of(batches: &[Batch], stream: &Stream) -> Result<Self> {
        let columns: Vec<usize> = (0..stream.schema.fields().len()).collect();
        let epoch = EpochRows::concat(batches, &columns, &stream.schema)?;
        if !stream.updating {
            return Ok(Self { operations: vec!["insert"; epoch.rows.num_rows()], rows: epoch.rows });
        }
        let epoch = epoch.consolidated()?;
        let weights = epoch.weight.as_ref();
        let is_delete = |row: usize| weights.is_some_and(|weights| weights.value(row) < 0);
        let deletes: Vec<bool> = (0..epoch.rows.num_rows()).map(is_delete).collect();
        if let Some(key) = &stream.key {
            return Self::keyed(&epoch.rows, &deletes, key);
        }
        let operation = |delete: &bool| if *delete { "delete" } else { "insert" };
        Ok(Self { operations: deletes.iter().map(operation).collect(), rows: epoch.rows })
    }

    /// A row that is taken back and one with the same key that comes are one update.
    fn keyed(rows: &RecordBatch, deletes: &[bool], key: &[usize]) -> Result<Self> {
        let keys = keys_of(rows, key)?;
        let mut coming: HashMap<&OwnedRow, usize> = HashMap::new();
        for (key, delete) in keys.iter().zip(deletes) {
            *coming.entry(key).or_default() += usize::from(!delete);
        }
        let gone: HashMap<&OwnedRow, bool> =
            keys.iter().zip(deletes).filter(|(_, delete)| **delete).map(|(key, _)| (key, true)).collect();
        let (mut kept, mut operations) = (Vec::new(), Vec::new());
        for (row, (key, delete)) in (0..).zip(keys.iter().zip(deletes)) {
            let comes_anew = coming.get(key).is_some_and(|count| *count > 0);
            let operation = match (*delete, comes_anew, gone.contains_key(key)) {
                (true, true, _) => continue,
                (true, false, _) => "delete",
                (false, _, true) => "update",
                (false, _, false) => "insert",
            };
            kept.push(row);
            operations.push(operation);
        }
        Ok(Self { rows: take_record_batch(rows, &UInt32Array::from(kept))?, operations })
    }

    /// Each row as a JSON object; nulls are written. The operation comes first where it is wanted.
    pub(super) fn json_lines(&self, with_operation: bool) -> Result<Vec<String>> {
        let mut lines = json_lines(&self.rows, NonFinite::Text)?;
        if with_operation {
            for (line, operation) in lines.iter_mut().zip(&self.operations) {
                let comma = if line.len() > 2 { "," } else { "" };
                line.insert_str(1, &format!("\"{OPERATION}\":\"{operation}\"{comma}"));
            }
        }
        Ok(lines)
    }

    /// Each row as a line of CSV, after its operation; null is empty. A text may hold line breaks, so rows are written one by
    /// one.
    pub(super) fn csv_lines(&self) -> Result<Vec<String>> {
        let schema = self.rows.schema();
        let columns = schema.fields().iter().zip(self.rows.columns());
        let columns = columns.map(|(field, column)| cell_texts(field, column)).collect::<Result<Vec<_>>>()?;
        let line = |(row, operation): (usize, &&str)| {
            let cells = columns.iter().map(|column| column[row].as_deref().unwrap_or_default());
            let mut writer = csv::Writer::from_writer(Vec::new());
            let written = writer.write_record(std::iter::once(*operation).chain(cells));
            written.map_err(|error| Error::Compute(error.to_string()))?;
            let bytes = writer.into_inner().map_err(|error| Error::Compute(error.to_string()))?;
            let text = String::from_utf8(bytes).map_err(|error| Error::Compute(error.to_string()))?;
            Ok(text.trim_end_matches('\n').to_string())
        };
        self.operations.iter().enumerate().map(line).collect()
    }
}

/// What a sink gives that writes its changes as lines. Rows that cancel out, and those that an update replaces, have none.
pub(super) fn as_lines(batches: &[Batch], lines: Vec<String>) -> SinkOutput {
    let taken: usize = batches.iter().map(Batch::num_rows).sum();
    SinkOutput { superseded: taken.saturating_sub(lines.len()) as u64, lines, ..SinkOutput::default() }
}

fn keys_of(rows: &RecordBatch, key: &[usize]) -> Result<Vec<OwnedRow>> {
    let schema = rows.schema();
    let fields = key.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
    let columns: Vec<ArrayRef> = key.iter().map(|at| rows.column(*at).clone()).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(&columns)?;
    Ok(encoded.iter().map(|row| row.owned()).collect())
}
