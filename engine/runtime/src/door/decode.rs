//! The decoder's thread: bodies into columns. Large bundles are decoded on all cores.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use cornjacket_core::Error;
use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::codec::{Accepted, Context, Decoder, Limits};
use cornjacket_core::dead_letter::DeadLetter;
use cornjacket_core::door::{Bundle, Chain, Known, Message, Refusal, Rejection, Rejects, Submission, Taken};
use cornjacket_core::environment::Environment;
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Mark, Receipt};
use cornjacket_core::time::Micros;
use tokio::sync::oneshot;

use super::commit::{Entries, Entry, Group, Pending};
use super::metrics::{Kinds, Metrics};
use super::queue::{Queue, Step, Waiting, Work};

/// Random bytes of an id.
const RANDOM: usize = 10;

/// More of them would take turns on the memory.
const MOST_DESKS: usize = 8;

/// From so many messages on, a bundle is decoded in parts, side by side.
const WORTH_SHARING: usize = 2_048;

/// Collects events for the next commit.
pub(super) struct Collector {
    environment: Environment,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    /// One for each core; what is small is all decoded by the first.
    desks: Vec<Desk>,
    group: Group,
    /// What of the group has left the desks.
    collected: Collected,
    random: Vec<u8>,
}

/// Events that will be in the next commit.
#[derive(Clone, Copy, Default)]
struct Collected {
    rows: usize,
    bytes: usize,
    /// A number for the next event's place in the commit, above those of all others.
    sequence: usize,
}

/// What decodes messages, and may do so beside others of its kind.
struct Desk {
    decoder: Decoder,
    kinds: Kinds,
}

/// What became of the messages of a bundle, or of some of them.
#[derive(Default)]
struct Decoded {
    entries: Entries,
    /// By their index in the bundle.
    rejections: Vec<(usize, Rejection)>,
}

impl Collector {
    pub fn new(
        catalogue: &Catalogue,
        limits: Limits,
        environment: Environment,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let desk = |_| Desk { decoder: Decoder::new(catalogue, limits), kinds: Kinds::new(Arc::clone(&metrics)) };
        let desks = (0..cores.min(MOST_DESKS)).map(desk).collect();
        let (group, collected) = (Group::default(), Collected::default());
        Self { environment, queue, metrics, desks, group, collected, random: Vec::new() }
    }

