//! The door: how sources hand in events. It decodes, checks, stores, and answers when what was handed in is durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;

use crate::id::EventId;

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

/// What the door answers.
pub type Answer = Pin<Box<dyn Future<Output = Result<EventId, Refusal>> + Send>>;

/// Takes events in. The answer comes when the event is durable, or is known not to be.
pub trait Door: Send + Sync {
    /// Hands in an event.
    fn submit(&self, submission: Submission<Vec<u8>>) -> Answer;
}
