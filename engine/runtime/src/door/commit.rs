//! The committer's thread: groups of events into the log, then their answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::dead_letter::{DeadLetter, DeadLetters};
use cornjacket_core::door::{Chain, Refusal, Rejection, Taken};
use cornjacket_core::environment::Clock;
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Committed, EventLog, Events, Notes};
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_core::{Error, Result};
use tokio::runtime::Handle;
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

/// The events of a bundle that are decoded, in their order.
#[derive(Default)]
pub(super) struct Entries {
    ids: Vec<EventId>,
    /// How many events of a kind follow one another.
    runs: Vec<(Arc<Kind>, usize)>,
}

impl Entries {
    pub fn with_capacity(events: usize) -> Self {
        Self { ids: Vec::with_capacity(events), runs: Vec::new() }
    }

    /// Adds an event, of which the kind is looked up where it is not that of the one before.
    pub fn push(&mut self, id: EventId, is_of: impl FnOnce(&Kind) -> bool, look_up: impl FnOnce() -> Arc<Kind>) {
        self.ids.push(id);
        match self.runs.last_mut() {
            Some((kind, count)) if is_of(kind) => *count += 1,
            _ => self.runs.push((look_up(), 1)),
        }
    }

    /// Adds those of another part of the same bundle.
    pub fn extend(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.runs.extend(other.runs);
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Every event with its kind, the last one first.
    fn last_first(&self) -> impl Iterator<Item = (EventId, &Kind)> {
        let kinds = self.runs.iter().rev().flat_map(|(kind, count)| std::iter::repeat_n(kind.as_ref(), *count));
        self.ids.iter().rev().copied().zip(kinds)
    }
}

/// What is decoded and waits for the commit.
pub(super) enum Pending {
    One {
        entry: Entry,
        answer: oneshot::Sender<Result<EventId, Refusal>>,
    },
    Bundle {
        entries: Entries,
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
    /// Where answers are given, if there is a runtime: from there they wake many tasks at the cost of one.
    pub runtime: Option<Handle>,
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
        let mut took = Duration::ZERO;
        while let Some(group) = self.queue.next_group(took) {
            let begun = self.clock.monotonic();
            self.commit(group);
            took = Duration::from_micros(u64::try_from(self.clock.monotonic() - begun).unwrap_or(0));
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
        let answers: Vec<Answered> = group.pending.into_iter().rev().map(|pending| repeats.answer(pending)).collect();
        match &self.runtime {
            Some(runtime) if answers.len() > 1 => {
                runtime.spawn(async move { answers.into_iter().for_each(Answered::give) });
            }
            _ => answers.into_iter().for_each(Answered::give),
        }
    }
}

/// An answer on its way.
enum Answered {
    One(oneshot::Sender<Result<EventId, Refusal>>, EventId),
    Bundle(oneshot::Sender<Result<Taken, Refusal>>, Taken),
}

impl Answered {
    /// Whoever asked may be gone, which is no fault: the event is stored all the same.
    fn give(self) {
        match self {
            Self::One(answer, id) => drop(answer.send(Ok(id))),
            Self::Bundle(answer, taken) => drop(answer.send(Ok(taken))),
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

    /// Counts what was stored, and makes the answer to it.
    fn answer(&mut self, pending: Pending) -> Answered {
        match pending {
            Pending::One { entry, answer } => {
                self.count(entry.id, &entry.kind);
                Answered::One(answer, entry.id)
            }
            Pending::Bundle { entries, rejected, rejections, answer, .. } => {
                let repeated = self.count_all(&entries);
                let stored = entries.len() as u64 - repeated;
                Answered::Bundle(answer, Taken { stored, repeated, rejected, rejections })
            }
        }
    }

    /// Counts the events of a bundle; says how many are repeats.
    fn count_all(&mut self, entries: &Entries) -> u64 {
        if self.0.is_empty() {
            entries.runs.iter().for_each(|(kind, count)| kind.accepted.inc_by(*count as u64));
            return 0;
        }
        entries.last_first().filter(|(id, kind)| self.count(*id, kind)).count() as u64
    }

    /// Counts an event as accepted or repeated; says whether it is a repeat.
    fn count(&mut self, id: EventId, kind: &Kind) -> bool {
        if let Some(left) = self.0.get_mut(&id).filter(|left| **left > 0) {
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
