//! Deliveries: what is to be sent outside, kept in the store until it has arrived.
//!
//! A sink that calls somebody gives [`Trigger`]s. The engine writes them as deliveries in the epoch's transaction, so a
//! trigger is there exactly if its epoch is, and the action service sends them in its own time. A delivery's id and body
//! are made once and never change, through every retry and restart.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::time::{Micros, SECOND};

/// A row that is to be told to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// What tells the row from every other of its sink, however often and in whatever epochs it is computed.
    pub identity: String,
    /// The request's body, byte for byte.
    pub body: Vec<u8>,
    /// The row's time.
    pub row_time: Micros,
    /// The event that the row is, if it is one.
    pub event_id: Option<String>,
    /// What keeps others like it away for a while.
    pub dedupe: Option<Dedupe>,
}

/// Of rows with the same key whose times lie closer together than the window, only the first is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// The key's values as text.
    pub key: String,
    /// The window, in µs of row time.
    pub window: Micros,
}

impl Dedupe {
    /// Whether a row of this time is kept away by one that was sent.
    #[must_use]
    pub fn covers(&self, sent: Micros, time: Micros) -> bool {
        time.abs_diff(sent) < self.window.unsigned_abs()
    }
}

/// A row that comes later than this behind the newest of its sink may find that what would have kept it away is forgotten.
pub const LATEST: Micros = 7 * 24 * 3_600 * SECOND;

/// A trigger on its way into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its id, from [`delivery_id`].
    pub id: String,
    /// The sink.
    pub sink: String,
    /// What is to be sent, and when it was meant.
    pub trigger: Trigger,
}

/// The id of a delivery: the same for the same row of the same sink, for ever.
#[must_use]
pub fn delivery_id(pipeline: &str, sink: &str, identity: &str) -> String {
    let mut hash = Sha256::new();
    for part in [pipeline, sink, identity] {
        // Lengths go in first, so that parts cannot run into each other.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    digest.iter().take(16).fold("msg_".to_string(), |id, byte| format!("{id}{byte:02x}"))
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryState {
    /// It is to be sent, or sent again.
    #[default]
    Pending,
    /// The receiver has said that it has it.
    Delivered,
    /// Given up; there is a dead letter for it.
    Dead,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// A stored delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number; later ones have greater numbers.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// The sink.
    pub sink: String,
    /// When it was written.
    pub created_at: Micros,
    /// The row's time.
    pub row_time: Micros,
    /// The event that the row is, if it is one.
    pub event_id: Option<String>,
    /// The request's body.
    pub body: Vec<u8>,
    /// How it stands.
    pub state: DeliveryState,
    /// From when its age counts: when it was written, or when somebody asked to send it again.
    pub since: Micros,
    /// How often it was tried since then.
    pub attempts: u32,
    /// When it is to be tried next, if it is.
    pub next_at: Micros,
    /// When the last try began.
    pub last_at: Option<Micros>,
    /// The HTTP status of the last try, if there was an answer.
    pub last_status: Option<u16>,
    /// What went wrong with the last try.
    pub last_error: Option<String>,
    /// When it was delivered or given up.
    pub settled_at: Option<Micros>,
}

/// What came of trying to send a delivery once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The delivery's number.
    pub number: i64,
    /// When it began.
    pub at: Micros,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// What follows from it.
    pub verdict: Verdict,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has arrived.
    Delivered,
    /// It is tried again at this time.
    Again(Micros),
    /// It is given up.
    GivenUp,
}

/// Which deliveries are wanted; what is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Of this sink.
    pub sink: Option<String>,
    /// In this state.
    pub state: Option<DeliveryState>,
    /// Of this event.
    pub event_id: Option<String>,
    /// With a number below this one: the next page of a list that is newest first.
    pub before: Option<i64>,
}

/// In which order pending deliveries are taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The one that is due first comes first.
    Due,
    /// The one that was written first comes first, and the others wait for it.
    Written,
}

/// The deliveries of a pipeline.
pub trait Deliveries: Send + Sync {
    /// Pending deliveries of a sink, due or not, in this order.
    ///
    /// # Errors
    /// When they cannot be read; so for every read below.
    fn pending(&self, sink: &str, turn: Turn, limit: u64) -> Result<Vec<Delivery>>;

