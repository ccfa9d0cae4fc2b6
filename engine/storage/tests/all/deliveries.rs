//! Deliveries: written once, kept away, tried, given up and sent again, alike in both backends.

use std::collections::BTreeMap;

use cornjacket_core::dead_letter::{LetterFilter, LetterState};
use cornjacket_core::delivery::{
    Attempt, Dedupe, Delivery, DeliveryFilter, DeliveryState, NewDelivery, Trigger, Turn, Verdict,
};
use cornjacket_core::store::{EpochCommit, EpochRecord, Storage};
use cornjacket_core::time::{Micros, SECOND};

use crate::world::{NOW, Open, catalogue, files, simulated};

fn on_both(test: impl Fn(&Open)) {
    test(&simulated());
    let folder = tempfile::tempdir().expect("a folder");
    test(&files(folder.path()));
}

/// A delivery to `page`; with a key its window is ten seconds.
fn new(id: &str, row_time: Micros, key: Option<&str>) -> NewDelivery {
    let dedupe = key.map(|key| Dedupe { key: key.into(), window: 10 * SECOND });
    let (body, event_id) = (format!("{{\"id\":\"{id}\"}}").into_bytes(), Some(format!("event of {id}")));
    let trigger = Trigger { identity: id.into(), body, row_time, event_id, dedupe };
    NewDelivery { id: id.into(), sink: "page".into(), trigger }
}

fn commit(storage: &Storage, number: u64, deliveries: Vec<NewDelivery>) {
    let epoch = EpochCommit {
        record: EpochRecord { epoch: number, ..EpochRecord::default() },
        now: NOW,
        writes: Vec::new(),
        dead_letters: Vec::new(),
        deliveries,
        counters: BTreeMap::new(),
        lengths: BTreeMap::new(),
    };
    storage.store.commit_epoch(&epoch).expect("committed");
}

fn counted(storage: &Storage, what: &str) -> i64 {
    let counters = storage.store.ledger(&[]).expect("reads").counters;
    counters.get(&("page".to_string(), what.to_string())).copied().unwrap_or(0)
}

/// Pending, written, dead, superseded, suppressed.
fn counts(storage: &Storage) -> [i64; 5] {
    let there = storage.store.ledger(&[]).expect("reads").pending.get("page").copied().unwrap_or(0);
    assert_eq!(i64::try_from(there), Ok(counted(storage, "pending")), "what is counted as pending is there");
    ["pending", "written", "dead", "superseded", "suppressed"].map(|what| counted(storage, what))
}

fn pending(storage: &Storage, turn: Turn) -> Vec<String> {
    storage.store.pending("page", turn, 10).expect("reads").into_iter().map(|delivery| delivery.id).collect()
}

fn one(storage: &Storage, id: &str) -> Delivery {
    storage.store.delivery(id).expect("reads").expect("there")
}

fn attempt(delivery: &Delivery, at: Micros, verdict: Verdict) -> Attempt {
    let is_done = verdict == Verdict::Delivered;
    let (status, error) = if is_done { (200, None) } else { (500, Some("it answered 500".to_string())) };
    Attempt { number: delivery.number, at, status: Some(status), error, verdict }
}

fn record(storage: &Storage, attempts: &[Attempt]) {
    storage.store.record_attempts(NOW + 60 * SECOND, attempts).expect("recorded");
}

