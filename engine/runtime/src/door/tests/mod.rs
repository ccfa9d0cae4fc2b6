//! Tests of the door against a log in memory that can be held, filled up and broken.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use cornjacket_core::catalogue::{Catalogue, EventType, Field, FieldType, UnknownFields, WatermarkPolicy, stored};
use cornjacket_core::dead_letter::{DeadLetter, DeadLetters, LetterFilter, LetterState, StoredDeadLetter};
use cornjacket_core::door::{ClientId, Door, Form, Refusal, Submission};
use cornjacket_core::environment::{Clock, Environment, Random};
use cornjacket_core::id::EventId;
use cornjacket_core::log::{
    Columns, Committed, EventLog, Events, LogCount, Mark, Notes, Positions, Slice, TopicPartition,
};
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};
use parking_lot::{Condvar, Mutex};
use prometheus::{Encoder, Registry, TextEncoder};

use super::{DoorOptions, GroupCommit};

mod bundles;

/// What a held log is to do with the next commits.
enum Order {
    Store,
    Fail(Error),
    Panic,
}

#[derive(Default)]
struct Memory {
    state: Mutex<MemoryState>,
    changed: Condvar,
}

#[derive(Default)]
struct MemoryState {
    /// Values in the order they were stored, by commit.
    commits: Vec<Vec<f64>>,
    ids: HashSet<EventId>,
    marks: Vec<Mark>,
    letters: Vec<DeadLetter>,
    orders: VecDeque<Order>,
    /// Commits that wait for an order.
    held: usize,
}

impl Memory {
    fn order(&self, order: Order) {
        self.state.lock().orders.push_back(order);
        self.changed.notify_all();
    }

    /// Waits until a commit is held.
    fn await_held(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.held == 0);
    }

    fn store(state: &mut MemoryState, commit: &[Events]) -> Committed {
        let mut committed = Committed::default();
        let mut rows = Vec::new();
        for events in commit {
            let ids = events.rows.column(stored::EVENT_ID).as_fixed_size_binary();
            let values = events.rows.column(stored::FIELDS).as_primitive::<arrow::datatypes::Float64Type>();
            for row in 0..events.rows.num_rows() {
                let id = EventId(ids.value(row).try_into().expect("16 bytes"));
                let is_given = events.client_id.as_ref().is_some_and(|given| given.value(row));
                if !state.ids.insert(id) && is_given {
                    committed.repeated.push(id);
                } else {
                    rows.push((events.sequence.value(row), values.value(row)));
                    committed.stored += 1;
                }
            }
        }
        rows.sort_by_key(|(sequence, _)| *sequence);
        state.commits.push(rows.into_iter().map(|(_, value)| value).collect());
        committed
    }
}

impl EventLog for Memory {
    fn append(&self, commit: &[Events], notes: &Notes) -> Result<Committed> {
        let mut state = self.state.lock();
        state.held += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.orders.is_empty());
        state.held -= 1;
        match state.orders.pop_front() {
            Some(Order::Fail(error)) => Err(error),
            Some(Order::Panic) => panic!("as the test wants it"),
            _ => {
                state.marks.extend_from_slice(&notes.marks);
                Ok(Self::store(&mut state, commit))
            }
        }
    }

    fn marks(&self) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }

    fn receipts(&self, _: &str, _: usize) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn counts(&self, _: &Positions) -> Result<BTreeMap<String, LogCount>> {
        Ok(BTreeMap::new())
    }

    fn end(&self) -> Positions {
        Positions::default()
    }

    fn read(&self, _: &Positions, _: Option<&Positions>, _: usize, _: &Columns) -> Result<Slice> {
        Ok(Slice::default())
    }

    fn wait_beyond(&self, _: &Positions, _: Duration) -> bool {
        false
    }

    fn find(&self, _: EventId) -> Result<Option<(TopicPartition, i64)>> {
        Ok(None)
    }

    fn forget(&self, _: &BTreeMap<String, Micros>, _: &Positions) -> Result<u64> {
        Ok(0)
    }
}

impl DeadLetters for Memory {
    fn add_dead_letters(&self, _: Micros, letters: &[DeadLetter]) -> Result<()> {
        self.state.lock().letters.extend_from_slice(letters);
        Ok(())
    }

    fn dead_letters(&self, _: &LetterFilter, _: u64) -> Result<Vec<StoredDeadLetter>> {
        Ok(Vec::new())
    }

    fn dead_letter(&self, _: i64) -> Result<Option<StoredDeadLetter>> {
        Ok(None)
    }

    fn settle_dead_letter(&self, _: i64, _: LetterState, _: Micros) -> Result<bool> {
        Ok(false)
    }

