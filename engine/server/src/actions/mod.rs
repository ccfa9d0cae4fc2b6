//! The action service: sends deliveries, and says over HTTP how they stand.
//!
//! The engine writes deliveries in its epochs' transactions; nothing here is in its way. Each webhook sink that is on has a
//! worker of its own, so a receiver that is slow or dead holds up nobody else. What came of attempts goes through one
//! recorder. A delivery is at any time in one of the states of [`DeliveryState`](cornjacket_core::delivery), all of it in
//! the store.

mod guard;
mod metrics;
mod rate;
mod recorder;
mod retry;
mod routes;
mod sender;
mod signature;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_compiler::Pipeline;
use cornjacket_core::delivery::Action;
use cornjacket_core::environment::Environment;
use cornjacket_core::graph::NodeKind;
use cornjacket_core::store::Store;
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_runtime::Status;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use metrics::DeliveryMetrics;
use sender::Sender;
use worker::{Surroundings, Worker};

pub use guard::{Guard, Nets};
pub use routes::routes;

/// How long what was delivered or given up is kept.
const KEPT: Micros = 30 * 86_400 * SECOND;
/// How many are forgotten in one transaction.
const FORGOTTEN: u64 = 1_000;
/// How often old deliveries are looked for, and pending ones counted.
const SWEEP: Duration = Duration::from_mins(10);
const COUNT: Duration = Duration::from_secs(5);
/// How long the end may wait for what is recorded.
const GRACE: Duration = Duration::from_secs(5);

/// What the service's handlers share.
pub struct Actions {
    store: Arc<dyn Store>,
    environment: Environment,
    sinks: Vec<(String, Arc<Action>)>,
    asked: watch::Sender<u64>,
}

/// What a running service takes from the process.
pub struct Given<'a> {
    /// The pipeline whose deliveries are sent.
    pub pipeline: &'a Pipeline,
    /// Where they are.
    pub store: &'a Arc<dyn Store>,
    /// Time and chance.
    pub environment: &'a Environment,
    /// Which addresses may be called.
    pub guard: &'a Guard,
    /// Where metrics go.
    pub registry: &'a prometheus::Registry,
    /// Changes after every epoch.
    pub epochs: watch::Receiver<Arc<Status>>,
    /// Says when to end.
    pub stop: watch::Receiver<bool>,
}

/// Starts to send. The task ends some seconds after `stop` says so at the latest; what is under way then is sent again by
/// the next process.
pub fn start(given: Given<'_>) -> anyhow::Result<(Arc<Actions>, JoinHandle<()>)> {
    let Given { pipeline, store, environment, guard, registry, epochs, stop } = given;
    let metrics = Arc::new(DeliveryMetrics::new(registry)?);
    let (asked, asked_for) = watch::channel(0);
    let (recorder, records) = mpsc::channel(1_024);
    let sinks = actions_of(pipeline);
    let surroundings = Surroundings {
        store: Arc::clone(store),
        environment: environment.clone(),
        recorder,
        metrics: Arc::clone(&metrics),
        epochs,
        asked: asked_for,
        stop: stop.clone(),
    };
    let mut workers = Vec::new();
    for (sink, action) in &sinks {
        if let Some(sender) = Sender::new(action, guard)? {
            workers.push(Worker::new(sink, action, sender, surroundings.clone()));
        } else {
            tracing::warn!(sink, "the webhook is off: its URL is empty, and nothing is sent or kept for it");
        }
    }
    drop(surroundings);
    let recording = recorder::run(records, Arc::clone(store), Arc::clone(&environment.clock));
    let service = Actions { store: Arc::clone(store), environment: environment.clone(), sinks, asked };
    let service = Arc::new(service);
    let keeping = tokio::spawn(keep(Arc::clone(&service), metrics));
    Ok((service, tokio::spawn(work(workers, recording, keeping, stop))))
}

/// The sinks that call somebody, in the order of the file.
fn actions_of(pipeline: &Pipeline) -> Vec<(String, Arc<Action>)> {
    let action = |node: &cornjacket_core::graph::Node| match &node.kind {
        NodeKind::Sink(sink) => Some((node.name.clone(), sink.action()?)),
        _ => None,
    };
    pipeline.graph.nodes.iter().filter_map(action).collect()
}

async fn work(
    workers: Vec<Worker>,
    recording: impl Future<Output = ()> + Send + 'static,
    keeping: JoinHandle<()>,
    mut stop: watch::Receiver<bool>,
) {
    let recording = tokio::spawn(recording);
    let mut working: JoinSet<()> = workers.into_iter().map(Worker::run).collect();
    while let Some(ended) = working.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a worker has ended: the deliveries of its sink wait for the next start");
        }
    }
    // Without workers there is still what was sent before to count and to forget.
    let _ = stop.wait_for(|stop| *stop).await;
    keeping.abort();
    // It ends by itself when nobody is left to hand in attempts, unless the store cannot be written.
    let stop_recording = recording.abort_handle();
    if tokio::time::timeout(GRACE, recording).await.is_err() {
        stop_recording.abort();
    }
}

/// Counts what is pending, and forgets what is long over.
async fn keep(service: Arc<Actions>, metrics: Arc<DeliveryMetrics>) {
    let (mut since_sweep, mut is_told) = (SWEEP, false);
    loop {
        let store = Arc::clone(&service.store);
        if let Ok(Ok(ledger)) = tokio::task::spawn_blocking(move || store.ledger(&[])).await {
            if !is_told {
                tell_of_orphans(&service.sinks, &ledger.pending);
                is_told = true;
            }
            for (sink, _) in &service.sinks {
                let pending = ledger.pending.get(sink).copied().unwrap_or(0);
                metrics.set_pending(sink, i64::try_from(pending).unwrap_or(i64::MAX));
            }
        }
        if since_sweep >= SWEEP {
            since_sweep = Duration::ZERO;
            forget(&service).await;
        }
        tokio::time::sleep(COUNT).await;
        since_sweep += COUNT;
    }
}

/// Deliveries that nobody sends would wait in silence.
fn tell_of_orphans(sinks: &[(String, Arc<Action>)], pending: &BTreeMap<String, u64>) {
    let is_sent = |name: &str| sinks.iter().any(|(sink, action)| sink == name && action.url.is_some());
    for (sink, count) in pending.iter().filter(|(sink, count)| **count > 0 && !is_sent(sink)) {
        tracing::warn!(sink, count, "deliveries from before wait until the file has this webhook again and it is on");
    }
}

async fn forget(service: &Actions) {
    let before = service.environment.clock.now() - KEPT;
    loop {
        let store = Arc::clone(&service.store);
        match tokio::task::spawn_blocking(move || store.forget_deliveries(before, FORGOTTEN)).await {
            Ok(Ok(FORGOTTEN)) => {}
            Ok(Ok(_)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "old deliveries cannot be forgotten yet");
                return;
            }
        }
    }
}
