//! The simulated log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::Result;
use cornjacket_core::catalogue::{Catalogue, stored};
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Chunk, Columns, Committed, EventLog, Events, Mark, Positions, Slice, TopicPartition};

use super::Process;
use crate::split::{Segment, split};

pub(super) struct SimLog {
    pub(super) process: Process,
    pub(super) catalogue: Arc<Catalogue>,
}

impl EventLog for SimLog {
    fn append(&self, commit: &[Events], marks: &[Mark]) -> Result<Committed> {
        self.process.call("append", |state| {
            let laid_out = split(commit, &self.catalogue, &state.end, &state.client_ids)?;
            state.client_ids.extend(laid_out.client_ids.iter().map(|given| given.id));
            let mut rows = 0;
            for segment in &laid_out.segments {
                rows += segment.rows.num_rows() as u64;
                let ids = arrow::array::AsArray::as_fixed_size_binary(segment.rows.column(stored::EVENT_ID));
                for (id, offset) in ids.iter().zip(segment.offsets.values()) {
                    let id = EventId(id.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default());
                    state.places.insert(id, (segment.at.clone(), *offset));
                }
            }
            state.commits.push(laid_out.segments);
            state.end = laid_out.end;
            state.marks.extend(marks.iter().map(|mark| (mark.source.clone(), mark.position.clone())));
            Ok(Committed { stored: rows, repeated: laid_out.repeated })
        })
    }

    fn marks(&self) -> Result<BTreeMap<String, String>> {
        self.process.call("marks", |state| Ok(state.marks.clone()))
    }

    fn end(&self) -> Positions {
        self.process.disk.state.lock().end.clone()
    }

    fn read(&self, from: &Positions, until: Option<&Positions>, max_rows: usize, columns: &Columns) -> Result<Slice> {
        self.process.call("read", |state| {
            let mut slice = Slice { chunks: Vec::new(), end: from.clone() };
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
        self.process.call("find", |state| Ok(state.places.get(&event).cloned()))
    }
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
        let skip = offsets.partition_point(|offset| *offset < from.get(&segment.at));
        let stop =
            until.map_or(offsets.len(), |until| offsets.partition_point(|offset| *offset < until.get(&segment.at)));
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
