//! Crashes by the thousand: the engine on a disk that keeps only what was made durable, killed at storage calls that a
//! seed chooses, and started again. Every stored event counts once; the results equal batch over what is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use cornjacket_compiler::Pipeline;
use cornjacket_core::Error;
use cornjacket_core::dead_letter::LetterFilter;
use cornjacket_core::environment::{Clock, Environment};
use cornjacket_core::id::EventId;
use cornjacket_core::log::Notes;
use cornjacket_core::store::{RowFilter, Storage};
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_runtime::{Engine, EngineOptions, Saver};
use cornjacket_storage::sim::{Disk, Fault};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::oracle::{Cell, Table, assert_same, batch, projected, stored_events, table};
use crate::world::{
    Reading, TestClock, assert_balanced, environment, events, for_seeds, pipeline, projection, reading,
    readings_catalogue,
};

const DELAY: Micros = 5 * SECOND;

pub fn yaml(partitions: u32) -> String {
    format!(
        "{}streams:\n  \
           by_device: |\n    SELECT k, w.start AS window_start, n, total FROM (SELECT aggregate_id AS k, \
             tumble(interval '10 seconds') AS w, count(*) AS n, sum(value) AS total FROM sensor.reading GROUP BY w, k)\n  \
           by_unit: |\n    SELECT k, w.start AS window_start, n, total FROM (SELECT unit AS k, \
             tumble(interval '15 seconds') AS w, count(*) AS n, sum(value) AS total FROM sensor.reading GROUP BY w, k)\n\
         sinks:\n  \
           devices: {{ projection: {{ from: by_device, key: [k, window_start] }} }}\n  \
           units: {{ projection: {{ from: by_unit, key: [k, window_start] }} }}\n  \
           newest: {{ projection: {{ from: sensor.reading, key: [aggregate_id] }} }}\n",
        readings_catalogue(partitions, "5s")
    )
}

/// One simulated system: a disk that lasts and processes that do not.
pub struct World<'a> {
    pub pipeline: &'a Pipeline,
    pub disk: Disk,
    environment: Environment,
    clock: Arc<TestClock>,
    faulty: Arc<AtomicBool>,
    random: ChaCha8Rng,
    running: Option<(Engine, Storage)>,
    acknowledged: BTreeSet<EventId>,
    offered: BTreeMap<EventId, Reading>,
    seen: BTreeMap<&'static str, Table>,
    crashes: u32,
    /// How many faults the disk had of each kind: a crash before a call, one after it, and a call that fails.
    struck: Arc<[AtomicU32; 3]>,
    /// What retention has deleted of the log.
    archive: Vec<RecordBatch>,
    /// Values that some of the readings have.
    odd_values: &'static [f64],
}

impl<'a> World<'a> {
    /// A system that takes events in, computes, crashes and is looked at in an order that chance chooses, and then comes
    /// to rest.
    pub fn live(pipeline: &'a Pipeline, random: &ChaCha8Rng, odd_values: &'static [f64]) -> Self {
        let (environment, clock) = environment();
        let mut world = World {
            pipeline,
            disk: Disk::new(),
            environment,
            clock,
            faulty: Arc::new(AtomicBool::new(true)),
            random: random.clone(),
            running: None,
            acknowledged: BTreeSet::new(),
            offered: BTreeMap::new(),
            seen: BTreeMap::new(),
            crashes: 0,
            struck: Arc::default(),
            archive: Vec::new(),
            odd_values,
        };
        for _ in 0..world.random.random_range(5..60) {
            match world.random.random_range(0..10) {
                0..=3 => world.append(),
                4..=7 => {
                    world.step();
                }
                8 if world.random.random_bool(0.5) => world.forget(),
                8 => world.look(),
                _ => {
                    let by = if world.random.random_bool(0.1) { 45 * SECOND } else { 2 * SECOND };
                    let by = world.random.random_range(0..by);
                    world.clock.advance(by);
                }
            }
        }
        world.settle();
        world.look();
        world
    }

    /// Every event that was ever stored, also what retention has deleted since.
    pub fn stored(&self) -> RecordBatch {
        let reader = self.disk.open_sound(&self.pipeline.catalogue).expect("opens");
        let left = stored_events(self.pipeline, &*reader.log, "sensor.reading");
        concat_batches(&left.schema(), self.archive.iter().chain([&left])).expect("of one schema")
    }

