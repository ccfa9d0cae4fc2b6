//! From messages to bundles, and from stored bundles to acknowledgements.
//!
//! What has come while a bundle was being stored makes the next one. Everything that came is owed an acknowledgement, in
//! the order in which it came: also what was left out, and what was there already. It is due once the bundle is stored.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::door::Bundle;
use rumqttc::{Publish, QoS};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::super::source::{Source, add};
use super::counts::Counts;
use super::recall::{Content, Mark, Recall};

/// How many messages a bundle has at most.
const MAX_MESSAGES: usize = 4_096;
/// How many bytes it has at most, but for the last message.
const MAX_BYTES: usize = 4 << 20;
/// Brokers send again right after the connection is made. What they did not send again by then they have acknowledged.
const SENT_AGAIN_WITHIN: Duration = Duration::from_secs(10);

/// A message that waits.
struct Arrived {
    connection: u64,
    publish: Publish,
    room: OwnedSemaphorePermit,
}

/// An acknowledgement that is due once the bundle is stored.
pub(super) struct Owed {
    /// On which connection.
    pub connection: u64,
    pub packet_id: u16,
    /// What the message occupies until it is acknowledged.
    pub room: OwnedSemaphorePermit,
    mark: Option<Mark>,
}

/// What is due once a bundle is stored.
#[derive(Default)]
pub(super) struct Dues {
    /// In the order of the messages.
    pub owed: Vec<Owed>,
    /// What messages occupy that need no acknowledgement.
    rooms: Vec<OwnedSemaphorePermit>,
}

/// What came and is not handed in yet, and what the broker does not know yet.
pub(super) struct Intake {
    source: Source,
    recall: Recall,
    counts: Arc<Counts>,
    waiting: VecDeque<Arrived>,
    /// Acknowledgements on their way, in their order.
    under_way: VecDeque<Option<Mark>>,
    connection: u64,
    /// The first mark of this connection, and since when it is there.
    connection_began: (u64, Instant),
}

impl Intake {
    pub fn new(source: Source, recall: Recall, counts: Arc<Counts>) -> Self {
        let connection_began = (0, Instant::now());
        Self {
            source,
            recall,
            counts,
            waiting: VecDeque::new(),
            under_way: VecDeque::new(),
            connection: 0,
            connection_began,
        }
    }

    /// There is a new connection.
    pub fn up(&mut self, connection: u64, session_present: bool, now: Instant) {
        self.connection = connection;
        self.under_way.clear();
        if session_present {
            // They come again, and can be acknowledged then.
            self.waiting.retain(|message| message.publish.qos == QoS::AtMostOnce);
        } else {
            // They do not, so they are kept; and packet ids begin anew.
            self.recall.forget();
        }
        self.connection_began = (self.recall.next(), now);
    }

    /// A message has come.
    pub fn push(&mut self, connection: u64, publish: Publish, room: OwnedSemaphorePermit) {
        self.waiting.push_back(Arrived { connection, publish, room });
    }

    /// What waits, as far as it fits into one bundle; `None` if nothing does. The bundle may be empty all the same.
    pub fn take(&mut self) -> Option<(Bundle, Dues)> {
        if self.waiting.is_empty() {
            return None;
        }
        let (mut bundle, mut dues, mut marks) = (self.source.bundle(), Dues::default(), Vec::new());
        while bundle.messages.len() < MAX_MESSAGES && dues.owed.len() < MAX_MESSAGES && bundle.bytes.len() < MAX_BYTES {
            let Some(Arrived { connection, publish, room }) = self.waiting.pop_front() else { break };
            let mark = self.put(&mut bundle, &publish, &mut marks);
            if publish.qos == QoS::AtMostOnce {
                dues.rooms.push(room);
            } else {
                dues.owed.push(Owed { connection, packet_id: publish.pkid, room, mark });
            }
        }
        if !marks.is_empty() {
            bundle.receipts = self.recall.record(&marks);
        }
        Some((bundle, dues))
    }

