//! Ingest over MQTT: the embedded broker, whose PUBACK says that an event is durable, against Mosquitto, which keeps nothing
//! and hands every publish to one subscriber. Both take the same publishes from the same publishers.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::runtime;
use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::{Process, folder, free_port, wait_for};

const PUBLISHERS: usize = 16;
/// Publishes of a publisher that are not acknowledged.
const IN_FLIGHT: usize = 64;
const PAYLOAD: &str = r#"{"value":21.5,"unit":"celsius"}"#;

const PIPELINE: &str = "
pipeline: bench
events: { sensor.reading: { payload: { value: double, unit: string } } }
sources:
  devices:
    mqtt:
      topics: ['devices/+/reading']
      qos: 1
      event: { type: sensor.reading, aggregate_id: '${topic.1}' }
streams: { results: 'SELECT value FROM sensor.reading WHERE value > 1000' }
sinks: { out: { stdout: { from: results } } }
";

pub fn ingest(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let runtime = runtime()?;
    let ours = Process::start(sizes, PIPELINE)?;
    let port = ours.port("mqtt")?;
    let mosquitto = Mosquitto::start()?;
    let time = sizes.time(4);
    let received = Arc::new(AtomicU64::new(0));
    let subscriber = runtime.block_on(subscribe(mosquitto.port))?;
    runtime.spawn(read_all(subscriber, Arc::clone(&received)));
    let load = |port| runtime.block_on(load(port, time));
    load(port)?;
    let mut sent = load(mosquitto.port)?.0;
    let mut comparison = interleaved(
        ("events/s", 0.6),
        runs,
        || load(port).map(|(_, rate)| rate),
        || {
            let (count, rate) = load(mosquitto.port)?;
            sent += count;
            Ok(rate)
        },
    )?;
    wait_until(&received, sent * bytes_received());
    let arrived = received.load(Ordering::Relaxed) / bytes_received();
    ensure!(arrived > 0, "the subscriber received nothing from Mosquitto");
    comparison.note = format!("the subscriber of Mosquitto received {arrived} of {sent}");
    Ok(comparison)
}

/// Waits for a moment until this much has come.
fn wait_until(received: &AtomicU64, bytes: u64) {
    let began = Instant::now();
    while received.load(Ordering::Relaxed) < bytes && began.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A topic; all are of one length.
fn topic(publisher: usize) -> String {
    format!("devices/device-{publisher:02}/reading")
}

/// How long a publish is that the subscriber receives: two bytes before the topic's length, and no packet id.
fn bytes_received() -> u64 {
    (2 + 2 + topic(0).len() + PAYLOAD.len()) as u64
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short").to_be_bytes();
    [&length, text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 0x80).expect("a short packet");
    [&[first, length], body].concat()
}

/// A connection of MQTT 3.1.1 with a clean session.
async fn connect(port: u16, name: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let body = [text("MQTT"), vec![4, 0x02, 0, 0], text(name)].concat();
    stream.write_all(&packet(0x10, &body)).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == [0x20, 2, 0, 0], "the broker does not let {name} in: {answer:?}");
    Ok(stream)
}

async fn subscribe(port: u16) -> Result<TcpStream> {
    let mut stream = connect(port, "subscriber").await?;
    let body = [vec![0, 1], text("devices/+/reading"), vec![0]].concat();
    stream.write_all(&packet(0x82, &body)).await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == [0x90, 3, 0, 1, 0], "the broker does not take the subscription: {answer:?}");
    Ok(stream)
}

async fn read_all(mut stream: TcpStream, received: Arc<AtomicU64>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
        received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Publishes for a time; gives how many were acknowledged, and how many of them in a second.
async fn load(port: u16, time: Duration) -> Result<(u64, f64)> {
    let started = Instant::now();
    let tasks: Vec<_> = (0..PUBLISHERS).map(|number| tokio::spawn(publish(port, number, started + time))).collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    #[allow(clippy::cast_precision_loss, reason = "events in a second, for people")]
    Ok((count, count as f64 / started.elapsed().as_secs_f64()))
}

/// Keeps its window full until the time is up, then waits for what is in flight; says how many were acknowledged.
async fn publish(port: u16, number: usize, until: Instant) -> Result<u64> {
    let mut stream = connect(port, &format!("publisher-{number}")).await?;
    let (topic, mut next_id, mut in_flight, mut acknowledged) = (text(&topic(number)), 0_u16, 0, 0);
    let (mut packets, mut answers) = (Vec::new(), Vec::with_capacity(4_096));
    loop {
        packets.clear();
        while in_flight < IN_FLIGHT && Instant::now() < until {
            next_id = next_id % 60_000 + 1;
            let body = [&topic[..], &next_id.to_be_bytes(), PAYLOAD.as_bytes()].concat();
            packets.extend(packet(0x32, &body));
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(acknowledged);
        }
        stream.write_all(&packets).await?;
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_buf(&mut answers)).await;
        ensure!(read.context("no acknowledgement within 30 s")?? > 0, "the broker closed the connection");
        let whole = answers.len() / 4;
        if let Some(other) = answers.chunks_exact(4).find(|answer| answer[..2] != [0x40, 2]) {
            bail!("the broker sent something else than a PUBACK: {other:?}");
        }
        answers.drain(..whole * 4);
        in_flight -= whole;
        acknowledged += whole as u64;
    }
}

/// A broker that keeps nothing.
struct Mosquitto {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Result<Self> {
        let program = program().context(
            "`mosquitto`, which this is measured against, is not installed: apt-get install mosquitto (Debian's package)",
        )?;
        let (folder, port) = (folder()?, free_port()?);
        // As root it would become another user. Its queue holds all, so that it leaves out nothing.
        let config = format!(
            "listener {port} 127.0.0.1\nuser root\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
             set_tcp_nodelay true\nlog_type error\nlog_dest none\n"
        );
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, config)?;
        let child = Command::new(program).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mosquitto = Self { child, port, _folder: folder };
        wait_for(port).context("Mosquitto was not ready in time")?;
        Ok(mosquitto)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where Mosquitto is; Debian puts it where not everybody looks.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("mosquitto")).find(|file| file.is_file())
}
