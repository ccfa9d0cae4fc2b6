//! Events, projections and both backends.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::DataType;
use cornjacket_core::catalogue::{Catalogue, EventType, Field, FieldType, UnknownFields, WatermarkPolicy};
use cornjacket_core::environment::{Clock, Environment, Random};
use cornjacket_core::id::EventId;
use cornjacket_core::log::Events;
use cornjacket_core::store::Storage;
use cornjacket_core::time::Micros;
use cornjacket_storage::{open_embedded, sim::Disk};

/// When everything happens.
pub const NOW: Micros = 1_767_225_600_000_000;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Micros {
        NOW
    }

    fn monotonic(&self) -> Micros {
        0
    }
}

impl Random for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

pub fn environment() -> Environment {
    Environment { clock: Arc::new(Fixed), random: Arc::new(Fixed) }
}

pub fn catalogue(partitions: u32) -> Arc<Catalogue> {
    let event_type = |name: &str| {
        let fields = vec![Field::new("value", FieldType::Double)];
        EventType::new(name, "sensor-events", fields, UnknownFields::Keep, WatermarkPolicy::default())
    };
    let topics = BTreeMap::from([("sensor-events".to_string(), partitions)]);
    Arc::new(Catalogue::new([event_type("sensor.a"), event_type("sensor.b")], topics))
}

/// Opens a backend; called again it opens what was stored.
pub type Open = Box<dyn Fn(&Arc<Catalogue>) -> cornjacket_core::Result<Storage>>;

pub fn files(folder: &Path) -> Open {
    let folder = folder.to_path_buf();
    Box::new(move |catalogue| open_embedded(&folder, Arc::clone(catalogue), ("test", "1"), &environment()))
}

pub fn simulated() -> Open {
    let disk = Disk::new();
    Box::new(move |catalogue| disk.open_sound(catalogue))
}

/// A row to store: number (its id and value), aggregate, and whether a client gave the id.
pub type Row = (u32, String, bool);

pub fn id(number: u32) -> EventId {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&number.to_be_bytes());
    EventId::v7(NOW, &random)
}

pub fn events(catalogue: &Catalogue, event_type: &str, rows: &[Row], first: i64) -> Events {
    let event_type = Arc::clone(&catalogue.types[event_type]);
    let n = rows.len();
    let time = || -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![NOW; n]).with_timezone("UTC")) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::try_from_iter(rows.iter().map(|(number, _, _)| id(*number).0)).expect("rows")),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, aggregate, _)| aggregate))),
        time(),
        time(),
        new_null_array(&DataType::Utf8, n),
        Arc::new(StringArray::from(vec!["{}"; n])),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|(number, _, _)| f64::from(*number)))),
    ];
    let rows_of = RecordBatch::try_new(Arc::clone(event_type.stored_schema()), columns).expect("fits");
    let sequence = (0..n).map(|row| first + i64::try_from(row).expect("few"));
    let sequence = Int64Array::from_iter_values(sequence);
    let client_id = Some(rows.iter().map(|(_, _, given)| Some(*given)).collect::<BooleanArray>());
    Events { event_type, rows: rows_of, sequence, client_id }
}
