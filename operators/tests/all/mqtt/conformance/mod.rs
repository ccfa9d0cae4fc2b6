//! The statements of MQTT 3.1.1 and 5.0 on what a broker has to refuse, each with bytes that break it.
//!
//! docs/mqtt-conformance.md is made from these tables and held to them (`UPDATE_GOLDEN=1` writes it). MQTT 3.1 goes by
//! what 3.1.1 says.

mod acknowledgements;
mod connect;
mod packets;
mod page;
mod properties;
mod publish;
mod subscribe;
mod wills;

use std::time::{Duration, Instant};

use super::broker::Running;
use super::client::{Client, PATIENCE, Packet, VERSIONS, length, packet, text};

/// A refusal comes at once, however long the broker would wait for a client that is slow.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A statement of the standard.
struct Rule {
    /// Its number in MQTT 3.1.1, or its section; empty where there is none.
    v3: &'static str,
    /// The same in MQTT 5.
    v5: &'static str,
    says: &'static str,
    /// Bytes that break it, for a version.
    send: fn(u8) -> Vec<u8>,
    answer: Answer,
}

/// What the broker does.
#[derive(Clone, Copy)]
enum Answer {
    /// To the first packet: closes without a word.
    Closed,
    /// To a CONNECT: a CONNACK with this code in MQTT 5, nothing before, and closes.
    Refused(u8),
    /// To a CONNECT: a CONNACK with this code in MQTT 3, this one in MQTT 5, and closes.
    Told(u8, u8),
    /// To a client that is in: a DISCONNECT with this code in MQTT 5, nothing before, and closes.
    SentAway(u8),
}

/// What a client that is let in sees of the broker's decision, until the connection is closed.
async fn answers(mut client: Client, bytes: &[u8]) -> Vec<Packet> {
    let began = Instant::now();
    // The broker need not read all of it.
    client.try_send(bytes).await;
    let mut answers = Vec::new();
    while let Some(packet) = client.next().await {
        answers.push(packet);
    }
    assert!(began.elapsed() < AT_ONCE.min(PATIENCE), "closed after {:?} only", began.elapsed());
    answers
}

/// The answer of a version: first byte and body.
fn expected(answer: Answer, version: u8) -> Vec<Packet> {
    let connack = |code| match version {
        5 => Packet { first: 0x20, body: vec![0, code, 0] },
        _ => Packet { first: 0x20, body: vec![0, code] },
    };
    match answer {
        Answer::Refused(code) if version == 5 => vec![connack(code)],
        Answer::Told(of_v3, of_v5) => vec![connack(if version == 5 { of_v5 } else { of_v3 })],
        Answer::SentAway(code) if version == 5 => vec![Packet { first: 0xe0, body: vec![code] }],
        _ => Vec::new(),
    }
}

/// Breaks each rule in each version that has it; the broker must go on for others.
async fn break_all(rules: &[Rule]) {
    let running = Running::start().await;
    for rule in rules {
        for version in VERSIONS {
            if if version == 5 { rule.v5 } else { rule.v3 }.is_empty() {
                continue;
            }
            let client = match rule.answer {
                Answer::SentAway(_) => Client::connect(running.at, version, "c").await,
                _ => Client::open(running.at, version).await,
            };
            eprintln!("MQTT {version}: {}", rule.says);
            let found = answers(client, &(rule.send)(version)).await;
            assert_eq!(found, expected(rule.answer, version));
        }
    }
    assert_eq!(running.shelf.count(), 0, "nothing of it was stored");
    Client::connect(running.at, 5, "honest").await.publish_acked("all/a", b"x", false).await;
    running.end().await;
}

/// Bytes with their length before them, whatever they are.
fn field(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
}

/// Properties with their length, in the version that has them.
fn properties(version: u8, bytes: &[u8]) -> Vec<u8> {
    if version == 5 { [length(bytes.len()).as_slice(), bytes].concat() } else { Vec::new() }
}

/// Protocol name and level.
fn protocol(version: u8) -> Vec<u8> {
    [text(if version == 3 { "MQIsdp" } else { "MQTT" }), vec![version]].concat()
}

/// A CONNECT with these flags and this payload.
fn connect(version: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    connect_with(version, flags, &[], payload)
}

fn connect_with(version: u8, flags: u8, of: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(0x10, &[&protocol(version), [flags, 0, 0].as_slice(), &properties(version, of), payload].concat())
}

/// A packet of MQTT 5 with these properties where it has them.
fn publish(version: u8, first: u8, topic: &[u8], id: Option<u16>, of: &[u8]) -> Vec<u8> {
    let id = id.map_or(Vec::new(), |id| id.to_be_bytes().to_vec());
    packet(first, &[field(topic), id, properties(version, of), b"x".to_vec()].concat())
}

/// SUBSCRIBE (0x82) or UNSUBSCRIBE (0xa2).
fn filters(version: u8, first: u8, id: u16, of: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes(), properties(version, of).as_slice(), payload].concat())
}
