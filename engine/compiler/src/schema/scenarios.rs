//! The section `tests:`: what comes of given events.

use serde_json::{Value, json};

use super::shape::{NAME_MESSAGE, Shape};

const TIME: &str =
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})?$";
const TIME_MESSAGE: &str = "write a time such as 2026-01-01T00:02:00Z";

/// A sink, a stream, an event type or `dead_letters`.
const EXPECTED_NAME: &str = r"^[a-z][a-z0-9_]{0,62}(\.[a-z][a-z0-9_]{0,62})?$";

/// A text rather than a value, for the order of its lines.
const TEST: &str = "\
- name: ${1:a reading is kept}
  given:
    - { event_type: ${2:sensor.reading}, aggregate_id: ${3:d1}, event_time: \"2026-01-01T00:00:10Z\", payload: { ${4:value}: 1 } }
  expect:
    ${5:newest}: [{ aggregate_id: ${3:d1} }]
";

/// The section `tests:`.
pub(super) fn scenarios() -> Shape {
    let description = "Tests of the pipeline: given events, what the sinks get. `cornjacket test FILE` runs them.";
    Shape::list(description, scenario()).or_nothing().example(json!([example()])).snippet(
        "Test",
        "Events and what they lead to",
        &TEST.into(),
    )
}

fn example() -> Value {
    json!({
        "name": "the newest reading stays",
        "given": [event_example()],
        "advance_to": "2026-01-01T00:02:00Z",
        "expect": { "newest": [{ "aggregate_id": "d1", "value": 21.5 }] }
    })
}

fn event_example() -> Value {
    json!({
        "event_type": "sensor.reading",
        "aggregate_id": "d1",
        "event_time": "2026-01-01T00:00:10Z",
        "payload": { "value": 21.5 }
    })
}

fn scenario() -> Shape {
    let name = Shape::free_text("What the test shows; no other test of the file has this name.");
    let steps = "What happens after that, step by step. A step has what a test has: `given`, `advance_to`, `silence` and \
                 `expect`, and does them in this order.";
    let steps = Shape::list(steps, step()).or_nothing().example(json!([
        { "given": [event_example()] },
        { "silence": "1m" },
        { "expect": { "newest": [{ "aggregate_id": "d1" }] } }
    ]));
    let settings = [("name", name.example("the newest reading stays"))].into_iter().chain(actions());
    Shape::object("A test.", settings.chain([("steps", steps)])).require(&["name"]).example(example())
}

fn step() -> Shape {
    Shape::object("A step of a test: `given`, `advance_to`, `silence` and `expect`, in this order.", actions())
        .example(json!({ "advance_to": "2026-01-01T00:02:00Z" }))
}

/// What a test or a step of it may do, in the order in which it does it.
fn actions() -> Vec<(&'static str, Shape)> {
    let given = Shape::list("The events that come in, in this order.", event()).or_nothing();
    let advance = "Time goes on to here, by the events' own time: every window that ends by then closes.";
    let silence = "No event comes for this long.";
    vec![
        ("given", given.example(json!([event_example()]))),
        ("advance_to", Shape::pattern(advance, TIME, TIME_MESSAGE).example("2026-01-01T00:02:00Z")),
        ("silence", Shape::span(silence).example("1m")),
        ("expect", expect()),
    ]
}

/// An event may be wrong on purpose, so nothing is demanded of it.
fn event() -> Shape {
    let time = "When it happened: RFC 3339. Left out, the time at which it comes in.";
    let at = "When it comes in; its own time unless set, and never before an earlier event.";
    let id = "Its id, a UUID. Left out, one is given.";
    let settings = vec![
        ("event_type", Shape::text("Its type, as declared under `events:`.").example("sensor.reading")),
        ("aggregate_id", Shape::free_text("What it is about: a device, a user.").example("d1")),
        ("event_time", Shape::free_text(time).example("2026-01-01T00:00:10Z")),
        ("event_id", Shape::free_text(id).example("01a20765-bedc-78b0-8e41-a4c2c28770cf")),
        ("payload", anything("The values of its fields.").example(json!({ "value": 21.5 }))),
        ("metadata", anything("What is said of it beside the payload.").example(json!({ "site": "north" }))),
        ("trace_id", Shape::free_text("The trace that it belongs to.").example("4bf92f3577b34da6")),
        ("at", Shape::pattern(at, TIME, TIME_MESSAGE).example("2026-01-01T00:00:12Z")),
    ];
    let other = anything("This is sent as it stands, and is likely to be refused.");
    Shape::object("An event, as a client posts it.", settings)
        .with("additionalProperties", Value::from(other))
        .example(event_example())
        .snippet("Event", "An event with its time", &event_snippet())
}

fn event_snippet() -> Value {
    json!({ "event_type": "${1:sensor.reading}", "aggregate_id": "${2:d1}", "event_time": "2026-01-01T00:00:10Z",
            "payload": { "${3:value}": 1 } })
}

fn anything(description: &str) -> Shape {
    Shape::new(&["object", "array", "string", "number", "boolean", "null"], description)
}

fn expect() -> Shape {
    let description = "The rows that are there, by the name of a sink, stream or event type; `dead_letters` has what went \
                       wrong. Of a projection it is the whole table, of all else what came since it was last looked at.";
    let body = json!({ "${1:newest}": [{ "${2:aggregate_id}": "${3:d1}" }] });
    Shape::map(description, (EXPECTED_NAME, NAME_MESSAGE), expected_rows())
        .example(json!({ "newest": [{ "aggregate_id": "d1", "value": 21.5 }] }))
        .snippet("Rows", "The rows of a sink or stream", &body)
}

/// A list of rows, or a map that says how they are compared.
fn expected_rows() -> Shape {
    let rows = |text: &str| Shape::list(text, row()).or_nothing().example(json!([{ "aggregate_id": "d1" }]));
    let settings = vec![
        ("exactly", rows("These rows and no others.")),
        ("containing", rows("These rows, perhaps among others.")),
        ("count", Shape::integer("How many rows there are.").with("minimum", 0).example(1)),
    ];
    let description = "The rows that are expected, in any order: a list for just these, or one of `exactly`, \
                       `containing` and `count`.";
    Shape::object(description, settings)
        .with("type", json!(["array", "object"]))
        .with("items", row())
        .with("minProperties", 1)
        .with("maxProperties", 1)
        .example(json!([{ "aggregate_id": "d1", "value": 21.5 }]))
        .example(json!({ "count": 1 }))
}

fn row() -> Shape {
    Shape::new(&["object"], "A row: the columns that count, with their values. Others may have any.")
        .example(json!({ "aggregate_id": "d1", "value": 21.5 }))
}
