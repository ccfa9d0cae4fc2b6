//! A process that answers queries, seen from the one that started it.

use std::io::{BufReader, Read, Result, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use cornjacket_sql::query::QueryError;
use parking_lot::Mutex;
use rustix::process::Signal;

use super::wire::{self, FromWorker, ToWorker};
use crate::query::worker::COMMAND;

/// This very program, even where its file has been replaced by a newer one.
const PROGRAM: &str = "/proc/self/exe";
/// How much of its last words is read.
const MOST_WORDS: u64 = 64 << 10;

/// A process that answers queries. It is killed when it is dropped.
pub struct WorkerProcess {
    child: Arc<Mutex<Child>>,
    input: Arc<WorkerInput>,
    output: BufReader<ChildStdout>,
    errors: ChildStderr,
}

/// Where it is told things, by several threads.
pub struct WorkerInput(Mutex<ChildStdin>);

impl WorkerInput {
    /// Says something to it.
    pub fn say(&self, head: &ToWorker, body: &[u8]) -> Result<()> {
        wire::write(&mut *self.0.lock(), head, body)
    }
}

impl WorkerProcess {
    /// Starts one.
    pub fn start(opening: &[u8]) -> Result<Self> {
        let program = if cfg!(target_os = "linux") { PROGRAM.into() } else { std::env::current_exe()? };
        let mut command = Command::new(program);
        command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What ends the terminal's processes is for who started it, which lets its queries finish.
        command.process_group(0);
        // It has no secrets to tell, whatever it is asked.
        command.env_clear().env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
        let mut child = command.spawn()?;
        let (Some(mut input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(std::io::Error::other("it has no pipes"));
        };
        input.write_all(opening)?;
        let (child, input) = (Arc::new(Mutex::new(child)), Arc::new(WorkerInput(Mutex::new(input))));
        Ok(Self { child, input, output: BufReader::new(output), errors })
    }

    /// Where it is told things.
    pub fn input(&self) -> &Arc<WorkerInput> {
        &self.input
    }

    /// What it says next; `None` when it has ended.
    pub fn hear(&mut self) -> Result<Option<(FromWorker, Vec<u8>)>> {
        wire::read(&mut self.output)
    }

    /// Why it has ended.
    pub fn fault(mut self) -> QueryError {
        let status = {
            let mut child = self.child.lock();
            // A process that has ended keeps its status.
            let _ = child.kill();
            child.wait()
        };
        let mut words = Vec::new();
        let _ = (&mut self.errors).take(MOST_WORDS).read_to_end(&mut words);
        let words = String::from_utf8_lossy(&words);
        let line = |part: &str| words.lines().find(|line| line.contains(part));
        let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
        match (line("memory allocation of"), line("overflowed its stack"), signal) {
            (Some(line), ..) => QueryError::Memory(line.trim().to_string()),
            (_, Some(_), _) => {
                QueryError::Invalid { message: "this is nested too deeply to be computed".into(), hint: None }
            }
            // Its own watch, or the system where memory is short.
            (.., Some(signal)) if signal == Signal::KILL.as_raw() => {
                QueryError::Memory("its process had more of the machine's memory than it may".into())
            }
            _ => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::warn!(status, words = &*words, "a query has ended its process");
                QueryError::Failed(format!("its process has ended ({status})"))
            }
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let mut child = self.child.lock();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What ends a query from outside: nobody waits for it any more, or its time is up.
#[derive(Default)]
pub struct Leash(Mutex<Held>);

#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    Running(Arc<Mutex<Child>>),
    Over,
}

impl Leash {
    /// Holds a process; false where the query is over already.
    pub fn hold(&self, worker: &WorkerProcess) -> bool {
        let mut held = self.0.lock();
        let is_wanted = !matches!(*held, Held::Over);
        if is_wanted {
            *held = Held::Running(Arc::clone(&worker.child));
        }
        is_wanted
    }

    /// Ends the query, and its process with it.
    pub fn pull(&self) {
        if let Held::Running(child) = std::mem::replace(&mut *self.0.lock(), Held::Over) {
            let _ = child.lock().kill();
        }
    }

    /// Lets the process go; false where it was killed.
    pub fn release(&self) -> bool {
        matches!(std::mem::replace(&mut *self.0.lock(), Held::Over), Held::Running(_))
    }
}
