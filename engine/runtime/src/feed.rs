//! The feed: reads sources and hands what they give to the door, a thread each.
//!
//! A source has one bundle under way at a time, so that its positions are stored in their order whatever fails in
//! between. A bundle that the door cannot take now is handed in again until it can. A source that ends is done; one that
//! fails for good says why, and the run ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cornjacket_core::door::{Bundle, Door, Refusal, Taken};
use cornjacket_core::environment::Environment;
use cornjacket_core::source::{Progress, Pull, Reader, ReaderFactory};
use cornjacket_core::{Error, Result};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// Waits between tries while a source or the door cannot go on.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// How a source is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// What became of its messages since the start of the process.
    pub taken: Taken,
    /// How far it is, if it is bounded.
    pub progress: Option<Progress>,
    /// Whether nothing more comes.
    pub has_ended: bool,
    /// Why it cannot go on, if it cannot.
    pub failure: Option<String>,
}

/// A source to read.
pub struct Feeding {
    /// Its name.
    pub name: String,
    /// What reads it.
    pub factory: Arc<dyn ReaderFactory>,
}

/// The sources that are being read.
pub struct Feed {
    /// Every source, renewed after every bundle.
    pub status: watch::Receiver<Vec<SourceStatus>>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Stop {
    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Waits, unless asked to stop; says whether to go on.
    fn pause(&self, time: Duration) -> bool {
        let mut guard = self.lock.lock();
        if !self.is_asked() {
            self.wake.wait_for(&mut guard, time);
        }
        !self.is_asked()
    }
}

impl Feed {
    /// Starts to read, each source behind its mark.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        sources: Vec<Feeding>,
        marks: &BTreeMap<String, String>,
        door: &Arc<dyn Door>,
        environment: &Environment,
    ) -> Result<Self> {
        let names = sources.iter().map(|source| SourceStatus { name: source.name.clone(), ..SourceStatus::default() });
        let (sender, status) = watch::channel(names.collect::<Vec<_>>());
        let (sender, stop) = (Arc::new(sender), Arc::new(Stop::default()));
        let mut threads = Vec::new();
        for (index, Feeding { name, factory }) in sources.into_iter().enumerate() {
            let thread = Source {
                index,
                door: Arc::clone(door),
                status: Arc::clone(&sender),
                stop: Arc::clone(&stop),
                environment: environment.clone(),
            };
            let mark = marks.get(&name).cloned();
            let thread = std::thread::Builder::new()
                .name(format!("source-{name}"))
                .spawn(move || thread.run(&*factory, mark.as_deref()));
            threads.push(thread.map_err(|error| Error::Unavailable(format!("no thread for a source: {error}")))?);
        }
        Ok(Self { status, stop, threads })
    }

    /// Stops reading. Bundles that the door has are answered by it.
    pub fn stop(self) {
        self.stop.asked.store(true, Ordering::Release);
        drop(self.stop.lock.lock());
        self.stop.wake.notify_all();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("the thread of a source had died");
            }
        }
    }
}

struct Source {
    index: usize,
    door: Arc<dyn Door>,
    status: Arc<watch::Sender<Vec<SourceStatus>>>,
    stop: Arc<Stop>,
    environment: Environment,
}

impl Source {
    fn run(self, factory: &dyn ReaderFactory, mark: Option<&str>) {
        match self.read(factory, mark) {
            Ok(true) => self.tell(|status| status.has_ended = true),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "a source cannot go on");
                self.tell(|status| status.failure = Some(error.to_string()));
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut SourceStatus)) {
        self.status.send_modify(|all| change(&mut all[self.index]));
    }

    /// Reads to the end; false if asked to stop before.
    fn read(&self, factory: &dyn ReaderFactory, mark: Option<&str>) -> Result<bool> {
        let open = || factory.open(mark, &self.environment);
        let Some(mut reader) = self.patiently(open)? else { return Ok(false) };
        self.show_progress(&*reader);
        loop {
            let Some(pull) = self.patiently(|| reader.next())? else { return Ok(false) };
            match pull {
                Pull::Bundle(bundle) => {
                    let Some(taken) = self.hand_in(bundle)? else { return Ok(false) };
                    self.tell(|status| {
                        status.taken.stored += taken.stored;
                        status.taken.repeated += taken.repeated;
                        status.taken.rejected += taken.rejected;
                    });
                    self.show_progress(&*reader);
                }
                Pull::Wait(time) if !self.stop.pause(time) => return Ok(false),
                Pull::Wait(_) => {}
                Pull::End => return Ok(true),
            }
        }
    }

    fn show_progress(&self, reader: &dyn Reader) {
        if let Some(progress) = reader.progress() {
            self.tell(|status| status.progress = Some(progress));
        }
    }

    /// Hands a bundle to the door until it is taken; `None` if asked to stop, or the door is closing.
    fn hand_in(&self, bundle: Bundle) -> Result<Option<Taken>> {
        let bundle = Arc::new(bundle);
        let taken =
            self.patiently(|| match futures::executor::block_on(self.door.submit_bundle(Arc::clone(&bundle))) {
                Ok(taken) => Ok(Some(taken)),
                Err(Refusal::Closing) => Ok(None),
                Err(Refusal::Busy) => Err(Error::Unavailable("the door is busy".into())),
                Err(Refusal::Unavailable(reason)) => Err(Error::Unavailable(reason)),
                Err(Refusal::Rejected(rejection)) => Err(Error::Compute(rejection.message)),
            })?;
        Ok(taken.flatten())
    }

    /// Tries until it works, waiting longer each time; `None` if asked to stop meanwhile.
    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<Option<T>> {
        let mut wait = RETRY_FIRST;
        loop {
            match attempt() {
                Ok(done) => return Ok(Some(done)),
                Err(error) if error.is_transient() => tracing::warn!(%error, "a source waits"),
                Err(error) => return Err(error),
            }
            if !self.stop.pause(wait) {
                return Ok(None);
            }
            wait = (wait * 2).min(RETRY_MOST);
        }
    }
}
