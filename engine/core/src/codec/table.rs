//! The rows of one event type under construction, in its stored schema.

use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray, Int64Array, RecordBatch};
use arrow::buffer::{Buffer, NullBuffer};
use serde::de::DeserializeSeed;

use crate::catalogue::{EventType, Field, FieldType, UnknownFields};
use crate::error::Result;
use crate::id::EventId;
use crate::log::Events;
use crate::time::Micros;

use super::column::{Column, Texts, finish_times};
use super::fault::{Faults, Found, Path, Rule, clip};
use super::record::Place;
use super::text::number_beyond_range;
use super::usual::Scanner;
use super::value::Value;
use super::{Context, MAX_DEPTH, envelope::Envelope, metadata};

/// Rows of one event type. The payload's columns may run ahead of the others while an event is checked; they are cut
/// back to the number of rows if it fails.
pub(super) struct Table {
    event_type: Arc<EventType>,
    /// The payload as a whole: a struct that must be there.
    root: Field,
    fields: Column,
    event_ids: Vec<u8>,
    aggregate_ids: Texts,
    event_times: Vec<Micros>,
    ingested_at: Vec<Micros>,
    metadata: Texts,
    has_metadata: BooleanBufferBuilder,
    /// The metadata of events that have none of their own, and their source.
    usual_metadata: (String, Vec<u8>),
    payloads: Texts,
    sequence: Vec<i64>,
    client_given: BooleanBufferBuilder,
    any_client_given: bool,
}

/// What the envelope columns of a row are made of.
pub(super) struct Row<'a> {
    pub id: EventId,
    pub is_client_given: bool,
    pub aggregate_id: &'a str,
    pub event_time: Micros,
    pub payload: &'a str,
    pub sequence: i64,
}

const PAYLOAD: Path<'static> = Path::Root("payload");

impl Table {
    pub fn new(event_type: &Arc<EventType>) -> Self {
        let root = Field::new("payload", FieldType::Struct(event_type.fields.clone()));
        Self {
            event_type: Arc::clone(event_type),
            fields: Column::new(&root.data_type),
            root,
            event_ids: Vec::new(),
            aggregate_ids: Texts::new(),
            event_times: Vec::new(),
            ingested_at: Vec::new(),
            metadata: Texts::new(),
            has_metadata: BooleanBufferBuilder::new(0),
            usual_metadata: (String::new(), Vec::new()),
            payloads: Texts::new(),
            sequence: Vec::new(),
            client_given: BooleanBufferBuilder::new(0),
            any_client_given: false,
        }
    }

    pub fn event_type(&self) -> &Arc<EventType> {
        &self.event_type
    }

    /// Reads the fields of a payload in the usual form into the columns; `None` where it is not in that form, or something is
    /// wrong with it, and then there may be faults and a row that is begun.
    pub fn read_usual(&mut self, scanner: &mut Scanner<'_>, faults: &mut Faults) -> Option<()> {
        if self.event_type.fields.is_empty() {
            return None;
        }
        let place = Place { path: &PAYLOAD, unknown: self.event_type.unknown_fields, careful: false };
        Value { field: Some(&self.root), column: &mut self.fields, place, faults }.read_usual(scanner)
    }

    /// Reads the payload's fields into the columns. A payload of which nothing is declared need not be an object.
    pub fn read_payload(&mut self, payload: &str, faults: &mut Faults) {
        let before = faults.count();
        if self.read_usual(&mut Scanner::new(payload, MAX_DEPTH), faults).is_none() {
            faults.truncate(before);
            self.roll_back();
            self.read_carefully(payload, faults);
        }
    }

    /// As [`Table::read_payload`], for whatever form it has.
    pub fn read_carefully(&mut self, payload: &str, faults: &mut Faults) {
        let before = faults.count();
        self.read_declared(payload, faults);
        // The declared fields have said it with their own place.
        if faults.count() > before {
            return;
        }
        if let Some(number) = number_beyond_range(payload) {
            let message = format!("must have numbers of 64 bits, but has {}", clip(number));
            faults.add(Rule::PAYLOAD, PAYLOAD, message);
        }
    }

