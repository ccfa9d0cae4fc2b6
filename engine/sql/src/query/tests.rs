//! Queries over tables in memory: what is refused, that the limits hold, and how values look in JSON.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array,
    Int32Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use cornjacket_core::print::{NonFinite, row_objects, type_name};
use futures::StreamExt;
use serde_json::{Value, json};

use super::*;

/// Two columns of numbers and one of text, as many batches of 1,000 rows as wanted.
struct Numbers {
    batches: usize,
    given: AtomicUsize,
    asked: Mutex<Vec<Vec<usize>>>,
}

impl Numbers {
    fn new(batches: usize) -> Arc<Self> {
        Arc::new(Self { batches, given: AtomicUsize::new(0), asked: Mutex::default() })
    }

    fn columns(from: i64) -> [ArrayRef; 3] {
        let n = from..from + 1_000;
        let text = StringArray::from_iter_values(n.clone().map(|n| format!("{n:0>100}")));
        [Arc::new(Int64Array::from_iter_values(n.clone())), Arc::new(Int64Array::from_iter_values(n)), Arc::new(text)]
    }
}

impl TableSource for Numbers {
    fn schema(&self) -> SchemaRef {
        let field = |name: &str, kind: DataType| Field::new(name, kind, false);
        Arc::new(Schema::new(vec![
            field("a", DataType::Int64),
            field("b", DataType::Int64),
            field("text", DataType::Utf8),
        ]))
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> cornjacket_core::Result<()> {
        self.asked.lock().unwrap().push(projection.to_vec());
        let schema = Arc::new(self.schema().project(projection)?);
        for batch in 0..self.batches {
            let columns = Self::columns(i64::try_from(batch).unwrap() * 1_000);
            let columns = projection.iter().map(|at| Arc::clone(&columns[*at])).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(1_000));
            self.given.fetch_add(1, Ordering::SeqCst);
            if !sink(RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?) {
                break;
            }
        }
        Ok(())
    }
}

/// A table that is one batch, or cannot be read.
struct Fixed(Option<RecordBatch>);

impl TableSource for Fixed {
    fn schema(&self) -> SchemaRef {
        self.0
            .as_ref()
            .map_or_else(|| Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)])), RecordBatch::schema)
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> cornjacket_core::Result<()> {
        let Some(batch) = &self.0 else { return Err(cornjacket_core::Error::Unavailable("the disk is gone".into())) };
        sink(batch.project(projection)?);
        Ok(())
    }
}

fn bare(options: QueryOptions) -> QueryEngine {
    let left = parking_lot::Mutex::new(2 << 30);
    QueryEngine::new(options, Arc::new(memory::tests::Left(left))).unwrap()
}

fn engine(options: QueryOptions, batches: usize) -> (QueryEngine, Arc<Numbers>) {
    let engine = bare(options);
    let numbers = Numbers::new(batches);
    engine.register(None, "numbers", Arc::clone(&numbers) as _).unwrap();
    engine.register(Some("sensor"), "reading", Numbers::new(1)).unwrap();
    (engine, numbers)
}

fn small() -> QueryEngine {
    engine(QueryOptions::default(), 3).0
}

/// Runs it on a thread as deep as queries want it.
fn deep<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test());
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap().join().unwrap();
}

async fn rows(engine: &QueryEngine, sql: &str, params: &[Value]) -> Result<Vec<Value>, QueryError> {
    let mut answer = engine.query(sql, params).await?;
    let mut rows = Vec::new();
    while let Some(batch) = answer.batches.next().await {
        let objects = row_objects(&batch?, NonFinite::Null).map_err(|error| QueryError::Failed(error.to_string()))?;
        rows.extend(objects.into_iter().map(Value::Object));
    }
    Ok(rows)
}

async fn error(engine: &QueryEngine, sql: &str) -> QueryError {
    rows(engine, sql, &[]).await.expect_err(sql)
}