    /// The process, started if there is none. A start may crash too.
    fn process(&mut self) -> Option<&mut (Engine, Storage)> {
        if self.running.is_none() {
            let mut dice = ChaCha8Rng::seed_from_u64(self.random.random());
            let (faulty, struck) = (Arc::clone(&self.faulty), Arc::clone(&self.struck));
            let strike = move |_: &'static str| {
                let kind = dice.random_range(0..1_000) / 8;
                if !faulty.load(Ordering::SeqCst) || kind > 2 {
                    return Fault::None;
                }
                struck[kind].fetch_add(1, Ordering::SeqCst);
                [Fault::CrashBefore, Fault::CrashAfter, Fault::Unavailable][kind]
            };
            let storage = self.disk.open(&self.pipeline.catalogue, Box::new(strike)).expect("opens");
            let options = EngineOptions {
                workers: 1,
                max_epoch_rows: 1 << self.random.random_range(0..10),
                snapshot_every: self.random.random_range(0..12) * SECOND,
                saver: Saver::Inline,
                ..EngineOptions::default()
            };
            match Engine::open(self.pipeline.graph.clone(), storage.clone(), self.environment.clone(), options) {
                Ok(engine) => self.running = Some((engine, storage)),
                Err(error) => self.survive(&error),
            }
        }
        self.running.as_mut()
    }

    fn survive(&mut self, error: &Error) {
        match error {
            Error::Closed => {
                self.crashes += 1;
                self.running = None;
            }
            error if error.is_transient() => {}
            error => panic!("not survivable: {error} {error:?}"),
        }
    }

    fn append(&mut self) {
        let now = self.clock.now();
        let count = self.random.random_range(1..30);
        let readings: Vec<Reading> = (0..count)
            .map(|_| {
                let time = now - self.random.random_range(0..=DELAY);
                let mut reading = reading(&mut self.random, 8, time);
                if !self.odd_values.is_empty() && self.random.random_bool(0.04) {
                    reading.value = self.odd_values[self.random.random_range(0..self.odd_values.len())];
                }
                Reading { client_id: self.random.random_bool(0.2), ..reading }
            })
            .collect();
        self.offer(&readings);
        // Who got no answer asks again with the same ids; only client-given ids may be sent twice.
        if self.random.random_bool(0.3) {
            let again: Vec<Reading> = readings.into_iter().filter(|reading| reading.client_id).collect();
            self.offer(&again);
        }
    }

    fn offer(&mut self, readings: &[Reading]) {
        if readings.is_empty() {
            return;
        }
        let commit = events(self.pipeline, readings, self.clock.now());
        self.offered.extend(readings.iter().map(|reading| (reading.id, reading.clone())));
        let Some((_, storage)) = self.process() else { return };
        match storage.log.append(&commit, &Notes::default()) {
            Ok(_) => self.acknowledged.extend(readings.iter().map(|reading| reading.id)),
            Err(error) => self.survive(&error),
        }
    }

    /// Deletes what no recovery needs, as retention does.
    fn forget(&mut self) {
        let stored = |world: &Self| {
            let reader = world.disk.open_sound(&world.pipeline.catalogue).expect("opens");
            stored_events(world.pipeline, &*reader.log, "sensor.reading")
        };
        let there = stored(self);
        let before = self.clock.now() - self.random.random_range(0..20) * SECOND;
        let Some((_, storage)) = self.process() else { return };
        let deleted = storage.store.latest_snapshot().and_then(|snapshot| {
            let Some(snapshot) = snapshot else { return Ok(0) };
            storage.log.forget(&BTreeMap::from([("sensor-events".to_string(), before)]), &snapshot.positions)
        });
        if let Err(error) = deleted {
            self.survive(&error);
        }
        let left = stored(self);
        let left = ids_of(&left);
        let ids = there.column(0).as_string::<i32>().iter().flatten();
        let gone: BooleanArray = ids.map(|id| Some(!left.contains(id))).collect();
        self.archive.push(filter_record_batch(&there, &gone).expect("filters"));
    }

    fn step(&mut self) -> bool {
        let Some((engine, _)) = self.process() else { return true };
        match engine.step() {
            Ok(step) => step.committed,
            Err(error) => {
                self.survive(&error);
                true
            }
        }
    }

    /// What a reader sees only ever goes forward: a closed window's row stays as it is, a newest row only gets newer.
    fn look(&mut self) {
        let reader = self.disk.open_sound(&self.pipeline.catalogue).expect("opens");
        for name in ["devices", "units"] {
            let spec = projection(self.pipeline, name);
            let Ok(rows) = reader.store.rows(&spec, &RowFilter::default(), None, 0) else { continue };
            let columns: Vec<usize> = (0..spec.schema.fields().len()).collect();
            let now = table(&rows.rows.project(&columns).expect("its columns"), 2);
            let before = self.seen.insert(name, now.clone()).unwrap_or_default();
            assert!(before.iter().all(|row| now.contains(row)), "a row of {name} changed or vanished");
        }
        let spec = projection(self.pipeline, "newest");
        let Ok(rows) = reader.store.rows(&spec, &RowFilter::default(), None, 0) else { return };
        let at = spec.schema.fields().len() + 1;
        let now = table(&rows.rows.project(&[0, at]).expect("key and time"), 1);
        let before = self.seen.insert("newest", now.clone()).unwrap_or_default();
        let newer = |row: &Vec<Cell>| now.iter().any(|new| new[0] == row[0] && text(&new[1]) >= text(&row[1]));
        assert!(before.iter().all(newer), "a newest row went back");
    }

    fn settle(&mut self) {
        self.faulty.store(false, Ordering::SeqCst);
        for _ in 0..5 {
            while self.step() {}
            self.clock.advance(60 * SECOND);
        }
    }
}

