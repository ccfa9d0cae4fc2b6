//! Files with what nobody expects in them: what is wrong is a dead letter with its line, and the rest is read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, FixedSizeBinaryArray, Float64Array, Int32Builder, Int64Builder, MapBuilder, RecordBatch,
    StringArray, TimestampMillisecondArray,
};
use parquet::arrow::ArrowWriter;

use super::files::{read, source};

/// The lines, values and faults of a CSV file.
fn csv(text: impl AsRef<[u8]>) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("in.csv"), text).expect("written");
    let (messages, _, is_over) = read(&*source(folder.path(), "in.csv"), None, 1_000);
    assert!(is_over);
    messages.into_iter().map(|message| message.split_once(':').expect("a place").1.to_string()).collect()
}

const OPEN: &str =
    "Some(\"a quote is not closed, or closed in the middle of a value; a quote inside of quotes is written twice\")";

#[test]
fn a_quote_that_is_not_closed_costs_its_line() {
    let read = csv("device,value\na,1\nb,\"y\nc,3\nd,4\n");
    let rest = ["4 None {\"device\":\"c\",\"value\":3}", "5 None {\"device\":\"d\",\"value\":4}"];
    let expected = ["2 None {\"device\":\"a\",\"value\":1}".to_string(), format!("3 {OPEN} b,\"y")];
    assert_eq!(read, expected.iter().map(String::as_str).chain(rest).collect::<Vec<_>>());
    // The next quote is no end of it.
    let read = csv("device,note\na,1\nb,\"y\nc,\"z\"\nd,4\n");
    assert_eq!(read[1], format!("3 {OPEN} b,\"y"));
    assert_eq!(read[2..], ["4 None {\"device\":\"c\",\"note\":\"z\"}", "5 None {\"device\":\"d\",\"note\":\"4\"}"]);
    // In the last line, with an end of line and without, and with CR LF.
    for text in ["device,note\na,1\nb,\"y\n", "device,note\na,1\nb,\"y"] {
        assert_eq!(csv(text)[1], format!("3 {OPEN} b,\"y"), "{text}");
    }
    let read = csv("device,note\r\na,1\r\nb,\"y\r\nc,3\r\n");
    assert_eq!(read[1], format!("3 {OPEN} b,\"y"));
    assert_eq!(read[2], "4 None {\"device\":\"c\",\"note\":\"3\"}");
}

#[test]
fn a_quote_that_is_not_closed_takes_no_more_than_a_row_may() {
    let mut text = "device,note\nb,\"y\n".to_string();
    for n in 0..400_000 {
        text.extend(["d", &n.to_string(), ",plain\n"]);
    }
    let read = csv(&text);
    assert_eq!(read.len(), 400_001);
    assert_eq!(read[0], format!("2 {OPEN} b,\"y"));
    assert_eq!(read[400_000], "400002 None {\"device\":\"d399999\",\"note\":\"plain\"}");
}

#[test]
fn rows_over_several_lines_and_odd_ones_are_read_as_they_are() {
    assert_eq!(csv("device,note\na,\"one\ntwo\"\nb,3\n")[0], "2 None {\"device\":\"a\",\"note\":\"one\\ntwo\"}");
    assert_eq!(
        csv("device,note\na,\"say \"\"hi\"\"\n\"\nb,3\n")[0],
        "2 None {\"device\":\"a\",\"note\":\"say \\\"hi\\\"\\n\"}"
    );
    assert_eq!(csv("device,note\na,5\" pipe\n"), ["2 None {\"device\":\"a\",\"note\":\"5\\\" pipe\"}"]);
    assert_eq!(csv("device,note\n"), [""; 0]);
    assert_eq!(csv(""), [""; 0]);
    assert_eq!(csv("\u{feff}device,note\na,b\n"), ["2 None {\"device\":\"a\",\"note\":\"b\"}"]);
    let read = csv(b"device,note\na,\xff\nb,c\n");
    assert!(read[0].starts_with("2 Some(\"the value of \\\"note\\\" is not UTF-8\")"), "{read:?}");
    assert_eq!(read[1], "3 None {\"device\":\"b\",\"note\":\"c\"}");
    // A line that is too long costs itself, with quotes or without.
    for quote in ["", "\""] {
        let long = "x".repeat(5 << 20);
        let read = csv(format!("device,note\na,{quote}{long}{quote}\nb,c\n"));
        assert_eq!(read.len(), 2);
        assert!(read[0].starts_with("2 Some(\"the row has 52428"), "{}", &read[0][..100]);
        assert_eq!(read[1], "3 None {\"device\":\"b\",\"note\":\"c\"}");
    }
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<String> {
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
    let batch = batch.expect("rows");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("written");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("in.parquet"), bytes).expect("written");
    let (messages, _, is_over) = read(&*source(folder.path(), "in.parquet"), None, 1_000);
    assert!(is_over);
    messages.into_iter().map(|message| message.split_once(':').expect("a place").1.to_string()).collect()
}

