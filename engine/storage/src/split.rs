//! A commit's rows by event type and partition, with their offsets.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat, take};
use cornjacket_core::Result;
use cornjacket_core::catalogue::{Catalogue, EventType, stored};
use cornjacket_core::id::{EventId, partition_of};
use cornjacket_core::log::{Events, Positions, TopicPartition};

use crate::side_by_side::side_by_side;

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
    /// The same rows by event type: those of its segments, one behind the other.
    pub(crate) types: BTreeMap<String, RecordBatch>,
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
    if is_in_sequence(commit) {
        for (index, events) in commit.iter().enumerate() {
            (0..).take(events.rows.num_rows()).for_each(|row| layout.place(index, row));
        }
    } else {
        for (index, row) in in_sequence(commit) {
            layout.place(index, row);
        }
    }
    layout.finish()
}

/// Whether each batch begins behind the end of the one before; the rows of one batch are in their order.
fn is_in_sequence(commit: &[Events]) -> bool {
    let ends = commit.iter().map(|events| events.sequence.values().last());
    let begins = commit.iter().skip(1).map(|events| events.sequence.values().first());
    ends.zip(begins).all(|(end, begin)| end.zip(begin).is_some_and(|(end, begin)| end < begin))
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
    batches: Vec<Batch<'a>>,
    types: Vec<Placing<'a>>,
    /// The next offset of each partition, by topic. Event types may share a topic.
    topics: Vec<(&'a str, Vec<i64>)>,
    known: HashSet<EventId>,
    client_ids: Vec<ClientId>,
    repeated: Vec<EventId>,
    end: Positions,
}

/// What is looked up for every row of a batch.
struct Batch<'a> {
    aggregate_ids: &'a StringArray,
    /// Position in [`Layout::types`].
    of_type: usize,
    /// Where its rows begin among those of its type.
    base: u32,
}

/// An event type while its rows are given their places.
struct Placing<'a> {
    event_type: &'a Arc<EventType>,
    batches: Vec<&'a RecordBatch>,
    rows: u32,
    /// Position in [`Layout::topics`].
    topic: usize,
    /// Rows and their offsets, by partition.
    partitions: Vec<(Vec<u32>, Vec<i64>)>,
}

impl<'a> Layout<'a> {
    fn new(commit: &'a [Events], catalogue: &Catalogue, end: &Positions, known: &HashSet<EventId>) -> Self {
        let mut layout = Self {
            commit,
            batches: Vec::new(),
            types: Vec::new(),
            topics: Vec::new(),
            known: known.clone(),
            client_ids: Vec::new(),
            repeated: Vec::new(),
            end: end.clone(),
        };
        for events in commit {
            let of_type = layout.of_type(events, catalogue);
            let placing = &mut layout.types[of_type];
            let base = placing.rows;
            placing.rows += u32::try_from(events.rows.num_rows()).unwrap_or(u32::MAX);
            placing.batches.push(&events.rows);
            let aggregate_ids = events.rows.column(stored::AGGREGATE_ID).as_string::<i32>();
            layout.batches.push(Batch { aggregate_ids, of_type, base });
        }
        layout
    }

    /// The place of a batch's event type among the types.
    fn of_type(&mut self, events: &'a Events, catalogue: &Catalogue) -> usize {
        let event_type = &events.event_type;
        if let Some(known) = self.types.iter().position(|placing| placing.event_type.name == event_type.name) {
            return known;
        }
        let name = event_type.topic.as_str();
        let partitions = catalogue.partitions(event_type).max(1);
        let topic = self.topics.iter().position(|(topic, _)| *topic == name).unwrap_or_else(|| {
            let next = |partition| self.end.get(&TopicPartition { topic: name.into(), partition });
            self.topics.push((name, (0..partitions).map(next).collect()));
            self.topics.len() - 1
        });
        let partitions = vec![(Vec::new(), Vec::new()); partitions as usize];
        self.types.push(Placing { event_type, batches: Vec::new(), rows: 0, topic, partitions });
        self.types.len() - 1
    }

    /// Gives a row its place, unless its event is there already.
    fn place(&mut self, index: usize, row: u32) {
        let (events, batch) = (&self.commit[index], &self.batches[index]);
        let id = is_given(events, row as usize).then(|| event_id(events, row as usize));
        if let Some(id) = id.filter(|id| !self.known.insert(*id)) {
            self.repeated.push(id);
            return;
        }
        let placing = &mut self.types[batch.of_type];
        let aggregate_id = batch.aggregate_ids.value(row as usize).as_bytes();
        let (topic, next) = &mut self.topics[placing.topic];
        let partition = partition_of(aggregate_id, u32::try_from(next.len()).unwrap_or(u32::MAX));
        let offset = next[partition as usize];
        next[partition as usize] += 1;
        let (rows, offsets) = &mut placing.partitions[partition as usize];
        rows.push(batch.base + row);
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
        let (mut segments, mut types) = (Vec::new(), BTreeMap::new());
        for placing in self.types {
            let name = placing.event_type.name.clone();
            if let Some(sorted) = placing.finish(&mut segments)? {
                types.insert(name, sorted);
            }
        }
        Ok(Split { segments, types, client_ids: self.client_ids, repeated: self.repeated, end: self.end })
    }
}

/// From so many rows on, the columns are put together side by side.
const WORTH_SHARING: u32 = 4_096;

impl Placing<'_> {
    /// All batches as one, its rows in this order where one is given.
    fn together(&self, order: Option<&UInt32Array>) -> Result<RecordBatch> {
        let column = |at: &usize| -> Result<ArrayRef> {
            let parts: Vec<&dyn Array> = self.batches.iter().map(|batch| batch.column(*at).as_ref()).collect();
            let whole = match self.batches.as_slice() {
                [one] => Arc::clone(one.column(*at)),
                _ => concat(&parts)?,
            };
            Ok(match order {
                Some(order) => take(&whole, order, None)?,
                None => whole,
            })
        };
        let schema = self.event_type.stored_schema();
        let columns: Vec<usize> = (0..schema.fields().len()).collect();
        let columns = match self.rows {
            ..WORTH_SHARING => columns.into_iter().map(|at| column(&at)).collect(),
            _ => side_by_side(&columns, column),
        };
        let columns = columns.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// The rows, sorted by partition with one copy, and the segments as slices of them; `None` if all were repeats.
    fn finish(self, segments: &mut Vec<Segment>) -> Result<Option<RecordBatch>> {
        let used = || (0..).zip(&self.partitions).filter(|(_, (rows, _))| !rows.is_empty());
        let order = match used().count() {
            0 => return Ok(None),
            1 if used().all(|(_, (rows, _))| rows.len() == self.rows as usize) => None,
            _ => Some(used().flat_map(|(_, (rows, _))| rows).copied().collect::<UInt32Array>()),
        };
        let sorted = self.together(order.as_ref())?;
        let topic: Arc<str> = self.event_type.topic.as_str().into();
        let mut start = 0;
        for (partition, (rows, offsets)) in used() {
            segments.push(Segment {
                event_type: Arc::clone(self.event_type),
                at: TopicPartition { topic: Arc::clone(&topic), partition },
                offsets: offsets.clone().into(),
                rows: sorted.slice(start, rows.len()),
            });
            start += rows.len();
        }
        Ok(Some(sorted))
    }
}
