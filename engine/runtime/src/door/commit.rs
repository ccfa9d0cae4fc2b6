//! The committer's thread: groups of events into the log, then their answers.

use std::collections::HashMap;
use std::sync::Arc;

use cornjacket_core::dead_letter::{DeadLetter, DeadLetters};
use cornjacket_core::door::{Chain, Refusal, Rejection, Taken};
use cornjacket_core::environment::Clock;
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Committed, EventLog, Events, Notes};
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_core::{Error, Result};
use tokio::sync::oneshot;

use super::metrics::{Kind, Metrics};
use super::queue::Queue;

/// Events for one commit, and who waits for it.
#[derive(Default)]
pub(super) struct Group {
    pub events: Vec<Events>,
    /// In the order of the events' sequence.
    pub pending: Vec<Pending>,
    /// What sources want stored with these events.
    pub notes: Notes,
    /// What was rejected of bundles; durable before the notes are, so that nothing vanishes.
    pub letters: Vec<DeadLetter>,
}

/// An event that is decoded.
pub(super) struct Entry {
    pub id: EventId,
    pub kind: Arc<Kind>,
}

/// What is decoded and waits for the commit.
pub(super) enum Pending {
    One {
        entry: Entry,
        answer: oneshot::Sender<Result<EventId, Refusal>>,
    },
    Bundle {
        entries: Vec<Entry>,
        rejected: u64,
        /// Those that are answered and not dead letters.
        rejections: Vec<(usize, Rejection)>,
        chain: Option<Chain>,
        answer: oneshot::Sender<Result<Taken, Refusal>>,
    },
}

impl Group {
    /// Answers all with a refusal. Whoever asked may be gone, which is no fault. Chains are cut before anyone is answered.
    pub fn refuse(self, refusal: &Refusal) {
        self.chains().for_each(Chain::cut);
        for pending in self.pending {
            match pending {
                Pending::One { answer, .. } => drop(answer.send(Err(refusal.clone()))),
                Pending::Bundle { answer, .. } => drop(answer.send(Err(refusal.clone()))),
            }
        }
    }

    fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.pending.iter().filter_map(|pending| match pending {
            Pending::Bundle { chain, .. } => chain.as_ref(),
            Pending::One { .. } => None,
        })
    }

    fn events(&self) -> usize {
        let of = |pending: &Pending| match pending {
            Pending::One { .. } => 1,
            Pending::Bundle { entries, .. } => entries.len(),
        };
        self.pending.iter().map(of).sum()
    }
}

/// Appends groups to the log.
pub(super) struct Committer {
    pub log: Arc<dyn EventLog>,
    pub letters: Arc<dyn DeadLetters>,
    pub clock: Arc<dyn Clock>,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
    pub outage: Outage,
}

/// How often a log that takes nothing is told of, while it takes nothing.
const TELL_EVERY: Micros = 30 * SECOND;

/// A time in which the log takes nothing. Every client that tries again would be a line in the log, on a disk that is
/// perhaps the full one.
#[derive(Default)]
pub(super) struct Outage {
    told_at: Option<Micros>,
    /// Whether it was told of, so that its end is as well.
    is_told: bool,
    /// How many events were refused since it was told that they are stored.
    refused: usize,
}

impl Outage {
    fn refused(&mut self, now: Micros, error: &Error, events: usize) {
        self.refused += events;
        if self.told_at.is_none_or(|told_at| now - told_at >= TELL_EVERY) {
            tracing::warn!(%error, refused = self.refused, "events cannot be stored now, and are refused until they can");
            (self.told_at, self.is_told) = (Some(now), true);
        }
    }

    fn is_over(&mut self) {
        if std::mem::take(&mut self.is_told) {
            tracing::info!(refused = std::mem::take(&mut self.refused), "events are stored again");
        }
    }
}

impl Committer {
    pub fn run(mut self) {
        while let Some(group) = self.queue.next_group() {
            self.commit(group);
        }
    }

    fn commit(&mut self, group: Group) {
        if group.chains().any(Chain::is_cut) {
            // Decoded while the commit before it failed. Those who share the group can try again, as after any failure.
            let error = Error::Unavailable("events that were handed in earlier were not stored".into());
            return self.refuse(group, &error);
        }
        let start = self.clock.monotonic();
        let result = self.store(&group);
        self.metrics.commit_seconds.observe(seconds(self.clock.monotonic() - start));
        match result {
            Ok(committed) => {
                self.outage.is_over();
                self.answer(group, &committed);
            }
            Err(error) if error.is_transient() => {
                self.outage.refused(self.clock.monotonic(), &error, group.events());
                self.refuse(group, &error);
            }
            Err(error) => {
                // Whether the commit is stored is not known, and the log takes no more.
                self.queue.fail(&format!("the log has failed: {error}"));
                self.refuse(group, &error);
            }
        }
    }

    fn store(&self, group: &Group) -> Result<Committed> {
        if !group.letters.is_empty() {
            self.letters.add_dead_letters(self.clock.now(), &group.letters)?;
        }
        self.log.append(&group.events, &group.notes)
    }

    fn refuse(&self, group: Group, error: &Error) {
        let refusal = Refusal::Unavailable(error.to_string());
        for _ in 0..group.events() {
            self.metrics.refused(&refusal);
        }
        group.refuse(&refusal);
    }

    /// Answers every event with its id. A repeat's id is that of the event it repeats, so its answer is the same.
    fn answer(&self, group: Group, committed: &Committed) {
        self.metrics.observe_rows(group.events());
        let mut repeats = Repeats::new(&committed.repeated);
        // From the end, since within a commit the first of equal ids is the one that was stored.
        for pending in group.pending.into_iter().rev() {
            // Whoever asked may be gone, which is no fault: the event is stored all the same.
            match pending {
                Pending::One { entry, answer } => {
                    repeats.count(&entry);
                    drop(answer.send(Ok(entry.id)));
                }
                Pending::Bundle { entries, rejected, rejections, answer, .. } => {
                    let repeated = entries.iter().rev().filter(|entry| repeats.count(entry)).count() as u64;
                    let stored = entries.len() as u64 - repeated;
                    drop(answer.send(Ok(Taken { stored, repeated, rejected, rejections })));
                }
            }
        }
    }
}

/// How often each id of a commit was a repeat.
struct Repeats(HashMap<EventId, u64>);

impl Repeats {
    fn new(repeated: &[EventId]) -> Self {
        let mut repeats = HashMap::new();
        for id in repeated {
            *repeats.entry(*id).or_default() += 1;
        }
        Self(repeats)
    }

    /// Counts an event as accepted or repeated; says whether it is a repeat.
    fn count(&mut self, Entry { id, kind }: &Entry) -> bool {
        if let Some(left) = self.0.get_mut(id).filter(|left| **left > 0) {
            *left -= 1;
            kind.repeated.inc();
            return true;
        }
        kind.accepted.inc();
        false
    }
}

#[allow(clippy::cast_precision_loss)] // A duration of a commit is far below 2^53 µs.
fn seconds(duration: Micros) -> f64 {
    duration as f64 / SECOND as f64
}
