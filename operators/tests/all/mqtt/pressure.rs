//! The mqtt source while nothing can be stored: nothing is acknowledged, reading stops at a bound, and then all goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::door::{Answer, Bundle, BundleAnswer, Door, Refusal, Submission, Taken};
use cornjacket_core::environment::Random;
use cornjacket_operators::sources::mqtt::{Address, Counted, Counts, Settings, Source, Subscription, Surroundings};
use parking_lot::Mutex;
use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, QoS};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::broker::{eventually, steady, until};
use super::mosquitto::{Mosquitto, Publisher};

/// A door that can be shut, as a full disk does it.
#[derive(Default)]
pub struct Gate {
    pub is_open: AtomicBool,
    /// It stores, and dies before it says so.
    is_mute: AtomicBool,
    /// Bodies that were stored, and the receipts of each bundle, with the newest first.
    pub stored: Mutex<(Vec<Vec<u8>>, Vec<Vec<u8>>)>,
    refusals: Mutex<u64>,
}

impl Door for Gate {
    fn submit(&self, _: Submission<Vec<u8>>) -> Answer {
        Box::pin(std::future::ready(Err(Refusal::Closing)))
    }

    fn submit_bundle(&self, bundle: Arc<Bundle>) -> BundleAnswer {
        if !self.is_open.load(Ordering::SeqCst) {
            let mut refusals = self.refusals.lock();
            *refusals += 1;
            let refusal = if refusals.is_multiple_of(2) {
                Refusal::Busy
            } else {
                Refusal::Unavailable("the disk is full".into())
            };
            return Box::pin(std::future::ready(Err(refusal)));
        }
        let mut stored = self.stored.lock();
        stored.0.extend(bundle.messages.iter().map(|message| bundle.bytes[message.bytes.clone()].to_vec()));
        stored.1.insert(0, bundle.receipts.clone());
        if self.is_mute.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        let taken = Taken { stored: bundle.messages.len() as u64, ..Taken::default() };
        Box::pin(std::future::ready(Ok(taken)))
    }
}

struct Dice;

