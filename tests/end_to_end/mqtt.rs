//! The embedded broker in the real binary: devices that keep their packets until they are acknowledged, killed under load
//! together with HTTP clients, and thousands of connections that say nothing.
//!
//! `KILLS` says how often to kill, `DEVICES` how many idle connections there are; `SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};

use crate::http::stored_order;
use crate::kills::{post_until, scramble};
use crate::process::{Process, binary, number};

const PIPELINE: &str = "
pipeline: devices
events:
  sensor.reading: { payload: { value: double }, watermark: { delay: 5s } }
sources:
  api: { http: {} }
  devices:
    mqtt:
      topics: ['devices/+/reading']
      event: { type: sensor.reading, aggregate_id: '${topic.1}' }
sinks:
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
";
/// Publishes of a device that are not acknowledged.
const IN_FLIGHT: usize = 16;

fn written(folder: &Path) -> (PathBuf, PathBuf) {
    let pipeline = folder.join("devices.yaml");
    std::fs::write(&pipeline, PIPELINE).expect("written");
    (pipeline, folder.join("data"))
}

fn broker_port(data: &Path) -> u16 {
    let text = std::fs::read_to_string(data.join("ports.json")).expect("it runs");
    let ports: Value = serde_json::from_str(&text).expect("JSON");
    ports["mqtt"].as_u64().and_then(|port| port.try_into().ok()).expect("a port")
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(body.len()).expect("short")], body].concat()
}

/// A device that does as the standard says: what is not acknowledged is sent again, first and in its order, with DUP.
struct Device {
    name: String,
    version: u8,
    qos: u8,
    /// How many it has published.
    published: u64,
    in_flight: VecDeque<InFlight>,
    /// Packets that it sent again.
    repeated: u64,
}

struct InFlight {
    id: u16,
    number: u64,
    /// QoS 2: the broker has it.
    is_received: bool,
}

impl Device {
    fn new(name: &str, version: u8, qos: u8) -> Self {
        Self { name: name.into(), version, qos, published: 0, in_flight: VecDeque::new(), repeated: 0 }
    }

    fn connect(&self, keep_alive: u16) -> Vec<u8> {
        let mut body = [text("MQTT"), vec![self.version, 0]].concat();
        body.extend(keep_alive.to_be_bytes());
        if self.version == 5 {
            // The session lasts for an hour.
            body.extend([5, 0x11, 0, 0, 0x0e, 0x10]);
        }
        body.extend(text(&self.name));
        packet(0x10, &body)
    }

    fn publish(&self, at: &InFlight, is_again: bool) -> Vec<u8> {
        let [high, low] = at.id.to_be_bytes();
        if at.is_received {
            return vec![0x62, 2, high, low];
        }
        let mut body = text(&format!("devices/{}/reading", self.name));
        body.extend([high, low]);
        if self.version == 5 {
            body.push(0);
        }
        body.extend(format!("{{\"value\":{}}}", at.number).as_bytes());
        packet(0x30 | u8::from(is_again) << 3 | self.qos << 1, &body)
    }

