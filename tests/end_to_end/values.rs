//! Values that come out right, or rows that are set aside with the reason: each as a pipeline with a test of its own, on the
//! real binary. `x` is what a stream computes from one event after another; a row that cannot be computed is a dead letter.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::process::output;

const FIELDS: &str = "{ t: { type: string, optional: true }, n: { type: bigint, optional: true }, \
    i: { type: int, optional: true }, d: { type: double, optional: true }, at: { type: timestamp, optional: true }, \
    j: { type: json, optional: true }, l: { type: list<bigint>, optional: true } }";

/// What the events' `x` are, and the words of the dead letters.
struct Case {
    name: &'static str,
    sql: String,
    events: Vec<Value>,
    rows: Vec<Value>,
    letters: Vec<&'static str>,
}

/// A column of each event that can be computed.
fn column(name: &'static str, expression: &str, events: &[Value], values: &[Value], letters: &[&'static str]) -> Case {
    Case {
        name,
        sql: format!("SELECT {expression} AS x FROM a.b"),
        events: events.to_vec(),
        rows: values.iter().map(|x| json!({ "x": x })).collect(),
        letters: letters.to_vec(),
    }
}

/// The events for which a condition is true, by their `n`.
fn condition(
    name: &'static str,
    condition: &str,
    events: &[Value],
    values: &[Value],
    letters: &[&'static str],
) -> Case {
    let mut case = column(name, "n", events, values, letters);
    case.sql = format!("SELECT n AS x FROM a.b WHERE {condition}");
    case
}

/// An aggregate over all events in one window.
fn aggregate(name: &'static str, aggregate: &str, events: &[Value], rows: &[Value], letters: &[&'static str]) -> Case {
    Case {
        name,
        sql: format!(
            "SELECT x, n FROM (SELECT tumble(interval '1 minute') AS w, {aggregate} AS x, count(*) AS n FROM a.b GROUP BY w)"
        ),
        events: events.to_vec(),
        rows: rows.to_vec(),
        letters: letters.to_vec(),
    }
}

fn n(values: &[i64]) -> Vec<Value> {
    values.iter().map(|value| json!({ "n": value })).collect()
}

fn numbers() -> Vec<Case> {
    let ends = n(&[i64::MAX, i64::MIN, 1]);
    vec![
        column(
            "add",
            "n + 1",
            &ends,
            &[json!(i64::MIN + 1), json!(2)],
            &["Overflow happened on: 9223372036854775807 + 1"],
        ),
        column("subtract", "n - 1", &ends, &[json!(i64::MAX - 1), json!(0)], &["-9223372036854775808 - 1"]),
        column("multiply", "n * 2", &ends, &[json!(2)], &["9223372036854775807 * 2", "-9223372036854775808 * 2"]),
        column("negate", "-n", &ends, &[json!(-i64::MAX), json!(-1)], &["0 - -9223372036854775808"]),
        column(
            "add_int",
            "i + i",
            &[json!({"i": i32::MAX}), json!({"i": 2})],
            &[json!(4)],
            &["2147483647 + 2147483647"],
        ),
        column("nested", "(n + 1) * (n - 1)", &n(&[3_037_000_500, 3]), &[json!(8)], &["Overflow"]),
        column("divide_least", "n / -1", &ends, &[json!(-i64::MAX), json!(-1)], &["verflow"]),
        column(
            "narrow",
            "CAST(n AS int)",
            &ends,
            &[json!(1)],
            &["value 9223372036854775807 to type Int32", "value -9223372036854775808"],
        ),
        condition("in_where", "n + 1 > 0", &ends, &[json!(1)], &["9223372036854775807 + 1"]),
        column("constant", "CASE WHEN n > 5 THEN 9223372036854775807 + 1 ELSE 0 END", &n(&[1]), &[json!(0)], &[]),
        // What comes to more in between is no matter: the same is promised whatever the order.
        aggregate("sum_between", "sum(n)", &n(&[i64::MAX, 1, -2]), &[json!({"x": i64::MAX - 1, "n": 3})], &[]),
        aggregate("sum", "sum(n)", &n(&[i64::MAX, 1]), &[], &["sum: the result is out of the range of Int64"]),
        aggregate("sum_twice", "sum(n) + count(n)", &n(&[i64::MAX - 5, 1]), &[json!({"x": i64::MAX - 2, "n": 2})], &[]),
        aggregate("sum_of_nulls", "sum(n)", &[json!({}), json!({})], &[json!({"x": null, "n": 2})], &[]),
        aggregate("sum_distinct", "sum(DISTINCT n)", &n(&[4, 4, 5]), &[json!({"x": 9, "n": 3})], &[]),
    ]
}

