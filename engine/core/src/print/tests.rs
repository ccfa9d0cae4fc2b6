use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Date32Array, DurationSecondArray, Float32Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray, StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use serde_json::{Value, json};

use super::*;
use crate::json::marked;

fn batch(columns: Vec<(&str, ArrayRef)>, json: &[&str]) -> RecordBatch {
    let field = |(name, column): &(&str, ArrayRef)| {
        let field = Field::new(*name, column.data_type().clone(), true);
        if json.contains(name) { marked(field) } else { field }
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, column)| column).collect()).expect("a batch")
}

/// Both ways of printing give this.
fn assert_prints(column: ArrayRef, is_json: bool, expected: &[Value]) {
    let rows = batch(vec![("x", column)], if is_json { &["x"] } else { &[] });
    for (non_finite, expected) in [(NonFinite::Text, expected)] {
        let lines = json_lines(&rows, non_finite).expect("prints");
        let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let objects = row_objects(&rows, non_finite).expect("prints");
        for ((line, object), expected) in parsed.iter().zip(&objects).zip(expected) {
            assert_eq!((&line["x"], &object["x"]), (expected, expected));
        }
        assert_eq!(lines.len(), expected.len());
    }
}

#[test]
fn each_type_prints_in_one_way() {
    let time = "2026-01-01T00:00:00Z";
    let micros = 1_767_225_600_000_000;
    assert_prints(
        Arc::new(TimestampMicrosecondArray::from(vec![Some(micros), None])),
        false,
        &[json!(time), Value::Null],
    );
    assert_prints(Arc::new(TimestampMillisecondArray::from(vec![micros / 1_000])), false, &[json!(time)]);
    assert_prints(
        Arc::new(TimestampNanosecondArray::from(vec![micros * 1_000 + 1_500])),
        false,
        &[json!("2026-01-01T00:00:00.000001Z")],
    );
    assert_prints(Arc::new(Date32Array::from(vec![0, 2_932_896])), false, &[json!("1970-01-01"), json!("9999-12-31")]);
    assert_prints(Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN])), false, &[json!(i64::MAX), json!(i64::MIN)]);
    assert_prints(Arc::new(UInt64Array::from(vec![u64::MAX])), false, &[json!(u64::MAX)]);
    let doubles = vec![0.1, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, 5e-324];
    let printed =
        [json!(0.1), json!(-0.0), json!("NaN"), json!("Infinity"), json!("-Infinity"), json!(1e308), json!(5e-324)];
    assert_prints(Arc::new(Float64Array::from(doubles)), false, &printed);
    assert_prints(Arc::new(Float32Array::from(vec![0.1, f32::NAN])), false, &[json!(0.1), json!("NaN")]);
    assert_prints(Arc::new(BinaryArray::from(vec![&[0, 255][..]])), false, &[json!("00ff")]);
    assert_prints(Arc::new(StringViewArray::from(vec!["a\"b"])), false, &[json!("a\"b")]);
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
    assert_prints(Arc::new(lists), false, &[json!([1, null]), Value::Null, json!([])]);
    let texts = vec![Some(r#"{"a":[1,"b"]}"#), Some("\"c\""), Some("1.50"), Some("null"), None, Some("no JSON")];
    let values = [json!({"a": [1, "b"]}), json!("c"), json!(1.5), Value::Null, Value::Null, json!("no JSON")];
    assert_prints(Arc::new(StringArray::from(texts)), true, &values);
}

#[test]
fn queries_have_null_for_what_is_no_number() {
    let rows = batch(vec![("x", Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef)], &[]);
    assert_eq!(json_lines(&rows, NonFinite::Null).expect("prints"), [r#"{"x":null}"#]);
    assert_eq!(row_objects(&rows, NonFinite::Null).expect("prints")[0]["x"], Value::Null);
}

#[test]
fn what_nobody_can_print_is_found() {
    let outside: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from(vec![2_147_483_647])),
        Arc::new(Date32Array::from(vec![-719_163])),
        Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX])),
        Arc::new(TimestampMicrosecondArray::from(vec![253_402_300_800_000_000])),
        Arc::new(Time64MicrosecondArray::from(vec![86_400_000_000])),
        Arc::new(Time64MicrosecondArray::from(vec![-1])),
        Arc::new(DurationSecondArray::from(vec![i64::MAX])),
    ];
    for column in outside {
        let kind = column.data_type().clone();
        let rows = batch(vec![("fine", Arc::new(Int64Array::from(vec![1])) as ArrayRef), ("x", column)], &[]);
        let error = check_printable(&rows).expect_err("it cannot be printed").to_string();
        assert!(error.contains("`x` has a "), "{kind}: {error}");
    }
    let inside: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from(vec![Some(2_932_896), Some(-719_162), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![253_402_300_799_999_999])),
        Arc::new(Time64MicrosecondArray::from(vec![86_399_999_999])),
    ];
    for column in inside {
        assert!(is_printable(&column), "{column:?}");
    }
}

#[test]
fn cells_have_no_quotes() {
    let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None]));
    let field = Field::new("t", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), true);
    assert_eq!(cell_texts(&field, &column).expect("prints"), [Some("1970-01-01T00:00:00Z".to_string()), None]);
    let json: ArrayRef = Arc::new(StringArray::from(vec!["{\"a\":\"b\"}"]));
    let field = marked(Field::new("j", DataType::Utf8, true));
    assert_eq!(cell_texts(&field, &json).expect("prints"), [Some("{\"a\":\"b\"}".to_string())]);
}

#[test]
fn columns_stand_in_their_order() {
    let rows = batch(
        vec![
            ("b", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            ("a", Arc::new(Int64Array::from(vec![2])) as ArrayRef),
        ],
        &[],
    );
    assert_eq!(json_lines(&rows, NonFinite::Text).expect("prints"), [r#"{"b":1,"a":2}"#]);
}
