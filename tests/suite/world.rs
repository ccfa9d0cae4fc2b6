//! What the tests run in: a clock and randomness of their own, pipelines from text, events, and a look at the results.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::DataType;
use cornjacket_compiler::{Pipeline, load, render};
use cornjacket_core::environment::{Clock, Environment, Random};
use cornjacket_core::graph::{Graph, NodeKind};
use cornjacket_core::id::EventId;
use cornjacket_core::log::Events;
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::Storage;
use cornjacket_core::time::Micros;
use cornjacket_operators::REGISTRY;
use cornjacket_runtime::audit::audit;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// 2026-01-01T00:00:00Z.
pub const START: Micros = 1_767_225_600_000_000;

/// Time that only moves when a test says so.
#[derive(Default)]
pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn advance(&self, by: Micros) {
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Micros {
        START + self.monotonic()
    }

    fn monotonic(&self) -> Micros {
        self.0.load(Ordering::SeqCst)
    }
}

struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        for (byte, from) in bytes.iter_mut().zip(number.iter().cycle()) {
            *byte = *from;
        }
    }
}

/// A test's own environment and its clock.
pub fn environment() -> (Environment, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    let random = Arc::new(Counting(AtomicU64::new(0)));
    (Environment { clock: Arc::clone(&clock) as _, random }, clock)
}

/// Runs a random test for several seeds; names the seed that fails.
pub fn for_seeds(default_runs: u64, test: impl Fn(u64, &mut ChaCha8Rng)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RUNS").unwrap_or(default_runs),
    };
    for seed in seeds {
        let guard = Announce(seed);
        test(seed, &mut ChaCha8Rng::seed_from_u64(seed));
        std::mem::forget(guard);
    }
}

struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        eprintln!("failed with SEED={}", self.0);
    }
}

/// Compiles a pipeline from its text.
pub fn pipeline(text: &str) -> Pipeline {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("test.yaml");
    std::fs::write(&file, text).expect("written");
    pipeline_file(&file)
}

/// Compiles a pipeline file.
pub fn pipeline_file(file: &Path) -> Pipeline {
    let outcome = load(file, &|_| None, &REGISTRY);
    let Some(pipeline) = outcome.pipeline else { panic!("{}", render(&outcome.diagnostics, false)) };
    pipeline
}

/// The table of a projection sink.
pub fn projection(pipeline: &Pipeline, name: &str) -> Arc<ProjectionSpec> {
    let node = pipeline.graph.nodes.iter().find(|node| node.name == name).expect("such a sink");
    let NodeKind::Sink(sink) = &node.kind else { panic!("{name} is no sink") };
    sink.projection().expect("a projection")
}

/// The catalogue that most tests use: readings with a value and a unit.
pub fn readings_catalogue(partitions: u32, delay: &str) -> String {
    format!(
        "pipeline: test\n\
         events:\n  sensor.reading:\n    payload: {{ value: double, unit: string }}\n    \
         watermark: {{ delay: {delay}, idle: 30s, max_ahead: 1m }}\n\
         topics: {{ sensor-events: {{ partitions: {partitions} }} }}\n"
    )
}

/// A reading to be stored.
#[derive(Clone, Debug)]
pub struct Reading {
    pub id: EventId,
    pub device: String,
    pub time: Micros,
    pub value: f64,
    pub unit: &'static str,
    pub client_id: bool,
}

/// A random reading.
pub fn reading(random: &mut ChaCha8Rng, devices: u32, time: Micros) -> Reading {
    Reading {
        id: EventId::v7(time, &random.random()),
        device: format!("d{}", random.random_range(0..devices)),
        time,
        value: f64::from(random.random_range(-400_i32..=1_200)) / 8.0,
        unit: ["celsius", "fahrenheit", "kelvin"][random.random_range(0..3)],
        client_id: false,
    }
}

/// Readings as the door would hand them to the log.
pub fn events(pipeline: &Pipeline, readings: &[Reading], now: Micros) -> Vec<Events> {
    let event_type = Arc::clone(&pipeline.catalogue.types["sensor.reading"]);
    let times =
        |times: Vec<Micros>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) };
    let n = readings.len();
    let ids = FixedSizeBinaryArray::try_from_iter(readings.iter().map(|r| r.id.0)).expect("at least one reading");
    let payload = readings.iter().map(|r| format!("{{\"value\":{},\"unit\":\"{}\"}}", r.value, r.unit));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids),
        Arc::new(StringArray::from_iter_values(readings.iter().map(|r| &r.device))),
        times(readings.iter().map(|r| r.time).collect()),
        times(vec![now; n]),
        new_null_array(&DataType::Utf8, n),
        Arc::new(StringArray::from_iter_values(payload)),
        Arc::new(Float64Array::from_iter_values(readings.iter().map(|r| r.value))),
        Arc::new(StringArray::from_iter_values(readings.iter().map(|r| r.unit))),
    ];
    let rows = RecordBatch::try_new(Arc::clone(event_type.stored_schema()), columns).expect("fits");
    let sequence = Int64Array::from_iter_values(0..i64::try_from(n).expect("few"));
    let client_id = Some(readings.iter().map(|r| Some(r.client_id)).collect::<BooleanArray>());
    vec![Events { event_type, rows, sequence, client_id }]
}

/// Demands that every event and every row is accounted for.
pub fn assert_balanced(graph: &Graph, storage: &Storage, context: &str) {
    let checks = audit(graph, storage).expect("reads");
    let wrong: Vec<_> = checks.iter().filter(|check| !check.holds).collect();
    assert!(wrong.is_empty() && !checks.is_empty(), "{context}: {wrong:#?}");
}
