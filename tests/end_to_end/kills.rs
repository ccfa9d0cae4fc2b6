//! `kill -9` under load, again and again. Whatever was answered 202 is stored exactly once; every closed window's row and
//! every newest row equals a batch query over the stored events; and no reader ever saw anything go back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::process::{Process, number};

/// Windows of two seconds, so that many close while the test runs; `units` goes through a shuffle.
const PIPELINE: &str = "
pipeline: kills
events:
  sensor.reading:
    payload: { value: double, unit: string }
    watermark: { delay: 4s, idle: 2s, max_ahead: 1m }
sources: { api: { http: {} } }
streams:
  by_device: |
    SELECT device, w.start AS window_start, n, total FROM (
      SELECT tumble(interval '2 seconds') AS w, aggregate_id AS device, count(*) AS n, sum(value) AS total
      FROM sensor.reading GROUP BY w, device)
  by_unit: |
    SELECT unit, w.start AS window_start, n, total FROM (
      SELECT tumble(interval '2 seconds') AS w, unit, count(*) AS n, sum(value) AS total
      FROM sensor.reading GROUP BY w, unit)
sinks:
  devices: { projection: { from: by_device, key: [device, window_start] } }
  units: { projection: { from: by_unit, key: [unit, window_start] } }
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
";
const CLIENTS: u64 = 12;

#[derive(Default)]
struct Seen {
    windows: BTreeMap<String, Value>,
    newest: BTreeMap<String, String>,
}

/// A small generator of its own, so that a run needs no crate for it.
pub fn scramble(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

pub async fn post_until(url: String, client_number: u64, stop: Arc<AtomicBool>, accepted: Arc<Mutex<Vec<String>>>) {
    let client = Client::builder().timeout(Duration::from_secs(5)).build().expect("a client");
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let dice = scramble(client_number * 1_000_003 + number);
        number += 1;
        let unit = ["celsius", "fahrenheit", "kelvin"][usize::try_from(dice % 3).expect("small")];
        let value = f64::from(u32::try_from(dice % 1_000).expect("small")) / 4.0;
        let payload = json!({"value": value, "unit": unit});
        let event =
            json!({"event_type": "sensor.reading", "aggregate_id": format!("d{}", dice % 23), "payload": payload});
        let Ok(response) = client.post(format!("{url}/api/v1/events")).json(&event).send().await else { continue };
        if response.status() == 202
            && let Ok(body) = response.json::<Value>().await
        {
            accepted.lock().await.push(body["event_id"].as_str().expect("an id").to_string());
        }
    }
}

async fn look(process: &Process, seen: &mut Seen) {
    let question = "SELECT 'd' AS t, device AS k, window_start, n, total FROM devices UNION ALL \
                    SELECT 'u', unit, window_start, n, total FROM units";
    let rows = process.sql(question).await;
    let now: BTreeMap<String, Value> =
        rows.into_iter().map(|row| (format!("{}/{}/{}", row["t"], row["k"], row["window_start"]), row)).collect();
    for (key, row) in &seen.windows {
        assert_eq!(now.get(key), Some(row), "a closed window's row changed or vanished");
    }
    seen.windows = now;
    let rows = process.sql("SELECT aggregate_id, last_event_timestamp FROM newest").await;
    let text = |value: &Value| value.as_str().expect("text").to_string();
    let now: BTreeMap<String, String> =
        rows.iter().map(|row| (text(&row["aggregate_id"]), padded(&text(&row["last_event_timestamp"])))).collect();
    for (key, time) in &seen.newest {
        assert!(now.get(key).is_some_and(|new| new >= time), "the newest row of {key} went back");
    }
    seen.newest = now;
}

/// RFC 3339 with six digits, so that texts compare as times do.
fn padded(time: &str) -> String {
    let (seconds, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), ""));
    format!("{seconds}.{fraction:0<6}")
}

async fn round(
    pipeline: &Path,
    data: &Path,
    life: Duration,
    seen: &mut Seen,
    accepted: &Arc<Mutex<Vec<String>>>,
    number: u64,
) {
    let mut process = Process::start(pipeline, data).await;
    look(&process, seen).await;
    let stop = Arc::new(AtomicBool::new(false));
    let client = |n| post_until(process.ingest.clone(), number * CLIENTS + n, Arc::clone(&stop), Arc::clone(accepted));
    let clients: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(client(n))).collect();
    tokio::time::sleep(life).await;
    look(&process, seen).await;
    process.kill();
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("a client");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = (folder.path().join("kills.yaml"), folder.path().join("data"));
    std::fs::write(&pipeline, PIPELINE).expect("written");
    let (kills, seed) = (number("KILLS", 30), number("SEED", u64::from(std::process::id())));
    eprintln!("SEED={seed} KILLS={kills}");
    let (mut seen, accepted) = (Seen::default(), Arc::new(Mutex::new(Vec::new())));
    for number in 0..kills {
        let life = Duration::from_millis(50 + scramble(seed + number) % 900);
        round(&pipeline, &data, life, &mut seen, &accepted, number).await;
    }

    let process = Process::start(&pipeline, &data).await;
    let accepted = accepted.lock().await;
    let ids = process.sql("SELECT event_id FROM sensor.reading").await;
    let stored: BTreeSet<&str> = ids.iter().filter_map(|row| row["event_id"].as_str()).collect();
    assert_eq!(stored.len(), ids.len(), "an event is stored twice");
    let lost: Vec<&String> = accepted.iter().filter(|id| !stored.contains(id.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} accepted events are not stored", lost.len(), accepted.len());
    assert!(accepted.len() > usize::try_from(kills).expect("small"), "hardly any load");
    eprintln!("{} accepted, {} stored", accepted.len(), stored.len());
    check(&process).await;
    look(&process, &mut seen).await;
    process.assert_balanced().await;
}

async fn check(process: &Process) {
    for (table, key, column) in [("devices", "device", "aggregate_id"), ("units", "unit", "unit")] {
        let batch = format!(
            "SELECT {column} AS {key}, date_bin(interval '2 seconds', event_time, to_timestamp_micros(0)) AS window_start, \
             count(*) AS n, sum(value) AS total FROM sensor.reading GROUP BY 1, 2 ORDER BY 1, 2"
        );
        let expected = process.sql(&batch).await;
        let sql = format!("SELECT {key}, window_start, n, total FROM {table} ORDER BY 1, 2");
        // Silence closes the last windows.
        let actual = process.sql_until(&sql, |rows| rows.len() >= expected.len()).await;
        assert_eq!(actual, expected, "{table}");
    }
    let newest = "SELECT aggregate_id, max(event_time) AS t FROM sensor.reading GROUP BY 1 ORDER BY 1";
    let kept = "SELECT aggregate_id, last_event_timestamp AS t FROM newest ORDER BY 1";
    assert_eq!(process.sql(kept).await, process.sql(newest).await);
    assert_eq!(process.sql("SELECT count(*) AS n FROM cornjacket.dead_letters").await, [json!({"n": 0})]);
}
