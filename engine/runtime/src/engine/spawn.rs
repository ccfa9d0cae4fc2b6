//! The engine on a thread of its own: paces epochs, waits out storage that is down, and ends cleanly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cornjacket_core::environment::Environment;
use cornjacket_core::graph::Graph;
use cornjacket_core::store::Storage;
use cornjacket_core::{Error, Result};
use tokio::sync::watch;

use super::{Engine, EngineOptions};
use crate::status::Status;

/// The shortest epoch: rows that come within it share a transaction.
const EPOCH: Duration = Duration::from_millis(10);
/// How long the engine waits for rows before it looks at its clocks.
const IDLE_LOOK: Duration = Duration::from_millis(100);
/// Waits between tries while storage is down.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// A running engine.
pub struct EngineHandle {
    /// Renewed after every committed epoch; the first comes when the engine has recovered.
    pub status: watch::Receiver<Arc<Status>>,
    stop: Arc<AtomicBool>,
    end_input: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl EngineHandle {
    /// Lets the epoch at hand finish, saves a snapshot and waits for the end.
    ///
    /// # Errors
    /// What the engine failed with, if it had failed before or could not end cleanly.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_else(|_| Err(Error::Compute("the engine panicked".into())))
    }

    /// Says that no more events will come: the engine takes what is in the log, closes every window and ends by itself.
    pub fn end_input(&self) {
        self.end_input.store(true, Ordering::Release);
    }

    /// Whether the engine has ended by itself, which it only does when it cannot go on, or after the
    /// end of the input.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts an engine; recovery happens on its thread. `print` takes the lines of `stdout` sinks.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn(
    graph: Arc<Graph>,
    storage: Storage,
    environment: Environment,
    options: EngineOptions,
    print: impl FnMut(&[String]) + Send + 'static,
) -> Result<EngineHandle> {
    let (sender, status) = watch::channel(Arc::new(Status::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let end_input = Arc::new(AtomicBool::new(false));
    let running = Loop {
        sender,
        stop: Arc::clone(&stop),
        end_input: Arc::clone(&end_input),
        ends_with_input: options.ends_with_input,
        storage: storage.clone(),
        print: Box::new(print),
    };
    let open = move || Engine::open(Arc::clone(&graph), storage.clone(), environment.clone(), options.clone());
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || running.run(open))
        .map_err(|error| Error::Unavailable(format!("the engine's thread cannot be started: {error}")))?;
    Ok(EngineHandle { status, stop, end_input, thread })
}

struct Loop {
    sender: watch::Sender<Arc<Status>>,
    stop: Arc<AtomicBool>,
    end_input: Arc<AtomicBool>,
    ends_with_input: bool,
    storage: Storage,
    print: Box<dyn FnMut(&[String]) + Send>,
}

impl Loop {
    fn run(mut self, open: impl Fn() -> Result<Engine>) -> Result<()> {
        let outcome = self.drive(open);
        if let Err(error) = &outcome {
            tracing::error!(error = %full_text(error), "the engine cannot go on");
        }
        outcome
    }

    fn drive(&mut self, open: impl Fn() -> Result<Engine>) -> Result<()> {
        let Some(mut engine) = self.patiently(open)? else { return Ok(()) };
        self.publish(&engine);
        while !self.is_stopping() {
            let started = Instant::now();
            let is_ending = self.end_input.load(Ordering::Acquire);
            if is_ending {
                engine.end_input();
            }
            let Some(step) = self.patiently(|| engine.step())? else { break };
            if step.committed {
                (self.print)(&step.lines);
                self.publish(&engine);
                self.pace(started, &engine);
            } else if is_ending && self.ends_with_input {
                break;
            } else {
                self.storage.log.wait_beyond(engine.positions(), IDLE_LOOK);
            }
        }
        Self::close(engine)
    }

    /// Under load the next epoch starts at once and is as long as the rows that wait; otherwise rows are collected.
    fn pace(&self, started: Instant, engine: &Engine) {
        let left = EPOCH.saturating_sub(started.elapsed());
        let waiting = engine.positions().distance(&self.storage.log.end());
        if !left.is_zero() && waiting < 1_024 {
            std::thread::sleep(left);
        }
    }

    fn close(engine: Engine) -> Result<()> {
        match engine.close() {
            // Nothing is lost by ending without a snapshot: the next start replays a little more.
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "ended without a last snapshot");
                Ok(())
            }
            other => other,
        }
    }

    /// Tries until it works, waiting longer each time; `None` if asked to stop meanwhile.
    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<Option<T>> {
        let mut wait = RETRY_FIRST;
        loop {
            match attempt() {
                Ok(done) => return Ok(Some(done)),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "the engine waits for storage");
                    self.sender.send_modify(|status| Arc::make_mut(status).waiting_for = Some(error.to_string()));
                }
                // When input has an end, so has waiting.
                Err(Error::Memory(why)) if !(self.ends_with_input && self.end_input.load(Ordering::Acquire)) => {
                    let is_news = self.sender.borrow().waiting_for.as_ref() != Some(&why);
                    if is_news {
                        tracing::error!("the engine takes no more events: {why}");
                    }
                    self.sender.send_modify(|status| Arc::make_mut(status).waiting_for = Some(why));
                }
                Err(error) => return Err(error),
            }
            if self.is_stopping() {
                return Ok(None);
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(RETRY_MOST);
        }
    }

    fn publish(&self, engine: &Engine) {
        self.sender.send_replace(Arc::new(engine.status()));
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

fn full_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
