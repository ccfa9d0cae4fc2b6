//! The mqtt sources of a round, subscribed to an outside broker.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use cornjacket_compiler::{Pipeline, SourceEntry};
use cornjacket_core::door::Door;
use cornjacket_core::environment::Environment;
use cornjacket_core::store::Storage;
use cornjacket_operators::sources::mqtt::{self, Address, Counted, Counts, Subscription, Surroundings};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::readings::Readings;

/// Subscriptions at work.
pub(super) struct Subscriptions {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// What subscriptions work with.
pub(super) struct Given<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) storage: &'a Storage,
    pub(super) door: &'a Arc<dyn Door>,
    pub(super) environment: &'a Environment,
    pub(super) registry: &'a Registry,
    pub(super) data_dir: &'a Path,
}

impl Subscriptions {
    /// Subscribes every mqtt source to the broker, if there is one outside.
    ///
    /// # Errors
    /// When what was kept of a session cannot be used. A broker that does not answer is waited for.
    pub(super) fn start(address: Option<&Address>, given: &Given<'_>) -> anyhow::Result<Self> {
        let mut subscriptions = Self { tasks: Vec::new(), stop: watch::channel(false).0 };
        let Some(address) = address else { return Ok(subscriptions) };
        let mut counts = Vec::new();
        for source in sources(given.pipeline) {
            let (name, source) = source;
            let counted = Arc::default();
            let subscription = open((&name, source), address, &counted, given)
                .with_context(|| format!("the source `{name}` cannot subscribe to {address}"))?;
            subscriptions.tasks.push(tokio::spawn(subscription.run(subscriptions.stop.subscribe())));
            counts.push((name, counted));
        }
        if !counts.is_empty() {
            given.registry.register(Box::new(metrics(&counts)?))?;
        }
        Ok(subscriptions)
    }

    /// Acknowledges what is stored, and takes leave of the broker; sessions stay. The door must be open still.
    pub(super) async fn stop(self) {
        // Closing the channel would end them as well.
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// The mqtt sources of a pipeline, by name.
pub fn sources(pipeline: &Pipeline) -> Vec<(String, mqtt::Source)> {
    let of = |entry: &SourceEntry| {
        let settings = entry.settings.downcast_ref::<mqtt::Settings>()?;
        // They were checked when the pipeline was compiled.
        let source = mqtt::Source::new(&entry.name, settings, &pipeline.catalogue).ok()?;
        Some((entry.name.clone(), source))
    };
    pipeline.sources.iter().filter_map(of).collect()
}

fn open(
    (name, source): (&str, mqtt::Source),
    address: &Address,
    counts: &Arc<Counts>,
    given: &Given<'_>,
) -> anyhow::Result<Subscription> {
    let receipts = given.storage.log.receipts(name, mqtt::RECEIPT_BYTES)?;
    let surroundings = Surroundings {
        door: Arc::clone(given.door),
        random: Arc::clone(&given.environment.random),
        counts: Arc::clone(counts),
    };
    let kept = (given.pipeline.name.as_str(), source);
    Ok(Subscription::open(kept, address, given.data_dir, &receipts, surroundings)?)
}

/// What sources count, as metrics.
fn metrics(sources: &[(String, Arc<Counts>)]) -> prometheus::Result<Readings> {
    let mut readings = Readings::default();
    let mut one = |name: &str, help: &str, read: fn(&Counted) -> u64| {
        let family = readings.family(&format!("cornjacket_mqtt_{name}"), help, &["source"])?;
        for (name, counts) in sources {
            let counts = Arc::clone(counts);
            readings.read(family, &[name], move || read(&counts.read()));
        }
        prometheus::Result::Ok(())
    };
    let connected = "Whether the outside broker is connected and has answered our subscriptions.";
    one("connected", connected, |now| u64::from(now.connected))?;
    one("refused_subscriptions", "Subscriptions that the outside broker refuses.", |now| now.refused)?;
    one("reconnects_total", "Connections to the outside broker after the first.", |now| now.reconnects)?;
    one("messages_total", "Messages from the outside broker, with those sent again.", |now| now.messages)?;
    one("acks_total", "Messages acknowledged to the outside broker.", |now| now.acknowledged)?;
    one("repeats_total", "Messages sent again that were stored already.", |now| now.repeated)?;
    one("ignored_total", "Retained and unwanted messages that were left out.", |now| now.ignored)?;
    Ok(readings)
}
