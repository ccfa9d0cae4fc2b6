//! A commit's rows by event type and partition, with their offsets.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
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
    let mut layout = Layout::new(commit, catalogue, end, known);
    match commit {
        // Rows of one batch are in their order.
        [events] => (0..).take(events.rows.num_rows()).for_each(|row| layout.place(0, row)),
        _ => in_sequence(commit).into_iter().for_each(|(index, row)| layout.place(index, row)),
    }
    layout.finish()
}

/// Every row as (batch, row), in the order of the whole commit.
fn in_sequence(commit: &[Events]) -> Vec<(usize, u32)> {
    let rows = |(index, events): (usize, &Events)| {
        events.sequence.values().iter().zip(0..).map(move |(sequence, row)| (*sequence, index, row)).collect::<Vec<_>>()
    };
    let mut all: Vec<(i64, usize, u32)> = commit.iter().enumerate().flat_map(rows).collect();
    all.sort_unstable();
    all.into_iter().map(|(_, index, row)| (index, row)).collect()
}

/// A commit while it is laid out.
struct Layout<'a> {
    commit: &'a [Events],
    /// By batch.
    batches: Vec<Placing<'a>>,
    /// The next offset of each partition, by topic. Event types may share a topic.
    topics: Vec<(&'a str, Vec<i64>)>,
    known: HashSet<EventId>,
    client_ids: Vec<ClientId>,
    repeated: Vec<EventId>,
    end: Positions,
}

/// A batch while its rows are given their places.
struct Placing<'a> {
    aggregate_ids: &'a StringArray,
    /// Position in [`Layout::topics`].
    topic: usize,
    /// Rows and their offsets, by partition.
    rows: Vec<(Vec<u32>, Vec<i64>)>,
}

impl<'a> Layout<'a> {
    fn new(commit: &'a [Events], catalogue: &Catalogue, end: &Positions, known: &HashSet<EventId>) -> Self {
        let mut topics: Vec<(&str, Vec<i64>)> = Vec::new();
        let mut placing = |events: &'a Events| {
            let name = events.event_type.topic.as_str();
            let partitions = catalogue.partitions(&events.event_type).max(1);
            let topic = topics.iter().position(|(topic, _)| *topic == name).unwrap_or_else(|| {
                let next = |partition| end.get(&TopicPartition { topic: name.into(), partition });
                topics.push((name, (0..partitions).map(next).collect()));
                topics.len() - 1
            });
            let aggregate_ids = events.rows.column(stored::AGGREGATE_ID).as_string::<i32>();
            Placing { aggregate_ids, topic, rows: vec![(Vec::new(), Vec::new()); partitions as usize] }
        };
        let batches = commit.iter().map(&mut placing).collect();
        let (client_ids, repeated) = (Vec::new(), Vec::new());
        Self { commit, batches, topics, known: known.clone(), client_ids, repeated, end: end.clone() }
    }

    /// Gives a row its place, unless its event is there already.
    fn place(&mut self, index: usize, row: u32) {
        let (events, batch) = (&self.commit[index], &mut self.batches[index]);
        let id = is_given(events, row as usize).then(|| event_id(events, row as usize));
        if let Some(id) = id.filter(|id| !self.known.insert(*id)) {
            self.repeated.push(id);
            return;
        }
        let aggregate_id = batch.aggregate_ids.value(row as usize).as_bytes();
        let (topic, next) = &mut self.topics[batch.topic];
        let partition = partition_of(aggregate_id, u32::try_from(next.len()).unwrap_or(u32::MAX));
        let offset = next[partition as usize];
        next[partition as usize] += 1;
        let (rows, offsets) = &mut batch.rows[partition as usize];
        rows.push(row);
        offsets.push(offset);
        if let Some(id) = id {
            self.client_ids.push(ClientId { id, at: TopicPartition { topic: (*topic).into(), partition }, offset });
        }
    }

    fn finish(mut self) -> Result<Split> {
        for (topic, next) in &self.topics {
            for (partition, offset) in (0..).zip(next).filter(|(_, offset)| **offset > 0) {
                self.end.0.insert(TopicPartition { topic: (*topic).into(), partition }, *offset);
            }
        }
        let mut segments = Vec::new();
        for (events, batch) in self.commit.iter().zip(self.batches) {
            let topic: Arc<str> = events.event_type.topic.as_str().into();
            for (partition, (rows, offsets)) in (0..).zip(batch.rows).filter(|(_, (rows, _))| !rows.is_empty()) {
                let all = rows.len() == events.rows.num_rows();
                let taken =
                    if all { events.rows.clone() } else { take_record_batch(&events.rows, &UInt32Array::from(rows))? };
                let at = TopicPartition { topic: Arc::clone(&topic), partition };
                let event_type = Arc::clone(&events.event_type);
                segments.push(Segment { event_type, at, offsets: offsets.into(), rows: taken });
            }
        }
        Ok(Split { segments, client_ids: self.client_ids, repeated: self.repeated, end: self.end })
    }
}
