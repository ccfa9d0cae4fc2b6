//! Looks at a data folder that nobody uses, without changing it, and says everything that is wrong with it.
//!
//! Files are opened alone and for reading: `SQLite` then keeps the index of the write-ahead log in memory, folds nothing
//! and deletes nothing. What a start would refuse is found here too, and besides what only shows once it is read: damaged
//! blocks, snapshots and records, missing offsets, and books that do not balance.

mod blocks;
mod books;
mod state;

use std::path::Path;

use cornjacket_core::{Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::connection::{named, storage_error};
use super::log::{LOG_FILE, MIGRATIONS as LOG_MIGRATIONS};
use super::place::wal_of;
use super::store::{MIGRATIONS as STORE_MIGRATIONS, STORE_FILE};
use super::together::without_log;
use super::wal::{self, Tail};
use blocks::Blocks;

/// How many faults of a check are told one by one.
const MOST: usize = 20;

/// Something that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file, and where in it.
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// A check and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// The file, or the pipeline.
    pub of: String,
    /// What was looked at, in numbers.
    pub looked_at: String,
    /// What is wrong; nothing if it is sound.
    pub faults: Vec<Fault>,
}

impl Finding {
    fn new(check: &'static str, of: impl Into<String>) -> Self {
        Self { check, of: of.into(), looked_at: String::new(), faults: Vec::new() }
    }

    fn fault(&mut self, place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault { place: place.into(), what: what.into(), remedy: remedy.into() });
    }

    /// Many faults of one kind have one cause: the rest is counted.
    fn shorten(mut self) -> Self {
        let more = self.faults.len().saturating_sub(MOST);
        if more > 0 {
            self.faults.truncate(MOST);
            let last = self.faults[MOST - 1].clone();
            self.faults.push(Fault { place: self.of.clone(), what: format!("and {more} more of these"), ..last });
        }
        self
    }
}

/// What is known of a folder now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every check, sound or not.
    pub findings: Vec<Finding>,
    /// What could not be checked here, and how it can be.
    pub unchecked: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.faults.is_empty())
    }
}

/// Takes what is being checked, how much of it is done, and how much there is (0 if that is not known).
pub type Watcher<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// Looks at a folder that no process holds.
///
/// # Errors
/// When it cannot be looked at: [`Error::Conflict`] if there is nothing in it or a newer version wrote it,
/// [`Error::Unavailable`] if files cannot be opened. Damage is no error but a finding.
pub fn verify_folder(folder: &Path, watcher: &mut Watcher<'_>) -> Result<Report> {
    let (log, store) = (folder.join(LOG_FILE), folder.join(STORE_FILE));
    let mut report = Report::default();
    let there = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.len() > 0);
    if !there(&log) && !there(&store) && !there(&wal_of(&log)) {
        return Err(Error::Conflict(format!(
            "{} holds no log.db: it is not a data folder, or a new one",
            folder.display()
        )));
    }
    let mut files = Finding::new("files", folder.display().to_string());
    files.looked_at = format!("{LOG_FILE}, {STORE_FILE}");
    if let Some(why) = without_log(folder) {
        files.fault(
            log.display().to_string(),
            why,
            "put back a copy of log.db, or move store.db* away as well and begin anew",
        );
    }
    if !there(&store) {
        report.unchecked.push(format!(
            "{} is not there: the next start makes projections and state anew from the log; deliveries and dead letters \
             that were in it are gone",
            store.display()
        ));
    }
    report.findings.push(files);
    let mut blocks = None;
    if there(&log) {
        blocks = check_file(&log, LOG_MIGRATIONS.len(), &mut report, watcher, blocks::check)?;
        report.findings.extend(blocks.as_ref().map(|blocks| books::check_log(blocks, &log.display().to_string())));
    }
    if there(&store) {
        let of_store = |connection: &Connection, path: &Path, report: &mut Report, watcher: &mut Watcher<'_>| {
            state::check((connection, path), blocks.as_ref(), report, watcher);
        };
        check_file(&store, STORE_MIGRATIONS.len(), &mut report, watcher, of_store)?;
    }
    report.findings = report.findings.into_iter().map(Finding::shorten).collect();
    report.unchecked.extend(beyond(blocks.as_ref()));
    Ok(report)
}

/// What nothing here can tell.
fn beyond(blocks: Option<&Blocks>) -> Vec<String> {
    let mut texts = vec![
        "values in the rows of projections, deliveries and dead letters: they carry no checksums of their own. Moving \
         store.db away has projections made anew from the log"
            .to_string(),
        "what one node gave against what the next one took: that needs the pipeline; `cornjacket audit` asks one that runs"
            .to_string(),
    ];
    let unsealed = blocks.map_or(0, |blocks| blocks.unsealed);
    if unsealed > 0 {
        texts.push(format!(
            "the bytes of {unsealed} blocks that an older version wrote without checksums: they were decoded"
        ));
    }
    texts
}

