//! Packets as such: types, flags, lengths, and what only brokers send.

use super::Answer::SentAway;
use super::{Rule, break_all, connect, packet, publish, text};
use crate::mqtt::broker::Running;
use crate::mqtt::client::{Client, VERSIONS};

pub(super) const RULES: &[Rule] = &[
    Rule {
        v3: "3.1.0-2",
        v5: "3.1.0-2",
        says: "CONNECT comes once",
        send: |version| connect(version, 0x02, &text("c")),
        answer: SentAway(0x82),
    },
    Rule { v3: "2.2.1", v5: "2.1.2", says: "There is no type 0", send: |_| vec![0, 0], answer: SentAway(0x81) },
    Rule {
        v3: "2.2.1",
        v5: "",
        says: "There is no type 15 in MQTT 3.1.1",
        send: |_| vec![0xf0, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "2.2.1",
        v5: "2.1.2",
        says: "Clients do not send CONNACK",
        send: |_| vec![0x20, 2, 0, 0],
        answer: SentAway(0x82),
    },
    Rule {
        v3: "2.2.1",
        v5: "2.1.2",
        says: "Clients do not send SUBACK",
        send: |_| vec![0x90, 3, 0, 1, 0],
        answer: SentAway(0x82),
    },
    Rule {
        v3: "2.2.1",
        v5: "2.1.2",
        says: "Clients do not send UNSUBACK",
        send: |_| vec![0xb0, 2, 0, 1],
        answer: SentAway(0x82),
    },
    Rule {
        v3: "2.2.1",
        v5: "2.1.2",
        says: "Clients do not send PINGRESP",
        send: |_| vec![0xd0, 0],
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "4.12.0-7",
        says: "Without an authentication method in CONNECT there is no AUTH",
        send: |_| vec![0xf0, 0],
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "4.12.0-7",
        says: "AUTH does not bring a method later either",
        send: |_| b"\xf0\x06\x18\x04\x15\0\x01x".to_vec(),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "2.2.3",
        v5: "2.1.4",
        says: "A length has four bytes at most",
        send: |_| vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "1.5.5-1",
        says: "A length has no more bytes than it needs",
        send: |_| vec![0xc0, 0x80, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "4.8.0-1",
        v5: "3.2.2-15",
        says: "A packet is no longer than the broker takes, and is not waited for",
        send: |_| vec![0x30, 0xff, 0xff, 0xff, 0x7f, 0],
        answer: SentAway(0x95),
    },
    Rule {
        v3: "4.8.0-1",
        v5: "4.13.1-1",
        says: "Nothing is left over in PINGREQ",
        send: |_| vec![0xc0, 1, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "4.8.0-1",
        v5: "",
        says: "Nothing is left over in DISCONNECT",
        send: |_| vec![0xe0, 1, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "4.13.1-1",
        says: "Nothing is left over in DISCONNECT",
        send: |_| vec![0xe0, 3, 0, 0, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "3.14.2-1",
        says: "DISCONNECT has a reason that there is",
        send: |_| vec![0xe0, 1, 0x03],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "3.14.2.2.2",
        says: "DISCONNECT does not make a session last that was to end with its connection",
        send: |_| b"\xe0\x07\0\x05\x11\0\0\0\x01".to_vec(),
        answer: SentAway(0x82),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_break_the_rules_end_the_connection() {
    break_all(RULES).await;
}

/// Every type but PUBLISH, with every combination of flags that is reserved.
#[tokio::test(flavor = "multi_thread")]
async fn reserved_flags_of_the_first_byte_are_checked() {
    let running = Running::start().await;
    for version in VERSIONS {
        for kind in (1..=15_u8).filter(|kind| *kind != 3) {
            let right = if [6, 8, 10].contains(&kind) { 2 } else { 0 };
            for flags in (0..16).filter(|flags| *flags != right) {
                let mut client = Client::connect(running.at, version, "c").await;
                client.try_send(&[kind << 4 | flags, 2, 0, 1]).await;
                client.expect_end(0x81).await;
            }
        }
    }
    running.end().await;
}

/// What was received before a packet that breaks the rules is stored; what comes after it is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_broken_packet_is_stored_and_nothing_behind_it() {
    for version in VERSIONS {
        let running = Running::start().await;
        let mut client = Client::connect(running.at, version, "c").await;
        let one = |id| publish(version, 0x32, b"all/a", Some(id), &[]);
        client.send(&[one(1), vec![0, 0], one(2)].concat()).await;
        while client.next().await.is_some() {}
        assert_eq!(running.shelf.bodies(), ["x"]);
        running.end().await;
    }
}

/// A CONNECT that is refused takes what came with it along (3.1.4-5 in MQTT 3.1.1, 3.1.4-6 in MQTT 5).
#[tokio::test(flavor = "multi_thread")]
async fn nothing_behind_a_refused_connect_is_looked_at() {
    let running = Running::start().await;
    for version in VERSIONS {
        let mut client = Client::open(running.at, version).await;
        let refused = connect(version, 0x03, &text("c"));
        client.try_send(&[refused, publish(version, 0x30, b"all/a", None, &[])].concat()).await;
        while client.next().await.is_some() {}
    }
    assert_eq!((running.shelf.count(), running.counts.read().publishes), (0, [0; 3]));
    running.end().await;
}

/// A byte order mark is a character like others (1.5.3-3 in MQTT 3.1.1, 1.5.4-3 in MQTT 5).
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_in_a_topic_stays() {
    let running = Running::start().await;
    for version in VERSIONS {
        let mut client = Client::connect(running.at, version, "c").await;
        client.subscribe("all/\u{feff}a", 0).await;
        client.send(&publish(version, 0x30, "all/\u{feff}a".as_bytes(), None, &[])).await;
        assert_eq!(client.message().await.topic, "all/\u{feff}a");
        client.send(&packet(0xe0, &[])).await;
        assert_eq!(client.next().await, None);
    }
    assert!(running.shelf.stored().iter().all(|(topic, _)| topic == "all/\u{feff}a"));
    running.end().await;
}
