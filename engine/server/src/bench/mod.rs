//! `cornjacket bench`: what a pipeline takes on the user's own machine.
//!
//! The pipeline runs as a process of its own on a folder that is thrown away, or is one that runs already. It is given
//! synthetic events in three ways, and what it took is counted: by the clock, by the system, and by the pipeline's own
//! audit, which must balance for the figures to mean anything.

mod books;
mod client;
mod disk;
mod events;
mod figures;
mod load;
mod pattern;
mod progress;
mod report;
mod server;

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use cornjacket_compiler::{Pipeline, SourceEntry};
use cornjacket_core::component::BuiltSource;
use cornjacket_core::graph::{Node, NodeKind};
use cornjacket_operators::sources::http as http_source;
use tokio::signal::unix::{SignalKind, signal};

use crate::folder::ports_of;
use crate::remote::{Service, Where};
use crate::run::{compile, one_http_source};
use crate::{Failure, INPUT_IS_WRONG};
use books::Books;
use client::Target;
use disk::Disk;
use events::Events;
use figures::{Tally, rounded};
use load::{Form, Load};
use progress::Progress;
use report::{Measured, Memory, Report};
use server::{Server, Usage};

/// What `bench --help` begins with.
pub const ABOUT: &str = "\
Measure what a pipeline takes on this machine.

The pipeline runs as a process of its own on a temporary data folder, which is removed in the end; your data are not
touched. It is given synthetic events of its event types that satisfy its catalogue: one a request, then in batches,
then at a fixed rate. Before that the disk is measured, which bounds how soon an event can be durable. In the end the
audit must balance and every accepted event must be stored: otherwise the figures mean nothing, and the command fails.

The load is made on this machine too, so it takes a part of the processor that clients elsewhere would not.";

/// What `bench --help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  cornjacket bench pipelines/iot.yaml
  cornjacket bench pipelines/iot.yaml --seconds 30 --keys 1000000
  cornjacket bench pipelines/iot.yaml --data-dir /var/lib/cornjacket      # the disk that this folder is on
  cornjacket bench pipelines/iot.yaml --rate 5000 --json | jq .paced.p99_ms
  cornjacket bench pipelines/iot.yaml --url http://127.0.0.1:8080 --query-url http://127.0.0.1:8081

What each row means: docs/performance.md, Your own machine.

Exit codes: 0 measured and everything is accounted for, 1 the pipeline or a flag is wrong, or events got lost, 2 the
environment is (a folder that cannot be written, a service that does not answer), 130 stopped by Ctrl-C.";

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The pipeline file: it is what runs, and what says which events there are.
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// How many seconds each measure takes.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u32>::new().range(1..=3_600))]
    seconds: u32,
    /// How many connections send single events, one after the other each.
    #[arg(long, default_value_t = 64, value_parser = RangedU64ValueParser::<u32>::new().range(1..=5_000))]
    connections: u32,
    /// How many events a batch has.
    #[arg(long, default_value_t = 10_000, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000_000))]
    batch: u32,
    /// How many aggregates (devices, users) each event type's events are of: the keys of projections and groups.
    #[arg(long, default_value_t = 1_000, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000_000))]
    keys: u32,
    /// How many events a second are sent where the rate is fixed; 0 leaves that measure out.
    #[arg(long, default_value_t = 1_000, value_parser = RangedU64ValueParser::<u32>::new().range(0..=1_000_000))]
    rate: u32,
    /// Only events of this type; may be given more than once. All of the pipeline's unless said.
    #[arg(long, value_name = "TYPE")]
    event_type: Vec<String>,
    /// Run the pipeline although it has webhooks or writes files, which get what comes of the synthetic events.
    #[arg(long, conflicts_with = "url")]
    allow_outside: bool,
    /// Send to the ingest service of a pipeline that runs already; the events stay stored there.
    #[arg(long)]
    url: Option<String>,
    /// Where that pipeline answers queries; by default it is looked up in the data folder.
    #[arg(long, requires = "url")]
    query_url: Option<String>,
    /// The temporary folder is made beside this one, so that its disk is measured. With --url: the data folder of the
    /// running pipeline.
    #[arg(long, env = "CJ_DATA_DIR", default_value = "data")]
    data_dir: PathBuf,
    /// The key to show, where the services ask for one.
    #[arg(long, env = "CJ_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// One JSON object, on a terminal too.
    #[arg(long)]
    json: bool,
}

/// Bodies under way at one time.
const BATCH_CONNECTIONS: u32 = 2;
/// Of a measure's time, so much is sent before without being measured: the first requests of a process are slower.
const WARM_UP: u32 = 5;
const LONGEST_WARM_UP: Duration = Duration::from_secs(2);
/// How a command ends that Ctrl-C stops.
const INTERRUPTED: u8 = 130;

