//! The http source through a real socket, with requests as raw bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use cornjacket_core::catalogue::{Catalogue, EventType, Field, FieldType, UnknownFields, WatermarkPolicy, stored};
use cornjacket_core::codec::{Context, Decoder, Limits};
use cornjacket_core::door::{
    Answer, Bundle, BundleAnswer, ClientId, Door, Refusal, Rejection, RejectionKind, Submission, Taken,
};
use cornjacket_core::id::EventId;
use cornjacket_operators::sources::http::{Caller, Patience, Rate, Settings, routes_with};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::Value;

pub const GOOD: &str = r#"{"event_type":"sensor.reading","aggregate_id":"d1","payload":{"value":1}}"#;

/// Checks events as the real door does, keeps them and answers at once; some aggregates stand for states of the log.
pub struct CheckingDoor {
    catalogue: Catalogue,
    pub stored: Mutex<Vec<Kept>>,
}

/// An event that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub id: String,
    pub aggregate: String,
    pub metadata: Value,
    pub payload: Value,
}

impl CheckingDoor {
    pub fn new() -> Arc<Self> {
        let fields = vec![Field::new("value", FieldType::Double)];
        let policy = WatermarkPolicy::default();
        let reading = EventType::new("sensor.reading", "sensor-events", fields, UnknownFields::Keep, policy);
        let any = EventType::new("com.example.someevent", "system-events", vec![], UnknownFields::Keep, policy);
        Arc::new(Self { catalogue: Catalogue::new([reading, any], [].into()), stored: Mutex::default() })
    }

    pub fn aggregates(&self) -> Vec<String> {
        self.stored.lock().iter().map(|kept| kept.aggregate.clone()).collect()
    }

    /// Keeps what was decoded; how many were there already.
    fn keep(&self, decoder: &mut Decoder) -> u64 {
        let mut rows = Vec::new();
        for events in decoder.finish().expect("columns") {
            for row in 0..events.rows.num_rows() {
                let text = |column: usize| events.rows.column(column).as_string::<i32>().value(row);
                let id = events.rows.column(stored::EVENT_ID).as_fixed_size_binary().value(row);
                let kept = Kept {
                    id: EventId(id.try_into().expect("16 bytes")).to_string(),
                    aggregate: text(stored::AGGREGATE_ID).into(),
                    metadata: serde_json::from_str(text(stored::METADATA)).expect("JSON"),
                    payload: serde_json::from_str(text(stored::PAYLOAD)).expect("JSON"),
                };
                rows.push((events.sequence.value(row), kept));
            }
        }
        rows.sort_by_key(|(sequence, _)| *sequence);
        let mut stored = self.stored.lock();
        let before = stored.len();
        let count = rows.len();
        for (_, kept) in rows {
            // Ids that the door makes are all the same here.
            if kept.id.as_bytes()[14] == b'7' || !stored.iter().any(|other| other.id == kept.id) {
                stored.push(kept);
            }
        }
        (count - (stored.len() - before)) as u64
    }

    fn state(text: &str) -> Result<(), Refusal> {
        match text {
            _ if text.contains("\"busy\"") => Err(Refusal::Busy),
            _ if text.contains("\"disk-full\"") => Err(Refusal::Unavailable("no space left".into())),
            _ if text.contains("\"closing\"") => Err(Refusal::Closing),
            _ => Ok(()),
        }
    }

    fn take(&self, bundle: &Bundle) -> Result<Taken, Refusal> {
        Self::state(&String::from_utf8_lossy(&bundle.bytes))?;
        let (mut decoder, mut rejections) = (Decoder::new(&self.catalogue, Limits::default()), Vec::new());
        for (index, message) in bundle.messages.iter().enumerate() {
            let known = bundle.known.get(index).and_then(|known| known.client_id.as_ref());
            let unreadable = |fault: &String| {
                let kind = RejectionKind::Malformed;
                Rejection { kind, code: "unreadable", message: fault.clone(), details: Vec::new() }
            };
            let body = &bundle.bytes[message.bytes.clone()];
            let decoded = if let Some(fault) = &message.fault {
                Err(unreadable(fault))
            } else {
                decoder.decode(body, &context(known, &bundle.source)).map(drop)
            };
            rejections.extend(decoded.err().map(|rejection| (index, rejection)));
        }
        let taken = decoder.rows() as u64;
        let repeated = self.keep(&mut decoder);
        Ok(Taken { stored: taken - repeated, repeated, rejected: rejections.len() as u64, rejections })
    }
}

