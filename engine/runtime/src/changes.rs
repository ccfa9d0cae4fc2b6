//! Which rows of projections the last epochs changed, for those who follow them live.
//!
//! Only keys are kept, and only in memory: who follows reads the rows themselves from the store, so what it sees is never
//! older than what it saw. Who stayed away for longer than the changes are kept, or over a restart, reads the whole table
//! once and goes on from there.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use cornjacket_core::projection::{ProjectionSpec, ProjectionWrite};
use parking_lot::Mutex;
use tokio::sync::watch;

/// How many changed rows are kept, over all projections.
const MAX_ROWS: usize = 200_000;

/// The changes of the last epochs.
#[derive(Debug)]
pub struct Changes {
    kept: Mutex<Kept>,
    /// The number of the last change.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    changes: VecDeque<(u64, Change)>,
    rows: usize,
}

/// What an epoch changed in a projection.
#[derive(Clone, Debug)]
pub struct Change {
    /// The projection.
    pub projection: Arc<ProjectionSpec>,
    /// The key columns of the rows, in the order of the key.
    pub keys: RecordBatch,
}

impl Default for Changes {
    fn default() -> Self {
        Self { kept: Mutex::default(), last: watch::channel(0).0 }
    }
}

impl Changes {
    /// Adds what a committed epoch wrote.
    pub fn add(&self, writes: &[ProjectionWrite]) {
        let mut kept = self.kept.lock();
        let mut number = *self.last.borrow();
        for write in writes.iter().filter(|write| write.rows.num_rows() > 0) {
            // The key's columns are there: the projection was built from them.
            let Ok(keys) = write.rows.project(&write.projection.key) else { continue };
            number += 1;
            kept.rows += keys.num_rows();
            kept.changes.push_back((number, Change { projection: Arc::clone(&write.projection), keys }));
        }
        while kept.rows > MAX_ROWS && kept.changes.len() > 1 {
            let forgotten = kept.changes.pop_front().map_or(0, |(_, change)| change.keys.num_rows());
            kept.rows -= forgotten;
        }
        drop(kept);
        self.last.send_if_modified(|last| std::mem::replace(last, number) != number);
    }

    /// The number of the last change, renewed with every epoch that changed something.
    pub fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// A projection's changes after a number, and the number of the last one looked at; `None` if some are no longer kept.
    pub fn after(&self, number: u64, projection: &str) -> Option<(Vec<RecordBatch>, u64)> {
        let kept = self.kept.lock();
        let last = *self.last.borrow();
        let first = kept.changes.front().map_or(last + 1, |(first, _)| *first);
        if number > last || number + 1 < first {
            return None;
        }
        let begin = kept.changes.partition_point(|(at, _)| *at <= number);
        let own = kept.changes.range(begin..).filter(|(_, change)| change.projection.name == projection);
        let keys = own.map(|(_, change)| change.keys.clone()).collect();
        Some((keys, kept.changes.back().map_or(last, |(at, _)| *at)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use cornjacket_core::projection::WriteMode;

    use super::*;

    fn write(name: &str, first: i64, rows: i64) -> ProjectionWrite {
        let schema = Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false)]));
        let values: Int64Array = (first..first + rows).collect::<Vec<_>>().into();
        let of_rows = |value: i64| vec![value; usize::try_from(rows).expect("few")];
        ProjectionWrite {
            projection: Arc::new(ProjectionSpec {
                name: name.into(),
                schema: Arc::clone(&schema),
                key: vec![0],
                time: None,
            }),
            mode: WriteMode::Newest,
            rows: RecordBatch::try_new(schema, vec![Arc::new(values)]).expect("one column"),
            time: TimestampMicrosecondArray::from(of_rows(0)),
            order: of_rows(0).into(),
            event_id: None,
            weight: None,
        }
    }

    #[test]
    fn changes_are_found_after_a_number_until_they_are_forgotten() {
        let changes = Changes::default();
        assert_eq!(changes.after(0, "a").map(|(keys, last)| (keys.len(), last)), Some((0, 0)));
        changes.add(&[write("a", 0, 3), write("b", 0, 1), write("a", 0, 0)]);
        changes.add(&[write("a", 7, 2)]);
        let (keys, last) = changes.after(0, "a").expect("kept");
        assert_eq!((keys.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), last), (vec![3, 2], 3));
        assert_eq!(changes.after(1, "a").map(|(keys, last)| (keys.len(), last)), Some((1, 3)));
        assert_eq!(changes.after(3, "a").map(|(keys, last)| (keys.len(), last)), Some((0, 3)));
        assert!(changes.after(4, "a").is_none(), "from another process");
        let rows = i64::try_from(MAX_ROWS).expect("small");
        changes.add(&[write("a", 0, rows)]);
        assert!(changes.after(2, "a").is_none(), "one after it is forgotten");
        assert_eq!(changes.after(3, "a").map(|(keys, last)| (keys.len(), last)), Some((1, 4)));
    }
}
