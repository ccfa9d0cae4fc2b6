//! Reads, refusals and limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use serde_json::{Value, json};

use super::{QueryEngine, QueryError, QueryOptions, TableSource, row_objects};

/// A table of `batches` times 1,000 rows that counts what it gives.
struct Numbers {
    batches: usize,
    given: Arc<AtomicUsize>,
}

impl TableSource for Numbers {
    fn schema(&self) -> SchemaRef {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let fields = vec![field("n", DataType::Int64), field("x", DataType::Float64), field("name", DataType::Utf8)];
        Arc::new(Schema::new(fields))
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> cornjacket_core::Result<()> {
        for batch in 0..self.batches {
            let n = (0..1_000).map(|row| i64::try_from(batch * 1_000 + row).expect("small"));
            let n = Int64Array::from_iter_values(n);
            let x = Float64Array::from_iter_values((0..1_000).map(|row| if row == 3 { f64::NAN } else { f64::from(row) }));
            let name = StringArray::from_iter_values((0..1_000).map(|row| format!("name {row}")));
            let rows = RecordBatch::try_new(self.schema(), vec![Arc::new(n), Arc::new(x), Arc::new(name)])?;
            self.given.fetch_add(1, Ordering::SeqCst);
            if !sink(rows.project(projection)?) {
                break;
            }
        }
        Ok(())
    }
}

fn engine(batches: usize, options: QueryOptions) -> (QueryEngine, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let engine = QueryEngine::new(options).expect("starts");
    engine.register(None, "numbers", Arc::new(Numbers { batches, given: Arc::clone(&given) })).expect("registers");
    engine.register(Some("sensor"), "reading", Arc::new(Numbers { batches, given: Arc::clone(&given) })).expect("registers");
    (engine, given)
}

async fn answer(engine: &QueryEngine, sql: &str, params: &[Value]) -> Result<Vec<Value>, QueryError> {
    let mut rows = engine.query(sql, params).await?;
    let mut objects = Vec::new();
    while let Some(batch) = rows.batches.next().await {
        objects.extend(row_objects(&batch?)?.into_iter().map(Value::Object));
    }
    Ok(objects)
}

#[tokio::test]
async fn tables_are_read_with_parameters_and_shown_as_json() {
    let (engine, _) = engine(2, QueryOptions::default());
    let sql = "SELECT n, x, name FROM numbers WHERE n >= $1 AND name <> $2 ORDER BY n LIMIT 2";
    let rows = answer(&engine, sql, &[json!(2), json!("name 2")]).await.expect("answers");
    assert_eq!(rows, [json!({"n": 3, "x": null, "name": "name 3"}), json!({"n": 4, "x": 4.0, "name": "name 4"})]);
    let sql = "SELECT count(*) AS n, arrow_cast(max(n), 'Timestamp(Microsecond, None)') AS t, array_agg(DISTINCT n > 5) AS a \
               FROM sensor.reading WHERE n > 5";
    let rows = answer(&engine, sql, &[]).await.expect("answers");
    assert_eq!(rows, [json!({"n": 1994, "t": "1970-01-01T00:00:00.001999Z", "a": [true]})]);
    assert_eq!(answer(&engine, "SHOW TABLES", &[]).await.expect("lists").iter().filter(|row| row["table_type"] == "BASE TABLE").count(), 2);
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let (engine, _) = engine(1, QueryOptions::default());
    let statements = [
        "CREATE TABLE t AS SELECT 1", "DROP TABLE numbers", "INSERT INTO numbers VALUES (1, 2, 'x')",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "COPY numbers TO '/tmp/x.csv'",
        "SET datafusion.execution.batch_size = 1", "CREATE VIEW v AS SELECT 1", "DELETE FROM numbers",
        "UPDATE numbers SET n = 1", "PREPARE p AS SELECT 1", "BEGIN",
    ];
    for sql in statements {
        let error = answer(&engine, sql, &[]).await.expect_err(sql);
        assert!(matches!(error, QueryError::NotReadOnly(_) | QueryError::Invalid { .. }), "{sql}: {error:?}");
    }
    for sql in ["SELECT 1; SELECT 2", "SELECT * FROM '/etc/passwd'", "", "SELECT", "SELECT * FROM read_csv('/etc/passwd')"] {
        let error = answer(&engine, sql, &[]).await.expect_err(sql);
        assert!(matches!(error, QueryError::Invalid { .. }), "{sql}: {error:?}");
    }
    assert_eq!(answer(&engine, "SELECT count(*) AS n FROM numbers", &[]).await.expect("answers"), [json!({"n": 1000})]);
}

#[tokio::test]
async fn faults_come_with_what_is_available() {
    let (engine, _) = engine(1, QueryOptions::default());
    for (sql, message, hint) in [
        ("SELECT m FROM numbers", "there is no column `m`", "available: n, x, name"),
        ("SELECT n FROM number", "there is no table `number`", "tables: numbers, sensor.reading"),
    ] {
        let expected = QueryError::Invalid { message: message.into(), hint: Some(hint.into()) };
        assert_eq!(answer(&engine, sql, &[]).await.expect_err(sql), expected);
    }
    let deep = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(matches!(answer(&engine, &deep, &[]).await, Err(QueryError::Invalid { .. })));
    let long = format!("SELECT '{}'", "x".repeat(70_000));
    assert!(matches!(answer(&engine, &long, &[]).await, Err(QueryError::Invalid { .. })));
}

#[tokio::test]
async fn time_memory_and_number_are_limited() {
    let timeout = Duration::from_millis(300);
    let (engine, _) = engine(20, QueryOptions { timeout, memory_bytes: 8 << 20, concurrency: 1, ..QueryOptions::default() });
    let endless = "SELECT count(*) FROM numbers a, numbers b, numbers c WHERE a.x + b.x > c.x";
    let error = answer(&engine, endless, &[]).await.expect_err("too long");
    assert!(matches!(error, QueryError::Timeout(_) | QueryError::Memory(_)), "{error:?}");
    let hungry = "SELECT array_agg(a.name) FROM numbers a, numbers b";
    let error = answer(&engine, hungry, &[]).await.expect_err("too much");
    assert!(matches!(error, QueryError::Memory(_) | QueryError::Timeout(_)), "{error:?}");
    let running = engine.query("SELECT n FROM numbers", &[]).await.expect("starts");
    assert_eq!(answer(&engine, "SELECT 1", &[]).await, Err(QueryError::Busy));
    drop(running);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(answer(&engine, "SELECT 1 AS one", &[]).await.is_ok());
}

#[tokio::test]
async fn a_query_that_nobody_reads_stops() {
    let (engine, given) = engine(10_000, QueryOptions::default());
    let mut rows = engine.query("SELECT n FROM numbers", &[]).await.expect("starts");
    rows.batches.next().await.expect("a batch").expect("rows");
    drop(rows);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(given.load(Ordering::SeqCst) < 100, "{given:?}");
}
