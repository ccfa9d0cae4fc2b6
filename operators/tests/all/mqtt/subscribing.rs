//! From the broker to those who subscribe: who gets what, with which quality, and what is retained.

use std::time::Duration;

use super::broker::{Running, until};
use super::client::{Client, Connect, Flags, Message, VERSIONS, message, packet, publish};

/// Topic and body of the next messages, whatever their order.
async fn messages(client: &mut Client, count: usize) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for _ in 0..count {
        let Message { topic, payload, .. } = client.message().await;
        found.push((topic, String::from_utf8(payload).expect("UTF-8")));
    }
    found.sort();
    client.expect_silence().await;
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_seen_when_it_is_stored_and_not_before() {
    for version in VERSIONS {
        let running = Running::start().await;
        let mut reader = Client::connect(running.at, version, "reader").await;
        assert_eq!(reader.subscribe("devices/#", 1).await, 1);
        running.shelf.shut(true);
        let mut writer = Client::connect(running.at, version, "writer").await;
        writer.publish("devices/d1/reading", b"x", (1, 1)).await;
        until("refused", || running.shelf.refusals() > 1).await;
        reader.expect_silence().await;
        running.shelf.shut(false);
        writer.expect(0x40, &[0, 1]).await;
        assert_eq!(reader.message().await.payload, b"x");
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quality_is_the_lesser_of_both_and_each_flow_is_gone_through() {
    let running = Running::start().await;
    for (reading, writing) in [(3, 5), (4, 4), (5, 3), (5, 5)] {
        for granted in 0..3 {
            let mut reader = Client::connect(running.at, reading, "reader").await;
            let mut writer = Client::connect(running.at, writing, "writer").await;
            assert_eq!(reader.subscribe("t", granted).await, granted);
            for qos in 0..3 {
                writer.publish("t", &[qos], (qos, 3)).await;
                if qos == 2 {
                    writer.expect(0x50, &[0, 3]).await;
                    writer.send(&[0x62, 2, 0, 3]).await;
                    writer.expect(0x70, &[0, 3]).await;
                } else if qos == 1 {
                    writer.expect(0x40, &[0, 3]).await;
                }
                let message = reader.message().await;
                assert_eq!((message.payload, message.qos), (vec![qos], qos.min(granted)));
                assert!(!message.dup && !message.retain);
                let [high, low] = message.id.to_be_bytes();
                if message.qos == 1 {
                    reader.send(&[0x40, 2, high, low]).await;
                } else if message.qos == 2 {
                    reader.send(&[0x50, 2, high, low]).await;
                    reader.expect(0x62, &[high, low]).await;
                    reader.send(&[0x70, 2, high, low]).await;
                }
            }
            reader.ping().await;
        }
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcards_match_as_the_standard_says() {
    let topics = ["TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA", "TopicA/", "/", "TopicA//x"];
    let cases: [(&str, &[&str]); 10] = [
        ("TopicA/+", &["TopicA/", "TopicA/B", "TopicA/C"]),
        ("+/C", &["Topic/C", "TopicA/C"]),
        ("#", &["/", "/TopicA", "Topic/C", "TopicA", "TopicA/", "TopicA//x", "TopicA/B", "TopicA/C"]),
        ("/#", &["/", "/TopicA"]),
        ("/+", &["/", "/TopicA"]),
        ("+/+", &["/", "/TopicA", "Topic/C", "TopicA/", "TopicA/B", "TopicA/C"]),
        ("TopicA/#", &["TopicA", "TopicA/", "TopicA//x", "TopicA/B", "TopicA/C"]),
        ("+", &["TopicA"]),
        ("TopicA/+/x", &["TopicA//x"]),
        ("topicA", &[]),
    ];
    for version in [4, 5] {
        let running = Running::start().await;
        let mut writer = Client::connect(running.at, version, "writer").await;
        for (filter, expected) in cases {
            let mut reader = Client::connect(running.at, version, "reader").await;
            assert_eq!(reader.subscribe(filter, 2).await, 2);
            for topic in topics {
                writer.publish(topic, b"", (0, 0)).await;
            }
            writer.ping().await;
            let found: Vec<String> =
                messages(&mut reader, expected.len()).await.into_iter().map(|(topic, _)| topic).collect();
            assert_eq!(found, expected, "{filter}");
        }
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_the_broker_are_its_own() {
    for version in VERSIONS {
        let running = Running::start().await;
        let mut client = Client::connect(running.at, version, "c").await;
        for filter in ["#", "+/x", "$SYS/#"] {
            assert_eq!(client.subscribe(filter, 0).await, 0);
        }
        client.publish("$SYS/x", b"x", (0, 0)).await;
        client.publish("$SYS/x", b"x", (1, 1)).await;
        let puback = client.receive().await;
        assert_eq!((puback.first, &puback.body[..2]), (0x40, &[0, 1][..]));
        assert_eq!(puback.body.get(2) == Some(&0x87), version == 5, "{puback:?}");
        client.expect_silence().await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_once_though_several_filters_match_it() {
    let running = Running::start().await;
    for version in VERSIONS {
        let mut client = Client::connect(running.at, version, "c").await;
        for (filter, qos, id) in [("a/b", 0, 1), ("a/+", 2, 200), ("#", 1, 3)] {
            let id: &[u8] = if id < 128 { &[0x0b, id] } else { &[0x0b, id, 1] };
            client.subscribe_with(filter, qos, if version == 5 { id } else { &[] }).await;
        }
        client.publish("a/b", b"x", (2, 1)).await;
        client.expect(0x50, &[0, 1]).await;
        let message = client.message().await;
        assert_eq!(message.qos, 2, "the best of them");
        if version == 5 {
            let mut ids: Vec<&[u8]> = message.properties.split(|byte| *byte == 0x0b).skip(1).collect();
            ids.sort_unstable();
            assert_eq!(ids, [&[1][..], &[3], &[200, 1]], "every subscription says that it is meant");
        }
        client.expect_silence().await;
        client.unsubscribe("a/+").await;
        client.publish("a/b", b"x", (2, 2)).await;
        client.expect(0x50, &[0, 2]).await;
        assert_eq!(client.message().await.qos, 1);
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_subscribed_to_is_refused() {
    let running = Running::start().await;
    for version in [4, 5] {
        let refused = |code| if version == 5 { code } else { 0x80 };
        let mut client = Client::connect(running.at, version, "c").await;
        assert_eq!(client.subscribe("$share/group/a", 1).await, refused(0x9e));
        assert_eq!(client.subscribe(&"a/".repeat(200), 1).await, refused(0x8f));
        for number in 0..1_000 {
            assert_eq!(client.subscribe(&format!("a/{number}"), 0).await, 0);
        }
        assert_eq!(client.subscribe("one/more", 0).await, refused(0x97));
        assert_eq!(client.subscribe("a/7", 1).await, 1, "one that is there may change");
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_retained_message_greets_those_who_come_later() {
    for version in VERSIONS {
        let running = Running::start().await;
        let mut writer = Client::connect(running.at, version, "writer").await;
        let mut early = Client::connect(running.at, version, "early").await;
        early.subscribe("#", 2).await;
        for (topic, body) in [("all/a", "old"), ("all/a", "new"), ("b", "b"), ("c", "c"), ("c", "")] {
            writer.publish_acked(topic, body.as_bytes(), true).await;
            let message = early.message().await;
            assert_eq!((message.payload, message.retain), (body.as_bytes().to_vec(), false));
        }
        let mut late = Client::connect(running.at, version, "late").await;
        late.subscribe("+/#", 2).await;
        let mut found = Vec::new();
        for _ in 0..2 {
            let message = late.message().await;
            assert!(message.retain && message.qos == 1);
            found.push(message.payload);
        }
        found.sort();
        assert_eq!(found, [&b"b"[..], b"new"]);
        late.expect_silence().await;
        // They were events as well.
        assert_eq!(running.shelf.bodies(), ["old", "new"]);
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_5_says_how_retained_messages_are_wanted() {
    let running = Running::start().await;
    let mut client = Client::connect(running.at, 5, "c").await;
    client.publish_acked("r", b"x", true).await;
    // 1: only with a new subscription. 2: never. 0: always.
    for (handling, comes) in [(0x20, false), (0x10, false), (0x00, true)] {
        client.subscribe("r", handling | 1).await;
        if comes {
            assert!(client.message().await.retain);
        }
        client.expect_silence().await;
    }
    client.unsubscribe("r").await;
    client.subscribe("r", 0x11).await;
    assert!(client.message().await.retain);
    // Retain as published.
    client.subscribe("r", 0x29).await;
    client.publish_acked("r", b"y", true).await;
    assert!(client.message().await.retain);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_want_its_own_messages_does_not_get_them() {
    let running = Running::start().await;
    let mut client = Client::connect(running.at, 5, "c").await;
    let mut other = Client::connect(running.at, 5, "other").await;
    client.subscribe("t", 0x04).await;
    client.publish("t", b"mine", (0, 0)).await;
    client.ping().await;
    other.publish("t", b"yours", (0, 0)).await;
    assert_eq!(client.message().await.payload, b"yours");
    client.expect_silence().await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_go_along_and_old_messages_do_not() {
    let running = Running::start().await;
    let mut writer = Client::connect(running.at, 5, "writer").await;
    let mut reader = Client::connect(running.at, 5, "reader").await;
    reader.subscribe("t", 1).await;
    let properties =
        b"\x01\x01\x03\x00\x01j\x08\x00\x01r\x09\x00\x02\xff\0\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01c";
    let flags = Flags { qos: 1, id: 1, properties, ..Flags::default() };
    writer.send(&publish(5, "t", b"x", &flags)).await;
    let mut found = reader.message().await.properties;
    let mut expected = properties.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    writer.expect(0x40, &[0, 1]).await;
    for (seconds, comes) in [(1, false), (60, true)] {
        let flags = Flags { qos: 1, id: 1, retain: true, properties: &[0x02, 0, 0, 0, seconds], ..Flags::default() };
        writer.send(&publish(5, "old", b"x", &flags)).await;
        writer.expect(0x40, &[0, 1]).await;
        let mut late = Client::connect(running.at, 5, "late").await;
        late.subscribe("old", 0).await;
        let first = late.message().await.properties;
        assert!(first.starts_with(&[0x02, 0, 0, 0]) && first[4] <= seconds, "{first:?}");
        // Who asks again and again sees it grow old, and sees it go if its time is short.
        let began = std::time::Instant::now();
        let is_there = loop {
            assert!(began.elapsed() < Duration::from_secs(10), "it does not grow older");
            late.subscribe("old", 0).await;
            late.send(&[0xc0, 0]).await;
            let next = late.receive().await;
            if next.first == 0xd0 {
                break false;
            }
            late.expect(0xd0, &[]).await;
            if seconds > 1 && message(&next, 5).properties[4] < first[4] {
                break true;
            }
        };
        assert_eq!(is_there, comes);
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_no_more_than_it_takes() {
    let running = Running::start().await;
    // Three unacknowledged ones, and packets of 40 bytes.
    let modest = Connect { id: "c", properties: b"\x21\x00\x03\x27\0\0\0\x28", ..Connect::default() };
    let (mut client, _) = Client::resume(running.at, &modest).await;
    client.subscribe("t", 1).await;
    let mut writer = Client::connect(running.at, 5, "writer").await;
    writer.publish("t", &[b'x'; 60], (1, 9)).await;
    writer.expect(0x40, &[0, 9]).await;
    for number in 0..5 {
        writer.publish("t", &[number], (1, 9)).await;
        writer.expect(0x40, &[0, 9]).await;
    }
    let mut ids = Vec::new();
    for number in 0..3 {
        let message = client.message().await;
        assert_eq!(message.payload, [number]);
        ids.push(message.id.to_be_bytes());
    }
    client.expect_silence().await;
    client.send(&[0x40, 2, ids[1][0], ids[1][1]]).await;
    assert_eq!(client.message().await.payload, [3]);
    client.expect_silence().await;
    assert_eq!(running.counts.read().dropped, 1);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_is_let_go_and_others_do_not_notice() {
    for (qos, is_let_go) in [(0, false), (1, true)] {
        let running = Running::start().await;
        let mut slow = Client::connect(running.at, 5, "slow").await;
        slow.subscribe("t", qos).await;
        let mut quick = Client::connect(running.at, 5, "quick").await;
        quick.subscribe("t", 0).await;
        let mut writer = Client::connect(running.at, 5, "writer").await;
        let body = vec![b'x'; 256 << 10];
        for number in 0..100 {
            writer.publish("t", &body, (qos, 1)).await;
            if qos > 0 {
                writer.expect(0x40, &[0, 1]).await;
            }
            assert_eq!(quick.receive().await.first >> 4, 3, "message {number}");
        }
        writer.ping().await;
        let dropped = running.counts.read().dropped;
        assert!(dropped > 0, "{dropped} dropped");
        until("as expected", || running.counts.read().connections == if is_let_go { 2 } else { 3 }).await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unsubscribing_says_what_there_was() {
    let running = Running::start().await;
    let mut client = Client::connect(running.at, 5, "c").await;
    client.subscribe("a", 0).await;
    client.send(&packet(0xa2, b"\0\x05\0\0\x01a\0\x01b")).await;
    client.expect(0xb0, &[0, 5, 0, 0, 0x11]).await;
    running.end().await;
}
