//! The tables that SQL sees: projections, event types, and the system's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use cornjacket_compiler::Pipeline;
use cornjacket_core::Result;
use cornjacket_core::catalogue::EventType;
use cornjacket_core::log::{Columns, EventLog, Positions, TopicPartition};
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::{Storage, Store};
use cornjacket_core::time::{Micros, timestamp_type};
use cornjacket_runtime::Status;
use cornjacket_sql::query::TableSource;
use tokio::sync::watch;

use super::records::{DeadLetters, Deliveries, Ledger};
use super::workers::NamedTable;
use crate::environment::of_machine;

/// The schema of the system tables.
const SYSTEM: &str = "cornjacket";
/// Events read from the log at a time.
const SLICE_ROWS: usize = 65_536;

/// Every table.
pub fn of(
    pipeline: &Pipeline,
    projections: &BTreeMap<String, Arc<ProjectionSpec>>,
    storage: &Storage,
    status: &watch::Receiver<Arc<Status>>,
) -> anyhow::Result<Vec<NamedTable>> {
    let (log, store) = (&storage.log, &storage.store);
    let mut tables = Vec::new();
    let mut add = |schema: Option<&str>, name: &str, source: Arc<dyn TableSource>| {
        tables.push(NamedTable { schema: schema.map(Into::into), name: name.into(), source });
    };
    for (name, spec) in projections {
        add(None, name, Arc::new(Projection { store: Arc::clone(store), spec: Arc::clone(spec) }));
    }
    for (name, event_type) in &pipeline.catalogue.types {
        let (schema, table) = name.split_once('.').unwrap_or(("events", name));
        let events = EventTable { log: Arc::clone(log), event_type: Arc::clone(event_type) };
        add(Some(schema), table, Arc::new(events));
    }
    add(Some(SYSTEM), "dead_letters", Arc::new(DeadLetters(Arc::clone(store))));
    add(Some(SYSTEM), "deliveries", Arc::new(Deliveries(Arc::clone(store))));
    let ledger = Ledger { graph: Arc::clone(&pipeline.graph), storage: storage.clone() };
    add(Some(SYSTEM), "ledger", Arc::new(ledger));
    let name = pipeline.name.clone();
    let clock = of_machine().clock;
    let topics = pipeline.catalogue.topics.clone();
    let log = Arc::clone(log);
    let of_status: [(&str, Rows); 5] = [
        ("pipelines", Box::new(move |status| pipelines(&name, clock.now(), status))),
        ("operators", Box::new(operators)),
        ("clocks", Box::new(clocks)),
        ("checkpoints", Box::new(checkpoints)),
        ("topics", Box::new(move |status| topic_rows(&topics, &log.end(), status))),
    ];
    for (name, rows) in of_status {
        let schema = rows(&Status::default())?.schema();
        add(Some(SYSTEM), name, Arc::new(FromStatus { schema, status: status.clone(), rows }));
    }
    Ok(tables)
}

struct Projection {
    store: Arc<dyn Store>,
    spec: Arc<ProjectionSpec>,
}

impl TableSource for Projection {
    fn schema(&self) -> SchemaRef {
        cornjacket_storage::read_schema(&self.spec)
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let mut failed = None;
        self.store.scan(&self.spec, &mut |rows| match rows.project(projection) {
            Ok(rows) => sink(rows),
            Err(error) => {
                failed = Some(error);
                false
            }
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

struct EventTable {
    log: Arc<dyn EventLog>,
    event_type: Arc<EventType>,
}

impl TableSource for EventTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.event_type.table_schema())
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let stored = self.event_type.stored_columns(projection);
        let columns = Columns::Only(BTreeMap::from([(self.event_type.name.clone(), stored)]));
        // What is stored after the query began is not in its answer.
        let (mut at, end) = (Positions::default(), self.log.end());
        loop {
            let slice = self.log.read(&at, Some(&end), SLICE_ROWS, &columns)?;
            if slice.end == at {
                return Ok(());
            }
            at = slice.end;
            for chunk in slice.chunks.iter().filter(|chunk| chunk.event_type.name == self.event_type.name) {
                let rows = self.event_type.table_rows(&chunk.rows, Some(projection))?;
                if !sink(rows.project(projection)?) {
                    return Ok(());
                }
            }
        }
    }
}

pub(super) fn columns(fields: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

pub(super) fn times(times: Vec<Option<Micros>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
}

type Rows = Box<dyn Fn(&Status) -> Result<RecordBatch> + Send + Sync>;

/// A small table made from the engine's status when it is asked for.
struct FromStatus {
    schema: SchemaRef,
    status: watch::Receiver<Arc<Status>>,
    rows: Rows,
}

impl TableSource for FromStatus {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let status = Arc::clone(&self.status.borrow());
        sink((self.rows)(&status)?.project(projection)?);
        Ok(())
    }
}

fn pipelines(name: &str, now: Micros, status: &Status) -> Result<RecordBatch> {
    let schema = columns(&[
        ("name", DataType::Utf8),
        ("epoch", DataType::UInt64),
        ("rebuilding", DataType::Boolean),
        ("waiting_for", DataType::Utf8),
        // What the times of the other tables are compared with, where the asking machine's clock is another.
        ("asked_at", timestamp_type()),
    ]);
    let values: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![name])),
        Arc::new(UInt64Array::from(vec![status.epoch])),
        Arc::new(arrow::array::BooleanArray::from(vec![status.rebuilding])),
        Arc::new(StringArray::from(vec![status.waiting_for.clone()])),
        times(vec![Some(now)]),
    ];
    Ok(RecordBatch::try_new(schema, values)?)
}