#[test]
fn a_row_is_written_once_and_keeps_others_like_it_away() {
    on_both(|open| {
        let storage = open(&catalogue(1)).expect("opens");
        commit(&storage, 1, vec![new("a", 100, None), new("b", 200, Some("d1")), new("a", 300, None)]);
        assert_eq!(counts(&storage), [2, 0, 0, 1, 0]);
        drop(storage);
        let storage = open(&catalogue(1)).expect("opens again");
        let at = |seconds: Micros| 200 + seconds * SECOND;
        let epoch = vec![
            new("b", 200, Some("d1")),     // there already, and not kept away by itself
            new("c", at(9), Some("d1")),   // too close to b
            new("d", at(10), Some("d1")),  // far enough
            new("e", at(15), Some("d1")),  // too close to d
            new("f", at(15), Some("d2")),  // of another key
            new("g", at(-10), Some("d1")), // older, and far enough from the newest
            new("h", at(19), Some("d1")),  // the newest still counts
        ];
        commit(&storage, 2, epoch);
        assert_eq!(pending(&storage, Turn::Written), ["a", "b", "d", "f", "g"]);
        assert_eq!(counts(&storage), [5, 0, 0, 2, 3]);
        let a = one(&storage, "a");
        assert_eq!((a.body.as_slice(), a.row_time, a.created_at), (br#"{"id":"a"}"#.as_slice(), 100, NOW));
        assert_eq!((a.state, a.attempts, a.next_at), (DeliveryState::Pending, 0, NOW));
    });
}

#[test]
fn attempts_decide_what_becomes_of_a_delivery() {
    on_both(|open| {
        let storage = open(&catalogue(1)).expect("opens");
        commit(&storage, 1, vec![new("a", 1, None), new("b", 2, None), new("c", 3, None)]);
        let [a, b, c] = ["a", "b", "c"].map(|id| one(&storage, id));
        let again = attempt(&a, NOW + 1, Verdict::Again(NOW + 5 * SECOND));
        // A record whose answer got lost is made again and counts once.
        record(&storage, &[again.clone(), attempt(&b, NOW + 1, Verdict::Delivered)]);
        record(&storage, &[again, attempt(&c, NOW + 2, Verdict::Again(NOW + 3 * SECOND))]);
        assert_eq!(
            (pending(&storage, Turn::Due), pending(&storage, Turn::Written)),
            (texts(["c", "a"]), texts(["a", "c"]))
        );
        let waiting = one(&storage, "a");
        assert_eq!((waiting.attempts, waiting.next_at, waiting.last_at), (1, NOW + 5 * SECOND, Some(NOW + 1)));
        assert_eq!((waiting.last_status, waiting.last_error.as_deref()), (Some(500), Some("it answered 500")));
        assert_eq!(storage.store.attempts_since("page", NOW + 1, 10).expect("reads"), [NOW + 2]);

        record(&storage, &[attempt(&a, NOW + 9, Verdict::GivenUp)]);
        // What is over is not changed by whoever comes late.
        record(&storage, &[attempt(&a, NOW + 10, Verdict::Delivered), attempt(&b, NOW + 10, Verdict::GivenUp)]);
        assert_eq!(counts(&storage), [1, 1, 1, 0, 0]);
        let (dead, done) = (one(&storage, "a"), one(&storage, "b"));
        assert_eq!((dead.state, dead.attempts), (DeliveryState::Dead, 2));
        assert_eq!((done.state, done.settled_at), (DeliveryState::Delivered, Some(NOW + 60 * SECOND)));
        let letters = storage.store.dead_letters(&LetterFilter::default(), 10).expect("reads");
        let letter = &letters[0].letter;
        assert_eq!((letters.len(), letter.reason.as_str(), letter.source.as_str()), (1, "webhook", "page"));
        assert_eq!((letter.place.as_deref(), letter.body.as_slice()), (Some("a"), br#"{"id":"a"}"#.as_slice()));
        assert_eq!(letter.message, "given up after 2 attempts: it answered 500");
        let of_event = DeliveryFilter { event_id: Some("event of b".into()), ..DeliveryFilter::default() };
        assert_eq!(storage.store.deliveries(&of_event, 10).expect("reads"), [done]);
    });
}

#[test]
fn one_that_is_asked_for_again_begins_anew() {
    on_both(|open| {
        let storage = open(&catalogue(1)).expect("opens");
        commit(&storage, 1, vec![new("a", 1, None), new("b", 2, None)]);
        let (a, b, later) = (one(&storage, "a"), one(&storage, "b"), NOW + 100 * SECOND);
        record(&storage, &[attempt(&a, NOW + 1, Verdict::GivenUp), attempt(&b, NOW + 1, Verdict::Again(later))]);
        let letters = |state| {
            let filter = LetterFilter { state: Some(state), ..LetterFilter::default() };
            storage.store.dead_letters(&filter, 10).expect("reads").len()
        };
        assert!(!storage.store.redeliver("nothing", later).expect("looked for"));
        for id in ["a", "b"] {
            assert!(storage.store.redeliver(id, later).expect("asked for"));
            let asked = one(&storage, id);
            assert_eq!((asked.state, asked.since, asked.next_at), (DeliveryState::Pending, later, later));
            assert_eq!((asked.attempts, asked.settled_at), (0, None));
        }
        assert_eq!(
            (counts(&storage), letters(LetterState::Open), letters(LetterState::Replayed)),
            ([2, 0, 0, 0, 0], 0, 1)
        );
        // An attempt that began before fails after: it says nothing about what was asked for. Its success does.
        record(&storage, &[attempt(&a, NOW + 50 * SECOND, Verdict::GivenUp), attempt(&b, NOW + 9, Verdict::Delivered)]);
        assert_eq!((one(&storage, "a").state, one(&storage, "a").attempts), (DeliveryState::Pending, 0));
        assert_eq!(one(&storage, "b").state, DeliveryState::Delivered);
        record(&storage, &[attempt(&a, later, Verdict::GivenUp)]);
        assert_eq!((letters(LetterState::Open), letters(LetterState::Replayed)), (1, 1));
        assert_eq!(counts(&storage), [0, 1, 1, 0, 0]);
    });
}

#[test]
fn what_is_long_over_is_forgotten_and_what_waits_is_not() {
    on_both(|open| {
        let storage = open(&catalogue(1)).expect("opens");
        commit(&storage, 1, vec![new("a", 1, None), new("b", 2, None), new("c", 3, None)]);
        let [a, b] = ["a", "b"].map(|id| one(&storage, id));
        record(&storage, &[attempt(&a, NOW, Verdict::Delivered), attempt(&b, NOW, Verdict::GivenUp)]);
        let forget = |before, max| storage.store.forget_deliveries(before, max).expect("forgotten");
        assert_eq!(forget(NOW + 60 * SECOND, 10), 0);
        assert_eq!((forget(NOW + 61 * SECOND, 1), forget(NOW + 61 * SECOND, 10), forget(Micros::MAX, 10)), (1, 1, 0));
        assert_eq!(pending(&storage, Turn::Due), ["c"]);
        assert_eq!(counts(&storage), [1, 1, 1, 0, 0]);
    });
}

#[test]
fn what_kept_others_away_is_forgotten_when_it_is_long_past() {
    const DAY: Micros = 24 * 3_600 * SECOND;
    on_both(|open| {
        let storage = open(&catalogue(1)).expect("opens");
        let forget = || storage.store.forget_deliveries(0, 10).expect("nothing is settled");
        commit(&storage, 1, vec![new("a", 0, Some("k")), new("b", 7 * DAY, Some("l"))]);
        assert_eq!(forget(), 0);
        commit(&storage, 2, vec![new("c", SECOND, Some("k"))]);
        assert_eq!(counted(&storage, "suppressed"), 1, "it is there still");
        commit(&storage, 3, vec![new("d", 7 * DAY + 11 * SECOND, Some("m"))]);
        forget();
        commit(&storage, 4, vec![new("e", SECOND, Some("k")), new("f", 7 * DAY + SECOND, Some("l"))]);
        assert_eq!(counted(&storage, "suppressed"), 2, "only what is long past was forgotten");
        assert_eq!(pending(&storage, Turn::Written), ["a", "b", "d", "e"]);
    });
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(String::from).to_vec()
}
