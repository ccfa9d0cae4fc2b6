//! Bundles: stored whole, with what their source wants stored beside them, and in their order.

use cornjacket_core::door::{Bundle, EnvelopeTemplate, Message, Rejects, Taken};
use cornjacket_core::template::Template;

use super::*;

/// Two payloads that fit, one that does not, one that the source could not read, and an envelope's time and identity.
fn bundle(event_type: &Arc<EventType>) -> Bundle {
    let lines =
        [r#"{"value":1,"id":"a","at":1767225600}"#, r#"{"value":"x","id":"b"}"#, "???", r#"{"value":2,"id":"a"}"#];
    let mut bytes = Vec::new();
    let mut messages = Vec::new();
    for (number, line) in (1..).zip(lines) {
        let start = bytes.len();
        bytes.extend_from_slice(line.as_bytes());
        let fault = (line == "???").then(|| "no such row".to_string());
        messages.push(Message { bytes: start..bytes.len(), number, fault });
    }
    let template = |text: &str| Template::parse(text, &[]).expect("a template");
    let envelope = EnvelopeTemplate {
        event_type: Arc::clone(event_type),
        aggregate_id: template("d-${payload.id}"),
        event_time: None,
        event_id: Some(template("${payload.id}")),
    };
    let (source, origin) = ("import".into(), "in.ndjson".into());
    let (known, envelope) = (Vec::new(), Some(Arc::new(envelope)));
    Bundle {
        source,
        origin,
        bytes,
        messages,
        known,
        envelope,
        position: Some("here".into()),
        receipts: Vec::new(),
        rejects: Rejects::DeadLetters,
        chain: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_stored_whole_with_its_mark_and_what_is_wrong_is_a_dead_letter() {
    let harness = Harness::new(DoorOptions::default());
    let event_type = Arc::clone(&harness.event_type);
    let first = Arc::new(bundle(&event_type));
    harness.log.order(Order::Fail(Error::Full("the disk".into())));
    harness.log.order(Order::Store);
    assert!(matches!(harness.door.submit_bundle(Arc::clone(&first)).await, Err(Refusal::Unavailable(_))));
    // The same identity twice: the first is stored.
    let taken = harness.door.submit_bundle(first).await.expect("taken");
    assert_eq!(taken, Taken { stored: 1, repeated: 1, rejected: 2, ..Taken::default() });
    let state = harness.log.state.lock();
    assert_eq!(state.commits, [[1.0]]);
    assert_eq!(state.marks, [Mark { source: "import".into(), position: "here".into() }]);
    let last: Vec<(&str, Option<&str>, &[u8])> =
        state.letters.iter().rev().take(2).map(|l| (l.reason.as_str(), l.place.as_deref(), &*l.body)).collect();
    let wrong: &[u8] = br#"{"value":"x","id":"b"}"#;
    assert_eq!(last, [("decode", Some("in.ndjson:3"), &b"???"[..]), ("validation", Some("in.ndjson:2"), wrong)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_which_nothing_is_right_still_moves_its_mark() {
    let harness = Harness::new(DoorOptions::default());
    let mut bundle = bundle(&harness.event_type);
    bundle.messages.retain(|message| message.number == 3);
    harness.log.order(Order::Store);
    let taken = harness.door.submit_bundle(Arc::new(bundle)).await.expect("taken");
    assert_eq!(taken, Taken { stored: 0, repeated: 0, rejected: 1, ..Taken::default() });
    assert_eq!(harness.log.state.lock().marks.len(), 1);
}

/// Lines of events with these values; a text that is no number makes an event that is wrong.
fn lines(values: &[String], rejects: Rejects) -> Bundle {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    for (number, value) in (1..).zip(values) {
        let start = bytes.len();
        let line = format!(r#"{{"event_type":"sensor.reading","aggregate_id":"a","payload":{{"value":{value}}}}}"#);
        bytes.extend_from_slice(line.as_bytes());
        messages.push(Message { bytes: start..bytes.len(), number, fault: None });
    }
    Bundle {
        source: "api".into(),
        origin: "body".into(),
        bytes,
        messages,
        known: Vec::new(),
        envelope: None,
        position: None,
        receipts: Vec::new(),
        rejects,
        chain: None,
    }
}

/// Large ones are decoded in parts, side by side; nobody is to see that.
#[tokio::test(flavor = "multi_thread")]
async fn bundles_of_any_size_and_single_events_keep_their_order() {
    let harness = Harness::new(DoorOptions { max_commit_rows: 7_000, ..DoorOptions::default() });
    let held = harness.hold().await;
    let (mut expected, mut next, mut singles, mut bundles) = (vec![0.0], 1_u32, Vec::new(), Vec::new());
    for size in [3, 5_000, 1, 2_500, 2_048, 2_047, 10_001, 2] {
        expected.push(f64::from(next));
        singles.push(harness.submit(&next.to_string(), None));
        next += 1;
        let values: Vec<String> = (next..next + size)
            .map(|value| if value % 1_000 == 999 { "\"wrong\"".into() } else { value.to_string() })
            .collect();
        expected.extend((next..next + size).filter(|value| value % 1_000 != 999).map(f64::from));
        let wrong: Vec<usize> =
            (0..).zip(&values).filter(|(_, value)| value.starts_with('"')).map(|(at, _)| at).collect();
        bundles.push((values.len(), wrong, harness.door.submit_bundle(Arc::new(lines(&values, Rejects::Answer)))));
        next += size;
    }
    for _ in 0..40 {
        harness.log.order(Order::Store);
    }
    held.answer().await.expect("accepted");
    for single in singles {
        single.answer().await.expect("accepted");
    }
    for (size, wrong, answer) in bundles {
        let taken = answer.await.expect("taken");
        let found: Vec<usize> = taken.rejections.iter().map(|(at, _)| *at).collect();
        assert_eq!((taken.stored, found), ((size - wrong.len()) as u64, wrong));
    }
    assert_eq!(harness.commits().concat(), expected);
    assert!(harness.commits().iter().any(|commit| commit.len() > 5_000), "a commit of several bundles");
}
