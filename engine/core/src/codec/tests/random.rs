//! Random catalogues and payloads against a plain reading with `serde_json::Value`, and random damage.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use rand::Rng;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::{CONTEXT, catalogue, event_type, field};
use crate::catalogue::{Catalogue, Field, FieldType, UnknownFields, stored};
use crate::codec::{Decoder, Limits};

const TEXTS: [&str; 6] = ["", "a", "größe", "line\nbreak \"quoted\" \\", "\u{1f600}", "{[,]}"];

fn seed() -> u64 {
    let seed = std::env::var("CJ_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("CJ_TEST_SEED={seed}");
    seed
}

fn random_type(rng: &mut ChaCha8Rng, depth: u32) -> FieldType {
    match rng.random_range(0..if depth == 0 { 8 } else { 10 }) {
        0 => FieldType::Boolean,
        1 => FieldType::Int,
        2 => FieldType::BigInt,
        3 => FieldType::Float,
        4 => FieldType::Double,
        5 => FieldType::String,
        6 => FieldType::Timestamp,
        7 => FieldType::Json,
        8 => FieldType::List(Box::new(random_type(rng, depth - 1))),
        _ => FieldType::Struct(random_fields(rng, depth - 1)),
    }
}

fn random_fields(rng: &mut ChaCha8Rng, depth: u32) -> Vec<Field> {
    let count = rng.random_range(0..5);
    let one = |index| Field { optional: rng.random(), ..field(&format!("f{index}"), random_type(rng, depth)) };
    (0..count).map(one).collect()
}

fn random_value(rng: &mut ChaCha8Rng, data_type: &FieldType) -> Value {
    match data_type {
        FieldType::Boolean => json!(rng.random::<bool>()),
        FieldType::Int => json!(rng.random::<i32>()),
        FieldType::BigInt => json!(rng.random::<i64>()),
        FieldType::Float => json!(rng.random::<f32>()),
        FieldType::Double if rng.random() => json!(rng.random::<i64>() >> rng.random_range(0..60)),
        FieldType::Double => json!(rng.random::<f64>() * 1e10),
        FieldType::String => json!(TEXTS.choose(rng)),
        FieldType::Timestamp => json!(rng.random_range(0..9_000_000_000_i64)),
        FieldType::Json => json!({ "a": [rng.random::<u8>(), { "b": TEXTS.choose(rng) }] }),
        FieldType::List(item) => {
            let one = |_| if rng.random_bool(0.2) { Value::Null } else { random_value(rng, item) };
            (0..3).map(one).collect()
        }
        FieldType::Struct(fields) => random_object(rng, fields),
    }
}

fn random_object(rng: &mut ChaCha8Rng, fields: &[Field]) -> Value {
    let mut object = Map::new();
    let start = rng.random_range(0..fields.len().max(1));
    for field in fields.iter().cycle().skip(start).take(fields.len()) {
        match rng.random_range(0..4) {
            0 if field.optional => {}
            1 if field.optional => drop(object.insert(field.name.clone(), Value::Null)),
            _ => drop(object.insert(field.name.clone(), random_value(rng, &field.data_type))),
        }
    }
    if rng.random_bool(0.2) {
        object.insert("unknown".into(), json!([{ "deep": [null] }]));
    }
    Value::Object(object)
}

/// Asserts that a row of a column holds a value.
fn check(column: &ArrayRef, row: usize, data_type: &FieldType, expected: &Value) {
    assert_eq!(column.is_null(row), expected.is_null(), "{data_type:?} {expected}");
    if expected.is_null() {
        return;
    }
    match data_type {
        FieldType::Boolean => assert_eq!(Some(column.as_boolean().value(row)), expected.as_bool()),
        FieldType::Int => assert_eq!(Some(column.as_primitive::<Int32Type>().value(row).into()), expected.as_i64()),
        FieldType::BigInt => assert_eq!(Some(column.as_primitive::<Int64Type>().value(row)), expected.as_i64()),
        FieldType::Float => assert_eq!(json!(column.as_primitive::<Float32Type>().value(row)), *expected),
        FieldType::Double => {
            assert_eq!(Some(column.as_primitive::<Float64Type>().value(row)), expected.as_f64(), "{expected}");
        }
        FieldType::String => assert_eq!(Some(column.as_string::<i32>().value(row)), expected.as_str()),
        FieldType::Timestamp => {
            let seconds = column.as_primitive::<TimestampMicrosecondType>().value(row) / 1_000_000;
            assert_eq!(Some(seconds), expected.as_i64());
        }
        FieldType::Json => assert_eq!(column.as_string::<i32>().value(row), expected.to_string()),
        FieldType::List(item) => {
            let items = column.as_list::<i32>().value(row);
            let expected = expected.as_array().expect("a list");
            assert_eq!(items.len(), expected.len());
            expected.iter().enumerate().for_each(|(index, expected)| check(&items, index, item, expected));
        }
        FieldType::Struct(fields) => {
            for (field, column) in fields.iter().zip(column.as_struct().columns()) {
                check(column, row, &field.data_type, &expected[&field.name]);
            }
        }
    }
}

#[test]
fn columns_hold_what_was_sent() {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    for _ in 0..200 {
        let fields = random_fields(&mut rng, 3);
        let types = [event_type("test.random", fields.clone(), UnknownFields::Keep)];
        let mut decoder = Decoder::new(&Catalogue::new(types, [].into()), Limits::default());
        let payloads: Vec<Value> = (0..20).map(|_| random_object(&mut rng, &fields)).collect();
        for payload in &payloads {
            let body = json!({ "event_type": "test.random", "aggregate_id": "a", "payload": payload }).to_string();
            decoder.decode(body.as_bytes(), &CONTEXT).unwrap_or_else(|rejection| panic!("{body}: {rejection:?}"));
            let broken = body.replacen("\"aggregate_id\":\"a\"", "\"aggregate_id\":\"\"", 1);
            assert!(decoder.decode(broken.as_bytes(), &CONTEXT).is_err(), "{broken}");
        }
        let events = decoder.finish().expect("columns").remove(0);
        for (row, payload) in payloads.iter().enumerate() {
            for (index, field) in fields.iter().enumerate() {
                let column = events.rows.column(stored::FIELDS + index);
                check(column, row, &field.data_type, &payload[&field.name]);
            }
            let text = events.rows.column(stored::PAYLOAD).as_string::<i32>().value(row);
            assert_eq!(text, payload.to_string());
        }
    }
}

const VALID: [&str; 3] = [
    r#"{"event_type":"sensor.reading","aggregate_id":"d1","payload":{"value":21.5,"unit":"celsius","battery":5},"event_time":"2026-01-01T00:00:00Z","metadata":{"a":[1]},"trace_id":"t"}"#,
    r#"{"event_type":"test.all","aggregate_id":"d","payload":{"ok":true,"n":1,"big":2,"f":1.5,"at":"2026-01-01T00:00:00Z","any":{"x":[1]},"tags":["a\ud83d\ude00","b"],"address":{"street":"s","zip":1},"code":"ab","short":"abc"}}"#,
    r#"{"payload":[1,{"a":null}],"event_id":"01931f2e-0000-7000-8000-00000000000a","aggregate_id":"d","event_type":"test.free"}"#,
];

const PIECES: [&[u8]; 14] =
    [b"{", b"}", b"[", b"]", b"\"", b",", b":", b"null", b"1e999", b"\\u", b"\\ud800", b"\xff", b"-", b"NaN"];

fn damage(rng: &mut ChaCha8Rng, body: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=body.len());
        let end = (at + rng.random_range(0..6)).min(body.len());
        match rng.random_range(0..4) {
            0 => drop(body.drain(at..end)),
            1 => body.truncate(at),
            2 => drop(body.splice(at..end, PIECES.choose(rng).copied().unwrap_or_default().iter().copied())),
            _ => {
                let copy = body[at..end].to_vec();
                let to = rng.random_range(0..=body.len());
                drop(body.splice(to..to, copy));
            }
        }
    }
}