/// Keys of floating point: the zeros are one, and what is no number is told apart when it is printed.
fn keys() -> Vec<Case> {
    let zeros = [json!({"d": 0.0}), json!({"d": -0.0}), json!({"d": 1.5})];
    let grouped = |name, key: &str, events: &[Value], rows: &[Value]| {
        let mut case = aggregate(name, "n", events, rows, &[]);
        case.sql = format!(
            "SELECT x, n FROM (SELECT tumble(interval '1 minute') AS w, {key} AS x, count(*) AS n FROM a.b GROUP BY w, {key})"
        );
        case
    };
    let odd = |text: &str| json!({ "t": text });
    vec![
        grouped("zeros", "d", &zeros, &[json!({"x": 0.0, "n": 2}), json!({"x": 1.5, "n": 1})]),
        grouped("negated", "-d", &zeros, &[json!({"x": 0.0, "n": 2}), json!({"x": -1.5, "n": 1})]),
        grouped(
            "odd",
            "CAST(t AS double)",
            &[odd("NaN"), odd("inf"), odd("-inf"), odd("-NaN"), odd("-0")],
            &[
                json!({"x": "NaN", "n": 2}),
                json!({"x": "Infinity", "n": 1}),
                json!({"x": "-Infinity", "n": 1}),
                json!({"x": 0.0, "n": 1}),
            ],
        ),
        aggregate("distinct", "count(DISTINCT d)", &zeros, &[json!({"x": 2, "n": 3})], &[]),
    ]
}

fn growth() -> Vec<Case> {
    let text = |n: i64| json!({"t": "a", "n": n});
    let most = [text(i64::MAX), text(3)];
    vec![
        column(
            "lpad",
            "lpad(t, n)",
            &most,
            &[json!("  a")],
            &["lpad: a value would take up to 9223372036854775807 bytes"],
        ),
        column("rpad", "rpad(t, n, 'é')", &most, &[json!("aéé")], &["rpad: a value would take up to"]),
        column("repeat", "repeat(t, n)", &most, &[json!("aaa")], &["repeat: a value would take up to"]),
        column("repeat_nothing", "repeat('', n)", &most, &[json!(""), json!("")], &[]),
        column("repeat_negative", "repeat(t, n)", &[text(-1)], &[json!("")], &[]),
        column(
            "replace",
            "replace(lpad(t, n), ' ', repeat('b', n))",
            &[text(1_000_000), text(2)],
            &[json!("bba")],
            &["replace:"],
        ),
        column(
            "concat",
            "length(concat(lpad(t, n), lpad(t, n)))",
            &[text(600_000), text(2)],
            &[json!(4)],
            &["concat:"],
        ),
        column("operator", "length(lpad(t, n) || lpad(t, n))", &[text(600_000), text(2)], &[json!(4)], &["||:"]),
        column("list", "array_length(array_repeat(t, n))", &most, &[json!(3)], &["array_repeat:"]),
        column(
            "resize",
            "array_length(array_resize(l, n, 0))",
            &[json!({"l": [1], "n": i64::MAX}), json!({"l": [1], "n": 3})],
            &[json!(3)],
            &["array_resize:"],
        ),
        column("nulls", "array_length(array_repeat(NULL, n))", &most, &[json!(3)], &["array_repeat:"]),
        column("range", "array_length(range(0, n))", &most, &[json!(3)], &["range:"]),
        column("series", "array_length(generate_series(n, 0, -1))", &most, &[json!(4)], &["generate_series:"]),
        column(
            "pattern",
            "length(regexp_replace(lpad(t, n), ' ', repeat('b', n), 'g'))",
            &[text(1_000_000), text(2)],
            &[json!(3)],
            &["regexp_replace:"],
        ),
    ]
}

