//! Queries in processes of their own.
//!
//! What a query takes of time, memory and stack is then no matter of the process that takes events in: a process that
//! takes too much is killed, and one that ends by itself ends alone. A process answers one question at a time, and the next
//! one if it has not grown. It has no way to the storage: it asks for the rows of tables, and is given them as Arrow IPC by
//! threads of this process. Its answer comes in the form that the client wants, piece by piece.

mod conversation;
mod process;
mod room;
mod scans;
pub mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::ipc::writer::StreamWriter;
use axum::body::Bytes;
use cornjacket_sql::query::{QueryError, QueryOptions, TableSource};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use conversation::Conversation;
use process::{Leash, WorkerProcess};
use room::Room;
use wire::{Question, ToWorker};

/// How many pieces of an answer are ahead of its client.
const AHEAD: usize = 2;
/// How many processes wait for questions: with one a question need not wait for a process to begin.
const IDLE: usize = 2;

/// How much queries may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What one may take.
    pub query: QueryOptions,
    /// The most memory that all of them together may hold, in bytes.
    pub total_bytes: usize,
    /// How long one may take, from its start to its last row.
    pub timeout: Duration,
    /// How many may run at once.
    pub concurrency: usize,
    /// How long others wait for their turn.
    pub patience: Duration,
}

impl Limits {
    /// The usual ones, with so much memory for one query and for all.
    pub fn with_memory((memory_bytes, total_bytes): (usize, usize)) -> Self {
        Self {
            query: QueryOptions { memory_bytes, ..QueryOptions::default() },
            total_bytes,
            timeout: Duration::from_secs(30),
            concurrency: 8,
            patience: Duration::from_secs(5),
        }
    }
}

/// A table by the name that SQL has for it.
pub struct NamedTable {
    /// What stands before the dot: `sensor` for `sensor.reading`, none for a projection.
    pub schema: Option<String>,
    /// What stands behind it.
    pub name: String,
    /// Its rows.
    pub source: Arc<dyn TableSource>,
}

/// Answers SQL.
pub struct Workers {
    pool: Arc<Pool>,
    slots: Arc<Semaphore>,
    timeout: Duration,
    patience: Duration,
}

/// What all conversations share.
struct Pool {
    tables: Vec<NamedTable>,
    /// What every process is told first.
    opening: Vec<u8>,
    room: Room,
    idle: Mutex<Vec<WorkerProcess>>,
}

impl Workers {
    /// Answers over these tables.
    pub fn new(tables: Vec<NamedTable>, limits: Limits) -> anyhow::Result<Self> {
        let opening = opening(&tables, limits.query)?;
        let (room, idle) = (Room::new(limits.total_bytes), Mutex::default());
        let pool = Arc::new(Pool { tables, opening, room, idle });
        let spare = Arc::clone(&pool);
        std::thread::Builder::new().name("query".into()).spawn(move || {
            yield_to_others();
            spare.have_spare();
        })?;
        let slots = Arc::new(Semaphore::new(limits.concurrency));
        Ok(Self { pool, slots, timeout: limits.timeout, patience: limits.patience })
    }

    /// Answers a question, as soon as it is known that the answer has a beginning.
    ///
    /// # Errors
    /// Any [`QueryError`]; those that come later are in the answer, which ends with them.
    pub async fn ask(&self, question: Question) -> Result<Answer, QueryError> {
        let slot = tokio::time::timeout(self.patience, Arc::clone(&self.slots).acquire_owned());
        // The semaphore is never closed.
        let slot = slot.await.map_err(|_| QueryError::Busy)?.map_err(|_| QueryError::Busy)?;
        let (sender, pieces) = mpsc::channel(AHEAD);
        let leash = Arc::new(Leash::default());
        let conversation = Conversation::new(Arc::clone(&self.pool), sender, Arc::clone(&leash), slot);
        let thread = std::thread::Builder::new().name("query".into());
        let started = thread.spawn(move || conversation.hold(&question));
        started.map_err(|error| QueryError::Failed(format!("the system has no thread for it: {error}")))?;
        let deadline = Instant::now() + self.timeout;
        let mut answer = Answer { first: None, pieces, leash, deadline, timeout: self.timeout, is_over: false };
        answer.first = Some(answer.next().await.unwrap_or_else(|| Ok(Bytes::new()))?);
        Ok(answer)
    }
}

/// An answer under way. Dropping it ends the query.
pub struct Answer {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Result<Bytes, QueryError>>,
    leash: Arc<Leash>,
    deadline: Instant,
    timeout: Duration,
    is_over: bool,
}

impl Answer {
    /// The next piece; nothing comes after an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, QueryError>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        if self.is_over {
            return None;
        }
        let item = timeout_at(self.deadline, self.pieces.recv()).await;
        let item = item.unwrap_or_else(|_| Some(Err(QueryError::Timeout(self.timeout))));
        self.is_over = !matches!(item, Some(Ok(_)));
        if self.is_over {
            self.leash.pull();
        }
        item
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.leash.pull();
    }
}

impl Pool {
    /// A process that waits for a question.
    fn take(&self) -> std::io::Result<WorkerProcess> {
        let idle = self.idle.lock().pop();
        idle.map_or_else(|| WorkerProcess::start(&self.opening), Ok)
    }

    /// Sees to it that the next question finds a process.
    fn have_spare(&self) {
        if !self.idle.lock().is_empty() {
            return;
        }
        match WorkerProcess::start(&self.opening) {
            Ok(worker) => self.keep(worker),
            Err(error) => tracing::warn!(%error, "a process for queries cannot be started"),
        }
    }

    fn keep(&self, worker: WorkerProcess) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE {
            idle.push(worker);
        }
    }
}

fn opening(tables: &[NamedTable], limits: QueryOptions) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    wire::write(&mut bytes, &ToWorker::Begin(limits), &[])?;
    let mut names = HashSet::new();
    for table in tables {
        if !names.insert((&table.schema, &table.name)) {
            anyhow::bail!("queries would find two tables `{}`", table.name);
        }
        let schema = StreamWriter::try_new(Vec::new(), &table.source.schema())?.into_inner()?;
        let head = ToWorker::Table { schema: table.schema.clone(), name: table.name.clone() };
        wire::write(&mut bytes, &head, &schema)?;
    }
    wire::write(&mut bytes, &ToWorker::Tables, &[])?;
    Ok(bytes)
}

/// Taking events in comes first. With a niceness of 12 a thread gets some 6 % of a processor beside one of the ordinary
/// priority, and all of it when nobody else wants it. On Linux this is a matter of the thread that calls it and of the threads
/// and processes that it starts; elsewhere it would be one of the whole process.
fn yield_to_others() {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::setpriority_process(None, 12)
    {
        tracing::debug!(%error, "queries run with the priority of everything else");
    }
}
