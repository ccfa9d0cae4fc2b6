//! The simulated log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::Result;
use cornjacket_core::catalogue::{Catalogue, stored};
use cornjacket_core::id::EventId;
use cornjacket_core::log::{
    Chunk, Columns, Committed, EventLog, Events, LogCount, Notes, Positions, Slice, TopicPartition,
};
use cornjacket_core::time::Micros;

use super::Process;
use crate::split::{Segment, split};

pub(super) struct SimLog {
    pub(super) process: Process,
    pub(super) catalogue: Arc<Catalogue>,
}

impl EventLog for SimLog {
    fn append(&self, commit: &[Events], notes: &Notes) -> Result<Committed> {
        self.process.call("append", |state| {
            let laid_out = split(commit, &self.catalogue, &state.end, &state.client_ids)?;
            state.client_ids.extend(laid_out.client_ids.iter().map(|given| given.id));
            let mut rows = 0;
            for segment in &laid_out.segments {
                rows += segment.rows.num_rows() as u64;
                *state.accepted.entry(segment.event_type.name.clone()).or_default() += segment.rows.num_rows() as u64;
                let ids = arrow::array::AsArray::as_fixed_size_binary(segment.rows.column(stored::EVENT_ID));
                for (id, offset) in ids.iter().zip(segment.offsets.values()) {
                    let id = EventId(id.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default());
                    state.places.insert(id, (segment.at.clone(), *offset));
                }
            }
            state.commits.push(laid_out.segments);
            state.end = laid_out.end;
            state.marks.extend(notes.marks.iter().map(|mark| (mark.source.clone(), mark.position.clone())));
            state.receipts.extend(notes.receipts.iter().cloned());
            Ok(Committed { stored: rows, repeated: laid_out.repeated })
        })
    }

    fn marks(&self) -> Result<BTreeMap<String, String>> {
        self.process.call("marks", |state| Ok(state.marks.clone()))
    }

    /// However old they are: simulated time does not pass here.
    fn receipts(&self, source: &str, max_bytes: usize) -> Result<Vec<Vec<u8>>> {
        self.process.call("receipts", |state| {
            let (mut receipts, mut bytes) = (Vec::<Vec<u8>>::new(), 0);
            for receipt in state.receipts.iter().rev().filter(|receipt| receipt.source == source) {
                if bytes >= max_bytes {
                    break;
                }
                bytes += receipt.bytes.len();
                receipts.push(receipt.bytes.clone());
            }
            Ok(receipts)
        })
    }

    fn counts(&self, until: &Positions) -> Result<BTreeMap<String, LogCount>> {
        self.process.call("counts", |state| {
            let mut counts = BTreeMap::<String, LogCount>::new();
            for segment in state.commits.iter().flatten() {
                let count = counts.entry(segment.event_type.name.clone()).or_default();
                let rows = segment.rows.num_rows();
                let end = until.get(&segment.at);
                count.present += rows as u64;
                count.reached += segment.offsets.values().partition_point(|offset| *offset < end) as u64;
            }
            for (event_type, accepted) in &state.accepted {
                let count = counts.entry(event_type.clone()).or_default();
                count.accepted = *accepted;
                count.forgotten = state.forgotten.get(event_type).copied().unwrap_or(0);
            }
            Ok(counts)
        })
    }

    fn end(&self) -> Positions {
        self.process.disk.state.lock().end.clone()
    }

    fn read(&self, from: &Positions, until: Option<&Positions>, max_rows: usize, columns: &Columns) -> Result<Slice> {
        self.process.call("read", |state| {
            let mut slice = Slice { chunks: Vec::new(), end: from.clone() };
            for (at, begin) in &state.begin.0 {
                let later = from.get(at).max(*begin);
                slice.end.0.insert(at.clone(), later);
            }
            let mut rows = 0;
            for commit in &state.commits {
                if rows >= max_rows {
                    break;
                }
                for segment in commit {
                    rows += self.add(segment, from, until, columns, &mut slice);
                }
            }
            Ok(slice)
        })
    }

    /// Does not wait: simulated time does not pass here.
    fn wait_beyond(&self, position: &Positions, _: Duration) -> bool {
        !position.covers(&self.end())
    }

    fn find(&self, event: EventId) -> Result<Option<(TopicPartition, i64)>> {
        self.process.call("find", |state| {
            Ok(state.places.get(&event).filter(|(at, offset)| *offset >= state.begin.get(at)).cloned())
        })
    }

    fn forget(&self, before: &BTreeMap<String, Micros>, floor: &Positions) -> Result<u64> {
        self.process.call("forget", |state| {
            let (mut forgotten, mut over) = (0, before.clone());
            for commit in &mut state.commits {
                for segment in commit.iter().filter(|segment| stays(segment, before, floor)) {
                    over.remove(&*segment.at.topic);
                }
                for segment in commit.extract_if(.., |segment| over.contains_key(&*segment.at.topic)) {
                    let rows = segment.rows.num_rows() as u64;
                    *state.forgotten.entry(segment.event_type.name.clone()).or_default() += rows;
                    forgotten += rows;
                    let next = segment.offsets.values().last().map_or(0, |last| last + 1);
                    let begin = state.begin.get(&segment.at).max(next);
                    state.begin.0.insert(segment.at, begin);
                }
            }
            Ok(forgotten)
        })
    }
}

/// Whether retention leaves it: as with real blocks, the commit as a whole decides.
fn stays(segment: &Segment, before: &BTreeMap<String, Micros>, floor: &Positions) -> bool {
    let times = segment.rows.column(stored::INGESTED_AT);
    let times = arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampMicrosecondType>(times).values();
    let is_young = before.get(&*segment.at.topic).is_none_or(|before| times.iter().any(|at| at >= before));
    is_young || segment.offsets.values().iter().any(|offset| *offset >= floor.get(&segment.at))
}

impl SimLog {
    fn add(
        &self,
        segment: &Segment,
        from: &Positions,
        until: Option<&Positions>,
        columns: &Columns,
        slice: &mut Slice,
    ) -> usize {
        let offsets = segment.offsets.values();
        // Most segments were read long ago.
        if offsets.last().is_none_or(|last| *last < from.get(&segment.at)) {
            return 0;
        }
        // Looked up once, not for every offset that is compared.
        let first_before = |position: &Positions| {
            let position = position.get(&segment.at);
            offsets.partition_point(|offset| *offset < position)
        };
        let skip = first_before(from);
        let stop = until.map_or(offsets.len(), first_before);
        if stop <= skip {
            return 0;
        }
        let reached = slice.end.get(&segment.at).max(offsets[stop - 1] + 1);
        slice.end.0.insert(segment.at.clone(), reached);
        let wanted = match columns {
            Columns::All => true,
            Columns::Only(types) => types.contains_key(&segment.event_type.name),
        };
        let Some(event_type) = self.catalogue.types.get(&segment.event_type.name).filter(|_| wanted) else { return 0 };
        slice.chunks.push(Chunk {
            event_type: Arc::clone(event_type),
            partition: segment.at.partition,
            offsets: segment.offsets.slice(skip, stop - skip),
            rows: segment.rows.slice(skip, stop - skip),
        });
        stop - skip
    }
}
