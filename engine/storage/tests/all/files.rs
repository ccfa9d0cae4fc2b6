//! What only files can show: compaction, full disks, newer versions, damage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cornjacket_core::Error;
use cornjacket_core::log::{Columns, EventLog, Notes, Positions};
use cornjacket_storage::{SqliteLog, open_embedded};
use rusqlite::Connection;

use crate::world::{Row, catalogue, environment, events, id};

fn rows(first: u32, count: u32) -> Vec<Row> {
    (first..first + count).map(|number| (number, format!("d{}", number % 7), false)).collect()
}

#[test]
fn compaction_changes_nothing_that_readers_see() {
    let folder = tempfile::tempdir().expect("a folder");
    let catalogue = catalogue(3);
    let log = SqliteLog::open(folder.path(), Arc::clone(&catalogue), environment()).expect("opens");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Readers see every offset once, whatever is merged under them.
        let reader = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let (mut at, end) = (Positions::default(), log.end());
                let mut seen = 0;
                while at != end {
                    let slice = log.read(&at, Some(&end), 10, &Columns::All).expect("reads");
                    seen += slice
                        .chunks
                        .iter()
                        .map(|chunk| i64::try_from(chunk.rows.num_rows()).expect("few"))
                        .sum::<i64>();
                    assert_ne!(slice.end, at, "no progress");
                    at = slice.end;
                }
                assert_eq!(seen, Positions::default().distance(&end));
            }
        });
        for number in 0..300 {
            log.append(&[events(&catalogue, "sensor.a", &rows(number * 5, 5), 0)], &Notes::default()).expect("stored");
            if number % 20 == 19 {
                log.compact_once().expect("compacts");
            }
        }
        done.store(true, Ordering::SeqCst);
        reader.join().expect("the reader");
    });
    log.verify().expect("sound");
    assert!(log.find(id(7)).expect("reads").is_some());
    drop(log);

    let blocks = |sql: &str| -> i64 {
        let file = Connection::open(folder.path().join("log.db")).expect("opens");
        file.query_row(sql, [], |row| row.get(0)).expect("counts")
    };
    assert!(blocks("SELECT count(*) FROM blocks") < 40);
    let log = SqliteLog::open(folder.path(), catalogue, environment()).expect("opens again");
    log.verify().expect("sound");
    assert_eq!(Positions::default().distance(&log.end()), 1_500);
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open_embedded(folder.path(), catalogue(1), ("test", "1"), &environment()).expect("opens"));
    let file = Connection::open(folder.path().join("store.db")).expect("opens");
    file.pragma_update(None, "user_version", 99).expect("written");
    drop(file);
    let Err(Error::Conflict(text)) = open_embedded(folder.path(), catalogue(1), ("test", "1"), &environment()) else {
        panic!("not refused")
    };
    assert!(text.contains("newer version"), "{text}");
}

#[test]
fn a_damaged_block_is_reported_and_not_skipped() {
    let folder = tempfile::tempdir().expect("a folder");
    let catalogue = catalogue(1);
    let log = SqliteLog::open(folder.path(), Arc::clone(&catalogue), environment()).expect("opens");
    log.append(&[events(&catalogue, "sensor.a", &rows(0, 50), 0)], &Notes::default()).expect("stored");
    drop(log);
    let file = Connection::open(folder.path().join("log.db")).expect("opens");
    file.execute("UPDATE blocks SET body = substr(body, 1, length(body) / 2)", []).expect("damaged");
    drop(file);
    let log = SqliteLog::open(folder.path(), catalogue, environment()).expect("opens");
    assert!(log.read(&Positions::default(), None, 10, &Columns::All).is_err());
}
