//! The catalogue: which event types may enter, with which fields, and how their time behaves.
//!
//! An event type has two Arrow schemas. The **stored** schema is what the log keeps: the envelope in compact form, the
//! payload's own text, then a column per declared field. The **table** schema is what SQL sees: ids as text and the
//! event type as a column.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray, StringBuilder};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, SchemaRef};
use regex::Regex;

use crate::error::Result;
use crate::json;
use crate::time::{Micros, SECOND, timestamp_type};

/// Positions of the envelope's columns in the stored schema; the payload's fields follow.
pub mod stored {
    /// `FixedSizeBinary(16)`.
    pub const EVENT_ID: usize = 0;
    /// `Utf8`.
    pub const AGGREGATE_ID: usize = 1;
    /// Timestamp: when it happened.
    pub const EVENT_TIME: usize = 2;
    /// Timestamp: when it was taken in.
    pub const INGESTED_AT: usize = 3;
    /// `Utf8`, JSON or null.
    pub const METADATA: usize = 4;
    /// `Utf8`, the payload's JSON text as it was sent.
    pub const PAYLOAD: usize = 5;
    /// How many envelope columns there are.
    pub const FIELDS: usize = 6;
}

/// Names of the envelope's columns in SQL, in the order of the table schema. No payload field may have one of them.
pub const ENVELOPE: [&str; 7] =
    ["event_id", "event_type", "aggregate_id", "event_time", "ingested_at", "metadata", "payload"];

/// The type of a payload field.
#[derive(Clone, Debug)]
pub enum FieldType {
    /// true or false.
    Boolean,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    BigInt,
    /// A floating point number of 32 bits.
    Float,
    /// A floating point number of 64 bits.
    Double,
    /// Text.
    String,
    /// A time: RFC 3339 text, or a number of epoch seconds, milliseconds or microseconds by size.
    Timestamp,
    /// Any JSON, kept as its text.
    Json,
    /// A list.
    List(Box<FieldType>),
    /// Nested fields.
    Struct(Vec<Field>),
}

impl FieldType {
    /// The Arrow type of a column of this type, with the mark of JSON on what is nested in it if that is wanted.
    fn arrow(&self, is_marked: bool) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::String | Self::Json => DataType::Utf8,
            Self::Timestamp => timestamp_type(),
            Self::List(item) => DataType::List(Arc::new(item.column("item", true, is_marked))),
            Self::Struct(fields) => {
                DataType::Struct(fields.iter().map(|field| field.column(is_marked)).collect::<Fields>())
            }
        }
    }

    fn column(&self, name: &str, nullable: bool, is_marked: bool) -> ArrowField {
        let field = ArrowField::new(name, self.arrow(is_marked), nullable);
        if is_marked && matches!(self, Self::Json) { json::marked(field) } else { field }
    }

    /// Its name in the pipeline file.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Boolean => "boolean".into(),
            Self::Int => "int".into(),
            Self::BigInt => "bigint".into(),
            Self::Float => "float".into(),
            Self::Double => "double".into(),
            Self::String => "string".into(),
            Self::Timestamp => "timestamp".into(),
            Self::Json => "json".into(),
            Self::List(item) => format!("list<{}>", item.name()),
            Self::Struct(_) => "struct".into(),
        }
    }
}

/// A field of a payload, with what its values must fulfil beside their type.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name, case and all.
    pub name: String,
    /// Its type.
    pub data_type: FieldType,
    /// Whether it may be missing or null.
    pub optional: bool,
    /// For strings: the values allowed.
    pub one_of: Option<Vec<String>>,
    /// For numbers: the least value allowed.
    pub min: Option<f64>,
    /// For numbers: the greatest value allowed.
    pub max: Option<f64>,
    /// For strings: the greatest number of characters.
    pub max_length: Option<usize>,
    /// For strings: what the whole text must match.
    pub pattern: Option<Regex>,
}

