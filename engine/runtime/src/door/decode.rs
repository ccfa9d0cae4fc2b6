//! The decoder's thread: bodies into columns.

use std::collections::VecDeque;
use std::sync::Arc;

use cornjacket_core::codec::{Context, Decoder};
use cornjacket_core::door::Refusal;
use cornjacket_core::environment::Environment;

use super::commit::{Group, Pending};
use super::metrics::{Kinds, Metrics};
use super::queue::{Queue, Step, Waiting};

/// Random bytes of an id.
const RANDOM: usize = 10;

/// Collects events for the next commit.
pub(super) struct Collector {
    decoder: Decoder,
    environment: Environment,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    kinds: Kinds,
    pending: Vec<Pending>,
    random: Vec<u8>,
}

impl Collector {
    pub fn new(decoder: Decoder, environment: Environment, queue: Arc<Queue>, metrics: Arc<Metrics>) -> Self {
        let kinds = Kinds::new(Arc::clone(&metrics));
        Self { decoder, environment, queue, metrics, kinds, pending: Vec::new(), random: Vec::new() }
    }

    pub fn run(mut self) {
        loop {
            match self.queue.next_step(self.decoder.rows(), self.decoder.bytes()) {
                Step::Decode(waiting) => self.decode(waiting),
                Step::HandOver => self.hand_over(),
                Step::End => break,
            }
        }
        // After a failure there may be something left that nobody will commit.
        let reason = self.queue.broken().unwrap_or_default();
        Group { events: Vec::new(), pending: self.pending }.refuse(&Refusal::Unavailable(reason));
    }

    fn decode(&mut self, waiting: VecDeque<Waiting>) {
        let now = self.environment.clock.now();
        self.random.resize(waiting.len() * RANDOM, 0);
        self.environment.random.fill(&mut self.random);
        let (chunks, _) = self.random.as_chunks::<RANDOM>();
        for (Waiting { submission, answer }, random) in waiting.into_iter().zip(chunks) {
            let context = Context {
                ingested_at: now,
                random: *random,
                client_id: submission.client_id.as_ref(),
                source: &submission.source,
            };
            match self.decoder.decode(&submission.body, &context) {
                Ok(accepted) => {
                    let kind = self.kinds.of(&submission.source, accepted.event_type);
                    self.pending.push(Pending { id: accepted.id, kind, answer });
                }
                Err(rejection) => {
                    self.metrics.rejected(&submission.source, rejection.code);
                    // Whoever asked may be gone, which is no fault.
                    let _ = answer.send(Err(Refusal::Rejected(rejection)));
                }
            }
        }
    }

    fn hand_over(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        match self.decoder.finish() {
            Ok(events) => self.queue.hand_over(Group { events, pending }),
            Err(error) => {
                let reason = format!("the decoded events do not fit together: {error}");
                Group { events: Vec::new(), pending }.refuse(&Refusal::Unavailable(reason.clone()));
                self.queue.fail(&reason);
            }
        }
    }
}
