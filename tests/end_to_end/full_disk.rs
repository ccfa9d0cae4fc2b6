//! A disk that is really full: what is answered 202 is stored, nothing else is, reads go on, and once there is room
//! everything goes on by itself, over `kill -9` and a start on the full disk.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::damage::PIPELINE;
use crate::process::{Process, binary, output};

const CLIENTS: u64 = 6;
const PATIENCE: Duration = Duration::from_mins(3);

/// A small disk of its own: a tmpfs, mounted here, or, where that is not allowed, in a namespace in which it is.
struct Disk {
    /// Where the test sees it.
    seen: PathBuf,
    /// Where it is for the processes on it.
    mounted: PathBuf,
    /// Keeps the namespace.
    namespace: Option<Child>,
    _folder: tempfile::TempDir,
}

impl Disk {
    fn mount(megabytes: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = folder.path().join("disk");
        std::fs::create_dir(&mounted).expect("made");
        let size = format!("size={megabytes}m");
        let is_wanted = std::env::var("FULL_DISK").map_or(true, |how| how == "mount");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mounted);
        let told = if is_wanted { mount.output().ok() } else { None };
        if told.as_ref().is_some_and(|told| told.status.success()) {
            return Self { seen: mounted.clone(), mounted, namespace: None, _folder: folder };
        }
        let script =
            format!("mount -t tmpfs -o {size} tmpfs '{}' && echo mounted && exec sleep 600", mounted.display());
        let mut namespace = Command::new("unshare");
        namespace.args(["--map-root-user", "--mount", "sh", "-c", &script]).stdout(Stdio::piped());
        let mut namespace = namespace.spawn().expect("`unshare` of util-linux is there");
        let mut said = String::new();
        let lines = std::io::BufReader::new(namespace.stdout.as_mut().expect("piped"));
        std::io::BufRead::read_line(&mut { lines }, &mut said).expect("read");
        assert_eq!(
            said, "mounted\n",
            "this test needs a small disk, and neither `mount -t tmpfs` ({told:?}) nor the same under `unshare \
             --map-root-user --mount` is allowed here: run it as root, with CAP_SYS_ADMIN in a container"
        );
        let seen = PathBuf::from(format!("/proc/{}/root{}", namespace.id(), mounted.display()));
        Self { seen, mounted, namespace: Some(namespace), _folder: folder }
    }

    /// The binary, where it sees the disk.
    fn binary(&self) -> Command {
        let plain = binary();
        let Some(namespace) = &self.namespace else { return plain };
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "--user", "--mount", "--target", &namespace.id().to_string()]);
        command.arg(plain.get_program());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Takes all the room that is left.
    fn fill(&self, name: &str) {
        let filler = OpenOptions::new().create(true).append(true).open(self.seen.join(name));
        let mut filler = filler.expect("made");
        for bytes in [1 << 20, 4096] {
            while filler.write_all(&vec![0; bytes]).is_ok() {}
        }
    }

    /// Takes so much room.
    fn take(&self, name: &str, megabytes: usize) {
        std::fs::write(self.seen.join(name), vec![0; megabytes << 20]).expect("written");
    }

    fn make_room(&self, name: &str) {
        std::fs::remove_file(self.seen.join(name)).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(namespace) = &mut self.namespace {
            let _ = namespace.kill();
            let _ = namespace.wait();
        } else {
            // Lazily: a process that is being ended may still be on it.
            let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
        }
    }
}

/// What clients were told.
#[derive(Default)]
struct Told {
    accepted: Mutex<Vec<String>>,
    full: AtomicU64,
    stop: AtomicBool,
}

impl Told {
    async fn accepted(&self) -> usize {
        self.accepted.lock().await.len()
    }

    fn full(&self) -> u64 {
        self.full.load(Ordering::SeqCst)
    }
}

