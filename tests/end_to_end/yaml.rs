//! Plain scalars of a pipeline file are what YAML's core schema says, in settings and in the rows of tests.

use crate::process::output;

const PIPELINE: &str = "
pipeline: scalars
events:
  a.b: { payload: { t: string, n: bigint, b: { type: boolean, optional: TRUE }, d: double } }
topics: { system-events: { partitions: 0x2 } }
sources: { api: { http: {} } }
streams:
  s: SELECT t, n, b, d FROM a.b
sinks:
  rows: { file: { from: s, path: rows.ndjson } }
tests:
  - name: scalars are what they are
    given:
      - { event_type: a.b, aggregate_id: k, payload: { t: !!str 12, n: 0x1F, b: TRUE, d: 1e3 } }
      - { event_type: a.b, aggregate_id: k, payload: { t: yes, n: 0o10, b: False, d: !!float 1 } }
      - { event_type: a.b, aggregate_id: k, payload: { t: 'x', n: !!int \"3\", b: ~, d: +12 } }
      - { event_type: a.b, aggregate_id: k, payload: { t: !!str true, n: -1, b: Null, d: .5 } }
      - { event_type: a.b, aggregate_id: k, payload: { t: 0b1, n: 012, b: NULL, d: 0xA } }
    expect:
      s:
        - { t: '12', n: 31, b: true, d: 1000 }
        - { t: 'yes', n: 8, b: false, d: 1 }
        - { t: 'x', n: 3, b: null, d: 12 }
        - { t: 'true', n: -1, b: null, d: 0.5 }
        - { t: '0b1', n: 12, b: null, d: 10 }
";

#[test]
fn scalars_are_those_of_the_core_schema() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scalars.yaml");
    std::fs::write(&file, PIPELINE).expect("written");
    let test = output(&["test", file.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&test.stdout).into_owned() + &String::from_utf8_lossy(&test.stderr);
    assert_eq!(test.status.code(), Some(0), "{said}");
}
