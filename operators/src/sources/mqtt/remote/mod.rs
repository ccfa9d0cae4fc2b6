//! An outside broker: a source subscribes to it and acknowledges what is stored.
//!
//! **Nothing is lost.** The session at the broker outlives connections and processes, so what is published meanwhile waits
//! there. A message (QoS 1) is acknowledged when the door has said that it is durable, as an event or as a dead letter. All
//! that dies with this process, or that the door could not take, is sent again.
//!
//! **Little is stored twice.** What was stored and perhaps not acknowledged is remembered together with the events, so that
//! it is known when the broker sends it again ([`recall`]). This needs the broker to set DUP and to keep packet ids, as the
//! protocol wants; a broker that loses its session, and a share group that gives a message to another process, do not.
//!
//! **Order is kept.** One bundle is handed in at a time; what comes meanwhile goes into the next. While the door takes
//! nothing, nothing is acknowledged, so the broker's window of unacknowledged messages fills and it sends no more; where it
//! has none (QoS 0), reading stops once 16 MiB wait.

mod address;
mod backoff;
mod counts;
mod intake;
mod link;
mod probe;
mod pump;
mod recall;
mod session;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::door::{Bundle, Door, Refusal};
use cornjacket_core::environment::Random;
use rumqttc::QoS;
use tokio::sync::watch;
use tokio::time::Instant;

use super::source::Source;
use backoff::Backoff;
use intake::{Dues, Intake, Owed};
use link::{Event, Link, Wanted};
use recall::Recall;
use session::Session;

pub use address::Address;
pub use counts::{Counted, Counts};
pub use probe::probe;

/// How many bytes of receipts a subscription wants at its start: more than those of all packet ids, each in a bundle of its
/// own.
pub const RECEIPT_BYTES: usize = 4 << 20;

/// How long the end waits for the door, and then for the broker.
const LAST_ANSWER: Duration = Duration::from_secs(5);
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What a subscription has from the process that it runs in.
pub struct Surroundings {
    /// Takes the events.
    pub door: Arc<dyn Door>,
    /// For client ids and waiting times.
    pub random: Arc<dyn Random>,
    /// Where it counts.
    pub counts: Arc<Counts>,
}

/// A source that is subscribed to an outside broker.
pub struct Subscription {
    source: Source,
    address: Address,
    session: Session,
    recall: Recall,
    surroundings: Surroundings,
}

impl Subscription {
    /// Prepares it. `folder` is the data folder; `receipts` are the source's, with the newest first.
    ///
    /// # Errors
    /// When what was kept of the session cannot be read or written.
    pub fn open(
        (pipeline, source): (&str, Source),
        address: &Address,
        folder: &Path,
        receipts: &[Vec<u8>],
        surroundings: Surroundings,
    ) -> std::io::Result<Self> {
        let session = Session::open(folder, (pipeline, &source.name), &*surroundings.random)?;
        let recall = Recall::restore(receipts);
        Ok(Self { source, address: address.clone(), session, recall, surroundings })
    }

    /// Subscribes, and takes what comes until it is told to stop. Then it acknowledges what is stored, and takes its leave;
    /// the session stays.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Surroundings { door, random, counts } = self.surroundings;
        let name = Arc::clone(&self.source.name);
        let wanted = Wanted {
            filters: subscribed(&self.source, &self.address),
            qos: if self.source.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
            address: self.address,
        };
        let link = Link::start(&name, wanted, self.session, (Arc::clone(&random), Arc::clone(&counts)));
        let intake = Intake::new(self.source, self.recall, counts);
        let keeper = Keeper { name, door, random, link, intake, handed: None, is_closing: false };
        keeper.run(stop).await;
    }
}

/// The filters as the broker is told.
fn subscribed(source: &Source, address: &Address) -> Vec<String> {
    let told = |filter: &super::filter::Filter| match &address.share {
        Some(group) => format!("$share/{group}/{filter}"),
        None => filter.to_string(),
    };
    source.filters.iter().map(told).collect()
}

