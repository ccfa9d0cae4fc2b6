//! The committer's thread: groups of events into the log, then their answers.

use std::collections::HashMap;
use std::sync::Arc;

use cornjacket_core::Error;
use cornjacket_core::door::Refusal;
use cornjacket_core::environment::Clock;
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Committed, EventLog, Events};
use cornjacket_core::time::{Micros, SECOND};
use tokio::sync::oneshot;

use super::metrics::{Kind, Metrics};
use super::queue::Queue;

/// Events for one commit, and who waits for it.
pub(super) struct Group {
    pub events: Vec<Events>,
    /// In the order of the events' sequence.
    pub pending: Vec<Pending>,
}

/// A decoded event whose answer is due after the commit.
pub(super) struct Pending {
    pub id: EventId,
    pub kind: Arc<Kind>,
    pub answer: oneshot::Sender<Result<EventId, Refusal>>,
}

impl Group {
    /// Answers all with a refusal. Whoever asked may be gone, which is no fault.
    pub fn refuse(self, refusal: &Refusal) {
        for pending in self.pending {
            let _ = pending.answer.send(Err(refusal.clone()));
        }
    }
}

/// Appends groups to the log.
pub(super) struct Committer {
    pub log: Arc<dyn EventLog>,
    pub clock: Arc<dyn Clock>,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
}

impl Committer {
    pub fn run(self) {
        while let Some(group) = self.queue.next_group() {
            self.commit(group);
        }
    }

    fn commit(&self, group: Group) {
        let start = self.clock.monotonic();
        let result = self.log.append(&group.events);
        self.metrics.commit_seconds.observe(seconds(self.clock.monotonic() - start));
        match result {
            Ok(committed) => self.answer(group, &committed),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, events = group.pending.len(), "the log did not take a commit");
                self.refuse(group, &error);
            }
            Err(error) => {
                // Whether the commit is stored is not known, and the log takes no more.
                self.queue.fail(&format!("the log has failed: {error}"));
                self.refuse(group, &error);
            }
        }
    }

    fn refuse(&self, group: Group, error: &Error) {
        let refusal = Refusal::Unavailable(error.to_string());
        for _ in &group.pending {
            self.metrics.refused(&refusal);
        }
        group.refuse(&refusal);
    }

    /// Answers every event with its id. A repeat's id is that of the event it repeats, so its answer is the same.
    fn answer(&self, group: Group, committed: &Committed) {
        self.metrics.observe_rows(group.pending.len());
        let mut repeats: HashMap<EventId, u64> = HashMap::new();
        for id in &committed.repeated {
            *repeats.entry(*id).or_default() += 1;
        }
        // From the end, since within a commit the first of equal ids is the one that was stored.
        for Pending { id, kind, answer } in group.pending.into_iter().rev() {
            match repeats.get_mut(&id).filter(|left| **left > 0) {
                Some(left) => {
                    *left -= 1;
                    kind.repeated.inc();
                }
                None => kind.accepted.inc(),
            }
            // Whoever asked may be gone, which is no fault: the event is stored all the same.
            let _ = answer.send(Ok(id));
        }
    }
}

#[allow(clippy::cast_precision_loss)] // A duration of a commit is far below 2^53 µs.
fn seconds(duration: Micros) -> f64 {
    duration as f64 / SECOND as f64
}
