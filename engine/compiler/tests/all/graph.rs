//! What a right file becomes: nodes, exchanges, names and identities.

use cornjacket_compiler::{Pipeline, render};
use cornjacket_core::graph::{Exchange, Graph, Node, NodeKind};

use super::{load_example, load_text};

fn compiled(text: &str) -> Pipeline {
    let outcome = load_text(text);
    let shown = render(&outcome.diagnostics, false);
    outcome.pipeline.unwrap_or_else(|| panic!("{shown}"))
}

fn node<'a>(graph: &'a Graph, name: &str) -> &'a Node {
    graph.nodes.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name} in {}", table(graph)))
}

/// The graph as a table: name, kind, tasks, inputs.
fn table(graph: &Graph) -> String {
    let line = |node: &Node| {
        let kind = match &node.kind {
            NodeKind::Source { .. } => "source",
            NodeKind::Operator(operator) => operator.kind(),
            NodeKind::Sink(sink) => sink.kind(),
        };
        let inputs = node.inputs.iter().map(|input| {
            let exchange = match &input.exchange {
                Exchange::Forward => String::new(),
                Exchange::Hash(columns) => format!(" by {columns:?}"),
                Exchange::Gather => " gathered".into(),
            };
            format!("{}{exchange}", graph.nodes[input.node].name)
        });
        format!("{} | {kind} | {} | {}\n", node.name, node.tasks, inputs.collect::<Vec<_>>().join(", "))
    };
    graph.nodes.iter().map(line).collect()
}

const HEAD: &str = "
pipeline: test
events:
  sensor.reading: { payload: { value: double, room: string } }
  sensor.alarm: { payload: { value: double, room: string } }
  user.login: { payload: { value: double, room: string } }
topics:
  user-actions: { partitions: 2 }
sources: { api: { http: {} } }
";

#[test]
fn the_example_compiles_without_a_word() {
    let outcome = load_example();
    assert_eq!(render(&outcome.diagnostics, false), "");
    let pipeline = outcome.pipeline.unwrap();
    assert_eq!(pipeline.sources.len(), 2);
    assert_eq!(
        table(&pipeline.graph),
        "sensor.reading | source | 4 | \n\
         minutes/1 | transform | 4 | sensor.reading\n\
         minutes/2 | tumble | 4 | minutes/1\n\
         minutes | transform | 4 | minutes/2\n\
         hot | transform | 4 | minutes\n\
         sensor_state | projection | 4 | sensor.reading\n\
         user.login | source | 4 | \n\
         user_session | projection | 4 | user.login\n\
         device_minute | projection | 4 | minutes\n\
         page_oncall | webhook | 4 | hot\n"
    );
    let columns: Vec<String> =
        node(&pipeline.graph, "device_minute").schema.fields().iter().map(|f| f.name().clone()).collect();
    let wanted = ["device", "window_start", "window_end", "readings", "avg_celsius", "min_celsius", "max_celsius"];
    assert_eq!(columns, wanted);
}

/// Rows move between tasks only where equal keys are not together yet, also after a window shifted the columns.
#[test]
fn rows_are_shuffled_only_where_they_must_be() {
    let pipeline = compiled(&format!(
        "{HEAD}
streams:
  by_device: >
    SELECT window.start AS at, device, n FROM (SELECT tumble(interval '1 minute') AS window, aggregate_id AS device,
    count(*) AS n FROM sensor.reading GROUP BY window, device)
  hours: >
    SELECT window.start AS at, device, n FROM (SELECT tumble(interval '1 hour') AS window, device, sum(n) AS n
    FROM by_device GROUP BY window, device)
  by_room: >
    SELECT window.start AS at, room, n FROM (SELECT tumble(interval '1 minute') AS window, room, count(*) AS n
    FROM sensor.reading GROUP BY window, room)
  all_rooms: >
    SELECT window.start AS at, n FROM (SELECT tumble(interval '1 minute') AS window, sum(n) AS n
    FROM by_room GROUP BY window)
sinks:
  a: {{ projection: {{ from: hours, key: [device, at] }} }}
  b: {{ projection: {{ from: all_rooms, key: [at] }} }}
"
    ));
    let table = table(&pipeline.graph);
    let windows: Vec<&str> = table.lines().filter(|line| line.contains("tumble")).collect();
    assert_eq!(
        windows,
        [
            "by_device/2 | tumble | 4 | by_device/1",
            "hours/2 | tumble | 4 | hours/1",
            "by_room/2 | tumble | 4 | by_room/1 by [0]",
            "all_rooms/2 | tumble | 1 | all_rooms/1 gathered",
        ],
        "{table}"
    );
}

