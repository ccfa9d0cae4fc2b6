//! `cornjacket run`: puts the parts together, and takes them apart in order.
//!
//! A run is one or more rounds. A round runs one pipeline until the process is told to end, until sources that have an end
//! are read, or (with `--watch`) until the file has changed; the next round then runs the changed pipeline on the same
//! sockets and the same data folder. Between two rounds connections wait in the sockets' queues.

mod mqtt_broker;
mod mqtt_remote;
mod progress;
mod readings;
mod retention;
mod round;
mod services;
mod sockets;
mod watch;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use cornjacket_compiler::{Pipeline, load, render};
use cornjacket_core::component::BuiltSource;
use cornjacket_operators::REGISTRY;
use cornjacket_operators::sources::http as http_source;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::folder::DataFolder;
use crate::keys::Keys;
use crate::{Failure, INPUT_IS_WRONG, cli, logging};
pub use mqtt_remote::sources as mqtt_sources;
use round::{End, Round};
use sockets::Sockets;

/// Runs a pipeline until it is told to end, or its sources do.
pub fn run(arguments: &cli::Run) -> Result<(), Failure> {
    let pipeline = compile(&arguments.file).ok_or(Failure::Told(INPUT_IS_WRONG))?;
    one_http_source(&pipeline).map_err(Failure::Input)?;
    arguments.mqtt_url.address().map_err(Failure::Input)?;
    logging::start(arguments.log_level, arguments.log_format);
    let keys = keys(arguments).map_err(Failure::Environment)?;
    mqtt_broker::may_listen(arguments, &pipeline).map_err(Failure::Environment)?;
    let runtime = threads().context("the process cannot start its threads").map_err(Failure::Environment)?;
    let outcome = runtime.block_on(rounds(arguments, pipeline, keys));
    // Blocking reads that a client has given up must not hold up the end.
    runtime.shutdown_background();
    outcome.map_err(Failure::Environment)
}

/// The threads of the services, and those on which large commits are made: begun here, so that a system which has no room
/// for them says so now and not in the middle of a commit.
fn threads() -> anyhow::Result<tokio::runtime::Runtime> {
    rayon::ThreadPoolBuilder::new().thread_name(|number| format!("commit-{number}")).build_global()?;
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Compiles the file, and shows what is wrong with it.
pub fn compile(file: &Path) -> Option<Pipeline> {
    let outcome = load(file, &|name| std::env::var(name).ok(), &REGISTRY);
    if !outcome.diagnostics.is_empty() {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
        eprintln!("{}", render(&outcome.diagnostics, colour));
    }
    outcome.pipeline
}

/// All HTTP sources would answer on the same path.
pub fn one_http_source(pipeline: &Pipeline) -> anyhow::Result<()> {
    let of_http = pipeline.sources.iter().filter(|source| source.settings.is::<http_source::Settings>());
    let names: Vec<&str> = of_http.map(|source| source.name.as_str()).collect();
    if names.len() > 1 {
        let names = names.join("` and `");
        return Err(anyhow!("the sources `{names}` are all of kind http, and a pipeline has one: keep one"));
    }
    Ok(())
}

/// Whether every source has an end, so that the run has one.
fn is_bounded(pipeline: &Pipeline) -> bool {
    let ends = |source: &BuiltSource| matches!(source, BuiltSource::Read(reader) if reader.is_bounded());
    !pipeline.sources.is_empty() && pipeline.sources.iter().all(|source| ends(&source.built))
}

/// The keys that the services ask for. Without any, only this machine may reach them.
fn keys(arguments: &cli::Run) -> anyhow::Result<Option<Arc<Keys>>> {
    let file = arguments.keys_file();
    if file.is_none() && !arguments.host.is_loopback() && !arguments.insecure {
        return Err(anyhow!(
            "{} is open to others, and nobody is asked who they are: name the keys with --api-keys-file, use a loopback \
             address, or say --insecure if the network keeps strangers out",
            arguments.host
        ));
    }
    file.map(Keys::open).transpose()
}

async fn rounds(arguments: &cli::Run, pipeline: Pipeline, keys: Option<Arc<Keys>>) -> anyhow::Result<()> {
    let folder = DataFolder::hold(&arguments.data_dir)?;
    let sockets = Sockets::open(arguments, is_bounded(&pipeline) && !arguments.stay)?;
    let mut signals = Signals::new(arguments.until_stdin_ends)?;
    keys.as_ref().map_or(Ok(()), Keys::follow)?;
    let (mut pipeline, mut previous) = (Arc::new(pipeline), None::<Arc<Pipeline>>);
    loop {
        let round = Round {
            arguments,
            folder: &folder,
            sockets: &sockets,
            keys: keys.as_ref(),
            pipeline: Arc::clone(&pipeline),
        };
        match (round.run(&mut signals).await, previous.take()) {
            (Ok(End::Over), _) => return Ok(()),
            (Ok(End::Changed(changed)), _) => previous = Some(std::mem::replace(&mut pipeline, changed)),
            // What was stored contradicts the changed file: the last one ran, and its state is all there.
            (Err(error), Some(last)) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the changed file cannot be run: going on with the last one"
                );
                pipeline = last;
            }
            (Err(error), None) => return Err(error),
        }
    }
}

/// What ends the process in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Says that stdin has ended, where somebody listens to that.
    stdin: Option<Arc<Notify>>,
}

impl Signals {
    fn new(with_stdin: bool) -> anyhow::Result<Self> {
        let stdin = if with_stdin { Some(stdin_end()?) } else { None };
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, stdin })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = notified(self.stdin.as_deref()) => {}
        }
    }
}

/// Says when stdin has ended.
fn stdin_end() -> anyhow::Result<Arc<Notify>> {
    let told = Arc::new(Notify::new());
    let ended = Arc::clone(&told);
    let reading = move || {
        // However reading ends, there is nobody at the other end any more.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ended.notify_one();
    };
    std::thread::Builder::new().name("stdin".into()).spawn(reading).context("the process cannot start its threads")?;
    Ok(told)
}

async fn notified(told: Option<&Notify>) {
    match told {
        Some(told) => told.notified().await,
        None => std::future::pending().await,
    }
}