fn json_values() -> Vec<Case> {
    let door = json!({"n": 1, "t": "door", "j": {"a": [1, {"b": "c"}], "k": 2.5, "s": "text", "z": null}});
    let bare = json!({"n": 2, "t": "window"});
    let both = [door.clone(), bare.clone()];
    let one = [json!(1)];
    vec![
        condition("equal", "payload->>'t' = 'door'", &both, &one, &[]),
        condition("unequal", "payload->>'t' <> 'window'", &both, &one, &[]),
        condition("in", "payload->>'t' IN ('door', 'gate')", &both, &one, &[]),
        condition("like", "payload->>'t' LIKE 'd%'", &both, &one, &[]),
        condition("is_null", "payload->'j' IS NULL", &both, &[json!(2)], &[]),
        condition("and", "payload->>'t' = 'door' AND payload->'j'->>'s' = 'text'", &both, &one, &[]),
        condition("between", "payload->>'t' BETWEEN 'a' AND 'e'", &both, &one, &[]),
        condition("not", "NOT payload->>'t' = 'window'", &both, &one, &[]),
        condition("path", "payload#>>ARRAY['j', 's'] = 'text'", &both, &one, &[]),
        condition("has", "payload ? 'j'", &both, &one, &[]),
        column("join", "payload->>'t' || '!'", &both, &[json!("door!"), json!("window!")], &[]),
        column("cast", "(payload->>'n')::bigint + 1", &both, &[json!(2), json!(3)], &[]),
        column("get", "payload->'j'->'a'", std::slice::from_ref(&door), &[json!([1, {"b": "c"}])], &[]),
        column("get_item", "payload->'j'->'a'->1->>'b'", std::slice::from_ref(&door), &[json!("c")], &[]),
        column("get_text", "payload->'t'", &both, &[json!("door"), json!("window")], &[]),
        column("get_number", "(payload->'j'->'k')::double", std::slice::from_ref(&door), &[json!(2.5)], &[]),
        column("field", "j", &both, &[door["j"].clone(), Value::Null], &[]),
        aggregate("least", "min(payload->'n')", &both, &[json!({"x": 1, "n": 2})], &[]),
        aggregate(
            "all",
            "first_value(payload->'j' ORDER BY event_time)",
            std::slice::from_ref(&door),
            &[json!({"x": door["j"], "n": 1})],
            &[],
        ),
    ]
}

fn conditions() -> Vec<Case> {
    let events = n(&[0, 5]);
    let zero = ["Divide by zero"];
    vec![
        aggregate("filter", "sum(10 / n) FILTER (WHERE n <> 0)", &events, &[json!({"x": 2, "n": 2})], &[]),
        condition("and", "n <> 0 AND 10 / n > 1", &events, &[json!(5)], &[]),
        condition("or", "n = 0 OR 10 / n > 1", &events, &[json!(0), json!(5)], &[]),
        column("case", "CASE WHEN n <> 0 THEN 10 / n END", &events, &[Value::Null, json!(2)], &[]),
        column("both", "n <> 0 AND 10 / n = 2", &events, &[json!(false), json!(true)], &[]),
        column("unasked", "10 / n", &events, &[json!(2)], &zero),
    ]
}

