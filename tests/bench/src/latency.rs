//! Latency at a steady 2,000 events a second by HTTP: until the projection's row can be read, and until a webhook has come.
//!
//! Requests have their times in a schedule. What is late because something before it was late counts from when it was due,
//! so a pause shows in every event that fell into it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::http::is_whole;
use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::Ours;

const CONNECTIONS: u32 = 16;
const RATE: u32 = 2_000;
/// Of so many events one is looked for.
const LOOKED_FOR: u64 = 20;
const ROW_MS: f64 = 50.0;
const HOOK_MS: f64 = 100.0;

type Arrived = Arc<Mutex<HashMap<u64, Instant>>>;

fn yaml(receiver: u16) -> String {
    format!(
        "pipeline: bench\n\
         events: {{ sensor.reading: {{ payload: {{ value: double, number: bigint }} }} }}\n\
         sources: {{ api: {{ http: {{}} }} }}\n\
         streams: {{ alerts: \"SELECT number FROM sensor.reading WHERE value > 90\" }}\n\
         sinks:\n  newest: {{ projection: {{ from: sensor.reading, key: [aggregate_id] }} }}\n  \
         page: {{ webhook: {{ from: alerts, url: \"http://127.0.0.1:{receiver}/\" }} }}\n"
    )
}

/// Until the row can be read.
pub fn row(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    measure(sizes, runs, ROW_MS, true)
}

/// Until the webhook has come.
pub fn webhook(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    measure(sizes, runs, HOOK_MS, false)
}

fn measure(sizes: &Sizes, runs: usize, bar: f64, is_row: bool) -> Result<Comparison> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let time = Duration::from_millis(if sizes.small { 500 } else { 5_000 });
    let arrived = Arrived::default();
    let receiver = runtime.block_on(receive(Arc::clone(&arrived)))?;
    let ours = Ours::start(sizes, &yaml(receiver))?;
    let mut first = 0;
    let mut run = || {
        first += 10_000_000;
        runtime.block_on(steady(&ours, first, time, is_row.then_some(ours.query), &arrived))
    };
    run()?;
    let (mut medians, mut p99s) = (Vec::new(), Vec::new());
    let ours = || {
        let mut times = run()?;
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(f64::INFINITY);
        medians.push(at(50));
        p99s.push(at(99));
        Ok(1.0 / at(99))
    };
    let mut comparison = interleaved(("1/ms", 1.0), runs, ours, || Ok(1.0 / bar))?;
    medians.sort_by(f64::total_cmp);
    p99s.sort_by(f64::total_cmp);
    let (median, p99) = (medians[medians.len() / 2], p99s[p99s.len() / 2]);
    comparison.note = format!("half in {median:.1} ms, 99 % in {p99:.1} ms; {bar:.0} ms are allowed");
    Ok(comparison)
}

/// Takes webhooks.
async fn receive(arrived: Arrived) -> Result<u16> {
    let take = |State(arrived): State<Arrived>, body: String| async move {
        let number = serde_json::from_str::<serde_json::Value>(&body).ok().and_then(|row| row["number"].as_u64());
        if let Some(number) = number {
            arrived.lock().await.insert(number, Instant::now());
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let routes = Router::new().route("/", post(take)).with_state(arrived);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(port)
}

/// Sends at the rate; gives times in ms.
async fn steady(ours: &Ours, first: u64, time: Duration, query: Option<u16>, arrived: &Arrived) -> Result<Vec<f64>> {
    arrived.lock().await.clear();
    let began = Instant::now() + Duration::from_millis(50);
    let mut tasks = Vec::new();
    for lane in 0..CONNECTIONS {
        tasks.push(tokio::spawn(send(ours.ingest, lane, (first, began), time, query)));
    }
    let (mut times, mut due) = (Vec::new(), Vec::new());
    for task in tasks {
        let (read, hooks) = task.await??;
        times.extend(read);
        due.extend(hooks);
    }
    if query.is_some() {
        return Ok(times);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while arrived.lock().await.len() < due.len() {
        if Instant::now() > deadline {
            bail!("{} of {} webhooks came", arrived.lock().await.len(), due.len());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let arrived = arrived.lock().await;
    let took = |(number, due): (u64, Instant)| arrived.get(&number).map(|at| ms(at.saturating_duration_since(due)));
    Ok(due.into_iter().filter_map(took).collect())
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// The times until rows could be read, and when events were due whose webhooks are to come.
type Lane = (Vec<f64>, Vec<(u64, Instant)>);

async fn send(
    port: u16,
    lane: u32,
    (first, began): (u64, Instant),
    time: Duration,
    query: Option<u16>,
) -> Result<Lane> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (mut looks, mut hooks) = (Vec::new(), Vec::new());
    let step = Duration::from_secs(1) * CONNECTIONS / RATE;
    let offset = Duration::from_secs(1) * lane / RATE;
    for turn in 0.. {
        let due = began + offset + step * turn;
        if due > began + time {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let number = first + u64::from(turn * CONNECTIONS + lane);
        let is_looked_for = number.is_multiple_of(LOOKED_FOR);
        let value = if is_looked_for { 95 } else { 20 };
        let body = format!(
            "{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"d{}\",\"payload\":{{\"value\":{value},\"number\":{number}}}}}",
            number % 5_000
        );
        let answer = exchange(&mut stream, "POST", "/api/v1/events", &body).await?;
        if !is_looked_for {
            continue;
        }
        let Some(query) = query else {
            hooks.push((number, due));
            continue;
        };
        let id = answer.split("\"event_id\":\"").nth(1).and_then(|rest| rest.get(..36)).unwrap_or_default().to_owned();
        looks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", query)).await?;
            let path = format!("/api/v1/projections/newest/d{}?after={id}", number % 5_000);
            let answer = exchange(&mut stream, "GET", &path, "").await?;
            if !answer.starts_with("HTTP/1.1 200") {
                bail!("{answer}");
            }
            Ok(ms(due.elapsed()))
        }));
    }
    let mut times = Vec::new();
    for look in looks {
        times.push(look.await??);
    }
    Ok((times, hooks))
}

async fn exchange(stream: &mut TcpStream, method: &str, path: &str, body: &str) -> Result<String> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        if stream.read_buf(&mut answer).await? == 0 {
            bail!("the connection was closed");
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
