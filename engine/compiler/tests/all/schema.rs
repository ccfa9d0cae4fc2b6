//! The JSON Schema and the reference pages: what is right passes, what is wrong does not, and all of it is explained.

use std::path::{Path, PathBuf};

use cornjacket_compiler::{load, pipeline_schema, reference_pages, render};
use cornjacket_core::component::Description;
use cornjacket_operators::REGISTRY;
use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

use super::{environment, repository};

fn schema() -> Value {
    pipeline_schema(&REGISTRY)
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options().with_draft(Draft::Draft7).build(schema).expect("a schema")
}

/// A file as an editor sees it: types follow from how values are written.
fn parsed(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// What the schema says against a file.
fn faults(validator: &Validator, yaml: &str) -> Vec<String> {
    let value = parsed(yaml);
    validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path)).collect()
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(repository(folder)).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let inner = format!("{folder}/{}", path.file_name().expect("a name").to_string_lossy());
            found.extend(yaml_files(&inner));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn the_schema_is_one() {
    let schema = schema();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    assert!(jsonschema::draft7::meta::is_valid(&schema));
    validator(&schema);
    let text = schema.to_string();
    for word in ["x-nullable", "\"$defs\"", "\"functions\"", "time_zone", "\"ttl\"", "\"aggregate\""] {
        assert!(!text.contains(word), "{word} is in the schema");
    }
}

#[test]
fn the_pipelines_and_templates_pass() {
    let validator = validator(&schema());
    let files: Vec<_> = yaml_files("pipelines").into_iter().chain(yaml_files("engine/server/templates")).collect();
    assert!(files.len() >= 4, "the files are gone");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a text");
        assert_eq!(faults(&validator, &text), Vec::<String>::new(), "{}", file.display());
    }
}

/// Whatever the compiler takes passes: of the files with one mistake, those whose mistake is only warned of.
#[test]
fn what_the_compiler_takes_passes() {
    let validator = validator(&schema());
    let mut seen = 0;
    for file in yaml_files("engine/compiler/tests/broken") {
        let outcome = load(&file, &environment, &REGISTRY);
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if outcome.pipeline.is_some() {
            seen += 1;
            assert_eq!(faults(&validator, &text), Vec::<String>::new(), "{}", file.display());
        }
    }
    assert!(seen > 3, "only {seen} files are right");
}

const RIGHT: &str = r#"
pipeline: house-2
description: 2026
events:
  sensor.reading:
    topic: sensor-events
    payload:
      value: double
      tags: list<string>
      matrix: list<list<double>>
      unit: { type: string, one_of: [celsius, 7, true], optional: "${OPTIONAL:-true}", pattern: "[a-z]+" }
      battery: { type: double, min: "${LEAST:-0}", max: 1e2 }
      place: { site: string, position: { x: double, y: { type: int, max_length: 3 } }, type: { of: string } }
      kind: "${KIND:-string}"
    unknown_fields: "${UNKNOWN:-keep}"
    watermark: { delay: 5s, idle: "${IDLE}", max_ahead: 90 m, per: partition }
  user.login:
topics: { sensor-events: { partitions: "${CJ_PARTITIONS:-4}" } }
sources:
  api: { http: { max_body_bytes: "${file:/run/limit}" } }
  other: { http: }
streams:
  warm: SELECT value FROM sensor.reading
  late: { sql: SELECT 1, lateness: 1m }
  filed: { sql_file: a.sql }
  empty: ""
sinks:
  state: { projection: { from: sensor.reading, key: ["${CJ_KEY}"], time: } }
  screen: { stdout: { from: warm } }
tests:
  - name: a
    given: [{ event_type: sensor.reading, aggregate_id: 7, event_time: "2026-01-01T00:00:10.5+01:00", payload: { value: 1 }, at: "2026-01-01T00:00:12Z" }, { odd: 1 }]
    advance_to: "2026-01-01T00:02:00Z"
    silence: 10s
    expect: { state: [{ value: 1 }], screen: { count: 2 }, warm: { containing: [{ value: 1 }] }, late: { exactly: [] } }
  - name: b
    steps: [{ given: [], expect: { dead_letters: { count: 1 } } }, { advance_to: "2026-01-01T00:02:00Z" }, { silence: "${LONG:-1h}" }, { expect: {} }]
"#;

#[test]
fn everything_right_passes_and_placeholders_everywhere() {
    let validator = validator(&schema());
    assert_eq!(faults(&validator, RIGHT), Vec::<String>::new());
    for section in ["events", "topics", "sources", "streams", "sinks", "tests"] {
        let empty = format!("pipeline: x\n{section}:\n");
        assert_eq!(faults(&validator, &empty), Vec::<String>::new());
    }
}

