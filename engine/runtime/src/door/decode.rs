//! The decoder's thread: bodies into columns.

use std::collections::VecDeque;
use std::sync::Arc;

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::codec::{Accepted, Context, Decoder, Limits};
use cornjacket_core::dead_letter::DeadLetter;
use cornjacket_core::door::{Bundle, Chain, Known, Message, Refusal, Rejection, Rejects, Submission, Taken};
use cornjacket_core::environment::Environment;
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Mark, Receipt};
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
        let context = Context {
            ingested_at: now,
            random,
            client_id: submission.client_id.as_ref(),
            source: &submission.source,
            metadata: &[],
        };
        match self.decoder.decode_as(&submission.form, &submission.body, &context) {
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
        if bundle.chain.as_ref().is_some_and(Chain::is_cut) {
            // Whoever asked may be gone, which is no fault.
            let _ = answer.send(Err(Refusal::Unavailable("what came before it was not stored".into())));
            return;
        }
        self.random.resize(bundle.messages.len() * RANDOM, 0);
        self.environment.random.fill(&mut self.random);
        let mut entries = Vec::with_capacity(bundle.messages.len());
        let (mut rejected, mut rejections) = (0, Vec::new());
        let nothing = Known::default();
        for (index, (message, random)) in bundle.messages.iter().zip(self.random.as_chunks::<RANDOM>().0).enumerate() {
            let known = bundle.known.get(index).unwrap_or(&nothing);
            let decoded = decode_message(&mut self.decoder, bundle, (message, known), (*random, now));
            match decoded {
                Ok(accepted) => entries.push(entry(&mut self.kinds, &bundle.source, &accepted)),
                Err(rejection) => {
                    self.metrics.rejected(&bundle.source, rejection.code);
                    rejected += 1;
                    match bundle.rejects {
                        Rejects::Answer => rejections.push((index, rejection)),
                        Rejects::DeadLetters => self.group.letters.push(letter(bundle, (message, known), &rejection)),
                    }
                }
            }
        }
        self.note(bundle);
        let chain = bundle.chain.clone();
        self.group.pending.push(Pending::Bundle { entries, rejected, rejections, chain, answer });
    }

    /// Remembers what the source wants stored with the bundle. Receipts of one source share a record.
    fn note(&mut self, bundle: &Bundle) {
        let (source, notes) = (bundle.source.to_string(), &mut self.group.notes);
        if !bundle.receipts.is_empty() {
            match notes.receipts.iter_mut().find(|receipt| receipt.source == source) {
                Some(receipt) => receipt.bytes.extend_from_slice(&bundle.receipts),
                None => notes.receipts.push(Receipt { source: source.clone(), bytes: bundle.receipts.clone() }),
            }
        }
        if let Some(position) = &bundle.position {
            notes.marks.push(Mark { source, position: position.clone() });
        }
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

/// A message into the decoder's columns.
fn decode_message<'a>(
    decoder: &'a mut Decoder,
    bundle: &Bundle,
    (message, known): (&Message, &Known),
    (random, now): ([u8; RANDOM], Micros),
) -> Result<Accepted<'a>, Rejection> {
    let bytes = &bundle.bytes[message.bytes.clone()];
    let variable = |name: &str| {
        let found = known.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let client_id = known.client_id.as_ref();
    let context = Context { ingested_at: now, random, client_id, source: &bundle.source, metadata: &known.metadata };
    match (&message.fault, &bundle.envelope) {
        (Some(fault), _) => Err(unreadable(fault)),
        (None, Some(template)) => decoder.decode_payload(bytes, template, &variable, &context),
        (None, None) => decoder.decode(bytes, &context),
    }
}

/// What the door would say to each message of a bundle: nothing is stored.
pub fn rehearse(catalogue: &Catalogue, limits: Limits, bundle: &Bundle, now: Micros) -> Vec<Result<(), Rejection>> {
    let mut decoder = Decoder::new(catalogue, limits);
    let nothing = Known::default();
    let one = |(index, message): (usize, &Message)| {
        let known = bundle.known.get(index).unwrap_or(&nothing);
        decode_message(&mut decoder, bundle, (message, known), ([0; RANDOM], now)).map(|_| ())
    };
    bundle.messages.iter().enumerate().map(one).collect()
}

fn entry(kinds: &mut Kinds, source: &Arc<str>, accepted: &Accepted<'_>) -> Entry {
    Entry { id: accepted.id, kind: kinds.of(source, accepted.event_type) }
}

fn unreadable(fault: &str) -> Rejection {
    let kind = cornjacket_core::door::RejectionKind::Malformed;
    Rejection { kind, code: "unreadable", message: fault.to_string(), details: Vec::new() }
}

/// What could not be taken, as it came.
fn letter(bundle: &Bundle, (message, known): (&Message, &Known), rejection: &Rejection) -> DeadLetter {
    let reason = match rejection.code {
        "too_far_ahead" => "max_ahead",
        _ if rejection.kind == cornjacket_core::door::RejectionKind::Invalid => "validation",
        _ => "decode",
    };
    DeadLetter {
        reason: reason.into(),
        source: bundle.source.to_string(),
        message: rejection.in_full(),
        event_id: None,
        event_time: None,
        body: bundle.bytes[message.bytes.clone()].to_vec(),
        variables: known.variables.iter().cloned().collect(),
        // Only what is read from a position can be read again.
        is_placed: bundle.position.is_some(),
        place: Some(match &known.origin {
            Some(origin) => origin.to_string(),
            None => format!("{}:{}", bundle.origin, message.number),
        }),
    }
}
