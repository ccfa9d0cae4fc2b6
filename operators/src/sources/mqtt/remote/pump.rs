//! The task that holds the connection.
//!
//! It drives the client library, which reads, pings and subscribes. Acknowledgements it writes itself, many at a time, also
//! while there is no room to read: they are what makes room.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::environment::Random;
use rumqttc::{
    AsyncClient, ConnAck, ConnectionError, EventLoop, Outgoing, Packet, PubAck, Publish, StateError, SubAck,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::counts::Counts;
use super::link::{Event, Outbox, ROOM, Saying, Wanted, options, reason, reason_at_first, weight};
use super::session::Session;

/// How often the broker is asked whether it is there. It is also how long marks are kept at the least.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a connection may take to come about.
pub(super) const CONNECT_SECONDS: u64 = 10;
/// A connection that lasted as long begins the waiting times anew when it breaks.
const STABLE: Duration = Duration::from_secs(10);
/// After this time a subscription that was refused is tried again.
const TRY_REFUSED_AGAIN: Duration = Duration::from_mins(1);
/// How many subscriptions may wait to be sent.
const REQUESTS: usize = 1_000;

/// Subscriptions that the broker refused.
#[derive(Default)]
struct Refused {
    filters: Vec<String>,
    since: Option<Instant>,
}

/// The task behind the link.
pub(super) struct Pump {
    name: String,
    wanted: Wanted,
    session: Session,
    client: AsyncClient,
    eventloop: EventLoop,
    /// How many connections there were, so the number of this one.
    connection: u64,
    events: mpsc::Sender<Event>,
    outbox: Arc<Outbox>,
    room: Arc<Semaphore>,
    counts: Arc<Counts>,
    /// How many acknowledgements were sent since the last ping.
    acknowledged: usize,
    /// For each ping that is not answered how many were sent before it.
    pinged: VecDeque<usize>,
    refused: Refused,
    /// The filters of the subscription that is not answered yet.
    asked: Vec<String>,
}

/// What ends a connection, or everything.
enum End {
    /// The connection broke; why.
    Broken(String),
    /// Nobody reads events any more, or we have taken our leave.
    Over,
}

/// What comes first.
enum Next {
    Polled(Result<rumqttc::Event, ConnectionError>),
    ToSay,
}

impl Pump {
    /// Prepares it.
    pub fn new(
        name: &str,
        wanted: Wanted,
        session: Session,
        (events, outbox): (mpsc::Sender<Event>, Arc<Outbox>),
        counts: Arc<Counts>,
    ) -> Self {
        let (client, mut eventloop) = AsyncClient::new(options(&wanted.address, session.client_id(), false), REQUESTS);
        eventloop.network_options.set_connection_timeout(CONNECT_SECONDS);
        Self {
            name: name.to_owned(),
            wanted,
            session,
            client,
            eventloop,
            connection: 0,
            events,
            outbox,
            room: Arc::new(Semaphore::new(ROOM)),
            counts,
            acknowledged: 0,
            pinged: VecDeque::new(),
            refused: Refused::default(),
            asked: Vec::new(),
        }
    }

    /// Connects, again and again, until nobody wants it any more.
    pub async fn run(mut self, random: Arc<dyn Random>) {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30), random);
        let mut last_reason = None::<String>;
        loop {
            let up_since = Instant::now();
            let reason = match self.connect().await {
                Err(reason) => reason,
                Ok(connack) => {
                    tracing::info!(source = self.name, broker = %self.wanted.address, client_id = self.session.client_id(),
                        resumed = connack.session_present, "connected to the MQTT broker");
                    last_reason = None;
                    match self.attend(&connack).await {
                        End::Broken(reason) => reason,
                        End::Over => return,
                    }
                }
            };
            if self.lose().await.is_err() {
                return;
            }
            if up_since.elapsed() >= STABLE {
                backoff.reset();
            }
            // Once, and again only when there is something new to say.
            if last_reason.as_ref() == Some(&reason) {
                tracing::debug!(source = self.name, reason, "still no connection to the MQTT broker");
            } else {
                tracing::warn!(source = self.name, broker = %self.wanted.address, reason,
                    "no connection to the MQTT broker: trying again until there is one");
                last_reason = Some(reason);
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn connect(&mut self) -> Result<ConnAck, String> {
        // Certificates may have been renewed.
        self.eventloop.mqtt_options.set_transport(self.wanted.address.transport()?);
        match self.eventloop.poll().await {
            Ok(rumqttc::Event::Incoming(Packet::ConnAck(connack))) => Ok(connack),
            Ok(other) => Err(format!("the broker began with {other:?}")),
            Err(error) => Err(reason_at_first(&error, &self.wanted.address)),
        }
    }

    /// Attends to a connection until it ends.
    async fn attend(&mut self, connack: &ConnAck) -> End {
        self.connection += 1;
        match self.talk(connack.session_present).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn talk(&mut self, session_present: bool) -> Result<Infallible, End> {
        self.send(Event::Up(self.connection, session_present)).await?;
        self.subscribe(session_present).map_err(End::Broken)?;
        loop {
            // The library may be interrupted: it keeps what it has read, and what it has to write but has not sent.
            let next = tokio::select! {
                polled = self.eventloop.poll() => Next::Polled(polled),
                () = self.outbox.has_more() => Next::ToSay,
            };
            match next {
                Next::ToSay => self.say().await?,
                Next::Polled(Ok(rumqttc::Event::Incoming(packet))) => self.take(packet).await?,
                Next::Polled(Ok(rumqttc::Event::Outgoing(Outgoing::PingReq))) => self.pinged(),
                Next::Polled(Ok(rumqttc::Event::Outgoing(_))) => {}
                Next::Polled(Err(error)) => {
                    self.take_what_had_come().await?;
                    return Err(End::Broken(reason(&error)));
                }
            }
        }
    }

    /// Says what is to be said, all at once: past the library's queue, which says one thing at a time and none while nothing
    /// can be read.
    async fn say(&mut self) -> Result<(), End> {
        let sayings = self.outbox.take();
        let Some(network) = &mut self.eventloop.network else {
            // There is nobody to hear it, and what it is about occupies no more room.
            return Ok(());
        };
        let (mut said, mut is_leaving) = (Vec::new(), false);
        for saying in sayings {
            let packet = match saying {
                Saying::Stored(connection, packet_id, room) if connection == self.connection => {
                    said.push(room);
                    Packet::PubAck(PubAck::new(packet_id))
                }
                Saying::Stored(..) => continue,
                Saying::Leave => {
                    is_leaving = true;
                    Packet::Disconnect
                }
            };
            network.write(packet).await.map_err(broken)?;
        }
        network.flush().await.map_err(broken)?;
        self.acknowledged += said.len();
        self.counts.acknowledged(said.len());
        if is_leaving {
            self.send(Event::Left).await?;
            return Err(End::Over);
        }
        Ok(())
    }

    /// A ping is on its way. Its answer says that the broker has what was said before it.
    fn pinged(&mut self) {
        self.pinged.push_back(std::mem::take(&mut self.acknowledged));
    }

    async fn take(&mut self, packet: Packet) -> Result<(), End> {
        let taken = self.take_one(packet).await;
        // Whatever has come shows that the broker is there. The answer to a ping may be behind much that is not read yet.
        self.eventloop.state.await_pingresp = false;
        taken
    }

    async fn take_one(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => {
                self.counts.message();
                let room = self.room_for(&publish).await?;
                self.send(Event::Message(self.connection, publish, room)).await
            }
            Packet::PingResp => {
                self.try_refused_again();
                let count = self.pinged.pop_front().unwrap_or(0);
                self.send(Event::Settled(count)).await
            }
            Packet::SubAck(answer) => {
                self.granted(&answer);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Waits for room. Meanwhile nothing is read, and the broker must neither wait for what is to be said nor give us up.
    async fn room_for(&mut self, publish: &Publish) -> Result<OwnedSemaphorePermit, End> {
        let mut room = pin!(Arc::clone(&self.room).acquire_many_owned(weight(publish)));
        loop {
            tokio::select! {
                // The semaphore is never closed.
                permit = &mut room => return permit.map_err(|_| End::Over),
                () = self.outbox.has_more() => self.say().await?,
                () = tokio::time::sleep(KEEP_ALIVE) => self.ping().await?,
            }
        }
    }

    /// Tells the broker that we are there although we do not read.
    async fn ping(&mut self) -> Result<(), End> {
        let Some(network) = &mut self.eventloop.network else { return Ok(()) };
        network.write(Packet::PingReq).await.map_err(broken)?;
        network.flush().await.map_err(broken)?;
        self.pinged();
        Ok(())
    }

    /// Messages that the library has read and not told of when the connection broke. If the broker has lost the session
    /// too, nobody else has them.
    async fn take_what_had_come(&mut self) -> Result<(), End> {
        for event in std::mem::take(&mut self.eventloop.state.events) {
            if let rumqttc::Event::Incoming(packet @ Packet::Publish(_)) = event {
                self.take(packet).await?;
            }
        }
        Ok(())
    }

    /// Nothing of this connection may reach the next one.
    async fn lose(&mut self) -> Result<(), End> {
        self.eventloop.clean();
        self.eventloop.pending.clear();
        self.eventloop.state.events.clear();
        self.acknowledged = 0;
        self.pinged.clear();
        self.asked.clear();
        self.counts.connected(false);
        self.send(Event::Down).await
    }

    async fn send(&mut self, event: Event) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Over)
    }

    /// Asks for what is wanted, each time: a broker may have forgotten, and it may have changed its mind.
    fn subscribe(&mut self, session_present: bool) -> Result<(), String> {
        let filters = self.wanted.filters.clone();
        let unwanted = if session_present { self.session.unwanted(&filters) } else { Vec::new() };
        self.session.note(&filters).map_err(|error| format!("the session's file cannot be written: {error}"))?;
        for filter in unwanted {
            self.client.try_unsubscribe(filter).map_err(|error| error.to_string())?;
        }
        self.ask_for(filters)
    }

    fn ask_for(&mut self, filters: Vec<String>) -> Result<(), String> {
        let qos = self.wanted.qos;
        let wanted = filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), qos));
        self.client.try_subscribe_many(wanted).map_err(|error| format!("the filters cannot be asked for: {error}"))?;
        self.asked = filters;
        Ok(())
    }

    fn granted(&mut self, answer: &SubAck) {
        let asked = std::mem::take(&mut self.asked);
        let (mut refused, mut weaker) = (Vec::new(), Vec::new());
        for (filter, code) in asked.into_iter().zip(&answer.return_codes) {
            match code {
                SubscribeReasonCode::Failure => refused.push(filter),
                SubscribeReasonCode::Success(qos) if *qos < self.wanted.qos => weaker.push(filter),
                SubscribeReasonCode::Success(_) => {}
            }
        }
        if !weaker.is_empty() {
            tracing::warn!(
                source = self.name,
                filters = weaker.join(", "),
                "the broker grants only quality of service 0: what is sent while this process is down is lost"
            );
        }
        // Only from now on nothing is missed.
        self.counts.connected(true);
        self.tell_of_refused(&refused);
        self.counts.refused(refused.len());
        self.refused = Refused { filters: refused, since: Some(Instant::now()) };
        // What is no longer wanted was given up before this was asked for.
        if let Err(error) = self.session.settle(&self.wanted.filters) {
            tracing::warn!(source = self.name, %error, "the session's file cannot be written");
        }
    }

    fn tell_of_refused(&self, refused: &[String]) {
        if !refused.is_empty() && refused != self.refused.filters {
            tracing::error!(source = self.name, broker = %self.wanted.address, filters = refused.join(", "),
                "the broker refuses these subscriptions, so nothing comes from them: allow this user to subscribe to \
                 them; they are tried again every minute");
        } else if refused.is_empty() && !self.refused.filters.is_empty() {
            tracing::info!(source = self.name, "the broker grants all subscriptions now");
        }
    }

    fn try_refused_again(&mut self) {
        let is_due = self.refused.since.is_some_and(|since| since.elapsed() >= TRY_REFUSED_AGAIN);
        if is_due && self.asked.is_empty() && !self.refused.filters.is_empty() {
            // All of them: the answer then says of all of them how they stand.
            if let Err(reason) = self.ask_for(self.wanted.filters.clone()) {
                tracing::warn!(source = self.name, reason, "the refused subscriptions were not tried again");
            }
        }
    }
}

fn broken(error: StateError) -> End {
    End::Broken(reason(&ConnectionError::MqttState(error)))
}