    fn forget_dead_letters(&self, _: Micros, _: u64) -> Result<u64> {
        Ok(0)
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Micros {
        1_767_225_600_000_000
    }

    fn monotonic(&self) -> Micros {
        0
    }
}

/// Counts up, so that ids differ.
#[derive(Default)]
struct Counter(Mutex<u64>);

impl Random for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        let mut count = self.0.lock();
        for chunk in bytes.chunks_mut(10) {
            *count += 1;
            let (high, low) = (count.to_be_bytes(), chunk.len().saturating_sub(8));
            chunk[low..].copy_from_slice(&high);
        }
    }
}

struct Harness {
    door: GroupCommit,
    log: Arc<Memory>,
    registry: Registry,
    event_type: Arc<EventType>,
}

impl Harness {
    fn new(options: DoorOptions) -> Self {
        let fields = vec![Field::new("value", FieldType::Double)];
        let policy = WatermarkPolicy::default();
        let reading = EventType::new("sensor.reading", "sensor-events", fields, UnknownFields::Keep, policy);
        let catalogue = Catalogue::new([reading], BTreeMap::new());
        let event_type = Arc::clone(&catalogue.types["sensor.reading"]);
        let log = Arc::new(Memory::default());
        let environment = Environment { clock: Arc::new(Fixed), random: Arc::new(Counter::default()) };
        let registry = Registry::new();
        let door = GroupCommit::start(
            &catalogue,
            (Arc::clone(&log) as _, Arc::clone(&log) as _),
            environment,
            options,
            &registry,
        );
        Self { door: door.expect("a door"), log, registry, event_type }
    }

