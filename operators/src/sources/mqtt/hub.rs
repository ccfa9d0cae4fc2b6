//! What connections share: sessions, subscriptions and retained messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mqtt_proto::QoS;
use mqtt_proto::v5::{RetainHandling, SubscriptionOptions, VarByteInt};
use parking_lot::Mutex;

use super::counts::BrokerCounts;
use super::filter::Filter;
use super::message::Message;
use super::session::{MAX_QUEUED, Queued, Session};
use super::topics::Tree;

/// Sessions at most, of clients that are there and of those that may come back.
const MAX_SESSIONS: usize = 100_000;
/// Subscriptions of one client at most.
const MAX_FILTERS: usize = 1_000;
/// Retained messages, and their bytes, at most.
const MAX_RETAINED: usize = 100_000;
const MAX_RETAINED_BYTES: usize = 64 << 20;

/// What connections share.
pub(super) struct Hub {
    sessions: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    routes: Mutex<Routes>,
    waiting: Arc<AtomicUsize>,
    counts: Arc<BrokerCounts>,
}

#[derive(Default)]
struct Routes {
    subscriptions: Tree<Subscription>,
    retained: HashMap<Arc<str>, Arc<Message>>,
    retained_bytes: usize,
}

struct Subscription {
    session: Arc<Session>,
    options: SubscriptionOptions,
    id: Option<VarByteInt>,
}

/// What a client gets of a message that several of its filters match: it once.
struct Wanted<'a> {
    session: &'a Arc<Session>,
    qos: QoS,
    retain: bool,
    ids: Vec<VarByteInt>,
}

impl Hub {
    pub fn new(counts: &Arc<BrokerCounts>) -> Self {
        Self {
            sessions: Mutex::default(),
            routes: Mutex::default(),
            waiting: Arc::default(),
            counts: Arc::clone(counts),
        }
    }

    /// The session of a client, made if there is none; nothing if there are too many of others.
    pub fn session(&self, client: &Arc<str>) -> Option<Arc<Session>> {
        let mut sessions = self.sessions.lock();
        if sessions.len() >= MAX_SESSIONS && !sessions.contains_key(client) {
            return None;
        }
        let made = || Arc::new(Session::new(client, &self.waiting));
        Some(Arc::clone(sessions.entry(Arc::clone(client)).or_insert_with(made)))
    }

    /// Takes out what a session that has ended had subscribed to.
    pub fn forget(&self, client: &str, filters: &[Filter]) {
        let mut routes = self.routes.lock();
        for filter in filters {
            routes.subscriptions.remove(filter, client);
        }
    }

    /// Forgets sessions whose time is over.
    pub fn sweep(&self) {
        let mut over = Vec::new();
        // Whoever else holds a session got it under this lock.
        self.sessions.lock().retain(|client, session| {
            // This map and each subscription hold it.
            if Arc::strong_count(session) > 1 + session.filters() {
                return true;
            }
            let Some(filters) = session.expire() else { return true };
            over.push((Arc::clone(client), filters));
            false
        });
        for (client, filters) in over {
            self.forget(&client, &filters);
        }
    }

    /// Subscribes; gives the retained messages that are to be sent, or nothing if there are too many subscriptions.
    pub fn subscribe(
        &self,
        session: &Arc<Session>,
        text: &str,
        filter: &Filter,
        (options, id): (SubscriptionOptions, Option<VarByteInt>),
    ) -> Option<Vec<Queued>> {
        if !session.subscribe(text, filter, MAX_FILTERS) {
            return None;
        }
        let mut routes = self.routes.lock();
        let subscription = Subscription { session: Arc::clone(session), options, id };
        let is_new = routes.subscriptions.insert(filter, &session.client, subscription).is_none();
        let wants = match options.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendAtSubscribeIfNotExist => is_new,
            RetainHandling::DoNotSend => false,
        };
        let retained = if wants { routes.matching(text, filter) } else { Vec::new() };
        let queued = retained.into_iter().map(|message| Queued {
            qos: message.qos.min(options.max_qos),
            message,
            retain: true,
            ids: id.into_iter().collect(),
        });
        Some(queued.collect())
    }

    /// Unsubscribes; says whether there was such a subscription.
    pub fn unsubscribe(&self, session: &Session, text: &str) -> bool {
        let Some(filter) = session.unsubscribe(text) else { return false };
        self.routes.lock().subscriptions.remove(&filter, &session.client).is_some()
    }

    /// Gives a message to everyone who subscribed to its topic, and keeps it if it is to be retained.
    pub fn route(&self, message: Message) {
        let mut routes = self.routes.lock();
        let message = Arc::new(message);
        if message.retain {
            routes.retain(&message, &self.counts);
        }
        if routes.subscriptions.is_empty() {
            return;
        }
        let mut wanted: Vec<Wanted<'_>> = Vec::new();
        routes.subscriptions.each(&message.topic, &mut |client, subscription| {
            let Subscription { session, options, id } = subscription;
            if options.no_local && **client == *message.from {
                return;
            }
            let retain = options.retain_as_published && message.retain;
            let qos = message.qos.min(options.max_qos);
            match wanted.iter_mut().find(|other| Arc::ptr_eq(other.session, session)) {
                Some(other) => {
                    (other.qos, other.retain) = (other.qos.max(qos), other.retain || retain);
                    other.ids.extend(*id);
                }
                None => wanted.push(Wanted { session, qos, retain, ids: id.iter().copied().collect() }),
            }
        });
        for Wanted { session, qos, retain, ids } in wanted {
            if !session.offer(Queued { message: Arc::clone(&message), qos, retain, ids }) {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Routes {
    /// The retained messages of a filter, as many as a client may have waiting.
    fn matching(&self, text: &str, filter: &Filter) -> Vec<Arc<Message>> {
        if filter.wildcards() == 0 {
            return self.retained.get(text).filter(|message| !message.is_over()).cloned().into_iter().collect();
        }
        let matching = self.retained.iter().filter(|(topic, message)| {
            // What is over is asked last, since it asks the clock.
            filter.captures(topic).is_some() && !message.is_over()
        });
        matching.map(|(_, message)| Arc::clone(message)).take(MAX_QUEUED).collect()
    }

    /// The newest message of a topic is kept; an empty one takes it away.
    fn retain(&mut self, message: &Arc<Message>, counts: &BrokerCounts) {
        let topic: &str = &message.topic;
        if let Some(before) = self.retained.remove(topic) {
            self.retained_bytes -= before.bytes();
        }
        if message.payload.is_empty() {
            return;
        }
        if self.retained.len() >= MAX_RETAINED || self.retained_bytes + message.bytes() > MAX_RETAINED_BYTES {
            counts.unretained.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.retained_bytes += message.bytes();
        self.retained.insert(topic.into(), Arc::clone(message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_a_bound_within_which_those_that_there_are_go_on() {
        let hub = Hub::new(&Arc::default());
        let name = |number: usize| -> Arc<str> { format!("client {number}").into() };
        for number in 0..MAX_SESSIONS {
            let session = hub.session(&name(number)).expect("room");
            session.begin(false, 3_600);
            session.end(None);
        }
        assert!(hub.session(&name(MAX_SESSIONS)).is_none(), "one too many");
        assert!(hub.session(&name(7)).is_some(), "one that comes back");
        // A session that ends makes room.
        hub.session(&name(7)).expect("it is there").end(Some(0));
        hub.sweep();
        assert!(hub.session(&name(MAX_SESSIONS)).is_some());
    }
}