fn operators(status: &Status) -> Result<RecordBatch> {
    let number = || DataType::UInt64;
    let schema = columns(&[
        ("name", DataType::Utf8),
        ("kind", DataType::Utf8),
        ("rows_in", number()),
        ("rows_out", number()),
        ("late", number()),
        ("state_bytes", number()),
        ("event_types", DataType::Utf8),
        ("watermark", timestamp_type()),
        ("waits_for", timestamp_type()),
        ("closes_by", timestamp_type()),
    ]);
    let nodes = || status.nodes.iter();
    let values: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(nodes().map(|node| &node.name))),
        Arc::new(StringArray::from_iter_values(nodes().map(|node| &node.kind))),
        Arc::new(UInt64Array::from_iter_values(nodes().map(|node| node.rows_in))),
        Arc::new(UInt64Array::from_iter_values(nodes().map(|node| node.rows_out))),
        Arc::new(UInt64Array::from_iter_values(nodes().map(|node| node.late))),
        Arc::new(UInt64Array::from_iter_values(nodes().map(|node| node.state_bytes))),
        Arc::new(StringArray::from_iter_values(nodes().map(|node| node.event_types.join(", ")))),
        times(nodes().map(|node| node.watermark).collect()),
        times(nodes().map(|node| node.waits_for).collect()),
        times(nodes().map(|node| node.closes_by).collect()),
    ];
    Ok(RecordBatch::try_new(schema, values)?)
}

fn clocks(status: &Status) -> Result<RecordBatch> {
    let schema = columns(&[
        ("event_type", DataType::Utf8),
        ("partition", DataType::Int64),
        ("clock", timestamp_type()),
        ("last_row_at", timestamp_type()),
        ("silent_at", timestamp_type()),
    ]);
    let clocks = || status.clocks.iter();
    let values: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(clocks().map(|clock| &clock.event_type))),
        Arc::new(Int64Array::from_iter_values(clocks().map(|clock| i64::from(clock.partition)))),
        times(clocks().map(|clock| Some(clock.clock)).collect()),
        times(clocks().map(|clock| clock.last_row_at).collect()),
        times(clocks().map(|clock| Some(clock.silent_at)).collect()),
    ];
    Ok(RecordBatch::try_new(schema, values)?)
}

fn checkpoints(status: &Status) -> Result<RecordBatch> {
    let schema = columns(&[("epoch", DataType::UInt64), ("epochs_since", DataType::UInt64)]);
    let epochs: Vec<u64> = status.snapshot.iter().map(|(epoch, _)| *epoch).collect();
    let since: Vec<u64> = epochs.iter().map(|epoch| status.epoch.saturating_sub(*epoch)).collect();
    Ok(RecordBatch::try_new(schema, vec![Arc::new(UInt64Array::from(epochs)), Arc::new(UInt64Array::from(since))])?)
}

fn topic_rows(topics: &BTreeMap<String, u32>, end: &Positions, status: &Status) -> Result<RecordBatch> {
    let schema = columns(&[
        ("topic", DataType::Utf8),
        ("partition", DataType::Int64),
        ("end_offset", DataType::Int64),
        ("reflected_offset", DataType::Int64),
    ]);
    let partitions = topics.iter().flat_map(|(topic, partitions)| {
        (0..*partitions).map(|partition| TopicPartition { topic: topic.as_str().into(), partition })
    });
    let partitions: Vec<TopicPartition> = partitions.collect();
    let values: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(partitions.iter().map(|at| &*at.topic))),
        Arc::new(Int64Array::from_iter_values(partitions.iter().map(|at| i64::from(at.partition)))),
        Arc::new(Int64Array::from_iter_values(partitions.iter().map(|at| end.get(at)))),
        Arc::new(Int64Array::from_iter_values(partitions.iter().map(|at| status.positions.get(at)))),
    ];
    Ok(RecordBatch::try_new(schema, values)?)
}
