//! What both backends do alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float64Array, Int8Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use cornjacket_core::Error;
use cornjacket_core::catalogue::stored;
use cornjacket_core::dead_letter::{DeadLetter, LetterFilter};
use cornjacket_core::log::{Columns, Notes, Positions};
use cornjacket_core::projection::{ProjectionSpec, ProjectionWrite, WriteMode};
use cornjacket_core::store::{EpochCommit, EpochRecord, PipelineState, Raise, RowFilter, Snapshot, Storage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::world::{NOW, Open, Row, catalogue, events, files, id, simulated};

fn on_both(test: impl Fn(&Open)) {
    test(&simulated());
    let folder = tempfile::tempdir().expect("a folder");
    test(&files(folder.path()));
}

fn row(number: u32, aggregate: &str) -> Row {
    (number, aggregate.into(), false)
}

/// Every stored value by partition, in the order of offsets, with the offset.
fn contents(
    storage: &Storage,
    from: &Positions,
    until: Option<&Positions>,
    most: usize,
) -> BTreeMap<u32, Vec<(i64, f64)>> {
    let mut rows: BTreeMap<u32, Vec<(i64, f64)>> = BTreeMap::new();
    let mut at = from.clone();
    loop {
        let slice = storage.log.read(&at, until, most, &Columns::All).expect("reads");
        if slice.end == at {
            break;
        }
        at = slice.end;
        for chunk in slice.chunks {
            let values = chunk.rows.column(stored::FIELDS).as_primitive::<Float64Type>();
            let pairs = chunk.offsets.values().iter().copied().zip(values.values().iter().copied());
            rows.entry(chunk.partition).or_default().extend(pairs);
        }
    }
    for rows in rows.values_mut() {
        rows.sort_by_key(|(offset, _)| *offset);
    }
    rows
}

#[test]
fn offsets_are_dense_and_follow_the_order_of_the_commit_over_all_types() {
    on_both(|open| {
        let catalogue = catalogue(1);
        let storage = open(&catalogue).expect("opens");
        let a = events(&catalogue, "sensor.a", &[row(1, "x"), row(2, "x")], 0);
        let mut b = events(&catalogue, "sensor.b", &[row(3, "x"), row(4, "x")], 0);
        b.sequence = Int64Array::from(vec![1, 5]);
        let mut a2 = a.clone();
        a2.sequence = Int64Array::from(vec![0, 3]);
        storage.log.append(&[a2, b], &Notes::default()).expect("stored");
        let rows = contents(&storage, &Positions::default(), None, 1);
        assert_eq!(rows[&0], [(0, 1.0), (1, 3.0), (2, 2.0), (3, 4.0)]);
    });
}

#[test]
fn random_reads_give_exactly_what_lies_between_two_positions() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    eprintln!("SEED={seed}");
    on_both(|open| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let catalogue = catalogue(3);
        let storage = open(&catalogue).expect("opens");
        let (mut ends, mut number) = (vec![Positions::default()], 0);
        for _ in 0..60 {
            let count = random.random_range(1..40);
            let rows: Vec<Row> =
                (0..count).map(|n| row(number + n, &format!("d{}", random.random_range(0..9)))).collect();
            number += count;
            let (a, b) = rows.split_at(random.random_range(0..rows.len()));
            let part = |name, rows: &[Row], first| (!rows.is_empty()).then(|| events(&catalogue, name, rows, first));
            let commit: Vec<_> = [part("sensor.a", a, 0), part("sensor.b", b, 1_000)].into_iter().flatten().collect();
            storage.log.append(&commit, &Notes::default()).expect("stored");
            ends.push(storage.log.end());
        }
        let all = contents(&storage, &Positions::default(), None, usize::MAX);
        assert_eq!(all.values().map(Vec::len).sum::<usize>(), number as usize);
        for _ in 0..40 {
            let (from, until) = (random.random_range(0..ends.len()), random.random_range(0..ends.len()));
            let (from, until) = (&ends[from.min(until)], &ends[from.max(until)]);
            let part = contents(&storage, from, Some(until), random.random_range(1..200));
            for (partition, rows) in &all {
                let at = until.0.keys().find(|at| at.partition == *partition);
                let (low, high) = at.map_or((0, 0), |at| (from.get(at), until.get(at)));
                let expected: Vec<_> = rows.iter().copied().filter(|(o, _)| (low..high).contains(o)).collect();
                assert_eq!(part.get(partition).cloned().unwrap_or_default(), expected);
            }
        }
        let again = open(&catalogue).expect("opens again");
        assert_eq!(contents(&again, &Positions::default(), None, 100), all);
    });
}