/// Says whether a bundle was stored; `false` if it never will be.
type Stored = Pin<Box<dyn Future<Output = bool> + Send>>;

/// What was handed in and is not answered.
struct Handed {
    stored: Stored,
    dues: Dues,
}

/// Keeps messages going from the link to the door, and acknowledgements back.
struct Keeper {
    name: Arc<str>,
    door: Arc<dyn Door>,
    random: Arc<dyn Random>,
    link: Link,
    intake: Intake,
    handed: Option<Handed>,
    /// The door is closed: nothing more is taken.
    is_closing: bool,
}

impl Keeper {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            self.hand_in();
            tokio::select! {
                biased;
                // Whoever had told us is gone: the same.
                _ = stop.wait_for(|is_over| *is_over) => break,
                is_stored = answered(&mut self.handed) => self.answer(is_stored),
                event = self.link.events.recv() => match event {
                    Some(event) => self.take(event),
                    None => break,
                },
            }
        }
        self.end().await;
    }

    /// What is under way is finished; what waits is sent again next time.
    async fn end(mut self) {
        if self.handed.is_some() {
            let last = tokio::time::timeout(LAST_ANSWER, answered(&mut self.handed)).await;
            if let Ok(is_stored) = last {
                self.answer(is_stored);
            } else {
                let message = "the last messages could not be stored: the broker keeps them until the next start";
                tracing::warn!(source = &*self.name, "{message}");
            }
        }
        // The link may wait for the room that these occupy.
        drop((self.handed, self.intake));
        self.link.leave(LAST_WORDS).await;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Up(connection, session_present) => self.intake.up(connection, session_present, Instant::now()),
            Event::Message(connection, publish, room) => self.intake.push(connection, publish, room),
            Event::Settled(count) => self.intake.settled(count, self.handed.is_none(), Instant::now()),
            Event::Down | Event::Left => {}
        }
    }

    /// Hands in what waits, if nothing is handed in.
    fn hand_in(&mut self) {
        while self.handed.is_none() && !self.is_closing {
            let Some((bundle, dues)) = self.intake.take() else { return };
            if bundle.messages.is_empty() {
                // All of it is there already, or not wanted.
                self.acknowledge(dues.owed);
                continue;
            }
            let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5), Arc::clone(&self.random));
            let stored = Box::pin(store(Arc::clone(&self.door), Arc::new(bundle), backoff, Arc::clone(&self.name)));
            self.handed = Some(Handed { stored, dues });
        }
    }

    fn answer(&mut self, is_stored: bool) {
        let Some(Handed { dues, .. }) = self.handed.take() else { return };
        if is_stored {
            self.acknowledge(dues.owed);
        } else {
            self.is_closing = true;
        }
    }

    fn acknowledge(&mut self, owed: Vec<Owed>) {
        for one in owed {
            self.intake.acknowledged(&one);
            self.link.acknowledge(one.connection, one.packet_id, one.room);
        }
    }
}

/// The answer to what was handed in; waits for ever if nothing is.
async fn answered(handed: &mut Option<Handed>) -> bool {
    match handed {
        Some(handed) => handed.stored.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Hands a bundle in until it is taken; `false` when the door is closed.
async fn store(door: Arc<dyn Door>, bundle: Arc<Bundle>, mut backoff: Backoff, name: Arc<str>) -> bool {
    let mut has_told = false;
    loop {
        let reason = match door.submit_bundle(Arc::clone(&bundle)).await {
            Ok(_) => {
                if has_told {
                    tracing::info!(source = &*name, "messages are stored again");
                }
                return true;
            }
            Err(Refusal::Closing) => return false,
            // There is much to do, which is nothing to tell of.
            Err(Refusal::Busy) => None,
            Err(Refusal::Unavailable(reason)) => Some(reason),
            Err(Refusal::Rejected(rejection)) => Some(rejection.message),
        };
        if let Some(reason) = reason.filter(|_| !has_told) {
            tracing::warn!(source = &*name, reason, "messages cannot be stored: none is acknowledged until they are");
            has_told = true;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}
