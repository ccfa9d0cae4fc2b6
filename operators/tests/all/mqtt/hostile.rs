//! What strangers send: packets that are cut, twisted and made up. The broker lets them go, serves the others, and never
//! holds on to what they take.
//!
//! `FUZZ=1000000` sends a million packets instead of some thousands; `SEED` repeats a run.

use std::net::SocketAddr;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::broker::{Running, until};
use super::client::{Client, Connect, Flags, VERSIONS, packet, publish, text};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A packet that may well be in order.
fn whole(random: &mut ChaCha8Rng, version: u8) -> Vec<u8> {
    let topics = ["all/a", "devices/d/reading", "t", "", "a/+", "$SYS/x", "#", "a/b/c/d/e/f"];
    let topic = topics[random.random_range(0..topics.len())];
    let id: u16 = random.random_range(0..6);
    let [high, low] = id.to_be_bytes();
    let sets: [&[u8]; 6] =
        [&[], &[0x23, 0, 1], &[0x01, 1], &[0x02, 0, 0, 0, 1], &[0x0b, 1], &[0x26, 0, 1, b'a', 0, 1, b'b']];
    let properties = sets[random.random_range(0..sets.len())];
    match random.random_range(0..12) {
        0..=3 => {
            let body = vec![random.random(); random.random_range(0..40)];
            let (qos, dup, retain) = (random.random_range(0..4), random.random(), random.random());
            publish(version, topic, &body, &Flags { qos, id, dup, retain, properties })
        }
        4 => packet([0x40, 0x50, 0x62, 0x70][random.random_range(0..4)], &[high, low]),
        5 => packet([0x40, 0x50, 0x62, 0x70][random.random_range(0..4)], &[high, low, random.random(), 0]),
        6 | 7 => {
            let head: &[u8] = if version == 5 { &[high, low, 0] } else { &[high, low] };
            packet(0x82, &[head, &text(topic), &[random.random_range(0..0x40)]].concat())
        }
        8 => {
            let head: &[u8] = if version == 5 { &[high, low, 0] } else { &[high, low] };
            packet(0xa2, &[head, &text(topic)].concat())
        }
        9 => vec![0xc0, 0],
        10 => Connect { version, id: "fuzz", will: Some((topic, "w", 1, true)), ..Connect::default() }.bytes(),
        _ => packet(random.random(), &[high, low, 0, 0]),
    }
}

/// The same with something wrong, often.
fn twisted(random: &mut ChaCha8Rng, version: u8) -> Vec<u8> {
    let mut bytes = whole(random, version);
    for _ in 0..random.random_range(0..3) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes.insert(at, random.random()),
            3 if bytes.len() > 2 => drop(bytes.remove(at)),
            _ => bytes[at] = [0, 0x7f, 0x80, 0xff][random.random_range(0..4)],
        }
    }
    bytes
}

/// Sends packets on one connection until the broker has enough; gives how many.
async fn pester(at: SocketAddr, random: &mut ChaCha8Rng) -> u64 {
    let mut socket = TcpStream::connect(at).await.expect("it takes connections");
    let version = [3, 4, 5][random.random_range(0..3)];
    let mut bytes = Vec::new();
    let mut count = 0;
    if random.random_bool(0.9) {
        let id = ["fuzz", "other", ""][random.random_range(0..3)];
        bytes.extend(Connect { version, id, clean: random.random(), ..Connect::default() }.bytes());
    }
    for _ in 0..random.random_range(1..40) {
        bytes.extend(twisted(random, version));
        count += 1;
    }
    if random.random_bool(0.2) {
        bytes.truncate(random.random_range(0..bytes.len()));
    }
    let (mut reader, mut writer) = socket.split();
    let exchange = async {
        // It may close before all is sent.
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
        let mut answer = [0; 4_096];
        while matches!(reader.read(&mut answer).await, Ok(1..)) {}
    };
    tokio::time::timeout(Duration::from_secs(30), exchange).await.expect("the broker lets go of it");
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_strangers_send_others_are_served() {
    let (most, seed) = (number("FUZZ", 4_000), number("SEED", u64::from(std::process::id())));
    eprintln!("FUZZ={most} SEED={seed}");
    let running = Running::start().await;
    let mut honest = Client::connect(running.at, 5, "honest").await;
    honest.subscribe("honest", 0).await;
    let at = running.at;
    let pesterers: Vec<_> = (0..4)
        .map(|lane| {
            let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(4).wrapping_add(lane));
            tokio::spawn(async move {
                let mut sent = 0;
                while sent < most / 4 {
                    sent += pester(at, &mut random).await;
                }
                sent
            })
        })
        .collect();
    let mut now_and_then = tokio::time::interval(Duration::from_millis(10));
    let mut served = 0_u32;
    while !pesterers.iter().all(tokio::task::JoinHandle::is_finished) {
        honest.publish("honest", &served.to_be_bytes(), (0, 0)).await;
        loop {
            let message = honest.message().await;
            if message.payload == served.to_be_bytes() {
                break;
            }
        }
        served += 1;
        now_and_then.tick().await;
    }
    let mut sent = 0;
    for pesterer in pesterers {
        sent += pesterer.await.expect("no panic");
    }
    until("gone", || running.counts.read().connections == 1).await;
    honest.ping().await;
    let counted = running.counts.read();
    eprintln!("{sent} packets, {served} rounds, {counted:?}, {} stored", running.shelf.count());
    assert!(counted.publishes.iter().all(|count| *count > 0) && running.shelf.count() > 0);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_come_in_whatever_pieces() {
    let running = Running::start().await;
    let mut client = Client::open(running.at, 5).await;
    let flags = Flags { qos: 1, id: 1, ..Flags::default() };
    let bytes = [Connect { id: "c", ..Connect::default() }.bytes(), publish(5, "all/a", &[b'x'; 300], &flags)].concat();
    for byte in bytes {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.receive().await.first, 0x20);
    client.expect(0x40, &[0, 1]).await;
    assert_eq!(running.shelf.count(), 1);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_packet_that_is_claimed_costs_nothing() {
    let running = Running::start().await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(running.at, 4, "").await;
        // A megabyte is announced, and a byte sent.
        client.send(&[0x30, 0x80, 0x80, 0x40, 0]).await;
        held.push(client);
    }
    let mut honest = Client::connect(running.at, 4, "honest").await;
    honest.publish("all/a", b"x", (1, 1)).await;
    honest.expect(0x40, &[0, 1]).await;
    running.end().await;
}

/// A gibibyte is announced in the first packet, and in one of a client that is in.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_beyond_all_bounds_is_refused_before_anything_of_it_comes() {
    let running = Running::start().await;
    for version in VERSIONS {
        let mut stranger = Client::open(running.at, version).await;
        stranger.send(&[0x10, 0xff, 0xff, 0xff, 0x7f]).await;
        stranger.send(&Connect { version, id: "c", ..Connect::default() }.bytes()[2..]).await;
        let answer = stranger.next().await;
        assert_eq!(answer.map(|connack| connack.body[1]), (version == 5).then_some(0x95));
        let mut client = Client::connect(running.at, version, "c").await;
        client.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
        client.expect_end(0x95).await;
    }
    running.end().await;
}

