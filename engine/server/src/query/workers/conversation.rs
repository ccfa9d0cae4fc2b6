//! What is said between this process and one that answers a query, from the question to the end of the answer.

use std::sync::Arc;

use axum::body::Bytes;
use cornjacket_sql::query::QueryError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::process::{Leash, WorkerProcess};
use super::scans::Scans;
use super::wire::{FromWorker, Question, ToWorker};
use super::{IDLE, Pool, yield_to_others};

/// A conversation. Its slot is free when its process has ended or waits for the next one, and not when its client has gone.
pub struct Conversation {
    pool: Arc<Pool>,
    answer: mpsc::Sender<Result<Bytes, QueryError>>,
    leash: Arc<Leash>,
    /// What the query has of the memory of all.
    taken: usize,
    _slot: OwnedSemaphorePermit,
}

/// How it ended.
enum End {
    /// The process has answered.
    Answered {
        /// Why the answer is not whole.
        error: Option<QueryError>,
        /// Whether the process may answer another question.
        is_fit: bool,
    },
    /// Nobody waits for the rest.
    Unwanted,
    /// The process has ended.
    Ended,
}

impl Conversation {
    pub fn new(
        pool: Arc<Pool>,
        answer: mpsc::Sender<Result<Bytes, QueryError>>,
        leash: Arc<Leash>,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self { pool, answer, leash, taken: 0, _slot: slot }
    }

    /// Holds it, on a thread that may wait.
    pub fn hold(mut self, question: &Question) {
        yield_to_others();
        let fault = match self.ask(question) {
            Ok(Some(worker)) => self.hear(worker),
            Ok(None) => None,
            Err(fault) => Some(fault),
        };
        if let Some(fault) = fault {
            let _ = self.answer.blocking_send(Err(fault));
        }
    }

    /// Asks a process; none where nobody waits for the answer any more. One that waited for a question may have been killed,
    /// where memory was short; then another one is asked.
    fn ask(&self, question: &Question) -> Result<Option<WorkerProcess>, QueryError> {
        let question = ToWorker::Query(question.clone());
        let mut tries = 0;
        loop {
            let worker = self.pool.take();
            let failed = |error| QueryError::Failed(format!("a process for it cannot be started: {error}"));
            let mut worker = worker.map_err(failed)?;
            if !self.leash.hold(&worker) {
                self.pool.keep(worker);
                return Ok(None);
            }
            if worker.input().say(&question, &[]).is_ok() && has_heard(&mut worker) {
                return Ok(Some(worker));
            }
            if tries == IDLE {
                return Err(worker.fault());
            }
            tries += 1;
        }
    }

    /// Hears the answer; gives why it is not whole.
    fn hear(&mut self, mut worker: WorkerProcess) -> Option<QueryError> {
        self.pool.have_spare();
        match self.listen(&mut worker) {
            End::Answered { error, is_fit } => {
                // Before anyone is told, who might ask again at once.
                if self.leash.release() && is_fit {
                    self.pool.keep(worker);
                }
                error
            }
            End::Unwanted => None,
            End::Ended => Some(worker.fault()),
        }
    }

    fn listen(&mut self, worker: &mut WorkerProcess) -> End {
        let mut scans = Scans::new(&self.pool, worker.input());
        while let Ok(Some((head, body))) = worker.hear() {
            match head {
                FromWorker::Heard => {}
                FromWorker::Piece => {
                    if self.answer.blocking_send(Ok(body.into())).is_err() {
                        return End::Unwanted;
                    }
                }
                FromWorker::Done { error, is_fit } => return End::Answered { error, is_fit },
                FromWorker::Open { scan, table, columns } => {
                    if let Err(error) = scans.open(scan, table, columns) {
                        let error = Some(format!("the system has no thread for it: {error}"));
                        let _ = worker.input().say(&ToWorker::End { scan, error }, &[]);
                    }
                }
                FromWorker::More { scan } => scans.more(scan),
                FromWorker::Close { scan } => scans.close(scan),
                FromWorker::Take(bytes) => {
                    let is_given = self.pool.room.take(bytes);
                    self.taken += if is_given { bytes } else { 0 };
                    let _ = worker.input().say(&ToWorker::Room(is_given), &[]);
                }
                FromWorker::Give(bytes) => {
                    let bytes = bytes.min(self.taken);
                    self.taken -= bytes;
                    self.pool.room.give(bytes);
                }
            }
        }
        End::Ended
    }
}

/// Whether the question has arrived. Scans of the last one may still have had something to say.
fn has_heard(worker: &mut WorkerProcess) -> bool {
    while let Ok(Some((head, _))) = worker.hear() {
        if matches!(head, FromWorker::Heard) {
            return true;
        }
    }
    false
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.pool.room.give(self.taken);
    }
}
