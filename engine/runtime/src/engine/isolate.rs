//! What cannot be computed is set aside, and everything else goes on.
//!
//! Most failures stay within an operator, which leaves the rows at fault out by itself. Where one leaves state half changed
//! (a panic inside a library, a window that cannot be closed), the state is thrown away and made again from the snapshot
//! and the records, as after a crash. The rows that were at hand are then computed in parts, each an epoch of its own but for
//! the watermark, which moves only at the end of the last: half of them, half of the half that fails, until one row stands
//! alone. If it is not enough to give results one by one, that row is left out: its epoch's record names it, so that
//! recovery and rebuilds leave it out as well, and it is a dead letter.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::BooleanArray;
use arrow::compute::{filter, filter_record_batch};
use cornjacket_core::dead_letter::DeadLetter;
use cornjacket_core::guard::guarded;
use cornjacket_core::log::{Chunk, Positions, Slice};
use cornjacket_core::store::{EpochRecord, Raise, SetAside};
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};

use super::node::Failure;
use super::{Engine, clocks, dead};

/// How many epochs must pass before more rows are taken at once again, where rows grew too large.
const CALM_EPOCHS: u32 = 8;

/// How the next epoch is computed while the fault is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// So many rows.
    Part(i64),
    /// One row, or only time: results one by one.
    OneByOne,
    /// Without the one row.
    Without,
    /// Both.
    OneByOneWithout,
}

/// The search for what is at fault.
#[derive(Debug)]
pub(super) struct Isolation {
    /// Where the epoch would have ended that is computed in parts.
    whole: Positions,
    /// The rows at fault lie before this.
    end: Positions,
    attempt: Attempt,
    /// How many rows may be taken at once, where they grow too large by what is computed of them.
    most: i64,
    failure: Failure,
}

impl Isolation {
    fn part(&mut self, rows: i64) {
        self.attempt = Attempt::Part(rows.min(self.most).max(1));
    }
}

/// How many rows an epoch takes at most: fewer for a while after rows grew too large.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) rows: usize,
    most: usize,
    calm: u32,
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        Self { rows: most, most, calm: 0 }
    }

    fn shrink(&mut self, rows: i64) {
        self.rows = usize::try_from(rows).unwrap_or(usize::MAX).min(self.rows).max(1);
        self.calm = 0;
    }

    fn passed(&mut self) {
        self.calm += 1;
        if self.rows < self.most && self.calm >= CALM_EPOCHS {
            (self.rows, self.calm) = (self.rows.saturating_mul(2).min(self.most), 0);
        }
    }
}

/// Every event that was ever set aside, by type and partition.
#[derive(Debug, Default)]
pub(super) struct SetAsides(BTreeMap<(String, u32), BTreeSet<i64>>);

impl SetAsides {
    pub(super) fn add(&mut self, rows: impl IntoIterator<Item = SetAside>) {
        for SetAside { event_type, partition, offset } in rows {
            self.0.entry((event_type, partition)).or_default().insert(offset);
        }
    }

    /// A chunk without the rows that are set aside, and how many those are.
    pub(super) fn leave_out(&self, chunk: Chunk, also: &[SetAside]) -> Result<(Chunk, usize)> {
        let known = (!self.0.is_empty()).then(|| self.0.get(&(chunk.event_type.name.clone(), chunk.partition)));
        let known = known.flatten();
        if known.is_none() && also.is_empty() {
            return Ok((chunk, 0));
        }
        let is_new = |offset: i64| {
            let is_it = |row: &SetAside| {
                row.offset == offset && row.partition == chunk.partition && row.event_type == chunk.event_type.name
            };
            also.iter().any(is_it)
        };
        let stays = |offset: &i64| !known.is_some_and(|known| known.contains(offset)) && !is_new(*offset);
        let keep: BooleanArray = chunk.offsets.values().iter().map(stays).map(Some).collect();
        let left_out = keep.len() - keep.true_count();
        if left_out == 0 {
            return Ok((chunk, 0));
        }
        let rows = filter_record_batch(&chunk.rows, &keep)?;
        let offsets = arrow::array::AsArray::as_primitive(&filter(&chunk.offsets, &keep)?).clone();
        Ok((Chunk { rows, offsets, ..chunk }, left_out))
    }
}

/// The position so many rows behind `from`, at most at `to`.
fn cut_after(from: &Positions, to: &Positions, rows: i64) -> Positions {
    let (mut cut, mut left) = (from.clone(), rows);
    for (at, end) in &to.0 {
        let begin = from.get(at);
        let taken = (end - begin).clamp(0, left);
        if taken > 0 {
            cut.0.insert(at.clone(), begin + taken);
            left -= taken;
        }
    }
    cut
}

fn rows_in(slice: &Slice) -> usize {
    slice.chunks.iter().map(|chunk| chunk.rows.num_rows()).sum()
}

impl Engine {
    /// Where the next epoch must end at the latest, if it must.
    pub(super) fn next_cut(&self) -> Option<Positions> {
        match &self.isolation {
            Some(Isolation { end, attempt: Attempt::Part(rows), .. }) => Some(cut_after(&self.positions, end, *rows)),
            Some(Isolation { end, .. }) => Some(end.clone()),
            None => {
                let rebuild = self.rebuild.as_ref().map(super::Rebuild::next_cut);
                rebuild.or_else(|| self.begins.next_cut(&self.positions).cloned())
            }
        }
    }

