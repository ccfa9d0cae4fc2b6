//! What sinks do with an epoch's batches before they write them: put them together, keep one row a key, or net a
//! changelog.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, Int8Array, Int64Array, RecordBatch,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{concat, concat_batches, take, take_record_batch};
use arrow::datatypes::{DataType, Int8Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::row::{Row, RowConverter, Rows, SortField};
use cornjacket_core::Result;
use cornjacket_core::batch::Batch;

/// An epoch's rows in one piece, with their lineage.
pub(super) struct EpochRows {
    pub(super) rows: RecordBatch,
    pub(super) time: TimestampMicrosecondArray,
    pub(super) order: Int64Array,
    pub(super) event_id: Option<FixedSizeBinaryArray>,
    pub(super) weight: Option<Int8Array>,
}

impl EpochRows {
    /// Puts batches together, in their order, keeping these columns under this schema.
    pub(super) fn concat(batches: &[Batch], columns: &[usize], schema: &SchemaRef) -> Result<Self> {
        let (mut parts, mut time, mut order) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ids, mut weights) = (Vec::new(), Vec::new());
        for batch in batches {
            let rows = batch.rows.project(columns)?;
            parts.push(RecordBatch::try_new(Arc::clone(schema), rows.columns().to_vec())?);
            time.push(Arc::new(batch.lineage.time()?) as ArrayRef);
            order.push(Arc::new(batch.lineage.order()?) as ArrayRef);
            ids.push(batch.lineage.event_id()?);
            weights.push(batch.lineage.weight()?);
        }
        let lengths: Vec<usize> = batches.iter().map(Batch::num_rows).collect();
        Ok(Self {
            rows: concat_batches(schema, &parts)?,
            time: concat_all(&time)?.as_primitive::<TimestampMicrosecondType>().clone(),
            order: concat_all(&order)?.as_primitive::<Int64Type>().clone(),
            event_id: concat_ids(ids, &lengths)?,
            weight: concat_weights(weights, &lengths)?,
        })
    }

    /// One row per key: the greatest time, then the greatest order, then the last.
    pub(super) fn newest(self, keys: &[usize]) -> Result<Self> {
        let encoded = encode(&self.rows, keys)?;
        let mut best: HashMap<Row<'_>, u32> = HashMap::with_capacity(encoded.num_rows());
        for (row, key) in (0..).zip(encoded.iter()) {
            match best.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(row);
                }
                Entry::Occupied(mut place) if self.rank(row) >= self.rank(*place.get()) => {
                    place.insert(row);
                }
                Entry::Occupied(_) => {}
            }
        }
        if best.len() == self.rows.num_rows() {
            drop(best);
            drop(encoded);
            return Ok(self);
        }
        let mut kept: Vec<u32> = best.into_values().collect();
        kept.sort_unstable();
        self.take(&kept.into())
    }

    fn rank(&self, row: u32) -> (i64, i64) {
        (self.time.value(row as usize), self.order.value(row as usize))
    }

    /// The net changelog: equal rows put in and taken back cancel out; what is taken back comes before what is put in.
    pub(super) fn consolidated(self) -> Result<Self> {
        let columns: Vec<usize> = (0..self.rows.num_columns()).collect();
        let encoded = encode(&self.rows, &columns)?;
        let mut net: HashMap<Row<'_>, (i64, u32)> = HashMap::with_capacity(encoded.num_rows());
        for (row, whole) in (0..).zip(encoded.iter()) {
            let weight = self.weight.as_ref().map_or(1, |weights| i64::from(weights.value(row as usize)));
            let entry = net.entry(whole).or_insert((0, row));
            *entry = (entry.0 + weight, row);
        }
        let mut changes: Vec<(bool, u32)> =
            net.into_values().filter(|(weight, _)| *weight != 0).map(|(weight, row)| (weight > 0, row)).collect();
        changes.sort_unstable();
        let weight: Int8Array = changes.iter().map(|(put, _)| if *put { 1 } else { -1 }).collect::<Vec<i8>>().into();
        let rows: UInt32Array = changes.iter().map(|(_, row)| *row).collect::<Vec<_>>().into();
        let mut changed = self.take(&rows)?;
        changed.weight = Some(weight);
        Ok(changed)
    }

    fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let ids = self.event_id.as_ref().map(|ids| take(ids, rows, None)).transpose()?;
        let weight = self.weight.as_ref().map(|weight| take(weight, rows, None)).transpose()?;
        Ok(Self {
            rows: take_record_batch(&self.rows, rows)?,
            time: take(&self.time, rows, None)?.as_primitive::<TimestampMicrosecondType>().clone(),
            order: take(&self.order, rows, None)?.as_primitive::<Int64Type>().clone(),
            event_id: ids.map(|ids| ids.as_fixed_size_binary().clone()),
            weight: weight.map(|weight| weight.as_primitive::<Int8Type>().clone()),
        })
    }
}

fn encode(rows: &RecordBatch, columns: &[usize]) -> Result<Rows> {
    let schema = rows.schema();
    let fields = columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
    let values: Vec<ArrayRef> = columns.iter().map(|at| Arc::clone(rows.column(*at))).collect();
    if values.is_empty() {
        let constant: ArrayRef = Arc::new(BooleanArray::from(vec![true; rows.num_rows()]));
        return Ok(RowConverter::new(vec![SortField::new(DataType::Boolean)])?.convert_columns(&[constant])?);
    }
    Ok(RowConverter::new(fields)?.convert_columns(&values)?)
}

fn concat_all(columns: &[ArrayRef]) -> Result<ArrayRef> {
    Ok(concat(&columns.iter().map(|column| &**column).collect::<Vec<&dyn Array>>())?)
}

/// Null where a batch's rows are no events.
fn concat_ids(ids: Vec<Option<FixedSizeBinaryArray>>, lengths: &[usize]) -> Result<Option<FixedSizeBinaryArray>> {
    if ids.iter().all(Option::is_none) {
        return Ok(None);
    }
    let column = |(ids, rows): (Option<FixedSizeBinaryArray>, &usize)| -> ArrayRef {
        ids.map_or_else(|| new_null_array(&DataType::FixedSizeBinary(16), *rows), |ids| Arc::new(ids))
    };
    let columns: Vec<ArrayRef> = ids.into_iter().zip(lengths).map(column).collect();
    Ok(Some(concat_all(&columns)?.as_fixed_size_binary().clone()))
}

fn concat_weights(weights: Vec<Option<Int8Array>>, lengths: &[usize]) -> Result<Option<Int8Array>> {
    if weights.iter().all(Option::is_none) {
        return Ok(None);
    }
    let column = |(weights, rows): (Option<Int8Array>, &usize)| -> ArrayRef {
        Arc::new(weights.unwrap_or_else(|| Int8Array::from_value(1, *rows)))
    };
    let columns: Vec<ArrayRef> = weights.into_iter().zip(lengths).map(column).collect();
    Ok(Some(concat_all(&columns)?.as_primitive::<Int8Type>().clone()))
}
