//! The embedded broker: it listens, and gives each client a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cornjacket_core::door::Door;
use cornjacket_core::environment::Random;
use mqtt_proto::v5::LastWill;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::Connection;
use super::counts::{BrokerCounts, count};
use super::handshake;
use super::hub::Hub;
use super::intake::{Batch, Intake, store};
use super::message::{Message, of_will};
use super::passwords::Passwords;
use super::recent::Recent;
use super::session::Session;
use super::source::Source;

/// Clients at one time.
const MAX_CONNECTIONS: usize = 10_000;
/// How long connections may take to settle what they had received once the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How often sessions are looked at whose time may be over.
const SWEEP: Duration = Duration::from_secs(10);
/// Bytes that were received and are not stored, over all connections.
const MAX_UNSTORED: usize = 128 << 20;

/// The embedded broker.
pub struct Broker {
    shared: Arc<Shared>,
}

/// What all connections share.
pub(super) struct Shared {
    pub intakes: Arc<Vec<Intake>>,
    pub door: Arc<dyn Door>,
    pub hub: Hub,
    pub passwords: Option<Arc<Passwords>>,
    pub counts: Arc<BrokerCounts>,
    random: Arc<dyn Random>,
    unstored: AtomicUsize,
}

/// A source for the broker, with the receipts of what was stored before (the newest first).
pub struct Restored {
    /// The source.
    pub source: Source,
    /// What `EventLog::receipts` has of it.
    pub receipts: Vec<Vec<u8>>,
}

impl Broker {
    /// A broker that hands what is published to the sources' topics to the door. Without passwords everybody may come in.
    pub fn new(
        sources: Vec<Restored>,
        door: Arc<dyn Door>,
        passwords: Option<Passwords>,
        (random, counts): (Arc<dyn Random>, &Arc<BrokerCounts>),
    ) -> Self {
        let intake = |Restored { source, receipts }| Intake { source, recent: Recent::restore(&receipts) };
        let shared = Shared {
            intakes: Arc::new(sources.into_iter().map(intake).collect()),
            door,
            hub: Hub::new(counts),
            passwords: passwords.map(Arc::new),
            counts: Arc::clone(counts),
            random,
            unstored: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves until told to end; then what was received is settled, and clients are told.
    pub async fn serve(self, listener: TcpListener, stop: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut sweep = tokio::time::interval(SWEEP);
        let mut told = stop.clone();
        loop {
            tokio::select! {
                () = is_told(&mut told) => break,
                _ = sweep.tick() => self.shared.hub.sweep(),
                _ = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                            count(&self.shared.counts.refused);
                            continue;
                        };
                        let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
                        connections.spawn(async move {
                            serve_one(socket, shared, stop).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS, all).await.is_err() {
            tracing::warn!("some clients have no acknowledgement of what they sent last: they will send it again");
        }
    }
}

/// Returns when the process ends.
pub(super) async fn is_told(stop: &mut watch::Receiver<bool>) {
    // Without its sender there is nobody left to serve for.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn serve_one(mut socket: TcpStream, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    // Small packets go at once; a socket that does not know this works all the same.
    let _ = socket.set_nodelay(true);
    let mut received = bytes::BytesMut::new();
    let Some(client) = handshake::receive(&mut socket, &mut received, &shared).await else {
        count(&shared.counts.refused);
        return;
    };
    Connection::run(client, socket, received, shared, stop).await;
}

impl Shared {
    /// A name for a client that has none.
    pub fn new_client_id(&self) -> String {
        let mut bytes = [0; 12];
        self.random.fill(&mut bytes);
        bytes.iter().fold("cj-".to_string(), |id, byte| id + &format!("{byte:02x}"))
    }

    /// Counts bytes that were received and are not stored.
    pub fn grow(&self, bytes: usize) {
        self.unstored.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn shrink(&self, bytes: usize) {
        self.unstored.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether there is room for more of them.
    pub fn has_room(&self) -> bool {
        self.unstored.load(Ordering::Relaxed) < MAX_UNSTORED
    }

    /// Publishes what a client left for the case that it goes without a word: after its delay or with the end of its
    /// session, and not at all if the client comes back to the session before.
    pub fn leave_will(self: &Arc<Self>, will: LastWill, session: &Session, expiry: u32) {
        let delay = will.properties.delay_interval.unwrap_or(0).min(expiry);
        let waiting = (delay > 0).then(|| (Duration::from_secs(u64::from(delay)), session.delay_will()));
        let (shared, client) = (Arc::clone(self), Arc::clone(&session.client));
        let (qos, publish) = (will.qos, of_will(will));
        tokio::spawn(async move {
            if let Some((delay, is_over)) = waiting
                && let Ok(Ok(false)) = tokio::time::timeout(delay, is_over).await
            {
                return;
            }
            let mut batch = Batch::default();
            batch.add(&shared.intakes, &client, publish, &shared.counts);
            for publish in store(batch, &shared.intakes, &shared.door).await.unwrap_or_default() {
                let mut message = Message::new(publish, &client);
                message.qos = qos;
                shared.hub.route(message);
            }
        });
    }
}