    /// The record of the epoch that takes this slice.
    pub(super) fn next_record(&self, slice: &Slice, raises: Vec<Raise>) -> EpochRecord {
        let attempt = self.isolation.as_ref().map(|isolation| isolation.attempt);
        let name = |chunk: &Chunk| {
            let (event_type, partition) = (chunk.event_type.name.clone(), chunk.partition);
            let row = |offset: &i64| SetAside { event_type: event_type.clone(), partition, offset: *offset };
            chunk.offsets.values().iter().map(row).collect::<Vec<_>>()
        };
        let is_without = matches!(attempt, Some(Attempt::Without | Attempt::OneByOneWithout));
        EpochRecord {
            epoch: self.epoch + 1,
            positions: slice.end.clone(),
            raises,
            set_aside: if is_without { slice.chunks.iter().flat_map(name).collect() } else { Vec::new() },
            one_by_one: matches!(attempt, Some(Attempt::OneByOne | Attempt::OneByOneWithout)),
            is_part: self.isolation.as_ref().is_some_and(|isolation| !slice.end.covers(&isolation.whole)),
        }
    }

    /// After a failure: decides how the rows up to `end` are computed next. The state is thrown away.
    pub(super) fn isolate(&mut self, slice: &Slice, failure: Failure) -> Result<()> {
        self.is_broken = true;
        let rows = self.positions.distance(&slice.end);
        tracing::debug!(node = %failure.node, rows, error = %failure.error, "an epoch could not be computed");
        let attempt = match self.isolation.as_ref().map(|isolation| isolation.attempt) {
            None | Some(Attempt::Part(_)) if rows > 1 => Attempt::Part(rows / 2),
            None | Some(Attempt::Part(_)) => Attempt::OneByOne,
            Some(Attempt::OneByOne) if rows_in(slice) > 0 => Attempt::Without,
            Some(Attempt::Without) => Attempt::OneByOneWithout,
            _ => {
                let (node, words) = (failure.node, failure.error.words());
                return Err(Error::Compute(format!("`{node}` fails even where all its rows are left out: {words}")));
            }
        };
        let is_too_large = matches!(failure.error, Error::Memory(_)) && rows > 1;
        let (whole, most, failure) = match self.isolation.take() {
            // What fails without the row is not why the row is left out.
            Some(before) if attempt == Attempt::OneByOneWithout => (before.whole, before.most, before.failure),
            Some(before) => (before.whole, before.most, failure),
            None => (slice.end.clone(), i64::MAX, failure),
        };
        let most = if is_too_large { rows / 2 } else { most };
        if is_too_large {
            self.room.shrink(rows / 2);
        }
        self.isolation = Some(Isolation { whole, end: slice.end.clone(), attempt, most, failure });
        Ok(())
    }

    /// After an epoch that was computed and committed.
    pub(super) fn passed(&mut self) {
        self.room.passed();
        let Some(isolation) = &mut self.isolation else { return };
        if self.positions.covers(&isolation.whole) {
            self.isolation = None;
            return;
        }
        if self.positions.covers(&isolation.end) {
            isolation.end = isolation.whole.clone();
            isolation.part(i64::MAX);
        } else {
            isolation.part(self.positions.distance(&isolation.end) / 2);
        }
    }

    /// The dead letters of the rows that an epoch sets aside.
    pub(super) fn letters_of(&self, slice: &Slice, record: &EpochRecord) -> Vec<DeadLetter> {
        let Some(isolation) = self.isolation.as_ref().filter(|_| !record.set_aside.is_empty()) else {
            return Vec::new();
        };
        let Failure { node, error } = &isolation.failure;
        let letters = |chunk: &Chunk| {
            let source = self.nodes.source_of(&chunk.event_type.name);
            let columns = source.map(|source| self.nodes.columns_of(source)).unwrap_or_default();
            let mut letters = Vec::new();
            let batch = clocks::batch(chunk.clone(), Micros::MIN, columns)?;
            let batch = batch.with_rows(batch.rows.project(columns)?);
            dead::add(node, "compute", &batch, &mut letters, |_| error.words())?;
            Ok(letters)
        };
        let or_bare = |chunk: &Chunk| guarded(|| letters(chunk)).unwrap_or_else(|_| vec![bare(node, chunk, error)]);
        slice.chunks.iter().filter(|chunk| chunk.rows.num_rows() > 0).flat_map(or_bare).collect()
    }

    /// Makes the state again that a failure has spoilt: that of the last committed epoch.
    pub(super) fn restore(&mut self) -> Result<()> {
        if self.silence.is_none() {
            self.silence = Some(self.clocks.silence());
        }
        self.snapshots.forget_unsaved()?;
        let state = self.storage.store.pipeline_state()?;
        self.replay_all(&state)?;
        if let Some(silence) = self.silence.take() {
            self.clocks.resume(silence);
        }
        self.is_broken = false;
        if self.isolation.is_some() {
            // The state may be thrown away again soon, and is found again sooner so.
            self.take_snapshot()?;
            self.snapshots.wait()?;
        }
        Ok(())
    }
}

/// A dead letter that only says which event it is.
fn bare(node: &str, chunk: &Chunk, error: &Error) -> DeadLetter {
    let offset = chunk.offsets.values().first().copied().unwrap_or_default();
    DeadLetter {
        reason: "compute".into(),
        source: node.into(),
        message: error.words(),
        place: Some(format!("compute {}/{} {offset}", chunk.event_type.name, chunk.partition)),
        is_placed: true,
        ..DeadLetter::default()
    }
}