    pub fn run(mut self) {
        loop {
            let first = &self.desks[0].decoder;
            let (rows, bytes) = (first.rows() + self.collected.rows, first.bytes() + self.collected.bytes);
            match self.queue.next_step(rows, bytes, self.group.pending.len()) {
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
        let Desk { decoder, kinds } = &mut self.desks[0];
        match decoder.decode_as(&submission.form, &submission.body, &context) {
            Ok(accepted) => {
                let entry = entry(kinds, &submission.source, &accepted);
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
        let count = bundle.messages.len();
        self.random.resize(count * RANDOM, 0);
        self.environment.random.fill(&mut self.random);
        let random = self.random.as_chunks::<RANDOM>().0;
        let decoded = if count < WORTH_SHARING || self.desks.len() == 1 {
            Ok(self.desks[0].decode(bundle, 0..count, random, now))
        } else {
            self.decode_in_parts(bundle, now)
        };
        match decoded {
            Ok(decoded) => self.add(bundle, decoded, answer),
            Err(error) => {
                let reason = inconsistent(&error);
                let _ = answer.send(Err(Refusal::Unavailable(reason.clone())));
                self.queue.fail(&reason);
            }
        }
    }

    /// Each desk takes a part; the parts' events follow each other in the commit as they do in the bundle.
    fn decode_in_parts(&mut self, bundle: &Bundle, now: Micros) -> cornjacket_core::Result<Decoded> {
        self.clear_desks()?;
        let Self { desks, random, collected, .. } = self;
        let (count, random) = (bundle.messages.len(), random.as_chunks::<RANDOM>().0);
        let (share, first) = (count.div_ceil(desks.len()), collected.sequence);
        let mut parts: Vec<Decoded> = Vec::new();
        parts.resize_with(desks.len(), Decoded::default);
        let decode = |number: usize, desk: &mut Desk, decoded: &mut Decoded| {
            let part = (number * share).min(count)..((number + 1) * share).min(count);
            desk.decoder.begin_at(first + part.start);
            *decoded = desk.decode(bundle, part, random, now);
        };
        // This thread decodes too: on few cores waking another takes longer than much of the work.
        rayon::in_place_scope(|scope| {
            let mut parts = desks.iter_mut().zip(&mut parts).enumerate();
            let own = parts.next();
            for (number, (desk, decoded)) in parts {
                let decode = &decode;
                scope.spawn(move |_| decode(number, desk, decoded));
            }
            if let Some((number, (desk, decoded))) = own {
                decode(number, desk, decoded);
            }
        });
        collected.sequence += count;
        self.clear_desks()?;
        let mut decoded = Decoded::default();
        for part in parts {
            decoded.entries.extend(part.entries);
            decoded.rejections.extend(part.rejections);
        }
        Ok(decoded)
    }

    /// Takes what is decoded from the desks to the group.
    fn clear_desks(&mut self) -> cornjacket_core::Result<()> {
        let Collected { rows, bytes, sequence } = &mut self.collected;
        for desk in &mut self.desks {
            *rows += desk.decoder.rows();
            *bytes += desk.decoder.bytes();
            // What the first desk decoded by itself begins at this number.
            *sequence += desk.decoder.rows();
            self.group.events.extend(desk.decoder.finish()?);
        }
        self.desks[0].decoder.begin_at(*sequence);
        Ok(())
    }

    /// Adds a bundle to the group.
    fn add(&mut self, bundle: &Bundle, decoded: Decoded, answer: oneshot::Sender<Result<Taken, Refusal>>) {
        let Decoded { entries, rejections } = decoded;
        let rejected = rejections.len() as u64;
        for (_, rejection) in &rejections {
            self.metrics.rejected(&bundle.source, rejection.code);
        }
        let rejections = match bundle.rejects {
            Rejects::Answer => rejections,
            Rejects::DeadLetters => {
                let nothing = Known::default();
                let letter = |(index, rejection): (usize, Rejection)| {
                    let known = bundle.known.get(index).unwrap_or(&nothing);
                    letter(bundle, (&bundle.messages[index], known), &rejection)
                };
                self.group.letters.extend(rejections.into_iter().map(letter));
                Vec::new()
            }
        };
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
        let cleared = self.clear_desks();
        self.collected = Collected::default();
        self.desks[0].decoder.begin_at(0);
        let group = std::mem::take(&mut self.group);
        match cleared {
            Ok(()) => self.queue.hand_over(group),
            Err(error) => {
                let reason = inconsistent(&error);
                group.refuse(&Refusal::Unavailable(reason.clone()));
                self.queue.fail(&reason);
            }
        }
    }
}

fn inconsistent(error: &Error) -> String {
    format!("the decoded events do not fit together: {error}")
}

impl Desk {
    /// Decodes some messages of a bundle.
    fn decode(&mut self, bundle: &Bundle, part: Range<usize>, random: &[[u8; RANDOM]], now: Micros) -> Decoded {
        let mut decoded = Decoded { entries: Entries::with_capacity(part.len()), rejections: Vec::new() };
        let nothing = Known::default();
        for index in part {
            let known = bundle.known.get(index).unwrap_or(&nothing);
            let message = &bundle.messages[index];
            match decode_message(&mut self.decoder, bundle, (message, known), (random[index], now)) {
                Ok(Accepted { id, event_type }) => {
                    let look_up = || self.kinds.of(&bundle.source, event_type);
                    decoded.entries.push(id, |kind| kind.is_of(event_type), look_up);
                }
                Err(rejection) => decoded.rejections.push((index, rejection)),
            }
        }
        decoded
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
