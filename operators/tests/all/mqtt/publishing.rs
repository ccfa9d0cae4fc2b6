//! From a device to the door: acknowledged when stored, once, in order.

use std::sync::Arc;
use std::time::Duration;

use super::broker::{Running, Shelf, steady, until};
use super::client::{Client, Connect, Flags, VERSIONS, publish};

const TOPIC: &str = "devices/d1/reading";

#[tokio::test(flavor = "multi_thread")]
async fn every_quality_of_every_version_is_stored_before_it_is_acknowledged() {
    for version in VERSIONS {
        let running = Running::start().await;
        running.shelf.shut(true);
        let mut client = Client::connect(running.at, version, "d1").await;
        client.publish(TOPIC, b"zero", (0, 0)).await;
        client.publish(TOPIC, b"one", (1, 1)).await;
        client.publish(TOPIC, b"two", (2, 2)).await;
        client.publish(TOPIC, b"three", (1, 3)).await;
        // The broker answers all the same.
        client.ping().await;
        until("refused", || running.shelf.refusals() > 3).await;
        client.expect_silence().await;
        running.shelf.shut(false);
        client.expect(0x40, &[0, 1]).await;
        client.expect(0x50, &[0, 2]).await;
        client.expect(0x40, &[0, 3]).await;
        assert_eq!(running.shelf.bodies(), ["zero", "one", "two", "three"]);
        client.send(&[0x62, 2, 0, 2]).await;
        client.expect(0x70, &[0, 2]).await;
        client.leave().await;
        assert_eq!(running.counts.read().publishes, [1, 2, 1]);
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_together_is_stored_together_and_in_order() {
    let running = Running::start().await;
    *running.shelf.slowness.lock() = Duration::from_millis(20);
    let mut client = Client::connect(running.at, 4, "d1").await;
    let expected: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
    let flags = |number: usize| Flags { qos: 1, id: u16::try_from(number + 1).expect("small"), ..Flags::default() };
    let all: Vec<u8> =
        (0..5_000).flat_map(|number| publish(4, TOPIC, expected[number].as_bytes(), &flags(number))).collect();
    client.send(&all).await;
    for number in 1..=5_000_u16 {
        client.expect(0x40, &number.to_be_bytes()).await;
    }
    assert_eq!(running.shelf.bodies(), expected);
    assert!(running.shelf.bundles() < 200, "{} bundles", running.shelf.bundles());
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_source_matches_is_acknowledged_and_not_stored() {
    let running = Running::start().await;
    for version in VERSIONS {
        let mut client = Client::connect(running.at, version, "d1").await;
        client.publish("elsewhere", b"x", (1, 1)).await;
        client.expect(0x40, &[0, 1]).await;
        client.publish("devices/d1/x/reading", b"x", (2, 1)).await;
        client.expect(0x50, &[0, 1]).await;
    }
    assert_eq!(running.shelf.count(), 0);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_words_of_qos_0_are_stored() {
    let running = Running::start().await;
    let mut client = Client::connect(running.at, 4, "").await;
    client.publish("all/a", b"last", (0, 0)).await;
    client.leave().await;
    let mut client = Client::connect(running.at, 5, "").await;
    client.publish("all/a", b"very last", (0, 0)).await;
    // Without a word.
    drop(client);
    until("stored", || running.shelf.count() == 2).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_with_dup_is_stored_once() {
    for version in VERSIONS {
        let running = Running::start().await;
        let again = |qos, id, body: &str| {
            publish(version, TOPIC, body.as_bytes(), &Flags { qos, id, dup: true, ..Flags::default() })
        };
        let mut client = Client::connect(running.at, version, "d1").await;
        client.publish(TOPIC, b"a", (1, 1)).await;
        client.expect(0x40, &[0, 1]).await;
        drop(client);
        let mut client = Client::connect(running.at, version, "d1").await;
        client.send(&again(1, 1, "a")).await;
        client.expect(0x40, &[0, 1]).await;
        // These are others, though DUP is set.
        for (id, body) in [(2, "a"), (1, "b")] {
            client.send(&again(1, id, body)).await;
            client.expect(0x40, &[0, u8::try_from(id).expect("small")]).await;
        }
        let mut other = Client::connect(running.at, version, "d2").await;
        other.send(&again(1, 1, "b")).await;
        other.expect(0x40, &[0, 1]).await;
        // A packet id has a new meaning, which happens to be an old one.
        client.publish(TOPIC, b"b", (1, 1)).await;
        client.expect(0x40, &[0, 1]).await;
        assert_eq!(running.shelf.bodies(), ["a", "a", "b", "b", "b"]);
        assert_eq!(running.counts.read().repeated, 1);
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_and_sent_again_is_stored_once() {
    for (version, qos) in [(3, 1), (4, 2), (5, 1), (5, 2)] {
        let running = Running::start().await;
        *running.shelf.slowness.lock() = Duration::from_millis(300);
        let mut client = Client::connect(running.at, version, "d1").await;
        client.publish(TOPIC, b"a", (qos, 1)).await;
        until("under way", || running.shelf.count() == 1).await;
        // One that waits behind it, and both again; on this connection, and on the next.
        client.publish(TOPIC, b"b", (qos, 2)).await;
        let again: Vec<u8> = [(1, b"a"), (2, b"b")]
            .iter()
            .flat_map(|(id, body)| {
                publish(version, TOPIC, *body, &Flags { qos, id: *id, dup: true, ..Flags::default() })
            })
            .collect();
        client.send(&again).await;
        drop(client);
        let mut client = Client::connect(running.at, version, "d1").await;
        client.send(&again).await;
        let answer = if qos == 1 { 0x40 } else { 0x50 };
        client.expect(answer, &[0, 1]).await;
        client.expect(answer, &[0, 2]).await;
        client.expect_silence().await;
        assert_eq!(running.shelf.bodies(), ["a", "b"], "version {version} QoS {qos}");
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_after_a_crash_is_stored_once() {
    for qos in [1, 2] {
        let shelf = Arc::<Shelf>::default();
        let running = Running::start_with(&shelf, None).await;
        // It dies after storing and before it says so.
        *shelf.slowness.lock() = Duration::from_hours(1);
        let mut client = Client::connect(running.at, 4, "d1").await;
        client.publish(TOPIC, b"a", (qos, 1)).await;
        until("stored", || shelf.count() == 1).await;
        client.publish(TOPIC, b"b", (qos, 2)).await;
        client.expect_silence().await;
        running.crash();
        *shelf.slowness.lock() = Duration::ZERO;
        let running = Running::start_with(&shelf, None).await;
        let mut client = Client::connect(running.at, 4, "d1").await;
        for (id, body) in [(1, b"a"), (2, b"b")] {
            client.send(&publish(4, TOPIC, body, &Flags { qos, id, dup: true, ..Flags::default() })).await;
        }
        let answer = if qos == 1 { 0x40 } else { 0x50 };
        client.expect(answer, &[0, 1]).await;
        client.expect(answer, &[0, 2]).await;
        assert_eq!(shelf.bodies(), ["a", "b"]);
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_is_stored_once_until_it_is_released() {
    for version in VERSIONS {
        let running = Running::start().await;
        let persistent =
            Connect { version, id: "d1", clean: false, properties: b"\x11\0\0\0\x3c", ..Connect::default() };
        let (mut client, _) = Client::resume(running.at, &persistent).await;
        client.publish(TOPIC, b"a", (2, 5)).await;
        client.expect(0x50, &[0, 5]).await;
        drop(client);
        let (mut client, present) = Client::resume(running.at, &persistent).await;
        assert!(present);
        // By its packet id alone, whatever it says.
        client.send(&publish(version, TOPIC, b"A", &Flags { qos: 2, id: 5, dup: true, ..Flags::default() })).await;
        client.expect(0x50, &[0, 5]).await;
        client.send(&[0x62, 2, 0, 5]).await;
        client.expect(0x70, &[0, 5]).await;
        client.publish(TOPIC, b"a", (2, 5)).await;
        client.expect(0x50, &[0, 5]).await;
        assert_eq!(running.shelf.bodies(), ["a", "a"]);
        // What was never published is released all the same; MQTT 5 says what it thinks of it.
        client.send(&[0x62, 2, 0, 9]).await;
        let pubcomp = client.receive().await;
        let is_told = version == 5;
        assert_eq!((pubcomp.first, &pubcomp.body[..2]), (0x70, &[0, 9][..]));
        assert_eq!(pubcomp.body.get(2).is_some_and(|code| *code == 0x92), is_told, "{pubcomp:?}");
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_stops_at_a_bound_while_nothing_can_be_stored_and_then_all_goes_on() {
    const SIZE: usize = 64 << 10;
    const COUNT: u16 = 500;
    let running = Running::start().await;
    running.shelf.shut(true);
    let client = Client::connect(running.at, 4, "flood").await;
    let mut other = Client::connect(running.at, 5, "calm").await;
    let (mut reader, mut writer) = client.split();
    let sending = tokio::spawn(async move {
        for id in 1..=COUNT {
            let mut body = vec![b'x'; SIZE];
            body[..2].copy_from_slice(&id.to_be_bytes());
            writer.send(&publish(4, "all/a", &body, &Flags { qos: 1, id, ..Flags::default() })).await;
        }
        writer
    });
    let taken = steady("taking", || running.counts.read().publishes[1]).await;
    assert!((16..=200).contains(&taken), "{taken} messages of 64 KiB were taken");
    assert!(!sending.is_finished());
    other.ping().await;
    running.shelf.shut(false);
    for id in 1..=COUNT {
        assert_eq!(reader.receive().await.body, id.to_be_bytes());
    }
    sending.await.expect("sent");
    let stored = running.shelf.stored();
    assert_eq!(stored.len(), usize::from(COUNT));
    assert!(stored.iter().zip(1_u16..).all(|((_, body), id)| body[..2] == id.to_be_bytes() && body.len() == SIZE));
    running.end().await;
}

/// User properties take far more memory than the bytes they came in.
#[tokio::test(flavor = "multi_thread")]
async fn properties_count_as_what_waits_to_be_stored() {
    let running = Running::start().await;
    running.shelf.shut(true);
    let (mut reader, mut writer) = Client::connect(running.at, 5, "flood").await.split();
    // The one that follows is for the answer.
    let many = publish(5, "all/a", b"x", &Flags { properties: &b"\x26\0\0\0\0".repeat(13_000), ..Flags::default() });
    let last = publish(5, "all/a", b"last", &Flags { qos: 1, id: 7, ..Flags::default() });
    let sending = tokio::spawn(async move {
        for _ in 0..400 {
            writer.send(&many).await;
        }
        writer.send(&last).await;
        writer
    });
    let taken = steady("taking", || running.counts.read().publishes[0]).await;
    assert!((2..=20).contains(&taken), "{taken} messages that take a megabyte each were taken");
    running.shelf.shut(false);
    assert_eq!(reader.receive().await.body, [0, 7]);
    sending.await.expect("sent");
    assert_eq!(running.shelf.count(), 401);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_aliases_stand_for_topics() {
    let running = Running::start().await;
    let mut client = Client::connect(running.at, 5, "d1").await;
    let aliased = |topic, body: &str, id, alias: u8| {
        publish(5, topic, body.as_bytes(), &Flags { qos: 1, id, properties: &[0x23, 0, alias], ..Flags::default() })
    };
    client.send(&aliased("all/a", "1", 1, 7)).await;
    client.send(&aliased("", "2", 2, 7)).await;
    client.send(&aliased("all/b", "3", 3, 7)).await;
    client.send(&aliased("", "4", 4, 7)).await;
    for id in 1..=4 {
        client.expect(0x40, &[0, id]).await;
    }
    let topics: Vec<String> = running.shelf.stored().into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["all/a", "all/a", "all/b", "all/b"]);
    client.send(&aliased("", "5", 5, 8)).await;
    client.expect_end(0x82).await;
    for alias in [0, 200] {
        let mut client = Client::connect(running.at, 5, "d1").await;
        client.send(&aliased("all/a", "1", 1, alias)).await;
        client.expect_end(0x94).await;
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_mqtt_5_keeps_to_the_receive_maximum() {
    let running = Running::start().await;
    running.shelf.shut(true);
    let (mut client, connack) = Client::try_connect(running.at, &Connect { id: "d1", ..Connect::default() }).await;
    let at = connack.body.windows(3).position(|bytes| bytes[0] == 0x21).expect("a receive maximum");
    let most = u16::from_be_bytes([connack.body[at + 1], connack.body[at + 2]]);
    for id in 1..=most {
        client.publish("all/a", b"x", (1, id)).await;
    }
    client.ping().await;
    client.publish("all/a", b"x", (1, most + 1)).await;
    running.shelf.shut(false);
    client.expect_end(0x93).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_what_is_under_way_is_answered_and_clients_are_told() {
    for version in VERSIONS {
        let running = Running::start().await;
        *running.shelf.slowness.lock() = Duration::from_millis(300);
        let will = Some(("all/will", "gone", 1, false));
        let (mut client, _) =
            Client::resume(running.at, &Connect { version, id: "d1", will, ..Connect::default() }).await;
        client.publish("all/a", b"x", (1, 1)).await;
        until("under way", || running.shelf.count() == 1).await;
        client.publish("all/a", b"y", (1, 2)).await;
        client.publish("all/a", b"z", (2, 3)).await;
        until("received", || running.counts.read().publishes == [0, 2, 1]).await;
        running.tell_to_stop();
        client.expect(0x40, &[0, 1]).await;
        client.expect(0x40, &[0, 2]).await;
        client.expect(0x50, &[0, 3]).await;
        client.expect_end(0x8b).await;
        // The broker's end is not the device's.
        assert_eq!(running.shelf.bodies(), ["x", "y", "z"]);
    }
}
