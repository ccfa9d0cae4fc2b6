//! CONNECT: who a client is, whether it may come in, and what it and the broker agree on.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mqtt_proto::Protocol;
use mqtt_proto::v5::{Connack, Connect, ConnectReasonCode as Code, LastWill, Packet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::broker::Shared;
use super::session::MAX_EXPIRY;
use super::wire::{self, Broken, Opening};

/// How long a client may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// A CONNECT with its will is no longer than this.
const MAX_CONNECT: usize = 128 << 10;
/// So much of it is taken even where memory is short.
const SHORT_CONNECT: usize = 4 << 10;
/// The longest client id.
const MAX_CLIENT_ID: usize = 1_024;
/// What a client may have published and not acknowledged at one time.
pub(super) const RECEIVE_MAX: u16 = 1_000;
/// How many topics a client may give numbers.
pub(super) const TOPIC_ALIASES: u16 = 64;
/// The longest packet: an event of the greatest size, and its topic and properties.
pub(super) const MAX_PACKET: usize = (1 << 20) + (128 << 10);

/// A client that may come in.
pub(super) struct Client {
    pub id: Arc<str>,
    pub protocol: Protocol,
    pub is_clean: bool,
    pub keep_alive: Option<Duration>,
    pub expiry: u32,
    pub will: Option<LastWill>,
    /// How many messages it takes unacknowledged, and how long packets may be for it.
    pub window: u16,
    pub max_packet: usize,
    /// Whether the id was made up for it.
    is_named_here: bool,
    is_expiry_cut: bool,
}

/// Why nobody came in: the answer to give, if the client understands one.
struct Refused(Option<(Code, Protocol)>);

impl Refused {
    /// What breaks the rules of CONNECT has an answer in MQTT 5 alone; before, the connection is closed without one.
    fn broken(broken: &Broken, protocol: Protocol) -> Self {
        tracing::debug!(why = broken.why, "a CONNECT is refused");
        let code = Code::from_u8(broken.reason as u8).unwrap_or(Code::MalformedPacket);
        Self((protocol == Protocol::V500).then_some((code, protocol)))
    }
}

/// Bytes of a client that is not in yet: they count like all that is received and not stored.
struct Held<'a>(&'a Shared, usize);

impl Held<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        self.0.grow(bytes);
        self.1 += bytes;
        if self.1 <= SHORT_CONNECT || self.0.has_room() { Ok(()) } else { Err(Refused(None)) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.shrink(self.1);
    }
}

/// Reads CONNECT and judges it; what was received behind it stays in `received`. A client that may not come in has its
/// answer already.
pub(super) async fn receive(socket: &mut TcpStream, received: &mut BytesMut, shared: &Shared) -> Option<Client> {
    let read = async {
        let connect = read(socket, received, shared).await?;
        judge(connect, shared).await
    };
    let outcome = tokio::time::timeout(PATIENCE, read).await.unwrap_or(Err(Refused(None)));
    match outcome {
        Ok(client) => Some(client),
        Err(Refused(answer)) => {
            if let Some((code, protocol)) = answer {
                self::answer(socket, code, protocol).await;
            }
            None
        }
    }
}

/// Tells a client that it may not come in.
pub(super) async fn answer(socket: &mut TcpStream, code: Code, protocol: Protocol) {
    let mut out = Vec::new();
    wire::write(Packet::Connack(Connack::new(false, code)), protocol, &mut out);
    // It is refused all the same if it does not want to know.
    let _ = tokio::time::timeout(PATIENCE, socket.write_all(&out)).await;
}

