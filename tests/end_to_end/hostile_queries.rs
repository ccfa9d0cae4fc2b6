//! Queries that want all of the machine: each ends within its limits, the process that takes events in has no part in it,
//! and events are taken in meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use parking_lot::Mutex;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::process::{Process, memory_of, signal_to};

const PIPELINE: &str = "
pipeline: hostile
events:
  sensor.reading: { payload: { value: double, n: bigint, text: string } }
sources: { api: { http: {} } }
sinks:
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
";
/// What a query may have by `--memory`'s default here, and half of that more; 64 MiB more are the program itself, whose pages
/// count for each of its processes in a test build.
const MOST_OF_A_QUERY_KIB: u64 = (256 + 128 + 64) << 10;
/// How much the process that takes events in may grow.
const MOST_GROWTH_KIB: u64 = 300 << 10;
const ROWS: u64 = 4_000;
const PATIENCE: Duration = Duration::from_mins(3);

/// The status that it must get: refused before or while it is computed, or over its limit of time or memory. Which of the
/// limits is met first is a matter of the machine's speed.
const REFUSED: &[u16] = &[400];
const LIMITED: &[u16] = &[408, 422];
const ANY: &[u16] = &[200, 400, 408, 422];

const HOSTILE: [(&str, &[u16]); 44] = [
    // Without end.
    ("SELECT count(*) FROM generate_series(1, 9000000000000000000)", LIMITED),
    ("SELECT max(a.value + 1) AS m FROM generate_series(1, 9000000000000000000) a", LIMITED),
    ("SELECT sum(a.n * b.n + c.n * 0) AS s FROM R a, R b, R c WHERE a.value + b.value > c.value", LIMITED),
    ("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT max(n) AS m FROM t", LIMITED),
    (
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t, (VALUES (1), (2)) b) SELECT max(n) AS c FROM t",
        LIMITED,
    ),
    ("SELECT levenshtein(repeat('a', 10000000), repeat('b', 10000000)) AS d", LIMITED),
    (
        "SELECT count(*) AS c FROM information_schema.columns a, information_schema.columns b, information_schema.columns c, \
      information_schema.columns d WHERE a.column_name < b.column_name AND c.column_name <> d.column_name",
        ANY,
    ),
    (
        "EXPLAIN ANALYZE SELECT sum(a.n * b.n + c.n * 0) AS s FROM R a, R b, R c WHERE a.value + b.value > c.value",
        LIMITED,
    ),
    // More than the memory.
    ("SELECT array_agg(a.text || b.text) AS x FROM R a, R b", LIMITED),
    ("SELECT length(string_agg(a.text || b.text, ',')) AS x FROM R a, R b", LIMITED),
    ("SELECT array_agg(a.text) AS x, array_agg(b.text) AS y, array_agg(a.n) AS z FROM R a, R b", LIMITED),
    ("SELECT a.text || b.text AS x FROM R a, R b ORDER BY x", LIMITED),
    ("SELECT count(DISTINCT a.text || b.text) AS x FROM R a, R b", LIMITED),
    ("SELECT DISTINCT a.event_id || b.event_id AS x FROM R a, R b", LIMITED),
    ("SELECT a.text || b.text AS x, count(*) AS n FROM R a, R b GROUP BY x", LIMITED),
    ("SELECT median(a.value + b.value) AS m FROM R a, R b", ANY),
    ("SELECT array_agg(a.value ORDER BY b.value) AS m FROM R a, R b", LIMITED),
    (
        "SELECT sum(a.n) OVER (ORDER BY a.event_time, b.event_id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS s \
      FROM R a, R b",
        LIMITED,
    ),
    (
        "SELECT a.text AS x FROM R a JOIN R b ON a.n % 1 = b.n % 1 JOIN R c ON a.n % 1 = c.n % 1 ORDER BY c.text, b.text",
        LIMITED,
    ),
    ("SELECT array_length(array_sort(array_agg(a.text || b.event_id))) AS x FROM R a, R b", LIMITED),
    (
        "SELECT first_value(x ORDER BY y) AS f FROM (SELECT array_agg(a.text) AS x, b.n AS y FROM R a, R b GROUP BY b.n)",
        LIMITED,
    ),
    ("SELECT array_length(string_to_array(repeat('a,', 30000000), ',')) AS x", ANY),
    (
        "SELECT array_length(array_concat(string_to_array(repeat('a,', 9000000), ','), string_to_array(repeat('a,', 9000000), ','), \
      string_to_array(repeat('a,', 9000000), ','))) AS x",
        ANY,
    ),
    ("SELECT array_length(array_distinct(range(0, 8000000))) AS x", ANY),
    ("SELECT length(encode(repeat('x', 60000000), 'hex') || encode(repeat('y', 60000000), 'hex')) AS x", ANY),
    ("SELECT length(to_char(now(), repeat('%Y-', 15000000))) AS x", ANY),
    ("SELECT json_length(repeat('[', 60000000)) AS x", ANY),
    ("SELECT CAST(repeat('9', 60000000) AS double) AS x", ANY),
    (
        "SELECT count(*) AS n FROM (SELECT unnest(range(0, 7000000)) AS a) x, (SELECT unnest(range(0, 7000000)) AS b) y \
      WHERE a < b",
        LIMITED,
    ),
    // Too large before anything is made.
    ("SELECT repeat('x', 9000000000000000000) AS x", REFUSED),
    ("SELECT lpad('a', 9223372036854775807, 'b') AS x", REFUSED),
    ("SELECT length(lpad('a', 2000000000, 'x')) AS x", REFUSED),
    ("SELECT lpad(x, n) AS x FROM (VALUES ('a', 9223372036854775807)) t(x, n)", REFUSED),
    ("SELECT array_repeat(text, 1000000000) AS x FROM R", REFUSED),
    ("SELECT range(0, 9000000000000000000) AS x", REFUSED),
    ("SELECT repeat(text, 100000) AS x FROM R", REFUSED),
    (
        "SELECT regexp_replace(repeat('a', 1000000), '', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 'g') AS x",
        REFUSED,
    ),
    ("SELECT regexp_like(text, '((((a{1000}){1000}){1000}){1000})') AS x FROM R", REFUSED),
    ("SELECT 1 / (n - n) AS x FROM R", REFUSED),
    ("SELECT sum(n * 9223372036854775807) AS x FROM R", REFUSED),
    ("SELECT * FROM R ORDER BY nothing", REFUSED),
    ("SELECT CAST(CAST(n + 2147480000 AS int) AS date) AS x FROM R", REFUSED),
    // Fine, and large.
    ("SELECT count(*) AS n FROM R a, R b", &[200]),
    ("SELECT text FROM R", &[200]),
];

