//! PUBACK, PUBREC, PUBREL and PUBCOMP.

use super::Answer::SentAway;
use super::{Rule, break_all};

pub(super) const RULES: &[Rule] = &[
    Rule {
        v3: "4.8.0-1",
        v5: "4.13.1-1",
        says: "PUBACK has a packet id",
        send: |_| vec![0x40, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "4.8.0-1",
        v5: "4.13.1-1",
        says: "PUBREL has a whole packet id",
        send: |_| vec![0x62, 1, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "2.3.1-1",
        v5: "2.2.1-3",
        says: "The packet id of PUBACK is not 0",
        send: |_| vec![0x40, 2, 0, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "2.3.1-1",
        v5: "2.2.1-3",
        says: "The packet id of PUBREL is not 0",
        send: |_| vec![0x62, 2, 0, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "4.8.0-1",
        v5: "",
        says: "Nothing is left over in PUBACK",
        send: |_| vec![0x40, 3, 0, 1, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "4.8.0-1",
        v5: "",
        says: "Nothing is left over in PUBREL",
        send: |_| vec![0x62, 4, 0, 1, 0, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "4.13.1-1",
        says: "Nothing is left over in PUBACK",
        send: |_| vec![0x40, 5, 0, 1, 0, 0, 0],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "3.4.2-1",
        says: "PUBACK has a reason that there is",
        send: |_| vec![0x40, 3, 0, 1, 0x01],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "3.5.2-1",
        says: "PUBREC has a reason that there is",
        send: |_| vec![0x50, 3, 0, 1, 0x92],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "3.6.2-1",
        says: "PUBREL has a reason that there is",
        send: |_| vec![0x62, 3, 0, 1, 0x10],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "3.7.2-1",
        says: "PUBCOMP has a reason that there is",
        send: |_| vec![0x70, 3, 0, 1, 0x10],
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "3.4.2.2.2",
        says: "PUBACK has one reason string",
        send: |_| b"\x40\x0c\0\x01\0\x08\x1f\0\x01a\x1f\0\x01b".to_vec(),
        answer: SentAway(0x82),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_that_break_the_rules_end_the_connection() {
    break_all(RULES).await;
}