impl Random for Dice {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// A subscription at work.
pub struct Subscribed {
    gate: Arc<Gate>,
    counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Subscribed {
    pub fn start(url: &str, folder: &tempfile::TempDir, gate: &Arc<Gate>, qos: u8) -> Self {
        let settings = Settings { topics: vec!["devices/+/reading".into()], qos, event: None, retained: false };
        let source = Source::new("devices", &settings, &Arc::new(Catalogue::default())).expect("a source");
        let (counts, address) = (Arc::<Counts>::default(), Address::parse(url).expect("an address"));
        let surroundings =
            Surroundings { door: Arc::clone(gate) as _, random: Arc::new(Dice), counts: Arc::clone(&counts) };
        let receipts = gate.stored.lock().1.clone();
        let subscription = Subscription::open(("p", source), &address, folder.path(), &receipts, surroundings);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(subscription.expect("a folder").run(stopped));
        Self { gate: Arc::clone(gate), counts, stop, task }
    }

    pub async fn until(&self, what: &str, fits: impl Fn(Counted, usize) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (now, stored) = (self.counts.read(), self.gate.stored.lock().0.len());
            if fits(now, stored) {
                return;
            }
            assert!(Instant::now() < deadline, "not {what}: {now:?}, {stored} stored");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn end(self) {
        self.stop.send(true).expect("it runs");
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("it ends").expect("in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_while_nothing_can_be_stored() {
    let (folder, broker, gate) = (tempfile::tempdir().expect("a folder"), Mosquitto::start(), Arc::default());
    let subscribed = Subscribed::start(&broker.url(), &folder, &gate, 1);
    subscribed.until("connected", |now, _| now.connected).await;
    Publisher::new(broker.port, None).publish_all(0..300).await;
    // As many as Mosquitto sends without an acknowledgement.
    subscribed.until("full", |now, _| now.messages == 20).await;
    until("tried again and again", || *gate.refusals.lock() > 3).await;
    let now = subscribed.counts.read();
    assert_eq!((now.messages, now.acknowledged, now.connected, now.reconnects), (20, 0, true, 0));
    // The process ends meanwhile: what it had is sent to the next one.
    subscribed.end().await;
    let subscribed = Subscribed::start(&broker.url(), &folder, &gate, 1);
    subscribed.until("full", |now, _| now.messages == 20).await;
    gate.is_open.store(true, Ordering::SeqCst);
    subscribed.until("all there", |now, stored| stored == 300 && now.acknowledged == 300).await;
    let expected: Vec<Vec<u8>> = (0..300).map(|number| format!("{{\"n\":{number}}}").into_bytes()).collect();
    assert_eq!(gate.stored.lock().0, expected, "in order, and each once");
    subscribed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_and_not_acknowledged_is_not_stored_again() {
    let (folder, broker, gate) = (tempfile::tempdir().expect("a folder"), Mosquitto::start(), Arc::<Gate>::default());
    gate.is_open.store(true, Ordering::SeqCst);
    gate.is_mute.store(true, Ordering::SeqCst);
    let subscribed = Subscribed::start(&broker.url(), &folder, &gate, 1);
    subscribed.until("connected", |now, _| now.connected).await;
    let mut publisher = Publisher::new(broker.port, None);
    publisher.publish_all(0..1).await;
    subscribed.until("stored", |_, stored| stored == 1).await;
    // These have come, and are not stored yet.
    publisher.publish_all(1..100).await;
    subscribed.until("there", |now, _| now.messages == 20).await;
    subscribed.task.abort();
    drop(subscribed);

    gate.is_mute.store(false, Ordering::SeqCst);
    let subscribed = Subscribed::start(&broker.url(), &folder, &gate, 1);
    subscribed.until("all there", |now, stored| stored >= 100 && now.acknowledged == 100).await;
    assert_eq!(subscribed.counts.read().repeated, 1);
    let expected: Vec<Vec<u8>> = (0..100).map(|number| format!("{{\"n\":{number}}}").into_bytes()).collect();
    assert_eq!(gate.stored.lock().0, expected, "in order, and each once");
    subscribed.end().await;
}

/// More messages than there are packet ids, from a broker that sends them all at once after a reconnection, while nothing
/// can be stored for longer than the broker waits for a client that says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_arrives_whole_after_a_long_silence() {
    const COUNT: u64 = 80_000;
    let broker = Mosquitto::start_with(|_| "allow_anonymous true\nlog_type all\n".into());
    let (folder, gate) = (tempfile::tempdir().expect("a folder"), Arc::<Gate>::default());
    let subscribed = Subscribed::start(&broker.url(), &folder, &gate, 1);
    subscribed.until("connected", |now, _| now.connected).await;
    subscribed.end().await;
    Publisher::new(broker.port, None).publish_all(0..COUNT).await;

    let subscribed = Subscribed::start(&broker.url(), &folder, &gate, 1);
    // The broker's patience ends one and a half keep alives after what it heard last, so before a second sign of life
    // could come late.
    let pings =
        || std::fs::read_to_string(broker.folder().join("log")).expect("a log").matches("Received PINGREQ").count();
    let before = pings();
    eventually("two signs of life", Duration::from_secs(40), || pings() >= before + 2).await;
    let now = subscribed.counts.read();
    assert!(now.connected && now.reconnects == 0 && now.acknowledged == 0 && now.messages < COUNT / 2, "{now:?}");
    gate.is_open.store(true, Ordering::SeqCst);
    subscribed.until("all there", |now, stored| stored as u64 >= COUNT && now.acknowledged == COUNT).await;
    let expected: Vec<Vec<u8>> = (0..COUNT).map(|number| format!("{{\"n\":{number}}}").into_bytes()).collect();
    assert!(gate.stored.lock().0 == expected, "in order, and each once");
    assert_eq!(subscribed.counts.read().reconnects, 0);
    subscribed.end().await;
    // All of it is acknowledged, so nothing comes again.
    let subscribed = Subscribed::start(&broker.url(), &folder, &gate, 1);
    subscribed.until("connected", |now, _| now.connected).await;
    Publisher::new(broker.port, None).publish_all(COUNT..COUNT + 1).await;
    subscribed.until("the next one there", |now, _| now.acknowledged == 1).await;
    assert_eq!((subscribed.counts.read().messages, gate.stored.lock().0.len() as u64), (1, COUNT + 1));
    subscribed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_where_the_broker_holds_nothing_back() {
    const SIZE: usize = 64 << 10;
    let (folder, broker, gate) = (tempfile::tempdir().expect("a folder"), Mosquitto::start(), Arc::default());
    let subscribed = Subscribed::start(&broker.url(), &folder, &gate, 0);
    subscribed.until("connected", |now, _| now.connected).await;
    let mut options = MqttOptions::new("flood", "127.0.0.1", broker.port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut eventloop) = AsyncClient::new(options, 1_000);
    for _ in 0..1_000 {
        client.try_publish("devices/d1/reading", QoS::AtMostOnce, false, vec![b'x'; SIZE]).expect("room");
    }
    let mut sent = 0;
    while sent < 1_000 {
        let event = eventloop.poll().await.expect("the flood's connection");
        sent += usize::from(matches!(event, Event::Outgoing(Outgoing::Publish(_))));
    }
    let read = steady("reading", || subscribed.counts.read().messages).await;
    // One more waits for room.
    assert!((200..=(16 << 20) / SIZE as u64 + 1).contains(&read), "{read} messages of 64 KiB were read");
    gate.is_open.store(true, Ordering::SeqCst);
    subscribed.until("going on", |now, stored| now.messages > read && stored as u64 == now.messages).await;
    subscribed.end().await;
}
