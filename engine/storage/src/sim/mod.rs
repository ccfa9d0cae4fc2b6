//! Storage for simulations: in memory, and only what was made durable outlives a crash.
//!
//! A [`Disk`] is what is durable. [`Disk::open`] gives a log and a store that a process under test uses as its own; at
//! each call a fault may strike: the process crashes before the effect or after it (durable, but the answer is lost), or
//! the call fails for once with nothing done. After a crash every call answers [`Error::Closed`], and the disk can be
//! opened again by the next process. Nothing here sleeps or reads a clock, so a run can be repeated from its seed.

mod deliveries;
mod letters;
mod log;
mod store;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::dead_letter::StoredDeadLetter;
use cornjacket_core::delivery::Delivery;
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Positions, Receipt, TopicPartition};
use cornjacket_core::operator::PartId;
use cornjacket_core::store::{EpochRecord, PipelineState, Raise, SetAside, Snapshot, Storage};
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};
use parking_lot::Mutex;

use crate::split::Segment;
use table::Table;

/// What strikes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The process dies before the call has any effect.
    CrashBefore,
    /// The process dies when the effect is durable and before it is told.
    CrashAfter,
    /// The call fails with nothing done, and may be tried again.
    Unavailable,
}

/// Decides what strikes a call; it is given the call's name.
pub type Faults = Box<dyn FnMut(&'static str) -> Fault + Send>;

/// What is durable.
#[derive(Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, u32>,
    end: Positions,
    commits: Vec<Vec<Segment>>,
    client_ids: HashSet<EventId>,
    places: BTreeMap<EventId, (TopicPartition, i64)>,
    pipeline: PipelineState,
    epochs: BTreeMap<u64, EpochRecord>,
    raises: BTreeMap<u64, (Positions, Vec<Raise>)>,
    set_aside: BTreeSet<SetAside>,
    last_epoch: Option<EpochRecord>,
    snapshot: Option<Snapshot>,
    parts: BTreeMap<PartId, RecordBatch>,
    tables: BTreeMap<String, Table>,
    dead_letters: Vec<StoredDeadLetter>,
    deliveries: Vec<Delivery>,
    /// The row time of the last delivery, by sink and dedupe key.
    /// The row time of the last one, and until when it keeps others away.
    delivery_keys: BTreeMap<(String, String), (Micros, Micros)>,
    counters: BTreeMap<(String, String), i64>,
    lengths: BTreeMap<String, u64>,
    marks: BTreeMap<String, String>,
    receipts: Vec<Receipt>,
    accepted: BTreeMap<String, u64>,
    forgotten: BTreeMap<String, u64>,
    /// Where partitions begin.
    begin: Positions,
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the disk for a process.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a topic has another number of partitions.
    pub fn open(&self, catalogue: &Arc<Catalogue>, faults: Faults) -> Result<Storage> {
        let mut state = self.state.lock();
        for (topic, partitions) in &catalogue.topics {
            let stored = *state.topics.entry(topic.clone()).or_insert(*partitions);
            if stored != *partitions {
                return Err(partitions_differ(topic, stored, *partitions));
            }
        }
        let process = Process { disk: self.clone(), faults: Arc::new(Mutex::new((faults, false))) };
        Ok(Storage {
            log: Arc::new(log::SimLog { process: process.clone(), catalogue: Arc::clone(catalogue) }),
            store: Arc::new(store::SimStore { process }),
        })
    }

    /// Opens the disk for a process that no fault strikes.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn open_sound(&self, catalogue: &Arc<Catalogue>) -> Result<Storage> {
        self.open(catalogue, Box::new(|_| Fault::None))
    }

    /// The parts that are kept, for tests of what is forgotten.
    #[must_use]
    pub fn parts(&self) -> BTreeSet<PartId> {
        self.state.lock().parts.keys().copied().collect()
    }
}

pub(crate) fn partitions_differ(topic: &str, stored: u32, asked: u32) -> Error {
    Error::Conflict(format!(
        "the topic `{topic}` has {stored} partitions and the pipeline asks for {asked}: the number is fixed when a topic \
         is first used; set `topics: {{ {topic}: {{ partitions: {stored} }} }}` or use a new data folder"
    ))
}

/// One process's hold on the disk.
#[derive(Clone)]
struct Process {
    disk: Disk,
    faults: Arc<Mutex<(Faults, bool)>>,
}

impl Process {
    /// Does `effect`, or what a fault makes of it.
    fn call<T>(&self, name: &'static str, effect: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut faults = self.faults.lock();
        let (strike, crashed) = &mut *faults;
        if *crashed {
            return Err(Error::Closed);
        }
        match strike(name) {
            Fault::None => effect(&mut self.disk.state.lock()),
            Fault::Unavailable => Err(Error::Unavailable(format!("simulated at {name}"))),
            Fault::CrashBefore => {
                *crashed = true;
                Err(Error::Closed)
            }
            Fault::CrashAfter => {
                *crashed = true;
                // An effect that fails leaves nothing behind, which is as good as a crash before it.
                let _ = effect(&mut self.disk.state.lock());
                Err(Error::Closed)
            }
        }
    }
}