/// Posts, one event after the other: each is taken, or the answer says when to come again.
async fn post(ingest: String, number: u64, told: Arc<Told>) {
    let client = Client::builder().timeout(Duration::from_mins(2)).build().expect("a client");
    let filling = "x".repeat(600);
    for count in 0_u32.. {
        if told.stop.load(Ordering::SeqCst) {
            return;
        }
        let payload = json!({"value": count, "unit": filling});
        let event =
            json!({"event_type": "sensor.reading", "aggregate_id": format!("d{}", number % 5), "payload": payload});
        let Ok(response) = client.post(format!("{ingest}/api/v1/events")).json(&event).send().await else { continue };
        let status = response.status();
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        let body: Value = response.json().await.unwrap_or_default();
        if status == 202 {
            told.accepted.lock().await.push(body["event_id"].as_str().expect("an id").to_string());
        } else {
            assert!(status == 503 && after.is_some_and(|seconds| seconds > 0), "{status} {after:?} {body}");
            assert!(body["error"].as_str().is_some_and(|text| text.contains("full")), "{body}");
            told.full.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Load {
    told: Arc<Told>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on(process: &Process, told: &Arc<Told>) -> Self {
        told.stop.store(false, Ordering::SeqCst);
        let client = |number| tokio::spawn(post(process.ingest.clone(), number, Arc::clone(told)));
        Self { told: Arc::clone(told), clients: (0..CLIENTS).map(client).collect() }
    }

    async fn stop(self) {
        self.told.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("every answer was right");
        }
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads of projections, events and the ledger's figures work, whatever the disk does.
async fn assert_reads(process: &Process) {
    assert_eq!(process.sql("SELECT count(*) AS n FROM newest").await, [json!({"n": 5})]);
    assert!(process.sql("SELECT count(*) AS n FROM sensor.reading").await[0]["n"].as_u64() > Some(0));
    let (status, row) = process.get("/api/v1/projections/newest/d1").await;
    assert_eq!(status, 200, "{row}");
}

fn free_ports() -> [String; 3] {
    let taken: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    [0, 1, 2].map(|at| taken[at].local_addr().expect("an address").port().to_string())
}

/// Everything that was answered 202 is there once, and the results are those of the events that are there.
async fn assert_exact(process: &Process, told: &Told) {
    let accepted = told.accepted.lock().await;
    let rows = process.sql("SELECT event_id FROM sensor.reading").await;
    let stored: std::collections::BTreeSet<&str> = rows.iter().filter_map(|row| row["event_id"].as_str()).collect();
    assert_eq!(stored.len(), rows.len(), "an event is stored twice");
    let lost = accepted.iter().filter(|id| !stored.contains(id.as_str())).count();
    assert_eq!(lost, 0, "{lost} of {} accepted events are not stored", accepted.len());
    // A kill may come between a commit and its answer; there was one.
    assert!(
        stored.len() - accepted.len() <= usize::try_from(CLIENTS).expect("few"),
        "{}",
        stored.len() - accepted.len()
    );
    eprintln!("{} answered 202, {} stored, {} answered 503", accepted.len(), stored.len(), told.full());
    let late = process.sql("SELECT count(*) AS n FROM cornjacket.dead_letters").await;
    let in_windows = stored.len() as u64 - late[0]["n"].as_u64().expect("a count");
    process.sql_until("SELECT sum(n) AS n FROM devices", |rows| rows == [json!({"n": in_windows})]).await;
    let newest = "SELECT aggregate_id, max(event_time) AS t FROM sensor.reading GROUP BY 1 ORDER BY 1";
    let kept = "SELECT aggregate_id, last_event_timestamp AS t FROM newest ORDER BY 1";
    assert_eq!(process.sql(kept).await, process.sql(newest).await);
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_what_it_cannot_store_and_goes_on_when_there_is_room() {
    let disk = Disk::mount(40);
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = folder.path().join("damage.yaml");
    std::fs::write(&pipeline, PIPELINE).expect("written");
    let (data, seen) = (disk.mounted.join("data"), disk.seen.join("data"));
    disk.take("filler", 24);

    // Events in until the disk is full.
    let mut process = start(&disk, &pipeline, (&data, &seen), &[]).await;
    let told = Arc::new(Told::default());
    let load = Load::on(&process, &told);
    until("the disk is full", async || told.full() > 200).await;
    assert!(told.accepted().await > 100);
    assert_reads(&process).await;
    process.assert_balanced().await;

    // Others take the rest too, and what folding the write-ahead log has freed, while events come in and windows want to close.
    for _ in 0..2 {
        let full = told.full();
        until("more is refused", async || {
            disk.fill("others");
            told.full() > full + 400
        })
        .await;
    }
    assert_reads(&process).await;
    assert!(process.is_alive());

    // Room: it goes on by itself.
    disk.make_room("others");
    disk.make_room("filler");
    let accepted = told.accepted().await;
    until("events are stored again", async || told.accepted().await > accepted + 300).await;

    // Full again, and killed.
    let full = told.full();
    until("the disk is full again", async || {
        disk.fill("others");
        told.full() > full + 200
    })
    .await;
    process.kill();
    load.stop().await;
    disk.fill("others too");

    // A start on the full disk answers questions and refuses events. Its ports are given, since they cannot be written down.
    let [ingest, query, actions] = free_ports();
    let ports = ["--ingestion-port", &ingest, "--query-port", &query, "--actions-port", &actions];
    let mut process = start(&disk, &pipeline, (&data, &seen), &ports).await;
    assert_reads(&process).await;
    let event = json!({"event_type": "sensor.reading", "aggregate_id": "d1", "payload": {"value": 1, "unit": "c"}});
    until("events are refused", async || {
        disk.fill("others too");
        let response = process.post(&event).await;
        let (status, again) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
        assert!(status == 202 || (status == 503 && again), "{status}");
        if status == 202 {
            let body: Value = response.json().await.expect("JSON");
            told.accepted.lock().await.push(body["event_id"].as_str().expect("an id").to_string());
        }
        status == 503
    })
    .await;

    // Room again: it goes on, and everything is there exactly once.
    for filler in ["others", "others too"] {
        disk.make_room(filler);
    }
    let load = Load::on(&process, &told);
    let accepted = told.accepted().await;
    until("events are stored again", async || told.accepted().await > accepted + 100).await;
    load.stop().await;
    until("the ports are written down", async || seen.join("ports.json").exists()).await;
    assert_exact(&process, &told).await;
    assert_eq!(process.terminate().code(), Some(0));
    if disk.namespace.is_none() {
        let told = output(&["check", "--data", data.to_str().expect("UTF-8")]);
        assert_eq!(told.status.code(), Some(0), "{}", String::from_utf8_lossy(&told.stdout));
    }
}

async fn start(disk: &Disk, pipeline: &Path, (data, seen): (&Path, &Path), ports: &[&str]) -> Process {
    let mut command = disk.binary();
    command.arg("run").arg(pipeline).args(["--log-level", "warn", "--data-dir"]).arg(data).args(ports);
    let known = ports.get(1).zip(ports.get(3)).map(|(ingest, query)| json!({"ingest": ingest, "query": query}));
    Process::start_as(command, seen, known).await
}