impl Field {
    /// A required field without restrictions.
    #[must_use]
    pub fn new(name: impl Into<String>, data_type: FieldType) -> Self {
        Self {
            name: name.into(),
            data_type,
            optional: false,
            one_of: None,
            min: None,
            max: None,
            max_length: None,
            pattern: None,
        }
    }

    /// The same, allowed to be missing or null.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// The column that it is stored in, or, with the mark of JSON, the one that SQL sees.
    pub(crate) fn column(&self, is_marked: bool) -> ArrowField {
        self.data_type.column(&self.name, self.optional, is_marked)
    }
}

/// What happens to payload fields that the catalogue does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// They stay in the stored payload, without a column.
    #[default]
    Keep,
    /// The event is refused.
    Reject,
}

/// How time runs for an event type. See `docs/semantics.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatermarkPolicy {
    /// How late an event may be, in µs.
    pub delay: Micros,
    /// After how long a silent partition stops holding time back, in µs.
    pub idle: Micros,
    /// How far in the future an event may be, in µs.
    pub max_ahead: Micros,
}

impl Default for WatermarkPolicy {
    fn default() -> Self {
        Self { delay: 5 * SECOND, idle: 30 * SECOND, max_ahead: 60 * SECOND }
    }
}

/// A declared event type.
#[derive(Debug)]
pub struct EventType {
    /// Its name, such as `sensor.reading`.
    pub name: String,
    /// The topic that its events go to.
    pub topic: String,
    /// Its payload's fields; empty if it was declared without `payload:`.
    pub fields: Vec<Field>,
    /// What happens to fields that are not declared.
    pub unknown_fields: UnknownFields,
    /// How time runs for it.
    pub watermark: WatermarkPolicy,
    stored: SchemaRef,
    table: SchemaRef,
}

impl EventType {
    /// An event type with its schemas.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        topic: impl Into<String>,
        fields: Vec<Field>,
        unknown_fields: UnknownFields,
        watermark: WatermarkPolicy,
    ) -> Self {
        let columns = |is_marked| fields.iter().map(move |field: &Field| field.column(is_marked));
        let stored = schema(stored_envelope(), columns(false));
        let table = schema(table_envelope(), columns(true));
        Self { name: name.into(), topic: topic.into(), fields, unknown_fields, watermark, stored, table }
    }

    /// What the log keeps of it; see [`stored`] for the positions.
    #[must_use]
    pub fn stored_schema(&self) -> &SchemaRef {
        &self.stored
    }

    /// What SQL sees of it: [`ENVELOPE`], then the fields.
    #[must_use]
    pub fn table_schema(&self) -> &SchemaRef {
        &self.table
    }

    /// Stored rows as SQL sees them. Columns that are not named (all are if `columns` is `None`) may come back empty where
    /// that is cheaper; they must not be read.
    ///
    /// # Errors
    /// When the rows do not have the stored schema.
    pub fn table_rows(&self, stored: &RecordBatch, columns: Option<&[usize]>) -> Result<RecordBatch> {
        let wanted = |at: usize| columns.is_none_or(|columns| columns.contains(&at));
        let rows = stored.num_rows();
        let column = |at: usize| -> ArrayRef {
            match at {
                0 | 1 if !wanted(at) => empty_texts(rows),
                0 => id_text(stored.column(stored::EVENT_ID).as_fixed_size_binary()),
                1 => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(self.name.as_str(), rows))),
                _ => Arc::clone(stored.column(at - 1)),
            }
        };
        let marked = |(at, field): (usize, &Arc<ArrowField>)| {
            let column = column(at);
            // Nested JSON has its mark inside of the type; nothing else differs.
            if column.data_type() == field.data_type() { Ok(column) } else { Ok(cast(&column, field.data_type())?) }
        };
        let columns = self.table.fields().iter().enumerate().map(marked).collect::<Result<_>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.table), columns)?)
    }

    /// The positions in the stored schema of these columns of the table schema.
    #[must_use]
    pub fn stored_columns(&self, columns: &[usize]) -> Vec<usize> {
        columns.iter().filter(|at| **at != 1).map(|at| at.saturating_sub(1)).collect()
    }
}