    /// Records what came of attempts, in one transaction, each only if its delivery is still pending, and a failure only
    /// if nobody has asked to send it again since it began. For one that is given up a dead letter (reason `webhook`) is
    /// written with it.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it is then. The same call may be made again.
    fn record_attempts(&self, now: Micros, attempts: &[Attempt]) -> Result<()>;

    /// When the last attempts of a sink began that are younger than this time, the youngest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn attempts_since(&self, sink: &str, since: Micros, limit: u64) -> Result<Vec<Micros>>;

    /// Those that fit, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn deliveries(&self, filter: &DeliveryFilter, limit: u64) -> Result<Vec<Delivery>>;

    /// One by its id.
    ///
    /// # Errors
    /// When it cannot be read.
    fn delivery(&self, id: &str) -> Result<Option<Delivery>>;

    /// Makes one due at once, whatever became of it so far; its age counts from now, and an open dead letter of it is
    /// replayed by that. `false` if there is none of that id.
    ///
    /// # Errors
    /// When it cannot be written.
    fn redeliver(&self, id: &str, now: Micros) -> Result<bool>;

    /// Forgets those that were delivered or given up before a time; says how many they were. `max` at a time, so that
    /// nobody waits long.
    ///
    /// # Errors
    /// When they cannot be deleted.
    fn forget_deliveries(&self, before: Micros, max: u64) -> Result<u64>;
}

/// A key that deliveries are signed with. It shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// So many in so long at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many.
    pub count: u32,
    /// In how long, in µs.
    pub period: Micros,
}

/// How failed attempts are repeated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The wait after the first failure, in µs.
    pub first: Micros,
    /// By how much each wait is longer than the one before.
    pub factor: f64,
    /// The age at which a delivery is given up, in µs.
    pub max_age: Micros,
}

/// Where and how a sink's deliveries are sent.
#[derive(Clone)]
pub struct Action {
    /// The event type or stream that triggers it.
    pub from: String,
    /// Where to; `None` if the sink is off.
    pub url: Option<String>,
    /// The part of the URL that may be shown: scheme, host and port.
    pub endpoint: String,
    /// What it is signed with, the newest first; none: unsigned.
    pub keys: Vec<SigningKey>,
    /// Headers beside those that every delivery has.
    pub headers: Vec<(String, String)>,
    /// How long one attempt may take, in µs.
    pub timeout: Micros,
    /// How failures are repeated.
    pub retry: RetryPolicy,
    /// How many are sent in a time at most.
    pub rate_limit: Option<RateLimit>,
    /// How many are under way at one time at most.
    pub concurrency: u32,
    /// Whether each waits for the one before it.
    pub ordered: bool,
}

/// URLs and headers often hold secrets, so neither is shown.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Action").field("from", &self.from).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_for_the_same_row_and_differ_otherwise() {
        let id = delivery_id("iot", "page", "row");
        assert_eq!(id, delivery_id("iot", "page", "row"));
        assert!(id.starts_with("msg_") && id.len() == 36, "{id}");
        for (pipeline, sink, identity) in [("io", "tpage", "row"), ("iot", "pag", "erow"), ("iot", "page", "row2")] {
            assert_ne!(delivery_id(pipeline, sink, identity), id);
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let action = Action {
            from: "hot".into(),
            url: Some("https://hooks.example.com/s3cret".into()),
            endpoint: "https://hooks.example.com".into(),
            keys: vec![SigningKey::new(b"s3cret".to_vec())],
            headers: vec![("authorization".into(), "s3cret".into())],
            timeout: 1,
            retry: RetryPolicy { first: 1, factor: 2.0, max_age: 1 },
            rate_limit: None,
            concurrency: 1,
            ordered: false,
        };
        let shown = format!("{action:?} {:?}", action.keys);
        assert!(!shown.contains("s3cret") && shown.contains("hooks.example.com"), "{shown}");
    }

    #[test]
    fn a_dedupe_window_is_open_at_its_end() {
        let dedupe = Dedupe { key: String::new(), window: 10 };
        let kept_away = [81, 100, 109, 110, 90].map(|time| dedupe.covers(100, time));
        assert_eq!(kept_away, [false, true, true, false, false]);
    }
}
