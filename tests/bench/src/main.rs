//! Benchmarks. Each figure is a ratio against a floor that does the same work, measured in the same run, one after the
//! other and again; absolute numbers stand beside it for people. It is never a timed test.

/// Threads that give memory to each other and take it from each other all the time, as doors and engine do, wait for each
/// other in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod batch;
mod engine;
mod footprint;
mod http;
mod latency;
mod measure;
mod mqtt;
mod process;
mod world;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;

use measure::{Comparison, Report, Sizes};

/// Measures Cornjacket against floors that do the same work.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example:\n  cargo run --release -p bench -- all\n  cargo run --release -p bench -- tumble-1k --runs 9"
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
    /// Serve the floor of the HTTP benchmarks on this port, and do nothing else.
    #[arg(long, hide = true)]
    serve_floor: Option<u16>,
}

type Benchmark = fn(&Sizes, usize) -> Result<Comparison>;

const BENCHMARKS: [(&str, &str, Benchmark); 15] = [
    ("ingest-http-64", "64 connections, one event a request, 202 when durable", http::ingest_64),
    ("ingest-http-256", "the same with 256 connections", http::ingest_256),
    ("ingest-batch", "NDJSON bodies of ten thousand events, 202 when durable", batch::ingest),
    ("ingest-mqtt", "QoS 1, 16 publishers with 64 in flight, PUBACK when durable", mqtt::ingest),
    ("ingest-queries", "64 connections under the heaviest queries, against none", http::under_queries),
    ("filter", "WHERE and computed columns over events in memory", engine::filter),
    ("tumble-1k", "10 s windows by a thousand keys over events in memory", engine::tumble_thousand),
    ("tumble-1m", "10 s windows by a million keys over events in memory", engine::tumble_million),
    ("cores", "10 s windows by a million keys on two cores, against one", engine::cores),
    ("latency-row", "2,000 events/s by HTTP, until the projection's row can be read", latency::row),
    ("latency-webhook", "2,000 events/s by HTTP, until the webhook has come", latency::webhook),
    ("start", "the example from its start to ready", footprint::start),
    ("memory-idle", "the example with nothing to do", footprint::idle),
    ("memory-keys", "a million keys in an open window", footprint::keys),
    ("log-scan", "replaying stored events as Arrow batches", engine::log_scan),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(port) = arguments.serve_floor {
        return http::serve_floor(port);
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
    let sizes = Sizes { small: arguments.small, binary: arguments.binary };
    let mut report = Report::new(arguments.compare.as_deref())?;
    for (name, _, benchmark) in BENCHMARKS.iter().filter(|(name, ..)| wanted(name)) {
        eprintln!("{name} …");
        report.add(name, benchmark(&sizes, arguments.runs.max(1))?);
    }
    println!("{}", report.table());
    match arguments.json {
        Some(path) => report.write(&path),
        None => Ok(()),
    }
}

fn is_known(name: &str) -> bool {
    BENCHMARKS.iter().any(|(known, ..)| *known == name)
}
