//! Ingest over MQTT: devices that publish with QoS 1 to the embedded broker, against Mosquitto taking the same publishes
//! without storing anything and handing them to one subscriber.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::measure::{Comparison, Sizes, interleaved};
use crate::process::{Killed, Ours, free_port, wait_for};

const PUBLISHERS: usize = 16;
const IN_FLIGHT: usize = 64;
const PIPELINE: &str = "pipeline: bench\n\
    events: { sensor.reading: { payload: { value: double, unit: string } } }\n\
    sources: { devices: { mqtt: { topics: ['devices/+/reading'], event: { type: sensor.reading, aggregate_id: '${topic.1}' } } } }\n\
    streams: { results: \"SELECT value FROM sensor.reading WHERE value > 1000\" }\n\
    sinks: { out: { stdout: { from: results } } }\n";

pub fn ingest(sizes: &Sizes, runs: usize) -> Result<Comparison> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let time = if sizes.small { Duration::from_millis(300) } else { Duration::from_secs(4) };
    let (ours, floor) = (Ours::start(sizes, PIPELINE)?, Mosquitto::start()?);
    runtime.block_on(async { subscribe(floor.port).await })?;
    let load = |port| runtime.block_on(load(port, time));
    load(ours.mqtt)?;
    load(floor.port)?;
    let mut comparison = interleaved(("publishes/s", 0.6), runs, || load(ours.mqtt), || load(floor.port))?;
    comparison.note =
        format!("QoS 1, {PUBLISHERS} publishers, {IN_FLIGHT} in flight; the floor is Mosquitto, which stores nothing");
    Ok(comparison)
}

/// A Mosquitto that keeps nothing.
struct Mosquitto {
    _child: Killed,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Result<Self> {
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let file = folder.path().join("mosquitto.conf");
        let settings =
            "allow_anonymous true\npersistence false\nmax_queued_messages 0\nmax_inflight_messages 0\nlog_type none\n";
        std::fs::write(&file, format!("listener {port} 127.0.0.1\n{settings}"))?;
        let places = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];
        let program = places.iter().map(PathBuf::from).find(|place| place.is_file());
        let program = program.context("the floor is Mosquitto, which is not installed: apt-get install mosquitto")?;
        let child = Command::new(program).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let child = Killed(child);
        wait_for(port)?;
        Ok(Self { _child: child, port, _folder: folder })
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&length, text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    // All of them are short.
    [&[first, u8::try_from(body.len()).unwrap_or(0x7f)], body].concat()
}

/// A connection that has said who it is.
async fn connect(port: u16, name: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let body = [text("MQTT"), vec![4, 2, 0, 0], text(name)].concat();
    stream.write_all(&packet(0x10, &body)).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    if answer != [0x20, 2, 0, 0] {
        bail!("the broker refuses: {answer:?}");
    }
    Ok(stream)
}

/// Somebody who reads everything.
async fn subscribe(port: u16) -> Result<()> {
    let mut stream = connect(port, "reader").await?;
    stream.write_all(&packet(0x82, &[&[0, 1][..], &text("#"), &[0]].concat())).await?;
    tokio::spawn(async move {
        let mut all = vec![0; 64 << 10];
        while stream.read(&mut all).await.is_ok_and(|bytes| bytes > 0) {}
    });
    Ok(())
}

async fn load(port: u16, time: Duration) -> Result<f64> {
    let started = Instant::now();
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|number| tokio::spawn(publish(port, number, started + time))).collect();
    let mut count = 0;
    for publisher in publishers {
        count += publisher.await??;
    }
    #[allow(clippy::cast_precision_loss, reason = "publishes in a second, for people")]
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// Publishes until then, with so many in flight; gives how many were acknowledged.
async fn publish(port: u16, number: usize, until: Instant) -> Result<usize> {
    let mut stream = connect(port, &format!("publisher-{number}")).await?;
    let topic = text(&format!("devices/device-{number}/reading"));
    let (mut sent, mut acknowledged, mut rest) = (0_usize, 0_usize, 0_usize);
    let (mut out, mut answers) = (Vec::new(), vec![0; 4_096]);
    loop {
        out.clear();
        while sent - acknowledged < IN_FLIGHT && Instant::now() < until {
            let id = u16::try_from(sent % 60_000 + 1).unwrap_or(1).to_be_bytes();
            let body = format!("{{\"value\":{}.5,\"unit\":\"celsius\"}}", sent % 100);
            out.extend(packet(0x32, &[topic.as_slice(), &id, body.as_bytes()].concat()));
            sent += 1;
        }
        stream.write_all(&out).await?;
        if sent == acknowledged {
            return Ok(acknowledged);
        }
        // PUBACKs, four bytes each.
        let read = stream.read(&mut answers).await?;
        if read == 0 {
            bail!("the broker has closed the connection");
        }
        acknowledged += (rest + read) / 4;
        rest = (rest + read) % 4;
    }
}
