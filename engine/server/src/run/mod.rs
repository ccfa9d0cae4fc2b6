//! `cornjacket run`: puts the parts together, and takes them apart in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use axum::Router;
use cornjacket_compiler::{Pipeline, load, render};
use cornjacket_core::door::Door;
use cornjacket_core::store::Storage;
use cornjacket_operators::REGISTRY;
use cornjacket_operators::sources::http as http_source;
use cornjacket_runtime::door::{DoorOptions, GroupCommit};
use cornjacket_runtime::{EngineHandle, EngineOptions, spawn};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::folder::{DataFolder, Ports};
use crate::metrics::{Metrics, has_recovered};
use crate::query::{self, QueryService};
use crate::{Failure, INPUT_IS_WRONG, cli, environment, http, logging};

/// Runs a pipeline until it is told to end.
pub fn run(arguments: &cli::Run) -> Result<(), Failure> {
    let pipeline = compile(&arguments.file)?;
    one_http_source(&pipeline)?;
    logging::start(arguments.log_level, arguments.log_format);
    if !arguments.host.is_loopback() && !arguments.insecure {
        return Err(Failure::Environment(anyhow!(
            "{} is open to others and this version does not ask anyone who they are: use a loopback address, or say \
             --insecure if the network keeps strangers out",
            arguments.host
        )));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the process cannot start its threads")
        .map_err(Failure::Environment)?;
    let outcome = runtime.block_on(serve(arguments, pipeline));
    // Blocking reads that a client has given up must not hold up the end.
    runtime.shutdown_background();
    outcome.map_err(Failure::Environment)
}

fn compile(file: &Path) -> Result<Pipeline, Failure> {
    let outcome = load(file, &|name| std::env::var(name).ok(), &REGISTRY);
    if !outcome.diagnostics.is_empty() {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
        eprintln!("{}", render(&outcome.diagnostics, colour));
    }
    outcome.pipeline.ok_or(Failure::Told(INPUT_IS_WRONG))
}

/// All HTTP sources would answer on the same path.
fn one_http_source(pipeline: &Pipeline) -> Result<(), Failure> {
    let of_http = pipeline.sources.iter().filter(|source| source.settings.is::<http_source::Settings>());
    let names: Vec<&str> = of_http.map(|source| source.name.as_str()).collect();
    if names.len() > 1 {
        let names = names.join("` and `");
        return Err(Failure::Input(anyhow!(
            "the sources `{names}` are all of kind http, and a pipeline has one: keep one"
        )));
    }
    Ok(())
}

/// What runs beside the HTTP services.
struct Parts {
    folder: DataFolder,
    door: Arc<GroupCommit>,
    engine: EngineHandle,
}

async fn serve(arguments: &cli::Run, pipeline: Pipeline) -> anyhow::Result<()> {
    let folder = DataFolder::hold(&arguments.data_dir)?;
    let ingest = http::bind(arguments.host, arguments.ingestion_port, "--ingestion-port").await?;
    let query = http::bind(arguments.host, arguments.query_port, "--query-port").await?;
    let environment = environment::of_machine();
    let storage = cornjacket_storage::open_embedded(
        &arguments.data_dir,
        Arc::clone(&pipeline.catalogue),
        &pipeline.name,
        &environment,
    )
    .with_context(|| format!("the data folder {} cannot be used", arguments.data_dir.display()))?;

    let registry = prometheus::Registry::new();
    let log = Arc::clone(&storage.log);
    let door = GroupCommit::start(
        &pipeline.catalogue,
        Arc::clone(&log),
        environment.clone(),
        DoorOptions::default(),
        &registry,
    )
    .context("the door cannot be opened")?;
    let door = Arc::new(door);
    let graph = Arc::clone(&pipeline.graph);
    let engine = spawn(graph, storage.clone(), environment, EngineOptions::default(), print_lines)
        .context("the engine cannot be started")?;
    let metrics = Arc::new(Metrics::new(registry, engine.status.clone(), Arc::clone(&door), log)?);

    let service = QueryService::new(&pipeline, &storage, engine.status.clone())?;
    let ingest_routes = http::service(ingest_routes(&pipeline, &door), Arc::clone(&metrics));
    let query_routes = http::service(query::routes(service), metrics);
    let parts = Parts { folder, door, engine };
    until_told(parts, &pipeline.name, (ingest, ingest_routes), (query, query_routes), storage).await
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

async fn until_told(
    parts: Parts,
    name: &str,
    (ingest, ingest_routes): (TcpListener, Router),
    (query, query_routes): (TcpListener, Router),
    storage: Storage,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let (stop, stopped) = watch::channel(false);
    let (ingest_at, query_at) = (ingest.local_addr()?, query.local_addr()?);
    let ingest = tokio::spawn(http::serve(ingest, ingest_routes, stopped.clone()));
    let query = tokio::spawn(http::serve(query, query_routes, stopped));
    parts.folder.publish_ports(Ports { ingest: ingest_at.port(), query: query_at.port() })?;

    let mut status = parts.engine.status.clone();
    let ready = status.clone();
    tokio::spawn(announce(name.to_string(), (ingest_at, query_at), ready));
    let failed = tokio::select! {
        () = signals.next() => false,
        () = ended(&mut status) => true,
    };
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(130);
    });
    tracing::info!("ending: requests under way are finished, then the state is saved");
    // Closing the channel would end the services as well.
    let _ = stop.send(true);
    let _ = tokio::join!(ingest, query);
    let outcome = tokio::task::spawn_blocking(move || end(parts, storage)).await.context("the end was not orderly")?;
    if failed && outcome.is_ok() {
        return Err(anyhow!("the engine has ended"));
    }
    outcome
}

/// Everyone who was answered is stored, and the state is saved, before the folder is let go.
fn end(parts: Parts, storage: Storage) -> anyhow::Result<()> {
    let Parts { folder, door, engine } = parts;
    door.close();
    let outcome = engine.stop().context("the engine cannot go on");
    drop((door, storage));
    folder.forget_ports();
    outcome
}

/// Says so once the engine has recovered; the door is open before that.
async fn announce(
    name: String,
    (ingest, query): (SocketAddr, SocketAddr),
    mut status: watch::Receiver<Arc<cornjacket_runtime::Status>>,
) {
    // This one marks statuses as seen while it waits; the other is as it was at the start.
    let untouched = status.clone();
    while !has_recovered(&untouched) {
        if status.changed().await.is_err() {
            return;
        }
    }
    print_lines(&[format!(
        "{name} is ready: events at http://{ingest}/api/v1/events, queries at http://{query}/api/v1/sql"
    )]);
}

/// When the engine's side of the channel is gone, the engine is.
async fn ended(status: &mut watch::Receiver<Arc<cornjacket_runtime::Status>>) {
    while status.changed().await.is_ok() {}
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
