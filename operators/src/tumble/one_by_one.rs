//! Groups that cannot be computed: found by halving a window's state, and dropped from it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Schema;
use arrow::row::OwnedRow;
use cornjacket_core::Result;
use cornjacket_core::aggregate::Aggregation;
use cornjacket_core::guard::guarded;

use super::pane::{Delta, Pane, encode_columns};

/// The keys of a group that is lost (one row), and why.
type Lost = (RecordBatch, String);

impl Pane {
    /// Leaves only groups in the window's state that can be computed. Those that cannot, or all that is not in the last
    /// snapshot's parts yet where their state cannot even be read, are given back.
    pub(super) fn drop_what_fails(&mut self) -> Result<Vec<Lost>> {
        let mut lost = Vec::new();
        let hot = guarded(|| self.hot.take_state());
        match hot {
            Ok(rows) if rows.num_rows() > 0 => self.deltas.push(Delta { id: None, rows }),
            Ok(_) => {}
            Err(error) => lost.push((no_keys()?, format!("some groups of the window: {}", error.words()))),
        }
        // An accumulator need not be usable after it has failed.
        self.hot = self.aggregation.create()?;
        if self.deltas.is_empty() {
            return Ok(lost);
        }
        let states: Vec<&RecordBatch> = self.deltas.iter().map(|delta| &delta.rows).collect();
        if computes(&*self.aggregation, &states) {
            return Ok(lost);
        }
        let all = concat_batches(&states[0].schema(), states)?;
        let groups = Grouped::new(&all, self.aggregation.keys())?;
        let mut kept = Vec::new();
        groups.halve(&*self.aggregation, (0, groups.starts.len() - 1), &mut kept, &mut lost)?;
        self.deltas.clear();
        if !kept.is_empty() {
            self.deltas.push(Delta { id: None, rows: concat_batches(&groups.rows.schema(), &kept)? });
        }
        Ok(lost)
    }
}

fn no_keys() -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?)
}

fn result(aggregation: &dyn Aggregation, states: &[&RecordBatch]) -> Result<()> {
    let mut merged = aggregation.create()?;
    for state in states {
        merged.merge(state)?;
    }
    merged.evaluate().map(|_| ())
}

fn computes(aggregation: &dyn Aggregation, states: &[&RecordBatch]) -> bool {
    guarded(|| result(aggregation, states)).is_ok()
}

/// State whose rows lie group by group.
struct Grouped {
    rows: RecordBatch,
    /// Where each group begins, and where the last one ends.
    starts: Vec<usize>,
    keys: usize,
}

impl Grouped {
    fn new(state: &RecordBatch, keys: usize) -> Result<Self> {
        let mut rows_of: HashMap<OwnedRow, Vec<u32>> = HashMap::new();
        for (row, key) in (0..).zip(encode_columns(state, keys)?) {
            rows_of.entry(key).or_default().push(row);
        }
        let mut groups: Vec<Vec<u32>> = rows_of.into_values().collect();
        groups.sort_unstable();
        let ends = groups.iter().scan(0, |end, rows| {
            *end += rows.len();
            Some(*end)
        });
        let starts = std::iter::once(0).chain(ends).collect();
        Ok(Self { rows: take_record_batch(state, &UInt32Array::from(groups.concat()))?, starts, keys })
    }

    /// Tells the groups from one number to another that can be computed from those that cannot.
    fn halve(
        &self,
        aggregation: &dyn Aggregation,
        (first, end): (usize, usize),
        kept: &mut Vec<RecordBatch>,
        lost: &mut Vec<Lost>,
    ) -> Result<()> {
        let rows = self.rows.slice(self.starts[first], self.starts[end] - self.starts[first]);
        match guarded(|| result(aggregation, &[&rows])) {
            Ok(()) => kept.push(rows),
            Err(error) if end - first == 1 => {
                let keys: Vec<usize> = (0..self.keys).collect();
                lost.push((rows.slice(0, 1).project(&keys)?, error.words()));
            }
            Err(_) => {
                let middle = first.midpoint(end);
                self.halve(aggregation, (first, middle), kept, lost)?;
                self.halve(aggregation, (middle, end), kept, lost)?;
            }
        }
        Ok(())
    }
}
