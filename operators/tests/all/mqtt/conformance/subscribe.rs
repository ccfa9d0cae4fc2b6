//! SUBSCRIBE and UNSUBSCRIBE.

use super::Answer::SentAway;
use super::{Rule, break_all, field, filters};

/// A filter and its options.
fn wish(filter: &[u8], options: u8) -> Vec<u8> {
    [field(filter), vec![options]].concat()
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        v3: "2.3.1-1",
        v5: "2.2.1-3",
        says: "The packet id of SUBSCRIBE is not 0",
        send: |version| filters(version, 0x82, 0, &[], &wish(b"a", 0)),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "2.3.1-1",
        v5: "2.2.1-3",
        says: "The packet id of UNSUBSCRIBE is not 0",
        send: |version| filters(version, 0xa2, 0, &[], &field(b"a")),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.8.3-3",
        v5: "3.8.3-2",
        says: "SUBSCRIBE has a filter",
        send: |version| filters(version, 0x82, 1, &[], &[]),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "3.10.3-2",
        v5: "3.10.3-2",
        says: "UNSUBSCRIBE has a filter",
        send: |version| filters(version, 0xa2, 1, &[], &[]),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "3.8.3-1",
        v5: "3.8.3-1",
        says: "The filters of SUBSCRIBE are UTF-8",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a\xff", 0)),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.10.3-1",
        v5: "3.10.3-1",
        says: "The filters of UNSUBSCRIBE are UTF-8",
        send: |version| filters(version, 0xa2, 1, &[], &field(b"a\xff")),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "4.7.3-2",
        v5: "4.7.3-2",
        says: "The filters of SUBSCRIBE have no U+0000",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a\0", 0)),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "4.7.3-2",
        v5: "4.7.3-2",
        says: "The filters of UNSUBSCRIBE have no U+0000",
        send: |version| filters(version, 0xa2, 1, &[], &field(b"a\0")),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "4.7.3-1",
        v5: "4.7.3-1",
        says: "A filter of SUBSCRIBE is not empty",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"", 0)),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "4.7.3-1",
        v5: "4.7.3-1",
        says: "A filter of UNSUBSCRIBE is not empty",
        send: |version| filters(version, 0xa2, 1, &[], &field(b"")),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "4.7.1-2",
        v5: "4.7.1-1",
        says: "# is the last level of a filter",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a/#/b", 0)),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "4.7.1-2",
        v5: "4.7.1-1",
        says: "# is a whole level of a filter",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a#", 0)),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "4.7.1-3",
        v5: "4.7.1-2",
        says: "+ is a whole level of a filter",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a/b+/c", 0)),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "4.7.1-3",
        v5: "4.7.1-2",
        says: "+ is a whole level of a filter, also behind a right one",
        send: |version| filters(version, 0x82, 1, &[], &[wish(b"a", 0), wish(b"+a", 0)].concat()),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "3.8.3-3",
        v5: "3.8.3-1",
        says: "Every filter of SUBSCRIBE has its options",
        send: |version| filters(version, 0x82, 1, &[], &field(b"a")),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "4.8.0-1",
        v5: "4.13.1-1",
        says: "A filter has room in its packet",
        send: |version| filters(version, 0x82, 1, &[], b"\0\x09a"),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.8.3-4",
        v5: "",
        says: "The QoS of a subscription is 0, 1 or 2",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a", 3)),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.8.3-4",
        v5: "",
        says: "The upper six bits of a requested QoS are 0",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a", 4)),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.8.3-4",
        v5: "3.8.3-5",
        says: "Reserved bits of the subscription options are 0: the highest",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a", 0x80)),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "3.8.3-4",
        v5: "3.8.3-5",
        says: "Reserved bits of the subscription options are 0: the one below",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a", 0x40)),
        answer: SentAway(0x81),
    },
    Rule {
        v3: "",
        v5: "3.8.3.1",
        says: "The QoS of a subscription is 0, 1 or 2",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a", 3)),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "3.8.3.1",
        says: "The retain handling of a subscription is 0, 1 or 2",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"a", 0x30)),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "3.8.3-4",
        says: "No Local is not set on a shared subscription",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"$share/g/a", 0x04)),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "4.8.2-1",
        says: "The share name is not empty",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"$share//a", 0)),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "",
        v5: "4.8.2-2",
        says: "The share name has no wildcards",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"$share/g+/a", 0)),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "",
        v5: "4.8.2-2",
        says: "A filter follows the share name",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"$share/g", 0)),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "",
        v5: "4.8.2-2",
        says: "The filter behind the share name is not empty",
        send: |version| filters(version, 0x82, 1, &[], &wish(b"$share/g/", 0)),
        answer: SentAway(0x8f),
    },
    Rule {
        v3: "",
        v5: "3.8.2.1.2",
        says: "A subscription id is not 0",
        send: |version| filters(version, 0x82, 1, &[0x0b, 0], &wish(b"a", 0)),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "3.8.2.1.2",
        says: "SUBSCRIBE has one subscription id",
        send: |version| filters(version, 0x82, 1, &[0x0b, 1, 0x0b, 2], &wish(b"a", 0)),
        answer: SentAway(0x82),
    },
    Rule {
        v3: "",
        v5: "1.5.5-1",
        says: "A subscription id has no more bytes than it needs",
        send: |version| filters(version, 0x82, 1, &[0x0b, 0x81, 0], &wish(b"a", 0)),
        answer: SentAway(0x81),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_break_the_rules_end_the_connection() {
    break_all(RULES).await;
}
