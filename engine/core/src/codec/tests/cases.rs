//! Bodies and what becomes of them.

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;

use super::{CONTEXT, NOW, catalogue, decode, decoder, lines};
use crate::catalogue::stored;
use crate::codec::{Context, Decoder, Limits};
use crate::door::{ClientId, RejectionKind};
use crate::id::EventId;
use crate::log::Events;

/// Wraps a payload in an envelope.
fn envelope(event_type: &str, payload: &str) -> String {
    format!(r#"{{"event_type": "{event_type}", "aggregate_id": "a", "payload": {payload}}}"#)
}

/// The rejection as one line: status class, code, and every fault.
fn rejection(body: &[u8]) -> String {
    let rejection = decode(body).expect_err("a rejection");
    let kind = match rejection.kind {
        RejectionKind::Malformed => 400,
        RejectionKind::Invalid => 422,
        RejectionKind::TooLarge => 413,
    };
    let details: Vec<String> = rejection.details.iter().map(|d| format!("{} {}", d.path, d.message)).collect();
    let what = if details.is_empty() { rejection.message } else { details.join("; ") };
    format!("{kind} {}: {what}", rejection.code)
}

fn one(body: &str) -> Events {
    let mut decoder = decoder();
    decoder.decode(body.as_bytes(), &CONTEXT).unwrap_or_else(|rejection| panic!("{body}: {rejection:?}"));
    decoder.finish().expect("columns").remove(0)
}

/// The payload's columns of the only row, as JSON.
fn fields(event_type: &str, payload: &str) -> String {
    let events = one(&envelope(event_type, payload));
    let columns: Vec<usize> = (stored::FIELDS..events.rows.num_columns()).collect();
    lines(&events.rows.project(&columns).expect("columns")).trim().to_owned()
}

#[test]
fn an_event_becomes_a_row() {
    let events = one(
        r#" {"payload": {"unit":"celsius" ,"value": 2.15e1, "new": [{}]}, "trace_id": "t\u00e9\"1", "aggregate_id": "d1",
             "metadata": { "rack": 7 }, "event_time": "2026-01-01T01:00:00.25+01:00", "event_type": "sensor.reading"} "#,
    );
    let expected = concat!(
        r#"{"aggregate_id":"d1","event_time":"2026-01-01T00:00:00.250","ingested_at":"2026-01-01T00:00:00","#,
        r#""metadata":"{\"source\":\"api\",\"trace_id\":\"té\\\"1\",\"rack\": 7}","#,
        r#""payload":"{\"unit\":\"celsius\" ,\"value\": 2.15e1, \"new\": [{}]}","#,
        r#""value":21.5,"unit":"celsius","battery":null}"#
    );
    let columns: Vec<usize> = (1..events.rows.num_columns()).collect();
    assert_eq!(lines(&events.rows.project(&columns).expect("columns")).trim(), expected);
    let id = events.rows.column(stored::EVENT_ID).as_fixed_size_binary().value(0).to_vec();
    assert_eq!(id, EventId::v7(NOW, &[7; 10]).0);
    assert_eq!(events.sequence.values().as_ref(), [0]);
    assert!(events.client_id.is_none());
}

