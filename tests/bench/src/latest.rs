//! The newest row of each key into the embedded projection, against `SQLite` taking the same rows.
//!
//! Both write the same compacted batches, an epoch a transaction, each synced: a first run keeps what the engine has for
//! the projection, and the floor upserts that with prepared statements into a table that is laid out in the same way.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use arrow::array::{Array, ArrayRef, FixedSizeBinaryArray, Float64Array, StringArray, TimestampMicrosecondArray};
use cornjacket_compiler::{Pipeline, load_text, render};
use cornjacket_core::batch::Batch;
use cornjacket_core::graph::{Graph, NodeKind, Sink, SinkFactory, SinkOutput};
use cornjacket_core::log::{EventLog, Notes};
use cornjacket_core::projection::{ProjectionSpec, ProjectionWrite};
use cornjacket_core::store::Storage;
use cornjacket_operators::REGISTRY;
use cornjacket_runtime::{Engine, EngineOptions};
use cornjacket_storage::SqliteStore;
use cornjacket_storage::sim::Disk;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::Value;
use rusqlite::{Connection, Statement};

use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::folder;
use crate::world::{environment, events};

/// The newest reading of each device.
pub const PIPELINE: &str = "
pipeline: bench
events: { sensor.reading: { payload: { value: double, unit: string }, watermark: { delay: 5s } } }
sources: { api: { http: {} } }
sinks: { newest: { projection: { from: sensor.reading, key: [aggregate_id] } } }
";

/// What an epoch has for the projection.
type Writes = Arc<Mutex<Vec<ProjectionWrite>>>;

/// A sink that does what another does and keeps a copy.
#[derive(Debug)]
struct Recording(Arc<dyn SinkFactory>, Writes);

struct RecordingSink(Box<dyn Sink>, Writes);

impl SinkFactory for Recording {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn projection(&self) -> Option<Arc<ProjectionSpec>> {
        self.0.projection()
    }

    fn reads(&self) -> Option<Vec<usize>> {
        self.0.reads()
    }

    fn starts_at_beginning(&self) -> bool {
        self.0.starts_at_beginning()
    }

    fn create(&self) -> cornjacket_core::Result<Box<dyn Sink>> {
        Ok(Box::new(RecordingSink(self.0.create()?, Arc::clone(&self.1))))
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

impl Sink for RecordingSink {
    fn on_epoch(&mut self, epoch: u64, batches: Vec<Batch>) -> cornjacket_core::Result<SinkOutput> {
        let output = self.0.on_epoch(epoch, batches)?;
        if let (Some(write), Ok(mut kept)) = (&output.write, self.1.lock()) {
            kept.push(write.clone());
        }
        Ok(output)
    }
}

/// The pipeline above, and the same one with what its sink writes kept.
pub fn compiled() -> Result<Pipeline> {
    let outcome = load_text(Path::new("bench.yaml"), PIPELINE.into(), &|_| None, &REGISTRY);
    let diagnostics = render(&outcome.diagnostics, false);
    outcome.pipeline.with_context(|| diagnostics)
}

fn recording(graph: &Graph) -> (Arc<Graph>, Writes) {
    let (mut graph, writes) = (graph.clone(), Writes::default());
    for node in &mut graph.nodes {
        if let NodeKind::Sink(sink) = &node.kind {
            node.kind = NodeKind::Sink(Arc::new(Recording(Arc::clone(sink), Arc::clone(&writes))));
        }
    }
    (Arc::new(graph), writes)
}

pub fn latest(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let (rows, keys) = (sizes.rows(2_000_000), sizes.rows(100_000));
    let pipeline = compiled()?;
    let event_type = Arc::clone(&pipeline.catalogue.types["sensor.reading"]);
    let log = Disk::new().open_sound(&pipeline.catalogue)?.log;
    for events in events(&event_type, rows, keys, 200) {
        log.append(&[events], &Notes::default())?;
    }
    let (graph, writes) = recording(&pipeline.graph);
    engine_run(&graph, &pipeline, &log)?;
    let writes = std::mem::take(&mut *writes.lock().map_err(|_| anyhow::anyhow!("a sink panicked"))?);
    let upserts: usize = writes.iter().map(|write| write.rows.num_rows()).sum();
    #[allow(clippy::cast_precision_loss, reason = "rows in a second, for people")]
    let rate = |time: Duration| upserts as f64 / time.as_secs_f64();
    let mut ends = (Written::default(), Written::default());
    let mut comparison = interleaved(
        ("upserts/s", 0.6),
        runs,
        || {
            let (time, written) = engine_run(&pipeline.graph, &pipeline, &log)?;
            ends.0 = written;
            Ok(rate(time))
        },
        || {
            let folder = folder()?;
            let (time, written) = floor_run(&folder.path().join("floor.db"), &writes)?;
            ends.1 = written;
            Ok(rate(time))
        },
    )?;
    ensure!(ends.0 == ends.1, "ours made {:?} and the floor {:?}", ends.0, ends.1);
    let Written { epochs, rows: keys } = ends.0;
    comparison.note = format!("{rows} events, {upserts} upserts in {epochs} epochs, {keys} keys");
    Ok(comparison)
}

/// What was written: both must write the same.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    /// Transactions with rows in them.
    epochs: usize,
    /// Rows that there are at the end.
    rows: usize,
}

/// Runs the graph to the end of the log on a store of its own; the time is that of its steps.
fn engine_run(graph: &Arc<Graph>, pipeline: &Pipeline, log: &Arc<dyn EventLog>) -> Result<(Duration, Written)> {
    let folder = folder()?;
    let store = Arc::new(SqliteStore::open(folder.path(), (&pipeline.name, &pipeline.version))?);
    let storage = Storage { log: Arc::clone(log), store };
    let options = EngineOptions { workers: 1, ..EngineOptions::default() };
    let mut engine = Engine::open(Arc::clone(graph), storage.clone(), environment(), options)?;
    engine.end_input();
    let (started, mut epochs) = (Instant::now(), 0);
    loop {
        let step = engine.step()?;
        if !step.committed {
            break;
        }
        epochs += usize::from(step.rows > 0);
    }
    let time = started.elapsed();
    let spec = graph.nodes.iter().find_map(|node| match &node.kind {
        NodeKind::Sink(sink) => sink.projection(),
        _ => None,
    });
    let mut rows = 0;
    let spec = spec.context("no projection")?;
    storage.store.scan(&spec, &mut |batch| {
        rows += batch.num_rows();
        true
    })?;
    Ok((time, Written { epochs, rows }))
}

/// Upserts the same rows straight into `SQLite`; the time is that of the transactions.
fn floor_run(path: &Path, writes: &[ProjectionWrite]) -> Result<(Duration, Written)> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-16000;",
    )?;
    let columns: Vec<String> = (0..writes[0].rows.num_columns()).map(|at| format!("c{at}")).collect();
    let all = columns.join(", ");
    connection.execute_batch(&format!(
        "CREATE TABLE t (k TEXT PRIMARY KEY, {all}, t INTEGER NOT NULL, o INTEGER NOT NULL, e BLOB) WITHOUT ROWID"
    ))?;
    let set = |name: &str| format!("{name} = excluded.{name}");
    let sets: Vec<String> = columns.iter().map(String::as_str).chain(["t", "o", "e"]).map(set).collect();
    let upsert = format!(
        "INSERT INTO t (k, {all}, t, o, e) VALUES (?{}) ON CONFLICT (k) DO UPDATE SET {} \
         WHERE (excluded.t, excluded.o) >= (t, o)",
        ", ?".repeat(columns.len() + 3),
        sets.join(", ")
    );
    let started = Instant::now();
    for write in writes {
        let transaction = connection.transaction()?;
        let mut statement = transaction.prepare_cached(&upsert)?;
        upsert_all(&mut statement, write)?;
        drop(statement);
        transaction.commit()?;
    }
    let time = started.elapsed();
    let rows = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
    Ok((time, Written { epochs: writes.len(), rows }))
}

