//! Bytes to Arrow columns: the one decoding that an event goes through.
//!
//! A [`Decoder`] reads the JSON of envelopes, checks them against the catalogue and collects them in columns, one set
//! per event type. No row objects are made and nothing is allocated per event, beside what is wrong with it.
//! Invariants:
//!
//! - A rejected event leaves no trace in the columns, however far it was read.
//! - All faults of an event are reported together, each with its place; only text that is not JSON stops at the first.
//! - The columns hold exactly the values of the payload, and the payload itself is kept as it was sent.
//! - No input makes it panic, overflow the stack or take time beyond a small multiple of the input's length.

mod base64;
mod cloud_event;
mod column;
mod envelope;
mod fault;
mod instant;
mod metadata;
mod payload;
mod record;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod usual;
mod value;

use std::sync::Arc;

use crate::catalogue::{Catalogue, EventType};
use crate::door::{ClientId, EnvelopeTemplate, Form, Rejection, RejectionKind};
use crate::error::Result;
use crate::id::EventId;
use crate::log::Events;
use crate::time::{Micros, format_rfc3339};

use cloud_event::CloudEvent;
use envelope::Envelope;
use fault::{Faults, Rule, did_you_mean, quoted};
use table::{Row, Table};

pub use payload::Variables;

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Its greatest length.
    pub max_body_bytes: usize,
    /// How deep objects and lists may be nested in each other, at most 100.
    pub max_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body_bytes: 1 << 20, max_depth: 64 }
    }
}

/// The JSON reader's own limit is 128 levels.
const MAX_DEPTH: usize = 100;

/// Arrow's text columns count bytes in 32 bits. This leaves room for the metadata, which can be longer than what was
/// sent.
const MAX_COLLECTED_BYTES: usize = 256 << 20;

/// What an event has beside its body.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The time now.
    pub ingested_at: Micros,
    /// Randomness for the id, if the client gave none; never the same twice.
    pub random: [u8; 10],
    /// An identity that came beside the body; one inside it goes first.
    pub client_id: Option<&'a ClientId>,
    /// The source's name; empty if there is none.
    pub source: &'a str,
    /// What the metadata says beside that, where the client's own has no such name.
    pub metadata: &'a [(&'static str, String)],
}

/// An event that was taken into the columns.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: &'a Arc<EventType>,
}

/// Collects events in columns, until they are taken out with [`Decoder::finish`].
pub struct Decoder {
    limits: Limits,
    /// By name, rising.
    tables: Vec<Table>,
    faults: Faults,
    /// The sequence of the first row.
    first: usize,
    rows: usize,
    bytes: usize,
}

impl Decoder {
    /// A decoder for the event types of a catalogue.
    #[must_use]
    pub fn new(catalogue: &Catalogue, limits: Limits) -> Self {
        let limits = Limits { max_depth: limits.max_depth.min(MAX_DEPTH), ..limits };
        let tables = catalogue.types.values().map(Table::new).collect();
        Self { limits, tables, faults: Faults::default(), first: 0, rows: 0, bytes: 0 }
    }

    /// Says where in a commit the events that come next stand: the number of the first one. It holds until they are taken
    /// out.
    pub fn begin_at(&mut self, first: usize) {
        self.first = first;
    }