fn times() -> Vec<Case> {
    let days = |n: i64| json!({ "n": n });
    let calendar = "outside the years 1 to 9999";
    let ends = [days(2_932_896), days(-719_162), days(2_932_897)];
    let end_days = [json!("9999-12-31"), json!("0001-01-01")];
    vec![
        column(
            "date",
            "CAST(CAST(n AS int) AS date)",
            &[days(2_147_483_647)],
            &[],
            &["`x` has a date outside the years"],
        ),
        column("date_ends", "CAST(CAST(n AS int) AS date)", &ends, &end_days, &[calendar]),
        column(
            "of_day",
            "arrow_cast(n, 'Time64(Microsecond)')",
            &[days(86_400_000_000), days(1_000_000)],
            &[json!("00:00:01")],
            &["a time of day that no day has"],
        ),
        column("seconds", "to_timestamp(n)", &[days(1_767_225_600)], &[json!("2026-01-01T00:00:00Z")], &[]),
        column("far_seconds", "to_timestamp(n)", &[days(253_402_300_799)], &[json!("9999-12-31T23:59:59Z")], &[]),
        column("of_double", "to_timestamp(d)", &[json!({"d": 1.5})], &[json!("1970-01-01T00:00:01.5Z")], &[]),
        // As PostgreSQL reads it, and as it is read in an event.
        column(
            "leap_second",
            "CAST(t AS timestamp)",
            &[json!({"t": "2026-01-01T12:30:60Z"})],
            &[json!("2026-01-01T12:31:00Z")],
            &[],
        ),
    ]
}

/// Times at both ends of the calendar, through everything that works on times.
fn far_times() -> Vec<Case> {
    let (last, first) = ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z");
    let far = [json!({"at": last, "t": last}), json!({"at": first, "t": "0001-01-01"})];
    let text =
        |name, expression: &str, values: [&str; 2]| column(name, expression, &far, &values.map(Value::from), &[]);
    let truth =
        |name, expression: &str, values: [bool; 2]| column(name, expression, &far, &values.map(Value::from), &[]);
    let summer = [json!({"at": "2026-07-01T12:00:00Z"})];
    vec![
        text("field", "at", [last, first]),
        text("trunc", "date_trunc('day', at)", ["9999-12-31T00:00:00Z", first]),
        text("trunc_quarter", "date_trunc('quarter', at)", ["9999-10-01T00:00:00Z", first]),
        column("trunc_week", "date_trunc('week', at)", &summer, &[json!("2026-06-29T00:00:00Z")], &[]),
        text("bin", "date_bin(interval '15 minutes', at)", ["9999-12-31T23:45:00Z", first]),
        text(
            "bin_months",
            "date_bin(interval '3 months', at, TIMESTAMP '2000-01-01')",
            ["9999-10-01T00:00:00Z", first],
        ),
        text("char", "to_char(at, '%Y-%m-%d %H:%M')", ["9999-12-31 23:59", "0001-01-01 00:00"]),
        text("parsed", "to_timestamp(t)", [last, first]),
        text("cast", "CAST(t AS timestamp)", [last, first]),
        text("as_date", "CAST(at AS date)", ["9999-12-31", "0001-01-01"]),
        text("shifted", "at + interval '1 year' - interval '1 year'", [last, first]),
        truth("literal", "at < TIMESTAMP '9999-12-31T00:00:00Z'", [false, true]),
        truth("text", "at >= '0001-01-01T00:00:01Z'", [true, false]),
        truth("day", "at > DATE '9999-01-01'", [true, false]),
        truth("between", "at BETWEEN '1500-01-01' AND '9999-12-31T23:59:59Z'", [true, false]),
        truth("listed", "at IN ('0001-01-01', TIMESTAMP '2026-01-01')", [false, true]),
        column("constant", "TIMESTAMP '9999-12-31T23:59:59Z'", &far[..1], &[json!(last)], &[]),
        column("part", "date_part('year', at)", &far, &[json!(9999), json!(1)], &[]),
        column(
            "minus",
            "at - interval '1 day'",
            &far,
            &[json!("9999-12-30T23:59:59Z")],
            &["`x` has a time outside the years 1 to 9999"],
        ),
        column("elsewhere", "date_part('hour', at AT TIME ZONE 'Europe/Berlin')", &summer, &[json!(14)], &[]),
    ]
}

