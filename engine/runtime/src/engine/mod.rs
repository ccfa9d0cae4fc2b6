//! The engine: runs a graph in epochs.
//!
//! An epoch is one superstep. It takes a slice of the log, drives it through the nodes in topological order (each node's
//! tasks in parallel, its inputs in a fixed order), tells every node the watermark, and commits what the sinks made
//! together with the position, in one transaction. Nothing of an epoch is visible before that commit, and an epoch is
//! recorded with where it was cut and which clocks were raised. So the state after epoch n is a function of the log and
//! the records 1…n alone: recovery loads a snapshot, computes the recorded epochs after it again with the sinks muted,
//! and stands where the lost process stood.
//!
//! No barriers travel through channels and no task ever waits for another within a node: a slow part makes the epoch
//! longer, and the next one takes more rows at once.

mod begins;
mod clocks;
mod dead;
mod exchange;
mod isolate;
mod ledger;
mod node;
mod outlets;
mod recovery;
mod snapshot;
mod spawn;

use std::collections::BTreeMap;
use std::sync::Arc;

use cornjacket_core::delivery::{NewDelivery, Trigger, delivery_id};
use cornjacket_core::environment::Environment;
use cornjacket_core::graph::{Graph, NodeId};
use cornjacket_core::guard::guarded;
use cornjacket_core::log::{Chunk, Columns, Positions, Slice};
use cornjacket_core::store::{EpochCommit, EpochRecord, Raise, Storage};
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_core::{Error, Result};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::changes::Changes;
use crate::status::{NodeStatus, Status};
use begins::Begins;
use clocks::{Clocks, Silence};
use isolate::{Isolation, Room, SetAsides};
use ledger::{Fate, count_sink};
use node::{Epoch, Failure, Nodes, Running};
use outlets::Outlets;
use recovery::Rebuild;
use snapshot::Snapshots;

pub use snapshot::Saver;
pub use spawn::{EngineHandle, spawn};

/// How an engine runs.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How many threads compute; 1 means the caller's own.
    pub workers: usize,
    /// About how many rows an epoch takes at most.
    pub max_epoch_rows: usize,
    /// How often state is snapshotted, in µs.
    pub snapshot_every: Micros,
    /// Who saves snapshots.
    pub saver: Saver,
    /// Whether the engine's thread ends when everything is done after the end of the input.
    pub ends_with_input: bool,
    /// How far the log had come before this process took anything in: where sinks begin that are new and begin now.
    pub found: Positions,
    /// Where committed epochs say what they changed.
    pub changes: Arc<Changes>,
    /// How many bytes the state of all operators may take.
    pub max_state_bytes: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers,
            max_epoch_rows: 128 * 1024,
            snapshot_every: 10 * SECOND,
            saver: Saver::Thread,
            ends_with_input: true,
            found: Positions::default(),
            changes: Arc::default(),
            max_state_bytes: usize::MAX,
        }
    }
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Whether an epoch was committed.
    pub committed: bool,
    /// How many rows it took from the log.
    pub rows: u64,
    /// What `stdout` sinks print, now that the epoch is committed.
    pub lines: Vec<String>,
}

/// An epoch that is computed and waits for its commit.
struct Pending {
    /// What it is computed of.
    slice: Slice,
    /// Where the engine stood before.
    from: Positions,
    commit: EpochCommit,
    /// Lines for outlets that are not written yet, by sink.
    appends: Vec<(String, Vec<String>)>,
    lines: Vec<String>,
    rows: u64,
}

/// A graph that runs.
pub struct Engine {
    graph: Arc<Graph>,
    storage: Storage,
    environment: Environment,
    options: EngineOptions,
    pool: Option<ThreadPool>,
    columns: Columns,
    nodes: Nodes,
    clocks: Clocks,
    positions: Positions,
    epoch: u64,
    rebuild: Option<Rebuild>,
    begins: Begins,
    snapshots: Snapshots,
    outlets: Outlets,
    pending: Option<Pending>,
    set_aside: SetAsides,
    /// While rows are looked for that cannot be computed.
    isolation: Option<Isolation>,
    room: Room,
    /// Whether the state is half changed, and must be made again before anything is computed.
    is_broken: bool,
    /// Who has been silent since when, while the state is made again.
    silence: Option<Silence>,
    /// Whether no more events will come, so that every window closes at the end of the log.
    is_ending: bool,
    /// A time that every clock is to reach at the end of the log.
    advance: Option<Micros>,
}

