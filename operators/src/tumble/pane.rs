//! One window's state.
//!
//! Rows go into the **hot** groups. A snapshot freezes them into an immutable **delta**, which is saved once and kept;
//! the window's result is the merge of its deltas and what is hot. A new delta is merged with older ones that are no
//! more than twice its size, so there are few (logarithmically many), and each row is rewritten only so many times.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, RecordBatch, StructArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::DataType;
use arrow::row::{OwnedRow, RowConverter, SortField};
use cornjacket_core::aggregate::{Aggregation, Groups, TumbleSpec};
use cornjacket_core::operator::{PartId, StatePart, StateWriter};
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};

/// Labels of a pane's saved parts, after the window's start.
const STATE: &str = "state";
const EMITTED: &str = "emitted";

/// Saved rows, or rows that will be.
pub(super) struct Delta {
    pub(super) id: Option<PartId>,
    pub(super) rows: RecordBatch,
}

/// What a pane gives out: result rows and, for updates, their weights.
pub(super) struct Emission {
    pub(super) rows: RecordBatch,
    pub(super) weight: Option<Int8Array>,
}

/// One window's groups.
pub(super) struct Pane {
    pub(super) aggregation: Arc<dyn Aggregation>,
    pub(super) hot: Box<dyn Groups>,
    pub(super) deltas: Vec<Delta>,
    /// The rows that went out last, while late rows may still change them.
    emitted: Option<Delta>,
    touched: bool,
}

impl Pane {
    pub(super) fn new(spec: &TumbleSpec) -> Result<Self> {
        let aggregation = Arc::clone(&spec.aggregation);
        Ok(Self { hot: aggregation.create()?, aggregation, deltas: Vec::new(), emitted: None, touched: false })
    }

    pub(super) fn update(&mut self, rows: &RecordBatch) -> Result<()> {
        self.touched = true;
        self.hot.update(rows)
    }

    pub(super) fn has_emitted(&self) -> bool {
        self.emitted.is_some()
    }

    pub(super) fn size(&self) -> usize {
        let saved = self.deltas.iter().chain(&self.emitted).map(|delta| delta.rows.get_array_memory_size());
        self.hot.size() + saved.sum::<usize>()
    }

    /// The last rows of a window that takes no more; its state is used up.
    pub(super) fn close(&mut self) -> Result<Option<Emission>> {
        if self.emitted.is_some() {
            return self.emit();
        }
        let rows = self.result()?;
        Ok(Some(Emission { rows, weight: None }))
    }

    /// The rows of a window that may still change: all of them the first time, then what changed.
    pub(super) fn emit(&mut self) -> Result<Option<Emission>> {
        if !self.touched && self.emitted.is_some() {
            return Ok(None);
        }
        self.freeze()?;
        self.touched = false;
        let rows = self.result()?;
        let keys = self.aggregation.keys();
        let emission = match &self.emitted {
            None => Emission { rows: rows.clone(), weight: None },
            Some(old) => changes(&old.rows, &rows, keys)?,
        };
        self.emitted = Some(Delta { id: None, rows });
        Ok((emission.rows.num_rows() > 0).then_some(emission))
    }

    /// Merges everything; uses up what is hot.
    fn result(&mut self) -> Result<RecordBatch> {
        if self.deltas.is_empty() {
            return self.hot.evaluate();
        }
        let mut merged = self.aggregation.create()?;
        for delta in &self.deltas {
            merged.merge(&delta.rows)?;
        }
        if !self.hot.is_empty() {
            merged.merge(&self.hot.take_state()?)?;
        }
        merged.evaluate()
    }

    fn freeze(&mut self) -> Result<()> {
        if self.hot.is_empty() {
            return Ok(());
        }
        let mut rows = self.hot.take_state()?;
        while self.deltas.last().is_some_and(|last| last.rows.num_rows() <= 2 * rows.num_rows()) {
            let Some(older) = self.deltas.pop() else { break };
            let mut merged = self.aggregation.create()?;
            merged.merge(&older.rows)?;
            merged.merge(&rows)?;
            rows = merged.take_state()?;
        }
        self.deltas.push(Delta { id: None, rows });
        Ok(())
    }

