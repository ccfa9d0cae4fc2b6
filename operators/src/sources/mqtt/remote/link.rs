//! The connection to the broker, seen from those who use it: what happens on it, and what is to be said on it.
//!
//! A task of its own, the [pump](super::pump), holds the connection and makes it again whenever it breaks. It tells what
//! happens as [`Event`]s, in order. Messages that were read and are not acknowledged on the wire occupy [`ROOM`], which is
//! what bounds memory; when it is full nothing more is read.
//!
//! **Acknowledgements belong to a connection.** A packet id means nothing to the next one: if the broker has lost the
//! session, it may stand for a message that nobody has stored. So connections are numbered; an acknowledgement names its
//! own and is dropped when that is over.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::environment::Random;
use parking_lot::Mutex;
use rumqttc::{ConnectReturnCode, ConnectionError, MqttOptions, Publish, QoS, StateError, mqttbytes};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use super::address::Address;
use super::counts::Counts;
use super::pump::{CONNECT_SECONDS, KEEP_ALIVE, Pump};
use super::session::Session;

/// How many bytes of messages are held at most, about.
pub(super) const ROOM: usize = 16 << 20;
/// What a message weighs beside its bytes. So at most half as many as there are packet ids are unacknowledged: some
/// brokers send a long queue without waiting for acknowledgements, and packet ids must not come round meanwhile.
const OVERHEAD: usize = 512;
/// How many events wait at most.
const EVENTS: usize = 1_024;
/// The greatest packet of the protocol. The broker says how large messages may be; one that we refused to read would be
/// sent again for ever.
const MAX_PACKET: usize = 268_435_455 + 5;
const CLOSED: &str = "the broker has closed the connection";

/// What happens on the connection.
#[derive(Debug)]
pub(super) enum Event {
    /// It is there, under this number; whether the broker still had our session.
    Up(u64, bool),
    /// It is gone.
    Down,
    /// A message has come, on the connection of this number.
    Message(u64, Publish, OwnedSemaphorePermit),
    /// The broker has this many further acknowledgements.
    Settled(usize),
    /// We have taken our leave.
    Left,
}

/// What is to be said.
pub(super) enum Saying {
    /// That a message of this connection, with this packet id, is stored; what it occupies until that is said.
    Stored(u64, u16, OwnedSemaphorePermit),
    /// Good-bye.
    Leave,
}

/// What is wanted of the broker.
pub(super) struct Wanted {
    pub address: Address,
    /// As the broker is told, so with `$share/` where there is a group.
    pub filters: Vec<String>,
    pub qos: QoS,
}

/// What is to be said and has not been. Its length is bounded by the room that messages occupy.
#[derive(Default)]
pub(super) struct Outbox {
    sayings: Mutex<VecDeque<Saying>>,
    has_more: Notify,
}

impl Outbox {
    fn push(&self, saying: Saying) {
        self.sayings.lock().push_back(saying);
        self.has_more.notify_one();
    }

    /// Waits until something is to be said.
    pub async fn has_more(&self) {
        self.has_more.notified().await;
    }

    /// All that is to be said.
    pub fn take(&self) -> VecDeque<Saying> {
        std::mem::take(&mut *self.sayings.lock())
    }
}

/// The connection.
pub(super) struct Link {
    pub events: mpsc::Receiver<Event>,
    outbox: Arc<Outbox>,
    counts: Arc<Counts>,
    pump: JoinHandle<()>,
}

impl Link {
    /// Begins to connect.
    pub fn start(
        name: &str,
        wanted: Wanted,
        session: Session,
        (random, counts): (Arc<dyn Random>, Arc<Counts>),
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let outbox = Arc::new(Outbox::default());
        let pump = Pump::new(name, wanted, session, (sender, Arc::clone(&outbox)), Arc::clone(&counts));
        Self { events, outbox, counts, pump: tokio::spawn(pump.run(random)) }
    }

    /// Says that a message is stored, if the connection that it came on is still there.
    pub fn acknowledge(&self, connection: u64, packet_id: u16, room: OwnedSemaphorePermit) {
        self.outbox.push(Saying::Stored(connection, packet_id, room));
    }

    /// Takes leave after what was acknowledged; the broker keeps the session. What still comes is not acknowledged.
    pub async fn leave(mut self, patience: Duration) {
        if !self.counts.read().connected {
            return;
        }
        self.outbox.push(Saying::Leave);
        let left = async {
            while let Some(event) = self.events.recv().await {
                if matches!(event, Event::Left | Event::Down) {
                    break;
                }
            }
        };
        if tokio::time::timeout(patience, left).await.is_err() {
            tracing::debug!("the broker did not take our leave in time");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// What a message occupies.
pub(super) fn weight(publish: &Publish) -> u32 {
    let bytes = publish.topic.len() + publish.payload.len() + OVERHEAD;
    u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX)
}

/// Options of a client. Without `is_brief` its session outlives the connection.
pub(super) fn options(address: &Address, client_id: &str, is_brief: bool) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, address.host.clone(), address.port);
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(is_brief).set_manual_acks(true);
    options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
    if let Some((user, password)) = &address.credentials {
        options.set_credentials(user, password);
    }
    options
}

/// Why no connection came about, for people.
pub(super) fn reason_at_first(error: &ConnectionError, address: &Address) -> String {
    let reason = reason(error);
    if reason == CLOSED && !address.is_secure() {
        return format!("{reason} before it answered: if it wants TLS, write mqtts://");
    }
    reason
}

/// Why there is no connection any more, for people.
pub(super) fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword => "the broker refuses: user name or password is wrong".into(),
            ConnectReturnCode::NotAuthorized => {
                "the broker refuses: not authorised (are user name and password right, and allowed in?)".into()
            }
            ConnectReturnCode::BadClientId => "the broker refuses the client id".into(),
            ConnectReturnCode::ServiceUnavailable => "the broker is not available at the moment".into(),
            ConnectReturnCode::RefusedProtocolVersion => "the broker does not speak MQTT 3.1.1".into(),
            ConnectReturnCode::Success => "the broker refuses".into(),
        },
        ConnectionError::NetworkTimeout => format!("no answer within {CONNECT_SECONDS} seconds"),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker has fallen silent".into(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => CLOSED.into(),
        ConnectionError::Io(error)
        | ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
        ) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof) => {
            CLOSED.into()
        }
        ConnectionError::MqttState(error) => error.to_string(),
        error => error.to_string(),
    }
}
