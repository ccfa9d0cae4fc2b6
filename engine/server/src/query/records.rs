//! Tables of what the store keeps of single events: dead letters, deliveries, and the ledger over all.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use cornjacket_core::Result;
use cornjacket_core::dead_letter::{LetterFilter, StoredDeadLetter};
use cornjacket_core::delivery::{Delivery, DeliveryFilter};
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

/// What is sent outside.
pub struct Deliveries(pub Arc<dyn Store>);

impl TableSource for Deliveries {
    fn schema(&self) -> SchemaRef {
        let (text, number) = (|| DataType::Utf8, || DataType::Int64);
        columns(&[
            ("id", text()),
            ("action", text()),
            ("status", text()),
            ("created_at", timestamp_type()),
            ("row_time", timestamp_type()),
            ("event_id", text()),
            ("body", text()),
            ("attempts", number()),
            ("next_attempt_at", timestamp_type()),
            ("last_attempt_at", timestamp_type()),
            ("last_status", number()),
            ("last_error", text()),
            ("settled_at", timestamp_type()),
        ])
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let mut filter = DeliveryFilter::default();
        loop {
            let found = self.0.deliveries(&filter, PAGE)?;
            let Some(last) = found.last() else { return Ok(()) };
            filter.before = Some(last.number);
            let text = |of: fn(&Delivery) -> Option<&str>| -> ArrayRef {
                Arc::new(found.iter().map(of).collect::<StringArray>())
            };
            let bodies = found.iter().map(|delivery| String::from_utf8_lossy(&delivery.body));
            let statuses = found.iter().map(|delivery| delivery.last_status.map(i64::from));
            let pending = |delivery: &Delivery| delivery.settled_at.is_none().then_some(delivery.next_at);
            let columns: Vec<ArrayRef> = vec![
                text(|delivery| Some(&delivery.id)),
                text(|delivery| Some(&delivery.sink)),
                text(|delivery| Some(delivery.state.as_str())),
                times(found.iter().map(|delivery| Some(delivery.created_at)).collect()),
                times(found.iter().map(|delivery| Some(delivery.row_time)).collect()),
                text(|delivery| delivery.event_id.as_deref()),
                Arc::new(StringArray::from_iter_values(bodies)),
                Arc::new(Int64Array::from_iter_values(found.iter().map(|delivery| i64::from(delivery.attempts)))),
                times(found.iter().map(pending).collect()),
                times(found.iter().map(|delivery| delivery.last_at).collect()),
                Arc::new(statuses.collect::<Int64Array>()),
                text(|delivery| delivery.last_error.as_deref()),
                times(found.iter().map(|delivery| delivery.settled_at).collect()),
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