/// Whatever is mixed in, the valid events come out as if it had never been there, and what was taken is valid JSON.
#[test]
fn damage_leaves_no_trace() {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    // Thirty bodies a round.
    let rounds = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(300);
    for _ in 0..rounds {
        let mut decoder = Decoder::new(&catalogue(), Limits::default());
        let mut taken = Vec::new();
        for _ in 0..30 {
            let mut body = VALID.choose(&mut rng).expect("a body").as_bytes().to_vec();
            if rng.random_bool(0.8) {
                damage(&mut rng, &mut body);
            }
            if let Ok(accepted) = decoder.decode(&body, &CONTEXT) {
                let name = accepted.event_type.name.clone();
                let sent: Value = serde_json::from_slice(&body).expect("taken, so it is JSON");
                taken.push((name, sent));
            }
        }
        let batches = decoder.finish().expect("columns");
        assert_eq!(batches.iter().map(|batch| batch.rows.num_rows()).sum::<usize>(), taken.len());
        for batch in batches {
            for (row, sequence) in batch.sequence.values().iter().enumerate() {
                let (name, sent) = &taken[usize::try_from(*sequence).expect("a row")];
                assert_eq!(*name, batch.event_type.name);
                check_row(&batch.rows, row, &batch.event_type.fields, sent);
            }
        }
    }
}