    /// Puts a message into the bundle, unless it is there already or not wanted; gives its mark.
    fn put(&mut self, bundle: &mut Bundle, publish: &Publish, marks: &mut Vec<(Mark, Content)>) -> Option<Mark> {
        let is_wanted = !publish.retain || self.source.takes_retained;
        let Some(mut known) = self.source.known(&publish.topic).filter(|_| is_wanted) else {
            self.counts.ignored();
            return None;
        };
        if publish.retain {
            known.metadata.push(("retained", "true".into()));
        }
        if publish.qos == QoS::AtMostOnce {
            add(bundle, &publish.payload, known);
            return None;
        }
        let content = Content::of(publish.topic.as_bytes(), &publish.payload);
        if publish.dup
            && let Some(mark) = self.recall.find(publish.pkid, content)
        {
            self.counts.repeated();
            return Some(mark);
        }
        add(bundle, &publish.payload, known);
        let mark = self.recall.remember(publish.pkid, content);
        marks.push((mark, content));
        Some(mark)
    }

    /// An acknowledgement is given. It goes nowhere if the connection is not the one that the message came on.
    pub fn acknowledged(&mut self, owed: &Owed) {
        if owed.connection == self.connection {
            self.under_way.push_back(owed.mark);
        }
    }

    /// The broker has this many further acknowledgements. `is_idle`: nothing is being stored.
    pub fn settled(&mut self, count: usize, is_idle: bool, now: Instant) {
        let count = count.min(self.under_way.len());
        let marks: Vec<Mark> = self.under_way.drain(..count).flatten().collect();
        self.recall.settle(&marks);
        let (first, since) = self.connection_began;
        if is_idle && self.waiting.is_empty() && now.duration_since(since) >= SENT_AGAIN_WITHIN {
            let under_way: HashSet<u64> = self.under_way.iter().flatten().map(|mark| mark.number).collect();
            self.recall.settle_before(first, &under_way);
        }
    }
}

#[cfg(test)]
mod tests {
    use cornjacket_core::catalogue::Catalogue;
    use tokio::sync::Semaphore;

    use super::super::super::Settings;
    use super::*;

    fn source(takes_retained: bool) -> Source {
        let settings = Settings { topics: vec!["d/+".into()], qos: 1, event: None, retained: takes_retained };
        let catalogue = Catalogue::default();
        Source::new("s", &settings, &Arc::new(catalogue)).expect("a source")
    }

    fn intake(records: &[Vec<u8>]) -> Intake {
        Intake::new(source(false), Recall::restore(records), Arc::default())
    }

    fn push(intake: &mut Intake, connection: u64, (packet_id, dup): (u16, bool), (topic, body): (&str, &str)) {
        let qos = if packet_id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let mut publish = Publish::new(topic, qos, body);
        (publish.pkid, publish.dup) = (packet_id, dup);
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("room");
        intake.push(connection, publish, room);
    }

    /// The bodies that are stored, and the packet ids that are owed an acknowledgement.
    fn taken((bundle, dues): &(Bundle, Dues)) -> (Vec<&str>, Vec<(u64, u16)>) {
        let body = |message: &cornjacket_core::door::Message| {
            std::str::from_utf8(&bundle.bytes[message.bytes.clone()]).expect("text")
        };
        let owed = dues.owed.iter().map(|owed| (owed.connection, owed.packet_id)).collect();
        (bundle.messages.iter().map(body).collect(), owed)
    }

    #[tokio::test]
    async fn all_is_owed_in_order_and_what_is_not_wanted_is_left_out() {
        let mut intake = intake(&[]);
        assert!(intake.take().is_none());
        push(&mut intake, 1, (1, false), ("d/1", "a"));
        push(&mut intake, 1, (2, false), ("other", "b"));
        push(&mut intake, 1, (0, false), ("d/1", "c"));
        // Sent again, but it had never come.
        push(&mut intake, 1, (3, true), ("d/2", "d"));
        let handful = intake.take().expect("messages");
        assert_eq!(taken(&handful), (vec!["a", "c", "d"], vec![(1, 1), (1, 2), (1, 3)]));
        assert_eq!(handful.0.known[2].origin.as_deref(), Some("d/2"));
        assert_eq!(intake.counts.read().ignored, 1);
    }

