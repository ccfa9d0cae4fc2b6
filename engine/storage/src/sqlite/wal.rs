//! What a write-ahead log holds, looked at before `SQLite` opens it.
//!
//! When `SQLite` opens a file it takes the commits of the write-ahead log up to the first frame whose checksum does not
//! hold, and says nothing of what lies behind. After a loss of power that is right: the commit that was being written is
//! torn, nobody was told that it is durable. But since every commit is synced before the next one is written, a whole
//! commit behind a damaged frame was answered: then the medium has lost it, and that must be said.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use cornjacket_core::{Error, Result};

use super::place::wal_of;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// What became of a write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Every frame belongs to a commit, or there is none.
    Whole,
    /// So many frames at its end belong to no commit: a crash has cut it off.
    Unfinished { frames: u64 },
    /// Whole commits lie behind a damaged place; the log is sound up to so many bytes.
    Lost { sound: u64 },
}

/// Looks at the write-ahead log of a file that nobody has open.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn look(file: &Path) -> std::io::Result<Tail> {
    let wal = match File::open(wal_of(file)) {
        Ok(wal) => wal,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Tail::Whole),
        Err(error) => return Err(error),
    };
    let mut wal = BufReader::with_capacity(1 << 20, wal);
    let mut header = [0; HEADER];
    if fill(&mut wal, &mut header)? < HEADER {
        return Ok(Tail::Whole);
    }
    let (magic, page) = (word(&header, 0), word(&header, 8) as usize);
    let is_big = magic & 1 == 1;
    let mut sum = Sum { is_big, value: (0, 0) };
    sum.add(&header[..24]);
    let is_sound = magic & !1 == MAGIC && sum.value == (word(&header, 24), word(&header, 28));
    if !(512..=65_536).contains(&page) || !page.is_power_of_two() {
        // Without a page size there are no frames to be found; zeros are what a crash leaves of a file that was just made.
        return Ok(if header == [0; HEADER] { Tail::Whole } else { Tail::Lost { sound: 0 } });
    }
    let mut frames = Frames { sum, salts: [word(&header, 16), word(&header, 20)], ..Frames::default() };
    frames.is_broken = !is_sound;
    let mut frame = vec![0; FRAME_HEADER + page];
    loop {
        let read = fill(&mut wal, &mut frame)?;
        if read < frame.len() {
            return Ok(frames.tail(read > 0, page));
        }
        frames.take(&frame);
    }
}

/// Says what a file's write-ahead log holds before it is opened.
///
/// # Errors
/// [`Error::Corrupt`] when commits that were answered lie behind a damaged place.
pub(super) fn inspect(file: &Path) -> Result<()> {
    let wal = wal_of(file);
    let shown = wal.display();
    match look(file) {
        Ok(Tail::Whole) => Ok(()),
        Ok(Tail::Unfinished { frames }) => {
            tracing::warn!(
                file = %shown, frames,
                "the last commit in it is not whole, as a crash leaves one that was being written, and is dropped"
            );
            Ok(())
        }
        Ok(Tail::Lost { sound }) => Err(Error::Corrupt(lost(&shown.to_string(), sound))),
        Err(error) => Err(Error::Unavailable(format!("{shown}: {error}"))),
    }
}

/// What to do about commits behind a damaged place.
pub(crate) fn lost(wal: &str, sound: u64) -> String {
    format!(
        "{wal} is damaged at byte {sound}, and whole commits that were acknowledged lie behind: put back a copy of the folder, \
         or keep one and give up what lies behind with `truncate -s {sound} {wal}`"
    )
}