fn context<'a>(client_id: Option<&'a ClientId>, source: &'a str) -> Context<'a> {
    Context { ingested_at: 1_767_225_600_000_000, random: [1; 10], client_id, source, metadata: &[] }
}

impl Door for CheckingDoor {
    fn submit(&self, submission: Submission<Vec<u8>>) -> Answer {
        let mut decoder = Decoder::new(&self.catalogue, Limits::default());
        let context = context(submission.client_id.as_ref(), &submission.source);
        let decoded = decoder.decode_as(&submission.form, &submission.body, &context).map(|accepted| accepted.id);
        let answer = decoded.map_err(Refusal::Rejected).and_then(|id| {
            Self::state(&String::from_utf8_lossy(&submission.body))?;
            self.keep(&mut decoder);
            Ok(id)
        });
        Box::pin(std::future::ready(answer))
    }

    fn submit_bundle(&self, bundle: Arc<Bundle>) -> BundleAnswer {
        let chain = bundle.chain.clone().expect("bundles of a request are a chain");
        let answer = if chain.is_cut() { Err(Refusal::Unavailable("cut".into())) } else { self.take(&bundle) };
        if answer.is_err() && answer != Err(Refusal::Busy) {
            chain.cut();
        }
        Box::pin(std::future::ready(answer))
    }
}

/// Serves the source on a port of its own, for as long as the test runs.
pub fn serve(patience: Patience) -> SocketAddr {
    serve_door(CheckingDoor::new(), patience, None)
}

/// As [`serve`], with a door of the test's own and what authentication found out.
pub fn serve_door(door: Arc<dyn Door>, patience: Patience, caller: Option<Caller>) -> SocketAddr {
    let mut routes = routes_with(door, &Settings::default(), "api", patience);
    if let Some(caller) = caller {
        routes = routes.layer(axum::Extension(caller));
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(routes.clone());
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new()).half_close(true);
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    address
}

/// An answer: its status, its head in lower case, and its JSON.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub json: Value,
}

impl Reply {
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }
}

pub struct Client(pub TcpStream);

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a timeout");
        Self(stream)
    }

    /// Sends as much as the server takes: it may hang up in the middle.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Reads one answer, by its content length.
    pub fn reply(&mut self) -> Reply {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0
                .read_exact(&mut byte)
                .unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&head)));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).expect("a body");
        Reply { status, head, json: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// Whether an answer has begun to arrive.
    pub fn has_reply(&self) -> bool {
        self.0.set_nonblocking(true).expect("a socket");
        let is_there = matches!(self.0.peek(&mut [0]), Ok(1..));
        self.0.set_nonblocking(false).expect("a socket");
        is_there
    }

    pub fn is_closed(&mut self) -> bool {
        // A hang-up with unread input comes as a reset.
        !matches!(self.0.read(&mut [0]), Ok(1..))
    }
}

fn request(headers: &str, body: &[u8]) -> Vec<u8> {
    request_to("/api/v1/events", headers, body)
}