    #[tokio::test]
    async fn retained_messages_are_left_out_unless_asked_for() {
        for takes_retained in [false, true] {
            let mut intake = Intake::new(source(takes_retained), Recall::default(), Arc::default());
            let mut publish = Publish::new("d/1", QoS::AtLeastOnce, "a");
            (publish.pkid, publish.retain) = (1, true);
            intake.push(1, publish, Arc::new(Semaphore::new(1)).try_acquire_owned().expect("room"));
            let handful = intake.take().expect("messages");
            assert_eq!((handful.0.messages.len(), handful.1.owed.len()), (usize::from(takes_retained), 1));
            let says_so = handful.0.known.iter().any(|known| known.metadata.contains(&("retained", "true".into())));
            assert_eq!(says_so, takes_retained);
        }
    }

    #[tokio::test]
    async fn what_comes_again_is_stored_once_also_by_the_next_process() {
        let mut first = intake(&[]);
        first.up(1, false, Instant::now());
        push(&mut first, 1, (1, false), ("d/1", "a"));
        push(&mut first, 1, (2, false), ("d/1", "b"));
        let handful = first.take().expect("messages");
        let mut second = intake(std::slice::from_ref(&handful.0.receipts));
        for intake in [&mut first, &mut second] {
            intake.up(2, true, Instant::now());
            push(intake, 2, (1, true), ("d/1", "a"));
            push(intake, 2, (2, true), ("d/1", "another"));
            push(intake, 2, (3, false), ("d/1", "b"));
            let handful = intake.take().expect("messages");
            assert_eq!(taken(&handful), (vec!["another", "b"], vec![(2, 1), (2, 2), (2, 3)]));
            assert_eq!(intake.counts.read().repeated, 1);
        }
    }

    #[tokio::test]
    async fn with_the_session_what_waits_comes_again_and_without_it_is_all_there_is() {
        for session_present in [true, false] {
            let mut intake = intake(&[]);
            intake.up(1, false, Instant::now());
            push(&mut intake, 1, (1, false), ("d/1", "a"));
            push(&mut intake, 1, (0, false), ("d/1", "b"));
            intake.up(2, session_present, Instant::now());
            push(&mut intake, 2, (1, session_present), ("d/1", if session_present { "a" } else { "c" }));
            let handful = intake.take().expect("messages");
            let expected = if session_present {
                (vec!["b", "a"], vec![(2, 1)])
            } else {
                (vec!["a", "b", "c"], vec![(1, 1), (2, 1)])
            };
            assert_eq!(taken(&handful), expected);
        }
    }

    #[tokio::test]
    async fn what_the_broker_has_is_forgotten() {
        let mut intake = intake(&[]);
        let start = Instant::now();
        intake.up(1, false, start);
        for (id, body) in [(1, "a"), (2, "b")] {
            push(&mut intake, 1, (id, false), ("d/1", body));
        }
        let (_, dues) = intake.take().expect("messages");
        dues.owed.iter().for_each(|owed| intake.acknowledged(owed));
        intake.settled(1, true, start);
        // The connection broke after the first acknowledgement.
        intake.up(2, true, start);
        push(&mut intake, 2, (1, true), ("d/1", "a"));
        push(&mut intake, 2, (2, true), ("d/1", "b"));
        let again = intake.take().expect("messages");
        assert_eq!(taken(&again).0, ["a"], "a new message that says the same as a settled one");
        // Acknowledged, and not known to have arrived: time alone does not settle it.
        again.1.owed.iter().for_each(|owed| intake.acknowledged(owed));
        intake.settled(0, true, start + SENT_AGAIN_WITHIN);
        push(&mut intake, 2, (2, true), ("d/1", "b"));
        assert!(taken(&intake.take().expect("a message")).0.is_empty());
        // What was not sent again has arrived.
        intake.up(3, true, start);
        for (is_idle, later, is_settled) in
            [(true, Duration::ZERO, false), (false, SENT_AGAIN_WITHIN, false), (true, SENT_AGAIN_WITHIN, true)]
        {
            intake.settled(0, is_idle, start + later);
            assert_eq!(intake.recall.settled() == intake.recall.next(), is_settled);
        }
    }
}
