//! The section `streams:`.

use serde_json::json;

use super::shape::{NAME, NAME_MESSAGE, Shape};

const WINDOW: &str = "\
${1:minutes}: |
  SELECT device, window.start AS window_start, n FROM (
    SELECT tumble(interval '${2:1 minute}') AS window, aggregate_id AS device, count(*) AS n
    FROM ${3:sensor.reading} GROUP BY window, device)
";

/// The section `streams:`.
pub(super) fn streams() -> Shape {
    let description = "SQL over events and over other streams: `name: SELECT …`, or `name: { sql_file: path.sql }`. A \
                       stream is a table to all other streams.";
    Shape::map(description, (NAME, NAME_MESSAGE), stream())
        .example(json!({ "warm": "SELECT aggregate_id AS device, value FROM sensor.reading WHERE value > 30" }))
        .snippet(
            "Filter",
            "Rows that fulfil a condition",
            &json!({
                "${1:warm}": "SELECT aggregate_id, value FROM ${2:sensor.reading} WHERE ${3:value > 30}"
            }),
        )
        .snippet("Window", "Statistics of each minute", &WINDOW.into())
        .snippet("SQL file", "SQL from a file", &json!({ "${1:minutes}": { "sql_file": "${2:sql/minutes.sql}" } }))
}

fn stream() -> Shape {
    let file = "The file with the SQL. The path is relative to the pipeline file.";
    let lateness = "How much longer closed windows are kept, and give corrected rows when late ones come. Only sinks with \
                    a key may follow then. Only for a stream with a window.";
    let settings = vec![
        (
            "sql",
            Shape::text("The SQL: one SELECT.").example("SELECT aggregate_id AS device, value FROM sensor.reading"),
        ),
        ("sql_file", Shape::text(file).example("sql/minutes.sql")),
        ("lateness", Shape::span(lateness).default("0s").example("1m")),
    ];
    Shape::object("A stream: one SELECT, or a map with `sql` or `sql_file`.", settings)
        .with("type", json!(["string", "object"]))
        .with("if", json!({ "type": "object" }))
        .with("then", json!({ "oneOf": [{ "required": ["sql"] }, { "required": ["sql_file"] }] }))
        .example("SELECT aggregate_id AS device, value FROM sensor.reading")
        .example(json!({ "sql_file": "sql/minutes.sql", "lateness": "1m" }))
}
