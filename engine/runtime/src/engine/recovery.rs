//! Recovery: where the last process left off, or, after an edit of the pipeline, what has to be built anew.
//!
//! Every node has a fingerprint of itself and everything upstream. If all stateful nodes and all sinks that begin with
//! the retained events are known from the last run, the engine restores the snapshot and computes the epochs recorded
//! after it again, cut where they were cut, with the sinks muted. Otherwise it rebuilds: it starts from the first
//! retained event, applies the recorded raises where they took place, and writes only the sinks that are new or changed,
//! while the others keep what they have, until it has passed the point where the last run stood.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cornjacket_core::graph::{Node, NodeKind};
use cornjacket_core::log::{Positions, Slice};
use cornjacket_core::store::{EpochRecord, PipelineState, Raise};
use cornjacket_core::{Error, Result};

use super::Engine;
use super::begins::{Begins, begins_now};
use super::clocks::Clocks;
use super::node::Failure;
use super::outlets::Outlets;
use crate::audit::carried;

/// A rebuild under way.
pub(super) struct Rebuild {
    kept: Vec<String>,
    until: Positions,
    /// Raises still to come, with where they took place, the next one last.
    raises: Vec<(Positions, Vec<Raise>)>,
}

impl Rebuild {
    /// Whether a sink is right already and stays untouched.
    pub(super) fn keeps(&self, sink: &str) -> bool {
        self.kept.iter().any(|kept| kept == sink)
    }

    /// Where the next epoch must end at the latest.
    pub(super) fn next_cut(&self) -> Positions {
        self.raises.last().map_or_else(|| self.until.clone(), |(at, _)| at.clone())
    }

    /// The raises that took place at this very position.
    pub(super) fn raises_at(&self, end: &Positions) -> Vec<Raise> {
        self.raises.last().filter(|(at, _)| end.covers(at)).map(|(_, raises)| raises.clone()).unwrap_or_default()
    }

    fn pass(&mut self, positions: &Positions, applied: bool) {
        if applied && self.raises.last().is_some_and(|(at, _)| positions.covers(at)) {
            self.raises.pop();
        }
    }

    fn is_done(&self, positions: &Positions) -> bool {
        self.raises.is_empty() && positions.covers(&self.until)
    }
}

fn must_see_the_log(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Source { .. } => false,
        NodeKind::Operator(factory) => factory.is_stateful(),
        NodeKind::Sink(factory) => factory.starts_at_beginning(),
    }
}

impl Engine {
    pub(super) fn recover(&mut self) -> Result<()> {
        let store = Arc::clone(&self.storage.store);
        let mut state = store.pipeline_state()?;
        if self.is_changed(&state) {
            state = self.begin_rebuild(state)?;
        }
        for projection in self.graph.nodes.iter().filter_map(projection_of) {
            store.prepare(&projection, false)?;
        }
        self.outlets = Outlets::open(&self.graph, &store.lengths()?, &|sink| store.claim(sink))?;
        self.begins = Begins::of(&self.graph, &state.begins, &self.options.found);
        self.set_aside.add(store.set_aside()?);
        self.replay_all(&state)?;
        self.remember(&state)?;
        // The last process may have died between its last epoch of the rebuild and saying that it was the last.
        self.conclude_rebuild()?;
        let now = self.environment.clock.monotonic();
        self.clocks.restart(now);
        Ok(())
    }

    fn fingerprints(&self) -> BTreeMap<String, String> {
        self.graph
            .nodes
            .iter()
            .filter(|n| must_see_the_log(n))
            .map(|n| (n.name.clone(), n.fingerprint.clone()))
            .collect()
    }

    fn is_changed(&self, state: &PipelineState) -> bool {
        self.fingerprints().iter().any(|(name, fingerprint)| state.fingerprints.get(name) != Some(fingerprint))
    }

    /// Fingerprints of what the file no longer has are forgotten, so that it is built anew should it come back.
    fn remember(&self, state: &PipelineState) -> Result<()> {
        let (fingerprints, begins) = (self.fingerprints(), self.begins.positions().clone());
        let nodes = self.graph.nodes.iter().map(|node| (node.name.clone(), node.fingerprint.clone())).collect();
        if fingerprints == state.fingerprints && begins == state.begins && nodes == state.nodes {
            return Ok(());
        }
        let carried = carried(&self.graph, &self.storage, state)?;
        let state = PipelineState { fingerprints, begins, nodes, carried, ..state.clone() };
        self.storage.store.set_pipeline_state(&state, false)
    }

