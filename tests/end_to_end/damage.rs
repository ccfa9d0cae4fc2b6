//! Damaged, truncated and deleted files: nothing of it is silent, nothing is made worse by a start, and what was
//! acknowledged before the damaged place can be had back.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::process::{Process, binary, output};

pub const PIPELINE: &str = "
pipeline: damage
events:
  sensor.reading:
    payload: { value: double, unit: string }
    watermark: { delay: 1s, idle: 1s, max_ahead: 1m }
sources: { api: { http: {} } }
streams:
  by_device: |
    SELECT device, w.start AS window_start, n, total FROM (
      SELECT tumble(interval '2 seconds') AS w, aggregate_id AS device, count(*) AS n, sum(value) AS total
      FROM sensor.reading GROUP BY w, device)
sinks:
  devices: { projection: { from: by_device, key: [device, window_start] } }
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
";
const EVENTS: usize = 40;
const WAL_HEADER: u64 = 32;
const FRAME: u64 = 24 + 4096;

/// A data folder, the pipeline it is of, and what was acknowledged into it, in its order.
struct Folder {
    root: tempfile::TempDir,
    pipeline: PathBuf,
    data: PathBuf,
    accepted: Vec<String>,
}

impl Folder {
    /// A folder that a process has filled, one commit an event, and read to its end.
    async fn filled(is_killed: bool) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let (pipeline, data) = (root.path().join("damage.yaml"), root.path().join("data"));
        std::fs::write(&pipeline, PIPELINE).expect("written");
        let mut process = Process::start(&pipeline, &data).await;
        let mut accepted = Vec::new();
        for number in 0..EVENTS {
            accepted.push(process.accept(&reading(number)).await);
        }
        let last = accepted.last().expect("events");
        let (status, _) = process.get(&format!("/api/v1/projections/newest/d0?after={last}")).await;
        assert_eq!(status, 200);
        // Silence closes the last windows.
        process.sql_until("SELECT sum(n) AS n FROM devices", |rows| rows == [json!({"n": EVENTS})]).await;
        process.assert_balanced().await;
        if is_killed {
            process.kill();
        } else {
            assert_eq!(process.terminate().code(), Some(0));
        }
        Self { root, pipeline, data, accepted }
    }

    /// A copy to be damaged.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.root.path().join(name);
        std::fs::create_dir(&copy).expect("made");
        for entry in std::fs::read_dir(&self.data).expect("a folder") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
        }
        copy
    }

    /// A start that must end by itself with exit code 2; gives what it said.
    fn refused(&self, data: &Path) -> String {
        let log = self.root.path().join("refused.txt");
        let mut command = binary();
        command.arg("run").arg(&self.pipeline).arg("--data-dir").arg(data);
        let told = File::create(&log).expect("made");
        let mut child = command.stdout(Stdio::null()).stderr(told).spawn().expect("starts");
        let deadline = Instant::now() + Duration::from_mins(2);
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().expect("killed");
                panic!("it goes on: {}", std::fs::read_to_string(&log).expect("read"));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = std::fs::read_to_string(&log).expect("read");
        assert_eq!(status.code(), Some(2), "{said}");
        said
    }

    /// A start that works; gives what it logs at the end.
    async fn started(&self, data: &Path) -> (Process, PathBuf) {
        let log = self.root.path().join("log.txt");
        let told = File::create(&log).expect("made");
        (Process::start_telling(&self.pipeline, data, &[], told).await, log)
    }
}

fn reading(number: usize) -> Value {
    let payload = json!({"value": f64::from(u32::try_from(number).expect("small")) / 4.0, "unit": "celsius"});
    json!({"event_type": "sensor.reading", "aggregate_id": format!("d{}", number % 5), "payload": payload})
}

/// What `check --data` says: its exit code, and all faults.
fn check(data: &Path) -> (Option<i32>, Vec<Value>) {
    let told = output(&["check", "--data", data.to_str().expect("UTF-8")]);
    let lines = String::from_utf8(told.stdout).expect("UTF-8");
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let faults = lines.flat_map(|line| line["faults"].as_array().expect("faults").clone()).collect();
    (told.status.code(), faults)
}