fn ids_of(rows: &RecordBatch) -> BTreeSet<&str> {
    rows.column(0).as_string::<i32>().iter().flatten().collect()
}

fn text(cell: &Cell) -> String {
    format!("{cell:?}")
}

fn check(world: &World<'_>, seed: u64) {
    let reader = world.disk.open_sound(&world.pipeline.catalogue).expect("opens");
    let stored = world.stored();
    let ids = table(&stored.project(&[0]).expect("ids"), 1);
    let unique: BTreeSet<String> = ids.iter().map(|row| text(&row[0])).collect();
    assert_eq!(unique.len(), ids.len(), "seed {seed}: an event is stored twice");
    let missing = world.acknowledged.iter().find(|id| !unique.contains(&id.to_string()));
    assert_eq!(missing, None, "seed {seed}: an acknowledged event is not stored");

    for (name, key, width) in [("devices", "aggregate_id", 10), ("units", "unit", 15)] {
        let sql = format!(
            "SELECT {key}, date_bin(interval '{width} seconds', event_time, to_timestamp_micros(0)) AS w, count(*), \
             sum(value) FROM events GROUP BY {key}, w"
        );
        let actual = table(&projected(&*reader.store, &projection(world.pipeline, name)), 2);
        assert_same(&actual, &table(&batch(&stored, &sql), 2), &format!("seed {seed}: {name}"));
    }
    let newest = "SELECT aggregate_id, value, unit FROM (SELECT *, row_number() OVER (PARTITION BY aggregate_id \
                  ORDER BY event_time DESC, _offset DESC) AS rank FROM events) WHERE rank = 1";
    let actual = table(&projected(&*reader.store, &projection(world.pipeline, "newest")), 1);
    assert_same(&actual, &table(&batch(&stored, newest), 1), &format!("seed {seed}: newest"));
    assert_eq!(reader.store.dead_letters(&LetterFilter::default(), 1).expect("reads"), [], "seed {seed}");
    assert_balanced(&world.pipeline.graph, &reader, &format!("seed {seed}"));
}

#[test]
fn crashes_change_nothing() {
    let pipelines: Vec<Pipeline> = [1, 3, 4].iter().map(|partitions| pipeline(&yaml(*partitions))).collect();
    let (crashes, deleted) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let (struck, runs) = ([const { AtomicU32::new(0) }; 3], std::cell::Cell::new(0_u32));
    for_seeds(300, |seed, random| {
        let at = random.random_range(0..pipelines.len());
        let world = World::live(&pipelines[at], random, &[]);
        check(&world, seed);
        crashes.set(crashes.get() + world.crashes);
        for (all, here) in struck.iter().zip(&*world.struck) {
            all.fetch_add(here.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        runs.set(runs.get() + 1);
        deleted.set(deleted.get() + world.archive.iter().map(RecordBatch::num_rows).sum::<usize>());
    });
    let struck = struck.map(AtomicU32::into_inner);
    eprintln!("{struck:?} faults, {} crashes, {} events deleted by retention", crashes.get(), deleted.get());
    // One seed may have none of a kind; of dozens each has to, or nothing was tried.
    if runs.get() >= 50 {
        assert!(struck.iter().all(|faults| *faults >= runs.get() / 10), "{struck:?} faults in {} runs", runs.get());
        assert!(crashes.get() >= runs.get() / 5 && deleted.get() > 0, "the faults do nothing");
    }
}
