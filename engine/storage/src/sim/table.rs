//! A simulated projection table: rows by their key's text.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::TimestampMicrosecondType;
use cornjacket_core::Result;
use cornjacket_core::id::EventId;
use cornjacket_core::projection::{ProjectionSpec, ProjectionWrite, WriteMode};
use cornjacket_core::store::RowFilter;
use cornjacket_core::time::{Micros, timestamp_type};

use crate::key::{Texts, key_texts};
use crate::sqlite::read_schema;
use crate::typed::stored_text;
use crate::written::Written;

pub(super) struct Row {
    values: RecordBatch,
    time: Micros,
    order: i64,
    event_id: Option<EventId>,
    updated_at: Micros,
}

pub(super) struct Table {
    pub(super) spec: ProjectionSpec,
    rows: BTreeMap<String, Row>,
}

impl Table {
    pub(super) fn new(spec: ProjectionSpec) -> Self {
        Self { spec, rows: BTreeMap::new() }
    }

    pub(super) fn write(&mut self, write: &ProjectionWrite, now: Micros) -> Result<Written> {
        let mut written = Written::default();
        for (row, key) in key_texts(&write.rows, &self.spec.key)?.into_iter().enumerate() {
            let ids = write.event_id.as_ref().filter(|ids| ids.is_valid(row));
            let put = Row {
                values: write.rows.slice(row, 1),
                time: write.time.value(row),
                order: write.order.value(row),
                event_id: ids.and_then(|ids| ids.value(row).try_into().ok()).map(EventId),
                updated_at: now,
            };
            let is_delete = write.weight.as_ref().is_some_and(|weight| weight.value(row) < 0);
            let older = |there: &Row| (there.time, there.order) <= (put.time, put.order);
            if is_delete {
                match self.rows.remove(&key) {
                    Some(_) => written.deleted += 1,
                    None => written.superseded += 1,
                }
            } else if write.mode == WriteMode::Changelog || self.rows.get(&key).is_none_or(older) {
                match self.rows.insert(key, put) {
                    Some(_) => written.updated += 1,
                    None => written.inserted += 1,
                }
            } else {
                written.superseded += 1;
            }
        }
        Ok(written)
    }

    /// Deletes rows of before a time; says how many.
    pub(super) fn forget(&mut self, before: Micros, max: u64) -> Result<u64> {
        let mut old = Vec::new();
        for (key, row) in &self.rows {
            if (old.len() as u64) < max && self.time_of(row)? < before {
                old.push(key.clone());
            }
        }
        for key in &old {
            self.rows.remove(key);
        }
        Ok(old.len() as u64)
    }

    fn time_of(&self, row: &Row) -> Result<Micros> {
        let Some(at) = self.spec.time else { return Ok(row.time) };
        let time = arrow::compute::cast(row.values.column(at), &timestamp_type())?;
        let time = time.as_primitive::<TimestampMicrosecondType>();
        Ok(if time.is_null(0) { row.time } else { time.value(0) })
    }

    /// Rows that fit, in the order of their keys.
    pub(super) fn select(&self, filter: &RowFilter) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for row in self.rows.values() {
            if fits(&row.values, filter)? {
                rows.push(self.as_read(row)?);
            }
        }
        Ok(rows)
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<RecordBatch>> {
        self.rows.get(key).map(|row| self.as_read(row)).transpose()
    }

    fn as_read(&self, row: &Row) -> Result<RecordBatch> {
        let time = |value| TimestampMicrosecondArray::from(vec![value]).with_timezone("UTC");
        let mut columns = row.values.columns().to_vec();
        let id = row.event_id.map(|id| id.to_string());
        let event_time = row.event_id.map(|_| row.time);
        columns.push(Arc::new(StringArray::from(vec![id])) as ArrayRef);
        columns.push(Arc::new(time(event_time)));
        columns.push(Arc::new(time(Some(row.updated_at))));
        Ok(RecordBatch::try_new(read_schema(&self.spec), columns)?)
    }
}

pub(super) fn join(spec: &ProjectionSpec, rows: &[RecordBatch]) -> Result<RecordBatch> {
    Ok(concat_batches(&read_schema(spec), rows)?)
}

fn fits(values: &RecordBatch, filter: &RowFilter) -> Result<bool> {
    for (at, text) in &filter.equal {
        let wanted = stored_text(text, values.column(*at).data_type());
        if wanted.is_none() || Texts::new(values.column(*at))?.get(0) != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}