pub fn request_to(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub fn post(address: SocketAddr, headers: &str, body: &[u8]) -> Reply {
    raw(address, &request(headers, body))
}

pub fn raw(address: SocketAddr, bytes: &[u8]) -> Reply {
    let mut client = Client::new(address);
    client.send(bytes);
    client.reply()
}

#[test]
fn an_event_is_accepted_with_its_id() {
    let address = serve(Patience::default());
    for headers in ["", "content-type: application/json\r\n", "content-type: Application/vnd.x+json; charset=UTF-8\r\n"]
    {
        let reply = post(address, headers, GOOD.as_bytes());
        assert_eq!(reply.status, 202, "{headers}{}", reply.json);
        assert_eq!(reply.json["status"], "accepted");
        let id = reply.json["event_id"].as_str().expect("an id");
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'));
        assert!(reply.head.contains("content-type: application/json"), "{}", reply.head);
    }
}

#[test]
fn an_idempotency_key_makes_the_id() {
    let address = serve(Patience::default());
    let id =
        |key: &str| post(address, &format!("idempotency-key: {key}\r\n"), GOOD.as_bytes()).json["event_id"].clone();
    assert_eq!(id("order-7"), id("order-7"));
    assert_ne!(id("order-7"), id("order-8"));
    assert_eq!(id("order-7").as_str().map(|id| id.as_bytes()[14]), Some(b'8'));
    assert_eq!(id("order-7"), id("order-7\r\nidempotency-key: order-7"));
    for wrong in ["", "order-7\r\nidempotency-key: order-8", "\u{e9}", &"k".repeat(256)] {
        let reply = post(address, &format!("idempotency-key: {wrong}\r\n"), GOOD.as_bytes());
        assert_eq!((reply.status, reply.code()), (400, "invalid_idempotency_key"), "{wrong}");
    }
    assert!(id(&"k".repeat(255)).is_string());
}

#[test]
fn wrong_events_have_answers_that_say_where() {
    let address = serve(Patience::default());
    let event = |more: &str| format!(r#"{{"event_type":"sensor.reading","aggregate_id":"d1",{more}}}"#).into_bytes();
    let deep = [r#"{"a":"#.repeat(100_000), "}".repeat(100_000)].concat();
    let cases: [(Vec<u8>, u16, &str, &str); 12] = [
        (b"".into(), 400, "empty_body", ""),
        (b"{".into(), 400, "invalid_json", ""),
        (b"[1]".into(), 400, "invalid_envelope", "event"),
        (b"{\"a\":\"\xff\"}".into(), 400, "not_utf8", ""),
        (deep.into_bytes(), 400, "too_deep", ""),
        (b"{}".into(), 400, "invalid_envelope", "event_type"),
        (event(r#""payload":{"value":NaN}"#), 400, "invalid_json", ""),
        (event(r#""payload":{"value":"1"}"#), 422, "invalid_payload", "payload.value"),
        (
            event(r#""payload":{"value":1},"event_time":"1900-01-01T00:00:00Z""#),
            422,
            "invalid_event_time",
            "event_time",
        ),
        (event(r#""payload":{"value":1},"event_time":"2026-01-01T01:00:00Z""#), 422, "too_far_ahead", "event_time"),
        (br#"{"event_type":"a.b","aggregate_id":"d","payload":{}}"#.into(), 422, "unknown_event_type", "event_type"),
        (vec![b' '; (1 << 20) + 1], 413, "too_large", ""),
    ];
    for (body, status, code, path) in cases {
        let reply = post(address, "", &body);
        assert_eq!((reply.status, reply.code()), (status, code), "{}", reply.json);
        assert!(reply.json["error"].as_str().is_some_and(|error| !error.is_empty()));
        assert_eq!(reply.json["details"][0]["path"].as_str().unwrap_or_default(), path, "{}", reply.json);
    }
}

#[test]
fn refusals_say_when_to_try_again() {
    let address = serve(Patience::default());
    for (aggregate, code) in [("busy", "busy"), ("disk-full", "unavailable"), ("closing", "closing")] {
        let reply = post(address, "", GOOD.replace("d1", aggregate).as_bytes());
        assert_eq!((reply.status, reply.code()), (503, code));
        assert!(reply.head.contains("\r\nretry-after: "), "{}", reply.head);
    }
}

#[test]
fn wrong_paths_methods_and_types() {
    let address = serve(Patience::default());
    let get = raw(address, b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!((get.status, get.code()), (405, "method_not_allowed"));
    assert!(get.head.contains("\r\nallow: post\r\n"), "{}", get.head);
    let elsewhere = raw(address, b"POST /api/v1/event HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((elsewhere.status, elsewhere.code()), (404, "not_found"));
    let types = [
        "content-type: text/plain\r\n",
        "content-type: application/x-www-form-urlencoded\r\n",
        "content-type: application/x-ndjson\r\n",
        "content-type: application/cloudevents-batch+json\r\n",
        "content-type: application/json; charset=latin1\r\n",
        "content-encoding: gzip\r\n",
    ];
    for header in types {
        let reply = post(address, header, GOOD.as_bytes());
        assert_eq!((reply.status, reply.code()), (415, "unsupported_media_type"), "{header}");
    }
}

#[test]
fn a_caller_has_its_rate_and_its_own_keys() {
    let caller = |name: &str, rate: &str| {
        let rate = Some(Arc::new(Rate::parse(rate).expect("a rate")));
        serve_door(CheckingDoor::new(), Patience::default(), Some(Caller { name: name.into(), rate }))
    };
    let (a, b) = (caller("a", "2/h"), caller("b", "2/h"));
    let key = "idempotency-key: order-7\r\n";
    let id = |address| post(address, key, GOOD.as_bytes()).json["event_id"].clone();
    assert_ne!(id(a), id(b), "keys are the caller's own");
    assert_eq!(post(a, "", GOOD.as_bytes()).status, 202);
    let over = post(a, "", GOOD.as_bytes());
    assert_eq!((over.status, over.code()), (429, "rate_limited"));
    let wait = over.head.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse::<u32>().ok());
    assert!(wait.is_some_and(|seconds| (1_790..=1_800).contains(&seconds)), "{}", over.head);
}

#[test]
fn bodies_without_a_length_are_bounded() {
    let address = serve(Patience::default());
    let head = "POST /api/v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let (first, second) = GOOD.split_at(10);
    let chunked = format!("{head}{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    assert_eq!(raw(address, chunked.as_bytes()).status, 202);
    let mut endless = Client::new(address);
    endless.send(head.as_bytes());
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..17 {
        endless.send(chunk.as_bytes());
    }
    let reply = endless.reply();
    assert_eq!((reply.status, reply.code()), (413, "too_large"));
    assert!(endless.is_closed());
    let broken = raw(address, format!("{head}zz\r\n{GOOD}").as_bytes());
    assert_eq!(broken.status, 400);
    // A length that was announced is judged before a byte of the body is there.
    let mut huge = Client::new(address);
    huge.send(b"POST /api/v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n");
    assert_eq!(huge.reply().status, 413);
}

#[test]
fn slow_clients_are_let_go() {
    let address = serve(Patience { read_timeout: Duration::from_millis(200), ..Patience::default() });
    let mut client = Client::new(address);
    let whole = request("", GOOD.as_bytes());
    client.send(&whole[..whole.len() - 1]);
    let reply = client.reply();
    assert_eq!((reply.status, reply.code()), (408, "timeout"));
    assert!(client.is_closed());
}

#[test]
fn memory_for_bodies_is_bounded() {
    let address = serve(Patience { read_budget: 100_000, ..Patience::default() });
    let large = request("", &vec![b' '; 60_000]);
    // Neither body ends, and there is no room for both: whichever comes second is refused, or each by the other.
    let mut slow = [Client::new(address), Client::new(address)];
    for client in &mut slow {
        client.send(&large[..large.len() - 1]);
    }
    let is_refused = (0..30_000).any(|_| {
        std::thread::sleep(Duration::from_millis(2));
        slow.iter().any(Client::has_reply)
    });
    assert!(is_refused);
    let codes = slow.map(|mut client| {
        if !client.has_reply() {
            client.send(b" ");
        }
        client.reply().code().to_owned()
    });
    assert!(codes.iter().any(|code| code == "busy"), "{codes:?}");
    assert!(codes.iter().all(|code| code == "busy" || code == "empty_body"), "{codes:?}");
    // What was taken is given back, else this would have no room.
    assert_eq!(post(address, "", &vec![b' '; 90_000]).code(), "empty_body");
}

#[test]
fn half_closed_and_pipelined_connections() {
    let address = serve(Patience::default());
    let mut half = Client::new(address);
    half.send(&request("", GOOD.as_bytes()));
    half.0.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(half.reply().status, 202);
    let mut pipelined = Client::new(address);
    let bodies = [GOOD, "{", GOOD, "[]", GOOD];
    pipelined.send(&bodies.map(|body| request("", body.as_bytes())).concat());
    let statuses = bodies.map(|_| pipelined.reply().status);
    assert_eq!(statuses, [202, 400, 202, 400, 202]);
    // One that hangs up in the middle harms nobody.
    let mut gone = Client::new(address);
    let whole = request("", GOOD.as_bytes());
    gone.send(&whole[..whole.len() - 5]);
    drop(gone);
    assert_eq!(post(address, "", GOOD.as_bytes()).status, 202);
}
