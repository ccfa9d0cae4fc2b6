//! What retention deletes, and what it must leave, from both backends.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use cornjacket_core::catalogue::{Catalogue, EventType, Field, FieldType, UnknownFields, WatermarkPolicy, stored};
use cornjacket_core::log::{Columns, EventLog, Events, Notes, Positions, TopicPartition};
use cornjacket_core::store::Storage;
use cornjacket_core::time::{Micros, SECOND};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::world::{NOW, Open, Row, events, files, id, simulated};

const TYPES: [(&str, &str); 3] = [("sensor.a", "short"), ("sensor.b", "short"), ("user.c", "long")];

fn catalogue() -> Arc<Catalogue> {
    let types = TYPES.map(|(name, topic)| {
        let fields = vec![Field::new("value", FieldType::Double)];
        EventType::new(name, topic, fields, UnknownFields::Keep, WatermarkPolicy::default())
    });
    Arc::new(Catalogue::new(types, BTreeMap::from([("short".into(), 2), ("long".into(), 2)])))
}

/// Events that were taken in at a time.
fn taken_in(events: Events, at: Micros) -> Events {
    let mut columns = events.rows.columns().to_vec();
    let times = TimestampMicrosecondArray::from(vec![at; events.rows.num_rows()]).with_timezone("UTC");
    columns[stored::INGESTED_AT] = Arc::new(times) as ArrayRef;
    Events { rows: RecordBatch::try_new(events.rows.schema(), columns).expect("fits"), ..events }
}

/// Everything that is there: event type, partition and offset.
fn there(log: &dyn EventLog) -> Vec<(String, u32, i64)> {
    let slice = log.read(&Positions::default(), None, usize::MAX, &Columns::All).expect("reads");
    assert_eq!(slice.end, log.end(), "reading gets to the end also where the beginning is gone");
    let of_chunk = |chunk: &cornjacket_core::log::Chunk| {
        let place = |offset: &i64| (chunk.event_type.name.clone(), chunk.partition, *offset);
        chunk.offsets.values().iter().map(place).collect::<Vec<_>>()
    };
    slice.chunks.iter().flat_map(of_chunk).collect()
}

fn forget_all(log: &dyn EventLog, before: &BTreeMap<String, Micros>, floor: &Positions) -> u64 {
    let mut forgotten = 0;
    loop {
        match log.forget(before, floor).expect("written") {
            0 => return forgotten,
            some => forgotten += some,
        }
    }
}

fn on_both(test: impl Fn(&Open)) {
    let folder = tempfile::tempdir().expect("a folder");
    test(&files(folder.path()));
    test(&simulated());
}

/// Commits of random rows, one a second, with the numbers from `first` on.
fn fill(storage: &Storage, random: &mut ChaCha8Rng, catalogue: &Catalogue, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let at = NOW + i64::from(number) * SECOND;
        let commit: Vec<Events> = TYPES
            .iter()
            .zip(0..)
            .filter(|_| random.random_bool(0.7))
            .map(|((name, _), place)| {
                let row = |part: u32| -> Row {
                    (number * 10 + place * 3 + part, format!("d{}", random_device(number, part)), part == 0)
                };
                let rows: Vec<Row> = (0..3).map(row).collect();
                taken_in(events(catalogue, name, &rows, i64::from(place) * 3), at)
            })
            .collect();
        if !commit.is_empty() {
            storage.log.append(&commit, &Notes::default()).expect("stored");
        }
    }
}

fn random_device(number: u32, part: u32) -> u32 {
    number.wrapping_mul(7).wrapping_add(part) % 11
}

#[test]
fn the_oldest_events_go_up_to_time_and_floor_and_everything_else_stays() {
    on_both(|open| {
        for seed in 0..20 {
            let (mut random, catalogue) = (ChaCha8Rng::seed_from_u64(seed), catalogue());
            let first = u32::try_from(seed).expect("small") * 1_000;
            let mut storage = open(&catalogue).expect("opens");
            fill(&storage, &mut random, &catalogue, first..first + 60);
            let (all, end) = (there(&*storage.log), storage.log.end());
            let mut floor = end.clone();
            if random.random_bool(0.5) {
                for offset in floor.0.values_mut() {
                    *offset = random.random_range(0..=*offset);
                }
            }
            let second = first + random.random_range(0..70);
            let before = BTreeMap::from([("short".to_string(), NOW + i64::from(second) * SECOND)]);
            let forgotten = forget_all(&*storage.log, &before, &floor);
            for _ in 0..2 {
                let left = there(&*storage.log);
                assert_eq!(all.len() - left.len(), usize::try_from(forgotten).expect("few"), "seed {seed}");
                assert!(left.iter().all(|place| all.contains(place)), "seed {seed}");
                let gone: Vec<_> = all.iter().filter(|place| !left.contains(place)).collect();
                for (name, partition, offset) in &gone {
                    assert_ne!(name, "user.c", "seed {seed}: of another topic");
                    let at = TopicPartition { topic: "short".into(), partition: *partition };
                    assert!(*offset < floor.get(&at), "seed {seed}: beyond the floor");
                    let gap = left
                        .iter()
                        .any(|(other, of, earlier)| other != "user.c" && of == partition && earlier < offset);
                    assert!(!gap, "seed {seed}: a gap");
                }
                assert_eq!(storage.log.end(), end, "seed {seed}");
                let counts = storage.log.counts(&end).expect("reads");
                for (name, count) in &counts {
                    let present = left.iter().filter(|place| place.0 == *name).count() as u64;
                    assert_eq!((count.present, count.reached), (present, present), "seed {seed}: {name}");
                    assert_eq!(count.accepted, count.present + count.forgotten, "seed {seed}: {name}");
                }
                // The same from what is stored.
                drop(storage);
                storage = open(&catalogue).expect("opens again");
            }
            // What is forgotten is taken for a repeat all the same, and offsets go on.
            fill(&storage, &mut ChaCha8Rng::seed_from_u64(seed), &catalogue, first..first + 1);
            fill(&storage, &mut random, &catalogue, first + 500..first + 505);
            let places = there(&*storage.log);
            let unique: std::collections::BTreeSet<_> =
                places.iter().map(|(name, partition, offset)| (name == "user.c", partition, offset)).collect();
            assert_eq!(unique.len(), places.len(), "seed {seed}: an offset twice");
        }
    });
}

#[test]
fn what_is_forgotten_is_not_found() {
    on_both(|open| {
        let catalogue = catalogue();
        let storage = open(&catalogue).expect("opens");
        let rows: Vec<Row> = vec![(1, "d".into(), true), (2, "d".into(), false)];
        let commit = taken_in(events(&catalogue, "sensor.a", &rows, 0), NOW);
        storage.log.append(&[commit], &Notes::default()).expect("stored");
        assert!(storage.log.find(id(1)).expect("reads").is_some() && storage.log.find(id(2)).expect("reads").is_some());
        let before = BTreeMap::from([("short".to_string(), NOW + 1)]);
        assert_eq!(forget_all(&*storage.log, &before, &Positions::default()), 0, "no snapshot, nothing goes");
        assert_eq!(forget_all(&*storage.log, &before, &storage.log.end()), 2);
        assert_eq!((storage.log.find(id(1)).expect("reads"), storage.log.find(id(2)).expect("reads")), (None, None));
    });
}