/// What stands in the file that is right, what is put in its place, and where the fault is then.
const WRONG: [(&str, &str, &str); 29] = [
    ("pipeline: house-2", "pipelin: house-2", ""),
    ("pipeline: house-2", "pipeline: House", "/pipeline"),
    ("events:", "functions: {}\nevents:", ""),
    ("  user.login:", "  userlogin:", "/events"),
    ("value: double\n", "value: dubble\n", "/events/sensor.reading/payload/value"),
    ("value: double\n", "event_time: timestamp\n", "/events/sensor.reading/payload"),
    ("min: \"${LEAST:-0}\"", "minimum: 0", "/events/sensor.reading/payload/battery"),
    ("min: \"${LEAST:-0}\"", "min: \"0\"", "/events/sensor.reading/payload/battery/min"),
    ("one_of: [celsius, 7, true]", "one_of: []", "/events/sensor.reading/payload/unit/one_of"),
    ("topic: sensor-events", "topic: sensor events", "/events/sensor.reading/topic"),
    ("unknown_fields: \"${UNKNOWN:-keep}\"", "unknown_fields: drop", "/events/sensor.reading/unknown_fields"),
    ("delay: 5s", "delay: 5 seconds", "/events/sensor.reading/watermark/delay"),
    ("delay: 5s", "delay: 5", "/events/sensor.reading/watermark/delay"),
    ("per: partition", "per: aggregate", "/events/sensor.reading/watermark/per"),
    ("{ partitions: \"${CJ_PARTITIONS:-4}\" }", "{ partitions: 0 }", "/topics/sensor-events/partitions"),
    ("{ partitions: \"${CJ_PARTITIONS:-4}\" }", "{ keep: 7d }", "/topics/sensor-events"),
    ("api: { http:", "api: { htp:", "/sources/api"),
    ("api: { http:", "api: { type: http, http:", "/sources/api"),
    ("other: { http: }", "other: http", "/sources/other"),
    ("\"${file:/run/limit}\"", "\"${limit}\"", "/sources/api/http/max_body_bytes"),
    ("\"${file:/run/limit}\"", "0", "/sources/api/http/max_body_bytes"),
    ("filed: { sql_file: a.sql }", "filed: { sql_file: a.sql, sql: SELECT 1 }", "/streams/filed"),
    ("lateness: 1m", "ttl: 1m", "/streams/late"),
    ("projection: {", "stdout: { from: warm }, projection: {", "/sinks/state"),
    ("projection: { from: sensor.reading,", "projection: {", "/sinks/state/projection"),
    ("key: [\"${CJ_KEY}\"]", "key: value", "/sinks/state/projection/key"),
    ("  screen:", "  Screen:", "/sinks"),
    ("screen: { count: 2 }", "screen: { counts: 2 }", "/tests/0/expect/screen"),
    ("{ silence: \"${LONG:-1h}\" }", "{ silence: 1h, expected: {} }", "/tests/1/steps/2"),
];

#[test]
fn what_is_wrong_is_found_at_its_place() {
    let validator = validator(&schema());
    for (right, wrong, place) in WRONG {
        assert!(RIGHT.contains(right), "{right} is not in the file");
        let faults = faults(&validator, &RIGHT.replacen(right, wrong, 1));
        let is_there = faults.iter().any(|fault| fault.starts_with(&format!("{place}: ")));
        assert!(is_there, "{wrong}: nothing at `{place}` among {faults:?}");
    }
}

/// Calls `visit` with the path of every schema, and whether it is a setting or an item that a user meets.
fn walk(path: &str, schema: &Map<String, Value>, is_met: bool, visit: &mut dyn FnMut(&str, &Map<String, Value>, bool)) {
    visit(path, schema, is_met);
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("properties" | "definitions", Value::Object(named)) => {
                for (name, inner) in named.iter().filter_map(|(name, inner)| Some((name, inner.as_object()?))) {
                    walk(&format!("{path}/{name}"), inner, true, visit);
                }
            }
            ("additionalProperties", Value::Object(inner)) => {
                walk(&format!("{path}/*"), inner, !inner.contains_key("$ref"), visit);
            }
            // An item that is no map is described by its list.
            ("items", Value::Object(inner)) => {
                walk(&format!("{path}/*"), inner, inner.contains_key("properties"), visit);
            }
            ("then" | "else" | "if", Value::Object(inner)) => walk(path, inner, false, visit),
            ("anyOf" | "oneOf" | "allOf", Value::Array(choices)) => {
                choices.iter().filter_map(Value::as_object).for_each(|inner| walk(path, inner, false, visit));
            }
            _ => {}
        }
    }
}