/// Measures and shows the figures.
pub fn bench(arguments: &Arguments) -> Result<(), Failure> {
    let pipeline = compile(&arguments.file).ok_or(Failure::Told(INPUT_IS_WRONG))?;
    has_http_source(&pipeline, arguments)?;
    if arguments.url.is_none() && !arguments.allow_outside {
        stays_inside(&pipeline)?;
    }
    tell_of_readers(&pipeline, arguments);
    let [keys, batch] = [arguments.keys, arguments.batch].map(|number| usize::try_from(number).unwrap_or(1));
    let events = Events::make(&pipeline.catalogue, &arguments.event_type, keys, batch).map_err(Failure::Input)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("the process cannot start its threads").map_err(Failure::Environment)?;
    let outcome = runtime.block_on(async {
        let stopped = stopped().map_err(Failure::Environment)?;
        tokio::select! {
            outcome = whole(arguments, &pipeline.name, Arc::new(events)) => outcome,
            () = stopped => {
                eprintln!("stopped");
                Err(Failure::Told(INTERRUPTED))
            }
        }
    });
    runtime.shutdown_background();
    let report = outcome?;
    report.show(arguments.json || !stdout().is_terminal())?;
    report.audit.verdict(report.accepted)
}

/// Events are sent by HTTP.
fn has_http_source(pipeline: &Pipeline, arguments: &Arguments) -> Result<(), Failure> {
    if !pipeline.sources.iter().any(|source| source.settings.is::<http_source::Settings>()) {
        return Err(Failure::Input(anyhow!(
            "{}: the pipeline has no source of kind http, and bench sends over HTTP: add `api: {{ http: {{}} }}` to \
             its section `sources:`",
            arguments.file.display()
        )));
    }
    one_http_source(pipeline).map_err(Failure::Input)
}

/// What comes in beside the synthetic events takes its part of the machine.
fn tell_of_readers(pipeline: &Pipeline, arguments: &Arguments) {
    let is_read = |source: &&SourceEntry| arguments.url.is_none() && matches!(source.built, BuiltSource::Read(_));
    for SourceEntry { name, .. } in pipeline.sources.iter().filter(is_read) {
        eprintln!("the source `{name}` is read meanwhile: what it brings is computed too, and not counted");
    }
}

/// What a process that is thrown away leaves behind must not be seen by anybody.
fn stays_inside(pipeline: &Pipeline) -> Result<(), Failure> {
    let outside = |node: &Node| match &node.kind {
        NodeKind::Sink(sink) => {
            let url = sink.action().and_then(|action| action.url.clone());
            let sent = url.map(|_| format!("the sink `{}` would call its URL", node.name));
            sent.or_else(|| Some(format!("the sink `{}` would write {}", node.name, sink.writes()?.display())))
        }
        _ => None,
    };
    let Some(what) = pipeline.graph.nodes.iter().find_map(outside) else { return Ok(()) };
    Err(Failure::Input(anyhow!(
        "{what} for synthetic events: leave it out (an empty URL switches a webhook off), or say --allow-outside if it \
         does no harm"
    )))
}

/// Waits until somebody stops the command.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let [mut interrupt, mut terminate, mut hangup] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Measures a process of its own, or one that runs.
async fn whole(arguments: &Arguments, name: &str, events: Arc<Events>) -> Result<Report, Failure> {
    if let Some(url) = &arguments.url {
        let mut measuring = Measuring::new(arguments, name, events);
        eprintln!("the events that are sent to {url} stay stored there");
        let place = |url| Where { url, data_dir: arguments.data_dir.clone(), api_key: arguments.api_key.clone() };
        let query = place(query_url(arguments, url)?);
        return measuring.all(&place(Some(url.clone())), &query, None).await;
    }
    // It is dropped, and removed, after the process that has its data there, whatever happens.
    let folder = server::folder(&arguments.data_dir).map_err(Failure::Environment)?;
    let mut measuring = Measuring::new(arguments, name, events);
    let disk = measuring.disk(folder.path().to_path_buf()).await?;
    let server = Server::start(&arguments.file, folder.path()).map_err(Failure::Environment)?;
    let server = measuring.server.insert(server);
    server.ready().await?;
    let place = server.place();
    let outcome = measuring.all(&place, &place, Some(disk)).await;
    let Some(mut server) = measuring.server.take() else { return outcome };
    // Why it ended says more than that it does not answer.
    let outcome = if outcome.is_err() { server.lives_on().await.and(outcome) } else { outcome };
    let _shown = Progress::show("ending", None);
    server.stop();
    outcome
}

/// Where queries are answered, if it was said; the data folder says so only of the pipeline that it belongs to.
fn query_url(arguments: &Arguments, url: &str) -> Result<Option<String>, Failure> {
    if arguments.query_url.is_some() {
        return Ok(arguments.query_url.clone());
    }
    let port = url::Url::parse(url).ok().and_then(|url| url.port_or_known_default());
    if port.is_some() && ports_of(&arguments.data_dir).and_then(|ports| ports.ingest) == port {
        return Ok(None);
    }
    Err(Failure::Input(anyhow!(
        "the audit is asked of the query service, and the data folder {} is not that of {url}: say where it is with \
         --query-url (port 8081 unless it was changed), or name the folder with --data-dir",
        arguments.data_dir.display()
    )))
}

/// A run of all measures.
struct Measuring<'a> {
    arguments: &'a Arguments,
    name: &'a str,
    events: Arc<Events>,
    server: Option<Server>,
    /// What became of all events so far.
    tally: Tally,
}