#[test]
fn values_of_every_type() {
    let cases = [
        (r#"{"ok": true, "n": 5.0, "big": -9223372036854775808}"#, r#""ok":true,"n":5,"big":-9223372036854775808"#),
        (r#"{"big": 1e15, "f": 1}"#, r#""ok":null,"n":null,"big":1000000000000000,"f":1.0"#),
        (r#"{"at": "1950-01-01T00:00:00Z"}"#, r#""at":"1950-01-01T00:00:00""#),
        (r#"{"at": 1767225610.5}"#, r#""at":"2026-01-01T00:00:10.500""#),
        (r#"{"any": {"a" : [1, null]}}"#, r#""any":"{\"a\" : [1, null]}""#),
        (r#"{"tags": ["x", null, "\u00e9\ud83d\ude00"]}"#, r#""tags":["x",null,"é😀"]"#),
        (r#"{"tags": []}"#, r#""tags":[]"#),
        (r#"{"tags": null}"#, r#""tags":null"#),
        (r#"{"address": {"street": "s"}}"#, r#""address":{"street":"s","zip":null}"#),
        (r#"{"code": "ab", "short": "äöü"}"#, r#""code":"ab","short":"äöü""#),
    ];
    for (payload, expected) in cases {
        let row = fields("test.all", payload);
        assert!(row.contains(expected), "{payload}: {row}");
    }
    let free = one(&envelope("test.free", "[1, 2]"));
    assert_eq!(free.rows.column(stored::PAYLOAD).as_string::<i32>().value(0), "[1, 2]");
}

#[test]
fn texts_that_are_no_events() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000));
    let lists = "[".repeat(100_000);
    let cases: [(&[u8], &str); 17] = [
        (b"", "400 empty_body: the body is empty, and a JSON object was expected"),
        (b" \n ", "400 empty_body: the body is empty, and a JSON object was expected"),
        (b"{\"a\": \"\xff\"}", "400 not_utf8: the body is not UTF-8 from byte 7 on"),
        (b"{\"a\": ", "400 invalid_json: the body is not JSON: EOF while parsing a value at line 1 column 6"),
        (b"{} x", "400 invalid_json: the body is not JSON: trailing characters at line 1 column 4"),
        (br#"{"a": "\ud800x"}"#, "400 invalid_json: the escape at byte 7 is half of a surrogate pair, which is no character"),
        (br#"{"a": "\\\udc00"}"#, "400 invalid_json: the escape at byte 9 is half of a surrogate pair, which is no character"),
        (br#"{"a": "\ud800"#, "400 invalid_json: the escape at byte 7 is half of a surrogate pair, which is no character"),
        (
            br#"{"payload": {"value": NaN}}"#,
            "400 invalid_json: the body is not JSON: expected value at line 1 column 23; JSON has no NaN and no Infinity, send null",
        ),
        (
            br#"{"payload": {"value": -Infinity}}"#,
            "400 invalid_json: the body is not JSON: invalid number at line 1 column 24; JSON has no NaN and no Infinity, send null",
        ),
        (deep.as_bytes(), "400 too_deep: the JSON is nested deeper than 64 levels"),
        (lists.as_bytes(), "400 too_deep: the JSON is nested deeper than 64 levels"),
        (b"[]", "400 invalid_envelope: event must be a JSON object with event_type, aggregate_id and payload, but is a list"),
        (b"7", "400 invalid_envelope: event must be a JSON object with event_type, aggregate_id and payload, but is the number 7"),
        (
            b"{}",
            "400 invalid_envelope: event_type is required, but missing; aggregate_id is required, but missing; \
             payload is required, but missing",
        ),
        (
            br#"{"event_type": null, "event_typ": 1, "aggregate_id": 5, "payload": {}, "payload": {}, "trace_id": null}"#,
            "400 invalid_envelope: event_type must be a text, but is null; \
             event_typ is no field here, did you mean `event_type`?; \
             aggregate_id must be a text, but is the number 5; payload is there twice",
        ),
        (
            br#"{"event_type": "test.free", "aggregate_id": "a", "payload": {}, "metadata": [], "event_time": {}}"#,
            "400 invalid_envelope: metadata must be an object; event_time must be a time (RFC 3339 text, or epoch \
             seconds, milliseconds or microseconds), but is an object",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(rejection(body), expected, "{}", String::from_utf8_lossy(&body[..body.len().min(200)]));
    }
}

#[test]
fn brackets_in_texts_are_no_depth() {
    let text = "[{".repeat(100) + r#"\"["#;
    fields("sensor.reading", &format!(r#"{{"value": 1, "note": "{text}"}}"#));
}

#[test]
fn large_numbers_are_taken_where_they_fit() {
    let digits = "9".repeat(308);
    for payload in [
        r#"["1e999", "\\", 1e308, 1.7976931348623157e308, 1e-999]"#.to_owned(),
        format!("[{digits}]"),
        format!(r#""{digits}999""#),
    ] {
        one(&envelope("test.free", &payload));
    }
    let beyond = rejection(envelope("test.free", &format!("[{digits}999]")).as_bytes());
    assert!(beyond.starts_with("422 invalid_payload: payload must have numbers of 64 bits, but has 999"), "{beyond}");
}

#[test]
fn payloads_that_do_not_fit() {
    let cases = [
        ("sensor.reading", "null", "payload must be an object, but is null"),
        ("sensor.reading", "[1]", "payload must be an object, but is a list"),
        ("sensor.reading", "{}", "payload.value is required, but missing"),
        ("sensor.reading", r#"{"value": null}"#, "payload.value must be a number (double), but is null"),
        (
            "sensor.reading",
            r#"{"value": "72.5"}"#,
            r#"payload.value must be a number (double), but is the text "72.5""#,
        ),
        ("sensor.reading", r#"{"value": 1e999}"#, "payload.value must be a number of 64 bits, but is 1e999"),
        ("sensor.reading", r#"{"value": 1, "value": 2}"#, "payload.value is there twice"),
        (
            "sensor.reading",
            r#"{"unit": "kelvin", "battery": 100.5}"#,
            r#"payload.unit must be one of celsius, fahrenheit, but is "kelvin"; payload.battery must be at most 100, but is 100.5; payload.value is required, but missing"#,
        ),
        ("sensor.reading", r#"{"value": 1, "battery": -1}"#, "payload.battery must be at least 0, but is -1.0"),
        ("test.all", r#"{"n": 5.5}"#, "payload.n must be a whole number of 32 bits (int), but is the number 5.5"),
        (
            "test.all",
            r#"{"n": 2147483648}"#,
            "payload.n must be a whole number of 32 bits (int), but is the number 2147483648",
        ),
        (
            "test.all",
            r#"{"big": 1e16}"#,
            "payload.big must be a whole number of 64 bits (bigint), but is the number 1e16",
        ),
        ("test.all", r#"{"f": 1e39}"#, "payload.f must be a number of 32 bits (float), but is the number 1e39"),
        ("test.all", r#"{"ok": 1}"#, "payload.ok must be true or false, but is the number 1"),
        (
            "test.all",
            r#"{"tags": ["a", {"b": 1}, [], 3]}"#,
            "payload.tags[1] must be a text (string), but is an object; \
             payload.tags[2] must be a text (string), but is a list; \
             payload.tags[3] must be a text (string), but is the number 3",
        ),
        (
            "test.all",
            r#"{"address": {"zip": "x", "stret": 1}}"#,
            r#"payload.address.zip must be a whole number of 32 bits (int), but is the text "x"; payload.address.stret is no field here, did you mean `street`?; payload.address.street is required, but missing"#,
        ),
        ("test.all", r#"{"code": "abc"}"#, r#"payload.code must match the pattern ^(?:a|ab)$, but is "abc""#),
        ("test.all", r#"{"short": "four"}"#, "payload.short must have at most 3 characters, but has 4"),
        (
            "test.all",
            r#"{"at": 1e17}"#,
            "payload.at must be a time (RFC 3339 text, or epoch seconds, milliseconds or microseconds), but is the number 1e17",
        ),
        ("test.free", "null", "payload must be any JSON but null, but is null"),
    ];
    for (event_type, payload, expected) in cases {
        assert_eq!(rejection(envelope(event_type, payload).as_bytes()), format!("422 invalid_payload: {expected}"));
    }
}

#[test]
fn numbers_beyond_any_range_hide_no_other_fault() {
    let cases = [
        ("test.all", r#"{"n": -1e999}"#, "payload.n must be a whole number of 32 bits (int), but is the number -1e999"),
        (
            "test.all",
            r#"{"big": 1e999, "tags": ["a", 1e999], "address": {"street": 1e999, "zip": "x"}, "ok": 1, "short": "four"}"#,
            r#"payload.big must be a whole number of 64 bits (bigint), but is the number 1e999; payload.tags[1] must be a text (string), but is the number 1e999; payload.address.street must be a text (string), but is the number 1e999; payload.address.zip must be a whole number of 32 bits (int), but is the text "x"; payload.ok must be true or false, but is the number 1; payload.short must have at most 3 characters, but has 4"#,
        ),
        (
            "test.all",
            r#"{"address": 1e999, "ok": 1}"#,
            "payload.address must be an object, but is the number 1e999; payload.ok must be true or false, but is the number 1",
        ),
        (
            "test.all",
            r#"{"any": {"a": [1, -1e999]}, "ok": 1}"#,
            "payload.any must have numbers of 64 bits, but has -1e999; payload.ok must be true or false, but is the number 1",
        ),
        ("test.free", r#"["1e999", "\"1e999", 1E400]"#, "payload must have numbers of 64 bits, but has 1E400"),
        ("sensor.reading", r#"{"value": 1, "new": [1e999]}"#, "payload must have numbers of 64 bits, but has 1e999"),
        ("test.all", "1e999", "payload must be an object, but is the number 1e999"),
    ];
    for (event_type, payload, expected) in cases {
        assert_eq!(rejection(envelope(event_type, payload).as_bytes()), format!("422 invalid_payload: {expected}"));
    }
}

#[test]
fn envelopes_that_do_not_fit() {
    let with = |more: &str| format!(r#"{{"event_type": "test.free", "payload": 1, {more}}}"#);
    let cases = [
        (
            r#"{"event_type": "sensor.readin", "aggregate_id": "a", "payload": {}}"#.into(),
            r#"422 unknown_event_type: event_type "sensor.readin" is not in the catalogue, did you mean `sensor.reading`?"#,
        ),
        (with(r#""aggregate_id": """#), "422 invalid_aggregate_id: aggregate_id must not be empty"),
        (
            with(r#""aggregate_id": "a\n""#),
            r#"422 invalid_aggregate_id: aggregate_id must not have control characters, but is "a\n""#,
        ),
        (
            with(&format!(r#""aggregate_id": "{}""#, "x".repeat(1025))),
            "422 invalid_aggregate_id: aggregate_id must have at most 1024 bytes, but has 1025",
        ),
        (
            with(r#""aggregate_id": "a", "event_id": "42""#),
            r#"422 invalid_event_id: event_id must be a UUID with hyphens, but is "42""#,
        ),
        (
            with(r#""aggregate_id": "a", "event_time": "1969-12-31T23:59:59Z""#),
            "422 invalid_event_time: event_time must be in the years 1970 to 2261, but is 1969-12-31T23:59:59Z",
        ),
        (
            with(r#""aggregate_id": "a", "event_time": 1767225600000000000"#),
            "422 invalid_event_time: event_time must be a time (RFC 3339 text, or epoch seconds, milliseconds or \
             microseconds), but is the number 1767225600000000000",
        ),
        (
            with(r#""aggregate_id": "a", "event_time": 1e999"#),
            "422 invalid_event_time: event_time must be a time (RFC 3339 text, or epoch seconds, milliseconds or \
             microseconds), but is the number 1e999",
        ),
        (
            with(r#""aggregate_id": "a", "metadata": {"a": 1e999}"#),
            "400 invalid_envelope: metadata must have numbers of 64 bits, but has 1e999",
        ),
        (
            with(r#""aggregate_id": 1e999"#),
            "400 invalid_envelope: aggregate_id must be a text, but is the number 1e999",
        ),
        (
            with(r#""aggregate_id": "a", "event_time": "2026-01-01T00:01:00.000001Z""#),
            "422 too_far_ahead: event_time is 2026-01-01T00:01:00.000001Z, more than 1m ahead of the time now, \
             2026-01-01T00:00:00Z: check the producer's clock",
        ),
        (
            with(r#""aggregate_id": "a", "trace_id": "t", "metadata": {"trace_id": "u"}"#),
            "400 invalid_envelope: metadata.trace_id is there beside the envelope's own `trace_id`",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(rejection(body.as_bytes()), expected, "{body}");
    }
    one(&with(r#""aggregate_id": "a", "event_time": "2026-01-01T00:01:00Z""#));
}

#[test]
fn identities_of_clients() {
    let key = ClientId { id: EventId::v8([1; 16]), original: "order \"7\"".into() };
    let context = Context { client_id: Some(&key), source: "", ..CONTEXT };
    let mut decoder = decoder();
    let uuid = "01931f2e-0000-7000-8000-00000000000A";
    let given = format!(r#"{{"event_type":"test.free","aggregate_id":"a","payload":1,"event_id":"{uuid}"}}"#);
    let plain = envelope("test.free", "1");
    let ids = [
        decoder.decode(plain.as_bytes(), &Context { client_id: None, ..context }).map(|a| a.id),
        decoder.decode(plain.as_bytes(), &context).map(|a| a.id),
        decoder.decode(given.as_bytes(), &context).map(|a| a.id),
    ];
    let expected = [EventId::v7(NOW, &[7; 10]), key.id, EventId::parse(uuid).expect("a UUID")];
    assert_eq!(ids.map(Result::ok), expected.map(Some));
    let events = decoder.finish().expect("columns").remove(0);
    let given: Vec<_> = events.client_id.expect("ids of clients").iter().collect();
    assert_eq!(given, [Some(false), Some(true), Some(true)]);
    let metadata: Vec<_> = events.rows.column(stored::METADATA).as_string::<i32>().iter().collect();
    assert_eq!(metadata[0], None);
    assert_eq!(metadata[1], Some(r#"{"idempotency_key":"order \"7\""}"#));
}

#[test]
fn what_was_rejected_leaves_no_trace() {
    let bodies = [
        envelope("test.all", r#"{"tags": ["a", "b"], "address": {"street": "x"}}"#),
        envelope("test.all", r#"{"tags": ["c"], "any": {}, "address": {"street": "y", "zip": "no"}}"#),
        envelope("sensor.reading", r#"{"value": 1}"#),
        envelope("test.all", r#"{"tags": ["c", 4], "n": 1, "at": 0}"#),
        envelope("test.all", r#"{"n": 2, "ok": false}"#),
    ];
    let mut decoder = decoder();
    let accepted: Vec<bool> = bodies.iter().map(|body| decoder.decode(body.as_bytes(), &CONTEXT).is_ok()).collect();
    assert_eq!(accepted, [true, false, true, false, true]);
    assert_eq!(decoder.rows(), 3);
    let batches = decoder.finish().expect("columns");
    let sequences: Vec<&[i64]> = batches.iter().map(|batch| batch.sequence.values().as_ref()).collect();
    assert_eq!(sequences, [&[1][..], &[0, 2]]);
    let times = batches[1].rows.column(stored::EVENT_TIME).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.values().as_ref(), [NOW, NOW]);
    let rows = lines(&batches[1].rows.project(&[7, 12, 13]).expect("columns"));
    let expected = concat!(
        "{\"n\":null,\"tags\":[\"a\",\"b\"],\"address\":{\"street\":\"x\",\"zip\":null}}\n",
        "{\"n\":2,\"tags\":null,\"address\":null}\n"
    );
    assert_eq!(rows, expected);
    assert!(decoder.finish().expect("columns").is_empty());
}

#[test]
fn size_and_faults_are_bounded() {
    let mut decoder = Decoder::new(&catalogue(), Limits { max_body_bytes: 100, ..Limits::default() });
    let rejection = decoder.decode(&[b' '; 101], &CONTEXT).map(|a| a.id).expect_err("too large");
    assert_eq!((rejection.kind, rejection.code), (RejectionKind::TooLarge, "too_large"));
    let many = envelope("test.all", &format!(r#"{{"tags": [{}1]}}"#, "1,".repeat(100_000)));
    let rejection = decode(many.as_bytes()).expect_err("faults");
    assert_eq!(rejection.message, "the event has 100001 faults");
    assert_eq!(rejection.details.len(), 51);
}