#[test]
fn every_setting_is_described_with_an_example() {
    let schema = schema();
    let mut missing = Vec::new();
    let mut seen = 0;
    walk("", schema.as_object().expect("an object"), false, &mut |path, schema, is_met| {
        // In conditions only the type of what is written matters.
        let is_bare = schema.len() == 1 && schema.contains_key("type");
        if !is_met || is_bare {
            return;
        }
        seen += 1;
        for keyword in ["description", "markdownDescription"] {
            if schema.get(keyword).and_then(Value::as_str).is_none_or(str::is_empty) {
                missing.push(format!("{path} has no {keyword}"));
            }
        }
        let explains = |keyword: &str| schema.contains_key(keyword);
        let is_list_item = path.ends_with("/*");
        if !is_list_item && !["examples", "default", "enum", "anyOf", "properties"].into_iter().any(explains) {
            missing.push(format!("{path} has no example"));
        }
    });
    assert!(seen > 50, "only {seen} settings");
    assert!(missing.is_empty(), "write doc comments and #[schemars(example = …)]:\n{}", missing.join("\n"));
}

#[test]
fn every_map_of_settings_refuses_others() {
    let schema = schema();
    walk("", schema.as_object().expect("an object"), false, &mut |path, schema, _| {
        let is_condition = schema.get("required").is_some() && schema.get("description").is_none();
        let is_nested_field = schema.get("additionalProperties").is_some_and(Value::is_object);
        if schema.contains_key("properties") && !is_condition && !is_nested_field {
            assert_eq!(schema.get("additionalProperties"), Some(&json!(false)), "{path}");
        }
    });
}

/// What the examples of components read: their event types and streams.
const AROUND: &str = r"
pipeline: example
events:
  sensor.reading: { payload: { value: double, unit: string } }
  user.login: { payload: { ip: string } }
streams:
  minutes: |
    SELECT device, window.start AS window_start, window.end AS window_end, avg_celsius FROM (
      SELECT tumble(interval '1 minute') AS window, aggregate_id AS device, avg(value) AS avg_celsius
      FROM sensor.reading GROUP BY window, device)
  hot: SELECT device, window_end, avg_celsius FROM minutes WHERE avg_celsius > 80
";

fn with_example(section: &str, kind: &Description) -> String {
    let example = kind.example.replace('\n', "\n      ");
    let sink = if section == "sinks" { "" } else { "sinks: { screen: { stdout: { from: sensor.reading } } }\n" };
    format!("{AROUND}{sink}{section}:\n  example:\n    {}:\n      {example}\n", kind.kind)
}

#[test]
fn the_example_of_every_component_is_right() {
    let validator = validator(&schema());
    let sources = REGISTRY.sources.iter().map(|spec| ("sources", spec.description));
    let sinks = REGISTRY.sinks.iter().map(|spec| ("sinks", spec.description));
    for (section, kind) in sources.chain(sinks) {
        let text = with_example(section, &kind);
        assert_eq!(faults(&validator, &text), Vec::<String>::new(), "{}", kind.kind);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipeline.yaml");
        std::fs::write(&path, &text).expect("a file");
        let outcome = load(&path, &environment, &REGISTRY);
        assert!(outcome.pipeline.is_some(), "{}", render(&outcome.diagnostics, false));
    }
}

#[test]
fn the_reference_is_as_the_components_say() {
    let folder = repository("docs/reference");
    let pages = reference_pages(&REGISTRY);
    assert_eq!(pages.len(), 1 + REGISTRY.sources.len() + REGISTRY.sinks.len());
    let is_updating = std::env::var_os("UPDATE_GOLDEN").is_some();
    for page in &pages {
        let path = folder.join(&page.path);
        if is_updating {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, &page.text).expect("a page");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(written, page.text, "{} differs (UPDATE_GOLDEN=1 writes it)", page.path);
    }
    for section in ["sources", "sinks"] {
        for entry in std::fs::read_dir(folder.join(section)).expect("pages").flatten() {
            let path = Path::new(section).join(entry.file_name());
            let is_known = pages.iter().any(|page| Path::new(&page.path) == path);
            assert!(is_known, "no component is described in docs/reference/{}: remove it", path.display());
        }
    }
}