#[test]
fn parquet_has_the_values_that_it_has() {
    let mut map = MapBuilder::new(None, Int32Builder::new(), Int64Builder::new());
    map.keys().append_value(7);
    map.values().append_value(70);
    map.append(true).expect("an entry");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new(StringArray::from(vec!["a"]))),
        ("map", Arc::new(map.finish())),
        ("date", Arc::new(Date32Array::from(vec![20_454]))),
        ("time", Arc::new(TimestampMillisecondArray::from(vec![1_767_225_600_000]))),
        ("value", Arc::new(Float64Array::from(vec![f64::NAN]))),
        ("bytes", Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8, 255]].into_iter()).expect("bytes"))),
    ];
    let expected = "1 None {\"device\":\"a\",\"map\":{\"7\":70},\"date\":\"2026-01-01\",\"time\":\"2026-01-01T00:00:00Z\",\
                    \"value\":\"NaN\",\"bytes\":\"01ff\"}";
    assert_eq!(parquet(columns), [expected]);
}

#[test]
fn a_date_beyond_the_calendar_is_a_dead_letter() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ("date", Arc::new(Date32Array::from(vec![0, i32::MAX, 1]))),
    ];
    let expected = [
        "1 None {\"device\":\"a\",\"date\":\"1970-01-01\"}",
        "2 Some(\"`date` has a date outside the years 1 to 9999\") {\"device\":\"b\",\"date\":null}",
        "3 None {\"device\":\"c\",\"date\":\"1970-01-02\"}",
    ];
    assert_eq!(parquet(columns), expected);
}

/// UUIDs are kept as bytes with a mark, which the Arrow writer does not set: this file is written by hand.
#[test]
fn uuids_have_their_dashes_and_json_is_json() {
    use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
    use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::Type;
    let column = |name: &str, physical, length, logical| {
        let column =
            Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED).with_length(length);
        let column = column.with_logical_type(Some(logical)).with_converted_type(ConvertedType::NONE);
        Arc::new(column.build().expect("a column"))
    };
    let columns = vec![
        column("device", Physical::FIXED_LEN_BYTE_ARRAY, 16, LogicalType::Uuid),
        column("j", Physical::BYTE_ARRAY, -1, LogicalType::Json),
    ];
    let schema = Arc::new(Type::group_type_builder("schema").with_fields(columns).build().expect("a schema"));
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).expect("a writer");
    let mut group = file.next_row_group().expect("a group");
    let mut ids = group.next_column().expect("no error").expect("a column");
    let id = FixedLenByteArray::from(ByteArray::from((0..16).collect::<Vec<u8>>()));
    ids.typed::<FixedLenByteArrayType>().write_batch(&[id], None, None).expect("written");
    ids.close().expect("written");
    let mut json = group.next_column().expect("no error").expect("a column");
    json.typed::<ByteArrayType>().write_batch(&[ByteArray::from("{\"a\":[1]}")], None, None).expect("written");
    json.close().expect("written");
    group.close().expect("written");
    file.close().expect("written");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("in.parquet"), bytes).expect("written");
    let (messages, ..) = read(&*source(folder.path(), "in.parquet"), None, 10);
    let expected = "{\"device\":\"00010203-0405-0607-0809-0a0b0c0d0e0f\",\"j\":{\"a\":[1]}}";
    assert!(messages[0].ends_with(expected), "{messages:?}");
}
