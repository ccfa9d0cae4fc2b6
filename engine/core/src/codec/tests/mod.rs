//! Tests of the decoder: cases as text, and random catalogues against `serde_json::Value` as the oracle.

mod cases;
mod cloud_events;
mod random;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use regex::Regex;

use super::{Context, Decoder, Limits};
use crate::catalogue::{Catalogue, EventType, Field, FieldType, UnknownFields, WatermarkPolicy};
use crate::door::Rejection;
use crate::id::EventId;
use crate::time::Micros;

/// 2026-01-01T00:00:00Z.
const NOW: Micros = 1_767_225_600_000_000;

const CONTEXT: Context<'static> =
    Context { ingested_at: NOW, random: [7; 10], client_id: None, source: "api", metadata: &[] };

fn event_type(name: &str, fields: Vec<Field>, unknown_fields: UnknownFields) -> EventType {
    EventType::new(name, "topic", fields, unknown_fields, WatermarkPolicy::default())
}

fn field(name: &str, data_type: FieldType) -> Field {
    Field::new(name, data_type)
}

/// A catalogue with every type and every rule.
fn catalogue() -> Catalogue {
    let unit = Field { one_of: Some(vec!["celsius".into(), "fahrenheit".into()]), ..field("unit", FieldType::String) };
    let battery = Field { min: Some(0.0), max: Some(100.0), ..field("battery", FieldType::Double).optional() };
    let reading = vec![field("value", FieldType::Double), unit.optional(), battery];
    let code = Field { pattern: Regex::new("^(?:a|ab)$").ok(), ..field("code", FieldType::String).optional() };
    let short = Field { max_length: Some(3), ..field("short", FieldType::String).optional() };
    let address = vec![field("street", FieldType::String), field("zip", FieldType::Int).optional()];
    let all = vec![
        field("ok", FieldType::Boolean).optional(),
        field("n", FieldType::Int).optional(),
        field("big", FieldType::BigInt).optional(),
        field("f", FieldType::Float).optional(),
        field("at", FieldType::Timestamp).optional(),
        field("any", FieldType::Json).optional(),
        field("tags", FieldType::List(Box::new(FieldType::String))).optional(),
        field("address", FieldType::Struct(address)).optional(),
        code,
        short,
    ];
    Catalogue::new(
        [
            event_type("sensor.reading", reading, UnknownFields::Keep),
            event_type("test.all", all, UnknownFields::Reject),
            event_type("test.free", vec![], UnknownFields::Keep),
        ],
        BTreeMap::new(),
    )
}

fn decoder() -> Decoder {
    Decoder::new(&catalogue(), Limits::default())
}

fn decode(body: &[u8]) -> Result<EventId, Rejection> {
    decoder().decode(body, &CONTEXT).map(|accepted| accepted.id)
}

/// Rows as lines of JSON, with explicit nulls; times without their zone, which Arrow's writer does not know.
fn lines(rows: &RecordBatch) -> String {
    let without_zone = |column: &ArrayRef| match column.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => Arc::new(times.clone().with_timezone_opt::<&str>(None)) as ArrayRef,
        None => Arc::clone(column),
    };
    let schema = rows.schema();
    let columns = schema.fields().iter().map(|field| field.name()).zip(rows.columns().iter().map(without_zone));
    let rows =
        &RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("rows");
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, LineDelimited>(Vec::new());
    writer.write(rows).expect("rows");
    writer.finish().expect("rows");
    String::from_utf8(writer.into_inner()).expect("UTF-8")
}
