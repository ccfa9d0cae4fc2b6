//! Expected rows against those that are there.
//!
//! Of each row only the columns that are named count, and the order of rows does not. Numbers are equal within 1e-9 of
//! their size, and times are equal if they are the same moment, however they are written.

use cornjacket_compiler::Expected;
use cornjacket_core::time::parse_rfc3339;
use serde_json::{Map, Value};

type Row = Map<String, Value>;

/// Rows shown of each kind of difference.
const SHOWN: usize = 20;

/// How many rows are expected at least.
pub(super) fn wanted(expected: &Expected) -> usize {
    match expected {
        Expected::Exactly(rows) | Expected::Containing(rows) => rows.len(),
        Expected::Count(count) => usize::try_from(*count).unwrap_or(usize::MAX),
    }
}

/// What differs, for people; `None` if nothing does.
pub(super) fn difference(expected: &Expected, found: &[Row]) -> Option<String> {
    match expected {
        Expected::Count(count) if *count == found.len() as u64 => None,
        Expected::Count(count) => {
            let mut text = format!("expected {}, found {}", rows(*count), found.len());
            for row in found.iter().take(SHOWN) {
                text.push_str("\n  + ");
                text.push_str(&line(row));
            }
            Some(text)
        }
        Expected::Exactly(wanted) => compare(wanted, found, true),
        Expected::Containing(wanted) => compare(wanted, found, false),
    }
}

fn rows(count: u64) -> String {
    if count == 1 { "1 row".into() } else { format!("{count} rows") }
}

fn compare(wanted: &[Row], found: &[Row], is_all: bool) -> Option<String> {
    let (missing, mut left) = unmatched(wanted, found);
    if missing.is_empty() && (left.is_empty() || !is_all) {
        return None;
    }
    let mut lines = Vec::new();
    for row in missing.iter().take(SHOWN) {
        // A row that is nearly right is shown beside it.
        match nearest(row, &left) {
            Some(at) => {
                let other = left.remove(at);
                lines.push(format!("  ~ {}", line(row)));
                lines.push(format!("    {}", differing(row, other)));
            }
            None => lines.push(format!("  - {}", line(row))),
        }
    }
    if is_all {
        lines.extend(left.iter().take(SHOWN).map(|row| format!("  + {}", line(row))));
    }
    let shown = if is_all { "expected" } else { "expected among others" };
    let head = format!("{shown} {}, found {}", rows(wanted.len() as u64), found.len());
    Some(format!("{head} (- missing, + unexpected, ~ different)\n{}", lines.join("\n")))
}

/// The expected rows that are not there, and the others that are.
fn unmatched<'a>(wanted: &'a [Row], found: &'a [Row]) -> (Vec<&'a Row>, Vec<&'a Row>) {
    let mut left: Vec<&Row> = found.iter().collect();
    // Those that name the most columns choose first, so that a loose one does not take their row.
    let mut order: Vec<&Row> = wanted.iter().collect();
    order.sort_by_key(|row| std::cmp::Reverse(row.len()));
    let mut missing = Vec::new();
    for row in order {
        match left.iter().position(|other| fits(row, other)) {
            Some(at) => {
                left.remove(at);
            }
            None => missing.push(row),
        }
    }
    (missing, left)
}

fn fits(wanted: &Row, found: &Row) -> bool {
    wanted.iter().all(|(column, value)| is_same(value, found.get(column).unwrap_or(&Value::Null)))
}

#[allow(clippy::float_cmp, reason = "equal infinities and zeros have no difference to divide")]
fn is_same(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Number(a), Value::Number(b)) => {
            if a == b {
                return true;
            }
            let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) else { return false };
            a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
        }
        (Value::String(a), Value::String(b)) => {
            a == b || matches!((parse_rfc3339(a), parse_rfc3339(b)), (Some(a), Some(b)) if a == b)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => fits(a, b),
        _ => wanted == found,
    }
}

/// The row that has the most columns right, if any is right.
fn nearest(wanted: &Row, left: &[&Row]) -> Option<usize> {
    let right = |row: &&Row| {
        wanted.iter().filter(|(column, value)| is_same(value, row.get(*column).unwrap_or(&Value::Null))).count()
    };
    let (at, best) = left.iter().map(right).enumerate().max_by_key(|(at, right)| (*right, std::cmp::Reverse(*at)))?;
    (best > 0).then_some(at)
}

fn differing(wanted: &Row, found: &Row) -> String {
    let found_of = |column: &str| found.get(column).unwrap_or(&Value::Null);
    let wrong = wanted.iter().filter(|(column, value)| !is_same(value, found_of(column)));
    wrong
        .map(|(column, value)| format!("{column}: expected {value}, found {}", found_of(column)))
        .collect::<Vec<_>>()
        .join("; ")
}

fn line(row: &Row) -> String {
    Value::Object(row.clone()).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(value: Value) -> Vec<Row> {
        let Value::Array(rows) = value else { panic!("a list") };
        rows.into_iter().map(|row| row.as_object().cloned().expect("a row")).collect()
    }

    #[test]
    fn only_named_columns_count_and_times_and_numbers_are_compared_by_what_they_are() {
        let found = table(json!([
            {"device": "d1", "n": 2, "at": "2026-01-01T00:01:00.000000Z", "avg": 0.300_000_000_000_000_04},
            {"device": "d2", "n": 1, "at": null, "avg": null},
        ]));
        let right = table(json!([
            {"device": "d2", "avg": null},
            {"avg": 0.3, "n": 2.0, "at": "2026-01-01T01:01:00+01:00"},
        ]));
        assert_eq!(difference(&Expected::Exactly(right.clone()), &found), None);
        assert_eq!(difference(&Expected::Containing(right[..1].to_vec()), &found), None);
        assert_eq!(difference(&Expected::Count(2), &found), None);
        assert!(difference(&Expected::Exactly(right[..1].to_vec()), &found).is_some());
        assert!(difference(&Expected::Exactly(Vec::new()), &found).is_some());
        assert_eq!(difference(&Expected::Exactly(Vec::new()), &[]), None);
    }

    #[test]
    fn a_difference_names_the_column() {
        let found = table(json!([{"device": "d1", "n": 3}, {"device": "d9", "n": 1}]));
        let wanted = table(json!([{"device": "d1", "n": 2}, {"device": "d2", "n": 7}]));
        let text = difference(&Expected::Exactly(wanted), &found).expect("different");
        assert_eq!(
            text,
            "expected 2 rows, found 2 (- missing, + unexpected, ~ different)\n  ~ {\"device\":\"d1\",\"n\":2}\n    \
             n: expected 2, found 3\n  - {\"device\":\"d2\",\"n\":7}\n  + {\"device\":\"d9\",\"n\":1}"
        );
    }

    /// A row with fewer columns must not take the only row that a row with more of them fits.
    #[test]
    fn loose_rows_choose_last() {
        let found = table(json!([{"a": 1, "b": 1}, {"a": 1, "b": 2}]));
        let wanted = table(json!([{"a": 1}, {"a": 1, "b": 1}]));
        assert_eq!(difference(&Expected::Exactly(wanted), &found), None);
    }
}