/// Each of them has begun a CONNECT, or says nothing once it is in.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_say_nothing_are_not_in_the_way() {
    let running = Running::start().await;
    let mut held = Vec::new();
    for number in 0..150 {
        let mut slow = Client::open(running.at, 5).await;
        // A long will is announced, and never comes.
        slow.send(b"\x10\xff\xff\x07\0\x04MQTT\x05\x06\0\0\0").await;
        held.push(slow);
        held.push(Client::connect(running.at, 4, &format!("idle-{number}")).await);
    }
    let mut honest = Client::connect(running.at, 4, "honest").await;
    honest.publish_acked("all/a", b"x", false).await;
    assert_eq!(running.counts.read().connections, 151);
    // The slow ones are not waited for.
    until("refused", || running.counts.read().refused == 150).await;
    honest.ping().await;
    drop(held);
    until("gone", || running.counts.read().connections == 1).await;
    running.end().await;
}

/// It asks again and again and reads no answer. What the broker keeps for it is bounded, and so is its patience.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_never_reads_is_let_go() {
    let running = Running::start().await;
    let client = Client::connect(running.at, 4, "deaf").await;
    let mut honest = Client::connect(running.at, 4, "honest").await;
    // Its answers are never read, but the connection stays.
    let (_reader, mut writer) = client.split();
    let asking = tokio::spawn(async move { while writer.try_send(&[0xc0, 0].repeat(32 << 10)).await {} });
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    let mut now_and_then = tokio::time::interval(Duration::from_millis(100));
    while running.counts.read().connections > 1 {
        assert!(std::time::Instant::now() < deadline, "it is still there");
        honest.ping().await;
        now_and_then.tick().await;
    }
    asking.await.expect("its connection is closed");
    running.end().await;
}

/// Each of many filters finds all of many retained messages. As many come as may wait, and everybody else is served.
#[tokio::test(flavor = "multi_thread")]
async fn many_filters_over_many_retained_messages_find_what_fits() {
    const RETAINED: u32 = 6_000;
    let running = Running::start().await;
    let mut writer = Client::connect(running.at, 4, "writer").await;
    let flags = Flags { retain: true, ..Flags::default() };
    let packets: Vec<u8> = (0..RETAINED).flat_map(|n| publish(4, &format!("r/{n}/s"), b"x", &flags)).collect();
    writer.send(&packets).await;
    writer.publish_acked("all/a", b"x", false).await;
    // They differ, and match everything.
    let filters = ["#", "r/#", "r/+/#", "+/#", "+/+/#", "r/+/s/#", "+/+/s/#", "+/+/+/#", "r/+/+/#", "r/+/s", "+/+/s"];
    let body: Vec<u8> = filters.iter().flat_map(|filter| [text(filter), vec![0]].concat()).collect();
    let mut reader = Client::connect(running.at, 4, "reader").await;
    reader.send(&packet(0x82, &[&[0, 1], body.as_slice()].concat())).await;
    reader.expect(0x90, &[&[0, 1][..], &vec![0; filters.len()]].concat()).await;
    let mut found = 0;
    reader.send(&[0xc0, 0]).await;
    while reader.receive().await.first >> 4 == 3 {
        found += 1;
    }
    // Half of the room is for messages of QoS 0; each came once or more.
    assert_eq!(found, 5_000);
    writer.publish_acked("all/a", b"x", false).await;
    running.end().await;
}
