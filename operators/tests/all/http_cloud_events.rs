//! `CloudEvents` through a real socket. The requests with `com.example.someevent` are those of the HTTP feature of the
//! CloudEvents project's conformance suite (<https://github.com/cloudevents/conformance>).

use std::sync::Arc;

use cornjacket_operators::sources::http::Patience;
use serde_json::json;

use crate::http::{CheckingDoor, Client, Kept, Reply, request_to, serve_door};

const ATTRIBUTES: &str = "ce-specversion: 1.0\r\nce-type: com.example.someevent\r\nce-time: 2018-04-05T03:56:24Z\r\n\
                          ce-id: 1234-1234-1234\r\nce-source: /mycontext/subcontext\r\n";

const STRUCTURED: &str = r#"{
    "specversion": "1.0",
    "type": "com.example.someevent",
    "time": "2018-04-05T03:56:24Z",
    "id": "1234-1234-1234",
    "source": "/mycontext/subcontext",
    "datacontenttype": "application/json",
    "data": {
        "message": "Hello World!"
    }
}"#;

/// Sends a request; the answer, and what was stored.
fn send(path: &str, headers: &str, body: &str) -> (Reply, Vec<Kept>) {
    let door = CheckingDoor::new();
    let address = serve_door(Arc::clone(&door) as _, Patience::default(), None);
    let mut client = Client::new(address);
    client.send(&request_to(path, headers, body.as_bytes()));
    let reply = client.reply();
    let stored = door.stored.lock().clone();
    (reply, stored)
}

