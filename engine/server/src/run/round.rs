//! One round: a pipeline at work, from opening its storage to letting go of it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use axum::Router;
use cornjacket_compiler::Pipeline;
use cornjacket_core::component::BuiltSource;
use cornjacket_core::door::Door;
use cornjacket_core::environment::Environment;
use cornjacket_core::store::Storage;
use cornjacket_operators::sources::http as http_source;
use cornjacket_runtime::door::{DoorOptions, GroupCommit};
use cornjacket_runtime::{EngineHandle, EngineOptions, Feed, Feeding, SourceStatus, Status, spawn};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::progress::{Bars, summary};
use super::sockets::Sockets;
use super::watch::changed;
use super::{Signals, is_bounded};
use crate::cli;
use crate::folder::DataFolder;
use crate::metrics::{Metrics, has_recovered};
use crate::query::{self, QueryService};
use crate::{environment, http};

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
    pub(super) pipeline: Arc<Pipeline>,
}

/// What is at work during a round.
struct Parts {
    door: Arc<GroupCommit>,
    engine: EngineHandle,
    feed: Feed,
    storage: Storage,
    services: Vec<JoinHandle<()>>,
    stop_services: watch::Sender<bool>,
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
        parts.end(self.folder).await?;
        if is_bounded(&self.pipeline) {
            summary(&read);
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
        let storage = cornjacket_storage::open_embedded(data_dir, catalogue, &pipeline.name, &environment)
            .with_context(|| format!("the data folder {} cannot be used", data_dir.display()))?;
        let registry = prometheus::Registry::new();
        let door = open_door(pipeline, &storage, &environment, &registry)?;
        let graph = Arc::clone(&pipeline.graph);
        let options = EngineOptions { ends_with_input: !self.arguments.stay, ..EngineOptions::default() };
        let engine = spawn(graph, storage.clone(), environment.clone(), options, print_lines)
            .context("the engine cannot be started")?;
        let feed = feed(pipeline, &storage, &door, &environment)?;
        let log = Arc::clone(&storage.log);
        let metrics = Arc::new(Metrics::new(registry, engine.status.clone(), Arc::clone(&door), log)?);
        let (stop_services, stopped) = watch::channel(false);
        let service = QueryService::new(pipeline, &storage, engine.status.clone())?;
        let (ingest, query) = (self.sockets.ingest()?, self.sockets.query()?);
        let addresses = (ingest.as_ref().map(|(_, at)| *at), query.as_ref().map(|(_, at)| *at));
        let mut services = Vec::new();
        if let Some((socket, _)) = ingest {
            let routes = http::service(ingest_routes(pipeline, &door), Arc::clone(&metrics));
            services.push(tokio::spawn(http::serve(socket, routes, stopped.clone())));
        }
        if let Some((socket, _)) = query {
            services.push(tokio::spawn(http::serve(socket, http::service(query::routes(service), metrics), stopped)));
        }
        self.folder.publish_ports(self.sockets.ports())?;
        if !is_bounded(pipeline) {
            tokio::spawn(announce(pipeline.name.clone(), addresses, engine.status.clone()));
        }
        Ok(Parts { door, engine, feed, storage, services, stop_services })
    }
}

impl Parts {
    /// Everyone who was answered is stored, and the state is saved, before the folder is let go.
    async fn end(self, folder: &DataFolder) -> anyhow::Result<()> {
        let Self { door, engine, feed, storage, services, stop_services } = self;
        // Closing the channel would end the services as well.
        let _ = stop_services.send(true);
        for service in services {
            let _ = service.await;
        }
        let end = move || {
            feed.stop();
            door.close();
            let outcome = engine.stop().context("the engine cannot go on");
            drop((door, storage));
            outcome
        };
        let outcome = tokio::task::spawn_blocking(end).await.context("the end was not orderly")?;
        folder.forget_ports();
        outcome
    }
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
        BuiltSource::Served => None,
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

fn ingest_routes(pipeline: &Pipeline, door: &Arc<GroupCommit>) -> Router {
    let mut routes = Router::new();
    for source in &pipeline.sources {
        if let Some(settings) = source.settings.downcast_ref::<http_source::Settings>() {
            let door: Arc<dyn Door> = Arc::clone(door) as _;
            routes = routes.merge(http_source::routes(door, settings, &source.name));
        }
    }
    routes
}

/// Says so once the engine has recovered; the door is open before that.
async fn announce(
    name: String,
    (ingest, query): (Option<SocketAddr>, Option<SocketAddr>),
    mut status: watch::Receiver<Arc<Status>>,
) {
    // This one marks statuses as seen while it waits; the other is as it was at the start.
    let untouched = status.clone();
    while !has_recovered(&untouched) {
        if status.changed().await.is_err() {
            return;
        }
    }
    let events = ingest.map(|at| format!("events at http://{at}/api/v1/events"));
    let queries = query.map(|at| format!("queries at http://{at}/api/v1/sql"));
    let places: Vec<String> = events.into_iter().chain(queries).collect();
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
        if let Ok(mut signals) = Signals::new() {
            signals.next().await;
            std::process::exit(130);
        }
    });
}