    /// How many events are in the columns.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The sum of their bodies' lengths.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in one event: the JSON of an envelope or of a `CloudEvent`.
    ///
    /// # Errors
    /// When it is not JSON, neither of the two, or does not fit the catalogue. Nothing of it is in the columns then.
    pub fn decode(&mut self, body: &[u8], context: &Context<'_>) -> Result<Accepted<'_>, Rejection> {
        self.check_room(body)?;
        if let Some((index, id)) = self.decode_usual(body, context) {
            return Ok(Accepted { id, event_type: self.tables[index].event_type() });
        }
        self.decode_any(body, context)
    }

    /// Takes in an event in the usual form: its table and its id. `None` where it is not in that form, or something is
    /// wrong with it, and then there is nothing of it in the columns.
    fn decode_usual(&mut self, body: &[u8], context: &Context<'_>) -> Option<(usize, EventId)> {
        if body.len() > self.limits.max_body_bytes {
            return None;
        }
        let text = std::str::from_utf8(body).ok()?;
        self.faults.clear();
        let mut begun = None;
        let read = usual::read(text, self.limits.max_depth, (&mut self.tables, &mut begun), &mut self.faults);
        let table = self.tables.get_mut(begun?)?;
        let latest = context.ingested_at.saturating_add(table.event_type().watermark.max_ahead);
        let read = read.filter(|envelope| envelope.event_time.is_none_or(|time| time <= latest));
        let Some(id) = read.and_then(|envelope| push(table, &envelope, context, self.first + self.rows)) else {
            table.roll_back();
            return None;
        };
        self.rows += 1;
        self.bytes += body.len();
        begun.zip(Some(id))
    }

    /// Takes in an event in any form.
    fn decode_any(&mut self, body: &[u8], context: &Context<'_>) -> Result<Accepted<'_>, Rejection> {
        let text = text::check(body, &self.limits)?;
        self.faults.clear();
        let envelope = envelope::read(text, &mut self.faults)?;
        if envelope.is_cloud_event {
            self.faults.clear();
            let event = cloud_event::read(text, &self.limits, &mut self.faults)?;
            return self.take_cloud_event(&event, body.len(), context);
        }
        self.take(&envelope, body.len(), (Payload::Unusual, context))
    }

    /// Takes in one event of a form.
    ///
    /// # Errors
    /// As [`Decoder::decode`], and when it is of another form.
    pub fn decode_as(&mut self, form: &Form, body: &[u8], context: &Context<'_>) -> Result<Accepted<'_>, Rejection> {
        self.check_room(body)?;
        self.faults.clear();
        match form {
            Form::Any => self.decode(body, context),
            Form::CloudEvent => {
                let text = text::check(body, &self.limits)?;
                let event = cloud_event::read(text, &self.limits, &mut self.faults)?;
                self.take_cloud_event(&event, body.len(), context)
            }
            Form::CloudEventData(attributes) => {
                let event = cloud_event::from_parts(attributes, body, &self.limits, &mut self.faults)?;
                let beside = attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                self.take_cloud_event(&event, body.len() + beside, context)
            }
        }
    }

    fn take_cloud_event(
        &mut self,
        event: &CloudEvent<'_>,
        bytes: usize,
        context: &Context<'_>,
    ) -> Result<Accepted<'_>, Rejection> {
        let envelope = event.envelope(&mut self.faults);
        self.take(&envelope, bytes, (Payload::New, context)).map_err(|rejection| event.in_its_words(rejection))
    }

    /// Takes in one event that came as its payload only; its envelope is made by a template.
    ///
    /// # Errors
    /// As [`Decoder::decode`], and when the template cannot be filled.
    pub fn decode_payload(
        &mut self,
        payload: &[u8],
        template: &EnvelopeTemplate,
        variables: Variables<'_>,
        context: &Context<'_>,
    ) -> Result<Accepted<'_>, Rejection> {
        self.check_room(payload)?;
        let text = text::check(payload, &self.limits)?;
        self.faults.clear();
        let (envelope, client_id) = payload::envelope(text, template, (context.source, variables), &mut self.faults)?;
        let context = Context { client_id: client_id.as_ref().or(context.client_id), ..*context };
        self.take(&envelope, payload.len(), (Payload::New, &context))
    }

    fn check_room(&self, body: &[u8]) -> Result<(), Rejection> {
        if self.bytes.saturating_add(body.len()) <= MAX_COLLECTED_BYTES {
            return Ok(());
        }
        let message = "too many events were collected before this one".to_owned();
        Err(text::reject(RejectionKind::TooLarge, "too_large", message))
    }

    fn take(
        &mut self,
        envelope: &Envelope<'_>,
        bytes: usize,
        (payload, context): (Payload, &Context<'_>),
    ) -> Result<Accepted<'_>, Rejection> {
        let index = self.table_of(envelope);
        let id = self.check(index, envelope, (payload, context));
        let (Some(id), Some(table)) = (id, index.and_then(|index| self.tables.get_mut(index))) else {
            return Err(self.faults.reject());
        };
        self.rows += 1;
        self.bytes += bytes;
        Ok(Accepted { id, event_type: table.event_type() })
    }

    /// The table of the envelope's event type.
    fn table_of(&mut self, envelope: &Envelope<'_>) -> Option<usize> {
        let name = envelope.event_type.as_deref()?;
        let found = self.tables.binary_search_by(|table| table.event_type().name.as_str().cmp(name));
        if found.is_err() {
            let names = self.tables.iter().map(|table| table.event_type().name.as_str());
            let message = format!("{} is not in the catalogue{}", quoted(name), did_you_mean(name, names));
            self.faults.add(Rule::EVENT_TYPE, "event_type", message);
        }
        found.ok()
    }

    /// Checks what the envelope says and reads its payload; the id if the event is now in the columns.
    fn check(
        &mut self,
        index: Option<usize>,
        envelope: &Envelope<'_>,
        (state, context): (Payload, &Context<'_>),
    ) -> Option<EventId> {
        let Self { tables, faults, first, rows, .. } = self;
        if envelope.trace_id.is_some() && envelope.metadata.as_ref().is_some_and(|sent| sent.has_trace_id) {
            faults.add(Rule::ENVELOPE, "metadata.trace_id", "is there beside the envelope's own `trace_id`");
        }
        let table = tables.get_mut(index?)?;
        if let Some(time) = envelope.event_time {
            check_ahead(time, table.event_type(), context, faults);
        }
        if let Some(payload) = envelope.payload {
            match state {
                Payload::New => table.read_payload(payload, faults),
                Payload::Unusual => table.read_carefully(payload, faults),
            }
        }
        let id = faults.is_empty().then(|| push(table, envelope, context, *first + *rows)).flatten();
        if id.is_none() {
            table.roll_back();
        }
        id
    }

    /// Takes the events out, one batch per type that has any, and starts anew.
    ///
    /// # Errors
    /// When Arrow finds the columns inconsistent, which would be a bug.
    pub fn finish(&mut self) -> Result<Vec<Events>> {
        (self.first, self.rows, self.bytes) = (0, 0, 0);
        self.tables.iter_mut().filter_map(|table| table.finish().transpose()).collect()
    }
}

/// What is known of a payload.
#[derive(Clone, Copy)]
enum Payload {
    /// Nothing yet.
    New,
    /// It is no use to try and read it in one pass.
    Unusual,
}

/// Completes an event whose payload is in the columns: its id, or `None` if the envelope is not complete.
fn push(table: &mut Table, envelope: &Envelope<'_>, context: &Context<'_>, sequence: usize) -> Option<EventId> {
    let client_given = envelope.event_id.or(context.client_id.map(|client| client.id));
    let row = Row {
        id: client_given.unwrap_or_else(|| EventId::v7(context.ingested_at, &context.random)),
        is_client_given: client_given.is_some(),
        aggregate_id: envelope.aggregate_id.as_deref()?,
        event_time: envelope.event_time.unwrap_or(context.ingested_at),
        payload: envelope.payload?,
        sequence: i64::try_from(sequence).unwrap_or(i64::MAX),
    };
    table.push(&row, envelope, context);
    Some(row.id)
}

fn check_ahead(time: Micros, event_type: &EventType, context: &Context<'_>, faults: &mut Faults) {
    let allowed = event_type.watermark.max_ahead;
    if time <= context.ingested_at.saturating_add(allowed) {
        return;
    }
    let message = format!(
        "is {}, more than {} ahead of the time now, {}: check the producer's clock",
        format_rfc3339(time),
        crate::setting::Span(allowed),
        format_rfc3339(context.ingested_at),
    );
    faults.add(Rule::TOO_FAR_AHEAD, "event_time", message);
}
