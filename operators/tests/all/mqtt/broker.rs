//! A broker on a port of its own, and a door behind it that can be shut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::door::{Answer, Bundle, BundleAnswer, Door, Refusal, Rejects, Submission, Taken};
use cornjacket_core::environment::Random;
use cornjacket_operators::sources::mqtt::{Broker, BrokerCounts, Passwords, Restored, Settings, Source};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A door that can be shut, as a full disk does it.
#[derive(Default)]
pub struct Shelf {
    is_shut: AtomicBool,
    refusals: AtomicU64,
    /// Topic and body of what was stored, in its order.
    stored: Mutex<Vec<(String, Vec<u8>)>>,
    /// The receipts of each bundle, with the newest first.
    receipts: Mutex<Vec<Vec<u8>>>,
    bundles: AtomicU64,
    /// How long storing takes.
    pub slowness: Mutex<Duration>,
}

impl Shelf {
    pub fn shut(&self, is_shut: bool) {
        self.is_shut.store(is_shut, Ordering::SeqCst);
    }

    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::SeqCst)
    }

    pub fn bundles(&self) -> u64 {
        self.bundles.load(Ordering::SeqCst)
    }

    pub fn count(&self) -> usize {
        self.stored.lock().len()
    }

    pub fn bodies(&self) -> Vec<String> {
        self.stored.lock().iter().map(|(_, body)| String::from_utf8_lossy(body).into_owned()).collect()
    }

    pub fn stored(&self) -> Vec<(String, Vec<u8>)> {
        self.stored.lock().clone()
    }

    pub fn receipts(&self) -> Vec<Vec<u8>> {
        self.receipts.lock().clone()
    }
}

impl Door for Shelf {
    fn submit(&self, _: Submission<Vec<u8>>) -> Answer {
        Box::pin(std::future::ready(Err(Refusal::Closing)))
    }

    fn submit_bundle(&self, bundle: Arc<Bundle>) -> BundleAnswer {
        assert_eq!((bundle.rejects, bundle.messages.is_empty()), (Rejects::DeadLetters, false));
        if self.is_shut.load(Ordering::SeqCst) {
            let number = self.refusals.fetch_add(1, Ordering::SeqCst);
            let full = || Refusal::Unavailable("the disk is full".into());
            let refusal = if number.is_multiple_of(2) { Refusal::Busy } else { full() };
            return Box::pin(std::future::ready(Err(refusal)));
        }
        self.bundles.fetch_add(1, Ordering::SeqCst);
        for (message, known) in bundle.messages.iter().zip(&bundle.known) {
            let topic = known.origin.as_deref().expect("a topic").to_string();
            self.stored.lock().push((topic, bundle.bytes[message.bytes.clone()].to_vec()));
        }
        if !bundle.receipts.is_empty() {
            self.receipts.lock().insert(0, bundle.receipts.clone());
        }
        let taken = Taken { stored: bundle.messages.len() as u64, ..Taken::default() };
        let slowness = *self.slowness.lock();
        Box::pin(async move {
            if !slowness.is_zero() {
                tokio::time::sleep(slowness).await;
            }
            Ok(taken)
        })
    }
}

#[derive(Default)]
struct Dice(AtomicU64);

impl Random for Dice {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::SeqCst).to_le_bytes();
        bytes.iter_mut().zip(number.iter().cycle()).for_each(|(byte, random)| *byte = *random);
    }
}

/// A broker at work. Its source takes `devices/+/reading` and `all/#`.
pub struct Running {
    pub at: SocketAddr,
    pub shelf: Arc<Shelf>,
    pub counts: Arc<BrokerCounts>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(&Arc::default(), None).await
    }

    /// With what an earlier one stored, and a password file.
    pub async fn start_with(shelf: &Arc<Shelf>, passwords: Option<&str>) -> Self {
        let topics = vec!["devices/+/reading".into(), "all/#".into()];
        let settings = Settings { topics, qos: 1, event: None, retained: false };
        let source = Source::new("devices", &settings, &Arc::new(Catalogue::default())).expect("a source");
        let sources = vec![Restored { source, receipts: shelf.receipts() }];
        let counts = Arc::default();
        let passwords = passwords.map(|text| Passwords::parse(text).expect("a password file"));
        let random: Arc<dyn Random> = Arc::new(Dice::default());
        let broker = Broker::new(sources, Arc::clone(shelf) as _, passwords, (random, &counts));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (at, (stop, stopped)) = (listener.local_addr().expect("an address"), watch::channel(false));
        let task = tokio::spawn(broker.serve(listener, stopped));
        Self { at, shelf: Arc::clone(shelf), counts, stop, task }
    }

    pub fn tell_to_stop(&self) {
        self.stop.send(true).expect("it runs");
    }

    /// Ends it in order.
    pub async fn end(self) {
        self.tell_to_stop();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("it ends").expect("in order");
    }

    /// Ends it as a crash does.
    pub fn crash(self) {
        self.task.abort();
    }
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    eventually(what, Duration::from_secs(20), holds).await;
}

/// As [`until`], for so long.
pub async fn eventually(what: &str, patience: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "not {what} in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a number has stayed the same for a while; gives it.
pub async fn steady(what: &str, number: impl Fn() -> u64) -> u64 {
    let (deadline, mut tick) =
        (Instant::now() + Duration::from_secs(20), tokio::time::interval(Duration::from_millis(50)));
    let (mut last, mut since) = (number(), Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        assert!(Instant::now() < deadline, "{what} does not come to rest");
        tick.tick().await;
        let now = number();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}
