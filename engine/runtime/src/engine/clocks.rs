//! Clocks: how far time has come, per event type and partition.
//!
//! A clock is the greatest event time so far less the type's `delay`. It rises with the rows, and by **raises**: when a
//! partition has been silent for the type's `idle`, its clock is set to the greatest of the type's clocks; when all are
//! silent, time goes on from the greatest at the speed of the wall clock. Raises depend on the wall clock, so they are
//! recorded with their epoch, and recovery applies the record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::TimestampMicrosecondType;
use cornjacket_core::Result;
use cornjacket_core::batch::{Batch, Lineage, Origins};
use cornjacket_core::catalogue::{EventType, stored};
use cornjacket_core::graph::{Graph, NodeKind};
use cornjacket_core::log::Chunk;
use cornjacket_core::store::Raise;
use cornjacket_core::time::Micros;
use serde::{Deserialize, Serialize};

use crate::status::ClockStatus;

/// The watermark of each event type: the least of its clocks. Types that never had a row have none.
pub(super) type Watermarks = BTreeMap<String, Micros>;

struct PartitionClock {
    clock: Micros,
    /// When its last row was taken, by the process's own time.
    seen: Micros,
}

struct TypeClocks {
    event_type: Arc<EventType>,
    partitions: BTreeMap<u32, PartitionClock>,
    /// While all are silent: the greatest clock when that began, and when it began.
    anchor: Option<(Micros, Micros)>,
}

/// Every clock of a graph's sources.
pub(super) struct Clocks {
    types: BTreeMap<String, TypeClocks>,
    /// Silence is counted afresh after a start.
    started: Micros,
    /// Partitions that had rows in the epoch at hand.
    fed: Vec<(String, u32)>,
}

/// Who has been silent since when, by event type and partition.
pub(super) struct Silence {
    started: Micros,
    types: BTreeMap<String, (Option<(Micros, Micros)>, BTreeMap<u32, Micros>)>,
}

/// A clock as a snapshot keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedClock {
    event_type: String,
    partition: u32,
    clock: Micros,
}