/// A pipeline of the case, with the test that it is.
fn written(case: &Case) -> String {
    let mut text = format!(
        "pipeline: one\nevents:\n  a.b: {{ payload: {FIELDS} }}\nsources: {{ api: {{ http: {{}} }} }}\nstreams:\n  s: |\n    {}\n\
         sinks:\n  rows: {{ file: {{ from: s, path: rows.ndjson }} }}\n  table: {{ stdout: {{ from: s }} }}\n\
         tests:\n  - name: it is as it should be\n    given:\n",
        case.sql
    );
    for (second, payload) in case.events.iter().enumerate() {
        let event = json!({
            "event_type": "a.b", "aggregate_id": "k", "event_time": format!("2026-01-01T00:00:{second:02}Z"), "payload": payload,
        });
        let _ = writeln!(text, "      - {event}");
    }
    let _ = writeln!(text, "    advance_to: \"2026-01-01T00:02:00Z\"\n    expect:");
    let lines: Vec<Value> = case.rows.clone();
    let letters: Vec<Value> = case.letters.iter().map(|_| json!({"reason": "compute"})).collect();
    let _ = write!(text, "      s: {}\n      rows: {}\n", json!(lines), json!(lines));
    let _ = writeln!(text, "      dead_letters: {}", json!(letters));
    text
}

fn assert_all(cases: &[Case]) {
    let folder = tempfile::tempdir().expect("a folder");
    for case in cases {
        std::fs::write(folder.path().join(format!("{}.yaml", case.name)), written(case)).expect("written");
    }
    let path = folder.path().to_str().expect("UTF-8");
    for arguments in [vec!["test", path], vec!["test", path, "--crash", "3"]] {
        let test = output(&arguments);
        let said = String::from_utf8_lossy(&test.stdout).into_owned() + &String::from_utf8_lossy(&test.stderr);
        assert_eq!(test.status.code(), Some(0), "{said}");
    }
    words(folder.path(), cases);
}

/// The dead letters say what was wrong: a test that expects other words fails, and shows those that there are.
fn words(folder: &Path, cases: &[Case]) {
    for case in cases.iter().filter(|case| !case.letters.is_empty()) {
        let wrong = written(case).replace("\"reason\":\"compute\"", "\"message\":\"\"");
        let file = folder.join(format!("{}.yaml", case.name));
        std::fs::write(&file, wrong).expect("written");
        let said = String::from_utf8_lossy(&output(&["test", file.to_str().expect("UTF-8")]).stdout).into_owned();
        for letter in &case.letters {
            assert!(said.contains(letter), "{}: {letter} is not in {said}", case.name);
        }
    }
}

#[test]
fn whole_numbers_never_wrap_around() {
    assert_all(&numbers());
}

#[test]
fn zeros_are_one_key_and_what_is_no_number_is_told_apart() {
    assert_all(&keys());
}

#[test]
fn what_would_be_too_large_is_set_aside_before_it_is_made() {
    assert_all(&growth());
}

#[test]
fn json_operators_mean_what_they_mean_in_postgresql_and_give_json() {
    assert_all(&json_values());
}

#[test]
fn an_expression_is_computed_only_where_it_is_asked_for() {
    assert_all(&conditions());
}

#[test]
fn times_work_from_year_1_to_9999() {
    assert_all(&far_times());
}

#[test]
fn times_print_with_their_zone_or_are_set_aside() {
    assert_all(&times());
}