impl Engine {
    /// Makes a graph run on its storage, where the last process left it.
    ///
    /// # Errors
    /// Transient errors may be tried again. [`Error::Conflict`]: what is stored contradicts the graph.
    pub fn open(graph: Arc<Graph>, storage: Storage, environment: Environment, options: EngineOptions) -> Result<Self> {
        let pool = match options.workers {
            0 | 1 => None,
            n => {
                let name = |number| format!("engine-{number}");
                let pool = ThreadPoolBuilder::new().num_threads(n).thread_name(name).build();
                Some(pool.map_err(|error| Error::Compute(format!("the engine's threads cannot be started: {error}")))?)
            }
        };
        let started = environment.clock.monotonic();
        let mut engine = Self {
            columns: node::columns_read(&graph),
            nodes: Nodes::new(&graph)?,
            clocks: Clocks::new(&graph, started),
            snapshots: Snapshots::new(&options, Arc::clone(&storage.store), started),
            room: Room::new(options.max_epoch_rows),
            graph,
            storage,
            environment,
            options,
            pool,
            positions: Positions::default(),
            epoch: 0,
            rebuild: None,
            begins: Begins::default(),
            outlets: Outlets::default(),
            pending: None,
            set_aside: SetAsides::default(),
            isolation: None,
            is_broken: false,
            silence: None,
            is_ending: false,
            advance: None,
        };
        engine.recover()?;
        Ok(engine)
    }

    /// Computes and commits the next epoch, if there is anything to do. After a transient error the same call may be
    /// made again: a computed epoch is kept until it is committed. What cannot be computed is set aside.
    ///
    /// # Errors
    /// Transient errors may be tried again; others mean that the engine cannot go on.
    pub fn step(&mut self) -> Result<Step> {
        loop {
            if self.is_broken {
                self.restore()?;
            }
            if self.pending.is_none() {
                let (slice, raises) = self.next_input()?;
                if slice.end == self.positions && raises.is_empty() {
                    if self.isolation.take().is_some() {
                        continue;
                    }
                    self.maybe_snapshot()?;
                    return Ok(Step::default());
                }
                self.has_memory_for(&slice)?;
                if let Err(failure) = self.compute(slice.clone(), raises) {
                    self.isolate(&slice, failure)?;
                    continue;
                }
            }
            if let Some(step) = self.commit_pending()? {
                self.passed();
                self.finish_rebuild()?;
                self.maybe_snapshot()?;
                return Ok(step);
            }
        }
    }

    /// Rows are taken only while state is within its bound. What is stored waits in the log meanwhile, so nothing is lost.
    fn has_memory_for(&self, slice: &Slice) -> Result<()> {
        if slice.chunks.is_empty() || self.options.max_state_bytes == usize::MAX {
            return Ok(());
        }
        let sizes = || self.nodes.running.iter().map(Running::state_bytes);
        let (total, most) = (sizes().sum::<usize>(), self.options.max_state_bytes);
        if total <= most {
            return Ok(());
        }
        let largest = sizes().enumerate().max_by_key(|(_, bytes)| *bytes).map_or(0, |(id, _)| id);
        // Parts of a stream are called `minutes/1`.
        let name = self.graph.nodes[largest].name.split('/').next().unwrap_or_default();
        Err(Error::Memory(format!(
            "the state of all streams takes {} MiB, and {} MiB are allowed; most of it is that of `{name}`. Events are \
             stored and wait: start with more --memory, or let `{name}` remember less (shorter windows, fewer keys)",
            total >> 20,
            most >> 20
        )))
    }

    /// Says that no more events will come. From now on, at the end of the log, time goes on until every window has closed;
    /// when a step commits nothing, all is done.
    pub fn end_input(&mut self) {
        self.is_ending = true;
    }

