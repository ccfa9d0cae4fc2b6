//! What the door's threads share: submissions that wait, and the group that is handed from one thread to the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::door::{Bundle, Refusal, Submission, Taken};
use cornjacket_core::id::EventId;
use parking_lot::{Condvar, Mutex};
use prometheus::IntGauge;
use tokio::sync::oneshot;

use super::DoorOptions;
use super::commit::Group;

/// What was handed in, and where its answer goes.
pub(super) enum Work {
    One { submission: Submission<Vec<u8>>, answer: oneshot::Sender<Result<EventId, Refusal>> },
    Bundle { bundle: Arc<Bundle>, answer: oneshot::Sender<Result<Taken, Refusal>> },
}

/// Work that nobody has looked at.
pub(super) struct Waiting {
    pub work: Work,
    events: usize,
    bytes: usize,
}

impl Waiting {
    pub fn new(work: Work) -> Self {
        let (events, bytes) = match &work {
            Work::One { submission, .. } => (1, submission.body.len()),
            Work::Bundle { bundle, .. } => (bundle.messages.len(), bundle.bytes.len()),
        };
        Self { work, events, bytes }
    }

    /// Answers that it is not taken. Whoever asked may be gone, which is no fault.
    fn refuse(self, refusal: &Refusal) {
        match self.work {
            Work::One { answer, .. } => drop(answer.send(Err(refusal.clone()))),
            Work::Bundle { answer, .. } => drop(answer.send(Err(refusal.clone()))),
        }
    }
}

/// What the decoder is to do next.
pub(super) enum Step {
    /// Decode these.
    Decode(VecDeque<Waiting>),
    /// The log is free: hand over what is collected.
    HandOver,
    /// Everything is handed over and nothing more will come.
    End,
}

/// While the log is busy nobody waits for the decoder, and so many submissions or bytes of them may gather before it is
/// woken: waking a thread for every one costs more than decoding it.
const WORTH_WAKING: usize = 32;
const WORTH_WAKING_BYTES: usize = 64 << 10;

/// If the log is busy for longer, they are looked at all the same: what is wrong with one is not to be known only when the
/// log is well again.
const SOON: Duration = Duration::from_millis(5);

/// Who waits for one commit is answered at once and asks again at once. If the next commit began with the first of them,
/// the rest would wait for it with nothing to do: commits of one and of all would take turns. So a commit that fewer share
/// than of late is put off a little, if it has no more rows than this.
const LINGER_ROWS: usize = 1_024;

/// And never for longer than this, whatever the disk takes.
const LINGER: Duration = Duration::from_millis(1);

/// Of about so many commits it is known how many shared them.
const MEMORY: usize = 4;

/// The queue in front of the decoder and the handover behind it.
pub(super) struct Queue {
    options: DoorOptions,
    /// How many submissions and bytes wake the decoder while the log is busy: no more than make the queue or a commit full.
    worth_waking: (usize, usize),
    /// How many submissions wait, kept while they come and go, so that it shows a queue that stands still.
    depth: IntGauge,
    state: Mutex<State>,
    /// Wakes the decoder.
    to_decode: Condvar,
    /// Wakes the committer.
    to_commit: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// A group for the committer.
    group: Option<Group>,
    /// Whether the committer waits for one.
    is_idle: bool,
    is_closing: bool,
    /// Whether the decoder has handed over its last group.
    is_drained: bool,
    broken: Option<String>,
    /// How many must wait before the decoder is woken.
    wake_at: usize,
    sharing: Sharing,
}

/// What commits were like of late, by which the next one is put off or not.
#[derive(Default)]
struct Sharing {
    /// How many shared a commit: a sum in which the older counts less and less.
    shared: usize,
    /// How long the last one took.
    took: Duration,
    /// Whether the next one has been put off.
    has_lingered: bool,
}

impl Sharing {
    /// A commit that so many share begins.
    fn begin(&mut self, sharing: usize) {
        self.shared = self.shared - self.shared / MEMORY + sharing;
        self.has_lingered = false;
    }

    /// How many should share the next commit for it to be worth its price: most of those that share one of late. Waiting
    /// for the last of them would make all wait for the slowest.
    fn enough(&self) -> usize {
        self.shared * 3 / 4 / MEMORY
    }

    /// How long a commit is put off for others: no longer than one takes.
    fn linger(&mut self) -> Duration {
        self.has_lingered = true;
        self.took.min(LINGER)
    }
}

impl Queue {
    pub fn new(options: DoorOptions, depth: IntGauge) -> Self {
        // With a bound of nothing no commit would ever begin.
        let max_commit_rows = options.max_commit_rows.max(1);
        let max_commit_bytes = options.max_commit_bytes.max(1);
        let options = DoorOptions { max_commit_rows, max_commit_bytes, ..options };
        let worth_waking = (
            WORTH_WAKING.min(max_commit_rows).min(options.max_waiting),
            WORTH_WAKING_BYTES.min(max_commit_bytes).min(options.max_waiting_bytes),
        );
        Self {
            options,
            worth_waking,
            depth,
            state: Mutex::default(),
            to_decode: Condvar::new(),
            to_commit: Condvar::new(),
        }
    }

