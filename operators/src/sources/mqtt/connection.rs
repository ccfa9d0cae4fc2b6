//! A client's connection: packets in, publishes to the door, acknowledgements and messages out.
//!
//! One task does it all. What is read goes into a batch; while a batch is being stored the next one grows, up to a bound
//! beyond which nothing is read. An acknowledgement is written only for what is durable.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mqtt_proto::v5::{
    ConnectReasonCode as Code, Disconnect, DisconnectReasonCode as Reason, Packet, Puback, PubackReasonCode, Pubcomp,
    PubcompReasonCode, Publish, Pubrec, PubrecReasonCode, Pubrel, PubrelReasonCode,
};
use mqtt_proto::{Pid, Protocol, QosPid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::aliases::Aliases;
use super::broker::{Shared, is_told};
use super::counts::count;
use super::handshake::{self, Client, MAX_PACKET, RECEIVE_MAX, is_publishable};
use super::intake::{Batch, Storing, mark, store};
use super::message::Message;
use super::recent::Pending;
use super::session::{Outgoing, Session};
use super::wire::{self, Broken};

mod ending;

/// A batch takes no more than about this.
const BATCH_PUBLISHES: usize = 4_096;
const BATCH_BYTES: usize = 2 << 20;
/// How much is encoded before it is written.
const WRITE_BYTES: usize = 64 << 10;
/// How long a client may take to read what it is sent.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for the client's connection before this one to settle what it had received.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// Memory is short: how often it is looked again, and how long an incomplete packet is held meanwhile.
const ROOM_LOOK: Duration = Duration::from_millis(50);
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
/// So much of a long packet is a sign of life like a whole one. Single bytes now and then are none.
const SIGN_OF_LIFE: usize = 1_024;

/// A connection at work.
pub(super) struct Connection {
    client: Client,
    session: Arc<Session>,
    shared: Arc<Shared>,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    received: BytesMut,
    out: Vec<u8>,
    batch: Batch,
    storing: Option<Under>,
    aliases: Aliases,
    kick: Arc<Notify>,
    heard: Instant,
    /// Bytes since then.
    unheard: usize,
    short_since: Option<Instant>,
    /// Bytes that the broker knows of.
    counted: usize,
    /// Whether a packet was sent in part.
    is_cut: bool,
}

/// The batch that is being stored.
struct Under {
    storing: Storing,
    bytes: usize,
    pending: Pending,
}

/// Why a connection ends.
enum End {
    /// It is gone.
    Closed,
    /// The client said so.
    Left { is_will_wanted: bool, expiry: Option<u32> },
    /// The client has come by another connection.
    Kicked,
    /// The process ends.
    Stopping,
    /// It did something that is not allowed, or nothing for too long.
    Broken(Broken),
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl Connection {
    /// Speaks with a client until one of them has enough.
    pub async fn run(
        client: Client,
        mut socket: TcpStream,
        received: BytesMut,
        shared: Arc<Shared>,
        stop: watch::Receiver<bool>,
    ) {
        let Some(session) = shared.hub.session(&client.id) else {
            count(&shared.counts.refused);
            return handshake::answer(&mut socket, Code::QuotaExceeded, client.protocol).await;
        };
        let kick = Arc::new(Notify::new());
        session.claim(&kick);
        let turn = Arc::clone(&session.turn).lock_owned();
        // The client sees the connection close, and comes again.
        let Ok(turn) = tokio::time::timeout(TURN_PATIENCE, turn).await else { return };
        let (reader, writer) = socket.into_split();
        let mut connection = Self {
            client,
            session,
            shared,
            reader,
            writer,
            received,
            out: Vec::new(),
            batch: Batch::default(),
            storing: None,
            aliases: Aliases::default(),
            kick,
            heard: Instant::now(),
            unheard: 0,
            short_since: None,
            counted: 0,
            is_cut: false,
        };
        count(&connection.shared.counts.connects);
        count(&connection.shared.counts.connections);
        connection.begin();
        let end = connection.work(stop).await;
        connection.finish(end, turn).await;
    }

    fn begin(&mut self) {
        let (is_present, filters) = self.session.begin(self.client.is_clean, self.client.expiry);
        self.shared.hub.forget(&self.client.id, &filters);
        let welcome = self.client.welcome(is_present);
        self.send(welcome);
        for outgoing in self.session.again() {
            match outgoing {
                Outgoing::Release(pid) => self.send(Packet::Pubrel(Pubrel::new_success(pid))),
                Outgoing::Message(publish, ids) => {
                    wire::write_message(publish, &ids, self.client.protocol, &mut self.out);
                }
            }
        }
    }

    async fn work(&mut self, mut stop: watch::Receiver<bool>) -> End {
        loop {
            if let Err(end) = self.turn_over().await {
                return end;
            }
            let may_read = self.may_take() && self.has_room();
            let is_short = self.may_take() && !may_read;
            if !may_read {
                // Nobody is silent who is not listened to.
                self.heard = Instant::now();
            }
            let silence = self.client.keep_alive.map(|span| self.heard + span);
            tokio::select! {
                biased;
                () = self.kick.notified() => return self.kicked(),
                () = is_told(&mut stop) => return End::Stopping,
                stored = stored(&mut self.storing) => match stored {
                    Some(publishes) => self.acknowledge(publishes),
                    None => return End::Stopping,
                },
                () = self.session.wake.notified() => {}
                read = self.reader.read_buf(&mut self.received), if may_read => match read {
                    Ok(read @ 1..) => self.unheard += read,
                    _ => return End::Closed,
                },
                () = until(silence), if may_read => {
                    return Broken::new(Reason::KeepAliveTimeout, "nothing was heard for longer than the keep alive").into();
                }
                () = tokio::time::sleep(ROOM_LOOK), if is_short => {}
            }
        }
    }

    /// Takes what has come, sends what there is to send, and has stored what waits.
    async fn turn_over(&mut self) -> Result<(), End> {
        let mut is_heard = self.unheard >= SIGN_OF_LIFE;
        while self.may_take() {
            let Some(packet) = wire::next(&mut self.received, self.client.protocol, MAX_PACKET)? else { break };
            self.handle(packet)?;
            is_heard = true;
        }
        if is_heard {
            (self.heard, self.unheard) = (Instant::now(), 0);
        }
        loop {
            let is_all = self.fill();
            self.flush().await?;
            if is_all {
                break;
            }
        }
        if self.storing.is_none() && !self.batch.is_empty() {
            self.store_batch();
        }
        self.count_bytes();
        Ok(())
    }

    fn may_take(&self) -> bool {
        self.batch.len() < BATCH_PUBLISHES && self.batch.bytes < BATCH_BYTES
    }

    /// Whether the broker has memory for more; after a while without, an incomplete packet is let go.
    fn has_room(&mut self) -> bool {
        if self.shared.has_room() {
            self.short_since = None;
            return true;
        }
        let since = *self.short_since.get_or_insert_with(Instant::now);
        if since.elapsed() > ROOM_PATIENCE && !self.received.is_empty() && self.storing.is_none() {
            // Reading on finds the connection closed.
            self.kick.notify_one();
        }
        false
    }

    fn count_bytes(&mut self) {
        let under = self.storing.as_ref().map_or(0, |under| under.bytes);
        let now = self.received.len() + self.batch.bytes + under;
        if now > self.counted {
            self.shared.grow(now - self.counted);
        } else {
            self.shared.shrink(self.counted - now);
        }
        self.counted = now;
    }

    fn store_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        let (bytes, pending) = (batch.bytes, std::mem::take(&mut batch.pending));
        let storing = store(batch, &self.shared.intakes, &self.shared.door);
        self.storing = Some(Under { storing, bytes, pending });
    }

    fn handle(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => return self.publish(publish),
            Packet::Puback(puback) => self.session.done(puback.pid),
            Packet::Pubcomp(pubcomp) => self.session.done(pubcomp.pid),
            Packet::Pubrec(pubrec) if pubrec.reason_code as u8 >= 0x80 => self.session.done(pubrec.pid),
            Packet::Pubrec(Pubrec { pid, .. }) => {
                let is_known = self.session.received(pid);
                let reason =
                    if is_known { PubrelReasonCode::Success } else { PubrelReasonCode::PacketIdentifierNotFound };
                self.send(Packet::Pubrel(Pubrel::new(pid, reason)));
            }
            Packet::Pubrel(Pubrel { pid, .. }) => {
                let is_known = self.session.release(pid);
                let reason =
                    if is_known { PubcompReasonCode::Success } else { PubcompReasonCode::PacketIdentifierNotFound };
                self.send(Packet::Pubcomp(Pubcomp::new(pid, reason)));
            }
            Packet::Subscribe(subscribe) => self.subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe),
            Packet::Pingreq => self.send(Packet::Pingresp),
            Packet::Disconnect(Disconnect { reason_code, properties }) => {
                let is_will_wanted = reason_code != Reason::NormalDisconnect;
                let expiry = properties.session_expiry_interval;
                if self.client.expiry == 0 && expiry.is_some_and(|seconds| seconds > 0) {
                    let why = "a session that was to end with its connection cannot be made to stay";
                    return Err(Broken::new(Reason::ProtocolError, why).into());
                }
                return Err(End::Left { is_will_wanted, expiry });
            }
            _ => return Err(Broken::new(Reason::ProtocolError, "a packet that clients do not send now").into()),
        }
        Ok(())
    }

    fn publish(&mut self, mut publish: Publish) -> Result<(), End> {
        self.aliases.resolve(&mut publish)?;
        count(&self.shared.counts.publishes[publish.qos_pid.qos() as usize]);
        if !is_publishable(&publish.topic_name) {
            self.refuse(publish.qos_pid);
            return Ok(());
        }
        if let QosPid::Level2(pid) = publish.qos_pid
            && self.session.has(pid)
        {
            self.send_ack(0x50, pid);
            return Ok(());
        }
        // It has its answer when that one has it.
        if self.is_under_way(&publish) {
            count(&self.shared.counts.repeated);
            return Ok(());
        }
        let owed = self.pending().map(Pending::len).sum::<usize>() + self.session.held();
        let is_owed = publish.qos_pid.pid().is_some();
        if self.client.protocol == Protocol::V500 && is_owed && owed >= usize::from(RECEIVE_MAX) {
            let why = format!("more than {RECEIVE_MAX} publishes without an acknowledgement");
            return Err(Broken::new(Reason::ReceiveMaximumExceeded, why).into());
        }
        self.batch.add(&self.shared.intakes, &self.client.id, publish, &self.shared.counts);
        Ok(())
    }

    /// What is not stored yet.
    fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.storing.iter().map(|under| &under.pending).chain([&self.batch.pending])
    }

    /// Whether a publish was received before, and is not stored yet.
    fn is_under_way(&self, publish: &Publish) -> bool {
        match publish.qos_pid {
            QosPid::Level2(pid) => self.pending().any(|pending| pending.has_id(pid.value())),
            QosPid::Level1(_) if publish.dup => {
                mark(&self.client.id, publish).is_some_and(|mark| self.pending().any(|pending| pending.has(&mark)))
            }
            _ => false,
        }
    }

    /// Topics of the broker itself are nobody's to publish to. MQTT 3 has no way to say so but silence.
    fn refuse(&mut self, qos_pid: QosPid) {
        match qos_pid {
            QosPid::Level0 => {}
            QosPid::Level1(pid) => self.send(Packet::Puback(Puback::new(pid, PubackReasonCode::NotAuthorized))),
            QosPid::Level2(pid) => {
                if self.client.protocol != Protocol::V500 {
                    self.session.hold(pid);
                }
                self.send(Packet::Pubrec(Pubrec::new(pid, PubrecReasonCode::NotAuthorized)));
            }
        }
    }

    /// What is durable is acknowledged, and goes to those who subscribed to it.
    fn acknowledge(&mut self, publishes: Vec<Publish>) {
        self.storing = None;
        for publish in publishes {
            match publish.qos_pid {
                QosPid::Level0 => {}
                QosPid::Level1(pid) => self.send_ack(0x40, pid),
                QosPid::Level2(pid) => {
                    self.session.hold(pid);
                    self.send_ack(0x50, pid);
                }
            }
            self.shared.hub.route(Message::new(publish, &self.client.id));
        }
    }

    /// PUBACK or PUBREC: the same four bytes in every version.
    fn send_ack(&mut self, kind: u8, pid: Pid) {
        count(&self.shared.counts.acknowledged);
        let [high, low] = pid.value().to_be_bytes();
        self.out.extend_from_slice(&[kind, 2, high, low]);
    }

    /// Sends a packet, unless the client has said that it cannot take one as long.
    pub(super) fn send(&mut self, packet: Packet) {
        let start = self.out.len();
        wire::write(packet, self.client.protocol, &mut self.out);
        if self.out.len() - start > self.client.max_packet {
            self.out.truncate(start);
        }
    }

    /// Encodes messages for the client; says whether these are all.
    fn fill(&mut self) -> bool {
        while self.out.len() < WRITE_BYTES {
            let Some((publish, ids)) = self.session.next(self.client.window) else { return true };
            let (start, pid) = (self.out.len(), publish.qos_pid.pid());
            wire::write_message(publish, &ids, self.client.protocol, &mut self.out);
            if self.out.len() - start > self.client.max_packet {
                // The client has said that it cannot take it.
                self.out.truncate(start);
                if let Some(pid) = pid {
                    self.session.done(pid);
                }
                count(&self.shared.counts.dropped);
            } else {
                count(&self.shared.counts.delivered);
            }
        }
        false
    }

    fn kicked(&self) -> End {
        if !self.session.is_overrun() {
            return End::Kicked;
        }
        Broken::new(Reason::QuotaExceeded, "it reads less than it has subscribed to").into()
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        tokio::select! {
            written = tokio::time::timeout(WRITE_PATIENCE, self.writer.write_all(&self.out)) => match written {
                Ok(Ok(())) => {}
                _ => return Err(End::Closed),
            },
            () = self.kick.notified() => {
                // Nobody knows how much of it is sent, so nothing can follow.
                self.is_cut = true;
                return Err(self.kicked());
            }
        }
        // Meanwhile nothing was read.
        self.heard += began.elapsed();
        self.out.clear();
        if self.out.capacity() > 4 * WRITE_BYTES {
            self.out.shrink_to(WRITE_BYTES);
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.shrink(self.counted);
        self.shared.counts.connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// What the batch that is being stored gives; never anything if there is none.
async fn stored(under: &mut Option<Under>) -> Option<Vec<Publish>> {
    match under {
        Some(under) => (&mut under.storing).await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Connection {
    pub(super) fn parts(&mut self) -> (&Arc<Shared>, &Arc<Session>) {
        (&self.shared, &self.session)
    }
}
