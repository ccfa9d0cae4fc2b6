//! Random pipelines over random batching, partitions, order within `delay` and idleness equal `DataFusion` batch over the
//! stored events; rows beyond `delay` are late exactly where the rule says so.

use cornjacket_core::dead_letter::LetterFilter;
use cornjacket_core::log::Notes;
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_runtime::{Engine, EngineOptions, Saver};
use cornjacket_storage::sim::Disk;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::oracle::{assert_same, batch, projected, stored_events, table};
use crate::world::{
    Reading, START, assert_balanced, environment, events, for_seeds, pipeline, projection, reading, readings_catalogue,
};

/// A windowed query as a stream and as a batch query over `events`.
struct Windowed {
    stream: String,
    batch: String,
    keys: Vec<&'static str>,
    width: Micros,
}

const WIDTHS: [(&str, Micros); 4] =
    [("1 second", SECOND), ("7 seconds", 7 * SECOND), ("10 seconds", 10 * SECOND), ("1 minute", 60 * SECOND)];
const KEYS: [&[&str]; 6] =
    [&["aggregate_id"], &["unit"], &["aggregate_id", "unit"], &[], &["upper(unit)"], &["value > 10"]];
const PREDICATES: [&str; 5] =
    ["true", "value > 20", "unit <> 'kelvin'", "aggregate_id <> 'd1' AND value < 100", "value % 2 = 0"];
const AGGREGATES: [&str; 20] = [
    "count(*)",
    "sum(value)",
    "avg(value)",
    "min(value)",
    "max(value)",
    "count(DISTINCT unit)",
    "stddev(value)",
    "median(value)",
    "var_pop(value)",
    "max(unit)",
    "sum(value) FILTER (WHERE unit = 'celsius')",
    "bool_and(value > 0)",
    "sum(DISTINCT value)",
    "array_agg(value ORDER BY value)",
    "string_agg(unit, '+' ORDER BY value, unit)",
    "first_value(value ORDER BY value DESC)",
    "nth_value(value, 2 ORDER BY value)",
    "corr(value, value * value)",
    "approx_distinct(unit)",
    "count(CASE WHEN value > 50 THEN 1 END)",
];

fn windowed(random: &mut ChaCha8Rng) -> Windowed {
    let (interval, width) = WIDTHS[random.random_range(0..WIDTHS.len())];
    let keys = KEYS[random.random_range(0..KEYS.len())];
    let predicate = PREDICATES.choose(random).expect("some");
    let wanted = random.random_range(1..=5);
    let aggregates: Vec<&str> = AGGREGATES.choose_multiple(random, wanted).copied().collect();
    let name = |n: usize| ["k0", "k1"][n];
    let key_columns: String = keys.iter().enumerate().map(|(n, key)| format!("{key} AS {}, ", name(n))).collect();
    let key_names: Vec<&'static str> = (0..keys.len()).map(name).collect();
    let computed: Vec<String> = aggregates.iter().enumerate().map(|(n, a)| format!("{a} AS a{n}")).collect();
    let names: String = (0..aggregates.len()).map(|n| format!(", a{n}")).collect();
    let list: String = key_names.iter().map(|key| format!("{key}, ")).collect();
    let group: String = keys.iter().map(|key| format!(", {key}")).collect();
    let computed = computed.join(", ");
    Windowed {
        stream: format!(
            "SELECT {list}w.start AS window_start{names} FROM (SELECT {key_columns}tumble(interval '{interval}') AS w, \
             {computed} FROM sensor.reading WHERE {predicate} GROUP BY w{group})"
        ),
        batch: format!(
            "SELECT {list}window_start{names} FROM (SELECT {key_columns}date_bin(interval '{interval}', event_time, \
             to_timestamp_micros(0)) AS window_start, {computed} FROM events WHERE {predicate} GROUP BY window_start{group})"
        ),
        keys: key_names,
        width,
    }
}

fn options(random: &mut ChaCha8Rng) -> EngineOptions {
    EngineOptions {
        workers: random.random_range(1..=2),
        max_epoch_rows: *[1, 7, 100, 100_000].choose(random).expect("some"),
        snapshot_every: random.random_range(1..20) * SECOND,
        saver: Saver::Inline,
        ..EngineOptions::default()
    }
}

fn yaml(query: &Windowed, partitions: u32, delay: &str) -> String {
    let mut key = query.keys.clone();
    key.push("window_start");
    format!(
        "{}streams:\n  results: |\n    {}\nsinks:\n  results_table:\n    projection: {{ from: results, key: [{}] }}\n  \
         newest: {{ projection: {{ from: sensor.reading, key: [aggregate_id] }} }}\n",
        readings_catalogue(partitions, delay),
        query.stream,
        key.join(", ")
    )
}

/// Readings in an order of arrival that keeps within `delay`.
fn within_delay(random: &mut ChaCha8Rng, delay: Micros) -> Vec<Reading> {
    let count = random.random_range(1..600);
    let devices = random.random_range(1..20);
    let span = random.random_range(1..300) * SECOND;
    let mut arrivals: Vec<(Micros, Reading)> = (0..count)
        .map(|_| {
            let time = START + random.random_range(0..span);
            (time + random.random_range(0..=delay), reading(random, devices, time))
        })
        .collect();
    arrivals.sort_by_key(|(arrival, _)| *arrival);
    arrivals.into_iter().map(|(_, reading)| reading).collect()
}

