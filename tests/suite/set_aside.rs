//! Aggregates that fail half way, over crashes: what they cannot take costs the events at fault and nothing else, and every
//! later process leaves out the same events.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use cornjacket_compiler::Pipeline;
use cornjacket_core::aggregate::{Aggregation, Groups, Relation};
use cornjacket_core::dead_letter::LetterFilter;
use cornjacket_core::graph::NodeKind;
use cornjacket_core::{Error, Result};
use cornjacket_operators::tumble;
use cornjacket_sql::{StreamOptions, Tables, compile_stream};
use rand::Rng;

use crate::oracle::{Table, assert_same, batch, projected, table};
use crate::simulation::{World, yaml};
use crate::world::{assert_balanced, for_seeds, pipeline, projection};

/// A row with this value makes the aggregates panic when they have taken half of its batch.
const PANICS: f64 = -4_242.0;
/// With this one they fail with an error.
const FAILS: f64 = -4_343.0;
/// A group that has this one can be saved, and cannot be computed.
const DOOMS: f64 = 1e12;

/// Aggregates as they are, but for some values.
#[derive(Debug)]
struct Fragile(Arc<dyn Aggregation>);

impl Aggregation for Fragile {
    fn keys(&self) -> usize {
        self.0.keys()
    }

    fn schema(&self) -> &SchemaRef {
        self.0.schema()
    }