    /// Submits an event and returns what waits for its answer.
    fn submit(&self, value: &str, client: Option<u8>) -> Pending {
        let body = format!(r#"{{"event_type":"sensor.reading","aggregate_id":"a","payload":{{"value":{value}}}}}"#);
        let client_id = client.map(|n| ClientId { id: EventId::v8([n; 16]), original: n.to_string() });
        let source = Arc::from("api");
        Pending(tokio::spawn(self.door.submit(Submission {
            body: body.into_bytes(),
            form: Form::Any,
            client_id,
            source,
        })))
    }

    /// Submits one event and waits until its commit is held, so that others gather behind it.
    async fn hold(&self) -> Pending {
        let first = self.submit("0", None);
        let log = Arc::clone(&self.log);
        tokio::task::spawn_blocking(move || log.await_held()).await.expect("held");
        first
    }

    fn commits(&self) -> Vec<Vec<f64>> {
        self.log.state.lock().commits.clone()
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("metrics");
        String::from_utf8(text).expect("UTF-8").lines().any(|found| found == line)
    }

    /// Waits for a value that the door's threads are about to set.
    async fn await_metric(&self, line: &str) {
        for _ in 0..1000 {
            if self.metric(line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("never: {line}");
    }

    /// Closes where blocking is allowed, and hands the harness back.
    async fn close(self: Arc<Self>) {
        tokio::task::spawn_blocking(move || self.door.close()).await.expect("closed");
    }
}

struct Pending(tokio::task::JoinHandle<Result<EventId, Refusal>>);

impl Pending {
    async fn answer(self) -> Result<EventId, Refusal> {
        let answer = tokio::time::timeout(Duration::from_secs(20), self.0).await;
        answer.expect("an answer in time").expect("no panic")
    }

    fn is_answered(&self) -> bool {
        self.0.is_finished()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_share_a_commit_and_are_answered_after_it() {
    let harness = Harness::new(DoorOptions::default());
    let first = harness.hold().await;
    let others: Vec<Pending> = (1..=100).map(|value| harness.submit(&value.to_string(), None)).collect();
    let wrong = harness.submit("\"x\"", None);
    // A wrong event has its answer while the log is busy; the others must wait for the log.
    assert!(matches!(wrong.answer().await, Err(Refusal::Rejected(rejection)) if rejection.code == "invalid_payload"));
    assert!(!first.is_answered() && !others.iter().any(Pending::is_answered));
    harness.log.order(Order::Store);
    first.answer().await.expect("accepted");
    harness.log.order(Order::Store);
    let mut ids = HashSet::new();
    for other in others {
        ids.insert(other.answer().await.expect("accepted"));
    }
    assert_eq!(ids.len(), 100);
    let expected: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(harness.commits(), [vec![0.0], expected]);
    assert!(harness.metric(r#"cornjacket_events_accepted_total{event_type="sensor.reading",source="api"} 101"#));
    assert!(harness.metric(r#"cornjacket_events_rejected_total{code="invalid_payload",source="api"} 1"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_has_the_answer_of_the_first() {
    let harness = Harness::new(DoorOptions::default());
    let held = harness.hold().await;
    let same: Vec<Pending> = (0..3).map(|_| harness.submit("1", Some(9))).collect();
    for _ in 0..3 {
        harness.log.order(Order::Store);
    }
    held.answer().await.expect("accepted");
    for pending in same {
        assert_eq!(pending.answer().await, Ok(EventId::v8([9; 16])));
    }
    assert_eq!(harness.commits().concat(), [0.0, 1.0]);
    assert!(harness.metric(r#"cornjacket_events_repeated_total{event_type="sensor.reading",source="api"} 2"#));
    assert!(harness.metric(r#"cornjacket_events_accepted_total{event_type="sensor.reading",source="api"} 2"#));
    harness.log.order(Order::Store);
    harness.log.order(Order::Store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once() {
    let options = DoorOptions { max_waiting: 5, max_commit_rows: 3, ..DoorOptions::default() };
    let harness = Harness::new(options);
    let held = harness.hold().await;
    // One commit is held and three events are decoded for the next one. Five more can wait.
    let mut many: Vec<Pending> = (0..3).map(|_| harness.submit("1", None)).collect();
    harness.await_metric("cornjacket_door_queue_events 0").await;
    many.extend((0..50).map(|_| harness.submit("1", None)));
    assert!(harness.metric("cornjacket_door_queue_events 5"));
    for _ in 0..20 {
        harness.log.order(Order::Store);
    }
    held.answer().await.expect("accepted");
    let (mut accepted, mut busy) = (0, 0);
    for pending in many {
        match pending.answer().await {
            Ok(_) => accepted += 1,
            Err(Refusal::Busy) => busy += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((accepted, busy), (8, 45));
    assert!(harness.commits().iter().all(|commit| commit.len() <= 3));
    assert_eq!(harness.commits().concat().len(), accepted + 1);
    assert!(harness.metric(&format!(r#"cornjacket_events_refused_total{{reason="busy"}} {busy}"#)));
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_nothing_still_let_one_event_through() {
    let options = DoorOptions {
        max_waiting: 0,
        max_waiting_bytes: 0,
        max_commit_rows: 0,
        max_commit_bytes: 0,
        ..DoorOptions::default()
    };
    let harness = Harness::new(options);
    for value in ["1", "2"] {
        harness.log.order(Order::Store);
        harness.submit(value, None).answer().await.expect("accepted");
    }
    assert_eq!(harness.commits(), [[1.0], [2.0]]);
    assert!(harness.metric("cornjacket_door_queue_events 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_commits_what_was_submitted() {
    let harness = Arc::new(Harness::new(DoorOptions::default()));
    let held = harness.hold().await;
    let others: Vec<Pending> = (0..10).map(|_| harness.submit("1", None)).collect();
    let closing = tokio::spawn(Arc::clone(&harness).close());
    while !matches!(harness.submit("2", None).answer_now().await, Some(Err(Refusal::Closing))) {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        harness.log.order(Order::Store);
    }
    closing.await.expect("closed");
    held.answer().await.expect("accepted");
    for other in others {
        other.answer().await.expect("accepted");
    }
    assert!(harness.commits().concat().len() >= 11);
    assert_eq!(harness.submit("1", None).answer().await, Err(Refusal::Closing));
}

impl Pending {
    /// The answer, if it comes without the log.
    async fn answer_now(self) -> Option<Result<EventId, Refusal>> {
        tokio::time::timeout(Duration::from_millis(20), self.0).await.ok().map(|answer| answer.expect("no panic"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_recovers() {
    let harness = Harness::new(DoorOptions::default());
    for error in [Error::Full("no space left".into()), Error::Unavailable("no database".into())] {
        harness.log.order(Order::Fail(error));
        let answer = harness.submit("1", None).answer().await;
        assert!(matches!(answer, Err(Refusal::Unavailable(_))), "{answer:?}");
        assert!(harness.door.is_healthy());
    }
    harness.log.order(Order::Store);
    harness.submit("2", None).answer().await.expect("accepted");
    assert_eq!(harness.commits(), [[2.0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_log_closes_the_door() {
    for order in [Order::Fail(Error::Corrupt("a torn page".into())), Order::Panic] {
        let harness = Harness::new(DoorOptions::default());
        let held = harness.hold().await;
        let behind = harness.submit("1", None);
        harness.log.order(order);
        for pending in [held, behind] {
            let answer = pending.answer().await;
            assert!(matches!(answer, Err(Refusal::Unavailable(_))), "{answer:?}");
        }
        let later = harness.submit("2", None).answer().await;
        assert!(matches!(later, Err(Refusal::Unavailable(_))), "{later:?}");
        assert!(!harness.door.is_healthy());
        assert!(harness.commits().is_empty());
        assert!(harness.metric("cornjacket_door_queue_events 0"));
    }
}
