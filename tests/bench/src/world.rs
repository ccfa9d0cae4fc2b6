//! Pipelines from text, events in memory, and a sink that only counts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};
use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::datatypes::DataType;
use cornjacket_compiler::{Pipeline, load_for_tests, render};
use cornjacket_core::batch::Batch;
use cornjacket_core::catalogue::EventType;
use cornjacket_core::environment::{Clock, Environment, Random};
use cornjacket_core::graph::{Sink, SinkFactory, SinkOutput};
use cornjacket_core::log::Events;
use cornjacket_core::time::Micros;
use cornjacket_operators::REGISTRY;

/// 2026-01-01T00:00:00Z.
pub const START: Micros = 1_767_225_600_000_000;
/// Rows of a commit.
pub const COMMIT_ROWS: usize = 8_192;

/// Counts the rows that reach it.
#[derive(Clone, Debug, Default)]
pub struct Counting(pub Arc<AtomicU64>);

impl SinkFactory for Counting {
    fn kind(&self) -> &'static str {
        "count"
    }

    fn starts_at_beginning(&self) -> bool {
        true
    }

    fn create(&self) -> cornjacket_core::Result<Box<dyn Sink>> {
        Ok(Box::new(self.clone()))
    }

    fn describe(&self) -> String {
        "count".into()
    }
}

impl Sink for Counting {
    fn on_epoch(&mut self, _: u64, batches: Vec<Batch>) -> cornjacket_core::Result<SinkOutput> {
        let rows: usize = batches.iter().map(Batch::num_rows).sum();
        self.0.fetch_add(rows as u64, Ordering::Relaxed);
        Ok(SinkOutput::default())
    }
}

/// A pipeline with one stream, `results`, and its counting sink.
pub fn pipeline(sql: &str, partitions: u32) -> Result<(Pipeline, Counting)> {
    let text = format!(
        "pipeline: bench\n\
         events: {{ sensor.reading: {{ payload: {{ value: double, unit: string }}, watermark: {{ delay: 5s }} }} }}\n\
         topics: {{ sensor-events: {{ partitions: {partitions} }} }}\n\
         sources: {{ api: {{ http: {{}} }} }}\n\
         streams:\n  results: |\n    {sql}\n\
         sinks: {{ out: {{ stdout: {{ from: results }} }} }}\n\
         tests: [ {{ name: counted, expect: {{ results: [] }} }} ]\n"
    );
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bench.yaml");
    std::fs::write(&file, text)?;
    let counting = Counting::default();
    let capture = |_: &_| -> Arc<dyn SinkFactory> { Arc::new(counting.clone()) };
    let outcome = load_for_tests(Path::new(&file), &|_| None, &REGISTRY, &capture);
    match outcome.pipeline {
        Some(pipeline) => Ok((pipeline, counting)),
        None => bail!("{}", render(&outcome.diagnostics, false)),
    }
}

/// Readings over `seconds`, in the order of their time, of this many devices in turn.
pub fn events(event_type: &Arc<EventType>, rows: usize, keys: usize, seconds: i64) -> Vec<Events> {
    let step = seconds * 1_000_000 / i64::try_from(rows.max(1)).unwrap_or(i64::MAX);
    let chunks = (0..rows).collect::<Vec<_>>();
    chunks
        .chunks(COMMIT_ROWS)
        .map(|numbers| commit(event_type, numbers, |number| scattered(number) % keys, step.max(1)))
        .collect()
}

/// Readings of some numbers, a millisecond apart; the same number gives the same reading. Every device has one among its
/// first `keys`.
pub fn events_from(event_type: &Arc<EventType>, numbers: std::ops::Range<usize>, keys: usize) -> Vec<Events> {
    let numbers: Vec<usize> = numbers.collect();
    numbers.chunks(COMMIT_ROWS).map(|numbers| commit(event_type, numbers, |number| number % keys, 1_000)).collect()
}

/// A number that looks random, the same every time (the finaliser of `MurmurHash3`).
pub fn scattered(number: usize) -> usize {
    let mut x = number as u64;
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    usize::try_from((x ^ (x >> 33)) >> 16).unwrap_or(0)
}

fn commit(event_type: &Arc<EventType>, numbers: &[usize], device: impl Fn(usize) -> usize, step: i64) -> Events {
    let n = numbers.len();
    let time = |number: &usize| START + i64::try_from(*number).unwrap_or(0) * step;
    let ids = numbers.iter().map(|number| (*number as u128).to_be_bytes());
    let times =
        |times: Vec<Micros>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) };
    #[allow(clippy::cast_precision_loss, reason = "below a thousand")]
    let value = |number: &usize| (scattered(*number + 1) % 1_000) as f64 / 10.0;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::try_from_iter(ids).expect("some rows")),
        Arc::new(StringArray::from_iter_values(numbers.iter().map(|number| format!("device-{}", device(*number))))),
        times(numbers.iter().map(time).collect()),
        times(vec![START; n]),
        new_null_array(&DataType::Utf8, n),
        Arc::new(StringArray::from_iter_values(
            numbers.iter().map(|number| format!("{{\"value\":{},\"unit\":\"celsius\"}}", value(number))),
        )),
        Arc::new(Float64Array::from_iter_values(numbers.iter().map(value))),
        Arc::new(StringArray::from_iter_values(numbers.iter().map(|_| "celsius"))),
    ];
    let rows = RecordBatch::try_new(Arc::clone(event_type.stored_schema()), columns).expect("the stored schema");
    let sequence = Int64Array::from_iter_values(0..i64::try_from(n).unwrap_or(0));
    Events { event_type: Arc::clone(event_type), rows, sequence, client_id: None }
}

struct Machine(Instant);

impl Clock for Machine {
    fn now(&self) -> Micros {
        START + self.monotonic()
    }

    fn monotonic(&self) -> Micros {
        Micros::try_from(self.0.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }
}

struct Counter(AtomicU64);

impl Random for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

/// The machine's time, and numbers for randomness.
pub fn environment() -> Environment {
    Environment { clock: Arc::new(Machine(Instant::now())), random: Arc::new(Counter(AtomicU64::new(0))) }
}