#[test]
fn both_modes_on_both_paths_are_the_same_event() {
    let mut ids = Vec::new();
    let hello = "{\n    \"message\": \"Hello World!\"\n}";
    for path in ["/api/v1/events", "/api/v1/events/batch"] {
        for (mode, content_type) in [
            ("binary", "application/json"),
            ("binary", "application/json; charset=utf-8"),
            ("structured", "application/cloudevents+json"),
            ("structured", "application/cloudevents+json; charset=utf-8"),
        ] {
            let (attributes, body) = if mode == "binary" { (ATTRIBUTES, hello) } else { ("", STRUCTURED) };
            let (reply, stored) = send(path, &format!("{attributes}content-type: {content_type}\r\n"), body);
            assert_eq!(reply.status, 202, "{path} {content_type}: {}", reply.json);
            if path.ends_with("batch") {
                assert_eq!(reply.json, json!({"accepted": 1, "rejected": []}));
            } else {
                assert_eq!(reply.json["event_id"], stored[0].id);
            }
            assert_eq!(stored[0].payload, json!({"message": "Hello World!"}));
            assert_eq!(stored[0].aggregate, "/mycontext/subcontext");
            let datacontenttype = if mode == "binary" { content_type } else { "application/json" };
            let kept =
                json!({"id": "1234-1234-1234", "source": "/mycontext/subcontext", "datacontenttype": datacontenttype});
            assert_eq!(stored[0].metadata["cloudevent"], kept);
            ids.push(stored[0].id.clone());
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one identity however it is sent");
}

#[test]
fn headers_are_percent_decoded() {
    let subject = "ce-subject: Euro%20%E2%82%AC%20%F0%9F%98%80\r\nce-extension1: \"quoted\"\r\n";
    let (reply, stored) = send("/api/v1/events", &format!("{ATTRIBUTES}{subject}"), "");
    assert_eq!(reply.status, 202, "{}", reply.json);
    assert_eq!(stored[0].aggregate, "Euro € 😀");
    assert_eq!(stored[0].metadata["cloudevent"]["extension1"], "quoted");
    assert_eq!(stored[0].payload, json!({}), "an event without data");
    let (reply, _) = send("/api/v1/events", &format!("{ATTRIBUTES}ce-subject: %ff\r\n"), "{}");
    assert_eq!((reply.status, reply.code()), (400, "invalid_cloudevent"));
}

#[test]
fn batched_mode() {
    let minimal =
        r#"{"specversion":"1.0","id":"minimal","type":"com.example.someevent","source":"https://cloudevents.io"}"#;
    let other = minimal.replace("minimal", "other");
    let batch = "content-type: application/cloudevents-batch+json\r\n";
    let cases = [
        ("validBatchEmpty", "[]".to_owned(), 202, 0, 0),
        ("validBatchMinimal", format!("[{minimal}]"), 202, 1, 0),
        ("validBatchMinimal2", format!("[{minimal},{minimal}]"), 202, 2, 0),
        ("two of them", format!("[{minimal},\n{other}]"), 202, 2, 0),
        ("invalidBatchMixedSpecVersions", format!("[{minimal},{}]", other.replace("1.0", "0.9")), 202, 1, 1),
        ("invalidBatchContainingInvalidCloudEvent", format!("[{}]", minimal.replace("\"id\"", "\"noid\"")), 422, 0, 1),
        ("invalidBatchContainingNonObject", format!("[\"not an object\",{minimal}]"), 202, 1, 1),
    ];
    for (name, body, status, accepted, rejected) in cases {
        let (reply, stored) = send("/api/v1/events/batch", batch, &body);
        assert_eq!(reply.status, status, "{name}: {}", reply.json);
        assert_eq!(reply.json["accepted"], accepted, "{name}: {}", reply.json);
        assert_eq!(reply.json["rejected"].as_array().map(Vec::len), Some(rejected), "{name}: {}", reply.json);
        let expected = if name == "validBatchMinimal2" { 1 } else { accepted };
        assert_eq!(stored.len(), expected, "{name}");
    }
    // Lines of CloudEvents and envelopes may be mixed.
    let mixed = format!("{minimal}\n{}\n", crate::http_batch::event("a", 1));
    let (reply, _) = send("/api/v1/events/batch", "content-type: application/x-ndjson\r\n", &mixed);
    assert_eq!(reply.json, json!({"accepted": 2, "rejected": []}));
}

#[test]
fn what_is_no_cloud_event_is_refused() {
    let json = "content-type: application/json\r\n";
    let structured = "content-type: application/cloudevents+json\r\n";
    let cases = [
        (ATTRIBUTES.replace("1.0", "0.3") + json, "{}", 400, "invalid_cloudevent", "specversion"),
        (ATTRIBUTES.replace("ce-id", "x-id") + json, "{}", 400, "invalid_cloudevent", "id"),
        (ATTRIBUTES.replace("ce-type: com", "ce-type: org") + json, "{}", 422, "unknown_event_type", "type"),
        (ATTRIBUTES.replace("24Z", "99Z") + json, "{}", 422, "invalid_event_time", "time"),
        (ATTRIBUTES.to_owned() + "ce-my_ext: 1\r\n", "{}", 400, "invalid_cloudevent", "my_ext"),
        (ATTRIBUTES.to_owned() + json, "{", 400, "invalid_json", ""),
        (ATTRIBUTES.to_owned() + "content-type: text/plain\r\n", "hello", 415, "unsupported_media_type", ""),
        (
            structured.into(),
            r#"{"event_type":"com.example.someevent","aggregate_id":"a","payload":{}}"#,
            400,
            "invalid_cloudevent",
            "event.event_type",
        ),
        ("content-type: application/cloudevents+avro\r\n".into(), "{}", 415, "unsupported_media_type", ""),
    ];
    for (headers, body, status, code, path) in cases {
        let (reply, stored) = send("/api/v1/events", &headers, body);
        assert_eq!((reply.status, reply.code()), (status, code), "{headers}: {}", reply.json);
        if !path.is_empty() && !path.contains('.') {
            assert_eq!(reply.json["details"][0]["path"], path, "{}", reply.json);
        }
        assert!(stored.is_empty());
    }
}
