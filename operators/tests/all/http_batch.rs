//! Batches through a real socket.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use async_compression::zstd::CParameter;
use cornjacket_operators::sources::http::{Caller, Patience, Rate};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::http::{CheckingDoor, Client, GOOD, Reply, request_to, serve, serve_door};

const PATH: &str = "/api/v1/events/batch";

pub fn event(aggregate: impl std::fmt::Display, value: impl std::fmt::Display) -> String {
    format!(r#"{{"event_type":"sensor.reading","aggregate_id":"{aggregate}","payload":{{"value":{value}}}}}"#)
}

fn lines(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "{}", event(n, n));
        text
    })
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

pub fn post(address: SocketAddr, headers: &str, body: &[u8]) -> Reply {
    let mut client = Client::new(address);
    client.send(&request_to(PATH, headers, body));
    client.reply()
}

fn served() -> (Arc<CheckingDoor>, SocketAddr) {
    let door = CheckingDoor::new();
    let address = serve_door(Arc::clone(&door) as _, Patience::default(), None);
    (door, address)
}

const LINES: &str = "content-type: application/x-ndjson\r\n";
const ARRAY: &str = "content-type: application/json\r\n";

#[test]
fn lines_and_arrays_are_taken_in_their_order() {
    let items: Vec<String> = (0..5).map(|n| event(n, n)).collect();
    let spaced = format!("\r\n {}\r\n\n\t{}  \n{}", items[0], items[1..4].join("\n"), items[4]);
    let cases = [
        (LINES, lines(5)),
        (LINES, spaced.clone()),
        ("content-type: application/jsonl\r\n", items.join("\n")),
        (ARRAY, format!("[{}]", items.join(","))),
        (ARRAY, format!(" \n[ {} \r\n]\n ", items.join(" ,\t"))),
        ("", spaced),
        ("", format!("  [{}]", items.join(","))),
        (
            "content-type: application/vnd.x+json\r\n",
            json!(items.iter().map(|item| serde_json::from_str(item).expect("JSON")).collect::<Vec<Value>>())
                .to_string(),
        ),
    ];
    for (headers, body) in cases {
        let (door, address) = served();
        let reply = post(address, headers, body.as_bytes());
        assert_eq!((reply.status, reply.json), (202, json!({"accepted": 5, "rejected": []})), "{headers}{body}");
        assert_eq!(door.aggregates(), names(5), "{headers}{body}");
    }
}

#[test]
fn every_way_of_cutting_it_gives_the_same() {
    let text = r#"[{"event_type":"sensor.reading","aggregate_id":"a]},\"{[","payload":{"value":1,"x":"\\\" ü]"}} , {"event_type":"sensor.reading","aggregate_id":"b","payload":{"value":2}},7,"]"]"#;
    let (door, address) = served();
    for size in [1, 2, 3, 7, 50, 1000] {
        let mut client = Client::new(address);
        client.send(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes());
        for piece in text.as_bytes().chunks(size) {
            client.send(format!("{:x}\r\n", piece.len()).as_bytes());
            client.send(&[piece, b"\r\n"].concat());
            // So that pieces arrive one by one.
            std::thread::sleep(Duration::from_micros(200));
        }
        client.send(b"0\r\n\r\n");
        let reply = client.reply();
        assert_eq!((reply.status, &reply.json["accepted"]), (202, &json!(2)), "{size}: {}", reply.json);
        let indices: Vec<&Value> =
            reply.json["rejected"].as_array().expect("a list").iter().map(|r| &r["index"]).collect();
        assert_eq!(indices, [2, 3], "{size}");
        assert_eq!(std::mem::take(&mut *door.stored.lock()).len(), 2, "{size}");
    }
}

