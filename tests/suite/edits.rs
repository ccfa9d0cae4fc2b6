//! An edited pipeline: what is new or changed is rebuilt from the log, what is not stays as it is, also over crashes; and
//! windows with allowed lateness, whose rows change after they went out.

use cornjacket_compiler::Pipeline;
use cornjacket_core::dead_letter::LetterFilter;
use cornjacket_core::environment::Environment;
use cornjacket_core::log::Notes;
use cornjacket_core::store::Storage;
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_core::{Error, Result};
use cornjacket_runtime::{Engine, EngineOptions, Saver};
use cornjacket_storage::sim::{Disk, Fault};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::oracle::{assert_same, batch, projected, stored_events, table};
use crate::world::{
    Reading, START, TestClock, assert_balanced, environment, events, for_seeds, pipeline, projection, reading,
    readings_catalogue,
};

fn yaml(width: u32, extra: &str) -> String {
    format!(
        "{}streams:\n  \
           windows: |\n    SELECT k, w.start AS window_start, n FROM (SELECT unit AS k, \
             tumble(interval '{width} seconds') AS w, count(*) AS n FROM sensor.reading GROUP BY w, k)\n\
         sinks:\n  \
           windows_table: {{ projection: {{ from: windows, key: [k, window_start] }} }}\n  \
           newest: {{ projection: {{ from: sensor.reading, key: [aggregate_id] }} }}\n{extra}",
        readings_catalogue(3, "5s")
    )
}

fn options(random: &mut ChaCha8Rng) -> EngineOptions {
    EngineOptions {
        workers: 1,
        max_epoch_rows: 1 << random.random_range(0..8),
        snapshot_every: random.random_range(0..8) * SECOND,
        saver: Saver::Inline,
        ..EngineOptions::default()
    }
}

fn feed(pipeline: &Pipeline, storage: &Storage, engine: &mut Engine, clock: &TestClock, random: &mut ChaCha8Rng) {
    use cornjacket_core::environment::Clock;
    for _ in 0..random.random_range(2..12) {
        let now = clock.now();
        let count = random.random_range(1..20);
        let readings: Vec<Reading> = (0..count)
            .map(|_| {
                let time = now - random.random_range(0..=5 * SECOND);
                reading(random, 6, time)
            })
            .collect();
        storage.log.append(&events(pipeline, &readings, now), &Notes::default()).expect("stored");
        for _ in 0..random.random_range(0..3) {
            engine.step().expect("steps");
        }
        let by = if random.random_bool(0.2) { 50 * SECOND } else { 3 * SECOND };
        clock.advance(random.random_range(0..by));
    }
}

fn settle(engine: &mut Engine, clock: &TestClock) -> Result<()> {
    for _ in 0..5 {
        while engine.step()?.committed {}
        clock.advance(60 * SECOND);
    }
    Ok(())
}