fn check_row(rows: &arrow::array::RecordBatch, row: usize, fields: &[Field], sent: &Value) {
    assert_eq!(Some(rows.column(stored::AGGREGATE_ID).as_string::<i32>().value(row)), sent["aggregate_id"].as_str());
    for (index, field) in fields.iter().enumerate() {
        let column = rows.column(stored::FIELDS + index);
        let value = &sent["payload"][&field.name];
        assert_eq!(column.is_null(row), value.is_null(), "{} of {sent}", field.name);
        if let (FieldType::String, Some(text)) = (&field.data_type, value.as_str()) {
            assert_eq!(column.as_string::<i32>().value(row), text);
        }
        if let (FieldType::Double, Some(number)) = (&field.data_type, value.as_f64()) {
            assert!((column.as_primitive::<Float64Type>().value(row) - number).abs() <= f64::EPSILON * number.abs());
        }
    }
}

/// Values that look usual, and some that are on the edge of it.
const VALUES: [&str; 40] = [
    "1",
    "0",
    "-0",
    "-1",
    "01",
    "1.",
    "1.5",
    "-0.25",
    ".5",
    "-",
    "+1",
    "1e3",
    "1E-2",
    "1.5e400",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "123456789012345678901234567890123456789012345",
    "101",
    "\"\"",
    "\"a\"",
    "\"celsius\"",
    "\"gr\u{f6}\u{df}e\"",
    "\"a\\nb\"",
    "\"a\tb\"",
    "\"\u{7f}\"",
    "\"2026-01-01T00:00:00Z\"",
    "\"2026-13-01T00:00:00Z\"",
    "true",
    "false",
    "null",
    "truex",
    "nul",
    "{}",
    "[]",
    "[1,\"a\",null]",
    "{\"street\":\"s\"}",
    "{\"street\":\"s\",\"zip\":2}",
    "{\"zip\":2,\"zip\":3,\"street\":\"s\"}",
    "{\"street\":\"s\",\"more\":{\"a\":[1]}}",
];

fn piece<'a>(rng: &mut ChaCha8Rng, of: &[&'a str]) -> &'a str {
    of.choose(rng).copied().unwrap_or_default()
}

