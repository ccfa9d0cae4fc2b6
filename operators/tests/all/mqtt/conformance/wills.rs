//! The will in a CONNECT.

use super::Answer::Refused;
use super::{Rule, break_all, connect, field, properties, text};

/// Client id, will topic and will payload.
fn will(version: u8, of: &[u8], topic: &[u8], payload: &[u8]) -> Vec<u8> {
    [text("c"), properties(version, of), field(topic), field(payload)].concat()
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        v3: "3.1.2-13",
        v5: "3.1.2-11",
        says: "Without the Will Flag the Will QoS is 0",
        send: |version| connect(version, 0x0a, &text("c")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-15",
        v5: "3.1.2-13",
        says: "Without the Will Flag Will Retain is 0",
        send: |version| connect(version, 0x22, &text("c")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-14",
        v5: "3.1.2-12",
        says: "The Will QoS is not 3",
        send: |version| connect(version, 0x1e, &will(version, &[], b"t", b"w")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-11",
        v5: "3.1.4-1",
        says: "Without the Will Flag there is no will",
        send: |version| connect(version, 0x02, &will(version, &[], b"t", b"w")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-9",
        v5: "3.1.2-9",
        says: "With the Will Flag there is a will",
        send: |version| connect(version, 0x06, &text("c")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.2-9",
        v5: "3.1.2-9",
        says: "With the Will Flag there is a payload of the will",
        send: |version| connect(version, 0x06, &[text("c"), properties(version, &[]), text("t")].concat()),
        answer: Refused(0x81),
    },
    Rule {
        v3: "3.1.3-10",
        v5: "3.1.3-11",
        says: "The topic of a will is UTF-8",
        send: |version| connect(version, 0x06, &will(version, &[], b"\xff", b"w")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "1.5.3-1",
        v5: "1.5.4-1",
        says: "The topic of a will has no surrogates",
        send: |version| connect(version, 0x06, &will(version, &[], b"\xed\xbf\xbf", b"w")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "1.5.3-2",
        v5: "1.5.4-2",
        says: "The topic of a will has no U+0000",
        send: |version| connect(version, 0x06, &will(version, &[], b"a\0", b"w")),
        answer: Refused(0x81),
    },
    Rule {
        v3: "4.7.3-1",
        v5: "4.7.3-1",
        says: "The topic of a will is not empty",
        send: |version| connect(version, 0x06, &will(version, &[], b"", b"w")),
        answer: Refused(0x90),
    },
    Rule {
        v3: "4.7.1-1",
        v5: "4.7.0-1",
        says: "The topic of a will has no wildcards: +",
        send: |version| connect(version, 0x06, &will(version, &[], b"a/+", b"w")),
        answer: Refused(0x90),
    },
    Rule {
        v3: "4.7.1-1",
        v5: "4.7.0-1",
        says: "The topic of a will has no wildcards: #",
        send: |version| connect(version, 0x06, &will(version, &[], b"#", b"w")),
        answer: Refused(0x90),
    },
    Rule {
        v3: "",
        v5: "3.1.3.2.3",
        says: "A will that says it is text is UTF-8",
        send: |version| connect(version, 0x06, &will(version, &[0x01, 1], b"t", b"\xff")),
        answer: Refused(0x99),
    },
    Rule {
        v3: "",
        v5: "3.1.3.2.3",
        says: "The payload format of a will is 0 or 1",
        send: |version| connect(version, 0x06, &will(version, &[0x01, 2], b"t", b"w")),
        answer: Refused(0x82),
    },
    Rule {
        v3: "",
        v5: "3.1.3.2.6",
        says: "The response topic of a will has no wildcards",
        send: |version| connect(version, 0x06, &will(version, b"\x08\0\x01#", b"t", b"w")),
        answer: Refused(0x82),
    },
    Rule {
        v3: "",
        v5: "3.1.3.2.2",
        says: "A will has one delay",
        send: |version| connect(version, 0x06, &will(version, b"\x18\0\0\0\x01\x18\0\0\0\x01", b"t", b"w")),
        answer: Refused(0x82),
    },
    Rule {
        v3: "",
        v5: "2.2.2.2",
        says: "A will has no properties of other packets",
        send: |version| connect(version, 0x06, &will(version, b"\x23\0\x01", b"t", b"w")),
        answer: Refused(0x81),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn wills_that_break_the_rules_are_refused() {
    break_all(RULES).await;
}