    /// Takes a step in which, at the end of the log, every clock that runs is raised to this time: for tests, which own
    /// time.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn advance_to(&mut self, time: Micros) -> Result<Step> {
        self.advance = Some(time);
        let step = self.step();
        self.advance = None;
        step
    }

    /// Whether a slice of the log, or clocks to raise, wait.
    fn next_input(&self) -> Result<(Slice, Vec<Raise>)> {
        let (until, log) = (self.next_cut(), &self.storage.log);
        let slice = log.read(&self.positions, until.as_ref(), self.room.rows, &self.columns)?;
        if let Some(rebuild) = &self.rebuild {
            return Ok((slice.clone(), rebuild.raises_at(&slice.end)));
        }
        // A partition may count as silent only when all that is durable has been seen.
        let raises = if slice.end.covers(&log.end()) { self.idle_raises(&slice) } else { Vec::new() };
        Ok((slice, raises))
    }

    /// Clocks to raise because their partitions are silent: only if some operator waits for that.
    fn idle_raises(&self, slice: &Slice) -> Vec<Raise> {
        if !slice.chunks.is_empty() {
            return Vec::new();
        }
        if let Some(time) = self.advance {
            return self.clocks.all_to(time);
        }
        if self.is_ending {
            return self.closing_raises();
        }
        let raises = self.clocks.idle(self.environment.clock.monotonic());
        let raised = self.clocks.watermarks_after(&raises);
        if self.nodes.would_fire(&raised) { raises } else { Vec::new() }
    }

    /// Raises that let the next window close: of the event types that it is computed from, and no further than it takes,
    /// so that events of a later run are not late without need.
    fn closing_raises(&self) -> Vec<Raise> {
        let next = self.nodes.next_timer();
        next.map(|(node, timer)| self.clocks.closing(timer, &self.nodes.types_of(node))).unwrap_or_default()
    }

    fn compute(&mut self, slice: Slice, raises: Vec<Raise>) -> Result<(), Failure> {
        let (record, from) = (self.next_record(&slice, raises), self.positions.clone());
        let waiting = self.begins.waiting(&self.positions);
        let letters = self.letters_of(&slice, &record);
        let (mut epoch, rows) = self.run(slice.clone(), &record)?;
        epoch.dead_letters.extend(letters);
        let keep = self.rebuild.as_ref();
        let mut commit = EpochCommit {
            now: self.environment.clock.now(),
            writes: Vec::new(),
            deliveries: Vec::new(),
            dead_letters: epoch.dead_letters,
            counters: epoch.counters,
            lengths: BTreeMap::new(),
            record,
        };
        let (mut appends, mut lines) = (Vec::new(), Vec::new());
        for (sink, output) in epoch.sinks {
            let fate = match keep {
                Some(rebuild) if rebuild.keeps(&sink) => Fate::Kept,
                _ if waiting.contains(&sink) => Fate::TooOld,
                _ => Fate::Written,
            };
            count_sink(&mut commit.counters, &sink, &output, fate);
            if fate != Fate::Written {
                continue;
            }
            let delivery = |trigger: Trigger| NewDelivery {
                id: delivery_id(&self.graph.pipeline, &sink, &trigger.identity),
                sink: sink.clone(),
                trigger,
            };
            commit.deliveries.extend(output.triggers.into_iter().map(delivery));
            commit.writes.extend(output.write);
            if self.outlets.has(&sink) {
                appends.push((sink, output.lines));
            } else {
                lines.extend(output.lines);
            }
        }
        self.pending = Some(Pending { slice, from, commit, appends, lines, rows });
        Ok(())
    }

    /// Drives an epoch through the nodes; the engine's state is that of the epoch's end afterwards.
    fn run(&mut self, slice: Slice, record: &EpochRecord) -> Result<(Epoch, u64), Failure> {
        let mut epoch = Epoch::new(record, self.graph.nodes.len());
        let (mut rows, mut fed) = (0, Vec::new());
        for chunk in slice.chunks {
            rows += chunk.rows.num_rows() as u64;
            let Some(node) = self.nodes.source_of(&chunk.event_type.name) else { continue };
            let name = self.nodes.running[node].name();
            let (chunk, left_out) = node::at(name, || self.set_aside.leave_out(chunk, &record.set_aside))?;
            epoch.count(name, "rows_in", left_out);
            epoch.count(name, "set_aside", left_out);
            if chunk.rows.num_rows() == 0 {
                continue;
            }
            let clock = self.clocks.feed(&chunk, self.nodes.watermark(node));
            fed.push((node, self.nodes.columns_of(node), chunk, clock));
        }
        let batch = |(node, columns, chunk, clock): (NodeId, &[usize], Chunk, Micros)| {
            let (event_type, partition) = (Arc::clone(&chunk.event_type), chunk.partition);
            let batch = node::at(&event_type.name, || clocks::batch(chunk, clock, columns))?;
            Ok((node, partition, batch))
        };
        let is_large = rows >= node::PARALLEL_ROWS as u64;
        let batches: Vec<_> = match self.pool.as_ref().filter(|_| is_large) {
            Some(pool) => pool.install(|| fed.into_par_iter().map(batch).collect::<Result<_, Failure>>())?,
            None => fed.into_iter().map(batch).collect::<Result<_, Failure>>()?,
        };
        for (node, partition, batch) in batches {
            epoch.put(node, partition, batch);
        }
        let now = self.environment.clock.monotonic();
        self.clocks.settle(now);
        self.clocks.apply(&record.raises);
        if !record.is_part {
            self.nodes.advance(&self.clocks.watermarks());
        }
        // Waking the other threads for a handful of rows costs more than working on them here.
        let is_worth_it = is_large || self.nodes.is_due();
        match self.pool.as_ref().filter(|_| is_worth_it) {
            Some(pool) => pool.install(|| self.nodes.run(&mut epoch))?,
            None => self.nodes.run(&mut epoch)?,
        }
        self.positions = record.positions.clone();
        self.epoch = record.epoch;
        Ok((epoch, rows))
    }

    /// Commits the computed epoch; `None` when there is none, or when the store cannot take a row of it: that row is
    /// looked for then.
    fn commit_pending(&mut self) -> Result<Option<Step>> {
        let Some(pending) = &mut self.pending else { return Ok(None) };
        // Durable before the commit that says so; what a crash leaves behind it is cut off at the next start.
        for (sink, lines) in &pending.appends {
            if let Some(length) = self.outlets.write(sink, lines)? {
                pending.commit.lengths.insert(sink.clone(), length);
            }
        }
        match guarded(|| self.storage.store.commit_epoch(&pending.commit)) {
            Ok(()) => {}
            Err(error @ (Error::Arrow(_) | Error::Compute(_) | Error::Refused(_))) => {
                let Some(Pending { slice, from, .. }) = self.pending.take() else { return Ok(None) };
                self.positions = from;
                self.isolate(&slice, Failure { node: "store".into(), error })?;
                return Ok(None);
            }
            // After an answer that got lost, the epoch is there already.
            Err(Error::Conflict(_)) if self.storage.store.last_epoch()?.as_ref() == Some(&pending.commit.record) => {}
            Err(error) => return Err(error),
        }
        let Some(Pending { commit, lines, rows, .. }) = self.pending.take() else { return Ok(None) };
        self.outlets.committed(&commit.lengths);
        self.options.changes.add(&commit.writes);
        self.set_aside.add(commit.record.set_aside);
        Ok(Some(Step { committed: true, rows, lines }))
    }

    /// Takes a snapshot now if anything changed since the last one, and waits until it is saved: for a clean end.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn close(mut self) -> Result<()> {
        if self.pending.is_some() && self.commit_pending()?.is_some() {
            self.finish_rebuild()?;
        }
        self.snapshots.wait()?;
        if !self.is_broken {
            self.take_snapshot()?;
        }
        self.snapshots.wait()
    }

    /// Which nodes wait for time to go on before they give more rows, and until when the first of them does.
    #[must_use]
    pub fn waits(&self) -> Vec<(String, Micros)> {
        self.nodes.waits()
    }

    /// What has been committed.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The engine as it stands, for people.
    #[must_use]
    pub fn status(&self) -> Status {
        let to_wall = self.environment.clock.now() - self.environment.clock.monotonic();
        let node = |id: usize| {
            let (running, waits_for) = (&self.nodes.running[id], self.nodes.running[id].next_timer());
            let reached_by = |timer| self.clocks.reached_by(timer, &self.nodes.types_of(id));
            NodeStatus {
                name: self.graph.nodes[id].name.clone(),
                kind: running.kind().to_string(),
                rows_in: running.counts.rows_in,
                rows_out: running.counts.rows_out,
                late: running.counts.late,
                state_bytes: running.state_bytes() as u64,
                watermark: running.watermark,
                waits_for,
                event_types: self.nodes.types_of(id).into_iter().map(String::from).collect(),
                closes_by: waits_for.and_then(reached_by).map(|at| at.saturating_add(to_wall)),
            }
        };
        Status {
            epoch: self.epoch,
            positions: self.positions.clone(),
            nodes: (0..self.graph.nodes.len()).map(node).collect(),
            clocks: self.clocks.status(to_wall),
            snapshot: self.snapshots.last(),
            waiting_for: None,
            rebuilding: self.rebuild.is_some(),
        }
    }
}
