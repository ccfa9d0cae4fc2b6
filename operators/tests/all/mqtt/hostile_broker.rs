//! An outside broker that breaks the rules: the source lets go of it, comes again, and takes what is right.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::client::{Flags, PATIENCE, packet, publish, read};
use super::pressure::{Gate, Subscribed};

const TOPIC: &str = "devices/d1/reading";

/// What it sends once it was asked for the subscription, and whether it waits for the source to go.
fn wrongs() -> Vec<(&'static str, Vec<u8>, bool)> {
    let flags = Flags { qos: 1, id: 1, ..Flags::default() };
    vec![
        ("a packet of no type", vec![0, 0], true),
        ("a length without end", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0xff], true),
        ("QoS 3", packet(0x36, b"\0\x01t\0\x01x"), true),
        ("a topic that is not UTF-8", packet(0x30, b"\0\x02\xff\xfex"), true),
        ("a topic that goes beyond its packet", packet(0x30, b"\0\x20t"), true),
        ("a message with packet id 0", publish(4, TOPIC, b"zero", &Flags { id: 0, ..flags }), true),
        ("an acknowledgement that nobody waits for", vec![0x40, 2, 0, 9], true),
        ("a second CONNACK", vec![0x20, 2, 0, 0], false),
        ("a CONNECT", packet(0x10, b"\0\x04MQTT\x04\x02\0\0\0\0"), false),
        ("a SUBACK with nothing in it", packet(0x90, &[0, 1]), false),
        ("a SUBACK for nothing", packet(0x90, &[0, 99, 0]), false),
        ("half a packet", vec![0x32, 0x40, 0, 0x12, b'd'], false),
        ("a packet of 256 MiB, of which a byte comes", vec![0x30, 0xff, 0xff, 0xff, 0x7f, 0], false),
        ("nothing", Vec::new(), false),
    ]
}

/// Lets the source in, and reads what it asks for; gives the packet id of that.
async fn welcome(listener: &TcpListener) -> (TcpStream, [u8; 2]) {
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("it comes");
    let (mut socket, _) = accepted.expect("a connection");
    let connect = read(&mut socket).await.expect("a CONNECT");
    assert_eq!(connect.first, 0x10);
    socket.write_all(&[0x20, 2, 0, 0]).await.expect("sent");
    let subscribe = read(&mut socket).await.expect("a SUBSCRIBE");
    assert_eq!(subscribe.first, 0x82);
    (socket, [subscribe.body[0], subscribe.body[1]])
}

/// Breaks a rule on the first connection, and keeps to all of them on the second.
async fn break_and_mend(listener: TcpListener, wrong: Vec<u8>, is_left: bool) {
    let (mut socket, _) = welcome(&listener).await;
    socket.write_all(&wrong).await.expect("sent");
    if is_left {
        let left = async { while matches!(socket.read(&mut [0; 64]).await, Ok(1..)) {} };
        tokio::time::timeout(PATIENCE, left).await.expect("the source lets go");
    }
    drop(socket);
    let (mut socket, [high, low]) = welcome(&listener).await;
    socket.write_all(&[0x90, 3, high, low, 1]).await.expect("sent");
    let right = publish(4, TOPIC, b"right", &Flags { qos: 1, id: 5, ..Flags::default() });
    socket.write_all(&right).await.expect("sent");
    let puback = read(&mut socket).await.expect("a PUBACK");
    assert_eq!((puback.first, &puback.body[..]), (0x40, &[0, 5][..]));
    // The source takes its leave.
    while read(&mut socket).await.is_some_and(|packet| packet.first != 0xe0) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_breaks_the_rules_is_left_and_comes_back_to() {
    for (what, wrong, is_left) in wrongs() {
        eprintln!("{what}");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("mqtt://{}", listener.local_addr().expect("an address"));
        let broker = tokio::spawn(break_and_mend(listener, wrong, is_left));
        let (folder, gate) = (tempfile::tempdir().expect("a folder"), Arc::<Gate>::default());
        gate.is_open.store(true, Ordering::SeqCst);
        let subscribed = Subscribed::start(&url, &folder, &gate, 1);
        subscribed.until("right again", |now, stored| now.acknowledged == 1 && stored == 1).await;
        assert_eq!(gate.stored.lock().0, [b"right"]);
        subscribed.end().await;
        broker.await.expect("the broker saw what it should");
    }
}
