//! A client of MQTT 3.1, 3.1.1 and 5, written by hand from the standard, so that it can also do what no library would.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const PATIENCE: Duration = Duration::from_secs(10);
/// For how long nothing must come where nothing may.
const SILENCE: Duration = Duration::from_millis(150);

/// MQTT 3.1, 3.1.1 and 5, by their protocol level.
pub const VERSIONS: [u8; 3] = [3, 4, 5];

/// A packet as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#04x}[{}]", self.first, self.body.escape_ascii())
    }
}

/// A PUBLISH that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    pub id: u16,
    pub properties: Vec<u8>,
}

/// What a CONNECT says.
#[derive(Clone, Debug)]
pub struct Connect<'a> {
    pub version: u8,
    pub id: &'a str,
    pub clean: bool,
    pub keep_alive: u16,
    /// Topic, payload, quality of service, retain.
    pub will: Option<(&'a str, &'a str, u8, bool)>,
    pub will_properties: &'a [u8],
    pub login: Option<(&'a str, &'a str)>,
    pub properties: &'a [u8],
}

impl Default for Connect<'_> {
    fn default() -> Self {
        Self {
            version: 5,
            id: "",
            clean: true,
            keep_alive: 0,
            will: None,
            will_properties: &[],
            login: None,
            properties: &[],
        }
    }
}

pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

pub fn length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(length & 0x7f).expect("seven bits");
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return bytes;
        }
    }
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first], length(body.len()).as_slice(), body].concat()
}

impl Connect<'_> {
    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = if self.clean { 2 } else { 0 };
        let is_v5 = self.version == 5;
        let mut body = text(if self.version == 3 { "MQIsdp" } else { "MQTT" });
        let mut rest = text(self.id);
        if let Some((topic, payload, qos, retain)) = self.will {
            flags |= 4 | qos << 3 | u8::from(retain) << 5;
            if is_v5 {
                rest.extend(length(self.will_properties.len()));
                rest.extend(self.will_properties);
            }
            rest.extend([text(topic), text(payload)].concat());
        }
        if let Some((name, password)) = self.login {
            flags |= 0xc0;
            rest.extend([text(name), text(password)].concat());
        }
        body.extend([self.version, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if is_v5 {
            body.extend(length(self.properties.len()));
            body.extend(self.properties);
        }
        body.extend(rest);
        packet(0x10, &body)
    }
}

/// A connection to the broker.
pub struct Client {
    socket: TcpStream,
    pub version: u8,
}

impl Client {
    /// A connection on which nothing was said yet.
    pub async fn open(at: SocketAddr, version: u8) -> Self {
        let socket = TcpStream::connect(at).await.expect("a connection");
        socket.set_nodelay(true).expect("a socket");
        Self { socket, version }
    }

    /// Sends a CONNECT and gives the CONNACK.
    pub async fn try_connect(at: SocketAddr, connect: &Connect<'_>) -> (Self, Packet) {
        let mut client = Self::open(at, connect.version).await;
        client.send(&connect.bytes()).await;
        let connack = client.receive().await;
        assert_eq!(connack.first, 0x20, "{connack:?}");
        (client, connack)
    }

    /// Connects; gives whether there was a session.
    pub async fn resume(at: SocketAddr, connect: &Connect<'_>) -> (Self, bool) {
        let (client, connack) = Self::try_connect(at, connect).await;
        assert_eq!(connack.body[1], 0, "{connack:?}");
        (client, connack.body[0] == 1)
    }

    /// Connects with a clean session.
    pub async fn connect(at: SocketAddr, version: u8, id: &str) -> Self {
        Self::resume(at, &Connect { version, id, ..Connect::default() }).await.0
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("sent");
    }

