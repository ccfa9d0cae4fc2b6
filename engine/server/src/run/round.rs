//! One round: a pipeline at work, from opening its storage to letting go of it.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use cornjacket_compiler::Pipeline;
use cornjacket_core::component::BuiltSource;
use cornjacket_core::door::Door;
use cornjacket_core::environment::Environment;
use cornjacket_core::store::{Storage, Store};
use cornjacket_runtime::door::{DoorOptions, GroupCommit};
use cornjacket_runtime::{EngineHandle, EngineOptions, Feed, Feeding, SourceStatus, Status, spawn};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::mqtt_broker::{EmbeddedBroker, may_listen};
use super::mqtt_remote::{self, Subscriptions};
use super::progress::{Bars, summary};
use super::services::{Books, Services};
use super::sockets::Sockets;
use super::watch::changed;
use super::{Signals, is_bounded};
use crate::actions::Guard;
use crate::cli;
use crate::environment;
use crate::folder::DataFolder;
use crate::keys::Keys;
use crate::metrics::{Metrics, has_recovered};

/// How a round ended.
pub(super) enum End {
    /// The process was told to end, or everything is read.
    Over,
    /// The file has changed to this.
    Changed(Arc<Pipeline>),
}

/// Why a round comes to its end.
enum Reason {
    Told,
    Read,
    Changed(Arc<Pipeline>),
    EngineEnded,
    SourceFailed(String),
}

/// What a round needs.
pub(super) struct Round<'a> {
    pub(super) arguments: &'a cli::Run,
    pub(super) folder: &'a DataFolder,
    pub(super) sockets: &'a Sockets,
    pub(super) keys: Option<&'a Arc<Keys>>,
    pub(super) pipeline: Arc<Pipeline>,
}

/// What is at work during a round.
struct Parts {
    door: Arc<GroupCommit>,
    engine: EngineHandle,
    feed: Feed,
    storage: Storage,
    services: Services,
    subscriptions: Subscriptions,
    broker: Option<EmbeddedBroker>,
    /// Waits for room to write down the ports.
    publishing: Option<JoinHandle<()>>,
}

impl Round<'_> {
    /// Runs the pipeline to the round's end.
    pub(super) async fn run(self, signals: &mut Signals) -> anyhow::Result<End> {
        let parts = self.start()?;
        let mut status = parts.engine.status.clone();
        let bars = Bars::show(&self.pipeline, parts.feed.status.clone());
        let reason = tokio::select! {
            () = signals.next() => Reason::Told,
            () = ended(&mut status) => Reason::EngineEnded,
            reason = sources_end(parts.feed.status.clone(), is_bounded(&self.pipeline)) => reason,
            next = changed(&self.pipeline, self.arguments.watch) => Reason::Changed(next),
        };
        if matches!(reason, Reason::Read) {
            // All that was read is in the log: the engine takes it, closes every window and ends, unless it is to stay.
            parts.engine.end_input();
            if self.arguments.stay {
                tracing::info!("everything is read; queries go on until the process is told to end");
            }
            tokio::select! {
                () = ended(&mut status) => {}
                () = signals.next() => {}
            }
        }
        drop(bars);
        if matches!(reason, Reason::Told) {
            exit_at_once_when_told_again();
        }
        tracing::info!("ending: requests under way are finished, then the state is saved");
        let read = parts.feed.status.borrow().clone();
        let pending = pending(&*parts.storage.store);
        parts.end(self.folder).await?;
        if is_bounded(&self.pipeline) {
            summary(&read, pending);
        }
        match reason {
            Reason::Told | Reason::Read => Ok(End::Over),
            Reason::Changed(pipeline) => Ok(End::Changed(pipeline)),
            Reason::EngineEnded => Err(anyhow!("the engine has ended")),
            Reason::SourceFailed(why) => Err(anyhow!(why)),
        }
    }

    fn start(&self) -> anyhow::Result<Parts> {
        let (pipeline, data_dir) = (&self.pipeline, &self.arguments.data_dir);
        let environment = environment::of_machine();
        let catalogue = Arc::clone(&pipeline.catalogue);
        let storage =
            cornjacket_storage::open_embedded(data_dir, catalogue, (&pipeline.name, &pipeline.version), &environment)
                .with_context(|| format!("the data folder {} cannot be used", data_dir.display()))?;
        // Before anything new is taken in: sinks that are new and begin now begin here.
        let found = storage.log.end();
        let registry = prometheus::Registry::new();
        let door = open_door(pipeline, &storage, &environment, &registry)?;
        let graph = Arc::clone(&pipeline.graph);
        let ends_with_input = !self.arguments.stay;
        let changes = Arc::default();
        let max_state_bytes = self.arguments.memory.for_state();
        let options = EngineOptions {
            ends_with_input,
            found,
            changes: Arc::clone(&changes),
            max_state_bytes,
            ..EngineOptions::default()
        };
        let engine = spawn(graph, storage.clone(), environment.clone(), options, print_lines)
            .context("the engine cannot be started")?;
        let feed = feed(pipeline, &storage, &door, &environment)?;
        let log = Arc::clone(&storage.log);
        let metrics = Arc::new(Metrics::new(registry.clone(), engine.status.clone(), Arc::clone(&door), log)?);
        let guard = Guard::new(self.arguments.actions_allow_nets.as_ref(), self.arguments.host);
        let books = Books {
            pipeline,
            storage: &storage,
            door: &door,
            environment: &environment,
            engine: &engine,
            changes: &changes,
            memory: self.arguments.memory,
            registry: &registry,
            guard: &guard,
            keys: self.keys,
        };
        let services = Services::start(self.sockets, &books, &metrics)?;
        let (subscriptions, broker) = self.mqtt(&storage, &door, &environment, &registry)?;
        let publishing = self.folder.publish_ports(self.sockets.ports())?;
        if !is_bounded(pipeline) {
            let broker = broker.iter().map(|broker| format!("MQTT at mqtt://{}", broker.at));
            let places = services.places().into_iter().chain(broker).collect();
            tokio::spawn(announce(pipeline.name.clone(), places, engine.status.clone()));
        }
        Ok(Parts { door, engine, feed, storage, services, subscriptions, broker, publishing })
    }

    /// Subscribes to the outside broker, or starts the embedded one if a source is for it.
    fn mqtt(
        &self,
        storage: &Storage,
        door: &Arc<GroupCommit>,
        environment: &Environment,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<(Subscriptions, Option<EmbeddedBroker>)> {
        let (pipeline, data_dir) = (&*self.pipeline, self.arguments.data_dir.as_path());
        let door: Arc<dyn Door> = Arc::clone(door) as _;
        let given = mqtt_remote::Given { pipeline, storage, door: &door, environment, registry, data_dir };
        let outside = self.arguments.mqtt_url.address()?;
        let subscriptions = Subscriptions::start(outside.as_ref(), &given)?;
        if outside.is_some() || mqtt_remote::sources(pipeline).is_empty() {
            return Ok((subscriptions, None));
        }
        // A changed file may be the first with such a source.
        may_listen(self.arguments, pipeline)?;
        let passwords = self.arguments.passwords_file();
        let broker = EmbeddedBroker::start(self.sockets.mqtt()?, passwords, &given)?;
        Ok((subscriptions, Some(broker)))
    }
}

