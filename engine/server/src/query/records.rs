//! Tables of what the store keeps of single events: dead letters, and the ledger over all.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use cornjacket_core::Result;
use cornjacket_core::dead_letter::{LetterFilter, StoredDeadLetter};
use cornjacket_core::graph::Graph;
use cornjacket_core::store::{Storage, Store};
use cornjacket_core::time::timestamp_type;
use cornjacket_runtime::audit::{Check, audit};
use cornjacket_sql::query::TableSource;

use super::tables::{columns, times};

/// Rows read at a time.
const PAGE: u64 = 1_000;

/// What could not be used.
pub struct DeadLetters(pub Arc<dyn Store>);

impl TableSource for DeadLetters {
    fn schema(&self) -> SchemaRef {
        let text = || DataType::Utf8;
        columns(&[
            ("id", DataType::Int64),
            ("recorded_at", timestamp_type()),
            ("reason", text()),
            ("source", text()),
            ("message", text()),
            ("event_id", text()),
            ("event_time", timestamp_type()),
            ("body", text()),
            ("place", text()),
            ("version", text()),
            ("state", text()),
            ("settled_at", timestamp_type()),
        ])
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let mut filter = LetterFilter::default();
        loop {
            let letters = self.0.dead_letters(&filter, PAGE)?;
            let Some(last) = letters.last() else { return Ok(()) };
            filter.before = Some(last.id);
            let text = |of: fn(&StoredDeadLetter) -> &str| -> ArrayRef {
                Arc::new(StringArray::from_iter_values(letters.iter().map(of)))
            };
            let ids = letters.iter().map(|stored| stored.letter.event_id.as_deref());
            let places = letters.iter().map(|stored| stored.letter.place.as_deref());
            let bodies = letters.iter().map(|stored| String::from_utf8_lossy(&stored.letter.body));
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values(letters.iter().map(|stored| stored.id))),
                times(letters.iter().map(|stored| Some(stored.recorded_at)).collect()),
                text(|stored| &stored.letter.reason),
                text(|stored| &stored.letter.source),
                text(|stored| &stored.letter.message),
                Arc::new(ids.collect::<StringArray>()),
                times(letters.iter().map(|stored| stored.letter.event_time).collect()),
                Arc::new(StringArray::from_iter_values(bodies)),
                Arc::new(places.collect::<StringArray>()),
                text(|stored| &stored.version),
                text(|stored| stored.state.as_str()),
                times(letters.iter().map(|stored| stored.settled_at).collect()),
            ];
            if !sink(RecordBatch::try_new(self.schema(), columns)?.project(projection)?) {
                return Ok(());
            }
        }
    }
}

/// The equations of the audit, as they stand when they are asked for.
pub struct Ledger {
    /// What is accounted for.
    pub graph: Arc<Graph>,
    /// Where it is.
    pub storage: Storage,
}

impl TableSource for Ledger {
    fn schema(&self) -> SchemaRef {
        let (text, number) = (|| DataType::Utf8, || DataType::Int64);
        columns(&[
            ("check", text()),
            ("node", text()),
            ("equation", text()),
            ("left_side", number()),
            ("right_side", number()),
            ("holds", DataType::Boolean),
        ])
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let checks = audit(&self.graph, &self.storage)?;
        let text =
            |of: fn(&Check) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(checks.iter().map(of))) };
        let number =
            |of: fn(&Check) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(checks.iter().map(of))) };
        let columns: Vec<ArrayRef> = vec![
            text(|check| &check.check),
            text(|check| &check.node),
            text(|check| &check.equation),
            number(|check| check.left),
            number(|check| check.right),
            Arc::new(checks.iter().map(|check| Some(check.holds)).collect::<BooleanArray>()),
        ];
        sink(RecordBatch::try_new(self.schema(), columns)?.project(projection)?);
        Ok(())
    }
}