    /// As [`Client::send`]; a connection that is closed is no fault.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).await.is_ok()
    }

    /// The next packet; `None` if the connection was closed.
    pub async fn next(&mut self) -> Option<Packet> {
        tokio::time::timeout(PATIENCE, read(&mut self.socket)).await.expect("neither a packet nor an end came in time")
    }

    /// One side that sends and one that receives.
    pub fn split(self) -> (Receiving, Sending) {
        let (reader, writer) = self.socket.into_split();
        (Receiving(reader), Sending(writer))
    }

    pub async fn receive(&mut self) -> Packet {
        self.next().await.expect("a packet, not the end")
    }

    /// The next packet is this.
    pub async fn expect(&mut self, first: u8, body: &[u8]) {
        let found = self.receive().await;
        assert_eq!(found, Packet { first, body: body.to_vec() });
    }

    /// Nothing comes.
    pub async fn expect_silence(&mut self) {
        self.expect_silence_for(SILENCE).await;
    }

    /// Nothing comes for so long.
    pub async fn expect_silence_for(&mut self, span: Duration) {
        let mut byte = [0];
        let found = tokio::time::timeout(span, self.socket.peek(&mut byte)).await;
        assert!(found.is_err(), "{found:?} {byte:?}");
    }

    /// The connection ends, with this reason if the version has reasons.
    pub async fn expect_end(&mut self, reason: u8) {
        let mut last = None;
        while let Some(packet) = self.next().await {
            last = Some(packet);
        }
        let expected = (self.version == 5).then(|| Packet { first: 0xe0, body: vec![reason] });
        let last = last.filter(|last| last.first == 0xe0);
        // A short form has no properties, a long one has none either.
        let last = last.map(|mut last| {
            last.body.truncate(1);
            last
        });
        assert_eq!(last, expected);
    }

    /// The next packet is a message.
    pub async fn message(&mut self) -> Message {
        let packet = self.receive().await;
        assert_eq!(packet.first >> 4, 3, "{packet:?}");
        message(&packet, self.version)
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8], (qos, id): (u8, u16)) {
        self.send(&publish(self.version, topic, payload, &Flags { qos, id, ..Flags::default() })).await;
    }

    /// Publishes with QoS 1 and waits for the PUBACK.
    pub async fn publish_acked(&mut self, topic: &str, payload: &[u8], retain: bool) {
        self.send(&publish(self.version, topic, payload, &Flags { qos: 1, id: 77, retain, ..Flags::default() })).await;
        self.expect(0x40, &[0, 77]).await;
    }

    /// Subscribes; gives the code.
    pub async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(filter, options, &[]).await
    }

    pub async fn subscribe_with(&mut self, filter: &str, options: u8, properties: &[u8]) -> u8 {
        let mut body = vec![0, 9];
        if self.version == 5 {
            body.extend(length(properties.len()));
            body.extend(properties);
        }
        body.extend(text(filter));
        body.push(options);
        self.send(&packet(0x82, &body)).await;
        let suback = self.receive().await;
        assert_eq!((suback.first, &suback.body[..2]), (0x90, &[0, 9][..]), "{suback:?}");
        *suback.body.last().expect("a code")
    }

    pub async fn unsubscribe(&mut self, filter: &str) {
        let mut body = vec![0, 8];
        if self.version == 5 {
            body.push(0);
        }
        body.extend(text(filter));
        self.send(&packet(0xa2, &body)).await;
        assert_eq!(self.receive().await.first, 0xb0);
    }

    /// Everything that was sent before this is dealt with.
    pub async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        self.expect(0xd0, &[]).await;
    }

    /// Leaves in order.
    pub async fn leave(mut self) {
        self.send(&[0xe0, 0]).await;
        assert_eq!(self.next().await, None);
    }
}

/// What a PUBLISH says beside topic and payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags<'a> {
    pub qos: u8,
    pub id: u16,
    pub dup: bool,
    pub retain: bool,
    pub properties: &'a [u8],
}

pub fn publish(version: u8, topic: &str, payload: &[u8], flags: &Flags<'_>) -> Vec<u8> {
    let mut body = text(topic);
    if flags.qos > 0 {
        body.extend(flags.id.to_be_bytes());
    }
    if version == 5 {
        body.extend(length(flags.properties.len()));
        body.extend(flags.properties);
    }
    body.extend(payload);
    packet(0x30 | u8::from(flags.dup) << 3 | flags.qos << 1 | u8::from(flags.retain), &body)
}

pub fn message(packet: &Packet, version: u8) -> Message {
    let (first, mut rest) = (packet.first, packet.body.as_slice());
    let take = |rest: &mut &[u8], count: usize| {
        let (taken, after) = rest.split_at(count);
        *rest = after;
        taken.to_vec()
    };
    let number = |rest: &mut &[u8]| {
        let bytes = take(rest, 2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    };
    let size = number(&mut rest);
    let topic = String::from_utf8(take(&mut rest, usize::from(size))).expect("UTF-8");
    let qos = first >> 1 & 3;
    let id = if qos > 0 { number(&mut rest) } else { 0 };
    let mut properties = Vec::new();
    if version == 5 {
        let size = take(&mut rest, 1)[0];
        assert!(size < 0x80, "short properties");
        properties = take(&mut rest, usize::from(size));
    }
    Message { topic, payload: rest.to_vec(), qos, dup: first & 8 != 0, retain: first & 1 != 0, id, properties }
}

/// The side of a connection that sends.
pub struct Sending(tokio::net::tcp::OwnedWriteHalf);

impl Sending {
    /// As [`Sending::send`]; a connection that is closed is no fault.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("sent");
    }
}

/// The side that receives.
pub struct Receiving(tokio::net::tcp::OwnedReadHalf);

impl Receiving {
    pub async fn receive(&mut self) -> Packet {
        let packet = tokio::time::timeout(PATIENCE, read(&mut self.0)).await.expect("a packet in time");
        packet.expect("a packet, not the end")
    }
}

pub async fn read(socket: &mut (impl AsyncReadExt + Unpin)) -> Option<Packet> {
    let first = socket.read_u8().await.ok()?;
    let (mut size, mut shift) = (0, 0);
    loop {
        let byte = socket.read_u8().await.ok()?;
        size |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; size];
    socket.read_exact(&mut body).await.ok()?;
    Some(Packet { first, body })
}