/// As many of a kind as must be made.
fn deep() -> [(String, &'static [u16]); 4] {
    let parentheses = format!("SELECT {}1{} AS x", "(".repeat(20_000), ")".repeat(20_000));
    let negations = format!("SELECT {} true AS x", "NOT ".repeat(15_000));
    let unions = format!("SELECT 1 AS a{}", " UNION ALL SELECT 1".repeat(3_000));
    let cases =
        format!("SELECT {}n{} AS x FROM sensor.reading", "CASE WHEN n > 1 THEN ".repeat(1_500), " END".repeat(1_500));
    [(parentheses, REFUSED), (negations, REFUSED), (unions, REFUSED), (cases, ANY)]
}

async fn started(arguments: &[&str]) -> (Process, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data): (PathBuf, PathBuf) = (folder.path().join("hostile.yaml"), folder.path().join("data"));
    std::fs::write(&pipeline, PIPELINE).expect("written");
    let process = Process::start_with(&pipeline, &data, arguments).await;
    let text = "x".repeat(1_000);
    let line = |n: u64| {
        let payload = json!({"value": n, "n": n, "text": format!("{n} {text}")});
        json!({"event_type": "sensor.reading", "aggregate_id": format!("d{}", n % 7), "payload": payload}).to_string()
            + "\n"
    };
    let url = format!("{}/api/v1/events/batch", process.ingest);
    let request = process.client.post(url).header("content-type", "application/x-ndjson");
    let answer = request.body((0..ROWS).map(line).collect::<String>()).send().await.expect("an answer");
    assert_eq!(answer.status(), 202);
    (process, folder)
}