/// Everything that it finds must be told with place, reason and remedy; one fault's place and reason hold these.
#[track_caller]
fn assert_found(data: &Path, place: &str, what: &str) {
    let (code, faults) = check(data);
    assert_eq!(code, Some(1), "{faults:?}");
    let holds =
        |fault: &Value, field: &str, text: &str| fault[field].as_str().is_some_and(|found| found.contains(text));
    let is_it = |fault: &&Value| holds(fault, "place", place) && holds(fault, "what", what);
    assert!(faults.iter().any(|fault| is_it(&fault)), "no {place}: {what} in {faults:#?}");
    assert!(faults.iter().all(|fault| fault["remedy"].as_str().is_some_and(|text| text.len() > 20)), "{faults:?}");
}

#[track_caller]
fn assert_sound(data: &Path) {
    let (code, faults) = check(data);
    assert_eq!((code, faults), (Some(0), Vec::new()));
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("read");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

fn remove(data: &Path, file: &str) {
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(data.join(format!("{file}{ending}")));
    }
}

/// Exactly the first of what was acknowledged is there, and the projections say the same as the events.
async fn assert_holds_first(process: &Process, accepted: &[String]) {
    let rows = process.sql("SELECT event_id FROM sensor.reading").await;
    let stored: BTreeSet<&str> = rows.iter().filter_map(|row| row["event_id"].as_str()).collect();
    assert_eq!(stored.len(), rows.len(), "an event is there twice");
    assert_eq!(stored, accepted.iter().map(String::as_str).collect());
    let newest = "SELECT aggregate_id, max(event_time) AS t FROM sensor.reading GROUP BY 1 ORDER BY 1";
    let expected = process.sql(newest).await;
    let kept = "SELECT aggregate_id, last_event_timestamp AS t FROM newest ORDER BY 1";
    process.sql_until(kept, |rows| rows == expected).await;
    process.assert_balanced().await;
}

/// Where each commit of a write-ahead log ends.
fn commits(wal: &[u8]) -> Vec<u64> {
    let frames = (wal.len() as u64 - WAL_HEADER) / FRAME;
    let at = |frame: u64| usize::try_from(WAL_HEADER + frame * FRAME).expect("small");
    let is_commit = |frame: &u64| wal[at(*frame) + 4..at(*frame) + 8] != [0; 4];
    (0..frames).filter(is_commit).map(|frame| WAL_HEADER + (frame + 1) * FRAME).collect()
}

#[tokio::test]
async fn a_damaged_write_ahead_log_is_refused_and_what_was_sound_can_be_kept() {
    let folder = Folder::filled(true).await;
    assert_sound(&folder.data);
    let data = folder.copy("flipped");
    let wal = data.join("log.db-wal");
    let ends = commits(&std::fs::read(&wal).expect("read"));
    // The last twenty events had a commit each.
    let sound = ends[ends.len() - 21];
    change(&wal, |bytes| bytes[usize::try_from(sound + 200).expect("small")] ^= 0x10);

    assert_found(&data, &format!("log.db-wal: byte {sound}"), "acknowledged");
    let before = std::fs::read(&wal).expect("read");
    let said = folder.refused(&data);
    let advice = format!("truncate -s {sound} {}", wal.display());
    assert!(said.contains(&format!("damaged at byte {sound}")) && said.contains(&advice), "{said}");
    assert!(std::fs::read(&wal).expect("read") == before, "a refused start changes nothing");

    // What it advises: give up what lies behind, and then what the store has read of it.
    OpenOptions::new().write(true).open(&wal).and_then(|file| file.set_len(sound)).expect("truncated");
    let said = folder.refused(&data);
    assert!(said.contains("has taken in 20 that it no longer has") && said.contains("store.db-wal"), "{said}");
    assert_found(&data, "store.db: damage", "20 events that the log no longer has");
    remove(&data, "store.db");
    let (mut process, log) = folder.started(&data).await;
    assert_holds_first(&process, &folder.accepted[..EVENTS - 20]).await;
    // It goes on with new events as if nothing had happened.
    let mut accepted = folder.accepted[..EVENTS - 20].to_vec();
    accepted.push(process.accept(&reading(7)).await);
    assert_holds_first(&process, &accepted).await;
    assert_eq!(process.terminate().code(), Some(0));
    let told = std::fs::read_to_string(log).expect("read");
    assert!(told.contains("store.db") && told.contains("made anew from the log"), "{told}");
    assert_sound(&data);
}

