//! The door: events in, answers out when they are durable.
//!
//! Requests waiting at the same time share one commit. Two threads do it:
//!
//! - the **decoder** takes everything that waits, checks it and collects it in columns. What is rejected is answered at
//!   once. It goes on collecting for as long as the log is busy, so commits grow under load and are small when idle;
//! - the **committer** appends a group to the log and then has everyone in it answered, while the next one is being
//!   decoded.
//!
//! Invariants: an event is answered with its id only after the log said that it is durable; every submission gets
//! exactly one answer, also when a thread dies; memory is bounded by the queue's limits and two groups'. Nothing
//! submitted before [`GroupCommit::close`] is lost by it.

mod commit;
mod decode;
mod metrics;
mod queue;
#[cfg(test)]
mod tests;

pub use decode::rehearse;

use std::future::ready;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::codec::Limits;
use cornjacket_core::dead_letter::DeadLetters;
use cornjacket_core::door::{Answer, Bundle, BundleAnswer, Door, Refusal, Submission};
use cornjacket_core::environment::Environment;
use cornjacket_core::log::EventLog;
use cornjacket_core::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use metrics::Metrics;
use queue::{Queue, Waiting, Work};

/// Bounds of what the door holds.
#[derive(Clone, Copy, Debug)]
pub struct DoorOptions {
    /// What a body may be.
    pub limits: Limits,
    /// How many submissions may wait to be decoded; more are refused as busy.
    pub max_waiting: usize,
    /// How many bytes of bodies may wait to be decoded.
    pub max_waiting_bytes: usize,
    /// How many events go into one commit at most.
    pub max_commit_rows: usize,
    /// How many bytes of bodies go into one commit, about.
    pub max_commit_bytes: usize,
}

impl Default for DoorOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            max_waiting: 65_536,
            max_waiting_bytes: 64 << 20,
            max_commit_rows: 16_384,
            max_commit_bytes: 16 << 20,
        }
    }
}

/// The door in front of a log.
pub struct GroupCommit {
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl GroupCommit {
    /// Opens the door and starts its threads.
    ///
    /// # Errors
    /// When a thread cannot be started, or the registry has a door's metrics already.
    pub fn start(
        catalogue: &Catalogue,
        (log, letters): (Arc<dyn EventLog>, Arc<dyn DeadLetters>),
        environment: Environment,
        options: DoorOptions,
        registry: &prometheus::Registry,
    ) -> Result<Self> {
        let metrics = Arc::new(Metrics::register(registry).map_err(|error| Error::Conflict(error.to_string()))?);
        let queue = Arc::new(Queue::new(options, metrics.waiting.clone()));
        let door = Self { queue: Arc::clone(&queue), metrics: Arc::clone(&metrics), threads: Mutex::default() };
        let decoder = decode::Collector::new(
            catalogue,
            options.limits,
            environment.clone(),
            Arc::clone(&queue),
            Arc::clone(&metrics),
        );
        let outage = commit::Outage::default();
        let runtime = tokio::runtime::Handle::try_current().ok();
        let clock = environment.clock;
        let committer = commit::Committer { log, letters, clock, queue, metrics, outage, runtime };
        door.spawn("door-decode", move || decoder.run())?;
        door.spawn("door-commit", move || committer.run())?;
        Ok(door)
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let queue = Arc::clone(&self.queue);
        let work = move || {
            // However the thread ends, the other one and everyone who waits must learn of it.
            let _last_words = LastWords(queue);
            work();
        };
        let thread = thread::Builder::new().name(name.into()).spawn(work);
        let thread = thread.map_err(|error| Error::Unavailable(format!("no thread for {name}: {error}")))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn push(&self, work: Work) -> Result<(), Refusal> {
        self.queue.push(Waiting::new(work)).inspect_err(|refusal| self.metrics.refused(refusal))
    }

    /// Whether events can still be taken: not after the log failed for good, nor after a thread died.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.queue.broken().is_none()
    }

    /// Takes nothing more, commits and answers everything that was submitted, and returns when that is done. It blocks:
    /// call it where blocking is allowed. A second call does nothing.
    pub fn close(&self) {
        self.queue.close();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the door had died");
            }
        }
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.close();
    }
}

impl Door for GroupCommit {
    fn submit(&self, submission: Submission<Vec<u8>>) -> Answer {
        let (answer, result) = oneshot::channel();
        match self.push(Work::One { submission, answer }) {
            Ok(()) => Box::pin(async move { result.await.unwrap_or_else(|_| Err(died())) }),
            Err(refusal) => Box::pin(ready(Err(refusal))),
        }
    }

    fn submit_bundle(&self, bundle: Arc<Bundle>) -> BundleAnswer {
        let (answer, result) = oneshot::channel();
        match self.push(Work::Bundle { bundle, answer }) {
            Ok(()) => Box::pin(async move { result.await.unwrap_or_else(|_| Err(died())) }),
            Err(refusal) => Box::pin(ready(Err(refusal))),
        }
    }
}

fn died() -> Refusal {
    Refusal::Unavailable("the door has failed; whether the event is stored is not known".into())
}

/// Marks the door as broken when a thread ends that should not have.
struct LastWords(Arc<Queue>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail("a thread of the door died");
        }
    }
}