async fn ask(client: &Client, query: &str, sql: &str) -> (u16, String) {
    let request = client.post(format!("{query}/api/v1/sql")).json(&json!({"sql": sql, "limit": 1_000_000}));
    let answer = request.timeout(PATIENCE).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.text().await.expect("a whole answer"))
}

/// The same, while something else is done.
fn asking(process: &Process, sql: &'static str) -> JoinHandle<(u16, String)> {
    let (client, url) = (process.client.clone(), process.query.clone());
    tokio::spawn(async move { ask(&client, &url, sql).await })
}

/// What is seen of the process while it is asked.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    /// The most memory that it had, in KiB.
    most: AtomicU64,
    /// The most that each process of a query had.
    peaks: Mutex<BTreeMap<u32, u64>>,
    /// How many events were taken in.
    taken: AtomicU64,
}

impl Seen {
    fn watch(&self, process: u32) {
        while !self.stop.load(Ordering::SeqCst) {
            self.most.fetch_max(memory_of(process, "VmRSS:").unwrap_or(0), Ordering::SeqCst);
            self.peaks.lock().extend(Process::peaks_of_children_of(process));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    async fn send(&self, client: Client, ingest: String) {
        let url = format!("{ingest}/api/v1/events");
        while !self.stop.load(Ordering::SeqCst) {
            let event = json!({"event_type": "sensor.reading", "aggregate_id": "late", "payload": {"value": 1, "n": 1, "text": ""}});
            let answer = client.post(&url).json(&event).send().await.expect("an answer");
            assert_eq!(answer.status(), 202);
            self.taken.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// With the table's name in the place of its letter.
fn written_out(sql: &str) -> String {
    let with = |sql: String, before: &str| sql.replace(&format!("{before}R"), &format!("{before}sensor.reading"));
    [", ", "JOIN "].iter().fold(with(sql.into(), "FROM "), |sql, before| {
        sql.replace(&format!("{before}R "), &format!("{before}sensor.reading "))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_takes_more_than_its_share() {
    let (mut process, _folder) = started(&["--memory", "2GiB"]).await;
    let (before, seen, id) = (process.memory_kib(), Arc::new(Seen::default()), process.id());
    let watching = Arc::clone(&seen);
    let watching = std::thread::spawn(move || watching.watch(id));
    let (taking, client, ingest) = (Arc::clone(&seen), process.client.clone(), process.ingest.clone());
    let taking = tokio::spawn(async move { taking.send(client, ingest).await });
    let all = HOSTILE.iter().map(|(sql, expected)| (written_out(sql), *expected)).chain(deep());
    let asked = futures::stream::iter(all.map(|(sql, expected)| {
        let (client, url) = (process.client.clone(), process.query.clone());
        async move {
            let (status, text) = ask(&client, &url, &sql).await;
            eprintln!("{status} {}: {}", short(&sql), short(&text));
            (!expected.contains(&status)).then_some((status, sql))
        }
    }));
    let wrong: Vec<_> = asked.buffer_unordered(4).filter_map(std::future::ready).collect().await;
    seen.stop.store(true, Ordering::SeqCst);
    watching.join().expect("watched");
    taking.await.expect("taken in");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(process.is_alive());
    let grown = seen.most.load(Ordering::SeqCst).saturating_sub(before);
    let largest = seen.peaks.lock().values().copied().max().expect("processes");
    let taken = seen.taken.load(Ordering::SeqCst);
    eprintln!("{taken} events taken in; grown by {grown} KiB; the largest query had {largest} KiB");
    assert!(grown < MOST_GROWTH_KIB, "the process has grown by {grown} KiB");
    assert!(largest < MOST_OF_A_QUERY_KIB, "a query had {largest} KiB");
    assert!(taken > 50, "{taken} events were taken in");
    process.assert_balanced().await;
}

const ENDLESS: &str = "SELECT count(*) AS n FROM generate_series(1, 9000000000000000000)";

/// Waits until so many processes for queries are there.
async fn until_children(process: &Process, fits: impl Fn(usize) -> bool) -> Vec<u32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let children: Vec<u32> = process.peaks_of_children_kib().into_keys().collect();
        if fits(children.len()) {
            return children;
        }
        assert!(Instant::now() < deadline, "{children:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_ends_the_query() {
    let (process, _folder) = started(&[]).await;
    let waiting: Vec<_> = (0..8).map(|_| asking(&process, ENDLESS)).collect();
    until_children(&process, |count| count >= 8).await;
    let (status, text) = ask(&process.client, &process.query, "SELECT 1 AS a").await;
    assert_eq!((status, text.contains("too_many_queries")), (503, true), "{text}");
    waiting.iter().for_each(JoinHandle::abort);
    // One or two wait for what comes.
    until_children(&process, |count| count <= 2).await;
    assert_eq!(process.sql("SELECT count(*) AS n FROM sensor.reading").await[0]["n"], json!(ROWS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_a_query_may_be_killed_and_outlives_nobody() {
    let (mut process, _folder) = started(&[]).await;
    let count = "SELECT count(*) AS n FROM sensor.reading";
    for _ in 0..3 {
        assert_eq!(process.sql(count).await[0]["n"], json!(ROWS));
        // Those that wait for a question.
        for child in until_children(&process, |count| count > 0).await {
            signal_to(child, "KILL");
        }
    }
    let asked = asking(&process, ENDLESS);
    // One computes, and one waits.
    let both = until_children(&process, |count| count == 2).await;
    for child in both {
        signal_to(child, "KILL");
    }
    let (status, text) = asked.await.expect("asked");
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, &answer["code"]), (422, &json!("query_memory")), "{text}");
    assert_eq!(process.sql(count).await[0]["n"], json!(ROWS));
    let left = until_children(&process, |count| count > 0).await;
    process.kill();
    let deadline = Instant::now() + PATIENCE;
    while left.iter().any(|child| memory_of(*child, "VmRSS:").is_some()) {
        assert!(Instant::now() < deadline, "{left:?} outlive it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All queries together have a quarter of `--memory`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_share_what_there_is_for_all() {
    let (process, _folder) = started(&["--memory", "256MiB"]).await;
    let sort = "SELECT count(*) AS n FROM (SELECT a.text AS x FROM sensor.reading a, sensor.reading b WHERE b.n < 40 ORDER BY x LIMIT 150000)";
    let (status, text) = ask(&process.client, &process.query, sort).await;
    assert_eq!(status, 422, "{text}");
    let few = "SELECT text FROM sensor.reading ORDER BY text LIMIT 5";
    assert_eq!(process.sql(few).await.len(), 5);
}

/// A process answers many questions, also where those before were left with scans that had more to give.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_answers_one_question_after_the_other() {
    let (process, _folder) = started(&[]).await;
    let before = process.peaks_of_children_kib();
    for _ in 0..100 {
        assert_eq!(process.sql("SELECT text FROM sensor.reading LIMIT 1").await.len(), 1);
        let (status, _) = process.sql_answer("SELECT nothing FROM sensor.reading").await;
        assert_eq!(status, 400);
    }
    let after = process.peaks_of_children_kib();
    assert!(after.len() <= 2 && before.keys().any(|child| after.contains_key(child)), "{before:?} {after:?}");
}
