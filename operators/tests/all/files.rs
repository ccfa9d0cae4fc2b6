//! The file source: read in any number of pieces, begun anew at any position, it gives what one reading gives.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use cornjacket_core::catalogue::{Catalogue, EventType, Field, FieldType, UnknownFields, WatermarkPolicy};
use cornjacket_core::component::{BuiltSource, SourceContext};
use cornjacket_core::environment::{Clock, Environment, Random};
use cornjacket_core::source::{Pull, ReaderFactory};
use cornjacket_core::time::Micros;
use cornjacket_operators::sources::file::{SPEC, Settings};
use parquet::arrow::ArrowWriter;

struct Nothing;

impl Clock for Nothing {
    fn now(&self) -> Micros {
        0
    }

    fn monotonic(&self) -> Micros {
        0
    }
}

impl Random for Nothing {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(1);
    }
}

fn environment() -> Environment {
    Environment { clock: Arc::new(Nothing), random: Arc::new(Nothing) }
}

pub fn source(folder: &Path, path: &str) -> Arc<dyn ReaderFactory> {
    let fields = vec![Field::new("value", FieldType::Double), Field::new("note", FieldType::String).optional()];
    let policy = WatermarkPolicy::default();
    let reading = EventType::new("sensor.reading", "sensor-events", fields, UnknownFields::Keep, policy);
    let context = SourceContext {
        name: "import".into(),
        catalogue: Arc::new(Catalogue::new([reading], BTreeMap::new())),
        folder: folder.to_path_buf(),
    };
    let event = serde_json::json!({"type": "sensor.reading", "aggregate_id": "${payload.device}"});
    let settings: Settings =
        serde_json::from_value(serde_json::json!({"path": path, "event": event})).expect("settings");
    match (SPEC.build)(&settings, &context) {
        Ok(BuiltSource::Read(factory)) => factory,
        other => panic!("no source: {other:?}"),
    }
}

/// Every message from a position on, at most so many bundles, and the position behind them.
pub fn read(source: &dyn ReaderFactory, from: Option<&str>, bundles: usize) -> (Vec<String>, Option<String>, bool) {
    let mut reader = source.open(from, &environment()).expect("opens");
    let (mut messages, mut position) = (Vec::new(), from.map(str::to_string));
    for _ in 0..bundles {
        match reader.next().expect("reads") {
            Pull::Bundle(bundle) => {
                for message in &bundle.messages {
                    let text = String::from_utf8_lossy(&bundle.bytes[message.bytes.clone()]);
                    messages.push(format!("{}:{} {:?} {text}", bundle.origin, message.number, message.fault));
                }
                position.clone_from(&bundle.position);
            }
            Pull::Wait(_) => {}
            Pull::End => return (messages, position, true),
        }
    }
    (messages, position, false)
}

fn write_files(folder: &Path, rows: usize) {
    let value = |n: usize| f64::from(u32::try_from(n).expect("few")) / 4.0;
    let mut csv = "device,value,note\n".to_string();
    let mut ndjson = String::new();
    for n in 0..rows {
        // A note over two lines, quotes, an empty value, a row that is too short.
        let row = match n % 5 {
            0 => format!("d{n},{},\"two\nlines \"\"quoted\"\"\"\n", value(n)),
            1 => format!("d{n},{},\n", value(n)),
            2 if n % 7 == 0 => format!("d{n}\n"),
            _ => format!("d{n},{},plain\n", value(n)),
        };
        csv.push_str(&row);
        let _ = writeln!(ndjson, "{{\"device\":\"d{n}\",\"value\":{}}}", value(n));
    }
    std::fs::write(folder.join("in.csv"), csv).expect("written");
    std::fs::write(folder.join("in.ndjson"), ndjson).expect("written");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new(StringArray::from_iter_values((0..rows).map(|n| format!("d{n}"))))),
        ("value", Arc::new(Float64Array::from_iter_values((0..rows).map(value)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("rows");
    let mut parquet = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).expect("a writer");
    writer.write(&batch).and_then(|()| writer.close().map(|_| ())).expect("written");
    std::fs::write(folder.join("in.parquet"), parquet).expect("written");
}

#[test]
fn reading_that_begins_anew_anywhere_gives_what_one_reading_gives() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path(), 30_000);
    for path in ["in.csv", "in.ndjson", "in.parquet"] {
        let source = source(folder.path(), path);
        let (whole, _, ended) = read(&*source, None, usize::MAX);
        assert!(ended && whole.len() == 30_000, "{path}: {}", whole.len());
        let (mut pieces, mut position, mut ended) = (Vec::new(), None, false);
        while !ended {
            // Each process reads one bundle and dies.
            let (messages, behind, is_end) = read(&*source, position.as_deref(), 1);
            pieces.extend(messages);
            (position, ended) = (behind, is_end);
        }
        assert_eq!(pieces, whole, "{path}");
    }
}

#[test]
fn rows_of_csv_are_objects_by_the_types_of_the_catalogue() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "\u{feff}device,value,note,extra\r\nd1,1.5,007,x\r\nd2,NaN,\"a,b\",\r\nd3,,true,y\r\nd4,1,2,3,4\r\n";
    std::fs::write(folder.path().join("in.csv"), text).expect("written");
    let (messages, ..) = read(&*source(folder.path(), "in.csv"), None, usize::MAX);
    assert_eq!(
        messages,
        [
            r#"in.csv:2 None {"device":"d1","value":1.5,"note":"007","extra":"x"}"#,
            r#"in.csv:3 None {"device":"d2","value":"NaN","note":"a,b"}"#,
            r#"in.csv:4 None {"device":"d3","note":"true","extra":"y"}"#,
            r#"in.csv:5 Some("the row has 5 values, and the header has 4") d4,1,2,3,4"#,
        ]
    );
}

#[test]
fn what_is_not_a_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let why = |path: &str| source(folder.path(), path).open(None, &environment()).err().expect("refused").to_string();
    assert!(why("nothing.csv").ends_with("nothing.csv does not exist"));
    assert!(why("*.csv").starts_with("no file matches"));
    std::fs::write(folder.path().join("broken.parquet"), "PAR1 no").expect("written");
    let mut reader = source(folder.path(), "broken.parquet").open(None, &environment()).expect("opens");
    let error = reader.next().expect_err("broken").to_string();
    assert!(error.contains("broken.parquet cannot be read"), "{error}");
}
