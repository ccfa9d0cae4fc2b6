//! Benchmarks. Each figure is a ratio against a floor that does the same work, measured in the same run, one after the
//! other and again; absolute numbers stand beside it for people. It is never a timed test.

/// The allocator of the process that is measured; the floors share it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod batch;
mod client;
mod engine;
mod floor;
mod growth;
mod http;
mod latency;
mod latest;
mod measure;
mod mqtt;
mod plots;
mod process;
mod queries;
mod resources;
mod world;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;

use measure::{Comparison, Report, Sizes};

/// Measures Cornjacket against floors that do the same work.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example:\n  cargo run --release -p bench -- all\n  cargo run --release -p bench -- tumble-1k --runs 9\n  \
                  cargo run --release -p bench -- --plots docs/plots --minutes 60"
)]
struct Arguments {
    /// Names of benchmarks, or `all`; without one they are listed.
    names: Vec<String>,
    /// How often ours and the floor are measured, one after the other.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// A small size, only to see that everything still runs.
    #[arg(long)]
    small: bool,
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Show beside the results those of an earlier file.
    #[arg(long)]
    compare: Option<PathBuf>,
    /// The `cornjacket` to measure; the one beside this program unless set.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Draw plots into this folder instead: throughput by the size of a batch, how latencies are spread, memory over time.
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
    /// Only these plots.
    #[arg(long, requires = "plots", value_enum)]
    only: Vec<plots::Plot>,
    /// For how long memory is watched.
    #[arg(long, requires = "plots", default_value_t = 10.0)]
    minutes: f64,
    /// Serve the floor of the HTTP benchmarks on this port, and do nothing else.
    #[arg(long, hide = true)]
    serve_floor: Option<u16>,
}

/// A benchmark of one figure, or of several, which have names of their own.
enum Benchmark {
    One(fn(&Sizes, usize) -> Result<Comparison>),
    Several(fn(&Sizes, usize) -> Result<Vec<(&'static str, Comparison)>>),
}

use Benchmark::{One, Several};

const BENCHMARKS: &[(&str, &str, Benchmark)] = &[
    ("ingest-http-64", "64 connections, one event a request, 202 when durable", Several(http::ingest_64)),
    ("ingest-http-256", "the same with 256 connections", Several(http::ingest_256)),
    ("ingest-batch", "bodies of 10,000 events as lines of JSON", One(batch::ingest)),
    ("ingest-mqtt", "16 publishers, 64 in flight each, PUBACK when durable", One(mqtt::ingest)),
    ("ingest-queries", "one event a request under the heaviest queries, against none", One(queries::ingest)),
    ("filter", "WHERE and computed columns over events in memory", One(engine::filter)),
    ("tumble-1k", "10 s windows by a thousand keys over events in memory", One(engine::tumble_thousand)),
    ("tumble-1m", "10 s windows by a million keys over events in memory", One(engine::tumble_million)),
    ("log-scan", "replaying stored events as Arrow batches", One(engine::log_scan)),
    ("latest", "the newest row of 100 thousand keys into the embedded projection", One(latest::latest)),
    ("whole-way", "bodies of events to rows of windows that can be read", One(batch::whole_way)),
    ("latency", "2,000 events/s, to the row being readable and to the webhook", Several(latency::latency)),
    ("start", "the example pipeline from its start to ready", One(resources::start)),
    ("memory", "the idle process, and the state of a million keys in open windows", Several(resources::memory)),
    ("cores", "tumble-1m on two threads, against one", One(engine::cores)),
    ("growth", "ingest and point query with 50 million events stored, against none", Several(growth::growth)),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(port) = arguments.serve_floor {
        return floor::serve(port);
    }
    let sizes = Sizes { small: arguments.small, binary: arguments.binary };
    if let Some(folder) = arguments.plots {
        return plots::draw(&folder, &arguments.only, &sizes, arguments.minutes);
    }
    if arguments.names.is_empty() {
        for (name, about, _) in BENCHMARKS {
            println!("{name:<16} {about}");
        }
        return Ok(());
    }
    if let Some(unknown) = arguments.names.iter().find(|name| *name != "all" && !is_known(name)) {
        bail!("there is no benchmark `{unknown}`; without a name they are listed");
    }
    let wanted = |name: &str| arguments.names.iter().any(|wanted| wanted == "all" || wanted == name);
    let mut report = Report::new(arguments.compare.as_deref())?;
    for (name, _, benchmark) in BENCHMARKS.iter().filter(|(name, ..)| wanted(name)) {
        eprintln!("{name} …");
        benchmark.run(name, &sizes, arguments.runs.max(1), &mut report)?;
    }
    println!("{}", report.table());
    match arguments.json {
        Some(path) => report.write(&path),
        None => Ok(()),
    }
}

impl Benchmark {
    fn run(&self, name: &str, sizes: &Sizes, runs: usize, report: &mut Report) -> Result<()> {
        match self {
            One(measure) => report.add(name.into(), measure(sizes, runs)?),
            Several(measure) => {
                for (part, comparison) in measure(sizes, runs)? {
                    let name = if part.is_empty() { name.to_string() } else { format!("{name}-{part}") };
                    report.add(name, comparison);
                }
            }
        }
        Ok(())
    }
}

fn is_known(name: &str) -> bool {
    BENCHMARKS.iter().any(|(known, ..)| *known == name)
}
