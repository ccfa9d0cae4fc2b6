//! The worker of one sink: takes up its pending deliveries as they fall due, as many at a time and as fast as its settings
//! allow.
//!
//! What is pending is in the store, and the worker keeps no list beside it: it looks when an epoch was committed, when
//! somebody asks for a delivery again, when a wait is over and when an attempt has ended. A delivery under way stays
//! pending until its attempt is recorded, so whenever the process dies, the next one tries it again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::delivery::{Action, Attempt, Delivery, Turn, Verdict};
use cornjacket_core::environment::Environment;
use cornjacket_core::store::Store;
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_runtime::Status;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};

use super::metrics::DeliveryMetrics;
use super::rate::Pace;
use super::recorder::{Record, record};
use super::retry::verdict;
use super::sender::Sender;

/// The longest time without a look.
const LOOK: Micros = 30 * SECOND;
/// The shortest time between two looks that epochs cause.
const EPOCHS: Duration = Duration::from_millis(20);
/// How long attempts under way may take to finish at the end; the others are made again by the next process.
const GRACE: Duration = Duration::from_secs(10);

/// What all workers share.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) store: Arc<dyn Store>,
    pub(super) environment: Environment,
    pub(super) recorder: mpsc::Sender<Record>,
    pub(super) metrics: Arc<DeliveryMetrics>,
    /// Changes after every epoch.
    pub(super) epochs: watch::Receiver<Arc<Status>>,
    /// Changes whenever somebody asks for a delivery again.
    pub(super) asked: watch::Receiver<u64>,
    pub(super) stop: watch::Receiver<bool>,
}

/// Sends the deliveries of one sink.
pub(super) struct Worker {
    sink: String,
    action: Arc<Action>,
    sender: Arc<Sender>,
    around: Surroundings,
    pace: Pace,
    under_way: JoinSet<()>,
    /// The numbers of the deliveries under way, by their task.
    numbers: HashMap<Id, i64>,
    has_engine: bool,
}

impl Worker {
    pub(super) fn new(sink: &str, action: &Arc<Action>, sender: Sender, around: Surroundings) -> Self {
        Self {
            sink: sink.into(),
            action: Arc::clone(action),
            sender: Arc::new(sender),
            around,
            pace: Pace::new(action.rate_limit, Vec::new()),
            under_way: JoinSet::new(),
            numbers: HashMap::new(),
            has_engine: true,
        }
    }

    /// Works until it is told to stop.
    pub(super) async fn run(mut self) {
        self.recall_starts().await;
        loop {
            while let Some(ended) = self.under_way.try_join_next_with_id() {
                self.forget(ended);
            }
            let wait = self.take_up().await;
            let mut stop = self.around.stop.clone();
            let ended = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(ended) = self.under_way.join_next_with_id() => Some(ended),
                Ok(()) = self.around.asked.changed() => None,
                has_engine = next_epoch(&mut self.around.epochs, self.has_engine) => {
                    self.has_engine = has_engine;
                    None
                }
                () = tokio::time::sleep(wait) => None,
            };
            if let Some(ended) = ended {
                self.forget(ended);
            }
        }
        let finish = async { while self.under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            tracing::info!(
                sink = self.sink,
                "some deliveries did not finish in time: they are made again at the next start"
            );
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let task = match ended {
            Ok((task, ())) => task,
            Err(error) => {
                tracing::error!(sink = self.sink, %error, "an attempt ended in disorder; it is made again");
                error.id()
            }
        };
        self.numbers.remove(&task);
    }

    /// The starts of the process before this one count for the rate, too.
    async fn recall_starts(&mut self) {
        let Some(limit) = self.action.rate_limit else { return };
        let clock = Arc::clone(&self.around.environment.clock);
        let since = clock.now() - limit.period;
        let sink = self.sink.clone();
        let read = move |store: &dyn Store| store.attempts_since(&sink, since, u64::from(limit.count));
        let Some(starts) = self.read(read).await else { return };
        let (wall, steady) = (clock.now(), clock.monotonic());
        let starts = starts.into_iter().map(|at| steady - (wall - at).max(0)).collect();
        self.pace = Pace::new(Some(limit), starts);
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> cornjacket_core::Result<T> + Send + 'static,
    ) -> Option<T> {
        let store = Arc::clone(&self.around.store);
        let outcome = tokio::task::spawn_blocking(move || read(&*store)).await;
        match outcome {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                tracing::warn!(sink = self.sink, %error, "deliveries cannot be read yet");
                None
            }
            Err(error) => {
                tracing::error!(sink = self.sink, %error, "deliveries cannot be read");
                None
            }
        }
    }

    /// Starts whatever is due and allowed, and says how long to wait for the next.
    async fn take_up(&mut self) -> Duration {
        let most = if self.action.ordered { 1 } else { self.action.concurrency as usize };
        let free = most.saturating_sub(self.numbers.len());
        if free == 0 {
            return span(LOOK);
        }
        let turn = if self.action.ordered { Turn::Written } else { Turn::Due };
        let (sink, limit) = (self.sink.clone(), (free + self.numbers.len()) as u64);
        let Some(pending) = self.read(move |store| store.pending(&sink, turn, limit)).await else {
            return Duration::from_secs(1);
        };
        let under_way: BTreeSet<i64> = self.numbers.values().copied().collect();
        let clock = Arc::clone(&self.around.environment.clock);
        for delivery in pending.into_iter().filter(|one| !under_way.contains(&one.number)) {
            let (now, steady) = (clock.now(), clock.monotonic());
            let paced = self.pace.next_at(steady) - steady;
            let wait = (delivery.next_at - now).max(paced);
            if wait > 0 {
                return span(wait.min(LOOK));
            }
            if self.numbers.len() == most {
                break;
            }
            self.pace.start(steady);
            self.start(delivery, now);
        }
        span(LOOK)
    }

    fn start(&mut self, delivery: Delivery, now: Micros) {
        let number = delivery.number;
        let (sender, action, around) = (Arc::clone(&self.sender), Arc::clone(&self.action), self.around.clone());
        let sink = self.sink.clone();
        let task =
            self.under_way.spawn(async move { attempt(&sender, &action, &around, (&sink, delivery), now).await });
        self.numbers.insert(task.id(), number);
    }
}

fn span(micros: Micros) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

/// Waits for an epoch; `false` if there will be none any more.
async fn next_epoch(epochs: &mut watch::Receiver<Arc<Status>>, has_engine: bool) -> bool {
    if !has_engine {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(EPOCHS).await;
    epochs.changed().await.is_ok()
}

async fn attempt(
    sender: &Sender,
    action: &Action,
    around: &Surroundings,
    (sink, delivery): (&str, Delivery),
    at: Micros,
) {
    let clock = &around.environment.clock;
    let began = clock.monotonic();
    let answer = sender.send(&delivery, at).await;
    let took = clock.monotonic() - began;
    let verdict = verdict(&answer.outcome, &delivery, &action.retry, clock.now(), rand::random());
    around.metrics.attempted(sink, verdict, took);
    if let Some(error) = &answer.error {
        let (id, attempts) = (&delivery.id, delivery.attempts + 1);
        if verdict == Verdict::GivenUp {
            tracing::error!(sink, id, attempts, error, "a delivery is given up: it is a dead letter");
        } else {
            tracing::debug!(sink, id, attempts, error, "a delivery failed and is tried again");
        }
    }
    let attempt = Attempt { number: delivery.number, at, status: answer.status, error: answer.error, verdict };
    record(&around.recorder, attempt).await;
}