impl Clocks {
    pub(super) fn new(graph: &Graph, started: Micros) -> Self {
        let sources = graph.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Source { event_type, .. } => Some(event_type),
            _ => None,
        });
        let clocks = |event_type: &Arc<EventType>| {
            let clocks = TypeClocks { event_type: Arc::clone(event_type), partitions: BTreeMap::new(), anchor: None };
            (event_type.name.clone(), clocks)
        };
        Self { types: sources.map(clocks).collect(), started, fed: Vec::new() }
    }

    /// Moves the clock of a chunk's partition on; gives it as it was before. `floor` is the source's watermark: a partition
    /// that begins late does not reopen what has closed.
    pub(super) fn feed(&mut self, chunk: &Chunk, floor: Option<Micros>) -> Micros {
        let floor = floor.unwrap_or(Micros::MIN);
        let Some(clocks) = self.types.get_mut(&chunk.event_type.name) else { return floor };
        let entry = clocks.partitions.entry(chunk.partition);
        let state = entry.or_insert(PartitionClock { clock: floor, seen: self.started });
        let before = state.clock;
        let times = chunk.rows.column(stored::EVENT_TIME).as_primitive::<TimestampMicrosecondType>();
        let delay = chunk.event_type.watermark.delay;
        state.clock = times.values().iter().max().map_or(before, |time| before.max(time - delay));
        self.fed.push((chunk.event_type.name.clone(), chunk.partition));
        before
    }

    /// Ends the rows of an epoch: whoever had one is not silent.
    pub(super) fn settle(&mut self, now: Micros) {
        for (event_type, partition) in self.fed.drain(..) {
            let Some(clocks) = self.types.get_mut(&event_type) else { continue };
            clocks.anchor = None;
            if let Some(state) = clocks.partitions.get_mut(&partition) {
                state.seen = now;
            }
        }
        for clocks in self.types.values_mut() {
            clocks.find_anchor(now);
        }
    }

    /// The raises that silence calls for now.
    pub(super) fn idle(&self, now: Micros) -> Vec<Raise> {
        self.types.values().flat_map(|clocks| clocks.idle(now)).collect()
    }

    /// The raises that bring every clock to a time.
    pub(super) fn all_to(&self, time: Micros) -> Vec<Raise> {
        let behind = self.each(|event_type, partition, clock| (event_type.to_string(), partition, clock));
        let behind = behind.into_iter().filter(|(.., clock)| *clock < time);
        behind.map(|(event_type, partition, _)| Raise { event_type, partition, clock: time }).collect()
    }

    /// The raises that bring the clocks of these types to the greatest of their type, and to `timer` at least.
    pub(super) fn closing(&self, timer: Micros, types: &BTreeSet<&str>) -> Vec<Raise> {
        let of_type = |clocks: &TypeClocks| {
            let target = clocks.greatest().map_or(timer, |greatest| greatest.max(timer));
            let raise = |partition: &u32| Raise {
                event_type: clocks.event_type.name.clone(),
                partition: *partition,
                clock: target,
            };
            let behind = clocks.partitions.iter().filter(|(_, state)| state.clock < target);
            behind.map(|(partition, _)| raise(partition)).collect::<Vec<_>>()
        };
        self.types.values().filter(|clocks| types.contains(clocks.event_type.name.as_str())).flat_map(of_type).collect()
    }

    pub(super) fn apply(&mut self, raises: &[Raise]) {
        for raise in raises {
            let Some(clocks) = self.types.get_mut(&raise.event_type) else { continue };
            let started = self.started;
            let entry = clocks.partitions.entry(raise.partition);
            let state = entry.or_insert(PartitionClock { clock: raise.clock, seen: started });
            state.clock = state.clock.max(raise.clock);
        }
    }

    pub(super) fn watermarks(&self) -> Watermarks {
        self.watermarks_after(&[])
    }

    /// The watermarks as they would be after these raises.
    pub(super) fn watermarks_after(&self, raises: &[Raise]) -> Watermarks {
        let raised = |name: &str, partition: u32| {
            let of_partition = raises.iter().filter(|raise| raise.event_type == name && raise.partition == partition);
            of_partition.map(|raise| raise.clock).max().unwrap_or(Micros::MIN)
        };
        let least = |(name, clocks): (&String, &TypeClocks)| {
            let clock = |(at, state): (&u32, &PartitionClock)| state.clock.max(raised(name, *at));
            clocks.partitions.iter().map(clock).min().map(|least| (name.clone(), least))
        };
        self.types.iter().filter_map(least).collect()
    }

    pub(super) fn save(&self) -> Vec<SavedClock> {
        self.each(|event_type, partition, clock| SavedClock { event_type: event_type.into(), partition, clock })
    }

    pub(super) fn restore(&mut self, saved: &[SavedClock]) {
        for SavedClock { event_type, partition, clock } in saved {
            if let Some(clocks) = self.types.get_mut(event_type) {
                clocks.partitions.insert(*partition, PartitionClock { clock: *clock, seen: self.started });
            }
        }
    }

    /// Every clock; `to_wall` is what the wall clock is ahead of the process's own time.
    pub(super) fn status(&self, to_wall: Micros) -> Vec<ClockStatus> {
        let of_type = |clocks: &TypeClocks| {
            let policy = clocks.event_type.watermark;
            let status = |(partition, state): (&u32, &PartitionClock)| ClockStatus {
                event_type: clocks.event_type.name.clone(),
                partition: *partition,
                clock: state.clock,
                // Silence is counted from the start, too, where no row has come since.
                last_row_at: (state.seen > self.started).then_some(state.seen + to_wall),
                silent_at: state.seen.saturating_add(policy.idle).saturating_add(to_wall),
            };
            clocks.partitions.iter().map(status).collect::<Vec<_>>()
        };
        self.types.values().flat_map(of_type).collect()
    }

    /// When, by the process's own time, the clocks of these types have reached a time even if no row ever comes again;
    /// `None` if they have already.
    pub(super) fn reached_by(&self, time: Micros, types: &BTreeSet<&str>) -> Option<Micros> {
        let clocks = self.types.values().filter(|clocks| types.contains(clocks.event_type.name.as_str()));
        clocks.filter_map(|clocks| clocks.reached_by(time)).max()
    }

    /// Who has been silent since when.
    pub(super) fn silence(&self) -> Silence {
        let of_type = |(name, clocks): (&String, &TypeClocks)| {
            let seen = clocks.partitions.iter().map(|(partition, state)| (*partition, state.seen)).collect();
            (name.clone(), (clocks.anchor, seen))
        };
        Silence { started: self.started, types: self.types.iter().map(of_type).collect() }
    }

    /// After the state was made again in a process that runs: silence is counted as it was.
    pub(super) fn resume(&mut self, silence: Silence) {
        self.started = silence.started;
        for (name, (anchor, seen)) in silence.types {
            let Some(clocks) = self.types.get_mut(&name) else { continue };
            clocks.anchor = anchor;
            for (partition, state) in &mut clocks.partitions {
                state.seen = seen.get(partition).copied().unwrap_or(silence.started);
            }
        }
    }

    /// After recovery: silence is counted from now.
    pub(super) fn restart(&mut self, now: Micros) {
        self.started = now;
        for clocks in self.types.values_mut() {
            clocks.anchor = None;
            clocks.partitions.values_mut().for_each(|state| state.seen = now);
        }
    }

    fn each<T>(&self, make: impl Fn(&str, u32, Micros) -> T) -> Vec<T> {
        let of_type = |(name, clocks): (&String, &TypeClocks)| {
            clocks.partitions.iter().map(|(at, state)| make(name, *at, state.clock)).collect::<Vec<_>>()
        };
        self.types.iter().flat_map(of_type).collect()
    }
}