    fn create(&self) -> Result<Box<dyn Groups>> {
        Ok(Box::new(FragileGroups { aggregation: Arc::clone(&self.0), groups: self.0.create()? }))
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

struct FragileGroups {
    aggregation: Arc<dyn Aggregation>,
    groups: Box<dyn Groups>,
}

fn has(rows: &RecordBatch, is_it: impl Fn(f64) -> bool) -> bool {
    let doubles = rows.columns().iter().filter(|column| *column.data_type() == DataType::Float64);
    let mut values = doubles.flat_map(|column| column.as_primitive::<Float64Type>().values().iter());
    values.any(|value| is_it(*value))
}

impl Groups for FragileGroups {
    fn update(&mut self, rows: &RecordBatch) -> Result<()> {
        let (panics, fails) = (has(rows, |value| value == PANICS), has(rows, |value| value == FAILS));
        let taken = if panics || fails { rows.num_rows() / 2 } else { rows.num_rows() };
        self.groups.update(&rows.slice(0, taken))?;
        assert!(!panics, "an odd value");
        if fails { Err(Error::Compute("another odd value".into())) } else { Ok(()) }
    }

    fn merge(&mut self, state: &RecordBatch) -> Result<()> {
        self.groups.merge(state)
    }

    fn take_state(&mut self) -> Result<RecordBatch> {
        self.groups.take_state()
    }

    fn evaluate(&mut self) -> Result<RecordBatch> {
        let state = self.groups.take_state()?;
        assert!(!has(&state, |value| value >= DOOMS / 2.0), "a doomed group");
        let mut groups = self.aggregation.create()?;
        groups.merge(&state)?;
        groups.evaluate()
    }

    fn len(&self) -> usize {
        self.groups.len()
    }

    fn size(&self) -> usize {
        self.groups.size()
    }
}

/// The pipeline of the simulation, where the windows by device are fragile.
fn fragile(partitions: u32) -> Pipeline {
    let mut pipeline = pipeline(&yaml(partitions));
    let event_type = &pipeline.catalogue.types["sensor.reading"];
    let tables = Tables { schemas: [("sensor.reading".to_string(), event_type.table_schema().clone())].into() };
    let sql = "SELECT aggregate_id AS k, tumble(interval '10 seconds') AS w, count(*) AS n, sum(value) AS total \
               FROM sensor.reading GROUP BY w, k";
    let relation = compile_stream(sql, &tables, StreamOptions::default()).expect("compiles");
    let mut relation = &relation;
    let window = loop {
        match relation {
            Relation::Transform { input, .. } => relation = input,
            Relation::Tumble { window, .. } => break window,
            other => panic!("no window: {other:?}"),
        }
    };
    let mut graph = (*pipeline.graph).clone();
    let tumbles = |kind: &NodeKind| matches!(kind, NodeKind::Operator(factory) if factory.kind() == "tumble");
    let mut nodes = graph.nodes.iter_mut().filter(|node| tumbles(&node.kind) && node.name.starts_with("by_device"));
    let node = nodes.next().expect("a window");
    let NodeKind::Operator(before) = &node.kind else { unreachable!() };
    let mut window = window.clone();
    assert_eq!(before.schema(), window.schema, "the same columns");
    window.aggregation = Arc::new(Fragile(window.aggregation));
    let relation =
        Relation::Tumble { input: Box::new(Relation::Table { name: String::new(), schema: before.schema() }), window };
    node.kind = NodeKind::Operator((tumble::SPEC.build)(&relation).expect("a window"));
    pipeline.graph = Arc::new(graph);
    pipeline
}

fn values(rows: &RecordBatch) -> Vec<f64> {
    let at = rows.schema().index_of("value").expect("a column");
    rows.column(at).as_primitive::<Float64Type>().values().to_vec()
}

/// The ids of the events that cannot be taken.
fn at_fault(stored: &RecordBatch) -> BTreeSet<String> {
    let ids = stored.column(0).as_string::<i32>();
    let odd = |(_, value): &(Option<&str>, f64)| *value == PANICS || *value == FAILS;
    ids.iter().zip(values(stored)).filter(odd).filter_map(|(id, _)| id.map(String::from)).collect()
}

fn windows(rows: &RecordBatch, key: &str, width: u32) -> Table {
    let sql = format!(
        "SELECT {key}, date_bin(interval '{width} seconds', event_time, to_timestamp_micros(0)) AS w, count(*), sum(value) \
         FROM events GROUP BY {key}, w HAVING '{key}' <> 'aggregate_id' OR max(value) < {DOOMS}"
    );
    table(&batch(rows, &sql), 2)
}

/// How many events were set aside, and how many groups were lost.
fn check(world: &World<'_>, seed: u64) -> (usize, usize) {
    let reader = world.disk.open_sound(&world.pipeline.catalogue).expect("opens");
    let stored = world.stored();
    let faults = at_fault(&stored);
    let sound: BooleanArray = values(&stored).iter().map(|v| Some(*v != PANICS && *v != FAILS)).collect();
    let rest = filter_record_batch(&stored, &sound).expect("filters");
    for (name, key, width) in [("devices", "aggregate_id", 10), ("units", "unit", 15)] {
        let actual = table(&projected(&*reader.store, &projection(world.pipeline, name)), 2);
        assert_same(&actual, &windows(&rest, key, width), &format!("seed {seed}: {name}"));
    }
    let newest = "SELECT aggregate_id, value, unit FROM (SELECT *, row_number() OVER (PARTITION BY aggregate_id \
                  ORDER BY event_time DESC, _offset DESC) AS rank FROM events) WHERE rank = 1";
    let actual = table(&projected(&*reader.store, &projection(world.pipeline, "newest")), 1);
    assert_same(&actual, &table(&batch(&rest, newest), 1), &format!("seed {seed}: newest"));

    let letters = reader.store.dead_letters(&LetterFilter::default(), 10_000).expect("reads");
    assert!(letters.iter().all(|letter| letter.letter.source.starts_with("by_device")), "seed {seed}: {letters:?}");
    let (events, groups): (Vec<_>, Vec<_>) = letters.iter().partition(|letter| letter.letter.event_id.is_some());
    let named: BTreeSet<String> = events.iter().filter_map(|letter| letter.letter.event_id.clone()).collect();
    assert_eq!((named.len(), &named), (events.len(), &faults), "seed {seed}: one dead letter an event at fault");
    assert!(events.iter().all(|letter| letter.letter.message.contains("odd value")), "seed {seed}: {events:?}");
    let doomed = windows(&rest, "aggregate_id", 10).len();
    let all = table(
        &batch(
            &rest,
            "SELECT DISTINCT aggregate_id, date_bin(interval '10 seconds', event_time, to_timestamp_micros(0)) FROM events",
        ),
        2,
    );
    assert_eq!(groups.len(), all.len() - doomed, "seed {seed}: one dead letter a doomed group: {groups:?}");
    assert!(groups.iter().all(|letter| letter.letter.message.contains("doomed")), "seed {seed}: {groups:?}");
    assert_balanced(&world.pipeline.graph, &reader, &format!("seed {seed}"));
    (events.len(), groups.len())
}

#[test]
fn what_cannot_be_computed_is_set_aside_over_crashes() {
    let pipelines: Vec<Pipeline> = [1, 3].iter().map(|partitions| fragile(*partitions)).collect();
    let (events, groups) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    for_seeds(150, |seed, random| {
        let at = random.random_range(0..pipelines.len());
        let world = World::live(&pipelines[at], random, &[PANICS, FAILS, DOOMS]);
        let (aside, lost) = check(&world, seed);
        events.set(events.get() + aside);
        groups.set(groups.get() + lost);
    });
    let counts = (events.get(), groups.get());
    eprintln!("{} events set aside, {} groups lost", counts.0, counts.1);
    assert!(std::env::var("SEED").is_ok() || (counts.0 > 0 && counts.1 > 0), "nothing was at fault: {counts:?}");
}
