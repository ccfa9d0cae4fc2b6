//! `CloudEvents`. Cases with a name in camel case are those of the CloudEvents project's own conformance suite
//! (<https://github.com/cloudevents/conformance>, `format/json`).

use arrow::array::AsArray;
use serde_json::{Value, json};

use super::{CONTEXT, NOW, event_type, field};
use crate::catalogue::{Catalogue, FieldType, UnknownFields, stored};
use crate::codec::{Context, Decoder, Limits};
use crate::door::{ClientId, Form, RejectionKind};
use crate::id::EventId;

fn decoder() -> Decoder {
    let value = vec![field("value", FieldType::Double)];
    let types = [
        event_type("io.cloudevents.test", vec![], UnknownFields::Keep),
        event_type("sensor.reading", value, UnknownFields::Keep),
    ];
    Decoder::new(&Catalogue::new(types, [].into()), Limits::default())
}

/// What an event became: its id, and its columns as JSON.
fn taken(form: &Form, body: &str) -> (EventId, Value) {
    taken_in(form, body, &CONTEXT)
}

fn taken_in(form: &Form, body: &str, context: &Context<'_>) -> (EventId, Value) {
    let mut decoder = decoder();
    let taken = decoder.decode_as(form, body.as_bytes(), context);
    let id = taken.unwrap_or_else(|rejection| panic!("{body}: {rejection:?}")).id;
    let events = decoder.finish().expect("columns").remove(0);
    assert_eq!(events.client_id.map(|given| given.value(0)), Some(true), "it has an identity of its own");
    let text = |column: usize| events.rows.column(column).as_string::<i32>().value(0);
    let time = events.rows.column(stored::EVENT_TIME).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    let event = json!({
        "type": events.event_type.name,
        "aggregate": text(stored::AGGREGATE_ID),
        "time": time.value(0),
        "metadata": serde_json::from_str::<Value>(text(stored::METADATA)).expect("JSON"),
        "payload": serde_json::from_str::<Value>(text(stored::PAYLOAD)).expect("JSON"),
    });
    (id, event)
}

/// The rejection as one line: status class, code, and every fault.
fn refused(form: &Form, body: &str) -> String {
    let mut decoder = decoder();
    let Err(rejection) = decoder.decode_as(form, body.as_bytes(), &CONTEXT) else { panic!("{body} was taken") };
    assert_eq!(decoder.rows(), 0);
    let kind = match rejection.kind {
        RejectionKind::Malformed => 400,
        RejectionKind::Invalid => 422,
        RejectionKind::TooLarge => 413,
    };
    let details: Vec<String> = rejection.details.iter().map(|d| format!("{} {}", d.path, d.message)).collect();
    let what = if details.is_empty() { rejection.message } else { details.join("; ") };
    format!("{kind} {}: {what}", rejection.code)
}

