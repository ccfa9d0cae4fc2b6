//! Exchanges: how a node's tasks get the rows of the tasks before them, in an order that is always the same.

use arrow::array::UInt32Array;
use arrow::row::{RowConverter, SortField};
use cornjacket_core::Result;
use cornjacket_core::batch::Batch;
use cornjacket_core::graph::Exchange;
use cornjacket_core::id::murmur2;

/// For each task of the reader, the batches it takes: those of task 0 before it first, then those of task 1, and so on.
pub(super) fn exchange(by: &Exchange, from: &[Vec<Batch>], tasks: usize) -> Result<Vec<Vec<Batch>>> {
    let mut to: Vec<Vec<Batch>> = vec![Vec::new(); tasks];
    match by {
        Exchange::Forward => {
            for (task, batches) in from.iter().enumerate() {
                to[task % tasks].extend(batches.iter().cloned());
            }
        }
        Exchange::Gather => to[0].extend(from.iter().flatten().cloned()),
        Exchange::Hash(columns) => {
            for batch in from.iter().flatten() {
                scatter(batch, columns, &mut to)?;
            }
        }
    }
    Ok(to)
}

fn scatter(batch: &Batch, columns: &[usize], to: &mut [Vec<Batch>]) -> Result<()> {
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); to.len()];
    for (row, task) in (0..).zip(task_of_rows(batch, columns, to.len())?) {
        rows[task].push(row);
    }
    for (batches, rows) in to.iter_mut().zip(rows) {
        match rows.len() {
            0 => {}
            all if all == batch.num_rows() => batches.push(batch.clone()),
            _ => batches.push(batch.take(&UInt32Array::from(rows))?),
        }
    }
    Ok(())
}

/// The task is the hash of the key's row encoding: the same for equal keys whatever batch they come in.
fn task_of_rows(batch: &Batch, columns: &[usize], tasks: usize) -> Result<Vec<usize>> {
    let keys = batch.rows.project(columns)?;
    let fields = keys.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(keys.columns())?;
    Ok(encoded.iter().map(|row| murmur2(row.data()) as usize % tasks).collect())
}
