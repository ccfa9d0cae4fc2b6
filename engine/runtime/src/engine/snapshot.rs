//! Snapshots: a consistent cut of all state, taken between two epochs and saved off their path.
//!
//! Taking one costs what changed since the last: operators hand over new parts (batches, not yet encoded) and name the
//! old ones that still belong to them. A saver thread encodes and writes the parts, then the snapshot. Until that is
//! done no other is taken; parts of a snapshot that could not be saved go along with the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::RecordBatch;
use cornjacket_core::guard::guarded;
use cornjacket_core::operator::{PartId, StatePart, StateWriter};
use cornjacket_core::store::{Snapshot, Store};
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::clocks::SavedClock;
use super::{Engine, EngineOptions};

/// Who saves snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saver {
    /// A thread beside the engine.
    Thread,
    /// The engine itself, which waits; for tests that own time.
    Inline,
}

/// The engine's part of a snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Body {
    clocks: Vec<SavedClock>,
    next_part: PartId,
    /// By node name.
    nodes: BTreeMap<String, NodeState>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct NodeState {
    /// State is only taken back by the node that it was taken from.
    fingerprint: String,
    watermark: Option<Micros>,
    /// Labels and parts of each task.
    tasks: Vec<Vec<(String, PartId)>>,
}

type Parts = Vec<(PartId, RecordBatch)>;

struct Saving {
    thread: JoinHandle<Result<()>>,
    epoch: u64,
}

/// Takes snapshots in time.
pub(super) struct Snapshots {
    store: Arc<dyn Store>,
    every: Micros,
    saver: Saver,
    last_taken: Micros,
    last_epoch: u64,
    next_part: PartId,
    /// Parts that no saved snapshot has yet.
    unsaved: Parts,
    saving: Option<Saving>,
    saved: Option<(u64, Micros)>,
}

impl Snapshots {
    pub(super) fn new(options: &EngineOptions, store: Arc<dyn Store>, now: Micros) -> Self {
        Self {
            store,
            every: options.snapshot_every,
            saver: options.saver,
            last_taken: now,
            last_epoch: 0,
            next_part: 1,
            unsaved: Vec::new(),
            saving: None,
            saved: None,
        }
    }

    pub(super) fn last(&self) -> Option<(u64, Micros)> {
        self.saved
    }

    /// After one that could not be taken: the next is tried after twice the time, or ten minutes.
    fn put_off(&mut self, now: Micros) {
        (self.every, self.last_taken) = (self.every.saturating_mul(2).min(600 * SECOND), now);
    }

    fn is_due(&self, epoch: u64, now: Micros) -> bool {
        epoch > self.last_epoch && now - self.last_taken >= self.every
    }

    /// Waits for the snapshot that is being saved, if one is.
    pub(super) fn wait(&mut self) -> Result<()> {
        let Some(Saving { thread, epoch }) = self.saving.take() else { return Ok(()) };
        let outcome = thread.join().unwrap_or_else(|_| Err(Error::Compute("the snapshot saver panicked".into())));
        self.settle(epoch, outcome)
    }

    /// Waits for the snapshot that is being saved, and forgets what no saved snapshot has: its state is thrown away.
    pub(super) fn forget_unsaved(&mut self) -> Result<()> {
        self.wait()?;
        self.unsaved.clear();
        Ok(())
    }

    /// Looks whether the snapshot that was being saved is done.
    fn poll(&mut self) -> Result<()> {
        if self.saving.as_ref().is_some_and(|saving| saving.thread.is_finished()) { self.wait() } else { Ok(()) }
    }

    fn settle(&mut self, epoch: u64, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => {
                self.unsaved.clear();
                self.saved = Some((epoch, self.last_taken));
                Ok(())
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(epoch, %error, "a snapshot could not be saved; the next one will hold what it held");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn save(&mut self, snapshot: Snapshot) -> Result<()> {
        let (store, parts, epoch) = (Arc::clone(&self.store), self.unsaved.clone(), snapshot.epoch);
        let save = move || store.save_snapshot(&snapshot, &parts);
        if self.saver == Saver::Inline {
            let outcome = save();
            return self.settle(epoch, outcome);
        }
        let thread = std::thread::Builder::new().name("snapshot".into()).spawn(save);
        let thread = thread.map_err(|error| Error::Unavailable(format!("no thread to save a snapshot: {error}")))?;
        self.saving = Some(Saving { thread, epoch });
        Ok(())
    }
}

/// Collects one task's state.
struct Writer<'a> {
    next_part: &'a mut PartId,
    unsaved: &'a mut Parts,
    parts: Vec<(String, PartId)>,
}

impl StateWriter for Writer<'_> {
    fn save(&mut self, label: String, rows: RecordBatch) -> PartId {
        let id = *self.next_part;
        *self.next_part += 1;
        self.unsaved.push((id, rows));
        self.parts.push((label, id));
        id
    }

