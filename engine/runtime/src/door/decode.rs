//! The decoder's thread: bodies into columns.

use std::collections::VecDeque;
use std::sync::Arc;

use cornjacket_core::codec::{Accepted, Context, Decoder};
use cornjacket_core::door::{Bundle, Message, Refusal, Rejection, Submission, Taken};
use cornjacket_core::environment::Environment;
use cornjacket_core::id::EventId;
use cornjacket_core::log::Mark;
use cornjacket_core::store::DeadLetter;
use cornjacket_core::time::Micros;
use tokio::sync::oneshot;

use super::commit::{Entry, Group, Pending};
use super::metrics::{Kinds, Metrics};
use super::queue::{Queue, Step, Waiting, Work};

/// Random bytes of an id.
const RANDOM: usize = 10;

/// Collects events for the next commit.
pub(super) struct Collector {
    decoder: Decoder,
    environment: Environment,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    kinds: Kinds,
    group: Group,
    random: Vec<u8>,
}

impl Collector {
    pub fn new(decoder: Decoder, environment: Environment, queue: Arc<Queue>, metrics: Arc<Metrics>) -> Self {
        let kinds = Kinds::new(Arc::clone(&metrics));
        Self { decoder, environment, queue, metrics, kinds, group: Group::default(), random: Vec::new() }
    }

    pub fn run(mut self) {
        loop {
            let has_pending = !self.group.pending.is_empty();
            match self.queue.next_step(self.decoder.rows(), self.decoder.bytes(), has_pending) {
                Step::Decode(waiting) => self.decode(waiting),
                Step::HandOver => self.hand_over(),
                Step::End => break,
            }
        }
        // After a failure there may be something left that nobody will commit.
        let reason = self.queue.broken().unwrap_or_default();
        self.group.refuse(&Refusal::Unavailable(reason));
    }

    fn decode(&mut self, waiting: VecDeque<Waiting>) {
        let now = self.environment.clock.now();
        for Waiting { work, .. } in waiting {
            match work {
                Work::One { submission, answer } => self.decode_one(&submission, answer, now),
                Work::Bundle { bundle, answer } => self.decode_bundle(&bundle, answer, now),
            }
        }
    }

    fn decode_one(
        &mut self,
        submission: &Submission<Vec<u8>>,
        answer: oneshot::Sender<Result<EventId, Refusal>>,
        now: Micros,
    ) {
        let mut random = [0; RANDOM];
        self.environment.random.fill(&mut random);
        let context =
            Context { ingested_at: now, random, client_id: submission.client_id.as_ref(), source: &submission.source };
        match self.decoder.decode(&submission.body, &context) {
            Ok(accepted) => {
                let entry = entry(&mut self.kinds, &submission.source, &accepted);
                self.group.pending.push(Pending::One { entry, answer });
            }
            Err(rejection) => {
                self.metrics.rejected(&submission.source, rejection.code);
                // Whoever asked may be gone, which is no fault.
                let _ = answer.send(Err(Refusal::Rejected(rejection)));
            }
        }
    }

    fn decode_bundle(&mut self, bundle: &Bundle, answer: oneshot::Sender<Result<Taken, Refusal>>, now: Micros) {
        self.random.resize(bundle.messages.len() * RANDOM, 0);
        self.environment.random.fill(&mut self.random);
        let mut entries = Vec::with_capacity(bundle.messages.len());
        let before = self.group.letters.len();
        for (message, random) in bundle.messages.iter().zip(self.random.as_chunks::<RANDOM>().0) {
            let bytes = &bundle.bytes[message.bytes.clone()];
            let context = Context { ingested_at: now, random: *random, client_id: None, source: &bundle.source };
            let decoded = match (&message.fault, &bundle.envelope) {
                (Some(fault), _) => Err(unreadable(fault)),
                (None, Some(template)) => self.decoder.decode_payload(bytes, template, &|_| None, &context),
                (None, None) => self.decoder.decode(bytes, &context),
            };
            match decoded {
                Ok(accepted) => entries.push(entry(&mut self.kinds, &bundle.source, &accepted)),
                Err(rejection) => {
                    self.metrics.rejected(&bundle.source, rejection.code);
                    self.group.letters.push(letter(bundle, message, rejection));
                }
            }
        }
        let rejected = self.group.letters.len() - before;
        self.group.marks.push(Mark { source: bundle.source.to_string(), position: bundle.position.clone() });
        self.group.pending.push(Pending::Bundle { entries, rejected: rejected as u64, answer });
    }

    fn hand_over(&mut self) {
        let mut group = std::mem::take(&mut self.group);
        match self.decoder.finish() {
            Ok(events) => {
                group.events = events;
                self.queue.hand_over(group);
            }
            Err(error) => {
                let reason = format!("the decoded events do not fit together: {error}");
                group.refuse(&Refusal::Unavailable(reason.clone()));
                self.queue.fail(&reason);
            }
        }
    }
}

fn entry(kinds: &mut Kinds, source: &Arc<str>, accepted: &Accepted<'_>) -> Entry {
    Entry { id: accepted.id, kind: kinds.of(source, accepted.event_type) }
}

fn unreadable(fault: &str) -> Rejection {
    let kind = cornjacket_core::door::RejectionKind::Malformed;
    Rejection { kind, code: "unreadable", message: fault.to_string(), details: Vec::new() }
}

/// What could not be taken, as it came.
fn letter(bundle: &Bundle, message: &Message, rejection: Rejection) -> DeadLetter {
    let reason = match rejection.code {
        "too_far_ahead" => "max_ahead",
        _ if rejection.kind == cornjacket_core::door::RejectionKind::Invalid => "validation",
        _ => "decode",
    };
    DeadLetter {
        reason: reason.into(),
        source: bundle.source.to_string(),
        message: rejection.message,
        event_id: None,
        event_time: None,
        body: bundle.bytes[message.bytes.clone()].to_vec(),
        place: Some(format!("{}:{}", bundle.origin, message.number)),
    }
}