/// A chunk's rows with their lineage, from what [`Clocks::feed`] said of the chunk.
pub(super) fn batch(chunk: Chunk, mut clock: Micros, columns: &[usize]) -> Result<Batch> {
    let Chunk { event_type, offsets, rows, .. } = chunk;
    let time = rows.column(stored::EVENT_TIME).as_primitive::<TimestampMicrosecondType>().clone();
    let delay = event_type.watermark.delay;
    let clocks = time.values().iter().map(|time| {
        let before = clock;
        clock = clock.max(time - delay);
        before
    });
    let clock = Int64Array::from_iter_values(clocks);
    let event_id = Some(rows.column(stored::EVENT_ID).as_fixed_size_binary().clone());
    let lineage = Lineage::new(Origins { time, clock, order: offsets, event_id, weight: None });
    Ok(Batch { rows: event_type.table_rows(&rows, Some(columns))?, lineage })
}

impl TypeClocks {
    fn greatest(&self) -> Option<Micros> {
        self.partitions.values().map(|state| state.clock).max()
    }

    /// When the last of the partitions became silent, if all are.
    fn silent_since(&self, now: Micros) -> Option<Micros> {
        let last = self.partitions.values().map(|state| state.seen).max()?;
        let since = last + self.event_type.watermark.idle;
        (since <= now).then_some(since)
    }

    fn find_anchor(&mut self, now: Micros) {
        if self.anchor.is_none() {
            self.anchor = self.silent_since(now).and_then(|since| Some((self.greatest()?, since)));
        }
    }

    /// See [`Clocks::reached_by`]. The raises of [`TypeClocks::idle`], foretold.
    fn reached_by(&self, time: Micros) -> Option<Micros> {
        let idle = self.event_type.watermark.idle;
        let behind = || self.partitions.values().filter(|state| state.clock < time);
        let last = behind().map(|state| state.seen).max()?;
        if self.greatest()? >= time {
            return Some(last.saturating_add(idle));
        }
        let all = self.partitions.values().map(|state| state.seen).max()?.saturating_add(idle);
        let (clock, since) = self.anchor.or_else(|| Some((self.greatest()?, all)))?;
        Some(since.saturating_add(time.saturating_sub(clock)))
    }

