//! Publishes on their way to the door: what a connection receives while one bundle is being stored goes into the next.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::door::{Bundle, Door, Refusal};
use mqtt_proto::v5::Publish;

use super::counts::{BrokerCounts, count};
use super::message::memory_of;
use super::recent::{Mark, Pending, Recent};
use super::source::{Source, add};

/// How long to wait before a bundle that could not be taken is handed in again.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A source of the pipeline, and what of it was stored a short time ago.
pub(super) struct Intake {
    pub source: Source,
    pub recent: Recent,
}

/// Publishes that wait to be stored, in their order.
#[derive(Default)]
pub(super) struct Batch {
    publishes: Vec<Publish>,
    /// By the place of the source.
    parts: Vec<Part>,
    /// Those that want an acknowledgement.
    pub pending: Pending,
    pub bytes: usize,
}

/// What a batch has for one source.
struct Part {
    place: usize,
    bundle: Bundle,
    marks: Vec<Mark>,
}

impl Batch {
    pub fn len(&self) -> usize {
        self.publishes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.publishes.is_empty()
    }

    /// Adds a publish of a client.
    pub fn add(&mut self, intakes: &[Intake], client: &str, publish: Publish, counts: &BrokerCounts) {
        let mut pending = None;
        for (place, intake) in intakes.iter().enumerate() {
            let Some(known) = intake.source.known(&publish.topic_name) else { continue };
            let mark = mark(client, &publish);
            pending = mark;
            if publish.dup && mark.as_ref().is_some_and(|mark| intake.recent.has(mark)) {
                count(&counts.repeated);
                continue;
            }
            let at = self.parts.iter().position(|part| part.place == place).unwrap_or_else(|| {
                self.parts.push(Part { place, bundle: intake.source.bundle(), marks: Vec::new() });
                self.parts.len() - 1
            });
            let part = &mut self.parts[at];
            add(&mut part.bundle, &publish.payload, known);
            if let Some(mark) = mark {
                mark.write(&mut part.bundle.receipts);
                part.marks.push(mark);
            }
        }
        let properties = memory_of(&publish.properties);
        self.bytes += publish.payload.len() * 2 + publish.topic_name.len() * 2 + properties + 256;
        if let Some(pid) = publish.qos_pid.pid() {
            self.pending.add(pid.value(), pending.as_ref());
        }
        self.publishes.push(publish);
    }
}

/// What a publish is known by, if it is ever sent again.
pub(super) fn mark(client: &str, publish: &Publish) -> Option<Mark> {
    let Publish { qos_pid, topic_name, payload, .. } = publish;
    qos_pid.pid().map(|pid| Mark::new(client, pid.value(), topic_name, payload))
}

/// A batch that is being stored. It gives its publishes once all are durable; `None` if they never will be, since the
/// process ends.
pub(super) type Storing = Pin<Box<dyn Future<Output = Option<Vec<Publish>>> + Send>>;

/// Stores a batch, however long it takes.
pub(super) fn store(batch: Batch, intakes: &Arc<Vec<Intake>>, door: &Arc<dyn Door>) -> Storing {
    let (intakes, door) = (Arc::clone(intakes), Arc::clone(door));
    Box::pin(async move {
        for part in batch.parts {
            hand_in(Arc::new(part.bundle), &*door).await?;
            let recent = &intakes[part.place].recent;
            part.marks.into_iter().for_each(|mark| recent.remember(mark));
        }
        Some(batch.publishes)
    })
}

async fn hand_in(bundle: Arc<Bundle>, door: &dyn Door) -> Option<()> {
    let mut wait = FIRST_WAIT;
    loop {
        match door.submit_bundle(Arc::clone(&bundle)).await {
            Ok(_) => return Some(()),
            Err(Refusal::Busy | Refusal::Unavailable(_)) => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            Err(Refusal::Closing) => return None,
            Err(Refusal::Rejected(rejection)) => {
                // What is wrong with a message makes it a dead letter: this is wrong with all of them.
                tracing::error!(source = %bundle.source, reason = rejection.message, "messages cannot be handed in");
                return None;
            }
        }
    }
}
