//! The sections `events:` and `topics:`.

use cornjacket_core::catalogue::ENVELOPE;
use serde_json::{Value, json};

use super::shape::{NAME, Shape, or_placeholder};
use crate::fields::SCALARS;

/// What a topic may be called: Kafka's rule.
const TOPIC: &str = "^[A-Za-z0-9._-]{1,249}$";
const TOPIC_MESSAGE: &str = "write letters, digits, `-`, `_` and `.`, at most 249 of them";

/// The section `events:`.
pub(super) fn events() -> Shape {
    let description = "The catalogue: which events may come in. An event that does not fit is refused with the reason. \
                       The event type `sensor.reading` is the table `sensor.reading` in SQL.";
    let message = "write two lower-case parts joined by a dot, such as sensor.reading";
    let part = NAME.trim_start_matches('^').trim_end_matches('$');
    let body = json!({ "${1:sensor.reading}": { "payload": { "${2:value}": "${3:double}" } } });
    Shape::map(description, (&format!(r"^{part}\.{part}$"), message), event_type())
        .example(json!({ "sensor.reading": { "payload": { "value": "double" } } }))
        .snippet("Event type", "An event type with one field", &body)
}

fn event_type() -> Shape {
    let topic = "The topic that the events are kept in. Left out: `sensor-events` for `sensor.…`, `user-actions` for \
                 `user.…`, `system-events` for all others.";
    let unknown_fields = [
        ("keep", "A field that is not declared stays in the stored event, but is no column."),
        ("reject", "An event with a field that is not declared is refused."),
    ];
    let settings = vec![
        ("topic", Shape::pattern(topic, TOPIC, TOPIC_MESSAGE).example("sensor-events")),
        ("payload", payload()),
        (
            "unknown_fields",
            Shape::choice("What becomes of payload fields that are not declared.", &unknown_fields).default("keep"),
        ),
        ("watermark", watermark()),
    ];
    Shape::object("An event type: two lower-case parts joined by a dot.", settings).or_nothing()
}

fn payload() -> Shape {
    let description = "The fields of the payload; each is a column in SQL. An event type without it has only the column \
                       `payload` with the JSON text.";
    let pattern = format!("^(?!(?:{})$).{{1,63}}$", ENVELOPE.join("|"));
    let message = "every event has a column of that name: call the field otherwise, such as device_event_id";
    let body = json!({ "${1:value}": "${2:double}" });
    Shape::map(description, (&pattern, message), json!({ "$ref": "#/definitions/field" }))
        .example(json!({ "value": "double", "unit": { "type": "string", "one_of": ["celsius", "fahrenheit"] } }))
        .snippet("Field", "A field with its type", &body)
        .snippet(
            "Restricted field",
            "A field that takes only some texts",
            &json!({
                "${1:unit}": { "type": "string", "one_of": ["${2:celsius}", "${3:fahrenheit}"] }
            }),
        )
}

/// A field of a payload: a type, the long form, or nested fields. It is a definition since it nests.
pub(super) fn field() -> Shape {
    let description =
        "A field: its type, such as `double`, or `{ type: …, optional: true, … }`, or a map of nested fields.";
    let nested = json!({
        "type": "object",
        "description": "Nested fields: a struct in SQL.",
        "properties": { "type": {
            "$ref": "#/definitions/field",
            "description": "A nested field that is called `type`.",
            "examples": [{ "code": "string" }]
        } },
        "additionalProperties": { "$ref": "#/definitions/field" }
    });
    let is_long = json!({ "type": "object", "required": ["type"], "properties": { "type": { "type": "string" } } });
    let object = json!({ "if": is_long, "then": Value::from(long_form()), "else": nested });
    let mut field = Shape::new(&["string", "object"], description)
        .with("if", json!({ "type": "string" }))
        .with("then", field_type())
        .with("else", object)
        .example("double");
    // Editors look for completions of a value that is not there yet, so they do not look behind the condition.
    for name in type_names() {
        field = field.snippet(name, meaning(name), &name.into());
    }
    field.snippet("Long form", "A type with restrictions", &json!({ "type": "${1:double}", "optional": true }))
}

/// The types that are offered: all scalars, and lists of the most usual ones.
fn type_names() -> impl Iterator<Item = &'static str> {
    SCALARS.iter().map(|(name, _)| *name).chain(["list<string>", "list<double>"])
}

