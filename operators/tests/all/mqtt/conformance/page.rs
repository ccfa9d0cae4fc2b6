//! docs/mqtt-conformance.md: the tables of this folder, and the tests that stand elsewhere.

use std::fmt::Write;
use std::path::Path;

use super::{Answer, Rule, acknowledgements, connect, packets, properties, publish, subscribe, wills};

const HEAD: &str = "\
# What the MQTT broker refuses

The statements of [MQTT 3.1.1](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html) and
[5.0](https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html) on what a broker has to check, in our own words, and what the
[embedded broker](mqtt.md) does about each. A number is that of the statement (`3.1.2-3` is `[MQTT-3.1.2-3]`), or the section where the
standard has given it none. MQTT 3.1 goes by what 3.1.1 says. *Closed* is without a word, as MQTT 3.1.1 has no words for it; in every case
the connection is closed at once. Each row is a test over a real socket, in the test that is named above its table.

This page is made from those tests: `UPDATE_GOLDEN=1 cargo test -p cornjacket-operators --test all mqtt::conformance::page`.
";

const GROUPS: [(&str, &str, &[Rule]); 7] = [
    ("CONNECT", "what_is_no_connect_is_refused_at_once", connect::RULES),
    ("The will", "wills_that_break_the_rules_are_refused", wills::RULES),
    ("Properties of CONNECT", "properties_of_connect_that_break_the_rules_are_refused", properties::RULES),
    ("Packets", "packets_that_break_the_rules_end_the_connection", packets::RULES),
    ("PUBLISH", "publishes_that_break_the_rules_end_the_connection", publish::RULES),
    (
        "PUBACK, PUBREC, PUBREL, PUBCOMP",
        "acknowledgements_that_break_the_rules_end_the_connection",
        acknowledgements::RULES,
    ),
    ("SUBSCRIBE and UNSUBSCRIBE", "subscriptions_that_break_the_rules_end_the_connection", subscribe::RULES),
];

/// Both numbers, what is said, what the broker does, and the test.
const ELSEWHERE: [(&str, &str, &str, &str, &str); 16] = [
    (
        "2.2.2-2",
        "2.1.3-1",
        "Reserved flags of the first byte, in every packet",
        "closed; DISCONNECT 0x81",
        "reserved_flags_of_the_first_byte_are_checked",
    ),
    (
        "",
        "2.2.2.2",
        "Every property in every packet: allowed there, once, and whole",
        "0x81, 0x82",
        "every_property_has_its_packets_and_is_there_once",
    ),
    ("", "2.2.2.2", "Properties that there are not", "0x81", "properties_that_there_are_not_are_refused"),
    ("1.5.3-3", "1.5.4-3", "U+FEFF is a character and stays", "kept", "a_byte_order_mark_in_a_topic_stays"),
    (
        "3.1.4-5",
        "3.1.4-6",
        "Nothing behind a refused CONNECT is looked at",
        "ignored",
        "nothing_behind_a_refused_connect_is_looked_at",
    ),
    (
        "4.8.0-1",
        "4.13.1-1",
        "What came before a broken packet counts",
        "stored",
        "what_came_before_a_broken_packet_is_stored_and_nothing_behind_it",
    ),
    (
        "3.1.4",
        "3.1.4",
        "CONNECT comes within a reasonable time",
        "closed after 10 seconds",
        "who_says_nothing_is_not_waited_for",
    ),
    (
        "3.1.3-8",
        "3.1.3-6",
        "An empty client id gets a name in MQTT 5, and with a clean session",
        "Assigned Client Identifier",
        "clients_without_an_id_get_one_or_are_refused",
    ),
    (
        "3.1.4-2",
        "3.1.4-3",
        "A second connection of a client replaces the first",
        "DISCONNECT 0x8E",
        "the_newer_connection_of_a_client_takes_over",
    ),
    (
        "3.1.2-24",
        "3.1.2-22",
        "Without a packet for one and a half times the keep alive",
        "closed; DISCONNECT 0x8D",
        "silence_ends_a_connection_after_half_as_long_again",
    ),
    (
        "3.1.2-24",
        "3.1.2-22",
        "Bytes of a packet that never ends are no packet",
        "closed; DISCONNECT 0x8D",
        "bytes_now_and_then_are_no_sign_of_life",
    ),
    (
        "",
        "3.1.2-8",
        "A delayed will is sent when a clean start ends its session",
        "sent at once",
        "a_clean_start_ends_the_session_and_lets_its_delayed_will_out",
    ),
    (
        "",
        "3.1.3-9",
        "A delayed will is not sent when the client comes back to its session",
        "dropped",
        "mqtt_5_wills_can_be_asked_for_and_can_wait",
    ),
    ("", "3.1.2-24", "No packet is longer than the client takes", "left out", "a_client_gets_no_more_than_it_takes"),
    (
        "",
        "3.3.4-7",
        "No more publishes unacknowledged than the Receive Maximum",
        "DISCONNECT 0x93",
        "a_client_of_mqtt_5_keeps_to_the_receive_maximum",
    ),
    (
        "4.7.2-1",
        "4.7.2-1",
        "Clients publish nothing under $",
        "PUBACK 0x87, in MQTT 3 acknowledged and dropped",
        "topics_of_the_broker_are_its_own",
    ),
];