    fn read_declared(&mut self, payload: &str, faults: &mut Faults) {
        let unknown = self.event_type.unknown_fields;
        if self.event_type.fields.is_empty() && unknown == UnknownFields::Keep {
            return match payload {
                "null" => faults.mismatch(Rule::PAYLOAD, &PAYLOAD, "any JSON but null", &Found::Null),
                _ => self.fields.end_value(),
            };
        }
        let before = faults.count();
        let quick = Place { path: &PAYLOAD, unknown, careful: false };
        if self.read_fields(payload, quick, faults).is_ok() {
            return;
        }
        // It broke off half-way, but all faults are to be reported.
        faults.truncate(before);
        self.roll_back();
        if let Err(error) = self.read_fields(payload, Place { careful: true, ..quick }, faults) {
            faults.broken(Rule::PAYLOAD, PAYLOAD, &error);
        }
    }

    fn read_fields(&mut self, payload: &str, place: Place<'_>, faults: &mut Faults) -> Result<(), serde_json::Error> {
        let value = Value { field: Some(&self.root), column: &mut self.fields, place, faults };
        value.deserialize(&mut serde_json::Deserializer::from_str(payload))
    }

    /// Forgets what was read of an event that failed.
    pub fn roll_back(&mut self) {
        self.fields.truncate(self.sequence.len());
    }

    /// Completes a row whose payload was read without a fault.
    pub fn push(&mut self, row: &Row<'_>, envelope: &Envelope<'_>, context: &Context<'_>) {
        self.event_ids.extend_from_slice(&row.id.0);
        self.aggregate_ids.push(row.aggregate_id);
        self.event_times.push(row.event_time);
        self.ingested_at.push(context.ingested_at);
        let is_there = self.push_metadata(envelope, context);
        self.has_metadata.append(is_there);
        self.payloads.push(row.payload);
        self.sequence.push(row.sequence);
        self.client_given.append(row.is_client_given);
        self.any_client_given |= row.is_client_given;
    }

    /// Says whether there is any.
    fn push_metadata(&mut self, envelope: &Envelope<'_>, context: &Context<'_>) -> bool {
        let (own, trace_id) = (envelope.metadata.as_ref(), envelope.trace_id.as_deref());
        let is_usual =
            own.is_none() && trace_id.is_none() && context.client_id.is_none() && context.metadata.is_empty();
        let there = if is_usual {
            let (source, bytes) = &mut self.usual_metadata;
            if source != context.source {
                context.source.clone_into(source);
                bytes.clear();
                metadata::write(bytes, None, None, context);
            }
            self.metadata.bytes().extend_from_slice(bytes);
            !bytes.is_empty()
        } else {
            metadata::write(self.metadata.bytes(), own, trace_id, context)
        };
        self.metadata.end();
        there
    }

    /// Takes the rows out; `None` if there are none.
    pub fn finish(&mut self) -> Result<Option<Events>> {
        if self.sequence.is_empty() {
            return Ok(None);
        }
        let event_ids = Buffer::from_vec(std::mem::take(&mut self.event_ids));
        let has_metadata = Some(NullBuffer::new(self.has_metadata.finish())).filter(|nulls| nulls.null_count() > 0);
        let mut columns = vec![
            Arc::new(FixedSizeBinaryArray::try_new(16, event_ids, None)?),
            self.aggregate_ids.finish(None)?,
            finish_times(&mut self.event_times, None)?,
            finish_times(&mut self.ingested_at, None)?,
            self.metadata.finish(has_metadata)?,
            self.payloads.finish(None)?,
        ];
        columns.extend(self.fields.finish_fields()?);
        let rows = RecordBatch::try_new(Arc::clone(self.event_type.stored_schema()), columns)?;
        let client_given = BooleanArray::new(self.client_given.finish(), None);
        let client_id = std::mem::take(&mut self.any_client_given).then_some(client_given);
        let sequence = Int64Array::from(std::mem::take(&mut self.sequence));
        Ok(Some(Events { event_type: Arc::clone(&self.event_type), rows, sequence, client_id }))
    }
}