async fn read(socket: &mut TcpStream, received: &mut BytesMut, shared: &Shared) -> Result<Connect, Refused> {
    let mut held = Held(shared, 0);
    loop {
        match wire::opening(received) {
            Opening::Noise => return Err(Refused(None)),
            Opening::Unknown(protocol) => return Err(Refused(Some((Code::UnsupportedProtocolVersion, protocol)))),
            Opening::Of(protocol) => match wire::next(received, protocol, MAX_CONNECT) {
                Ok(Some(Packet::Connect(connect))) => return Ok(connect),
                Ok(Some(_)) => return Err(Refused(None)),
                Ok(None) => {}
                Err(broken) => return Err(Refused::broken(&broken, protocol)),
            },
            Opening::Unclear => {}
        }
        match socket.read_buf(received).await {
            Ok(read @ 1..) => held.grow(read)?,
            _ => return Err(Refused(None)),
        }
    }
}

async fn judge(connect: Connect, shared: &Shared) -> Result<Client, Refused> {
    let protocol = connect.protocol;
    let refuse = |code| Err(Refused(Some((code, protocol))));
    let is_v5 = protocol == Protocol::V500;
    if connect.properties.auth_method.is_some() {
        return refuse(Code::BadAuthMethod);
    }
    let is_named_here = connect.client_id.is_empty();
    if connect.client_id.len() > MAX_CLIENT_ID || (is_named_here && !is_v5 && !connect.clean_start) {
        return refuse(Code::ClientIdentifierNotValid);
    }
    if !may_enter(&connect, shared).await {
        return refuse(if connect.username.is_some() { Code::BadUserNameOrPassword } else { Code::NotAuthorized });
    }
    let will_fits = connect.last_will.as_ref().is_none_or(|will| is_publishable(&will.topic_name));
    if !will_fits {
        return refuse(if is_v5 { Code::TopicNameInvalid } else { Code::NotAuthorized });
    }
    let id = if is_named_here { shared.new_client_id() } else { connect.client_id.to_string() };
    let asked = connect.properties.session_expiry_interval.unwrap_or(0);
    // Half as much again, as the protocol has it; 0 means for ever.
    let keep_alive = (connect.keep_alive > 0).then(|| Duration::from_millis(u64::from(connect.keep_alive) * 1_500));
    let client = Client {
        id: id.into(),
        protocol,
        is_clean: connect.clean_start,
        keep_alive,
        expiry: asked.min(MAX_EXPIRY),
        will: connect.last_will,
        window: connect.properties.receive_max.unwrap_or(u16::MAX),
        max_packet: connect.properties.max_packet_size.map_or(usize::MAX, |bytes| bytes as usize),
        is_named_here,
        is_expiry_cut: asked > MAX_EXPIRY,
    };
    let mut welcome = Vec::new();
    wire::write(client.welcome(false), protocol, &mut welcome);
    // Who cannot take even this cannot be told why.
    if welcome.len() > client.max_packet { Err(Refused(None)) } else { Ok(client) }
}

/// Whether clients may publish there: it names something, and not the broker's own.
pub(super) fn is_publishable(topic: &str) -> bool {
    !topic.is_empty() && !topic.starts_with('$')
}

async fn may_enter(connect: &Connect, shared: &Shared) -> bool {
    let Some(passwords) = &shared.passwords else { return true };
    let (Some(name), Some(password)) = (&connect.username, &connect.password) else { return false };
    let (passwords, name, password) = (Arc::clone(passwords), name.to_string(), password.clone());
    tokio::task::spawn_blocking(move || passwords.verify(&name, &password)).await.unwrap_or(false)
}

impl Client {
    /// The answer to a client that comes in.
    pub fn welcome(&self, is_present: bool) -> Packet {
        let mut connack = Connack::new(is_present, Code::Success);
        let properties = &mut connack.properties;
        properties.receive_max = Some(RECEIVE_MAX);
        properties.max_packet_size = Some(u32::try_from(MAX_PACKET).unwrap_or(u32::MAX));
        properties.topic_alias_max = Some(TOPIC_ALIASES);
        properties.shared_subscription_available = Some(false);
        properties.session_expiry_interval = self.is_expiry_cut.then_some(MAX_EXPIRY);
        properties.assigned_client_id = self.is_named_here.then(|| Arc::clone(&self.id));
        Packet::Connack(connack)
    }
}