fn id_text(ids: &FixedSizeBinaryArray) -> ArrayRef {
    let mut text = StringBuilder::with_capacity(ids.len(), 36 * ids.len());
    let mut buffer = uuid::Uuid::encode_buffer();
    for id in ids {
        let id = id.and_then(|bytes| uuid::Uuid::from_slice(bytes).ok()).unwrap_or_default();
        text.append_value(id.hyphenated().encode_lower(&mut buffer));
    }
    Arc::new(text.finish())
}

/// A text column of empty strings, which costs next to nothing.
fn empty_texts(rows: usize) -> ArrayRef {
    Arc::new(StringArray::new(OffsetBuffer::new_zeroed(rows), Buffer::default(), None))
}

fn schema(envelope: Vec<ArrowField>, payload: impl Iterator<Item = ArrowField>) -> SchemaRef {
    Arc::new(Schema::new(envelope.into_iter().chain(payload).collect::<Vec<_>>()))
}

fn stored_envelope() -> Vec<ArrowField> {
    vec![
        ArrowField::new("event_id", DataType::FixedSizeBinary(16), false),
        ArrowField::new("aggregate_id", DataType::Utf8, false),
        ArrowField::new("event_time", timestamp_type(), false),
        ArrowField::new("ingested_at", timestamp_type(), false),
        ArrowField::new("metadata", DataType::Utf8, true),
        ArrowField::new("payload", DataType::Utf8, false),
    ]
}

fn table_envelope() -> Vec<ArrowField> {
    vec![
        ArrowField::new("event_id", DataType::Utf8, false),
        ArrowField::new("event_type", DataType::Utf8, false),
        ArrowField::new("aggregate_id", DataType::Utf8, false),
        ArrowField::new("event_time", timestamp_type(), false),
        ArrowField::new("ingested_at", timestamp_type(), false),
        ArrowField::new("metadata", DataType::Utf8, true),
        ArrowField::new("payload", DataType::Utf8, false),
    ]
}

/// The topic of an event type that names none: by its domain.
#[must_use]
pub fn default_topic(event_type: &str) -> &'static str {
    match event_type.split('.').next() {
        Some("sensor") => "sensor-events",
        Some("user") => "user-actions",
        _ => "system-events",
    }
}

/// How many partitions a topic has unless told otherwise.
pub const DEFAULT_PARTITIONS: u32 = 4;

/// Every event type of a pipeline, and the topics they go to.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// The event types by name.
    pub types: BTreeMap<String, Arc<EventType>>,
    /// The number of partitions of every topic that an event type goes to.
    pub topics: BTreeMap<String, u32>,
    /// How long the events of a topic are kept, in µs; for ever if it is not here.
    pub retain: BTreeMap<String, Micros>,
}

impl Catalogue {
    /// A catalogue of these types, with the default number of partitions for each topic that `topics` does not name.
    #[must_use]
    pub fn new(types: impl IntoIterator<Item = EventType>, mut topics: BTreeMap<String, u32>) -> Self {
        let types: BTreeMap<_, _> = types.into_iter().map(|t| (t.name.clone(), Arc::new(t))).collect();
        for event_type in types.values() {
            topics.entry(event_type.topic.clone()).or_insert(DEFAULT_PARTITIONS);
        }
        Self { types, topics, retain: BTreeMap::new() }
    }

    /// The number of partitions of an event type's topic.
    #[must_use]
    pub fn partitions(&self, event_type: &EventType) -> u32 {
        self.topics.get(&event_type.topic).copied().unwrap_or(DEFAULT_PARTITIONS)
    }
}
