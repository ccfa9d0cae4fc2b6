//! A dead letter through the door once more.
//!
//! What a source received goes the way that it came, with what the source knew of it beside its bytes. What a stream or a
//! sink could not use is a computed row and not a message, so it needs a body that is a whole event. The event's identity
//! is the letter's own unless the message has one, so a replay that is tried again stores one event.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use cornjacket_core::codec::Limits;
use cornjacket_core::dead_letter::{LetterState, StoredDeadLetter};
use cornjacket_core::door::{Bundle, ClientId, Known, Message, Refusal, Rejection, Rejects};
use cornjacket_core::id::EventId;
use cornjacket_runtime::door::rehearse;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::DeadLetterService;
use crate::http::{Answered, Problem};

impl DeadLetterService {
    pub(super) async fn replay(&self, stored: StoredDeadLetter, edited: Option<Vec<u8>>, dry_run: bool) -> Answered {
        let bundle = Arc::new(self.bundle(&stored, edited)?);
        if dry_run {
            let outcome = rehearse(&self.catalogue, Limits::default(), &bundle, self.clock.now());
            if let Some(Err(rejection)) = outcome.into_iter().next() {
                return Err(rejected(rejection));
            }
            return Ok(Json(json!({"id": stored.id, "state": "open", "would": "be accepted"})).into_response());
        }
        let taken = self.door.submit_bundle(bundle).await.map_err(refused)?;
        if let Some((_, rejection)) = taken.rejections.into_iter().next() {
            return Err(rejected(rejection));
        }
        self.settle(stored.id, LetterState::Replayed).await?;
        let answer = json!({"id": stored.id, "state": "replayed", "stored": taken.stored, "repeated": taken.repeated});
        Ok(Json(answer).into_response())
    }

    /// The message that the letter is about.
    fn bundle(&self, stored: &StoredDeadLetter, edited: Option<Vec<u8>>) -> Result<Bundle, Problem> {
        let letter = &stored.letter;
        let envelope = match (self.sources.get(&letter.source), &edited) {
            (Some(envelope), _) => envelope.clone(),
            // Not a message of a source, but what a whole event was put in the place of.
            (None, Some(_)) => None,
            (None, None) => return Err(needs_a_body(stored)),
        };
        let bytes = edited.unwrap_or_else(|| letter.body.clone());
        let known = Known {
            origin: letter.place.as_deref().map(Arc::from),
            variables: letter.variables.clone().into_iter().collect(),
            metadata: vec![("dead_letter", stored.id.to_string())],
            client_id: Some(self.identity(stored.id)),
        };
        Ok(Bundle {
            source: letter.source.as_str().into(),
            origin: "dead letters".into(),
            messages: vec![Message { bytes: 0..bytes.len(), number: stored.id.unsigned_abs(), fault: None }],
            bytes,
            known: vec![known],
            envelope,
            position: None,
            receipts: Vec::new(),
            rejects: Rejects::Answer,
            chain: None,
        })
    }

    fn identity(&self, id: i64) -> ClientId {
        let original = format!("dead letter {id}");
        let hash = Sha256::new().chain_update(&self.pipeline).chain_update([0]).chain_update(&original).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        ClientId { id: EventId::v8(bytes), original }
    }
}

fn needs_a_body(stored: &StoredDeadLetter) -> Problem {
    let letter = &stored.letter;
    if letter.reason == "webhook" {
        let (id, delivery) = (stored.id, letter.place.as_deref().unwrap_or_default());
        let message = format!(
            "dead letter {id} is a delivery of `{}` that was given up: `cornjacket deliveries redeliver {delivery}` sends it \
             again and settles the letter",
            letter.source
        );
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "is_a_delivery", message);
    }
    let event = letter.event_id.as_ref().map_or_else(String::new, |id| format!(", computed from event {id}"));
    let message = format!(
        "dead letter {} is a row of `{}`{event}, and no message of a source: send a whole event as the body, such as \
         {{\"event_type\":…,\"aggregate_id\":…,\"payload\":…}}",
        stored.id, letter.source
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "needs_a_body", message)
}

fn rejected(rejection: Rejection) -> Problem {
    let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, rejection.code, rejection.message);
    problem.details = rejection.details;
    problem
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Rejected(rejection) => rejected(rejection),
        Refusal::Busy => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "there is more to do than can be done now")
        }
        Refusal::Unavailable(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why),
        Refusal::Closing => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "closing", "the process is ending"),
    }
}