/// Runs the pipeline on the disk to the end, through as many crashes as the dice want.
fn run_through_crashes(
    pipeline: &Pipeline,
    disk: &Disk,
    (environment, clock): (&Environment, &TestClock),
    random: &mut ChaCha8Rng,
) -> Storage {
    let mut chance = 60;
    loop {
        let mut dice = ChaCha8Rng::seed_from_u64(random.random());
        // Fewer and fewer, so that it ends.
        chance *= 2;
        let strike = move |_: &'static str| match dice.random_range(0..chance) {
            0 => Fault::CrashBefore,
            1 => Fault::CrashAfter,
            _ => Fault::None,
        };
        let storage = disk.open(&pipeline.catalogue, Box::new(strike)).expect("opens");
        let opened = Engine::open(pipeline.graph.clone(), storage, environment.clone(), options(random));
        match opened.and_then(|mut engine| settle(&mut engine, clock)) {
            Ok(()) => return disk.open_sound(&pipeline.catalogue).expect("opens"),
            Err(Error::Closed) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn assert_windows(pipeline: &Pipeline, storage: &Storage, name: &str, width: u32) {
    let stored = stored_events(pipeline, &*storage.log, "sensor.reading");
    let sql = format!(
        "SELECT unit, date_bin(interval '{width} seconds', event_time, to_timestamp_micros(0)) AS w, count(*) \
         FROM events GROUP BY unit, w"
    );
    let actual = table(&projected(&*storage.store, &projection(pipeline, name)), 2);
    assert_same(&actual, &table(&batch(&stored, &sql), 2), name);
}

#[test]
fn an_edit_rebuilds_what_changed_and_keeps_the_rest_over_crashes() {
    let more = "  again: { projection: { from: windows, key: [window_start, k] } }\n";
    let pipelines =
        [pipeline(&yaml(10, "")), pipeline(&yaml(10, more)), pipeline(&yaml(15, more)), pipeline(&yaml(10, ""))];
    for_seeds(40, |_, random| {
        let (environment, clock) = environment();
        let disk = Disk::new();
        for (number, pipeline) in pipelines.iter().enumerate() {
            let width = if number == 2 { 15 } else { 10 };
            let storage = run_through_crashes(pipeline, &disk, (&environment, &clock), random);
            let mut engine =
                Engine::open(pipeline.graph.clone(), storage.clone(), environment.clone(), options(random))
                    .expect("opens");
            feed(pipeline, &storage, &mut engine, &clock, random);
            settle(&mut engine, &clock).expect("settles");
            assert_windows(pipeline, &storage, "windows_table", width);
            if number == 1 || number == 2 {
                let again = table(&projected(&*storage.store, &projection(pipeline, "again")), 2);
                let first = table(&projected(&*storage.store, &projection(pipeline, "windows_table")), 2);
                assert_eq!(again, first);
            }
            assert_balanced(&pipeline.graph, &storage, &format!("version {number}"));
            assert_eq!(storage.store.dead_letters(&LetterFilter::default(), 1).expect("reads"), []);
        }
    });
}

#[test]
fn late_rows_within_the_allowed_lateness_change_the_row_that_went_out() {
    let text = format!(
        "{}streams:\n  windows:\n    lateness: 10m\n    sql: |\n      SELECT k, w.start AS window_start, n FROM (SELECT \
         unit AS k, tumble(interval '10 seconds') AS w, count(*) AS n FROM sensor.reading GROUP BY w, k)\n\
         sinks:\n  windows_table: {{ projection: {{ from: windows, key: [k, window_start] }} }}\n",
        readings_catalogue(2, "1s")
    );
    let pipeline = pipeline(&text);
    for_seeds(40, |_, random| {
        let (environment, clock) = environment();
        let disk = Disk::new();
        let storage = disk.open_sound(&pipeline.catalogue).expect("opens");
        let open = |random: &mut ChaCha8Rng| {
            Engine::open(pipeline.graph.clone(), storage.clone(), environment.clone(), options(random)).expect("opens")
        };
        let mut engine = open(random);
        for _ in 0..random.random_range(2..20) {
            let count = random.random_range(1..20);
            let readings: Vec<Reading> = (0..count)
                .map(|_| {
                    let time: Micros = START + random.random_range(0..120 * SECOND);
                    reading(random, 5, time)
                })
                .collect();
            storage.log.append(&events(&pipeline, &readings, START), &Notes::default()).expect("stored");
            while engine.step().expect("steps").committed {}
            clock.advance(random.random_range(0..3 * SECOND));
            if random.random_bool(0.3) {
                engine = open(random);
            }
        }
        settle(&mut engine, &clock).expect("settles");
        assert_windows(&pipeline, &storage, "windows_table", 10);
        assert_balanced(&pipeline.graph, &storage, "with lateness");
        assert_eq!(storage.store.dead_letters(&LetterFilter::default(), 1).expect("reads"), []);
    });
}