    fn keep(&mut self, label: String, id: PartId) {
        self.parts.push((label, id));
    }
}

impl Engine {
    /// Takes a snapshot if one is due.
    pub(super) fn maybe_snapshot(&mut self) -> Result<()> {
        self.snapshots.poll()?;
        let now = self.environment.clock.monotonic();
        if self.snapshots.saving.is_none() && self.snapshots.is_due(self.epoch, now) {
            self.take_snapshot()?;
        }
        Ok(())
    }

    /// Takes a snapshot if an epoch was committed since the last. Where state cannot be expressed as rows, there is none:
    /// the state is made again, and a later snapshot may do better.
    pub(super) fn take_snapshot(&mut self) -> Result<()> {
        if self.epoch == self.snapshots.last_epoch {
            return Ok(());
        }
        match guarded(|| self.collect_state()) {
            Ok(snapshot) => {
                self.snapshots.last_epoch = self.epoch;
                self.snapshots.last_taken = self.environment.clock.monotonic();
                self.snapshots.save(snapshot)
            }
            Err(error) => {
                tracing::error!(error = %error.words(), "no snapshot can be taken of the state; it is tried again later");
                self.snapshots.put_off(self.environment.clock.monotonic());
                self.is_broken = true;
                Ok(())
            }
        }
    }

    fn collect_state(&mut self) -> Result<Snapshot> {
        let mut body = Body { clocks: self.clocks.save(), ..Body::default() };
        let Snapshots { next_part, unsaved, .. } = &mut self.snapshots;
        for (running, node) in self.nodes.running.iter_mut().zip(&self.graph.nodes) {
            let mut state =
                NodeState { fingerprint: node.fingerprint.clone(), watermark: running.watermark, tasks: Vec::new() };
            for task in running.operators() {
                let mut writer = Writer { next_part, unsaved, parts: Vec::new() };
                task.snapshot(&mut writer)?;
                state.tasks.push(writer.parts);
            }
            body.nodes.insert(node.name.clone(), state);
        }
        body.next_part = *next_part;
        let parts: Vec<PartId> =
            body.nodes.values().flat_map(|node| node.tasks.iter().flatten()).map(|(_, id)| *id).collect();
        // What was made for an earlier snapshot that failed may have been replaced since.
        let used: BTreeSet<PartId> = parts.iter().copied().collect();
        unsaved.retain(|(id, _)| used.contains(id));
        let text = serde_json::to_string(&body).map_err(|error| Error::Compute(error.to_string()))?;
        Ok(Snapshot { epoch: self.epoch, positions: self.positions.clone(), body: text, parts })
    }

    /// Takes back the latest snapshot's state, if there is one.
    pub(super) fn restore_snapshot(&mut self) -> Result<()> {
        let store = Arc::clone(&self.storage.store);
        let Some(snapshot) = store.latest_snapshot()? else { return Ok(()) };
        let body: Body = serde_json::from_str(&snapshot.body)
            .map_err(|error| Error::Corrupt(format!("snapshot of epoch {}: {error}", snapshot.epoch)))?;
        self.clocks.restore(&body.clocks);
        for (running, node) in self.nodes.running.iter_mut().zip(&self.graph.nodes) {
            let Some(state) = body.nodes.get(&node.name).filter(|s| s.fingerprint == node.fingerprint) else {
                continue;
            };
            running.watermark = state.watermark;
            for (task, parts) in running.operators().iter_mut().zip(&state.tasks) {
                let part = |(label, id): &(String, PartId)| {
                    Ok(StatePart { label: label.clone(), id: *id, rows: store.part(*id)? })
                };
                task.restore(parts.iter().map(part).collect::<Result<_>>()?, state.watermark)?;
            }
        }
        self.positions = snapshot.positions;
        self.epoch = snapshot.epoch;
        // A part's number is never used twice, also where a later snapshot failed.
        self.snapshots.next_part = self.snapshots.next_part.max(body.next_part);
        self.snapshots.last_epoch = snapshot.epoch;
        Ok(())
    }
}