    /// Puts a submission at the end, or says why not.
    pub fn push(&self, waiting: Waiting) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.broken {
            return Err(Refusal::Unavailable(reason.clone()));
        }
        if state.is_closing {
            return Err(Refusal::Closing);
        }
        let bytes = state.waiting_bytes + waiting.bytes;
        let has_room = state.waiting.len() < self.options.max_waiting && bytes <= self.options.max_waiting_bytes;
        // A single one is taken whatever its size, so that a small queue does not refuse it for ever.
        if !has_room && !state.waiting.is_empty() {
            return Err(Refusal::Busy);
        }
        state.waiting_bytes = bytes;
        self.depth.add(signed(waiting.events));
        state.waiting.push_back(waiting);
        let is_wanted = state.waiting.len() >= state.wake_at || state.waiting_bytes >= self.worth_waking.1;
        drop(state);
        if is_wanted {
            self.to_decode.notify_one();
        }
        Ok(())
    }

    /// Waits until there is something to do for a decoder that has collected so many rows and bytes, which so many wait
    /// for.
    pub fn next_step(&self, rows: usize, bytes: usize, pending: usize) -> Step {
        let is_full = rows >= self.options.max_commit_rows || bytes >= self.options.max_commit_bytes;
        let mut state = self.state.lock();
        loop {
            if state.broken.is_some() {
                return Step::End;
            }
            let is_waited_for = !is_full && !state.waiting.is_empty();
            let is_free = state.is_idle && state.group.is_none();
            // A little that waits is soon decoded and shares the commit; for more of it the log is not kept waiting.
            if pending > 0 && is_free && !(is_waited_for && state.waiting_bytes < WORTH_WAKING_BYTES) {
                let enough = state.sharing.enough();
                if pending >= enough || rows > LINGER_ROWS || state.sharing.has_lingered || state.is_closing {
                    state.sharing.begin(pending);
                    return Step::HandOver;
                }
                state.wake_at = enough - pending;
                let linger = state.sharing.linger();
                self.to_decode.wait_for(&mut state, linger);
                continue;
            }
            if is_waited_for {
                return Step::Decode(self.take(&mut state, rows, bytes));
            }
            if state.is_closing && state.waiting.is_empty() && pending == 0 {
                state.is_drained = true;
                self.to_commit.notify_one();
                return Step::End;
            }
            state.wake_at = if is_free { 1 } else { self.worth_waking.0 };
            let is_stuck = !is_free && self.to_decode.wait_for(&mut state, SOON).timed_out();
            if is_free || is_stuck && state.waiting.is_empty() {
                state.wake_at = 1;
                self.to_decode.wait(&mut state);
            }
        }
    }

    /// Takes as much as fits into the commit.
    fn take(&self, state: &mut State, mut rows: usize, mut bytes: usize) -> VecDeque<Waiting> {
        let fits = |waiting: &&Waiting| {
            let has_room = rows < self.options.max_commit_rows && bytes < self.options.max_commit_bytes;
            (rows, bytes) = (rows + waiting.events, bytes + waiting.bytes);
            has_room
        };
        let count = state.waiting.iter().take_while(fits).count();
        let rest = state.waiting.split_off(count);
        let taken = std::mem::replace(&mut state.waiting, rest);
        self.depth.sub(signed(taken.iter().map(|waiting| waiting.events).sum()));
        state.waiting_bytes -= taken.iter().map(|waiting| waiting.bytes).sum::<usize>();
        taken
    }

    /// Gives a group to the committer, which [`Queue::next_step`] said is free.
    pub fn hand_over(&self, group: Group) {
        self.state.lock().group = Some(group);
        self.to_commit.notify_one();
    }

    /// Waits for a group to commit; `None` when there will be none.
    pub fn next_group(&self, took: Duration) -> Option<Group> {
        let mut state = self.state.lock();
        state.is_idle = true;
        state.sharing.took = took;
        self.to_decode.notify_one();
        loop {
            if let Some(group) = state.group.take() {
                state.is_idle = false;
                return Some(group);
            }
            if state.is_drained || state.broken.is_some() {
                return None;
            }
            self.to_commit.wait(&mut state);
        }
    }

    /// Refuses whatever comes from now on; what waits is still to be done.
    pub fn close(&self) {
        self.state.lock().is_closing = true;
        self.to_decode.notify_one();
    }

    /// Ends everything: whoever waits is refused, and both threads come to their end.
    pub fn fail(&self, reason: &str) {
        tracing::error!(reason, "the door takes no more events");
        let mut state = self.state.lock();
        state.broken.get_or_insert_with(|| reason.to_owned());
        state.waiting_bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        self.depth.set(0);
        let group = state.group.take();
        drop(state);
        self.to_decode.notify_one();
        self.to_commit.notify_one();
        let refusal = Refusal::Unavailable(reason.to_owned());
        for waiting in waiting {
            waiting.refuse(&refusal);
        }
        if let Some(group) = group {
            group.refuse(&refusal);
        }
    }

    /// Why the door is broken, if it is.
    pub fn broken(&self) -> Option<String> {
        self.state.lock().broken.clone()
    }
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_for_most_of_those_that_share_one_of_late() {
        let mut sharing = Sharing::default();
        assert_eq!(sharing.enough(), 0, "nobody is waited for at first");
        for _ in 0..20 {
            sharing.begin(64);
        }
        assert!((44..=48).contains(&sharing.enough()), "{}", sharing.enough());
        for _ in 0..20 {
            sharing.begin(1);
        }
        assert!(sharing.enough() <= 1, "who is alone waits for nobody: {}", sharing.enough());
    }

    #[test]
    fn a_commit_is_put_off_once_and_not_for_long() {
        let mut sharing = Sharing { took: Duration::from_secs(1), ..Sharing::default() };
        assert_eq!((sharing.linger(), sharing.has_lingered), (LINGER, true));
        sharing.begin(1);
        assert!(!sharing.has_lingered);
        sharing.took = Duration::from_micros(10);
        assert_eq!(sharing.linger(), Duration::from_micros(10));
    }
}