#[tokio::test]
async fn a_truncated_write_ahead_log_is_found_by_what_the_store_has_read() {
    let folder = Folder::filled(true).await;
    let ends = commits(&std::fs::read(folder.data.join("log.db-wal")).expect("read"));
    // Between two commits nothing in the file shows that there were more; within the last one it looks like a crash.
    for (name, length, lost) in [("between", ends[ends.len() - 4], 3), ("within", ends[ends.len() - 1] - 10, 1)] {
        let data = folder.copy(name);
        let wal = OpenOptions::new().write(true).open(data.join("log.db-wal")).expect("opens");
        wal.set_len(length).expect("truncated");
        assert_found(&data, "store.db: damage", &format!("{lost} events that the log no longer has"));
        let said = folder.refused(&data);
        assert!(said.contains("log.db has lost events") && said.contains(&format!("in {lost} that")), "{said}");
        remove(&data, "store.db");
        let (process, _) = folder.started(&data).await;
        assert_holds_first(&process, &folder.accepted[..EVENTS - lost]).await;
    }
}

#[tokio::test]
async fn garbage_behind_the_last_commit_takes_nothing_away() {
    let folder = Folder::filled(true).await;
    for (name, count) in [("little", 100), ("frames", 3 * 4120), ("much", 100_000)] {
        let data = folder.copy(name);
        change(&data.join("log.db-wal"), |bytes| {
            bytes.extend((0..count).map(|n| u8::try_from(n * 7 % 251).expect("small")));
        });
        assert_sound(&data);
        let (mut process, log) = folder.started(&data).await;
        assert_holds_first(&process, &folder.accepted).await;
        assert_eq!(process.terminate().code(), Some(0));
        assert_sound(&data);
        // Whole pages are what an earlier log leaves behind a later one, which is as it should be.
        let told = std::fs::read_to_string(log).expect("read");
        assert_eq!(told.contains("log.db-wal") && told.contains("is dropped"), name != "frames", "{told}");
    }
}

#[tokio::test]
async fn a_damaged_block_is_an_error_that_names_it_and_never_a_wrong_row() {
    let folder = Folder::filled(false).await;
    assert_sound(&folder.data);
    let data = folder.copy("block");
    // Each event is a block of its own, and its id is nowhere else.
    let hex = folder.accepted[5].replace('-', "");
    let id: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex")).collect();
    change(&data.join("log.db"), |bytes| {
        // Pages that are free now may hold it too.
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&id)).collect();
        assert!(!places.is_empty(), "an id is not compressed");
        for at in places {
            bytes[at + 12] ^= 1;
        }
    });
    let seq = 6;
    let block = format!("log.db: block {seq}");
    assert_found(&data, &block, "checksum");

    // Recovery does not need the block, so the rest goes on; who reads it is told.
    let (process, _) = folder.started(&data).await;
    let (status, answer) = process.sql_answer("SELECT sum(value) AS s FROM sensor.reading").await;
    assert!(status >= 500 && answer.to_string().contains(&block), "{status} {answer}");
    let (status, answer) = process.get("/api/v1/events?limit=1000").await;
    assert!(status >= 500 && answer.to_string().contains(&block), "{status} {answer}");
    assert_eq!(process.sql("SELECT count(*) AS n FROM newest").await, [json!({"n": 5})]);
    let id = process.accept(&reading(3)).await;
    assert_eq!(process.get(&format!("/api/v1/projections/newest/d3?after={id}")).await.0, 200);
    process.assert_balanced().await;
    drop(process);

    // The engine that has to read it does not go on without it.
    remove(&data, "store.db");
    let said = folder.refused(&data);
    assert!(said.contains(&block) && said.contains("cannot go on"), "{said}");
}

#[tokio::test]
async fn damaged_records_of_the_store_are_errors() {
    let folder = Folder::filled(false).await;
    for (name, sql, part) in [
        ("epoch", "UPDATE epochs SET record = replace(record, '/0\":', '/0\":1')", "an epoch's record of damage"),
        ("snapshot", "UPDATE snapshots SET snapshot = replace(snapshot, '/0\":', '/0\":1')", "the snapshot of damage"),
        ("state", "UPDATE pipelines SET state = replace(state, 'newest', 'oldest')", "the state of damage"),
    ] {
        let data = folder.copy(name);
        let file = Connection::open(data.join("store.db")).expect("opens");
        assert!(file.execute(sql, []).expect("changed") > 0, "{name}");
        drop(file);
        assert_found(&data, "store.db: damage", part);
        let said = folder.refused(&data);
        assert!(said.contains("store.db") && said.contains(part) && said.contains("checksum"), "{said}");
    }
}

