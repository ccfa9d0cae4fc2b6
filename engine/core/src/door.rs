//! The door: how sources hand in events. It decodes, checks, stores, and answers when what was handed in is durable.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::catalogue::EventType;
use crate::id::EventId;
use crate::template::Template;

/// One thing that is wrong with an event, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// The place in the event, such as `payload.value`.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

/// Whose rule an event broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionKind {
    /// It is not JSON, or not an envelope.
    Malformed,
    /// It does not fit the catalogue.
    Invalid,
    /// It is larger than allowed.
    TooLarge,
}

/// Why an event was not taken. Nothing of it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Whose rule it broke.
    pub kind: RejectionKind,
    /// A stable code such as `invalid_json`.
    pub code: &'static str,
    /// One sentence for people.
    pub message: String,
    /// Every single fault, where there can be several.
    pub details: Vec<Detail>,
}

impl Rejection {
    /// The message, with every single fault where there are several.
    #[must_use]
    pub fn in_full(&self) -> String {
        let fault = |Detail { path, message }: &Detail| {
            if path.is_empty() { message.clone() } else { format!("`{path}` {message}") }
        };
        match self.details.as_slice() {
            [] | [_] => self.message.clone(),
            several => format!("{}: {}", self.message, several.iter().map(fault).collect::<Vec<_>>().join("; ")),
        }
    }
}

/// Why the door did not take an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The event itself is wrong.
    Rejected(Rejection),
    /// There is more to do than can be done now; try again after some seconds.
    Busy,
    /// The log cannot be written now (a full disk, a database that is down); the text says why.
    Unavailable(String),
    /// The process is shutting down.
    Closing,
}

/// An identity that is no UUID, made an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientId {
    /// The id: a hash of the identity and of whatever scope it is unique in.
    pub id: EventId,
    /// The identity as the client sent it, for the metadata.
    pub original: String,
}

/// How the bytes of an event are to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// JSON: an envelope, or a `CloudEvent`, which is told by its `specversion`.
    #[default]
    Any,
    /// A `CloudEvent` in JSON and nothing else (structured mode).
    CloudEvent,
    /// The data of a `CloudEvent` (binary mode), with its attributes by name; names are in lower case.
    CloudEventData(Vec<(String, String)>),
}

/// Something handed in: the bytes of one event.
#[derive(Clone, Debug)]
pub struct Submission<B> {
    /// The JSON.
    pub body: B,
    /// What kind of JSON it is.
    pub form: Form,
    /// An identity that the client gave beside the envelope (`Idempotency-Key`). It holds where the envelope has no
    /// `event_id`.
    pub client_id: Option<ClientId>,
    /// The source's name, for the metadata.
    pub source: Arc<str>,
}

/// How a message that is only a payload becomes an event.
#[derive(Clone, Debug)]
pub struct EnvelopeTemplate {
    /// Its type.
    pub event_type: Arc<EventType>,
    /// What it belongs to.
    pub aggregate_id: Template,
    /// When it happened; the ingest time if there is none.
    pub event_time: Option<Template>,
    /// Its identity: a UUID, or anything that is unique within the source.
    pub event_id: Option<Template>,
}

/// A message of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its bytes within the bundle's.
    pub bytes: Range<usize>,
    /// Its number within the bundle's origin, from 1: a line, a row.
    pub number: u64,
    /// Why the source could make nothing of it; its bytes are as they came then.
    pub fault: Option<String>,
}

/// What a source knows of a message beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Where it came from, if that says more than the bundle's origin and the message's number: a topic.
    pub origin: Option<Arc<str>>,
    /// What fills the placeholders of the envelope's template, by name: `topic.1`.
    pub variables: Vec<(String, String)>,
    /// What the event's metadata says beside the source, by name.
    pub metadata: Vec<(&'static str, String)>,
    /// An identity that was given beside the message. It holds where the message itself has none.
    pub client_id: Option<ClientId>,
}

/// What becomes of messages that are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rejects {
    /// Dead letters: nobody can be told.
    #[default]
    DeadLetters,
    /// They are in the answer, for whoever sent them.
    Answer,
}

/// Messages that a source hands in together. They become durable in one commit, with the position behind them.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The source's name.
    pub source: Arc<str>,
    /// Where the messages come from within the source, such as a file's name.
    pub origin: Arc<str>,
    /// The bytes of all messages.
    pub bytes: Vec<u8>,
    /// The messages in their order.
    pub messages: Vec<Message>,
    /// What is known of each message, in the same order; empty if nothing is.
    pub known: Vec<Known>,
    /// How a message becomes an event; `None` if each is a whole envelope.
    pub envelope: Option<Arc<EnvelopeTemplate>>,
    /// Where the source goes on after these, if it is one that is read from a position.
    pub position: Option<String>,
    /// What the source wants to know of them if one is sent again, in its own form; empty for nothing.
    pub receipts: Vec<u8>,
    /// What becomes of messages that are wrong.
    pub rejects: Rejects,
    /// What this bundle belongs to, if its sender hands in the next one before this one is answered.
    pub chain: Option<Chain>,
}

/// Bundles of one sender, in their order: once one of them was not stored, none after it is. So a sender that hands in
/// several before the first is answered has its order kept also when storage fails in between.
#[derive(Clone, Debug, Default)]
pub struct Chain(Arc<AtomicBool>);

impl Chain {
    /// Lets nothing more of it be stored.
    pub fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether something of it was not stored.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What became of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many were stored.
    pub stored: u64,
    /// How many were there already.
    pub repeated: u64,
    /// How many were wrong.
    pub rejected: u64,
    /// Which those were, by their place in the bundle, and why; empty if they are dead letters.
    pub rejections: Vec<(usize, Rejection)>,
}

/// What the door answers to a bundle.
pub type BundleAnswer = Pin<Box<dyn Future<Output = Result<Taken, Refusal>> + Send>>;

/// What the door answers.
pub type Answer = Pin<Box<dyn Future<Output = Result<EventId, Refusal>> + Send>>;

/// Takes events in. The answer comes when the event is durable, or is known not to be.
pub trait Door: Send + Sync {
    /// Hands in an event.
    fn submit(&self, submission: Submission<Vec<u8>>) -> Answer;

    /// Hands in a bundle. It is taken whole or not at all; after a refusal it may be handed in again.
    fn submit_bundle(&self, bundle: Arc<Bundle>) -> BundleAnswer;
}