impl<'a> Measuring<'a> {
    fn new(arguments: &'a Arguments, name: &'a str, events: Arc<Events>) -> Self {
        Self { arguments, name, events, server: None, tally: Tally::default() }
    }

    async fn disk(&self, folder: PathBuf) -> Result<Disk, Failure> {
        let time = self.time();
        let _shown = Progress::show("disk", Some(time));
        let measured = tokio::task::spawn_blocking(move || disk::measure(&folder, time)).await;
        measured.context("the disk cannot be measured").and_then(|disk| disk).map_err(Failure::Environment)
    }

    /// Everything but the disk.
    async fn all(&mut self, ingest: &Where, query: &Where, disk: Option<Disk>) -> Result<Report, Failure> {
        let target = Target::new(ingest.service(Service::Ingest)?, ingest.api_key.as_deref())?;
        let load = Load::new(Arc::new(target), Arc::clone(&self.events));
        let books = Books::new(query.service(Service::Query)?);
        let (before, newest_letter) = (books.audit().await?, books.newest_letter().await?);
        self.try_one_of_each(&load).await?;
        let single = self.load(&load, Form::Single).await?;
        let cpu = self.cpu();
        let mut batches = self.load(&load, Form::Batch).await?;
        let catch_up_seconds = self.settle(&load, &books).await?;
        // What the engine does for the batches is a part of what they take.
        batches.took(since(cpu, self.cpu()));
        let paced = if self.arguments.rate > 0 { Some(self.paced(&load).await?) } else { None };
        self.settle(&load, &books).await?;
        let (usage, mut audit) = (self.usage(), books.audit().await?);
        audit.stored = audit.stored.saturating_sub(before.stored);
        let tally = std::mem::take(&mut self.tally);
        Ok(Report {
            pipeline: self.name.into(),
            url: self.arguments.url.clone(),
            event_types: self.events.types.clone(),
            keys: self.arguments.keys,
            seconds: self.arguments.seconds,
            disk,
            single,
            batches,
            catch_up_seconds,
            paced,
            memory: usage.map(|usage| Memory { resident_bytes: usage.resident_bytes, peak_bytes: usage.peak_bytes }),
            accepted: tally.accepted,
            rejected: tally.rejected,
            first_rejection: tally.first_reason,
            put_off: tally.put_off,
            dead_letters: books.letters_since(newest_letter).await?,
            audit,
        })
    }

    /// A pipeline that takes none of the events is another one, or wants something that the catalogue does not say.
    async fn try_one_of_each(&mut self, load: &Load) -> Result<(), Failure> {
        let (_, tally) = load.these(self.events.one_of_each()).await?;
        if tally.accepted == 0 && tally.rejected > 0 {
            let why = tally.first_reason.unwrap_or_default();
            return Err(Failure::Input(anyhow!(
                "the service takes no event of {}: {why}. Does it run this pipeline?",
                self.events.types.join(", ")
            )));
        }
        self.tally.add(tally);
        Ok(())
    }

    async fn load(&mut self, load: &Load, form: Form) -> Result<Measured, Failure> {
        let (name, connections, batch) = match form {
            Form::Single => ("single events", self.arguments.connections, 1),
            Form::Batch => ("batches", BATCH_CONNECTIONS, self.arguments.batch),
        };
        let warm_up = (self.time() / WARM_UP).min(LONGEST_WARM_UP);
        let _shown = Progress::show(name, Some(warm_up + self.time()));
        self.tally.add(load.closed(form, connections, warm_up).await?.tally);
        let cpu = self.cpu();
        let outcome = load.closed(form, connections, self.time()).await?;
        self.tally.add(outcome.tally.clone());
        let mut measured = Measured::new(outcome, (connections, batch, None));
        measured.took(since(cpu, self.cpu()));
        Ok(measured)
    }

    async fn paced(&mut self, load: &Load) -> Result<Measured, Failure> {
        let Arguments { rate, connections, .. } = *self.arguments;
        let _shown = Progress::show("fixed rate", Some(self.time()));
        let outcome = load.paced(rate, connections, self.time()).await?;
        self.tally.add(outcome.tally.clone());
        Ok(Measured::new(outcome, (connections, 1, Some(rate))))
    }

    /// Waits until the engine has computed everything; how many seconds that took, if it got there.
    async fn settle(&mut self, load: &Load, books: &Books) -> Result<Option<f64>, Failure> {
        let _shown = Progress::show("until all is computed", None);
        let began = Instant::now();
        let (ids, tally) = load.these(self.events.one_of_each()).await?;
        self.tally.add(tally);
        let is_settled = books.settle(&ids).await?;
        Ok(is_settled.then(|| rounded(began.elapsed().as_secs_f64())))
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.arguments.seconds.into())
    }

    fn usage(&self) -> Option<Usage> {
        self.server.as_ref().and_then(Server::usage)
    }

    fn cpu(&self) -> Option<f64> {
        self.usage().map(|usage| usage.cpu_seconds)
    }
}

fn since(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    Some(after? - before?)
}