#[tokio::test]
async fn a_deleted_store_is_made_anew_from_the_log() {
    let folder = Folder::filled(false).await;
    let tables = [
        "SELECT device, window_start, n, total FROM devices ORDER BY 1, 2",
        "SELECT aggregate_id, value, unit, last_event_id, last_event_timestamp FROM newest ORDER BY 1",
    ];
    let (process, _) = folder.started(&folder.data).await;
    let before = (process.sql(tables[0]).await, process.sql(tables[1]).await);
    assert!(before.0.len() >= 5 && before.1.len() == 5);
    drop(process);
    remove(&folder.data, "store.db");
    assert_sound(&folder.data);
    let (mut process, log) = folder.started(&folder.data).await;
    process.sql_until(tables[0], |rows| rows == before.0).await;
    process.sql_until(tables[1], |rows| rows == before.1).await;
    assert_holds_first(&process, &folder.accepted).await;
    assert_eq!(process.terminate().code(), Some(0));
    let told = std::fs::read_to_string(log).expect("read");
    assert!(told.contains("made anew from the log") && told.contains(&format!("events={EVENTS}")), "{told}");
    assert_sound(&folder.data);
}

#[tokio::test]
async fn a_deleted_log_is_refused_and_not_begun_anew() {
    let folder = Folder::filled(true).await;
    let delete: [(&str, fn(&Path)); 3] = [
        ("file", |data| std::fs::remove_file(data.join("log.db")).expect("removed")),
        ("all", |data| remove(data, "log.db")),
        ("emptied", |data| std::fs::write(data.join("log.db"), "").expect("written")),
    ];
    for (name, delete) in delete {
        let data = folder.copy(name);
        delete(&data);
        let size = |file: &str| std::fs::metadata(data.join(file)).map_or(0, |found| found.len());
        let before = (size("log.db"), size("log.db-wal"), size("store.db"));
        assert_found(&data, "log.db", "the events are gone");
        let said = folder.refused(&data);
        assert!(said.contains("log.db") && said.contains("Put back a copy of log.db"), "{name}: {said}");
        assert_eq!((size("log.db"), size("log.db-wal"), size("store.db")), before, "{name}: nothing is changed");
    }
}

#[tokio::test]
async fn what_is_taken_out_behind_the_back_of_the_process_does_not_balance() {
    let folder = Folder::filled(false).await;
    for (name, file, sql, node) in [
        ("row", "store.db", "DELETE FROM p_newest WHERE _key = 'd2'", "newest"),
        ("window", "store.db", "DELETE FROM p_devices WHERE _key IN (SELECT _key FROM p_devices LIMIT 1)", "devices"),
        (
            "figure",
            "store.db",
            "UPDATE counters SET value = value + 1 WHERE node = 'newest' AND what = 'written'",
            "newest",
        ),
        ("count", "log.db", "UPDATE accepted SET rows = rows - 1", "sensor.reading"),
        ("block", "log.db", "DELETE FROM blocks WHERE seq = 3", "sensor.reading"),
    ] {
        let data = folder.copy(name);
        let (mut process, _) = folder.started(&data).await;
        process.assert_balanced().await;
        let behind = Connection::open(data.join(file)).expect("opens");
        behind.busy_timeout(Duration::from_secs(5)).expect("set");
        assert!(behind.execute(sql, []).expect("changed") > 0, "{name}");
        drop(behind);
        let told = output(&["audit", "--data-dir", data.to_str().expect("UTF-8")]);
        assert_eq!(told.status.code(), Some(1), "{name}");
        let lines = String::from_utf8(told.stdout).expect("UTF-8");
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let wrong: Vec<Value> = lines.filter(|line| line["holds"] == json!(false)).collect();
        assert!(!wrong.is_empty() && wrong.iter().all(|line| line["node"] == node), "{name}: {wrong:?}");
        process.terminate();
        assert_found(&data, &format!("{file}: "), "");
    }
}
