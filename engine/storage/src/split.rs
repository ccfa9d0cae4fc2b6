//! A commit's rows by event type and partition, with their offsets.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use cornjacket_core::Result;
use cornjacket_core::catalogue::{Catalogue, EventType, stored};
use cornjacket_core::id::{EventId, partition_of};
use cornjacket_core::log::{Events, Positions, TopicPartition};

/// Rows of one event type and partition, in the order of their offsets.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) event_type: Arc<EventType>,
    pub(crate) at: TopicPartition,
    pub(crate) offsets: Int64Array,
    pub(crate) rows: RecordBatch,
}

/// An id that a client gave, and where its event is.
pub(crate) struct ClientId {
    pub(crate) id: EventId,
    pub(crate) at: TopicPartition,
    pub(crate) offset: i64,
}

/// A commit, laid out.
pub(crate) struct Split {
    pub(crate) segments: Vec<Segment>,
    pub(crate) client_ids: Vec<ClientId>,
    pub(crate) repeated: Vec<EventId>,
    pub(crate) end: Positions,
}

/// The ids in a commit that clients gave.
pub(crate) fn client_ids(commit: &[Events]) -> Vec<EventId> {
    let ids = |events: &Events| {
        let given = |row: &usize| is_given(events, *row);
        (0..events.rows.num_rows()).filter(given).map(|row| event_id(events, row)).collect::<Vec<_>>()
    };
    commit.iter().filter(|events| events.client_id.is_some()).flat_map(ids).collect()
}

fn is_given(events: &Events, row: usize) -> bool {
    events.client_id.as_ref().is_some_and(|given| given.value(row))
}

fn event_id(events: &Events, row: usize) -> EventId {
    let ids = events.rows.column(stored::EVENT_ID).as_fixed_size_binary();
    EventId(ids.value(row).try_into().unwrap_or_default())
}

/// Gives every row its partition and offset. `known` are client-given ids that are stored already.
pub(crate) fn split(
    commit: &[Events],
    catalogue: &Catalogue,
    end: &Positions,
    known: &HashSet<EventId>,
) -> Result<Split> {
    let mut layout = Layout { end: end.clone(), known: known.clone(), client_ids: Vec::new(), repeated: Vec::new() };
    let mut places: BTreeMap<(usize, u32), (Vec<u32>, Vec<i64>)> = BTreeMap::new();
    for (index, row) in in_sequence(commit) {
        let events = &commit[index];
        let aggregate = events.rows.column(stored::AGGREGATE_ID).as_string::<i32>().value(row as usize);
        let partition = partition_of(aggregate.as_bytes(), catalogue.partitions(&events.event_type));
        let Some(offset) = layout.place(events, row as usize, partition) else { continue };
        let place = places.entry((index, partition)).or_default();
        place.0.push(row);
        place.1.push(offset);
    }
    let segment = |((index, partition), (rows, offsets)): ((usize, u32), (Vec<u32>, Vec<i64>))| -> Result<Segment> {
        let events = &commit[index];
        Ok(Segment {
            event_type: Arc::clone(&events.event_type),
            at: TopicPartition { topic: events.event_type.topic.as_str().into(), partition },
            offsets: offsets.into(),
            rows: take_record_batch(&events.rows, &UInt32Array::from(rows))?,
        })
    };
    let segments = places.into_iter().map(segment).collect::<Result<_>>()?;
    Ok(Split { segments, client_ids: layout.client_ids, repeated: layout.repeated, end: layout.end })
}

/// Every row as (batch, row), in the order of the whole commit.
fn in_sequence(commit: &[Events]) -> Vec<(usize, u32)> {
    let rows = |(index, events): (usize, &Events)| {
        events.sequence.values().iter().zip(0..).map(move |(sequence, row)| (*sequence, index, row)).collect::<Vec<_>>()
    };
    let mut all: Vec<(i64, usize, u32)> = commit.iter().enumerate().flat_map(rows).collect();
    if commit.len() > 1 {
        all.sort_unstable();
    }
    all.into_iter().map(|(_, index, row)| (index, row)).collect()
}

struct Layout {
    end: Positions,
    known: HashSet<EventId>,
    client_ids: Vec<ClientId>,
    repeated: Vec<EventId>,
}

impl Layout {
    /// The row's offset; `None` if its event is there already.
    fn place(&mut self, events: &Events, row: usize, partition: u32) -> Option<i64> {
        let at = TopicPartition { topic: events.event_type.topic.as_str().into(), partition };
        let offset = self.end.get(&at);
        if is_given(events, row) {
            let id = event_id(events, row);
            if !self.known.insert(id) {
                self.repeated.push(id);
                return None;
            }
            self.client_ids.push(ClientId { id, at: at.clone(), offset });
        }
        self.end.0.insert(at, offset + 1);
        Some(offset)
    }
}