    fn idle(&self, now: Micros) -> Vec<Raise> {
        let Some(greatest) = self.greatest() else { return Vec::new() };
        let target = match (self.anchor, self.silent_since(now)) {
            (Some((clock, since)), Some(_)) => clock + (now - since),
            (None, Some(since)) => greatest + (now - since),
            (_, None) => greatest,
        };
        let idle = self.event_type.watermark.idle;
        let raise = |(partition, state): (&u32, &PartitionClock)| {
            let silent = state.seen + idle <= now;
            (silent && state.clock < target).then(|| Raise {
                event_type: self.event_type.name.clone(),
                partition: *partition,
                clock: target,
            })
        };
        self.partitions.iter().filter_map(raise).collect()
    }
}

#[cfg(test)]
mod tests {
    use cornjacket_core::catalogue::{UnknownFields, WatermarkPolicy};
    use cornjacket_core::time::SECOND;

    use super::*;

    /// A type whose partitions have these clocks, each with the time of its last row, in seconds; `idle` is 30.
    fn clocks(partitions: &[(Micros, Micros)]) -> Clocks {
        let watermark = WatermarkPolicy { delay: 5 * SECOND, idle: 30 * SECOND, max_ahead: 60 * SECOND };
        let event_type = Arc::new(EventType::new("a.b", "t", Vec::new(), UnknownFields::Keep, watermark));
        let clock = |(clock, seen): &(Micros, Micros)| PartitionClock { clock: clock * SECOND, seen: seen * SECOND };
        let partitions = (0..).zip(partitions.iter().map(clock)).collect();
        let types = BTreeMap::from([("a.b".to_string(), TypeClocks { event_type, partitions, anchor: None })]);
        Clocks { types, started: 0, fed: Vec::new() }
    }

    /// What is foretold comes: just before no clock is high enough, at the time itself all are.
    #[test]
    fn when_a_time_is_reached_without_rows_is_foretold() {
        let types = BTreeSet::from(["a.b"]);
        let cases: [(&[(Micros, Micros)], Option<Micros>); 5] = [
            (&[(200, 10), (201, 20)], None),
            (&[(100, 10), (200, 20)], Some(40)),
            (&[(100, 25), (200, 20), (150, 7)], Some(55)),
            (&[(100, 10), (140, 20)], Some(50 + 60)),
            (&[(199, 10)], Some(41)),
        ];
        for (partitions, expected) in cases {
            let mut clocks = clocks(partitions);
            let time = 200 * SECOND;
            assert_eq!(clocks.reached_by(time, &types), expected.map(|at| at * SECOND), "{partitions:?}");
            let Some(at) = expected.map(|at| at * SECOND) else { continue };
            let least = |clocks: &Clocks, now| clocks.watermarks_after(&clocks.idle(now))["a.b"];
            assert!(least(&clocks, at - 1) < time, "{partitions:?}");
            assert!(least(&clocks, at) >= time, "{partitions:?}");
            // An epoch without rows of the type, and a raise for another window, do not change what is foretold.
            let between = at - SECOND / 2;
            clocks.settle(between);
            let raises = clocks.idle(between);
            clocks.apply(&raises);
            assert_eq!(clocks.reached_by(time, &types), Some(at), "{partitions:?}");
        }
    }

    #[test]
    fn the_status_tells_rows_from_the_start_of_the_process() {
        let mut clocks = clocks(&[(100, 10), (140, 20)]);
        let seen = |clocks: &Clocks| clocks.status(1_000 * SECOND).iter().map(|c| c.last_row_at).collect::<Vec<_>>();
        assert_eq!(seen(&clocks), [Some(1_010 * SECOND), Some(1_020 * SECOND)]);
        clocks.restart(50 * SECOND);
        assert_eq!(seen(&clocks), [None, None]);
        assert_eq!(clocks.status(0)[0].silent_at, 80 * SECOND);
    }
}