/// Checks what every file has, and then what only this one has.
fn check_file<T>(
    path: &Path,
    version: usize,
    report: &mut Report,
    watcher: &mut Watcher<'_>,
    rest: impl FnOnce(&Connection, &Path, &mut Report, &mut Watcher<'_>) -> T,
) -> Result<Option<T>> {
    report.findings.push(check_wal(path)?);
    let connection = open(path)?;
    let mut finding = Finding::new("structure", path.display().to_string());
    let seen = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, usize>(0));
    let seen = match seen.map_err(storage_error) {
        Ok(seen) => seen,
        Err(Error::Corrupt(why)) => {
            finding.fault(path.display().to_string(), format!("it cannot be read at all: {why}"), COPY);
            report.findings.push(finding);
            return Ok(None);
        }
        Err(error) => return Err(named(path, error)),
    };
    if seen > version {
        let path = path.display();
        return Err(Error::Conflict(format!(
            "{path} was written by a newer version of Cornjacket (format {seen}, this one knows {version}): use that version"
        )));
    }
    watcher(&format!("structure of {}", path.display()), 0, 0);
    structure(&connection, &mut finding);
    report.findings.push(finding);
    if seen < version {
        let path = path.display();
        report.unchecked.push(format!(
            "what is in {path}: an older version wrote it (format {seen}, this one has {version}). The next start brings it \
             up to date; check again after that"
        ));
        return Ok(None);
    }
    Ok(Some(rest(&connection, path, report, watcher)))
}

/// What to do about a file that is damaged.
const COPY: &str = "put back a copy of the folder; see docs/operations.md for what can be kept without one";

fn check_wal(path: &Path) -> Result<Finding> {
    let wal = wal_of(path);
    let shown = wal.display().to_string();
    let mut finding = Finding::new("write-ahead log", shown.clone());
    let length = std::fs::metadata(&wal).map_or(0, |found| found.len());
    let tail = wal::look(path).map_err(|error| Error::Unavailable(format!("{shown}: {error}")))?;
    finding.looked_at = format!("{length} bytes");
    match tail {
        Tail::Whole => {}
        Tail::Unfinished { frames } => {
            finding.looked_at =
                format!("{length} bytes, the last {frames} pages of an unfinished commit, which the next start drops");
        }
        Tail::Lost { sound } => {
            let what = format!("damaged at byte {sound}: whole commits that were acknowledged lie behind");
            let remedy =
                format!("put back a copy, or keep one and give up what lies behind: truncate -s {sound} {shown}");
            finding.fault(format!("{shown}: byte {sound}"), what, remedy);
        }
    }
    Ok(finding)
}

/// Opens a file alone, so that nothing is made or written beside it.
fn open(path: &Path) -> Result<Connection> {
    let failed = |error| named(path, storage_error(error));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    if connection.is_readonly(rusqlite::MAIN_DB).map_err(failed)? {
        return open_unchanging(path);
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    let pragmas =
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA query_only=ON; PRAGMA temp_store=MEMORY; PRAGMA busy_timeout=1000;";
    connection.execute_batch(pragmas).map_err(failed)?;
    Ok(connection)
}

/// Opens a file that nobody may write, such as on a backup's disk. A write-ahead log cannot be read there.
fn open_unchanging(path: &Path) -> Result<Connection> {
    if std::fs::metadata(wal_of(path)).is_ok_and(|found| found.len() > 0) {
        return Err(Error::Conflict(format!(
            "{} may only be read, and part of it is in its -wal: copy the folder to where it may be written, and check the copy",
            path.display()
        )));
    }
    let name = path.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(format!("file:{name}?immutable=1"), flags);
    opened.map_err(|error| named(path, storage_error(error)))
}

fn structure(connection: &Connection, finding: &mut Finding) {
    let place = finding.of.clone();
    let said = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(&format!("PRAGMA integrity_check({})", MOST + 1))?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    match said() {
        Ok(lines) => {
            for line in lines.iter().filter(|line| *line != "ok") {
                finding.fault(place.clone(), line.clone(), COPY);
            }
        }
        Err(error) => finding.fault(place, error.to_string(), COPY),
    }
    let pages = connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap_or(0);
    finding.looked_at = format!("{pages} pages");
}

/// A number with its word: `1 block`, `2 blocks`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
