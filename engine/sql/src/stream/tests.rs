//! What compiles to what, and what is refused with which words.

use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::pretty::pretty_format_batches;
use cornjacket_core::aggregate::Relation;
use cornjacket_core::batch::Batch;
use cornjacket_core::time::timestamp_type;

use super::{SqlFault, StreamOptions, Tables, compile_stream, tables_of};

pub(super) fn tables() -> Tables {
    let reading = Schema::new(vec![
        Field::new("aggregate_id", DataType::Utf8, false),
        Field::new("event_time", timestamp_type(), false),
        Field::new("value", DataType::Float64, false),
        Field::new("unit", DataType::Utf8, false),
        Field::new("batteryLevel", DataType::Float64, true),
    ]);
    let readings =
        Schema::new(vec![Field::new("device", DataType::Utf8, false), Field::new("celsius", DataType::Float64, false)]);
    let schemas = [("sensor.reading", reading), ("readings", readings)];
    Tables { schemas: schemas.into_iter().map(|(name, schema)| (name.to_string(), Arc::new(schema))).collect() }
}

fn compile(sql: &str) -> Result<Relation, Vec<SqlFault>> {
    compile_stream(sql, &tables(), StreamOptions::default())
}

fn outline(relation: &Relation) -> String {
    match relation {
        Relation::Table { name, .. } => name.clone(),
        Relation::Transform { input, transform } => format!("{} | {}", outline(input), transform.describe()),
        Relation::Union { inputs } => {
            format!("union({})", inputs.iter().map(outline).collect::<Vec<_>>().join(", "))
        }
        Relation::Tumble { input, window } => {
            format!("{} | tumble {}s {}", outline(input), window.width / 1_000_000, window.aggregation.describe())
        }
    }
}

fn columns(relation: &Relation) -> String {
    let column = |field: &Arc<Field>| format!("{} {}", field.name(), field.data_type());
    relation.schema().fields().iter().map(column).collect::<Vec<_>>().join(", ")
}

#[test]
fn streams_compile_to_chains_and_windows() {
    let relation = compile(
        "SELECT device, window.start AS window_start, n FROM (
           SELECT tumble(interval '1 minute') AS window, aggregate_id AS device, count(*) AS n
           FROM sensor.reading WHERE value > 1.0 GROUP BY window, device)",
    )
    .expect("compiles");
    let text = outline(&relation);
    assert!(text.starts_with("sensor.reading | "), "{text}");
    assert!(text.contains("| tumble 60s count(Int64(1)) by aggregate_id |"), "{text}");
    assert_eq!(columns(&relation), "device Utf8, window_start Timestamp(µs, \"UTC\"), n Int64");
}

#[test]
fn unions_and_common_table_expressions_compile() {
    let relation = compile(
        "WITH hot AS (SELECT device, celsius FROM readings WHERE celsius > 80)
         SELECT * FROM hot UNION ALL SELECT aggregate_id, value FROM sensor.reading",
    )
    .expect("compiles");
    assert!(outline(&relation).starts_with("union("), "{}", outline(&relation));
    assert_eq!(columns(&relation), "device Utf8, celsius Float64");
}

#[test]
fn a_chain_computes_what_its_sql_says() {
    let sql = "SELECT device, (celsius * 9 / 5) + 32 AS fahrenheit FROM readings WHERE device <> 'b'";
    let Relation::Transform { transform, .. } = compile(sql).expect("compiles") else { panic!("not a chain") };
    let schema = Arc::clone(&tables().schemas["readings"]);
    let device = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let celsius = Arc::new(Float64Array::from(vec![0.0, 50.0, 100.0]));
    let batch = Batch::computed(RecordBatch::try_new(schema, vec![device, celsius]).expect("a batch"), 0, 0, 0, None);
    let rows = transform.apply(batch).expect("computes").rows;
    let table = pretty_format_batches(&[rows]).expect("prints").to_string();
    assert!(table.contains("| a      | 32.0       |") && table.contains("| c      | 212.0      |"), "{table}");
    assert!(!table.contains("| b"), "{table}");
}

