//! Who may come in, what it finds when it comes back, and what happens when it goes.

use std::time::Duration;

use super::broker::{Running, until};
use super::client::{Client, Connect, VERSIONS};

/// A session that outlives its connection by a minute.
fn kept(version: u8) -> Connect<'static> {
    Connect { version, id: "kept", clean: false, properties: b"\x11\0\0\0\x3c", ..Connect::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_an_id_get_one_or_are_refused() {
    let running = Running::start().await;
    for (version, clean, code) in [(3, false, 2), (4, false, 2), (4, true, 0), (5, true, 0), (5, false, 0)] {
        let connect = Connect { version, clean, ..Connect::default() };
        let (mut client, connack) = Client::try_connect(running.at, &connect).await;
        assert_eq!(connack.body[1], code, "{version} {clean}");
        if code != 0 {
            assert_eq!(client.next().await, None);
            continue;
        }
        client.ping().await;
        assert_eq!(connack.body.windows(3).any(|bytes| bytes[0] == 0x12 && bytes[1] == 0), version == 5, "{connack:?}");
    }
    let long = "x".repeat(2_000);
    let (_, connack) = Client::try_connect(running.at, &Connect { id: &long, ..Connect::default() }).await;
    assert_eq!(connack.body[1], 0x85);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_not_waited_for() {
    let running = Running::start().await;
    let mut silent = Client::open(running.at, 4).await;
    let mut slow = Client::open(running.at, 4).await;
    slow.send(&[0x10, 50, 0]).await;
    until("refused", || running.counts.read().refused == 2).await;
    assert_eq!((silent.next().await, slow.next().await), (None, None));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_password_file_everyone_says_who_they_are() {
    // Made with `mosquitto_passwd -H sha512-pbkdf2`.
    let file = "device:$7$101$nOt2beq6GXW978bj$bJUeHCucMiust2HgRFQm21Iu4MuleM24L+CFyyNqYMWZu1fk2oikAivn/Vavma40JYWtiTeWiDhZDCJUT8nB5g==";
    let running = Running::start_with(&std::sync::Arc::default(), Some(file)).await;
    for version in VERSIONS {
        let refused = |of_v5: u8, of_v3: u8| if version == 5 { of_v5 } else { of_v3 };
        let cases = [
            (Some(("device", "s3cret pässword")), 0),
            (Some(("device", "s3cret password")), refused(0x86, 4)),
            (Some(("nobody", "s3cret pässword")), refused(0x86, 4)),
            (None, refused(0x87, 5)),
        ];
        for (login, code) in cases {
            let (mut client, connack) =
                Client::try_connect(running.at, &Connect { version, id: "c", login, ..Connect::default() }).await;
            assert_eq!(connack.body[1], code);
            if code != 0 {
                assert_eq!(client.next().await, None);
            }
        }
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_again_finds_its_session() {
    for version in VERSIONS {
        let running = Running::start().await;
        let (mut client, present) = Client::resume(running.at, &kept(version)).await;
        assert!(!present);
        client.subscribe("t/+", 2).await;
        drop(client);
        until("gone", || running.counts.read().connections == 0).await;
        let mut writer = Client::connect(running.at, version, "writer").await;
        for qos in 0..3 {
            writer.publish("t/x", &[qos], (qos, u16::from(qos))).await;
            if qos > 0 {
                assert_eq!(writer.receive().await.first >> 4, 3 + qos);
            }
        }
        let (mut client, present) = Client::resume(running.at, &kept(version)).await;
        assert!(present);
        for qos in 1..3 {
            let message = client.message().await;
            assert_eq!((message.payload, message.qos, message.dup), (vec![qos], qos, false));
        }
        client.expect_silence().await;
        // It wants to know nothing of it any more.
        drop(client);
        let (mut client, present) = Client::resume(running.at, &Connect { clean: true, ..kept(version) }).await;
        assert!(!present);
        writer.publish("t/x", b"x", (0, 0)).await;
        writer.ping().await;
        client.expect_silence().await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_is_sent_again_in_its_order() {
    for version in VERSIONS {
        let running = Running::start().await;
        let (mut client, _) = Client::resume(running.at, &kept(version)).await;
        client.subscribe("t", 2).await;
        let mut writer = Client::connect(running.at, version, "writer").await;
        for (id, qos) in [(1, 1), (2, 2), (3, 2), (4, 1)] {
            writer.publish("t", &[id], (qos, u16::from(id))).await;
            writer.receive().await;
        }
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(client.message().await.id.to_be_bytes());
        }
        // The first is done with; of the second it is known that it was received.
        client.send(&[0x40, 2, ids[0][0], ids[0][1]]).await;
        client.send(&[0x50, 2, ids[1][0], ids[1][1]]).await;
        client.expect(0x62, &ids[1]).await;
        drop(client);
        let (mut client, present) = Client::resume(running.at, &kept(version)).await;
        assert!(present);
        client.expect(0x62, &ids[1]).await;
        for number in [3, 4] {
            let message = client.message().await;
            assert_eq!((message.payload, message.dup), (vec![number], true));
            assert_eq!(message.id.to_be_bytes(), ids[usize::from(number) - 1]);
        }
        client.expect_silence().await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_when_their_time_is_over() {
    let running = Running::start().await;
    let mut reader = Client::connect(running.at, 5, "reader").await;
    reader.subscribe("w", 0).await;
    // Its will tells when its session ends: it would wait for a minute, and does not outlast the session.
    let will = Some(("w", "over", 0, false));
    let short = Connect { properties: b"\x11\0\0\0\x01", will, will_properties: &[0x18, 0, 0, 0, 60], ..kept(5) };
    drop(Client::resume(running.at, &short).await);
    until("gone", || running.counts.read().connections == 1).await;
    assert!(Client::resume(running.at, &short).await.1, "at once");
    until("gone", || running.counts.read().connections == 1).await;
    assert_eq!(reader.message().await.payload, b"over");
    let (client, is_present) = Client::resume(running.at, &short).await;
    assert!(!is_present, "after its time");
    client.leave().await;
    // Without a time it ends with the connection.
    drop(Client::resume(running.at, &Connect { properties: &[], ..kept(5) }).await);
    until("gone", || running.counts.read().connections == 1).await;
    assert!(!Client::resume(running.at, &kept(5)).await.1);
    until("gone", || running.counts.read().connections == 1).await;
    // A DISCONNECT may say otherwise.
    let (mut client, present) = Client::resume(running.at, &kept(5)).await;
    assert!(present);
    client.send(b"\xe0\x07\0\x05\x11\0\0\0\0").await;
    assert_eq!(client.next().await, None);
    assert!(!Client::resume(running.at, &kept(5)).await.1);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_connection_of_a_client_takes_over() {
    for version in VERSIONS {
        let running = Running::start().await;
        let (mut old, _) = Client::resume(running.at, &kept(version)).await;
        old.subscribe("t", 1).await;
        let (mut new, present) = Client::resume(running.at, &kept(version)).await;
        assert!(present);
        old.expect_end(0x8e).await;
        new.publish("t", b"x", (1, 1)).await;
        let (first, second) = (new.receive().await.first, new.receive().await.first);
        assert!([first, second].contains(&0x40) && [first, second].contains(&0x32));
        // Many at once: one stays.
        let many = (0..20).map(|_| {
            tokio::spawn(Client::resume(
                running.at,
                const {
                    &Connect {
                        version: 4,
                        id: "kept",
                        clean: false,
                        keep_alive: 0,
                        will: None,
                        will_properties: &[],
                        login: None,
                        properties: &[],
                    }
                },
            ))
        });
        let many: Vec<_> = many.collect();
        let mut clients = Vec::new();
        for one in many {
            // Some are asked to leave before they are in.
            if let Ok((client, _)) = one.await {
                clients.push(client);
            }
        }
        until("one left", || running.counts.read().connections == 1).await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_connection_after_half_as_long_again() {
    for version in VERSIONS {
        let running = Running::start().await;
        let connect = Connect { version, id: "c", keep_alive: 1, ..Connect::default() };
        let (mut client, _) = Client::resume(running.at, &connect).await;
        // It speaks often enough.
        let mut often = tokio::time::interval(Duration::from_millis(900));
        for _ in 0..4 {
            often.tick().await;
            client.ping().await;
        }
        let since = std::time::Instant::now();
        client.expect_end(0x8d).await;
        let silent = since.elapsed();
        assert!((1_400..2_500).contains(&silent.as_millis()), "{silent:?}");
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wills_are_stored_and_seen_unless_the_client_takes_its_leave() {
    for version in VERSIONS {
        let running = Running::start().await;
        let mut reader = Client::connect(running.at, version, "reader").await;
        reader.subscribe("all/#", 2).await;
        let will = |body| Connect { version, id: "c", will: Some(("all/will", body, 1, true)), ..Connect::default() };
        drop(Client::resume(running.at, &will("gone")).await);
        let message = reader.message().await;
        assert_eq!((&message.payload[..], message.qos, message.retain), (&b"gone"[..], 1, false));
        let (client, _) = Client::resume(running.at, &will("unsaid")).await;
        client.leave().await;
        reader.expect_silence().await;
        // What is wrong, and who is replaced, goes without leave.
        let (mut client, _) = Client::resume(running.at, &will("broken")).await;
        client.send(&[0xf0, 0, 0]).await;
        assert_eq!(reader.message().await.payload, b"broken");
        let (_first, _) = Client::resume(running.at, &will("replaced")).await;
        let (second, _) = Client::resume(running.at, &will("unsaid")).await;
        assert_eq!(reader.message().await.payload, b"replaced");
        second.leave().await;
        let mut late = Client::connect(running.at, version, "late").await;
        late.subscribe("all/will", 0).await;
        assert_eq!(late.message().await.payload, b"replaced");
        assert_eq!(running.shelf.bodies(), ["gone", "broken", "replaced"]);
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_5_wills_can_be_asked_for_and_can_wait() {
    let running = Running::start().await;
    let mut reader = Client::connect(running.at, 5, "reader").await;
    reader.subscribe("w", 0).await;
    let will = Connect { id: "c", will: Some(("w", "gone", 0, false)), ..Connect::default() };
    let (mut client, _) = Client::resume(running.at, &will).await;
    client.send(&[0xe0, 1, 4]).await;
    assert_eq!(reader.message().await.payload, b"gone");
    let patient = Connect { will: Some(("w", "gone", 0, false)), will_properties: &[0x18, 0, 0, 0, 1], ..kept(5) };
    drop(Client::resume(running.at, &patient).await);
    reader.expect_silence().await;
    let (client, _) = Client::resume(running.at, &patient).await;
    reader.expect_silence_for(Duration::from_millis(1_200)).await;
    drop(client);
    assert_eq!(reader.message().await.payload, b"gone");
    running.end().await;
}

/// A new session is the end of the old one, and a delayed will does not wait for longer than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_start_ends_the_session_and_lets_its_delayed_will_out() {
    let running = Running::start().await;
    let mut reader = Client::connect(running.at, 5, "reader").await;
    reader.subscribe("all/will", 0).await;
    let patient =
        Connect { will: Some(("all/will", "gone", 0, false)), will_properties: &[0x18, 0, 0, 0, 50], ..kept(5) };
    drop(Client::resume(running.at, &patient).await);
    until("gone", || running.counts.read().connections == 1).await;
    reader.expect_silence().await;
    // Another client's clean start is none of its business.
    Client::connect(running.at, 5, "another").await.leave().await;
    reader.expect_silence().await;
    let (client, present) = Client::resume(running.at, &Connect { clean: true, ..kept(5) }).await;
    assert!(!present);
    assert_eq!(reader.message().await.payload, b"gone");
    client.leave().await;
    reader.expect_silence().await;
    assert_eq!(running.shelf.bodies(), ["gone"]);
    // The same where the old connection is still there.
    let (_old, _) = Client::resume(running.at, &patient).await;
    Client::resume(running.at, &Connect { clean: true, ..kept(5) }).await.0.leave().await;
    assert_eq!(reader.message().await.payload, b"gone");
    reader.expect_silence().await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_now_and_then_are_no_sign_of_life() {
    for version in VERSIONS {
        let running = Running::start().await;
        let connect = Connect { version, id: "c", keep_alive: 1, ..Connect::default() };
        let (mut client, _) = Client::resume(running.at, &connect).await;
        let began = std::time::Instant::now();
        // A thousand bytes are announced, and one comes now and then.
        client.send(&[0x30, 0xe8, 0x07]).await;
        let mut often = tokio::time::interval(Duration::from_millis(200));
        while client.try_send(&[0]).await && running.counts.read().connections == 1 {
            assert!(began.elapsed() < Duration::from_secs(5), "it is still there");
            often.tick().await;
        }
        assert!(began.elapsed() > Duration::from_millis(1_400), "{:?}", began.elapsed());
        running.end().await;
    }
}
