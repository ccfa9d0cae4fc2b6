//! Ingest while the heaviest queries run, against ingest alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{PIPELINE, load, runtime};
use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::Process;

/// Joins everything with everything of its device, as many at a time as there may be, and one more.
const HEAVY: &str = "SELECT count(*) AS n, sum(a.value * b.value) AS s FROM sensor.reading a JOIN sensor.reading b \
                     ON a.aggregate_id = b.aggregate_id GROUP BY a.unit ORDER BY s";
const QUERIES: usize = 9;
const CONNECTIONS: usize = 64;

pub fn ingest(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let (runtime, time) = (runtime()?, sizes.time(5));
    let ours = Process::start(sizes, PIPELINE)?;
    let (taken, asked) = (ours.port("ingest")?, ours.port("query")?);
    runtime.block_on(load(taken, CONNECTIONS, time))?;
    let answered = Arc::new(AtomicU64::new(0));
    let mut comparison = interleaved(
        ("events/s", 0.9),
        runs,
        || {
            let asking: Vec<_> = (0..QUERIES).map(|_| runtime.spawn(ask(asked, Arc::clone(&answered)))).collect();
            let rate = runtime.block_on(async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                load(taken, CONNECTIONS, time).await
            });
            asking.iter().for_each(tokio::task::JoinHandle::abort);
            Ok(rate?.0)
        },
        || Ok(runtime.block_on(load(taken, CONNECTIONS, time))?.0),
    )?;
    let answered = answered.load(Ordering::Relaxed);
    comparison.note = format!("{CONNECTIONS} connections; {QUERIES} joins at a time, {answered} answered");
    Ok(comparison)
}

/// Asks the heavy query again and again.
async fn ask(port: u16, answered: Arc<AtomicU64>) {
    let body = format!("{{\"sql\":\"{HEAVY}\"}}");
    let request = format!(
        "POST /api/v1/sql HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    loop {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return };
        if stream.write_all(request.as_bytes()).await.is_err() {
            return;
        }
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await.is_ok_and(|bytes| bytes > 0) {}
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