#[test]
fn what_is_wrong_is_named_by_its_place() {
    let (door, address) = served();
    let long = event("long", "1".repeat(3 << 20));
    let body = [GOOD, "{", "\"x\"", &long, r#"{"event_type":"sensor.reading","aggregate_id":"d","payload":{}}"#, GOOD]
        .join("\n");
    let reply = post(address, LINES, body.as_bytes());
    assert_eq!((reply.status, &reply.json["accepted"]), (202, &json!(2)), "{}", reply.json);
    let rejected = reply.json["rejected"].as_array().expect("a list");
    let codes: Vec<(u64, &str)> = rejected
        .iter()
        .map(|entry| (entry["index"].as_u64().expect("a place"), entry["code"].as_str().expect("a code")))
        .collect();
    assert_eq!(codes, [(1, "invalid_json"), (2, "invalid_envelope"), (3, "too_large"), (4, "invalid_payload")]);
    assert_eq!(rejected[3]["error"], "`payload.value` is required, but missing");
    assert_eq!(rejected[3]["details"], json!([{"path": "payload.value", "message": "is required, but missing"}]));
    assert_eq!(rejected[2]["error"], "the event has more than the 1048576 bytes that are allowed");
    assert_eq!(door.aggregates(), ["d1", "d1"]);

    let array = format!("[{GOOD},{long},{GOOD}]");
    let reply = post(address, ARRAY, array.as_bytes());
    assert_eq!((reply.status, &reply.json["accepted"]), (202, &json!(2)), "{}", reply.json);
    assert_eq!(reply.json["rejected"][0]["index"], 1);

    let none = post(address, LINES, b"{\n[]\n");
    assert_eq!((none.status, none.code(), &none.json["accepted"]), (422, "all_rejected", &json!(0)));
    assert_eq!(none.json["rejected"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_body_that_is_no_batch_keeps_what_came_before() {
    let cases: [(&str, String, u16, &str, u64); 14] = [
        (ARRAY, String::new(), 400, "empty_body", 0),
        (LINES, " \n\r\n".into(), 400, "empty_body", 0),
        (ARRAY, "[]".into(), 202, "", 0),
        (ARRAY, format!("[{GOOD}"), 400, "invalid_json", 1),
        (ARRAY, format!("[{GOOD},"), 400, "invalid_json", 1),
        (ARRAY, format!("[{GOOD},]"), 400, "invalid_json", 1),
        (ARRAY, format!("[{GOOD},,{GOOD}]"), 400, "invalid_json", 1),
        (ARRAY, format!("[{GOOD} {GOOD}]"), 400, "invalid_json", 1),
        (ARRAY, format!("[{GOOD}]{GOOD}"), 400, "invalid_json", 1),
        (ARRAY, format!("[{GOOD},{{"), 400, "invalid_json", 1),
        (ARRAY, "[}".into(), 400, "invalid_json", 0),
        (ARRAY, GOOD.into(), 400, "invalid_json", 0),
        (ARRAY, "7".into(), 400, "invalid_json", 0),
        ("content-type: application/cloudevents-batch+json\r\n", lines(2), 400, "invalid_json", 0),
    ];
    for (headers, body, status, code, accepted) in cases {
        let (door, address) = served();
        let reply = post(address, headers, body.as_bytes());
        assert_eq!((reply.status, reply.code()), (status, code), "{body}: {}", reply.json);
        assert_eq!(reply.json["accepted"], accepted, "{body}: {}", reply.json);
        assert_eq!(door.stored.lock().len() as u64, accepted, "{body}");
    }
    let (_, address) = served();
    let error = post(address, ARRAY, lines(2).as_bytes()).json["error"].clone();
    assert_eq!(error, "the body is no JSON array: an array was expected; send lines as application/x-ndjson at byte 0");
}

#[test]
fn a_connection_that_breaks_keeps_whole_lines() {
    let (door, address) = served();
    let mut client = Client::new(address);
    let whole = request_to(PATH, LINES, lines(1000).as_bytes());
    client.send(&whole[..whole.len() - 5]);
    drop(client);
    let deadline = Instant::now() + Duration::from_mins(1);
    while door.stored.lock().len() < 999 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(door.aggregates(), names(999));
}

fn compressed(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let written = match coding {
            "gzip" => {
                let mut encoder = GzipEncoder::new(Vec::new());
                encoder.write_all(bytes).await.and(encoder.shutdown().await).map(|()| encoder.into_inner())
            }
            "zstd" => {
                let mut encoder = ZstdEncoder::new(Vec::new());
                encoder.write_all(bytes).await.and(encoder.shutdown().await).map(|()| encoder.into_inner())
            }
            other => unreachable!("no coding {other}"),
        };
        written.expect("memory")
    })
}

#[test]
fn compressed_bodies() {
    for coding in ["gzip", "zstd"] {
        let (door, address) = served();
        let headers = format!("{LINES}content-encoding: {coding}\r\n");
        let text = lines(20_000);
        let body = compressed(coding, text.as_bytes());
        let reply = post(address, &headers, &body);
        assert_eq!((reply.status, &reply.json["accepted"]), (202, &json!(20_000)), "{}", reply.json);
        assert_eq!(std::mem::take(&mut *door.stored.lock()).len(), 20_000);
        // Two frames in a row are one body, as the formats have it.
        let twice = [compressed(coding, lines(3).as_bytes()), compressed(coding, lines(2).as_bytes())].concat();
        assert_eq!(post(address, &headers, &twice).json["accepted"], 5);
        // A broken or cut off one keeps the whole lines before.
        let reply = post(address, &headers, &body[..body.len() / 2]);
        assert_eq!((reply.status, reply.code()), (400, "invalid_body"), "{}", reply.json);
        let reply = post(address, &headers, b"not compressed");
        assert_eq!((reply.status, reply.code(), &reply.json["accepted"]), (400, "invalid_body", &json!(0)));
        // Little that becomes much takes no memory: lines that are too long are let go as they come.
        let bomb = compressed(coding, &vec![b' '; 200 << 20]);
        assert_eq!(post(address, &headers, &bomb).code(), "empty_body");
        let bomb = compressed(coding, &vec![b'x'; 200 << 20]);
        let reply = post(address, &headers, &bomb);
        assert_eq!(reply.json["rejected"][0]["code"], "too_large", "{}", reply.json);
    }
    let (_, address) = served();
    let reply = post(address, "content-encoding: br\r\n", b"x");
    assert_eq!((reply.status, reply.code()), (415, "unsupported_media_type"));
    assert!(reply.head.contains("accept-encoding: gzip, zstd"), "{}", reply.head);
}

#[test]
fn a_window_of_zstd_is_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let body = runtime.block_on(async {
        let wide = [CParameter::window_log(27)];
        let mut encoder = ZstdEncoder::with_quality_and_params(Vec::new(), async_compression::Level::Default, &wide);
        encoder.write_all(lines(10).as_bytes()).await.and(encoder.shutdown().await).expect("memory");
        encoder.into_inner()
    });
    let (_, address) = served();
    let reply = post(address, &format!("{LINES}content-encoding: zstd\r\n"), &body);
    assert_eq!((reply.status, reply.code()), (400, "invalid_body"), "{}", reply.json);
}

#[test]
fn a_repeated_batch_has_the_same_answer_and_is_stored_once() {
    let (door, address) = served();
    let headers = format!("{LINES}idempotency-key: night-7\r\n");
    let body = format!("{}{{\n{}", lines(3), lines(2));
    let first = post(address, &headers, body.as_bytes());
    assert_eq!((first.status, &first.json["accepted"]), (202, &json!(5)), "{}", first.json);
    let again = post(address, &headers, body.as_bytes());
    assert_eq!((again.status, again.json), (202, first.json));
    let stored = door.stored.lock().clone();
    assert_eq!(stored.len(), 5);
    assert_eq!(stored[4].metadata["idempotency_key"], "night-7/5");
    assert!(stored.iter().all(|kept| kept.id.as_bytes()[14] == b'8'));
    // The key of a single event is another identity than any line's.
    assert_eq!(post(address, &headers.replace("night-7", "night-8"), lines(1).as_bytes()).json["accepted"], 1);
    assert_eq!(door.stored.lock().len(), 6);
    let wrong = post(address, "idempotency-key: \r\n", lines(1).as_bytes());
    assert_eq!((wrong.status, wrong.code()), (400, "invalid_idempotency_key"));
}

#[test]
fn too_many_wrong_events_end_a_request() {
    let (_, address) = served();
    let wrong = format!("{}{}{}", lines(10), "{\n".repeat(50_000), lines(10));
    let reply = post(address, LINES, wrong.as_bytes());
    assert_eq!((reply.status, reply.code()), (422, "too_many_rejected"), "{}", reply.json["error"]);
    assert_eq!(reply.json["accepted"], 10);
    let rejected = reply.json["rejected"].as_array().expect("a list");
    assert_eq!((rejected.len(), &rejected[9_999]["index"]), (10_000, &json!(10_009)));
    // Many faults each do not make the answer huge.
    let wrong = format!("{{{}}}\n", (0..60).map(|n| format!("\"nothing{n}\":1")).collect::<Vec<_>>().join(","));
    let mut client = Client::new(address);
    client.send(&request_to(PATH, LINES, wrong.repeat(9_000).as_bytes()));
    let reply = client.reply();
    assert_eq!((reply.status, reply.code()), (422, "all_rejected"));
    let length = reply.head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    assert!(length.is_some_and(|length| length < 3 << 20), "{length:?}");
}

#[test]
fn refusals_say_what_was_stored_before() {
    for (aggregate, code, at_least) in [("disk-full", "unavailable", 0), ("closing", "closing", 0), ("busy", "busy", 5)]
    {
        let (door, address) = served();
        // The first chunk is full and goes first; what follows the refusal is not stored.
        let body = format!("{}{}\n{}", lines(9_000), event(aggregate, 1), lines(20_000));
        let began = Instant::now();
        let reply = post(address, LINES, body.as_bytes());
        assert_eq!((reply.status, reply.code()), (503, code), "{}", reply.json);
        assert!(reply.head.contains("\r\nretry-after: "), "{}", reply.head);
        let accepted = reply.json["accepted"].as_u64().expect("a number");
        assert!(accepted <= 9_000, "{accepted}");
        assert_eq!(door.aggregates(), names(usize::try_from(accepted).expect("small")), "what was counted, in order");
        assert!(began.elapsed() >= Duration::from_secs(at_least), "a busy door is given some time");
    }
}

#[test]
fn a_rate_holds_a_batch_back() {
    let caller = |rate: &str| Caller { name: "a".into(), rate: Some(Arc::new(Rate::parse(rate).expect("a rate"))) };
    let limited = |rate: &str| {
        let door = CheckingDoor::new();
        (Arc::clone(&door), serve_door(door, Patience::default(), Some(caller(rate))))
    };
    let (door, address) = limited("100/s");
    let began = Instant::now();
    assert_eq!(post(address, LINES, lines(300).as_bytes()).json["accepted"], 300);
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
    assert_eq!(door.aggregates(), names(300));
    // Where that would take too long the request ends.
    let (door, address) = limited("50/h");
    let reply = post(address, LINES, lines(120).as_bytes());
    assert_eq!((reply.status, reply.code(), &reply.json["accepted"]), (429, "rate_limited", &json!(50)));
    assert!(reply.head.contains("\r\nretry-after: 3"), "{}", reply.head);
    assert_eq!(door.stored.lock().len(), 50);
}

#[test]
fn a_client_that_says_nothing_more_is_let_go() {
    let door = CheckingDoor::new();
    let patience = Patience { read_timeout: Duration::from_secs(3), ..Patience::default() };
    let address = serve_door(Arc::clone(&door) as _, patience, None);
    let mut client = Client::new(address);
    let whole = request_to(PATH, LINES, lines(10).as_bytes());
    // As long as something comes it may take its time; what is whole is stored meanwhile.
    let head = whole.len() - lines(10).len();
    client.send(&whole[..head]);
    for line in whole[head..].split_inclusive(|byte| *byte == b'\n').take(4) {
        std::thread::sleep(Duration::from_secs(1));
        client.send(line);
    }
    client.send(b"{\"ev");
    let reply = client.reply();
    assert_eq!((reply.status, reply.code(), &reply.json["accepted"]), (408, "timeout", &json!(4)));
    assert!(client.is_closed());
    assert_eq!(door.aggregates(), names(4));
}

#[test]
fn batches_end_in_order_with_the_service() {
    let (end, ended) = watch::channel(false);
    let door = CheckingDoor::new();
    let patience = Patience { end: Some(ended), ..Patience::default() };
    let address = serve_door(Arc::clone(&door) as _, patience, None);
    let mut client = Client::new(address);
    let whole = request_to(PATH, LINES, lines(100).as_bytes());
    client.send(&whole[..whole.len() - 10]);
    let deadline = Instant::now() + Duration::from_mins(1);
    while door.stored.lock().len() < 99 {
        assert!(Instant::now() < deadline, "what is whole is stored");
        std::thread::sleep(Duration::from_millis(5));
    }
    end.send(true).expect("somebody listens");
    let reply = client.reply();
    assert_eq!((reply.status, reply.code(), &reply.json["accepted"]), (503, "closing", &json!(99)));
    assert!(reply.head.contains("\r\nretry-after: ") && reply.head.contains("\r\nconnection: close"), "{}", reply.head);
    assert_eq!(door.stored.lock().len(), 99);
}

#[test]
fn other_methods_and_types() {
    let address = serve(Patience::default());
    let mut client = Client::new(address);
    client.send(format!("GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    assert_eq!(client.reply().status, 405);
    for header in ["content-type: text/csv\r\n", "content-type: application/cloudevents+xml\r\n"] {
        let reply = post(address, header, GOOD.as_bytes());
        assert_eq!((reply.status, reply.code()), (415, "unsupported_media_type"), "{header}");
    }
}