    /// Empties what is new or changed and starts the epochs over.
    fn begin_rebuild(&self, old: PipelineState) -> Result<PipelineState> {
        let store = &self.storage.store;
        let current = self.fingerprints();
        let kept = |name: &String| {
            let was_right = old.rebuild_until.is_none() || old.kept_sinks.contains(name);
            was_right && old.fingerprints.get(name) == current.get(name)
        };
        let sinks = self.graph.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Sink(_)));
        // One that begins now is never built anew.
        let (kept, fresh): (Vec<&Node>, Vec<&Node>) = sinks.partition(|node| begins_now(node) || kept(&node.name));
        // Until the new state is written, what is about to be emptied must not pass for right.
        let dirty = old.fingerprints.iter().filter(|(name, _)| kept.iter().any(|node| node.name == **name));
        let dirty = dirty.map(|(name, fingerprint)| (name.clone(), fingerprint.clone())).collect();
        store.set_pipeline_state(&PipelineState { fingerprints: dirty, ..old.clone() }, false)?;
        for projection in fresh.iter().filter_map(|node| projection_of(node)) {
            store.prepare(&projection, true)?;
        }
        for sink in &fresh {
            store.reset_length(&sink.name)?;
        }
        let (until, past_raises) = match old.rebuild_until {
            Some(until) => (Some(until), old.past_raises),
            None => (store.last_epoch()?.map(|record| record.positions), store.raises()?),
        };
        let state = PipelineState {
            fingerprints: current,
            kept_sinks: kept.iter().map(|node| node.name.clone()).collect(),
            rebuild_until: until,
            past_raises,
            begins: old.begins,
            forgotten: self.forgotten()?,
            ..PipelineState::default()
        };
        store.set_pipeline_state(&state, true)?;
        Ok(state)
    }

    /// What retention has deleted of each event type: a rebuild does not see it.
    fn forgotten(&self) -> Result<BTreeMap<String, u64>> {
        let counts = self.storage.log.counts(&Positions::default())?;
        Ok(counts.into_iter().filter(|(_, count)| count.forgotten > 0).map(|(name, c)| (name, c.forgotten)).collect())
    }

    fn rebuild_of(&self, state: &PipelineState) -> Result<Option<Rebuild>> {
        let Some(until) = state.rebuild_until.clone() else { return Ok(None) };
        // Raises are applied in their order. Those of epochs up to the snapshot are in it; the later ones come with the
        // epochs that are computed again. Several may have the same position, so they are counted, not compared.
        let store = &self.storage.store;
        let to_come = store.epochs_after(self.epoch)?.iter().filter(|record| !record.raises.is_empty()).count();
        let applied = store.raises()?.len().saturating_sub(to_come);
        let mut raises: Vec<_> = state.past_raises.iter().skip(applied).cloned().collect();
        raises.reverse();
        Ok(Some(Rebuild { kept: state.kept_sinks.clone(), until, raises }))
    }

    /// The state of the last committed epoch: that of the snapshot, and the recorded epochs after it computed again.
    pub(super) fn replay_all(&mut self, state: &PipelineState) -> Result<()> {
        let store = Arc::clone(&self.storage.store);
        // Epochs that another version could compute and this one cannot, but for their results one by one.
        let mut one_by_one = BTreeSet::new();
        'again: loop {
            self.rewind(state)?;
            for mut record in store.epochs_after(self.epoch)? {
                record.one_by_one |= one_by_one.contains(&record.epoch);
                let Err(failure) = self.replay(&record)? else { continue };
                if one_by_one.insert(record.epoch) && !record.one_by_one {
                    continue 'again;
                }
                let (node, words) = (failure.node, failure.error.words());
                let why = format!("epoch {} was computed once, and now `{node}` fails: {words}", record.epoch);
                return Err(Error::Compute(why));
            }
            return Ok(());
        }
    }

    /// The state of the last snapshot.
    fn rewind(&mut self, state: &PipelineState) -> Result<()> {
        self.nodes.renew(&self.graph)?;
        self.clocks = Clocks::new(&self.graph, self.environment.clock.monotonic());
        (self.positions, self.epoch) = (Positions::default(), 0);
        self.restore_snapshot()?;
        self.rebuild = self.rebuild_of(state)?;
        Ok(())
    }

    /// Computes a recorded epoch again. What its sinks give was written when it was committed.
    fn replay(&mut self, record: &EpochRecord) -> Result<Result<(), Failure>> {
        if record.epoch != self.epoch + 1 {
            return Err(Error::Corrupt(format!("the record of epoch {} is missing", self.epoch + 1)));
        }
        let slice = self.read_exactly(&record.positions)?;
        if let Err(failure) = self.run(slice, record) {
            return Ok(Err(failure));
        }
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.pass(&record.positions, !record.raises.is_empty());
        }
        Ok(Ok(()))
    }

    /// All rows from here to a recorded position.
    fn read_exactly(&self, until: &Positions) -> Result<Slice> {
        let mut whole = Slice { chunks: Vec::new(), end: self.positions.clone() };
        while !whole.end.covers(until) {
            let slice = self.storage.log.read(&whole.end, Some(until), usize::MAX, &self.columns)?;
            if slice.end == whole.end {
                return Err(Error::Corrupt("the log ends before the position of a committed epoch".into()));
            }
            whole.chunks.extend(slice.chunks);
            whole.end = slice.end;
        }
        Ok(whole)
    }

    /// After a committed epoch: ends the rebuild once the engine stands where the last run stood.
    pub(super) fn finish_rebuild(&mut self) -> Result<()> {
        let Some(rebuild) = &mut self.rebuild else { return Ok(()) };
        let applied = !rebuild.raises_at(&self.positions).is_empty();
        rebuild.pass(&self.positions, applied);
        self.conclude_rebuild()
    }

    fn conclude_rebuild(&mut self) -> Result<()> {
        if !self.rebuild.as_ref().is_some_and(|rebuild| rebuild.is_done(&self.positions)) {
            return Ok(());
        }
        let begins = self.begins.positions().clone();
        let PipelineState { forgotten, nodes, carried, .. } = self.storage.store.pipeline_state()?;
        let rest = PipelineState { forgotten, nodes, carried, ..PipelineState::default() };
        let state = PipelineState { fingerprints: self.fingerprints(), begins, ..rest };
        self.storage.store.set_pipeline_state(&state, false)?;
        self.rebuild = None;
        let now = self.environment.clock.monotonic();
        self.clocks.restart(now);
        Ok(())
    }
}

fn projection_of(node: &Node) -> Option<Arc<cornjacket_core::projection::ProjectionSpec>> {
    match &node.kind {
        NodeKind::Sink(factory) => factory.projection(),
        _ => None,
    }
}