#[test]
fn windows_and_newest_rows_equal_batch() {
    for_seeds(120, |seed, random| {
        let query = windowed(random);
        let delay = random.random_range(1..20);
        let partitions = random.random_range(1..=5);
        let pipeline = pipeline(&yaml(&query, partitions, &format!("{delay}s")));
        let (environment, clock) = environment();
        let storage = Disk::new().open_sound(&pipeline.catalogue).expect("opens");
        let options = options(random);
        let mut engine = Engine::open(pipeline.graph.clone(), storage.clone(), environment, options).expect("opens");

        let readings = within_delay(random, delay * SECOND);
        let mut rest = readings.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(random.random_range(1..=rest.len().min(200)));
            storage.log.append(&events(&pipeline, now, START), &Notes::default()).expect("stored");
            rest = later;
            for _ in 0..random.random_range(0..4) {
                engine.step().expect("steps");
            }
            clock.advance(random.random_range(0..SECOND));
        }
        // Silence: time goes on by itself and the last windows close.
        for _ in 0..4 {
            while engine.step().expect("steps").committed {}
            clock.advance(40 * SECOND + query.width);
        }

        let stored = stored_events(&pipeline, &*storage.log, "sensor.reading");
        let spec = projection(&pipeline, "results_table");
        let keys = query.keys.len() + 1;
        let actual = table(&projected(&*storage.store, &spec), keys);
        let expected = table(&batch(&stored, &query.batch), keys);
        assert_same(&actual, &expected, &format!("seed {seed}: {}", query.stream));
        assert_balanced(&pipeline.graph, &storage, &format!("seed {seed}"));
        assert_eq!(storage.store.dead_letters(&LetterFilter::default(), 10).expect("reads"), [], "seed {seed}");
        assert_newest(&pipeline, &storage, &stored);
    });
}

fn assert_newest(
    pipeline: &cornjacket_compiler::Pipeline,
    storage: &cornjacket_core::store::Storage,
    stored: &arrow::array::RecordBatch,
) {
    let newest = "SELECT aggregate_id, value, unit FROM (SELECT *, row_number() OVER (PARTITION BY aggregate_id \
                  ORDER BY event_time DESC, _offset DESC) AS rank FROM events) WHERE rank = 1";
    let spec = projection(pipeline, "newest");
    assert_same(&table(&projected(&*storage.store, &spec), 1), &table(&batch(stored, newest), 1), "newest rows");
}

#[test]
fn rows_beyond_the_delay_are_late_as_the_rule_says() {
    for_seeds(60, |seed, random| {
        let query = Windowed {
            stream: "SELECT k0, w.start AS window_start, n FROM (SELECT aggregate_id AS k0, \
                     tumble(interval '10 seconds') AS w, count(*) AS n FROM sensor.reading GROUP BY w, k0)"
                .into(),
            batch: "SELECT aggregate_id, date_bin(interval '10 seconds', event_time, to_timestamp_micros(0)) AS w, \
                    count(*) FROM events GROUP BY aggregate_id, w"
                .into(),
            keys: vec!["k0"],
            width: 10 * SECOND,
        };
        let pipeline = pipeline(&yaml(&query, 1, "3s"));
        let (environment, clock) = environment();
        let storage = Disk::new().open_sound(&pipeline.catalogue).expect("opens");
        let mut engine =
            Engine::open(pipeline.graph.clone(), storage.clone(), environment, options(random)).expect("opens");

        let mut readings = within_delay(random, 40 * SECOND);
        readings.shuffle(random);
        let (mut kept, mut late, mut clock_now) = (Vec::new(), 0, Micros::MIN);
        for reading in &readings {
            let end = reading.time - reading.time.rem_euclid(query.width) + query.width;
            if end <= clock_now {
                late += 1;
            } else {
                kept.push(reading.clone());
            }
            clock_now = clock_now.max(reading.time - 3 * SECOND);
        }
        for part in readings.chunks(random.random_range(1..=50)) {
            storage.log.append(&events(&pipeline, part, START), &Notes::default()).expect("stored");
            engine.step().expect("steps");
        }
        for _ in 0..4 {
            while engine.step().expect("steps").committed {}
            clock.advance(60 * SECOND);
        }

        let spec = projection(&pipeline, "results_table");
        let actual = table(&projected(&*storage.store, &spec), 2);
        let fits = Disk::new().open_sound(&pipeline.catalogue).expect("opens");
        fits.log.append(&events(&pipeline, &kept, START), &Notes::default()).expect("stored");
        let expected = table(&batch(&stored_events(&pipeline, &*fits.log, "sensor.reading"), &query.batch), 2);
        assert_same(&actual, &expected, &format!("seed {seed}"));
        let letters = storage.store.dead_letters(&LetterFilter::default(), 10_000).expect("reads");
        assert_balanced(&pipeline.graph, &storage, &format!("seed {seed}"));
        assert_eq!(letters.len(), late, "seed {seed}");
        assert!(letters.iter().all(|stored| stored.letter.reason == "late" && stored.letter.event_id.is_some()));
        // Late for their windows, but never for the newest row.
        assert_newest(&pipeline, &storage, &stored_events(&pipeline, &*storage.log, "sensor.reading"));
    });
}