#[test]
fn refusals_name_the_place_and_the_remedy() {
    let cases = [
        ("SELECT vlaue FROM sensor.reading", "CJ208", "vlaue", "did you mean `value`"),
        ("SELECT batteryLevel FROM sensor.reading", "CJ208", "batteryLevel", "\"batteryLevel\""),
        ("SELECT value FROM sensor.readin", "CJ209", "sensor.readin", "did you mean `sensor.reading`"),
        ("SELECT value FORM sensor.reading", "CJ201", "FORM", "did you mean FROM"),
        ("SELECT count(*) FROM readings", "CJ212", "count", "tumble(interval '1 minute')"),
        ("SELECT count(*) FROM readings GROUP BY device", "CJ212", "GROUP", "tumble(interval '1 minute')"),
        ("SELECT DISTINCT device FROM readings", "CJ212", "DISTINCT", "tumble"),
        ("SELECT device FROM readings ORDER BY device", "CJ215", "ORDER", "sort where the projection is queried"),
        ("SELECT device FROM readings LIMIT 5", "CJ216", "LIMIT", ""),
        ("SELECT now() AS t FROM readings", "CJ205", "now", "event_time"),
        ("SELECT random() AS t FROM readings", "CJ205", "random", "event_time"),
        ("SELECT avgg(celsius) FROM readings", "CJ210", "avgg", "avg"),
        ("SELECT a.device FROM readings a JOIN readings b ON a.device = b.device", "CJ206", "JOIN", ""),
        ("SELECT 1 AS one", "CJ217", "SELECT", "FROM"),
        ("INSERT INTO readings VALUES ('a', 1)", "CJ202", "INSERT", "SELECT"),
        ("SELECT device FROM readings; SELECT device FROM readings", "CJ202", ";", "a stream of its own"),
        ("SELECT tumble(interval '1 minute') AS w FROM readings", "CJ218", "tumble", "GROUP BY"),
        ("SELECT device, 1 % 0 AS x FROM readings", "CJ203", "% 0", "nullif"),
        ("SELECT device + 1 AS x FROM readings", "CJ203", "+", "CAST"),
        ("SELECT upper(celsius, 1) AS x FROM readings", "CJ203", "upper", "arguments"),
        (
            "SELECT tumble(interval '1 month') AS w, count(*) AS n FROM readings GROUP BY w",
            "CJ214",
            "tumble",
            "1 minute",
        ),
        ("SELECT tumble(interval '0 seconds') AS w, count(*) AS n FROM readings GROUP BY w", "CJ214", "tumble", ""),
    ];
    for (sql, code, word, hint) in cases {
        let faults = compile(sql).expect_err(sql);
        let fault = &faults[0];
        let place = fault.span.clone().map_or("", |span| &sql[span]);
        assert_eq!(fault.code, code, "{sql}: {fault:?}");
        assert_eq!(place, word, "{sql}: {fault:?}");
        assert!(fault.hint.clone().unwrap_or_default().contains(hint), "{sql}: {fault:?}");
    }
}

#[test]
fn every_aggregate_of_the_engine_compiles_or_says_why() {
    let aggregates = [
        "count(*)",
        "count(celsius)",
        "count(DISTINCT device)",
        "sum(celsius)",
        "avg(celsius)",
        "min(celsius)",
        "max(device)",
        "stddev(celsius)",
        "var_pop(celsius)",
        "median(celsius)",
        "approx_distinct(device)",
        "approx_percentile_cont(celsius, 0.9)",
        "approx_median(celsius)",
        "array_agg(device)",
        "array_agg(device ORDER BY celsius)",
        "string_agg(device, ',')",
        "string_agg(device, ',' ORDER BY celsius DESC)",
        "first_value(device ORDER BY celsius)",
        "last_value(device ORDER BY celsius)",
        "nth_value(device, 2 ORDER BY celsius)",
        "bool_and(celsius > 1)",
        "bit_xor(cast(celsius AS bigint))",
        "corr(celsius, celsius)",
        "covar_samp(celsius, celsius)",
        "regr_slope(celsius, celsius)",
        "sum(celsius) FILTER (WHERE device <> 'x')",
        "sum(DISTINCT celsius)",
        "percentile_cont(celsius, 0.5)",
    ];
    for aggregate in aggregates {
        let sql = format!(
            "SELECT tumble(interval '1 minute') AS w, device, {aggregate} AS a FROM readings GROUP BY w, device"
        );
        let compiled = compile(&sql);
        assert!(compiled.is_ok(), "{aggregate}: {:?}", compiled.err());
    }
}

#[test]
fn tables_are_found_without_compiling() {
    let mut tables = tables_of("WITH x AS (SELECT * FROM a) SELECT * FROM x UNION ALL SELECT * FROM sensor.reading");
    tables.sort();
    assert_eq!(tables, ["a", "sensor.reading"]);
    assert!(tables_of("SELECT * FORM x").is_empty());
}
