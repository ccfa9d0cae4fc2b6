//! Exchanges: how a node's tasks get the rows of the tasks before them, in an order that is always the same.

use arrow::array::UInt32Array;
use arrow::row::{RowConverter, SortField};
use cornjacket_core::Result;
use cornjacket_core::batch::Batch;
use cornjacket_core::graph::Exchange;
use cornjacket_core::id::murmur2;
use rayon::prelude::*;

use super::node::is_worth_sharing;

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
            let batches: Vec<&Batch> = from.iter().flatten().collect();
            let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
            let scatter = |batch: &&Batch| scatter(batch, columns, tasks);
            let scattered: Vec<Vec<Option<Batch>>> = if is_worth_sharing(rows) {
                batches.par_iter().map(scatter).collect::<Result<_>>()?
            } else {
                batches.iter().map(scatter).collect::<Result<_>>()?
            };
            for parts in scattered {
                for (batches, part) in to.iter_mut().zip(parts) {
                    batches.extend(part);
                }
            }
        }
    }
    Ok(to)
}

/// For each task, the rows of a batch that are its.
fn scatter(batch: &Batch, columns: &[usize], tasks: usize) -> Result<Vec<Option<Batch>>> {
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); tasks];
    for (row, task) in (0..).zip(task_of_rows(batch, columns, tasks)?) {
        rows[task].push(row);
    }
    let part = |rows: Vec<u32>| match rows.len() {
        0 => Ok(None),
        all if all == batch.num_rows() => Ok(Some(batch.clone())),
        _ => batch.take(&UInt32Array::from(rows)).map(Some),
    };
    rows.into_iter().map(part).collect()
}

/// The task is the hash of the key's row encoding: the same for equal keys whatever batch they come in.
fn task_of_rows(batch: &Batch, columns: &[usize], tasks: usize) -> Result<Vec<usize>> {
    let keys = batch.rows.project(columns)?;
    let fields = keys.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(keys.columns())?;
    Ok(encoded.iter().map(|row| murmur2(row.data()) as usize % tasks).collect())
}
