//! PUBLISH.

use super::Answer::SentAway;
use super::{Rule, break_all, field, packet, publish};

pub(super) const RULES: &[Rule] = &[
    Rule {
        v3: "3.3.1-2",
        v5: "3.3.1-2",
        says: "DUP is 0 with QoS 0",
        send: |version| publish(version, 0x38, b"all/a", None, &[]),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.3.1-4",
        v5: "3.3.1-4",
        says: "There is no QoS 3",
        send: |version| publish(version, 0x36, b"all/a", Some(1), &[]),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "2.3.1-1",
        v5: "2.2.1-3",
        says: "The packet id of a publish is not 0: QoS 1",
        send: |version| publish(version, 0x32, b"all/a", Some(0), &[]),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "2.3.1-1",
        v5: "2.2.1-3",
        says: "The packet id of a publish is not 0: QoS 2",
        send: |version| publish(version, 0x34, b"all/a", Some(0), &[]),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.3.2-1",
        v5: "3.3.2-1",
        says: "A publish has a topic: none at all",
        send: |_| vec![0x30, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.3.2-1",
        v5: "3.3.2-1",
        says: "A publish has a topic: it goes beyond its packet",
        send: |_| b"\x30\x04\0\x09al\0\0\0\0\0\0\0\0".to_vec(),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.3.2-1",
        v5: "3.3.2-1",
        says: "A publish of QoS 1 has a packet id",
        send: |_| packet(0x32, &[field(b"all/a"), vec![0]].concat()),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.3.2-1",
        v5: "3.3.2-1",
        says: "A topic is UTF-8",
        send: |version| publish(version, 0x30, b"all/\xff\xfe", None, &[]),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "1.5.3-1",
        v5: "1.5.4-1",
        says: "A topic has no surrogates",
        send: |version| publish(version, 0x30, b"all/\xed\xa0\x80", None, &[]),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "1.5.3-1",
        v5: "1.5.4-1",
        says: "A topic has no characters in more bytes than they need",
        send: |version| publish(version, 0x30, b"all/\xc0\x80", None, &[]),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "1.5.3-2",
        v5: "1.5.4-2",
        says: "A topic has no U+0000",
        send: |version| publish(version, 0x32, b"all/a\0", Some(1), &[]),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.3.2-2",
        v5: "3.3.2-2",
        says: "A topic has no wildcards: +",
        send: |version| publish(version, 0x32, b"all/+", Some(1), &[]),
        answer: SentAway(0x90),
    },
    Rule {
        v3: "3.3.2-2",
        v5: "3.3.2-2",
        says: "A topic has no wildcards: #",
        send: |version| publish(version, 0x30, b"all/#", None, &[]),
        answer: SentAway(0x90),
    },
    Rule {
        v3: "4.7.3-1",
        v5: "4.7.3-1",
        says: "A topic is not empty",
        send: |version| publish(version, 0x30, b"", None, &[]),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "3.3.2-8",
        says: "A topic alias is not 0",
        send: |version| publish(version, 0x30, b"all/a", None, &[0x23, 0, 0]),
        answer: SentAway(0x94),
    },
    Rule {
        v3: "",
        v5: "3.3.2-9",
        says: "A topic alias is within the Topic Alias Maximum, 64",
        send: |version| publish(version, 0x30, b"all/a", None, &[0x23, 0, 65]),
        answer: SentAway(0x94),
    },
    Rule {
        v3: "",
        v5: "3.3.2.3.4",
        says: "A topic alias without a topic was given one before",
        send: |version| publish(version, 0x30, b"", None, &[0x23, 0, 3]),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "3.3.4-6",
        says: "Clients send no subscription ids with a publish",
        send: |version| publish(version, 0x30, b"all/a", None, &[0x0b, 1]),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "3.3.2.3.2",
        says: "A payload that says it is text is UTF-8",
        send: |version| {
            let mut bytes = publish(version, 0x32, b"all/a", Some(1), &[0x01, 1]);
            *bytes.last_mut().expect("a payload") = 0xff;
            bytes
        },
        answer: SentAway(0x99),
    },
    Rule {
        v3: "",
        v5: "3.3.2.3.2",
        says: "The payload format is 0 or 1",
        send: |version| publish(version, 0x30, b"all/a", None, &[0x01, 2]),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "3.3.2-13",
        says: "A response topic is UTF-8",
        send: |version| publish(version, 0x30, b"all/a", None, b"\x08\0\x01\xff"),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "3.3.2-14",
        says: "A response topic has no wildcards: +",
        send: |version| publish(version, 0x30, b"all/a", None, b"\x08\0\x03r/+"),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "3.3.2-14",
        says: "A response topic has no wildcards: #",
        send: |version| publish(version, 0x30, b"all/a", None, b"\x08\0\x01#"),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "3.3.2-19",
        says: "A content type is UTF-8",
        send: |version| publish(version, 0x30, b"all/a", None, b"\x03\0\x01\xff"),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "1.5.4-2",
        says: "A content type has no U+0000",
        send: |version| publish(version, 0x30, b"all/a", None, b"\x03\0\x01\0"),
        answer: SentAway(0x81),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn publishes_that_break_the_rules_end_the_connection() {
    break_all(RULES).await;
}