fn answers(answer: Answer) -> (String, String) {
    let closed = || "closed".to_string();
    match answer {
        Answer::Closed => (closed(), closed()),
        Answer::Refused(code) => (closed(), format!("CONNACK 0x{code:02X}")),
        Answer::Told(of_v3, of_v5) => (format!("CONNACK 0x{of_v3:02X}"), format!("CONNACK 0x{of_v5:02X}")),
        Answer::SentAway(code) => (closed(), format!("DISCONNECT 0x{code:02X}")),
    }
}

fn row(page: &mut String, rule: &Rule) {
    let (of_v3, of_v5) = answers(rule.answer);
    let of_v3 = if rule.v3.is_empty() { "" } else { &of_v3 };
    let of_v5 = if rule.v5.is_empty() { "" } else { &of_v5 };
    let says = rule.says.replace('|', "\\|");
    let _ = writeln!(page, "| {} | {} | {says} | {of_v3} | {of_v5} |", rule.v3, rule.v5);
}

fn page() -> String {
    let mut page = HEAD.to_string();
    for (name, test, rules) in GROUPS {
        let _ = writeln!(page, "\n## {name}\n\n`{test}`\n");
        page.push_str("| 3.1.1 | 5.0 | statement | in 3.1.1 | in 5.0 |\n|---|---|---|---|---|\n");
        for rule in rules {
            row(&mut page, rule);
        }
    }
    page.push_str("\n## In tests of their own\n\n| 3.1.1 | 5.0 | statement | answer | test |\n|---|---|---|---|---|\n");
    for (v3, v5, says, does, test) in ELSEWHERE {
        let _ = writeln!(page, "| {v3} | {v5} | {says} | {does} | `{test}` |");
    }
    page
}

/// The text of all tests of MQTT.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.push_str(&sources(&path));
        } else {
            all.push_str(&std::fs::read_to_string(path).expect("text"));
        }
    }
    all
}

#[test]
fn the_page_says_what_the_tests_do() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/mqtt");
    let sources = sources(&tests);
    let named = GROUPS.iter().map(|(_, test, _)| *test).chain(ELSEWHERE.iter().map(|(.., test)| *test));
    for test in named {
        assert!(sources.contains(&format!("fn {test}(")), "there is no test {test}");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mqtt-conformance.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, page()).expect("written");
    }
    let found = std::fs::read_to_string(&file).expect("the page");
    assert!(found == page(), "docs/mqtt-conformance.md is not up to date: run this test with UPDATE_GOLDEN=1");
}