fn attributes(pairs: &[(&str, &str)]) -> Form {
    Form::CloudEventData(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
}

/// A whole event with more members, or with other values for those that every event has.
fn event(more: &str) -> String {
    let mut event =
        json!({"specversion": "1.0", "id": "i", "type": "io.cloudevents.test", "source": "https://cloudevents.io"});
    let more: Value = serde_json::from_str(&format!("{{{more}}}")).expect("JSON");
    for (name, value) in more.as_object().expect("an object") {
        event[name] = value.clone();
    }
    event.to_string()
}

#[test]
fn a_cloud_event_becomes_a_row() {
    let body = r#" {"specversion": "1.0", "type": "sensor.reading", "id": "a\"1", "source": "/plant/7", "subject": "d1",
        "time": "2025-12-31T23:59:59.5Z", "data": {"value": 1.5, "more": [1]}, "datacontenttype": "application/json",
        "dataschema": "https://schemas/1", "partitionkey": "k", "priority": -3, "sampled": true,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} "#;
    let (id, row) = taken(&Form::Any, body);
    assert_eq!(id.to_string().as_bytes()[14], b'8');
    let cloud_event = json!({
        "id": "a\"1", "source": "/plant/7", "subject": "d1", "datacontenttype": "application/json",
        "dataschema": "https://schemas/1", "partitionkey": "k", "priority": -3, "sampled": true,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    });
    let expected = json!({
        "type": "sensor.reading", "aggregate": "d1", "time": NOW - 500_000, "payload": {"value": 1.5, "more": [1]},
        "metadata": {"source": "api", "trace_id": "0af7651916cd43dd8448eb211c80319c", "cloudevent": cloud_event},
    });
    assert_eq!(row, expected);
    assert_eq!(taken(&Form::CloudEvent, body), (id, expected.clone()), "the same in its own form");

    let beside = attributes(&[
        ("specversion", "1.0"),
        ("type", "sensor.reading"),
        ("id", "a\"1"),
        ("source", "/plant/7"),
        ("time", "2026-01-01T00:59:59.5+01:00"),
        ("priority", "-3"),
    ]);
    let (same_id, row) = taken(&beside, r#"{"value": 2}"#);
    assert_eq!(same_id, id, "source and id are the identity");
    // Without a subject the source is what it belongs to. Headers have texts only.
    let cloud_event = json!({"id": "a\"1", "source": "/plant/7", "priority": "-3"});
    assert_eq!(row["metadata"], json!({"source": "api", "cloudevent": cloud_event}));
    assert_eq!((&row["aggregate"], &row["time"]), (&json!("/plant/7"), &json!(NOW - 500_000)));
}

#[test]
fn source_and_id_are_its_identity() {
    let id = |source: &str, id: &str| taken(&Form::Any, &event(&format!(r#""source":"{source}","id":"{id}""#))).0;
    assert_eq!(id("a", "b"), id("a", "b"));
    assert_ne!(id("a", "b"), id("b", "a"));
    assert_ne!(id("ab", "c"), id("a", "bc"));
    // Its own identity goes before the one that came beside it, which is kept.
    let key = ClientId { id: EventId::v8([1; 16]), original: "order-7".into() };
    let (given, row) = taken_in(&Form::Any, &event(""), &Context { client_id: Some(&key), ..CONTEXT });
    assert_eq!(given, id("https://cloudevents.io", "i"));
    assert_eq!(row["metadata"]["idempotency_key"], "order-7");
}

#[test]
fn data_may_be_missing_or_encoded() {
    let payload = |more: &str| taken(&Form::Any, &event(more)).1["payload"].clone();
    assert_eq!(payload(""), json!({}));
    assert_eq!(payload(r#""data":null"#), json!({}));
    assert_eq!(payload(r#""data":"text""#), json!("text"));
    assert_eq!(payload(r#""data_base64":"eyAieHl6IjogMTIzIH0=""#), json!({"xyz": 123}));
    assert_eq!(payload(r#""data":[1],"datacontenttype":"application/vnd.x+json; charset=utf-8""#), json!([1]));
    let named = attributes(&[("specversion", "1.0"), ("id", "i"), ("source", "s"), ("type", "io.cloudevents.test")]);
    assert_eq!(taken(&named, " ").1["payload"], json!({}));
    let missing = refused(&Form::Any, &event(r#""type":"sensor.reading""#));
    assert_eq!(missing, "422 invalid_payload: data.value is required, but missing");
}

#[test]
fn valid_events_of_the_conformance_suite() {
    let cases = [
        ("validMinimal", ""),
        ("validMinimalWithNullForOptional", r#""datacontenttype":null,"dataschema":null,"subject":null,"time":null"#),
        (
            "validAllCoreAttributes",
            r#""datacontenttype":"text/plain","dataschema":"https://cloudevents.io/dataschema","subject":"tests",
               "time":"2018-04-05T17:31:00Z""#,
        ),
        ("validMinimalWithTimeUtc", r#""time":"2018-04-05T17:31:00Z""#),
        ("validMinimalWithTimeToNanosecondsUtc", r#""time":"2018-04-05T17:31:00.000000000Z""#),
        ("validMinimalWithTimeUsingPositiveOffset", r#""time":"2018-04-05T18:31:00+01:00""#),
        ("validMinimalWithTimeUsingNegativeOffset", r#""time":"2018-04-05T16:31:00-01:00""#),
        ("validRelativeSource", r##""source":"#fragment""##),
        (
            "validAllExtensionTypes",
            r#""extinteger":10,"extboolean":true,"extstring":"text","exturi":"https://cloudevents.io",
               "exturiref":"//authority/path","exttimestamp":"2023-03-31T15:12:00Z","extbinary":"TWE=""#,
        ),
    ];
    for (name, more) in cases {
        let (_, row) = taken(&Form::CloudEvent, &event(more));
        if name.contains("Time") {
            assert_eq!(row["time"], json!(1_522_949_460_000_000_i64), "{name}");
        }
    }
}

#[test]
fn invalid_events_of_the_conformance_suite() {
    let without = |name: &str| event("").replace(&format!("\"{name}\":"), &format!("\"no{name}\":"));
    let cases = [
        ("invalidNoSpecVersion", without("specversion"), "specversion is required, but missing"),
        ("invalidNoId", without("id"), "id is required, but missing"),
        ("invalidNoType", without("type"), "type is required, but missing"),
        ("invalidNoSource", without("source"), "source is required, but missing"),
        ("invalidTimeGarbage", event(r#""time":"lunchtime""#), "time must be a time"),
        ("invalidTimeToMinute", event(r#""time":"2018-04-05T18:31Z""#), "time must be a time"),
        ("invalidTimeOffsetX", event(r#""time":"2018-04-05T18:31:00X""#), "time must be a time"),
        ("invalidTimeOffsetOutOfRange", event(r#""time":"2018-04-05T18:31:00+25:00""#), "time must be a time"),
        ("invalidTimeOffsetNonInteger", event(r#""time":"2018-04-05T18:31:00+xx:00""#), "time must be a time"),
        ("invalidTimeOffsetHourOnly", event(r#""time":"2018-04-05T18:31:00+05""#), "time must be a time"),
        ("invalidEmptyId", event(r#""id":"""#), "id must not be empty"),
        ("invalidEmptyType", event(r#""type":"""#), "type must not be empty"),
        ("invalidEmptySource", event(r#""source":"""#), "source must not be empty"),
        ("invalidEmptySpecVersion", event(r#""specversion":"""#), "specversion must not be empty"),
        ("invalidUnknownSpecVersion", event(r#""specversion":"0.9""#), r#"specversion must be "1.0", but is "0.9""#),
        (
            "invalidNonRfc2046DataContentType",
            event(r#""datacontenttype":"xyz""#),
            "datacontenttype must be a media type",
        ),
        ("invalidEmptyDataContentType", event(r#""datacontenttype":"""#), "datacontenttype must not be empty"),
        ("invalidEmptyDataSchema", event(r#""dataschema":"""#), "dataschema must not be empty"),
        ("invalidEmptySubject", event(r#""subject":"""#), "subject must not be empty"),
        ("invalidNumericId", event(r#""id":25"#), "id must be a text, but is the number 25"),
        ("invalidObjectId", event(r#""id":{"xyz":"abc"}"#), "id must be a text, but is an object"),
        ("invalidCapitalizedExtension", event(r#""MyExtension":"bad""#), "MyExtension is no name of an attribute"),
        ("invalidPunctuatedExtension", event(r#""my.extension":"bad""#), "my.extension is no name of an attribute"),
        ("invalidNonIntegerExtensionValue", event(r#""myextension":1.5"#), "must be a text, true or false, or a whole"),
        (
            "invalidBothDataAndDataBase64",
            event(r#""data":"t","data_base64":"eyAieHl6IjogMTIzIH0=""#),
            "beside other data",
        ),
    ];
    for (name, body, expected) in cases {
        let refused = refused(&Form::CloudEvent, &body);
        let code = if name.contains("Time") { "422 invalid_event_time" } else { "400 invalid_cloudevent" };
        assert!(refused.starts_with(code) && refused.contains(expected), "{name}: {refused}");
        assert!(!refused.contains(';'), "{name} has one fault: {refused}");
    }
}

#[test]
fn more_that_is_wrong() {
    let many: Vec<String> = (0..65).map(|n| format!("\"e{n}\":1")).collect();
    let cases = [
        (event(&many.join(",")), "400 invalid_cloudevent: e9 is one more than 64 extensions"),
        (event("").replace('}', r#","id":"j"}"#), "400 invalid_cloudevent: id is there twice"),
        (event(r#""a":1"#).replace('}', r#","a":2}"#), "400 invalid_cloudevent: a is there twice"),
        (
            event(r#""a":[]"#),
            "400 invalid_cloudevent: event.a must be a text, true or false, or a whole number of 32 bits, but is a list",
        ),
        (
            event(r#""a":3000000000"#),
            "400 invalid_cloudevent: event.a must be a text, true or false, or a whole number of 32 bits, but is the number 3000000000",
        ),
        (event(r#""data_base64":"?""#), "400 invalid_cloudevent: data_base64 cannot be read: it is not base64"),
        (
            event(r#""data_base64":"//8=""#),
            "400 invalid_cloudevent: data_base64 cannot be read: the body is not UTF-8 from byte 0 on",
        ),
        (
            event(r#""data_base64":"e30x""#),
            "400 invalid_cloudevent: data_base64 cannot be read: its bytes are not JSON",
        ),
        (
            event(r#""data":"x","datacontenttype":"text/plain""#),
            r#"422 unsupported_datacontenttype: datacontenttype must be JSON, such as application/json, but is "text/plain""#,
        ),
        (
            event(r#""type":"io.cloudevents.tset""#),
            r#"422 unknown_event_type: type "io.cloudevents.tset" is not in the catalogue, did you mean `io.cloudevents.test`?"#,
        ),
        (
            event(r#""time":"2026-01-02T00:00:00Z""#),
            "422 too_far_ahead: time is 2026-01-02T00:00:00Z, more than 1m ahead of the time now, 2026-01-01T00:00:00Z: check the producer's clock",
        ),
        (
            event(r#""subject":"a\nb""#),
            r#"422 invalid_aggregate_id: subject must not have control characters, but is "a\nb""#,
        ),
        (
            event(r#""type":"sensor.reading","data":{"value":"x"}"#),
            r#"422 invalid_payload: data.value must be a number (double), but is the text "x""#,
        ),
        (
            "[]".into(),
            "400 invalid_cloudevent: event must be a JSON object with specversion, id, source and type, but is a list",
        ),
        (
            "{\"specversion\":".into(),
            "400 invalid_json: the body is not JSON: EOF while parsing a value at line 1 column 15",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(refused(&Form::CloudEvent, &body), expected, "{body}");
    }
    // An envelope is none, and what is both is an envelope with a field too much.
    let envelope = r#"{"event_type":"io.cloudevents.test","aggregate_id":"a","payload":1}"#;
    assert!(refused(&Form::CloudEvent, envelope).starts_with("400 invalid_cloudevent"));
    let both = envelope.replace("\"payload\"", "\"specversion\":\"1.0\",\"payload\"");
    assert_eq!(refused(&Form::Any, &both), "400 invalid_envelope: specversion is no field here");
    let form = attributes(&[("specversion", "1.0"), ("id", "i"), ("source", "s"), ("type", "io.cloudevents.test")]);
    assert!(refused(&form, "{},\"id\":1").starts_with("400 invalid_json: the body is not JSON: trailing characters"));
}
