//! Messages that are only a payload: the envelope comes from the source's template.

use std::borrow::Cow;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::door::{ClientId, EnvelopeTemplate, Rejection};
use crate::id::EventId;
use crate::time::{format_rfc3339, is_valid_event_time};

use super::envelope::{self, Envelope};
use super::fault::{Faults, Rule, quoted};
use super::instant;

/// What the source knows of a message beside its bytes.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The envelope of a payload, and the identity that its template gave it. What cannot be filled is a fault.
pub(super) fn envelope<'t>(
    text: &'t str,
    template: &'t EnvelopeTemplate,
    (source, variables): (&str, Variables<'_>),
    faults: &mut Faults,
) -> Result<(Envelope<'t>, Option<ClientId>), Rejection> {
    let payload: &RawValue = serde_json::from_str(text).map_err(|error| envelope::not_json(text, &error))?;
    let mut fill = |rule, name, template: &'t crate::template::Template| match template.fill(payload.get(), variables) {
        Ok(text) => Some(text),
        Err(reason) => {
            faults.add(rule, name, format!("cannot be made: {reason}"));
            None
        }
    };
    let aggregate_id = fill(Rule::AGGREGATE_ID, "aggregate_id", &template.aggregate_id);
    let time = template.event_time.as_ref().and_then(|time| fill(Rule::EVENT_TIME, "event_time", time));
    let id = template.event_id.as_ref().and_then(|id| fill(Rule::EVENT_ID, "event_id", id));
    let aggregate_id = aggregate_id.filter(|id| envelope::is_aggregate_id(id, faults));
    let event_time = time.and_then(|time| {
        let found = instant::from_text(&time).filter(|time| is_valid_event_time(*time));
        if found.is_none() {
            let message = match instant::from_text(&time) {
                Some(time) => format!("must be in the years 1970 to 2261, but is {}", format_rfc3339(time)),
                None => format!("must be {}, but is {}", instant::EXPECTED, quoted(&time)),
            };
            faults.add(Rule::EVENT_TIME, "event_time", message);
        }
        found
    });
    let (event_id, client_id) = match id {
        Some(id) => identity(source, id),
        None => (None, None),
    };
    let event_type = Some(Cow::Borrowed(template.event_type.name.as_str()));
    let envelope = Envelope {
        event_type,
        aggregate_id,
        payload: Some(payload.get()),
        event_time,
        event_id,
        metadata: None,
        trace_id: None,
        is_cloud_event: false,
    };
    Ok((envelope, client_id))
}

/// A UUID is kept; anything else is unique within its source and becomes an id by hash.
fn identity(source: &str, id: Cow<'_, str>) -> (Option<EventId>, Option<ClientId>) {
    if let Some(id) = EventId::parse(&id) {
        return (Some(id), None);
    }
    let hash = Sha256::new().chain_update(source.len().to_be_bytes()).chain_update(source).chain_update(id.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    (None, Some(ClientId { id: EventId::v8(bytes), original: id.into_owned() }))
}