impl Parts {
    /// Everyone who was answered is stored, and the state is saved, before the folder is let go.
    async fn end(self, folder: &DataFolder) -> anyhow::Result<()> {
        let Self { door, engine, feed, storage, services, subscriptions, broker, publishing } = self;
        publishing.inspect(JoinHandle::abort);
        let stop_broker = async {
            if let Some(broker) = broker {
                broker.stop().await;
            }
        };
        tokio::join!(services.stop(), subscriptions.stop(), stop_broker);
        let end = move || {
            feed.stop();
            door.close();
            let outcome = engine.stop().context("the engine cannot go on");
            storage.log.fold();
            storage.store.fold();
            drop((door, storage));
            outcome
        };
        let outcome = tokio::task::spawn_blocking(end).await.context("the end was not orderly")?;
        folder.forget_ports();
        outcome
    }
}

/// How many deliveries have not arrived; a store that does not say so has told of it elsewhere.
fn pending(store: &dyn Store) -> u64 {
    store.ledger(&[]).unwrap_or_default().pending.values().sum()
}

fn open_door(
    pipeline: &Pipeline,
    storage: &Storage,
    environment: &Environment,
    registry: &prometheus::Registry,
) -> anyhow::Result<Arc<GroupCommit>> {
    let (log, letters) = (Arc::clone(&storage.log), Arc::clone(&storage.store) as _);
    let options = DoorOptions::default();
    let door = GroupCommit::start(&pipeline.catalogue, (log, letters), environment.clone(), options, registry);
    Ok(Arc::new(door.context("the door cannot be opened")?))
}

/// Starts to read the sources that are read.
fn feed(
    pipeline: &Pipeline,
    storage: &Storage,
    door: &Arc<GroupCommit>,
    environment: &Environment,
) -> anyhow::Result<Feed> {
    let marks = storage.log.marks().context("where the sources stand cannot be read")?;
    let sources = pipeline.sources.iter().filter_map(|source| match &source.built {
        BuiltSource::Read(factory) => Some(Feeding { name: source.name.clone(), factory: Arc::clone(factory) }),
        BuiltSource::Served { .. } => None,
    });
    let door: Arc<dyn Door> = Arc::clone(door) as _;
    Feed::start(sources.collect(), &marks, &door, environment).context("the sources cannot be read")
}

fn print_lines(lines: &[String]) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for line in lines {
        // Nobody reading stdout is no reason to end the pipeline.
        let _ = writeln!(out, "{line}");
    }
}

/// Says so once the engine has recovered; the door is open before that.
async fn announce(name: String, places: Vec<String>, mut status: watch::Receiver<Arc<Status>>) {
    // This one marks statuses as seen while it waits; the other is as it was at the start.
    let untouched = status.clone();
    while !has_recovered(&untouched) {
        if status.changed().await.is_err() {
            return;
        }
    }
    print_lines(&[format!("{name} is ready: {}", places.join(", "))]);
}

/// When the engine's side of the channel is gone, the engine is.
async fn ended(status: &mut watch::Receiver<Arc<Status>>) {
    while status.changed().await.is_ok() {}
}

/// Waits until a source fails, or, where all have an end, until they are read.
async fn sources_end(mut status: watch::Receiver<Vec<SourceStatus>>, is_bounded: bool) -> Reason {
    loop {
        {
            let sources = status.borrow_and_update();
            if let Some((name, why)) = sources.iter().find_map(|source| Some((&source.name, source.failure.as_ref()?)))
            {
                return Reason::SourceFailed(format!("the source `{name}` cannot go on: {why}"));
            }
            if is_bounded && sources.iter().all(|source| source.has_ended) {
                return Reason::Read;
            }
        }
        if status.changed().await.is_err() {
            // Every source has ended, and others than these keep the run going.
            std::future::pending::<()>().await;
        }
    }
}

/// Somebody who asks a second time does not want to wait.
fn exit_at_once_when_told_again() {
    tokio::spawn(async move {
        if let Ok(mut signals) = Signals::new(false) {
            signals.next().await;
            std::process::exit(130);
        }
    });
}