#[test]
fn unions_keep_the_placement_of_aggregates_only_where_partitions_agree() {
    let union = |second: &str| {
        compiled(&format!(
            "{HEAD}
streams:
  both: >
    SELECT window.start AS at, device, n FROM (SELECT tumble(interval '1 minute') AS window, device, sum(value) AS n FROM
    (SELECT aggregate_id AS device, value FROM sensor.reading UNION ALL
     SELECT aggregate_id AS device, value FROM {second}) GROUP BY window, device)
sinks:
  a: {{ projection: {{ from: both, key: [device, at] }} }}
"
        ))
    };
    let exchanges = |pipeline: &Pipeline, kind: &str| {
        let line = table(&pipeline.graph).lines().find(|line| line.contains(kind)).map(str::to_string);
        line.unwrap_or_else(|| table(&pipeline.graph))
    };
    let alike = union("sensor.alarm");
    assert!(!exchanges(&alike, "| union |").contains(" by "), "{}", table(&alike.graph));
    assert!(!exchanges(&alike, "| tumble |").contains(" by "), "{}", table(&alike.graph));
    let unlike = union("user.login");
    assert!(exchanges(&unlike, "| union |").contains(" by "), "{}", table(&unlike.graph));
    assert!(exchanges(&unlike, "| tumble |").contains("| 4 |"), "{}", table(&unlike.graph));
    assert!(exchanges(&unlike, "| tumble |").contains(" by [0]"), "{}", table(&unlike.graph));
}

#[test]
fn a_stream_is_computed_once_and_only_if_it_is_read() {
    let outcome = load_text(&format!(
        "{HEAD}
streams:
  last: SELECT device FROM first
  first: SELECT aggregate_id AS device FROM sensor.reading
  idle: SELECT device FROM first
sinks:
  a: {{ projection: {{ from: last, key: [device] }} }}
  b: {{ projection: {{ from: first, key: [device] }} }}
"
    ));
    let shown = render(&outcome.diagnostics, false);
    assert!(shown.contains("warning[CJ306]") && shown.contains("`idle`"), "{shown}");
    let graph = outcome.pipeline.expect("warnings do not stop it").graph;
    assert_eq!(graph.nodes.iter().filter(|node| node.name == "first").count(), 1);
    assert!(!graph.nodes.iter().any(|node| node.name.starts_with("idle")));
    for (at, node) in graph.nodes.iter().enumerate() {
        assert!(node.inputs.iter().all(|input| input.node < at), "inputs come first: {}", node.name);
    }
}

/// State is kept after an edit exactly where the node and everything upstream stayed the same.
#[test]
fn fingerprints_change_with_what_they_stand_for() {
    let pipeline = |delay: &str, width: &str, description: &str| {
        compiled(
            &format!(
                "{HEAD}  # a comment
description: {description}
streams:
  windows: >
    SELECT window.start AS at, device, n FROM (SELECT tumble(interval '{width}') AS window, aggregate_id AS device,
    count(*) AS n FROM sensor.reading GROUP BY window, device)
sinks:
  a: {{ projection: {{ from: windows, key: [device, at] }} }}
  b: {{ projection: {{ from: user.login, key: [aggregate_id] }} }}
"
            )
            .replace("  sensor.reading: {", &format!("  sensor.reading: {{ watermark: {{ delay: {delay} }},")),
        )
    };
    let of = |pipeline: &Pipeline, name: &str| node(&pipeline.graph, name).fingerprint.clone();
    let base = pipeline("5s", "1 minute", "one");
    let same = pipeline("5s", "1 minute", "other words");
    let width = pipeline("5s", "2 minute", "one");
    let delay = pipeline("6s", "1 minute", "one");
    for name in ["sensor.reading", "windows/1", "windows/2", "windows", "a", "b"] {
        assert_eq!(of(&base, name), of(&same, name), "{name}");
        assert_eq!(of(&base, name).len(), 32);
    }
    assert_eq!(of(&base, "windows/1"), of(&width, "windows/1"));
    assert_ne!(of(&base, "windows/2"), of(&width, "windows/2"));
    assert_ne!(of(&base, "a"), of(&width, "a"));
    assert_ne!(of(&base, "sensor.reading"), of(&delay, "sensor.reading"));
    assert_ne!(of(&base, "a"), of(&delay, "a"));
    assert_eq!(of(&base, "b"), of(&delay, "b"));
}

#[test]
fn the_environment_fills_values_of_any_type() {
    let pipeline = compiled(
        "pipeline: test
events: { sensor.reading: { payload: { value: double } } }
topics: { sensor-events: { partitions: \"${CJ_PARTITIONS}\" } }
sources: { api: { http: {} } }
sinks: { a: { projection: { from: '${CJ_FROM:-sensor.reading}', key: [ \"${CJ_KEY}\" ] } } }
",
    );
    assert_eq!(pipeline.catalogue.topics["sensor-events"], 8);
    assert_eq!(node(&pipeline.graph, "a").tasks, 8);
}

/// Everything after a window with lateness takes rows back, and sinks know it.
#[test]
fn a_window_with_lateness_makes_a_changelog() {
    let sink = |lateness: &str| {
        let pipeline = compiled(&format!(
            "{HEAD}
streams:
  windows:
    {lateness}
    sql: >
      SELECT window.start AS at, n FROM (SELECT tumble(interval '1 minute') AS window, count(*) AS n
      FROM sensor.reading GROUP BY window)
  busy: SELECT at, n FROM windows WHERE n > 10
sinks:
  a: {{ projection: {{ from: busy, key: [at] }} }}
"
        ));
        match &node(&pipeline.graph, "a").kind {
            NodeKind::Sink(sink) => sink.describe(),
            other => panic!("{other:?} is no sink"),
        }
    };
    assert!(sink("lateness: 1m").starts_with("changelog"));
    assert!(sink("lateness: 0s").starts_with("newest row"));
}