    /// Publishes until told to stop and everything is acknowledged, wherever the broker is.
    async fn run(mut self, mut port: watch::Receiver<u16>, stop: Arc<AtomicBool>) -> Self {
        loop {
            let at = *port.borrow_and_update();
            if let Ok(socket) = TcpStream::connect(("127.0.0.1", at)).await
                && self.speak(socket, &stop).await.is_ok()
            {
                return self;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn speak(&mut self, mut socket: TcpStream, stop: &AtomicBool) -> std::io::Result<()> {
        let _ = socket.set_nodelay(true);
        socket.write_all(&self.connect(0)).await?;
        let (first, body) = receive(&mut socket).await?;
        assert_eq!((first, body[1]), (0x20, 0), "it may come in");
        let again: Vec<u8> = self.in_flight.iter().flat_map(|at| self.publish(at, true)).collect();
        self.repeated += self.in_flight.len() as u64;
        socket.write_all(&again).await?;
        loop {
            let mut new = Vec::new();
            while self.in_flight.len() < IN_FLIGHT && !stop.load(Ordering::SeqCst) {
                let id = u16::try_from(self.published % 60_000).expect("small") + 1;
                let at = InFlight { id, number: self.published, is_received: false };
                new.extend(self.publish(&at, false));
                self.in_flight.push_back(at);
                self.published += 1;
            }
            socket.write_all(&new).await?;
            if self.in_flight.is_empty() {
                return Ok(());
            }
            let (first, body) = receive(&mut socket).await?;
            let id = u16::from_be_bytes([body[0], body[1]]);
            if first == 0x50 {
                let at = self.in_flight.iter_mut().find(|at| at.id == id).expect("it was sent");
                at.is_received = true;
                socket.write_all(&[0x62, 2, body[0], body[1]]).await?;
            } else {
                assert!(matches!(first, 0x40 | 0x70), "{first:#x}");
                self.in_flight.retain(|at| at.id != id);
            }
        }
    }
}

async fn receive(socket: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let receive = async {
        let first = socket.read_u8().await?;
        let length = socket.read_u8().await?;
        assert!(length < 0x80, "a short packet");
        let mut body = vec![0; usize::from(length)];
        socket.read_exact(&mut body).await?;
        Ok((first, body))
    };
    tokio::time::timeout(Duration::from_secs(30), receive).await.expect("an answer or the end")
}

/// Every device's readings are stored once each, without a gap and in their order.
async fn assert_once_and_in_order(process: &Process, devices: &[Device]) {
    let sql = "SELECT aggregate_id, count(*) AS n, count(DISTINCT value) AS different, min(value) AS first, \
               max(value) AS last FROM sensor.reading WHERE aggregate_id LIKE 'device-%' GROUP BY 1 ORDER BY 1";
    let found: BTreeMap<String, Value> = process
        .sql(sql)
        .await
        .into_iter()
        .map(|row| (row["aggregate_id"].as_str().expect("text").into(), row))
        .collect();
    for Device { name, published, .. } in devices {
        let row = &found[name];
        assert_eq!((&row["n"], &row["different"]), (&json!(published), &json!(published)), "{name}: {row}");
        assert_eq!(row["first"].as_f64(), Some(0.0), "{name}: {row}");
        assert_eq!(row["last"].as_f64().map(|last| format!("{last:.0}")), Some((published - 1).to_string()), "{name}");
        assert_eq!(stored_order(process, name).await, Ok(()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_under_http_and_mqtt_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let (kills, seed) = (number("KILLS", 30), number("SEED", u64::from(std::process::id())));
    eprintln!("SEED={seed} KILLS={kills}");
    let mut process = Process::start(&pipeline, &data).await;
    let (port, ports) = watch::channel(broker_port(&data));
    let (no_more, accepted) = (Arc::<AtomicBool>::default(), Arc::new(Mutex::new(Vec::new())));
    let devices: Vec<_> = [(4, 1), (5, 1), (4, 2), (5, 2)]
        .into_iter()
        .map(|(version, qos)| Device::new(&format!("device-{version}-{qos}"), version, qos))
        .map(|device| tokio::spawn(device.run(ports.clone(), Arc::clone(&no_more))))
        .collect();
    for round in 0..=kills {
        let stop = Arc::<AtomicBool>::default();
        let client = |n| post_until(process.ingest.clone(), round * 4 + n, Arc::clone(&stop), Arc::clone(&accepted));
        let clients: Vec<_> = (0..4).map(|n| tokio::spawn(client(n))).collect();
        tokio::time::sleep(Duration::from_millis(50 + scramble(seed + round) % 600)).await;
        if round < kills {
            process.kill();
        }
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            client.await.expect("a client");
        }
        if round < kills {
            process = Process::start(&pipeline, &data).await;
            port.send_replace(broker_port(&data));
        }
    }
    no_more.store(true, Ordering::SeqCst);
    let mut finished = Vec::new();
    for device in devices {
        finished.push(device.await.expect("a device"));
    }
    let published: u64 = finished.iter().map(|device| device.published).sum();
    let repeated: u64 = finished.iter().map(|device| device.repeated).sum();
    assert!(published > kills * 40 && repeated > kills, "hardly any load: {published}, {repeated} sent again");
    assert_once_and_in_order(&process, &finished).await;
    let ids = process.sql("SELECT event_id FROM sensor.reading WHERE aggregate_id NOT LIKE 'device-%'").await;
    let stored: BTreeSet<&str> = ids.iter().filter_map(|row| row["event_id"].as_str()).collect();
    assert_eq!(stored.len(), ids.len(), "an event is stored twice");
    let accepted = accepted.lock().await;
    assert!(accepted.iter().all(|id| stored.contains(id.as_str())), "an accepted event is lost");
    eprintln!("{published} published, {repeated} sent again; {} accepted by HTTP", accepted.len());
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_that_say_nothing_cost_little() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let process = Process::start(&pipeline, &data).await;
    let (count, port, before) = (number("DEVICES", 500), broker_port(&data), process.memory_kib());
    let mut idle = Vec::new();
    for n in 0..count {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        socket.write_all(&Device::new(&format!("idle-{n}"), 4, 0).connect(0)).await.expect("sent");
        assert_eq!(receive(&mut socket).await.expect("an answer").0, 0x20);
        idle.push(socket);
    }
    let memory = process.memory_kib().saturating_sub(before);
    let (_, ports) = watch::channel(port);
    let (stop, began) = (Arc::<AtomicBool>::default(), Instant::now());
    let device = tokio::spawn(Device::new("device-busy", 5, 1).run(ports, Arc::clone(&stop)));
    let mut times = Vec::new();
    while began.elapsed() < Duration::from_secs(3) {
        let start = Instant::now();
        process.accept(&json!({"event_type": "sensor.reading", "aggregate_id": "a", "payload": {"value": 1}})).await;
        times.push(start.elapsed());
    }
    stop.store(true, Ordering::SeqCst);
    let device = device.await.expect("a device");
    times.sort_unstable();
    eprintln!(
        "{count} idle connections take {} KiB each; meanwhile {} events by MQTT and {} by HTTP in 3 s, half of these in {:?}, 99 % in {:?}",
        memory / count,
        device.published,
        times.len(),
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    assert!(memory < count * 40 + 20_000, "{memory} KiB for {count}");
    assert_once_and_in_order(&process, &[device]).await;
    drop(idle);
    process.assert_balanced().await;
}

/// docs/mqtt-conformance.md has them all; these are the ones that a stranger or a broken device sends most.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_rules_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let mut process = Process::start(&pipeline, &data).await;
    let connect = |version: u8, flags: u8, rest: &[u8]| {
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        packet(0x10, &[&text("MQTT"), [version, flags, 0, 0].as_slice(), properties, rest].concat())
    };
    let cases: [(&str, Vec<u8>, &[u8]); 9] = [
        ("the hello of TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), b""),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), b""),
        ("Will Retain without a will", connect(4, 0x22, &text("c")), b""),
        ("Will Retain without a will in MQTT 5", connect(5, 0x22, &text("c")), b"\x20\x03\0\x81\0"),
        ("U+0000 in the client id", connect(5, 2, b"\0\x02a\0"), b"\x20\x03\0\x81\0"),
        ("a client id that goes beyond its packet", connect(5, 2, b"\0\x20a"), b"\x20\x03\0\x81\0"),
        ("a level that there is none of", packet(0x10, b"\0\x04MQTT\x03\x02\0\0\0\0"), b"\x20\x02\0\x01"),
        ("bytes left over", connect(5, 2, b"\0\x01cxx"), b"\x20\x03\0\x81\0"),
        ("a wildcard in a topic", [connect(5, 2, b"\0\x01c"), packet(0x30, b"\0\x01#\0")].concat(), b"\xe0\x01\x90"),
    ];
    for (what, bytes, expected) in cases {
        let mut socket = TcpStream::connect(("127.0.0.1", broker_port(&data))).await.expect("a connection");
        socket.write_all(&bytes).await.expect("sent");
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
        // What was not read when it was closed may make it a reset.
        let _ = closed.unwrap_or_else(|_| panic!("{what}: not closed at once"));
        assert!(answer.ends_with(expected) && (!expected.is_empty() || answer.is_empty()), "{what}: {answer:?}");
    }
    assert!(process.is_alive());
    process.assert_balanced().await;
}

#[test]
fn the_broker_is_not_open_to_others_unless_it_asks_who_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, data) = written(folder.path());
    let keys = folder.path().join("keys.txt");
    std::fs::write(&keys, format!("eye {} query\n", "0".repeat(64))).expect("written");
    let run = |arguments: &[&str]| {
        let mut command = binary();
        command.arg("run").arg(&pipeline).arg("--data-dir").arg(&data).args(["--host", "0.0.0.0"]).args(arguments);
        let output = command.output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["--api-keys-file", keys.to_str().expect("UTF-8")]);
    assert!(code == Some(2) && said.contains("--mqtt-password-file") && said.contains("--insecure"), "{code:?} {said}");
    assert!(!data.exists(), "a run that is refused leaves nothing");
}
