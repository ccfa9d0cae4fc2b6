//! `cornjacket.deliveries`: what webhooks send, as SQL sees it, and the deliveries of an event.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use cornjacket_core::Result;
use cornjacket_core::delivery::{Delivery, DeliveryFilter, DeliveryState};
use cornjacket_core::store::Store;
use cornjacket_core::time::timestamp_type;
use cornjacket_sql::query::TableSource;
use serde_json::{Value, json};

use super::tables::{columns, times};

/// Deliveries read at a time.
const PAGE: u64 = 1_000;
/// Deliveries of an event that are shown with it.
const MOST_SHOWN: u64 = 100;

/// The deliveries of the pipeline, the newest first, with the names that they have over HTTP.
pub(super) struct DeliveryTable {
    pub(super) store: Arc<dyn Store>,
}

impl TableSource for DeliveryTable {
    fn schema(&self) -> SchemaRef {
        let text = || DataType::Utf8;
        columns(&[
            ("id", text()),
            ("action", text()),
            ("status", text()),
            ("created_at", timestamp_type()),
            ("row_time", timestamp_type()),
            ("event_id", text()),
            ("attempts", DataType::UInt32),
            ("next_attempt_at", timestamp_type()),
            ("last_attempt_at", timestamp_type()),
            ("last_status", DataType::Int32),
            ("last_error", text()),
            ("settled_at", timestamp_type()),
            ("body", text()),
        ])
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let mut filter = DeliveryFilter::default();
        loop {
            let found = self.store.deliveries(&filter, PAGE)?;
            let Some(last) = found.last() else { return Ok(()) };
            filter.before = Some(last.number);
            if !sink(RecordBatch::try_new(self.schema(), arrays(&found))?.project(projection)?) {
                return Ok(());
            }
        }
    }
}

fn arrays(found: &[Delivery]) -> Vec<ArrayRef> {
    let all = || found.iter();
    let text = |of: fn(&Delivery) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(all().map(of))) };
    let maybe = |of: fn(&Delivery) -> Option<&str>| -> ArrayRef { Arc::new(all().map(of).collect::<StringArray>()) };
    let is_pending = |one: &Delivery| one.state == DeliveryState::Pending;
    vec![
        text(|one| &one.id),
        text(|one| &one.sink),
        text(|one| one.state.as_str()),
        times(all().map(|one| Some(one.created_at)).collect()),
        times(all().map(|one| Some(one.row_time)).collect()),
        maybe(|one| one.event_id.as_deref()),
        Arc::new(UInt32Array::from_iter_values(all().map(|one| one.attempts))),
        times(all().map(|one| is_pending(one).then_some(one.next_at)).collect()),
        times(all().map(|one| one.last_at).collect()),
        Arc::new(all().map(|one| one.last_status.map(i32::from)).collect::<Int32Array>()),
        maybe(|one| one.last_error.as_deref()),
        times(all().map(|one| one.settled_at).collect()),
        Arc::new(StringArray::from_iter_values(all().map(|one| String::from_utf8_lossy(&one.body)))),
    ]
}

/// What was sent because of an event: where a webhook's row is the event itself. A row that was computed from many events
/// has the id of none.
pub(super) fn of_event(store: &dyn Store, id: &str) -> Result<Vec<Value>> {
    let filter = DeliveryFilter { event_id: Some(id.into()), ..DeliveryFilter::default() };
    let shown = |one: Delivery| json!({"id": one.id, "action": one.sink, "status": one.state.as_str(), "attempts": one.attempts});
    Ok(store.deliveries(&filter, MOST_SHOWN)?.into_iter().map(shown).collect())
}