/// An event with keys and values that fit each other often enough.
fn nearly_usual(rng: &mut ChaCha8Rng) -> String {
    let names =
        ["value", "unit", "battery", "ok", "n", "big", "f", "at", "any", "tags", "address", "code", "short", "x"];
    let mut fields = Vec::new();
    for _ in 0..rng.random_range(0..5) {
        fields.push(format!("\"{}\":{}", piece(rng, &names), piece(rng, &VALUES)));
    }
    if rng.random_bool(0.6) {
        fields.push("\"value\":21.5".to_owned());
    }
    let types = ["\"sensor.reading\"", "\"test.all\"", "\"test.free\"", "\"sensor.readings\"", "1"];
    let times =
        ["\"2026-01-01T00:00:00.25Z\"", "\"2026-01-01T01:00:00+01:00\"", "\"2027-01-01T00:00:00Z\"", "17", "null"];
    let ids = ["\"01931f2e-0000-7000-8000-00000000000a\"", "\"other\"", "null"];
    let aggregates = ["\"d1\"", "\"\"", "\"\u{fc}\"", "\"a\\u0041\"", "\"\u{7f}\"", "7"];
    let mut members = vec![
        format!(
            "\"event_type\":{}",
            types[if rng.random_bool(0.8) { rng.random_range(0..2) } else { rng.random_range(0..5) }]
        ),
        format!("\"aggregate_id\":{}", aggregates[if rng.random_bool(0.8) { 0 } else { rng.random_range(0..6) }]),
        format!("\"payload\":{{{}}}", fields.join(piece(rng, &[",", ", ", ","]))),
    ];
    let more = [
        format!("\"event_time\":{}", piece(rng, &times)),
        format!("\"event_id\":{}", piece(rng, &ids)),
        "\"trace_id\":\"t\"".to_owned(),
        "\"metadata\":{\"a\":1}".to_owned(),
        "\"unknown\":1".to_owned(),
        members[rng.random_range(0..3)].clone(),
    ];
    members.extend(more.into_iter().filter(|_| rng.random_bool(0.15)));
    if rng.random_bool(0.2) {
        let (a, b) = (rng.random_range(0..members.len()), rng.random_range(0..members.len()));
        members.swap(a, b);
    }
    let blank = piece(rng, &["", "", " ", "\n\t"]);
    format!("{blank}{{{blank}{}{blank}}}{}", members.join(&format!("{blank},")), piece(rng, &["", "", "\n", "x", "}"]))
}

/// What is read in one pass is what the careful readers make of it, to the last detail of what is wrong.
#[test]
fn the_usual_form_is_read_like_any_other() {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let rounds = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(300);
    let (mut usual, mut all) = (0, 0);
    for _ in 0..rounds {
        let limits = Limits { max_depth: rng.random_range(1..5), ..Limits::default() };
        let (mut quick, mut careful) = (Decoder::new(&catalogue(), limits), Decoder::new(&catalogue(), limits));
        for _ in 0..100 {
            let mut body = nearly_usual(&mut rng).into_bytes();
            if rng.random_bool(0.2) {
                damage(&mut rng, &mut body);
            }
            let shown = String::from_utf8_lossy(&body).into_owned();
            let expected =
                careful.decode_any(&body, &CONTEXT).map(|accepted| accepted.id).map_err(|e| format!("{e:?}"));
            let before = quick.rows();
            if quick.decode_usual(&body, &CONTEXT).is_some() {
                assert!(expected.is_ok(), "{shown}: {expected:?}");
                usual += 1;
            } else {
                assert_eq!(quick.rows(), before, "{shown}");
                let found = quick.decode(&body, &CONTEXT).map(|accepted| accepted.id).map_err(|e| format!("{e:?}"));
                assert_eq!(found, expected, "{shown}");
            }
            all += usize::from(expected.is_ok());
        }
        assert_eq!((quick.rows(), quick.bytes()), (careful.rows(), careful.bytes()));
        let (found, expected) = (quick.finish().expect("columns"), careful.finish().expect("columns"));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.rows, expected.rows);
            assert_eq!((&found.sequence, &found.client_id), (&expected.sequence, &expected.client_id));
        }
    }
    println!("{all} events were right, {usual} of them in the usual form");
    assert!(usual * 5 > all && usual < all, "{usual} of {all}");
}
