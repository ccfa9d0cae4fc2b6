//! CONNECT, and what is none.

use super::Answer::{Closed, Refused, Told};
use super::{Rule, break_all, connect, field, packet, properties, protocol, text};

pub(super) const RULES: &[Rule] = &[
    Rule {
        v3: "3.1.0-1",
        v5: "3.1.0-1",
        says: "The first packet is CONNECT: not PINGREQ",
        send: |_| vec![0xc0, 0],
        answer: Closed,
    },
    Rule {
        v3: "3.1.0-1",
        v5: "3.1.0-1",
        says: "The first packet is CONNECT: not PUBLISH",
        send: |version| super::publish(version, 0x30, b"all/a", None, &[]),
        answer: Closed,
    },
    Rule {
        v3: "3.1.0-1",
        v5: "3.1.0-1",
        says: "Another protocol is no CONNECT: the hello of TLS",
        send: |_| b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        answer: Closed,
    },
    Rule {
        v3: "3.1.0-1",
        v5: "3.1.0-1",
        says: "Another protocol is no CONNECT: HTTP",
        send: |_| b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        answer: Closed,
    },
    Rule {
        v3: "2.2.2-2",
        v5: "2.1.3-1",
        says: "The reserved flags of CONNECT's first byte are 0",
        send: |version| {
            let mut bytes = connect(version, 2, &text("c"));
            bytes[0] = 0x11;
            bytes
        },
        answer: Closed,
    },
    Rule {
        v3: "2.2.3",
        v5: "2.1.4",
        says: "A CONNECT's length has four bytes at most",
        send: |_| vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        answer: Closed,
    },
    Rule {
        v3: "3.1.2-1",
        v5: "3.1.2-1",
        says: "The protocol's name is MQTT (MQIsdp in 3.1)",
        send: |version| packet(0x10, &[text("MQTX"), vec![version, 2, 0, 0, 0, 0, 0]].concat()),
        answer: Told(0x01, 0x84),
    },
    Rule {
        v3: "3.1.2-1",
        v5: "3.1.2-1",
        says: "A protocol's name that no protocol has room for is not waited for",
        send: |_| b"\x10\xff\xff\x03\xff\xffMQTT".to_vec(),
        answer: Closed,
    },
    Rule {
        v3: "3.1.2-2",
        v5: "3.1.2-2",
        says: "The protocol's level is one that the broker speaks",
        send: |version| {
            packet(0x10, &[text("MQTT"), vec![if version == 5 { 6 } else { 2 }, 2, 0, 0, 0, 0, 0]].concat())
        },
        answer: Told(0x01, 0x84),
    },
    Rule {
        v3: "3.1.2-3",
        v5: "3.1.2-3",
        says: "The reserved flag of CONNECT is 0",
        send: |version| connect(version, 0x03, &text("c")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-18",
        v5: "3.1.2-16",
        says: "Without the User Name Flag there is no user name",
        send: |version| connect(version, 0x02, &[text("c"), text("me")].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-19",
        v5: "3.1.2-17",
        says: "With the User Name Flag there is a user name",
        send: |version| connect(version, 0x82, &text("c")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-20",
        v5: "3.1.2-18",
        says: "Without the Password Flag there is no password",
        send: |version| connect(version, 0x82, &[text("c"), text("me"), text("secret")].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-21",
        v5: "3.1.2-19",
        says: "With the Password Flag there is a password",
        send: |version| connect(version, 0xc2, &[text("c"), text("me")].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-22",
        v5: "",
        says: "Without the User Name Flag the Password Flag is 0",
        send: |version| connect(version, 0x42, &[text("c"), text("secret")].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.3-3",
        v5: "3.1.3-3",
        says: "The client id is there, and is the first field",
        send: |version| connect(version, 0x02, &[]),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.3-4",
        v5: "3.1.3-4",
        says: "The client id is UTF-8",
        send: |version| connect(version, 0x02, &field(b"c\xff")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "1.5.3-1",
        v5: "1.5.4-1",
        says: "A client id has no surrogates",
        send: |version| connect(version, 0x02, &field(b"\xed\xa0\x80")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "1.5.3-2",
        v5: "1.5.4-2",
        says: "A client id has no U+0000",
        send: |version| connect(version, 0x02, &field(b"a\0b")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.3-8",
        v5: "",
        says: "An empty client id goes with a clean session only",
        send: |version| connect(version, 0x00, &text("")),
        answer: Told(0x02, 0x85),
    },
    Rule {
        v3: "3.1.3-11",
        v5: "3.1.3-12",
        says: "The user name is UTF-8",
        send: |version| connect(version, 0x82, &[text("c"), field(b"\xc0\xaf")].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "1.5.3-2",
        v5: "1.5.4-2",
        says: "A user name has no U+0000",
        send: |version| connect(version, 0x82, &[text("c"), field(b"me\0")].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.4-1",
        v5: "3.1.4-1",
        says: "A CONNECT has room for its fields: none at all",
        send: |_| vec![0x10, 0],
        answer: Closed,
    },
    Rule {
        v3: "3.1.4-1",
        v5: "3.1.4-1",
        says: "A CONNECT has room for its fields: the name goes beyond it",
        send: |_| b"\x10\x04\0\x04MQTT\x04\x02\0\0\0\0".to_vec(),
        answer: Closed,
    },
    Rule {
        v3: "3.1.4-1",
        v5: "3.1.4-1",
        says: "A CONNECT has room for its fields: it ends before the keep alive",
        send: |version| packet(0x10, &[protocol(version), vec![2, 0]].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.4-1",
        v5: "3.1.4-1",
        says: "A CONNECT has room for its fields: the client id goes beyond it",
        send: |version| {
            let body = [protocol(version), vec![2, 0, 0], properties(version, &[]), vec![0, 9, b'c']].concat();
            [packet(0x10, &body), vec![b'x'; 20]].concat()
        },
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.4-1",
        v5: "3.1.4-1",
        says: "A CONNECT has room for its fields: the password goes beyond it",
        send: |version| connect(version, 0xc2, &[text("c"), text("me"), vec![0xff, 0xff, b's']].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.4-1",
        v5: "3.1.4-1",
        says: "Nothing is left over behind the fields of CONNECT",
        send: |version| connect(version, 0x02, &[text("c"), vec![0]].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.4-1",
        v5: "3.2.2.2",
        says: "A CONNECT is no longer than the broker takes",
        send: |version| [vec![0x10, 0xff, 0xff, 0xff, 0x7f], protocol(version)].concat(),
        answer: Refused(0x95),
    },
    Rule {
        v3: "",
        v5: "1.5.5-1",
        says: "The length of a CONNECT has no more bytes than it needs",
        send: |version| {
            let bytes = connect(version, 0x02, &text("c"));
            [&[bytes[0], bytes[1] | 0x80, 0], &bytes[2..]].concat()
        },
        answer: Refused(0x81),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_connect_is_refused_at_once() {
    break_all(RULES).await;
}