    pub(super) fn snapshot(&mut self, start: Micros, writer: &mut dyn StateWriter) -> Result<()> {
        self.freeze()?;
        for delta in &mut self.deltas {
            save(delta, format!("{start} {STATE}"), writer);
        }
        if let Some(emitted) = &mut self.emitted {
            save(emitted, format!("{start} {EMITTED}"), writer);
        }
        Ok(())
    }

    pub(super) fn restore(&mut self, what: &str, part: StatePart) -> Result<()> {
        let delta = Delta { id: Some(part.id), rows: part.rows };
        match what {
            STATE => self.deltas.push(delta),
            EMITTED => self.emitted = Some(delta),
            other => return Err(Error::Corrupt(format!("window state of kind `{other}`"))),
        }
        Ok(())
    }
}

fn save(delta: &mut Delta, label: String, writer: &mut dyn StateWriter) {
    match delta.id {
        Some(id) => writer.keep(label, id),
        None => delta.id = Some(writer.save(label, delta.rows.clone())),
    }
}

/// The struct column that says which window the rows are of.
pub(super) fn window_column(spec: &TumbleSpec, start: Micros, end: Micros, rows: usize) -> Result<ArrayRef> {
    let DataType::Struct(fields) = spec.schema.field(spec.window_at).data_type() else {
        return Err(Error::Compute("the window column is not a struct".into()));
    };
    let times = |time| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_value(time, rows).with_timezone("UTC")) };
    Ok(Arc::new(StructArray::try_new(fields.clone(), vec![times(start), times(end)], None)?))
}

/// What turns the old rows into the new: rows taken back (−1), then rows put in (+1).
fn changes(old: &RecordBatch, new: &RecordBatch, keys: usize) -> Result<Emission> {
    let (old_keys, old_rows) = encode(old, keys)?;
    let (new_keys, new_rows) = encode(new, keys)?;
    let before: HashMap<OwnedRow, u32> = old_keys.into_iter().zip(0..).collect();
    let (mut back, mut put) = (Vec::new(), Vec::new());
    for (row, (key, whole)) in (0..).zip(new_keys.iter().zip(&new_rows)) {
        match before.get(key) {
            Some(at) if old_rows[*at as usize] == *whole => continue,
            Some(at) => back.push(*at),
            None => {}
        }
        put.push(row);
    }
    let weight = std::iter::repeat_n(-1, back.len()).chain(std::iter::repeat_n(1, put.len())).collect::<Vec<i8>>();
    let taken = [take_record_batch(old, &UInt32Array::from(back))?, take_record_batch(new, &UInt32Array::from(put))?];
    Ok(Emission { rows: concat_batches(&new.schema(), &taken)?, weight: Some(weight.into()) })
}

/// Each row's key and each whole row in a form that can be compared.
fn encode(rows: &RecordBatch, keys: usize) -> Result<(Vec<OwnedRow>, Vec<OwnedRow>)> {
    Ok((encode_columns(rows, keys)?, encode_columns(rows, rows.num_columns())?))
}

pub(super) fn encode_columns(rows: &RecordBatch, columns: usize) -> Result<Vec<OwnedRow>> {
    if columns == 0 {
        // A window without keys has one group, so any constant serves as its key.
        let field = SortField::new(DataType::Boolean);
        let column: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![true; rows.num_rows()]));
        let encoded = RowConverter::new(vec![field])?.convert_columns(&[column])?;
        return Ok(encoded.iter().map(|row| row.owned()).collect());
    }
    let schema = rows.schema();
    let fields = schema.fields()[..columns].iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let encoded = converter.convert_columns(&rows.columns()[..columns])?;
    Ok(encoded.iter().map(|row| row.owned()).collect())
}
