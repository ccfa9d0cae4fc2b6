//! The oracle: what `DataFusion` computes over the stored events as a plain table, and how results are compared.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::util::display::array_value_to_string;
use cornjacket_compiler::Pipeline;
use cornjacket_core::log::{Columns, EventLog, Positions};
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::{RowFilter, Store};
use datafusion::prelude::SessionContext;

/// A value, to be compared: numbers within 1e-9 relative, everything else by its text.
#[derive(Clone)]
pub enum Cell {
    Null,
    Number(f64),
    Text(String),
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => {
                (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Rows in an order of their own.
pub type Table = Vec<Vec<Cell>>;

/// Rows as cells, sorted by the text of their first `keys` columns.
pub fn table(rows: &RecordBatch, keys: usize) -> Table {
    let columns: Vec<Vec<Cell>> = rows.columns().iter().map(cells).collect();
    let mut table: Table = (0..rows.num_rows()).map(|row| columns.iter().map(|c| c[row].clone()).collect()).collect();
    table.sort_by_key(|row| format!("{:?}", &row[..keys]));
    table
}

fn cells(column: &ArrayRef) -> Vec<Cell> {
    let number = column.data_type().is_numeric().then(|| cast(column, &DataType::Float64).expect("a number"));
    let cell = |row| match &number {
        _ if column.is_null(row) => Cell::Null,
        Some(numbers) => Cell::Number(numbers.as_primitive::<Float64Type>().value(row)),
        None => Cell::Text(array_value_to_string(column, row).expect("a text")),
    };
    (0..column.len()).map(cell).collect()
}

/// Fails with the first rows that differ.
pub fn assert_same(actual: &Table, expected: &Table, what: &str) {
    if actual == expected {
        return;
    }
    let differing = actual.iter().zip(expected).find(|(a, b)| a != b);
    panic!("{what}: {} rows, expected {}; first difference: {differing:?}", actual.len(), expected.len());
}

/// A projection's rows without what every row has beside its columns.
pub fn projected(store: &dyn Store, spec: &ProjectionSpec) -> RecordBatch {
    let rows = store.rows(spec, &RowFilter::default(), None, 0).expect("reads").rows;
    rows.project(&(0..spec.schema.fields().len()).collect::<Vec<_>>()).expect("its own columns")
}

/// Every stored event of a type as SQL sees it, with its partition and offset.
pub fn stored_events(pipeline: &Pipeline, log: &dyn EventLog, event_type: &str) -> RecordBatch {
    let event_type = &pipeline.catalogue.types[event_type];
    let slice = log.read(&Positions::default(), None, usize::MAX, &Columns::All).expect("reads");
    let mut fields: Vec<Field> = event_type.table_schema().fields().iter().map(|field| (**field).clone()).collect();
    fields.push(Field::new("_partition", DataType::Int64, false));
    fields.push(Field::new("_offset", DataType::Int64, false));
    let schema = Arc::new(Schema::new(fields));
    let mut batches = Vec::new();
    for chunk in slice.chunks.iter().filter(|chunk| chunk.event_type.name == event_type.name) {
        let mut columns = event_type.table_rows(&chunk.rows, None).expect("fits").columns().to_vec();
        columns.push(Arc::new(Int64Array::from_value(i64::from(chunk.partition), chunk.rows.num_rows())));
        columns.push(Arc::new(chunk.offsets.clone()));
        batches.push(RecordBatch::try_new(Arc::clone(&schema), columns).expect("fits"));
    }
    concat_batches(&schema, &batches).expect("one schema")
}

/// What `DataFusion` answers over these rows as the table `events`.
pub fn batch(events: &RecordBatch, sql: &str) -> RecordBatch {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let context = SessionContext::new();
        context.register_batch("events", events.clone()).expect("registers");
        let frame = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        concat_batches(&schema, &batches).expect("one schema")
    })
}
