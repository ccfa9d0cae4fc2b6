//! The door: how sources hand in events. It decodes, checks, stores, and answers when what was handed in is durable.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

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

/// Something handed in: the bytes of one envelope.
#[derive(Clone, Debug)]
pub struct Submission<B> {
    /// The JSON of the envelope.
    pub body: B,
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

/// Messages that a source hands in together. They become durable in one commit, with the position behind them. What is
/// rejected becomes a dead letter.
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
    /// How a message becomes an event; `None` if each is a whole envelope.
    pub envelope: Option<Arc<EnvelopeTemplate>>,
    /// Where the source goes on after these.
    pub position: String,
}

/// What became of a bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many were stored.
    pub stored: u64,
    /// How many were there already.
    pub repeated: u64,
    /// How many were wrong, and are dead letters now.
    pub rejected: u64,
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