fn upsert_all(upsert: &mut Statement<'_>, write: &ProjectionWrite) -> Result<()> {
    let key = Cells::new(write.rows.column(write.projection.key[0]))?;
    let columns: Vec<Cells> = write.rows.columns().iter().map(Cells::new).collect::<Result<_>>()?;
    let rest = columns.len() + 2;
    for row in 0..write.rows.num_rows() {
        upsert.raw_bind_parameter(1, key.at(row))?;
        for (at, column) in columns.iter().enumerate() {
            upsert.raw_bind_parameter(at + 2, column.at(row))?;
        }
        upsert.raw_bind_parameter(rest, write.time.value(row))?;
        upsert.raw_bind_parameter(rest + 1, write.order.value(row))?;
        upsert.raw_bind_parameter(rest + 2, write.event_id.as_ref().map(|ids| ids.value(row)))?;
        upsert.raw_execute()?;
    }
    Ok(())
}

/// A column's values as `SQLite` takes them.
enum Cells<'a> {
    Text(&'a StringArray),
    Number(&'a Float64Array),
    Time(&'a TimestampMicrosecondArray),
    Bytes(&'a FixedSizeBinaryArray),
}

impl<'a> Cells<'a> {
    fn new(column: &'a ArrayRef) -> Result<Self> {
        let any = column.as_any();
        None.or_else(|| any.downcast_ref().map(Self::Text))
            .or_else(|| any.downcast_ref().map(Self::Number))
            .or_else(|| any.downcast_ref().map(Self::Time))
            .or_else(|| any.downcast_ref().map(Self::Bytes))
            .with_context(|| format!("the floor knows no {}", column.data_type()))
    }

    fn at(&self, row: usize) -> ToSqlOutput<'a> {
        match self {
            Self::Text(values) if values.is_valid(row) => ToSqlOutput::from(values.value(row)),
            Self::Number(values) if values.is_valid(row) => ToSqlOutput::from(values.value(row)),
            Self::Time(values) if values.is_valid(row) => ToSqlOutput::from(values.value(row)),
            Self::Bytes(values) if values.is_valid(row) => ToSqlOutput::Borrowed(values.value(row).into()),
            _ => ToSqlOutput::Owned(Value::Null),
        }
    }
}
