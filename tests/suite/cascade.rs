//! Windows over windows, over input with long gaps that ends: equal to batch over the stored events, with nothing late.
//!
//! A gap makes the watermark jump over many windows at once; the rows that leave then are in time for the windows of the
//! next stream, however far it jumped.

use cornjacket_core::dead_letter::LetterFilter;
use cornjacket_core::log::Notes;
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_runtime::{Engine, EngineOptions, Saver};
use cornjacket_storage::sim::Disk;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::oracle::{assert_same, batch, projected, stored_events, table};
use crate::world::{
    Reading, START, assert_balanced, environment, events, for_seeds, pipeline, projection, reading, readings_catalogue,
};

fn yaml(partitions: u32, key: &str, outer: &str) -> String {
    format!(
        "{}streams:\n  \
           inner_windows: |\n    SELECT k, w.start AS s, n, total FROM (SELECT {key} AS k, tumble(interval '10 seconds') AS w, \
             count(*) AS n, sum(value) AS total FROM sensor.reading GROUP BY w, k)\n  \
           outer_windows: |\n    SELECT k, w.start AS s, n, most FROM (SELECT k, tumble(interval '{outer}') AS w, \
             sum(n) AS n, max(total) AS most FROM inner_windows GROUP BY w, k)\n  \
           whole: |\n    SELECT w.start AS s, n FROM (SELECT tumble(interval '{outer}') AS w, sum(n) AS n \
             FROM outer_windows GROUP BY w)\n\
         sinks:\n  \
           per_key: {{ projection: {{ from: outer_windows, key: [k, s] }} }}\n  \
           all_keys: {{ projection: {{ from: whole, key: [s] }} }}\n",
        readings_catalogue(partitions, "5s")
    )
}

/// Readings in bursts with gaps of up to hours between them, in an order that keeps within the delay.
fn bursts(random: &mut ChaCha8Rng) -> Vec<Reading> {
    let mut arrivals: Vec<(Micros, Reading)> = Vec::new();
    let mut start = START;
    for _ in 0..random.random_range(1..8) {
        for _ in 0..random.random_range(1..20) {
            let time = start + random.random_range(0..40 * SECOND);
            arrivals.push((time + random.random_range(0..=5 * SECOND), reading(random, 5, time)));
        }
        start += random.random_range(0..2 * 3_600) * SECOND;
    }
    arrivals.sort_by_key(|(arrival, _)| *arrival);
    arrivals.into_iter().map(|(_, reading)| reading).collect()
}

#[test]
fn windows_over_windows_equal_batch_over_gaps() {
    for_seeds(80, |seed, random| {
        let key = ["aggregate_id", "unit"].choose(random).expect("some");
        let outer = ["10 seconds", "1 minute", "1 hour"].choose(random).expect("some");
        let pipeline = pipeline(&yaml(random.random_range(1..=4), key, outer));
        let (environment, _) = environment();
        let storage = Disk::new().open_sound(&pipeline.catalogue).expect("opens");
        let options = EngineOptions {
            workers: 1,
            max_epoch_rows: *[1, 5, 1_000].choose(random).expect("some"),
            snapshot_every: random.random_range(0..5) * SECOND,
            saver: Saver::Inline,
            ..EngineOptions::default()
        };
        let graph = pipeline.graph.clone();
        let mut engine =
            Engine::open(graph.clone(), storage.clone(), environment.clone(), options.clone()).expect("opens");
        for part in bursts(random).chunks(random.random_range(1..=30)) {
            storage.log.append(&events(&pipeline, part, START), &Notes::default()).expect("stored");
            engine.step().expect("steps");
            if random.random_bool(0.1) {
                engine = Engine::open(graph.clone(), storage.clone(), environment.clone(), options.clone())
                    .expect("opens again");
            }
        }
        engine.end_input();
        while engine.step().expect("steps").committed {}

        let stored = stored_events(&pipeline, &*storage.log, "sensor.reading");
        let bin = |width: &str, time: &str| format!("date_bin(interval '{width}', {time}, to_timestamp_micros(0))");
        let inner = format!(
            "SELECT {key} AS k, {} AS s, count(*) AS n, sum(value) AS total FROM events GROUP BY k, s",
            bin("10 seconds", "event_time")
        );
        let outer_sql =
            format!("SELECT k, {} AS s, sum(n) AS n, max(total) AS most FROM ({inner}) GROUP BY k, 2", bin(outer, "s"));
        let whole = format!("SELECT s, sum(n) AS n FROM ({outer_sql}) GROUP BY s");
        for (name, sql, keys) in [("per_key", &outer_sql, 2), ("all_keys", &whole, 1)] {
            let actual = table(&projected(&*storage.store, &projection(&pipeline, name)), keys);
            assert_same(&actual, &table(&batch(&stored, sql), keys), &format!("seed {seed}: {name} by {key}, {outer}"));
        }
        assert_balanced(&pipeline.graph, &storage, &format!("seed {seed}"));
        assert_eq!(storage.store.dead_letters(&LetterFilter::default(), 10).expect("reads"), [], "seed {seed}");
    });
}
