//! The engine over events in memory, against `DataFusion` over the same rows as a plain table; and the log.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Result, ensure};
use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use cornjacket_compiler::Pipeline;
use cornjacket_core::log::{Columns, EventLog, Events, Notes, Positions};
use cornjacket_runtime::{Engine, EngineOptions};
use cornjacket_storage::SqliteLog;
use cornjacket_storage::sim::Disk;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

use crate::measure::{Comparison, Sizes, interleaved};
use crate::world::{Counting, environment, events, pipeline};

/// A query as a stream, and as a batch query over `readings`.
struct Query {
    stream: &'static str,
    batch: &'static str,
}

const FILTER: Query = Query {
    stream: "SELECT aggregate_id AS device, event_time, value * 9 / 5 + 32 AS fahrenheit FROM sensor.reading WHERE value > 40",
    batch: "SELECT aggregate_id AS device, event_time, value * 9 / 5 + 32 AS fahrenheit FROM readings WHERE value > 40",
};

const TUMBLE: Query = Query {
    stream: "SELECT device, w.start AS s, n, mean, most FROM (SELECT tumble(interval '10 seconds') AS w, aggregate_id AS device, \
             count(*) AS n, avg(value) AS mean, max(value) AS most FROM sensor.reading GROUP BY w, device)",
    batch: "SELECT aggregate_id AS device, date_bin(interval '10 seconds', event_time) AS s, count(*) AS n, avg(value) AS mean, \
            max(value) AS most FROM readings GROUP BY device, s",
};

pub fn filter(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    compare(&FILTER, sizes.rows(4_000_000), 1_000, (0.6, runs))
}

pub fn tumble_thousand(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    compare(&TUMBLE, sizes.rows(4_000_000), 1_000, (0.6, runs))
}

pub fn tumble_million(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    compare(&TUMBLE, sizes.rows(4_000_000), sizes.rows(1_000_000), (0.6, runs))
}

/// Windows of a million keys on two threads, against one. New threads have no memory of their own yet, and on a virtual
/// machine the first touch of memory costs more than the work; so the first half of the rows is for warming up.
pub fn cores(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let (rows, keys) = (sizes.rows(8_000_000), sizes.rows(1_000_000));
    let (compiled, counting) = pipeline(TUMBLE.stream, 4)?;
    let event_type = Arc::clone(&compiled.catalogue.types["sensor.reading"]);
    let given = events(&event_type, rows, keys, 2 * SECONDS);
    let run = |workers| run(&compiled, &counting, (&given, rows, rows / 2), workers);
    let (mut two, mut one) = (0, 0);
    let mut comparison = interleaved(
        ("rows/s", 1.5),
        runs,
        || {
            let (rate, results) = run(2)?;
            two = results;
            Ok(rate)
        },
        || {
            let (rate, results) = run(1)?;
            one = results;
            Ok(rate)
        },
    )?;
    ensure!(one == two, "two threads give {two} rows and one gives {one}");
    let cores = std::thread::available_parallelism()?;
    comparison.note =
        format!("{} rows after as many, {keys} keys, 4 partitions, on a machine with {cores} cores", rows / 2);
    Ok(comparison)
}

/// Runs the pipeline over these events; gives rows in a second, and how many results there were. Some rows are worked off
/// before it is measured.
fn run(
    compiled: &Pipeline,
    counting: &Counting,
    (given, rows, warm): (&[Events], usize, usize),
    workers: usize,
) -> Result<(f64, u64)> {
    let storage = Disk::new().open_sound(&compiled.catalogue)?;
    for events in given {
        storage.log.append(std::slice::from_ref(events), &Notes::default())?;
    }
    counting.0.store(0, Ordering::Relaxed);
    let options = EngineOptions { workers, ..EngineOptions::default() };
    let mut engine = Engine::open(Arc::clone(&compiled.graph), storage, environment(), options)?;
    let mut before = 0;
    while before < warm {
        before += usize::try_from(engine.step()?.rows)?;
    }
    let started = Instant::now();
    engine.end_input();
    while engine.step()?.committed {}
    Ok((rate(rows - before, started), counting.0.load(Ordering::Relaxed)))
}

