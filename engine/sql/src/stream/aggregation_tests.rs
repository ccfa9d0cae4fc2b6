//! What the compiler takes of aggregates can be computed.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use cornjacket_core::aggregate::Relation;
use cornjacket_core::batch::Batch;
use cornjacket_core::time::timestamp_type;

use super::{StreamOptions, Tables, compile_stream};
use crate::listing::of_streams;

/// Every aggregate on every type that an event may have: what compiles can be computed, saved and restored.
#[test]
fn aggregates_that_compile_can_be_computed() {
    let types = ["t", "n", "i", "f", "d", "b", "ts", "l", "m"];
    let kinds = [
        DataType::Utf8,
        DataType::Int64,
        DataType::Int32,
        DataType::Float32,
        DataType::Float64,
        DataType::Boolean,
        timestamp_type(),
        DataType::new_list(DataType::Int64, true),
        DataType::Struct(vec![Field::new("x", DataType::Float64, true)].into()),
    ];
    let fields: Vec<Field> =
        types.iter().zip(&kinds).map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let tables = Tables { schemas: [("all".to_string(), Arc::clone(&schema))].into() };
    let (mut compiled, mut refused) = (0, 0);
    for name in of_streams().aggregates.keys() {
        for kind in types.iter().chain(&["CAST(ts AS date)", "CAST(d AS decimal(20, 3))", "t::bytea", "ts - ts"]) {
            for arguments in
                [(*kind).to_string(), format!("{kind}, {kind}"), format!("{kind}, 0.5"), format!("{kind}, ','")]
            {
                let sql = format!(
                    "SELECT tumble(interval '1 minute') AS w, \"{name}\"({arguments}) AS x FROM all GROUP BY w"
                );
                let outcome = std::panic::catch_unwind(|| compile_stream(&sql, &tables, StreamOptions::default()));
                let Ok(Ok(relation)) = outcome else {
                    refused += 1;
                    continue;
                };
                compiled += 1;
                compute_nothing_but_nulls(&relation, &schema, &sql);
            }
        }
    }
    assert!(compiled > 100 && refused > 100, "{compiled} compiled, {refused} refused");
}

fn compute_nothing_but_nulls(relation: &Relation, schema: &SchemaRef, sql: &str) {
    let mut relation = relation;
    while let Relation::Transform { input, .. } = relation {
        relation = input;
    }
    let Relation::Tumble { input, window } = relation else { panic!("{sql}: no window") };
    let Relation::Transform { transform, .. } = input.as_ref() else { return };
    let rows = RecordBatch::try_new(
        Arc::clone(schema),
        schema.fields().iter().map(|field| new_null_array(field.data_type(), 3)).collect(),
    );
    let batch = Batch::computed(rows.expect("rows"), 0, 0, 0, None);
    let prepared = transform.apply(batch).expect("prepared").rows;
    let mut groups = window.aggregation.create().expect("groups");
    groups.update(&prepared).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let state = groups.take_state().unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut again = window.aggregation.create().expect("groups");
    again.merge(&state).unwrap_or_else(|error| panic!("{sql}: {error}"));
    again.evaluate().unwrap_or_else(|error| panic!("{sql}: {error}"));
}