fn with_hint(error: &QueryError) -> String {
    match error {
        QueryError::Invalid { message, hint } => format!("{message}; {}", hint.as_deref().unwrap_or("-")),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn reads_with_parameters() {
    let engine = small();
    let sql = "SELECT count(*) AS n, max(a) AS m FROM numbers WHERE a >= $1 AND text <> $2 AND $3 AND $4 IS NULL";
    let answer = rows(&engine, sql, &[json!(10), json!("x"), json!(true), Value::Null]).await;
    assert_eq!(answer, Ok(vec![json!({"n": 2_990, "m": 2_999})]));
    assert_eq!(rows(&engine, "SELECT a FROM sensor.reading LIMIT 1", &[]).await, Ok(vec![json!({"a": 0})]));
    let sql = "WITH x AS (SELECT a FROM numbers) SELECT x.a FROM x JOIN sensor.reading r ON x.a = r.a ORDER BY a DESC LIMIT 1";
    assert_eq!(rows(&engine, sql, &[]).await, Ok(vec![json!({"a": 999})]));
    let json = r#"SELECT '{"a": {"b": [1, 2]}}' -> 'a' AS o, json_get_int('{"n": 5}', 'n') AS n"#;
    assert_eq!(rows(&engine, json, &[]).await, Ok(vec![json!({"o": {"b": [1, 2]}, "n": 5})]));
}

#[tokio::test]
async fn tables_can_be_listed_and_described() {
    let engine = small();
    for sql in [
        "SHOW TABLES",
        "DESCRIBE numbers",
        "SHOW COLUMNS FROM numbers",
        "EXPLAIN SELECT a FROM numbers",
        "EXPLAIN ANALYZE SELECT count(*) FROM numbers",
        "SELECT table_name FROM information_schema.tables WHERE table_name = 'reading'",
    ] {
        assert!(rows(&engine, sql, &[]).await.is_ok_and(|rows| !rows.is_empty()), "{sql}");
    }
}

#[tokio::test]
async fn whatever_does_not_read_is_refused() {
    let engine = small();
    for sql in [
        "INSERT INTO numbers VALUES (1, 2, 'x')",
        "UPDATE numbers SET a = 1",
        "DELETE FROM numbers",
        "TRUNCATE TABLE numbers",
        "DROP TABLE numbers",
        "CREATE TABLE t (a INT)",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY numbers TO '/tmp/numbers.csv'",
        "COPY (SELECT 1) TO '/tmp/one.csv'",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "SELECT 1 INTO t",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE numbers",
        "EXPLAIN INSERT INTO numbers VALUES (1, 2, 'x')",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "EXPLAIN COPY numbers TO '/tmp/numbers.csv'",
    ] {
        let error = error(&engine, sql).await;
        assert!(matches!(error, QueryError::NotReadOnly(_)), "{sql}: {error:?}");
    }
    for sql in ["SELECT * FROM '/etc/passwd'", "SELECT * FROM 'http://localhost/x.csv'", "", ";", "SELEKT 1"] {
        let error = error(&engine, sql).await;
        assert!(matches!(error, QueryError::Invalid { .. }), "{sql}: {error:?}");
    }
    assert_eq!(rows(&engine, "SELECT count(*) AS n FROM numbers", &[]).await, Ok(vec![json!({"n": 3_000})]));
}

#[tokio::test]
async fn errors_say_what_to_write() {
    let engine = small();
    let cases = [
        ("SELECT * FROM number", "there is no table `number`; did you mean `numbers`?"),
        ("SELECT * FROM sensor.readings", "there is no table `sensor.readings`; did you mean `sensor.reading`?"),
        ("SELECT * FROM elephants", "there is no table `elephants`; available: numbers, sensor.reading"),
        ("SELECT texd FROM numbers", "there is no column `texd`; did you mean `text`?"),
        ("SELECT 1 / 0", "Divide by zero error; -"),
        (
            "SELECT x.a, y.a FROM numbers x, numbers y",
            "two columns of the result are called `a`; give each column its own name with AS",
        ),
        ("SELECT $1", "the SQL has 1 parameters, and 0 values were given; -"),
    ];
    for (sql, expected) in cases {
        assert_eq!(with_hint(&error(&engine, sql).await), expected, "{sql}");
    }
    let unread = bare(QueryOptions::default());
    unread.register(None, "gone", Arc::new(Fixed(None))).unwrap();
    let expected = QueryError::Failed("storage is unavailable: the disk is gone".into());
    assert_eq!(error(&unread, "SELECT * FROM gone").await, expected);
    let given = rows(&engine, "SELECT $1", &[json!([1])]).await;
    assert!(matches!(given, Err(QueryError::Invalid { .. })), "{given:?}");
}

#[tokio::test]
async fn only_columns_that_are_needed_are_read() {
    let (engine, numbers) = engine(QueryOptions::default(), 1);
    rows(&engine, "SELECT b FROM numbers WHERE a > 990", &[]).await.unwrap();
    rows(&engine, "SELECT count(*) FROM numbers", &[]).await.unwrap();
    assert_eq!(*numbers.asked.lock().unwrap(), [vec![0, 1], vec![]]);
}

#[test]
fn deep_and_long_sql_is_answered_or_refused() {
    deep(deep_and_long_sql);
}

async fn deep_and_long_sql() {
    let engine = small();
    let parentheses = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let nots = format!("SELECT {} true", "NOT ".repeat(10_000));
    let nested = format!("{}SELECT 1{}", "SELECT * FROM (".repeat(2_000), ")".repeat(2_000));
    for sql in [parentheses, nots, nested] {
        let error = error(&engine, &sql).await;
        assert!(matches!(error, QueryError::Invalid { .. }), "{error:?}");
    }
    let sum = format!("SELECT a{} AS s FROM numbers LIMIT 1", "+a".repeat(1_000));
    assert_eq!(rows(&engine, &sum, &[]).await, Ok(vec![json!({"s": 0})]));
    let longer = format!("SELECT a{} AS s FROM numbers", "+a".repeat(1_001));
    let hint = "the SQL has 1001 operators, and 1000 are allowed; write a list of values with IN";
    assert_eq!(with_hint(&error(&engine, &longer).await), hint);
    let long = format!("SELECT '{}'", "x".repeat(64 << 10));
    assert!(matches!(error(&engine, &long).await, QueryError::Invalid { .. }));
}

#[tokio::test]
async fn memory_is_limited() {
    let (engine, _) = engine(QueryOptions { memory_bytes: 8 << 20, ..QueryOptions::default() }, 1_000_000);
    for sql in [
        "SELECT array_agg(text) FROM numbers",
        "SELECT text FROM numbers ORDER BY text DESC",
        "SELECT text, count(*) FROM numbers GROUP BY text",
        "SELECT x.a FROM numbers x JOIN numbers y ON x.text = y.text",
    ] {
        let error = error(&engine, sql).await;
        assert!(matches!(error, QueryError::Memory(_)), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn who_stops_reading_stops_the_scan() {
    let (engine, numbers) = engine(QueryOptions::default(), 1_000_000);
    let mut answer = engine.query("SELECT a FROM numbers", &[]).await.unwrap();
    answer.batches.next().await.unwrap().unwrap();
    drop(answer);
    // The scan learns of it with the batch after the one that it was about to give, once its thread has its turn.
    let (mut given, mut before) = (numbers.given.load(Ordering::SeqCst), usize::MAX);
    while given != before {
        assert!(given < 50, "{given} batches were read for one");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        (before, given) = (given, numbers.given.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn every_type_has_its_json() {
    let nested = Field::new("x", DataType::Int32, true);
    let columns: Vec<(&str, ArrayRef, &str, Value)> = vec![
        ("boolean", Arc::new(BooleanArray::from(vec![true])), "boolean", json!(true)),
        ("int", Arc::new(Int32Array::from(vec![-5])), "int", json!(-5)),
        ("bigint", Arc::new(Int64Array::from(vec![i64::MIN])), "bigint", json!(i64::MIN)),
        ("unsigned", Arc::new(UInt64Array::from(vec![u64::MAX])), "bigint", json!(u64::MAX)),
        ("float", Arc::new(Float32Array::from(vec![0.1])), "float", json!(0.1)),
        ("double", Arc::new(Float64Array::from(vec![72.5])), "double", json!(72.5)),
        ("nan", Arc::new(Float64Array::from(vec![f64::NAN])), "double", Value::Null),
        ("infinite", Arc::new(Float32Array::from(vec![f32::NEG_INFINITY])), "float", Value::Null),
        ("text", Arc::new(StringArray::from(vec!["ä\"\n"])), "string", json!("ä\"\n")),
        ("missing", Arc::new(StringArray::from(vec![None::<&str>])), "string", Value::Null),
        ("bytes", Arc::new(BinaryArray::from(vec![&[0u8, 0xab][..]])), "binary", json!("00ab")),
        ("date", Arc::new(Date32Array::from(vec![20_454])), "date", json!("2026-01-01")),
        (
            "decimal",
            Arc::new(Decimal128Array::from(vec![1_250]).with_precision_and_scale(10, 2).unwrap()),
            "decimal(10, 2)",
            json!(12.5),
        ),
        (
            "micros",
            Arc::new(TimestampMicrosecondArray::from(vec![1_767_225_610_250_001]).with_timezone("+02:00")),
            "timestamp",
            json!("2026-01-01T00:00:10.250001Z"),
        ),
        (
            "nanos",
            Arc::new(TimestampNanosecondArray::from(vec![1_767_225_610_000_000_999])),
            "timestamp",
            json!("2026-01-01T00:00:10Z"),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])])),
            "list<int>",
            json!([1, null]),
        ),
        (
            "struct",
            Arc::new(StructArray::from(vec![(Arc::new(nested), Arc::new(Int32Array::from(vec![7])) as ArrayRef)])),
            "struct",
            json!({"x": 7}),
        ),
        ("word", Arc::new(DictionaryArray::<Int32Type>::from_iter(["on"])), "string", json!("on")),
    ];
    let batch =
        RecordBatch::try_from_iter(columns.iter().map(|(name, column, _, _)| (*name, Arc::clone(column)))).unwrap();
    for (name, column, kind, _) in &columns {
        assert_eq!(type_name(column.data_type()), *kind, "{name}");
    }
    let engine = bare(QueryOptions::default());
    engine.register(None, "types", Arc::new(Fixed(Some(batch)))).unwrap();
    let expected: serde_json::Map<_, _> = columns.into_iter().map(|(name, .., value)| (name.into(), value)).collect();
    assert_eq!(rows(&engine, "SELECT * FROM types", &[]).await, Ok(vec![Value::Object(expected)]));
}

/// Short texts that would be huge plans or values are refused before they take time or memory.
#[test]
fn what_explodes_is_refused() {
    deep(what_explodes);
}

async fn what_explodes() {
    let (engine, _) = engine(QueryOptions::default(), 10);
    let doubled =
        (1..=30).map(|n| format!(", c{n} AS (SELECT x.a FROM c{p} x, c{p} y)", p = n - 1)).collect::<String>();
    let unions = format!("SELECT 1 AS a{}", " UNION ALL SELECT 1".repeat(3_000));
    let casts = format!("SELECT a{} FROM numbers", "::int".repeat(10_000));
    for sql in [format!("WITH c0 AS (SELECT 1 AS a){doubled} SELECT * FROM c30"), unions, casts] {
        let refused = rows(&engine, &sql, &[]).await;
        assert!(matches!(refused, Err(QueryError::Invalid { .. })), "{refused:?}");
    }
    for call in ["repeat('x', 2000000000)", "range(0, 1000000000)", "array_repeat(1, 1000000000)"] {
        let refused = rows(&engine, &format!("SELECT {call} AS x"), &[]).await;
        assert!(matches!(refused, Err(QueryError::Invalid { .. })), "{call}: {refused:?}");
    }
}

/// The held side of a product without columns is a number, so counting it takes no memory.
#[tokio::test]
async fn products_are_counted_without_being_held() {
    let (engine, _) = engine(QueryOptions { memory_bytes: 1 << 20, ..QueryOptions::default() }, 1);
    let counted = rows(&engine, "SELECT count(*) AS n FROM numbers a, numbers b, (SELECT 1 AS one) c", &[]).await;
    let single = rows(&engine, "SELECT count(*) AS n FROM numbers", &[]).await;
    let number = |rows: &Result<Vec<Value>, QueryError>| rows.as_ref().ok().and_then(|rows| rows[0]["n"].as_i64());
    assert_eq!(number(&counted), number(&single).map(|n| n * n), "{counted:?}");
}

#[tokio::test]
async fn now_is_one_time_for_a_query() {
    let (engine, _) = engine(QueryOptions::default(), 10);
    let sql = "SELECT count(DISTINCT now()) AS n, bool_and(now() > timestamp '2026-01-01') AS later FROM numbers";
    assert_eq!(rows(&engine, sql, &[]).await, Ok(vec![json!({"n": 1, "later": true})]));
}

/// The same care as in streams.
#[tokio::test]
async fn values_are_those_of_streams() {
    let engine = small();
    let one = |sql: &str| {
        format!("SELECT {sql} AS x FROM (VALUES (9223372036854775807, 0, 2.0, '{{\"k\":\"door\"}}')) t(n, z, d, j)")
    };
    for (sql, expected) in [
        ("j->>'k' = 'door' AND j->'k' IS NOT NULL", json!(true)),
        ("j->>'k' || '!'", json!("door!")),
        ("j->'k'", json!("door")),
        ("z <> 0 AND 10 / z > 1", json!(false)),
        ("z = 0 OR 10 / z > 1", json!(true)),
        ("CASE WHEN z <> 0 THEN 10 / z END", Value::Null),
        ("to_timestamp(z)", json!("1970-01-01T00:00:00Z")),
        ("TIMESTAMP '9999-12-31T23:59:59Z' > now()", json!(true)),
        ("date_trunc('day', TIMESTAMP '0001-01-01T10:00:00')", json!("0001-01-01T00:00:00Z")),
        ("lpad('a', 3, 'x')", json!("xxa")),
        ("n - 1", json!(i64::MAX - 1)),
    ] {
        assert_eq!(rows(&engine, &one(sql), &[]).await, Ok(vec![json!({"x": expected})]), "{sql}");
    }
    for (sql, words) in [
        ("n + 1", "9223372036854775807 + 1"),
        ("-(-n - 1)", "0 - -9223372036854775808"),
        ("lpad('a', n, 'x')", "lpad: a value would take up to 9223372036854775807 bytes"),
        ("length(lpad('a', 2000000000, 'x'))", "lpad: a value would take up to 2000000000 bytes"),
        ("repeat('a', n)", "repeat: a value would take up to"),
        ("array_length(range(0, n))", "range: a value would take up to"),
        ("CAST(CAST(n / 4294967298 AS int) AS date)", "a date outside the years 1 to 9999"),
    ] {
        let message = error(&engine, &one(sql)).await.to_string();
        assert!(message.contains(words), "{sql}: {message}");
    }
    let sum = "SELECT sum(x) AS s FROM (VALUES (9223372036854775807), (1)) t(x)";
    assert_eq!(error(&engine, sum).await.to_string(), "sum: the result is out of the range of Int64");
    let filtered = "SELECT sum(10 / x) FILTER (WHERE x <> 0) AS s, count(*) AS n FROM (VALUES (0), (5)) t(x)";
    assert_eq!(rows(&engine, filtered, &[]).await, Ok(vec![json!({"s": 2, "n": 2})]));
    let condition = "SELECT count(*) AS n FROM numbers WHERE a <> 0 AND 10 / a > 0";
    assert_eq!(rows(&engine, condition, &[]).await, Ok(vec![json!({"n": 10})]));
    let zeros = "SELECT x, count(*) AS n FROM (VALUES (0.0::double), (-0.0::double)) t(x) GROUP BY x";
    assert_eq!(rows(&engine, zeros, &[]).await, Ok(vec![json!({"x": 0.0, "n": 2})]));
    let distinct = "SELECT count(*) AS n FROM (SELECT DISTINCT x FROM (VALUES (0.0::double), (-0.0::double)) t(x))";
    assert_eq!(rows(&engine, distinct, &[]).await, Ok(vec![json!({"n": 1})]));
}