/// Seconds that the events are spread over: twenty windows.
const SECONDS: i64 = 200;

#[allow(clippy::cast_precision_loss, reason = "rows in a second, for people")]
fn rate(rows: usize, started: Instant) -> f64 {
    rows as f64 / started.elapsed().as_secs_f64()
}

fn compare(query: &Query, rows: usize, keys: usize, (bar, runs): (f64, usize)) -> Result<Comparison> {
    let (compiled, counting) = pipeline(query.stream, 1)?;
    let event_type = Arc::clone(&compiled.catalogue.types["sensor.reading"]);
    let given = events(&event_type, rows, keys, SECONDS);
    let batches: Vec<RecordBatch> =
        given.iter().map(|events| event_type.table_rows(&events.rows, None)).collect::<Result<_, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut results = (0, 0);
    let mut comparison = interleaved(
        ("rows/s", bar),
        runs,
        || {
            let (rate, found) = run(&compiled, &counting, (&given, rows, 0), 1)?;
            results.0 = found;
            Ok(rate)
        },
        || {
            let started = Instant::now();
            results.1 = runtime.block_on(batch(query.batch, &batches))?;
            Ok(rate(rows, started))
        },
    )?;
    ensure!(results.0 == results.1, "ours gives {} rows and the floor {}", results.0, results.1);
    comparison.note = format!("{rows} rows, {keys} keys, {} results", results.0);
    Ok(comparison)
}

/// Runs a batch query in one partition, counting its rows.
async fn batch(sql: &str, batches: &[RecordBatch]) -> Result<u64> {
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_config(config);
    let table = MemTable::try_new(batches[0].schema(), vec![batches.to_vec()])?;
    context.register_table("readings", Arc::new(table))?;
    let mut stream = context.sql(sql).await?.execute_stream().await?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch?.num_rows() as u64;
    }
    Ok(rows)
}

pub fn log_scan(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let rows = sizes.rows(2_000_000);
    let (compiled, _) = pipeline(FILTER.stream, 4)?;
    let event_type = Arc::clone(&compiled.catalogue.types["sensor.reading"]);
    let given = events(&event_type, rows, 1_000, SECONDS);
    let folder = tempfile::tempdir()?;
    let log = SqliteLog::open(folder.path(), Arc::clone(&compiled.catalogue), environment())?;
    for events in &given {
        log.append(std::slice::from_ref(events), &Notes::default())?;
    }
    while log.compact_once()? > 0 {}
    drop(log);
    let plain = folder.path().join("plain.arrow");
    write_plain(&plain, &given)?;
    let mut comparison = interleaved(
        ("rows/s", 0.6),
        runs,
        || {
            // Opened anew each time, so that nothing is there in memory.
            let log = SqliteLog::open(folder.path(), Arc::clone(&compiled.catalogue), environment())?;
            let (started, mut at, mut found) = (Instant::now(), Positions::default(), 0);
            loop {
                let slice = log.read(&at, None, 65_536, &Columns::All)?;
                if slice.end == at {
                    break;
                }
                found += slice.chunks.iter().map(|chunk| chunk.rows.num_rows()).sum::<usize>();
                at = slice.end;
            }
            ensure!(found == rows, "{found} rows of {rows}");
            Ok(rate(rows, started))
        },
        || {
            let started = Instant::now();
            let reader = StreamReader::try_new(BufReader::with_capacity(1 << 20, File::open(&plain)?), None)?;
            let mut found = 0;
            for batch in reader {
                found += batch?.num_rows();
            }
            ensure!(found == rows, "{found} rows of {rows}");
            Ok(rate(rows, started))
        },
    )?;
    comparison.note = format!("{rows} rows, LZ4");
    Ok(comparison)
}

fn write_plain(path: &std::path::Path, given: &[Events]) -> Result<()> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let schema = given[0].rows.schema();
    let mut writer = StreamWriter::try_new_with_options(File::create(path)?, &schema, options)?;
    for events in given {
        writer.write(&events.rows)?;
    }
    Ok(writer.finish()?)
}
