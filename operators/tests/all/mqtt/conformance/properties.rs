//! The properties of MQTT 5: those of CONNECT one by one, and all of them in all packets.

use super::Answer::Refused;
use super::{Rule, break_all, connect_with, field, filters, packet, publish, text};
use crate::mqtt::broker::Running;
use crate::mqtt::client::{Client, Packet, length};

pub(super) const RULES: &[Rule] = &[
    Rule {
        v3: "",
        v5: "3.1.2.11.3",
        says: "The Receive Maximum is not 0",
        send: |version| connect_with(version, 2, &[0x21, 0, 0], &text("c")),
        answer: Refused(0x82),
    },
    Rule {
        v3: "",
        v5: "3.1.2.11.4",
        says: "The Maximum Packet Size is not 0",
        send: |version| connect_with(version, 2, &[0x27, 0, 0, 0, 0], &text("c")),
        answer: Refused(0x82),
    },
    Rule {
        v3: "",
        v5: "3.1.2.11.6",
        says: "Request Response Information is 0 or 1",
        send: |version| connect_with(version, 2, &[0x19, 2], &text("c")),
        answer: Refused(0x82),
    },
    Rule {
        v3: "",
        v5: "3.1.2.11.7",
        says: "Request Problem Information is 0 or 1",
        send: |version| connect_with(version, 2, &[0x17, 2], &text("c")),
        answer: Refused(0x82),
    },
    Rule {
        v3: "",
        v5: "3.1.2.11.10",
        says: "Authentication data comes with a method",
        send: |version| connect_with(version, 2, b"\x16\0\x01x", &text("c")),
        answer: Refused(0x82),
    },
    Rule {
        v3: "",
        v5: "4.12.0-1",
        says: "An authentication method is one that the broker knows: it knows none",
        send: |version| connect_with(version, 2, b"\x15\0\x01x\x16\0\x01x", &text("c")),
        answer: Refused(0x8c),
    },
    Rule {
        v3: "",
        v5: "1.5.7-1",
        says: "User properties are UTF-8",
        send: |version| connect_with(version, 2, b"\x26\0\x01a\0\x01\xff", &text("c")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "",
        v5: "1.5.4-2",
        says: "User properties have no U+0000",
        send: |version| connect_with(version, 2, b"\x26\0\x01\0\0\x01b", &text("c")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "",
        v5: "2.2.2-1",
        says: "CONNECT has a length of its properties",
        send: |_| packet(0x10, b"\0\x04MQTT\x05\x02\0\0"),
        answer: Refused(0x81),
    },
    Rule {
        v3: "",
        v5: "2.2.2.1",
        says: "Properties end within their packet",
        send: |_| packet(0x10, b"\0\x04MQTT\x05\x02\0\0\x40\x21\0\x01\0\x01c"),
        answer: Refused(0x81),
    },
    Rule {
        v3: "",
        v5: "2.2.2.1",
        says: "A property ends within the properties",
        send: |_| packet(0x10, b"\0\x04MQTT\x05\x02\0\0\x02\x21\0\x01\0\x01c"),
        answer: Refused(0x81),
    },
    Rule {
        v3: "",
        v5: "1.5.5-1",
        says: "The length of the properties has no more bytes than it needs",
        send: |_| packet(0x10, b"\0\x04MQTT\x05\x02\0\0\x80\0\0\x01c"),
        answer: Refused(0x81),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn properties_of_connect_that_break_the_rules_are_refused() {
    break_all(RULES).await;
}

/// What carries properties, in the order of the columns below: CONNECT, its will, PUBLISH, PUBACK, PUBREC, PUBREL,
/// PUBCOMP, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT.
const CARRIERS: usize = 10;

/// Table 2-4 of the standard: id, a value, and where clients may send it.
const TABLE: [(u8, &[u8], &str); 27] = [
    (0x01, &[1], "-WP-------"),
    (0x02, &[0, 0, 0, 9], "-WP-------"),
    (0x03, b"\0\x01a", "-WP-------"),
    (0x08, b"\0\x01a", "-WP-------"),
    (0x09, b"\0\x01a", "-WP-------"),
    (0x0b, &[1], "-------S--"),
    (0x11, &[0, 0, 0, 0], "C--------D"),
    (0x12, b"\0\x01a", "----------"),
    (0x13, &[0, 9], "----------"),
    (0x15, b"\0\x01a", "C---------"),
    (0x16, b"\0\x01a", "C---------"),
    (0x17, &[1], "C---------"),
    (0x18, &[0, 0, 0, 9], "-W--------"),
    (0x19, &[1], "C---------"),
    (0x1a, b"\0\x01a", "----------"),
    (0x1c, b"\0\x01a", "----------"),
    (0x1f, b"\0\x01a", "---AAAA--D"),
    (0x21, &[0, 9], "C---------"),
    (0x22, &[0, 9], "C---------"),
    (0x23, &[0, 9], "--P-------"),
    (0x24, &[1], "----------"),
    (0x25, &[1], "----------"),
    (0x26, b"\0\x01a\0\x01b", "CWPAAAASUD"),
    (0x27, &[0, 1, 0, 0], "C---------"),
    (0x28, &[1], "----------"),
    (0x29, &[1], "----------"),
    (0x2a, &[1], "----------"),
];

/// A packet with these properties.
fn carrier(column: usize, of: &[u8]) -> Vec<u8> {
    let answered = |first| packet(first, &[&[0, 1, 0], length(of.len()).as_slice(), of].concat());
    match column {
        0 => connect_with(5, 2, of, &text("c")),
        1 => {
            let will = [&text("c"), length(of.len()).as_slice(), of, &text("all/w"), &text("w")].concat();
            connect_with(5, 6, &[], &will)
        }
        2 => publish(5, 0x30, b"all/a", None, of),
        3 => answered(0x40),
        4 => answered(0x50),
        5 => answered(0x62),
        6 => answered(0x70),
        7 => filters(5, 0x82, 1, of, &[field(b"a"), vec![0]].concat()),
        8 => filters(5, 0xa2, 1, of, &field(b"a")),
        _ => packet(0xe0, &[&[0], length(of.len()).as_slice(), of].concat()),
    }
}

/// Everything that the broker says to a packet, a PINGREQ and a DISCONNECT.
async fn said(running: &Running, column: usize, of: &[u8]) -> Vec<Packet> {
    let mut client =
        if column < 2 { Client::open(running.at, 5).await } else { Client::connect(running.at, 5, "c").await };
    client.try_send(&[carrier(column, of), vec![0xc0, 0, 0xe0, 0]].concat()).await;
    let mut said = Vec::new();
    while let Some(packet) = client.next().await {
        said.push(packet);
    }
    said
}

/// The code of a refusal.
fn refusal(said: &[Packet], column: usize) -> Option<u8> {
    let (first, at) = if column < 2 { (0x20, 1) } else { (0xe0, 0) };
    said.iter().find(|packet| packet.first == first).map(|packet| packet.body[at]).filter(|code| *code != 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_property_has_its_packets_and_is_there_once() {
    let running = Running::start().await;
    for (id, value, places) in TABLE {
        let once = [&[id], value].concat();
        for column in 0..CARRIERS {
            let is_allowed = places.as_bytes()[column] != b'-';
            let found = refusal(&said(&running, column, &once).await, column);
            let expected = match (id, column) {
                // Only brokers send a subscription id with a message, and data without a method means nothing.
                (0x0b, 2) | (0x16, 0) => Some(0x82),
                // No method is known.
                (0x15, 0) => Some(0x8c),
                _ => (!is_allowed).then_some(0x81),
            };
            assert_eq!(found, expected, "{id:#04x} in {column}");
            if !is_allowed {
                continue;
            }
            let twice = refusal(&said(&running, column, &once.repeat(2)).await, column);
            assert_eq!(twice, (id != 0x26).then_some(0x82), "{id:#04x} twice in {column}");
            let cut = refusal(&said(&running, column, &once[..once.len() - 1]).await, column);
            assert_eq!(cut, Some(0x81), "{id:#04x} cut in {column}");
        }
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_there_are_not_are_refused() {
    let running = Running::start().await;
    for id in (0..=0xff).filter(|id| !TABLE.iter().any(|(known, ..)| known == id)) {
        for column in 0..CARRIERS {
            let found = refusal(&said(&running, column, &[id, 1, 1]).await, column);
            assert_eq!(found, Some(0x81), "{id:#04x} in {column}");
        }
    }
    running.end().await;
}