fn field_type() -> Shape {
    let names: Vec<&str> = type_names().collect();
    let meanings: Vec<&str> = type_names().map(meaning).collect();
    let scalars: Vec<&str> = SCALARS.iter().map(|(name, _)| *name).collect();
    let list = format!("^ *(list< *)+({})( *>)+ *$", scalars.join("|"));
    let message = format!("there is no such type: write {} or list<…> of one of them", scalars.join(", "));
    let listed = json!({ "type": "string", "enum": names, "enumDescriptions": meanings });
    let any_list = json!({ "type": "string", "pattern": or_placeholder(&list), "patternErrorMessage": message });
    Shape::text("The type of the field.").with("anyOf", json!([listed, any_list]))
}

fn meaning(name: &str) -> &'static str {
    match name {
        "boolean" => "true or false.",
        "int" => "A whole number of 32 bits.",
        "bigint" => "A whole number of 64 bits.",
        "float" => "A floating point number of 32 bits.",
        "double" => "A floating point number of 64 bits.",
        "string" => "A text.",
        "timestamp" => "A time: RFC 3339 text, or epoch seconds, milliseconds or microseconds by size.",
        "json" => "Any JSON, kept as its text; for the JSON functions of SQL.",
        _ => "A list of values of one type.",
    }
}

fn long_form() -> Shape {
    let texts = Shape::free_text("A text that is allowed.").example("celsius");
    let pattern = "A regular expression that the whole text must match (strings only). The syntax is that of Rust's \
                   regex crate.";
    let settings = vec![
        ("type", field_type()),
        ("optional", Shape::boolean("Whether the field may be missing or null.").default(false)),
        (
            "one_of",
            Shape::list("The only texts that are allowed (strings only).", texts)
                .with("minItems", 1)
                .example(json!(["celsius", "fahrenheit"])),
        ),
        ("min", Shape::number("The least value that is allowed (numbers only).").example(0)),
        ("max", Shape::number("The greatest value that is allowed (numbers only).").example(100)),
        (
            "max_length",
            Shape::integer("The most characters that a text may have (strings only).").with("minimum", 0).example(64),
        ),
        ("pattern", Shape::text(pattern).example("[A-Z]{2}[0-9]+")),
    ];
    Shape::object("A field with its type and what restricts its values.", settings).require(&["type"])
}

fn watermark() -> Shape {
    let delay = "How late an event may come and still count in its window. Windows close this much after their end.";
    let idle = "How long a silent partition holds windows open.";
    let max_ahead =
        "An event further in the future than this is refused, so that no wrong clock closes everyone's windows.";
    let per = [("partition", "Each partition has a clock of its own.")];
    let settings = vec![
        ("delay", Shape::span(delay).default("5s").example("5s")),
        ("idle", Shape::span(idle).default("30s").example("30s")),
        ("max_ahead", Shape::span(max_ahead).default("1m").example("1m")),
        ("per", Shape::choice("Whose events move a clock on.", &per).default("partition")),
    ];
    Shape::object("How time runs for the event type, by the events' own times.", settings)
        .or_nothing()
        .example(json!({ "delay": "5s", "idle": "30s", "max_ahead": "1m" }))
        .snippet(
            "Watermark",
            "The defaults",
            &json!({ "delay": "${1:5s}", "idle": "${2:30s}", "max_ahead": "${3:1m}" }),
        )
}

/// The section `topics:`.
pub(super) fn topics() -> Shape {
    let partitions = "How many partitions the topic has. It is set when the topic is first used. Events of one aggregate \
                      are in one partition, in order.";
    let partitions = Shape::integer(partitions).with("minimum", 1).with("maximum", 1024).default(4).example(8);
    let retain = "For how long events are kept, at the least: what is older is deleted once no snapshot needs it. They are \
                  kept for ever unless this is set. What was computed from them stays.";
    let retain = Shape::span(retain).example("7d");
    let settings = [("partitions", partitions), ("retain", retain)];
    let topic = Shape::object("A topic: where events of one or several types are kept.", settings);
    Shape::map(
        "Settings of topics; a topic that is not here has the defaults.",
        (TOPIC, TOPIC_MESSAGE),
        topic.or_nothing(),
    )
    .example(json!({ "sensor-events": { "partitions": 8 } }))
    .snippet("Topic", "A topic with its partitions", &json!({ "${1:sensor-events}": { "partitions": "${2:8}" } }))
}