#[test]
fn a_client_given_id_counts_once() {
    on_both(|open| {
        let catalogue = catalogue(2);
        let storage = open(&catalogue).expect("opens");
        let given = |number| (number, "d".to_string(), true);
        let twice = events(&catalogue, "sensor.a", &[given(1), row(2, "d"), given(1)], 0);
        let first = storage.log.append(&[twice], &Notes::default()).expect("stored");
        assert_eq!((first.stored, first.repeated), (2, vec![id(1)]));
        let again = events(&catalogue, "sensor.b", &[given(1)], 0);
        let again = open(&catalogue).expect("opens again").log.append(&[again], &Notes::default()).expect("answered");
        assert_eq!((again.stored, again.repeated), (0, vec![id(1)]));
        for number in [1, 2] {
            assert!(storage.log.find(id(number)).expect("reads").is_some(), "{number}");
        }
        assert_eq!(storage.log.find(id(9)).expect("reads"), None);
    });
}

#[test]
fn the_number_of_partitions_is_fixed() {
    on_both(|open| {
        drop(open(&catalogue(2)).expect("opens"));
        let Err(Error::Conflict(text)) = open(&catalogue(3)) else { panic!("not refused") };
        assert!(text.contains("2 partitions") && text.contains("sensor-events"), "{text}");
    });
}

/// A column of every kind, with nulls and what is easily lost.
fn odd_columns() -> Vec<(&'static str, ArrayRef)> {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let time = TimestampMicrosecondArray::from(vec![Some(NOW), None, Some(-1)]).with_timezone("UTC");
    vec![
        ("key", Arc::new(StringArray::from(vec![Some("a/b"), None, Some("~")])) as ArrayRef),
        ("double", Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(f64::NEG_INFINITY), Some(-0.0)]))),
        ("whole", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]))),
        ("unsigned", Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(0), None]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None, Some(b"")]))),
        ("time", Arc::new(time)),
        ("date", Arc::new(Date32Array::from(vec![Some(-1), None, Some(20_000)]))),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from(vec![Some(1), None, Some(-5)]).with_precision_and_scale(10, 2).expect("fits"),
            ),
        ),
        ("list", Arc::new(list)),
    ]
}

fn spec(columns: &[(&str, ArrayRef)]) -> Arc<ProjectionSpec> {
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    Arc::new(ProjectionSpec { name: "odd".into(), schema, key: vec![0], time: None })
}

fn write(spec: &Arc<ProjectionSpec>, columns: Vec<ArrayRef>, times: Vec<i64>, orders: Vec<i64>) -> ProjectionWrite {
    ProjectionWrite {
        projection: Arc::clone(spec),
        mode: WriteMode::Newest,
        rows: RecordBatch::try_new(Arc::clone(&spec.schema), columns).expect("fits"),
        time: TimestampMicrosecondArray::from(times).with_timezone("UTC"),
        order: orders.into(),
        event_id: None,
        weight: None,
    }
}

fn epoch(number: u64, writes: Vec<ProjectionWrite>) -> EpochCommit {
    let record = EpochRecord { epoch: number, ..EpochRecord::default() };
    EpochCommit {
        record,
        now: NOW,
        writes,
        dead_letters: Vec::new(),
        deliveries: Vec::new(),
        counters: BTreeMap::new(),
        lengths: BTreeMap::new(),
    }
}

#[test]
fn every_type_of_value_comes_back_as_it_was() {
    on_both(|open| {
        let storage = open(&catalogue(1)).expect("opens");
        let columns = odd_columns();
        let spec = spec(&columns);
        storage.store.prepare(&spec, false).expect("prepared");
        let columns: Vec<ArrayRef> = columns.into_iter().map(|(_, column)| column).collect();
        let write = write(&spec, columns.clone(), vec![1; 3], vec![1; 3]);
        storage.store.commit_epoch(&epoch(1, vec![write])).expect("committed");
        let keys = [Some("a/b".to_string()), None, Some("~".to_string())];
        for (row, key) in keys.into_iter().enumerate() {
            let found = storage.store.row(&spec, &[key]).expect("reads").expect("there");
            for (expected, actual) in columns.iter().zip(found.columns()) {
                assert_eq!(&expected.slice(row, 1), actual, "row {row}");
            }
            assert!(found.column(columns.len()).is_null(0) && found.column(columns.len() + 1).is_null(0));
        }
        let filter = RowFilter { equal: vec![(2, i64::MAX.to_string())] };
        assert_eq!(storage.store.rows(&spec, &filter, None, 0).expect("reads").total, 1);
        let mut scanned = 0;
        storage
            .store
            .scan(&spec, &mut |rows| {
                scanned += rows.num_rows();
                true
            })
            .expect("scans");
        assert_eq!(scanned, 3);
    });
}