fn fill(from: &mut impl Read, to: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < to.len() {
        match from.read(&mut to[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// The running checksum.
#[derive(Clone, Copy, Default)]
struct Sum {
    is_big: bool,
    value: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let (mut a, mut b) = self.value;
        for eight in bytes.chunks_exact(8) {
            let read = if self.is_big { u32::from_be_bytes } else { u32::from_le_bytes };
            let (mut x, mut y) = ([0; 4], [0; 4]);
            x.copy_from_slice(&eight[..4]);
            y.copy_from_slice(&eight[4..]);
            a = a.wrapping_add(read(x)).wrapping_add(b);
            b = b.wrapping_add(read(y)).wrapping_add(a);
        }
        self.value = (a, b);
    }
}

/// What has been seen of the frames.
#[derive(Default)]
struct Frames {
    sum: Sum,
    salts: [u32; 2],
    is_broken: bool,
    /// Sound frames, and how many of them up to the last commit.
    sound: u64,
    committed: u64,
    /// Behind the damage: frames of this log, whole commits, and frames behind the first such commit.
    behind: u64,
    commits_behind: u64,
    behind_commit: u64,
}

impl Frames {
    fn take(&mut self, frame: &[u8]) {
        let is_ours = [word(frame, 8), word(frame, 12)] == self.salts;
        let is_commit = word(frame, 4) != 0;
        if !self.is_broken {
            let mut sum = self.sum;
            sum.add(&frame[..8]);
            sum.add(&frame[FRAME_HEADER..]);
            if is_ours && sum.value == (word(frame, 16), word(frame, 20)) {
                self.sum = sum;
                self.sound += 1;
                if is_commit {
                    self.committed = self.sound;
                }
                return;
            }
            self.is_broken = true;
        }
        // Frames of an earlier log have other salts: they are in the file already.
        if is_ours {
            self.behind += 1;
            self.behind_commit += u64::from(self.commits_behind > 0);
            self.commits_behind += u64::from(is_commit);
        }
    }

    fn tail(&self, is_cut: bool, page: usize) -> Tail {
        // One commit at the very end may be the one that was being written; frames behind a commit mean that it was synced.
        if self.behind_commit > 0 {
            let frame = (FRAME_HEADER + page) as u64;
            return Tail::Lost { sound: if self.committed == 0 { 0 } else { HEADER as u64 + self.committed * frame } };
        }
        match self.sound - self.committed + self.behind + u64::from(is_cut) {
            0 => Tail::Whole,
            frames => Tail::Unfinished { frames },
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// A file with so many commits in its write-ahead log, as a killed process leaves it.
    fn killed(commits: usize) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.db");
        let connection = Connection::open(folder.path().join("live.db")).expect("opens");
        connection.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (x);").expect("made");
        for number in 0..commits {
            connection.execute("INSERT INTO t VALUES (?1)", [number]).expect("written");
        }
        std::fs::copy(folder.path().join("live.db"), &path).expect("copied");
        std::fs::copy(folder.path().join("live.db-wal"), wal_of(&path)).expect("copied");
        (folder, path)
    }

    fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Tail {
        let mut bytes = std::fs::read(wal_of(path)).expect("read");
        change(&mut bytes);
        std::fs::write(wal_of(path), bytes).expect("written");
        look(path).expect("looked at")
    }

    #[test]
    fn a_torn_end_is_told_from_damage_before_it() {
        let frame = 24 + 4096;
        let (_folder, path) = killed(5);
        assert_eq!(look(&path).expect("looked at"), Tail::Whole);
        let length = std::fs::metadata(wal_of(&path)).expect("there").len();
        assert_eq!(damage(&path, |bytes| bytes.extend([7; 100])), Tail::Unfinished { frames: 1 });
        assert_eq!(damage(&path, |bytes| bytes.extend([7; 9_000])), Tail::Unfinished { frames: 1 });
        let cut = usize::try_from(length).expect("small") - 10;
        assert_eq!(damage(&path, |bytes| bytes.truncate(cut)), Tail::Unfinished { frames: 1 });

        // The last commit itself: it may have been under way.
        let (_folder, path) = killed(5);
        let last = std::fs::metadata(wal_of(&path)).expect("there").len() - 100;
        let last = usize::try_from(last).expect("small");
        assert_eq!(damage(&path, |bytes| bytes[last] ^= 1), Tail::Unfinished { frames: 1 });

        // Three commits before the end: what lies behind was acknowledged, and `SQLite` would say nothing.
        let (_folder, path) = killed(5);
        let damaged = damage(&path, |bytes| {
            let at = bytes.len() - 2 * frame - 100;
            bytes[at] ^= 1;
        });
        let sound = length - 3 * u64::try_from(frame).expect("small");
        assert_eq!(damaged, Tail::Lost { sound });
        assert!(inspect(&path).is_err_and(|error| error.to_string().contains(&format!("truncate -s {sound}"))));
        let rows = |path: &Path| -> i64 {
            let file = Connection::open(path).expect("opens");
            file.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("counted")
        };
        assert_eq!(rows(&path), 2, "three of five commits are gone without a word");
    }

    #[test]
    fn a_damaged_head_hides_every_commit() {
        let (_folder, path) = killed(3);
        assert_eq!(damage(&path, |bytes| bytes[13] ^= 1), Tail::Lost { sound: 0 });
        let (_folder, path) = killed(3);
        assert_eq!(damage(&path, |bytes| bytes[8] = 0xff), Tail::Lost { sound: 0 });
        let (_folder, path) = killed(3);
        assert_eq!(damage(&path, |bytes| bytes.fill(0)), Tail::Whole, "a file that was never synced");
        assert_eq!(damage(&path, Vec::clear), Tail::Whole);
    }
}