fn pair(key: &str, value: i64) -> Vec<ArrayRef> {
    vec![Arc::new(StringArray::from(vec![key])), Arc::new(Int64Array::from(vec![value]))]
}

#[test]
fn the_newest_row_stays_and_changelogs_are_applied_in_order() {
    on_both(|open| {
        let storage = open(&catalogue(1)).expect("opens");
        let spec = spec(&[("key", pair("k", 0)[0].clone()), ("value", pair("k", 0)[1].clone())]);
        storage.store.prepare(&spec, false).expect("prepared");
        let value = || {
            let found = storage.store.row(&spec, &[Some("k".into())]).expect("reads");
            found.map(|rows| rows.column(1).as_primitive::<Int64Type>().value(0))
        };
        // (value, time, order) and what is there afterwards.
        let steps = [(1, 10, 5, 1), (2, 9, 9, 1), (3, 10, 4, 1), (4, 10, 5, 4), (5, 10, 6, 5), (6, 11, 0, 6)];
        for (number, (put, time, order, there)) in (1..).zip(steps) {
            let mut write = write(&spec, pair("k", put), vec![time], vec![order]);
            write.event_id = Some(FixedSizeBinaryArray::try_from_iter([id(1).0].into_iter()).expect("one"));
            storage.store.commit_epoch(&epoch(number, vec![write])).expect("committed");
            assert_eq!(value(), Some(there), "after {put}");
        }
        let mut change = write(&spec, pair("k", 7), vec![0], vec![0]);
        change.mode = WriteMode::Changelog;
        storage.store.commit_epoch(&epoch(7, vec![change.clone()])).expect("committed");
        assert_eq!(value(), Some(7));
        change.weight = Some(Int8Array::from(vec![-1]));
        storage.store.commit_epoch(&epoch(8, vec![change])).expect("committed");
        assert_eq!(value(), None);
        let Err(Error::Conflict(_)) = storage.store.commit_epoch(&epoch(8, vec![])) else { panic!("not refused") };
    });
}

#[test]
fn snapshots_replace_each_other_and_raises_outlive_them() {
    on_both(|open| {
        let storage = open(&catalogue(1)).expect("opens");
        let raise = Raise { event_type: "sensor.a".into(), partition: 0, clock: 5 };
        for number in 1..=4 {
            let mut commit = epoch(number, Vec::new());
            commit.record.raises = if number == 2 { vec![raise.clone()] } else { Vec::new() };
            commit.counters.insert(("node".into(), "rows_in".into()), 3);
            commit.dead_letters.push(DeadLetter {
                reason: "late".into(),
                source: "minutes".into(),
                message: "too late".into(),
                event_id: None,
                event_time: Some(1),
                body: vec![0xff],
                ..DeadLetter::default()
            });
            storage.store.commit_epoch(&commit).expect("committed");
        }
        let part = RecordBatch::try_new(
            Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])),
            vec![Arc::new(Int64Array::from(vec![1, 2]))],
        )
        .expect("fits");
        let snapshot = |epoch, parts| Snapshot { epoch, positions: Positions::default(), body: "{}".into(), parts };
        storage.store.save_snapshot(&snapshot(2, vec![1, 2]), &[(1, part.clone()), (2, part.clone())]).expect("saved");
        storage.store.save_snapshot(&snapshot(3, vec![2, 3]), &[(3, part.clone())]).expect("saved");
        let storage = open(&catalogue(1)).expect("opens again");
        assert_eq!(storage.store.latest_snapshot().expect("reads"), Some(snapshot(3, vec![2, 3])));
        assert_eq!(storage.store.part(2).expect("reads"), part);
        assert!(matches!(storage.store.part(1), Err(Error::Corrupt(_))));
        let after: Vec<u64> = storage.store.epochs_after(3).expect("reads").iter().map(|record| record.epoch).collect();
        assert_eq!(after, [4]);
        assert_eq!(storage.store.raises().expect("reads"), [(Positions::default(), vec![raise])]);
        assert_eq!(storage.store.ledger(&[]).expect("reads").counters[&("node".into(), "rows_in".into())], 12);
        assert_eq!(
            storage
                .store
                .dead_letters(&LetterFilter { before: Some(4), ..LetterFilter::default() }, 2)
                .expect("reads")
                .len(),
            2
        );

        storage.store.set_pipeline_state(&PipelineState::default(), true).expect("restarted");
        assert_eq!(storage.store.last_epoch().expect("reads"), None);
        assert_eq!(storage.store.latest_snapshot().expect("reads"), None);
        storage.store.commit_epoch(&epoch(1, Vec::new())).expect("starts over");
    });
}
