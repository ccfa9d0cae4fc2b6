//! The embedded log: one block a commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::environment::Environment;
use cornjacket_core::id::EventId;
use cornjacket_core::log::{
    Columns, Committed, EventLog, Events, LogCount, Notes, Positions, RECEIPT_AGE, Slice, TopicPartition,
};
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};
use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OptionalExtension, params};

use super::commit::{
    block_of, blocks_from, check_topics, find_client_id, known_ids, store_block, store_merged, store_notes,
};
use super::compact::Compactor;
use super::connection::{Readers, fold_now, named, open_writer, storage_error};
use super::forget::begins;
use super::index::{Block, Decoded, Index};
use super::place::Place;
use super::wal;
use crate::block::{Cut, Footer, TypeIndex, decode_type, encode_types};
use crate::split::{Split, client_ids, split};

pub(super) const MIGRATIONS: [&str; 4] = [
    include_str!("../../../../migrations/sqlite/log/0001_log.sql"),
    include_str!("../../../../migrations/sqlite/log/0002_marks.sql"),
    include_str!("../../../../migrations/sqlite/log/0003_receipts.sql"),
    include_str!("../../../../migrations/sqlite/log/0004_ledger.sql"),
];
/// How many pages the write-ahead log may grow to before it is folded into the file.
const CHECKPOINT_PAGES: u32 = 1_000;
/// Old client-given ids are deleted a few at a time, so that no append waits long for it.
const PRUNE_EVERY: u64 = 1_000;

/// How often, and how long in between, a reader looks whether compaction has just swapped the block it reads.
const SWAP_LOOKS: u32 = 100;
const SWAP_WAIT: Duration = Duration::from_millis(5);

/// How often, and how long in between, the file is tried to be opened after a failed commit.
const REOPENS: u32 = 50;
const REOPEN_WAIT: Duration = Duration::from_millis(200);

/// The file of the log.
pub(super) const LOG_FILE: &str = "log.db";

/// The log in `log.db`.
pub struct SqliteLog {
    shared: Arc<Shared>,
    compactor: Compactor,
}

/// What appends, reads and compaction share.
pub(super) struct Shared {
    pub(super) place: Place,
    /// Bytes of the disk that no append may touch, if it is not left to the disk's size.
    pub(super) min_free: Option<u64>,
    pub(super) catalogue: Arc<Catalogue>,
    environment: Environment,
    pub(super) writer: Mutex<Writer>,
    /// Held by whoever rewrites blocks.
    pub(super) maintenance: Mutex<()>,
    pub(super) readers: Readers,
    pub(super) index: Mutex<Index>,
    grown: Condvar,
}

pub(super) struct Writer {
    /// `None` after a failure, until it is opened again.
    pub(super) connection: Option<Connection>,
    next: i64,
    appends: u64,
    /// When the write-ahead log was folded last because the disk was full.
    pub(super) folded: Option<Instant>,
    /// Blocks that a merge wanted to replace by another when it failed: whether it did is looked up in the file.
    unsure: Option<(Vec<i64>, Block)>,
    /// Whether blocks may have gone or changed otherwise when retention failed: all are looked up in the file.
    pub(super) is_index_unsure: bool,
}

impl SqliteLog {
    /// Opens or makes the log in a folder.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a topic has another number of partitions or the file is a newer version's;
    /// [`Error::Corrupt`] when it is damaged where that can be seen without reading every block.
    pub fn open(folder: &Path, catalogue: Arc<Catalogue>, environment: Environment) -> Result<Self> {
        Self::open_keeping(folder, catalogue, environment, None)
    }

    /// As [`SqliteLog::open`]; appends are refused while the disk has no more than `min_free` bytes, or, where that is
    /// not given, 64 MiB or a twentieth of a small disk.
    ///
    /// # Errors
    /// As [`SqliteLog::open`].
    pub fn open_keeping(
        folder: &Path,
        catalogue: Arc<Catalogue>,
        environment: Environment,
        min_free: Option<u64>,
    ) -> Result<Self> {
        let path = folder.join(LOG_FILE);
        wal::inspect(&path)?;
        let connection = open_log(&path)?;
        check_topics(&connection, &catalogue).map_err(|error| named(&path, error))?;
        let mut index = Index::default();
        load(&mut index, &connection).map_err(|error| named(&path, error))?;
        let next = index.blocks.keys().next_back().map_or(1, |last| last + 1);
        let shared = Arc::new(Shared {
            readers: Readers::new(path.clone()),
            place: Place::of(&path)?,
            min_free,
            catalogue,
            environment,
            writer: Mutex::new(Writer {
                connection: Some(connection),
                next,
                appends: 0,
                folded: None,
                unsure: None,
                is_index_unsure: false,
            }),
            maintenance: Mutex::default(),
            index: Mutex::new(index),
            grown: Condvar::new(),
        });
        Ok(Self { compactor: Compactor::start(Arc::clone(&shared))?, shared })
    }

    /// Merges small blocks now, as the background does; says how many were merged away.
    ///
    /// # Errors
    /// When blocks cannot be read or written.
    pub fn compact_once(&self) -> Result<usize> {
        self.compactor.once(0)
    }

    /// Reads every block and checks that it holds what its footer says and that offsets are dense.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first fault.
    pub fn verify(&self) -> Result<()> {
        let begin = self.shared.index.lock().begin.clone();
        let slice = self.read(&Positions::default(), None, usize::MAX, &Columns::All)?;
        let mut seen: BTreeMap<TopicPartition, Vec<i64>> = BTreeMap::new();
        for chunk in &slice.chunks {
            if chunk.rows.num_rows() != chunk.offsets.len() {
                return Err(Error::Corrupt("a block has other rows than its footer says".into()));
            }
            let at = TopicPartition { topic: chunk.event_type.topic.as_str().into(), partition: chunk.partition };
            seen.entry(at).or_default().extend(chunk.offsets.values());
        }
        for (at, mut offsets) in seen {
            offsets.sort_unstable();
            if !offsets.iter().copied().eq(begin.get(&at)..slice.end.get(&at)) {
                return Err(Error::Corrupt(format!("offsets of {}/{} are not dense", at.topic, at.partition)));
            }
        }
        Ok(())
    }
}

impl EventLog for SqliteLog {
    fn append(&self, commit: &[Events], notes: &Notes) -> Result<Committed> {
        self.shared.place.is_there()?;
        let mut writer = self.shared.writer.lock();
        self.shared.with_connection(&mut writer)?;
        let end = self.shared.index.lock().end.clone();
        let known = match &writer.connection {
            Some(connection) => known_ids(connection, &client_ids(commit))?,
            None => return Err(Error::Unavailable("the log is closed".into())),
        };
        let laid_out = split(commit, &self.shared.catalogue, &end, &known)?;
        if laid_out.segments.is_empty() {
            self.shared.write_notes(&mut writer, notes)?;
            return Ok(Committed { stored: 0, repeated: laid_out.repeated });
        }
        self.shared.make_room(&mut writer)?;
        self.shared.write(&mut writer, laid_out, notes)
    }

    fn marks(&self) -> Result<BTreeMap<String, String>> {
        self.shared.readers.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT source, position FROM marks").map_err(storage_error)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(storage_error)?;
            rows.collect::<rusqlite::Result<_>>().map_err(storage_error)
        })
    }

    fn receipts(&self, source: &str, max_bytes: usize) -> Result<Vec<Vec<u8>>> {
        let since = self.shared.environment.clock.now() - RECEIPT_AGE;
        self.shared.readers.read(|connection| {
            let sql = "SELECT bytes FROM receipts WHERE source = ?1 AND at >= ?2 ORDER BY number DESC";
            let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
            let mut rows = statement.query(params![source, since]).map_err(storage_error)?;
            let (mut receipts, mut bytes) = (Vec::<Vec<u8>>::new(), 0);
            while let Some(row) = rows.next().map_err(storage_error)?.filter(|_| bytes < max_bytes) {
                receipts.push(row.get(0).map_err(storage_error)?);
                bytes += receipts.last().map_or(0, Vec::len);
            }
            Ok(receipts)
        })
    }

    fn counts(&self, until: &Positions) -> Result<BTreeMap<String, LogCount>> {
        // Nothing is appended meanwhile, so that both counts are of the same moment.
        let mut writer = self.shared.writer.lock();
        self.shared.with_connection(&mut writer)?;
        let Some(connection) = &writer.connection else { return Err(Error::Closed) };
        let mut statement =
            connection.prepare_cached("SELECT event_type, rows, forgotten FROM accepted").map_err(storage_error)?;
        let row = |row: &rusqlite::Row<'_>| {
            let count = LogCount { accepted: row.get(1)?, forgotten: row.get(2)?, ..LogCount::default() };
            Ok((row.get::<_, String>(0)?, count))
        };
        let rows = statement.query_map([], row).map_err(storage_error)?;
        let mut counts: BTreeMap<String, LogCount> = rows.collect::<rusqlite::Result<_>>().map_err(storage_error)?;
        // A block that somebody took out of the file behind our back is not there, whatever the index says.
        let mut statement = connection.prepare_cached("SELECT seq FROM blocks").map_err(storage_error)?;
        let rows = statement.query_map([], |row| row.get::<_, i64>(0)).map_err(storage_error)?;
        let there: BTreeSet<i64> = rows.collect::<rusqlite::Result<_>>().map_err(storage_error)?;
        let index = self.shared.index.lock();
        for (_, block) in index.blocks.iter().filter(|(seq, _)| there.contains(seq)) {
            for index in &block.footer.types {
                let count = counts.entry(index.event_type.clone()).or_default();
                count.present += index.rows() as u64;
                count.reached += index.rows_before(until) as u64;
            }
        }
        Ok(counts)
    }

    fn end(&self) -> Positions {
        self.shared.index.lock().end.clone()
    }

    fn read(&self, from: &Positions, until: Option<&Positions>, max_rows: usize, columns: &Columns) -> Result<Slice> {
        let mut slice = Slice { chunks: Vec::new(), end: self.shared.index.lock().beginning(from) };
        let mut rows = 0;
        while rows < max_rows {
            // Asked anew for every block: compaction may have merged the next one into an earlier one meanwhile.
            let Some((seq, footer)) = self.shared.next_block(&slice.end, until) else { break };
            let reached = slice.end.clone();
            let cut = Cut { from: &reached, until, columns, catalogue: &self.shared.catalogue };
            let Some(decoded) = self.shared.decode(seq, &footer, &cut)? else { continue };
            for index in &footer.types {
                cut.chunks(index, decoded.get(&index.event_type), &mut slice.chunks, &mut slice.end);
            }
            rows += footer.rows();
        }
        Ok(slice)
    }

    fn wait_beyond(&self, position: &Positions, timeout: Duration) -> bool {
        let mut index = self.shared.index.lock();
        if position.covers(&index.end) {
            self.shared.grown.wait_for(&mut index, timeout);
        }
        !position.covers(&index.end)
    }

    fn find(&self, event: EventId) -> Result<Option<(TopicPartition, i64)>> {
        if let Some(found) = self.shared.readers.read(|connection| find_client_id(connection, event))? {
            // Its id is known for longer than it is kept.
            let is_there = self.shared.index.lock().begin.get(&found.0) <= found.1;
            return Ok(is_there.then_some(found));
        }
        self.shared.find_ours(event)
    }

    fn forget(&self, before: &BTreeMap<String, Micros>, floor: &Positions) -> Result<u64> {
        self.shared.forget(before, floor)
    }

    fn fold(&self) {
        let mut writer = self.shared.writer.lock();
        if let Some(connection) = writer.connection.take() {
            fold_now(&connection, self.shared.place.path());
        }
    }
}

/// Opens the file to write to. Its write-ahead log is folded more often than others: no page of it is written again and
/// again, so nothing is saved by waiting, and who waits for a commit does not wait long for that.
fn open_log(path: &Path) -> Result<Connection> {
    let connection = open_writer(path, &MIGRATIONS)?;
    let pragma = format!("PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES};");
    connection.execute_batch(&pragma).map_err(|error| named(path, storage_error(error)))?;
    Ok(connection)
}

/// Takes every block of a file into the index.
fn load(index: &mut Index, connection: &Connection) -> Result<()> {
    let blocks = blocks_from(connection, i64::MIN)?;
    index.start(&begins(connection)?);
    for (seq, block) in blocks {
        index.add(seq, block);
    }
    Ok(())
}

impl Shared {
    /// Makes sure that there is a connection to write with. One that is opened after a failure looks what became of the
    /// work that had failed: it may be durable all the same, and nothing may be written over it.
    pub(super) fn with_connection(&self, writer: &mut Writer) -> Result<()> {
        if writer.connection.is_some() {
            return Ok(());
        }
        let path = self.place.path();
        let connection = open_log(path)?;
        if let Some((merged, block)) = &writer.unsure {
            let first = merged.first().copied().unwrap_or_default();
            let sql = "SELECT footer FROM blocks WHERE seq = ?1";
            let footer: Option<String> =
                connection.query_row(sql, [first], |row| row.get(0)).optional().map_err(storage_error)?;
            if footer.is_some_and(|footer| footer == block.footer.to_text((first, block.first_at, block.last_at))) {
                self.index.lock().replace(merged, block.clone());
            }
            writer.unsure = None;
        }
        if writer.is_index_unsure {
            load(&mut self.index.lock(), &connection).map_err(|error| named(path, error))?;
            writer.is_index_unsure = false;
        }
        for (seq, block) in blocks_from(&connection, writer.next).map_err(|error| named(path, error))? {
            self.index.lock().add(seq, block);
            writer.next = seq + 1;
        }
        self.grown.notify_all();
        writer.connection = Some(connection);
        Ok(())
    }

    fn write(&self, writer: &mut Writer, laid_out: Split, notes: &Notes) -> Result<Committed> {
        let (footer, body) = encode_types(&laid_out.segments, &laid_out.types)?;
        let block = Block { bytes: body.len(), ..block_of(&laid_out, footer) };
        let stored = laid_out.types.values().map(|rows| rows.num_rows() as u64).sum();
        let seq = writer.next;
        writer.appends += 1;
        let now = self.environment.clock.now();
        let prune = writer.appends.is_multiple_of(PRUNE_EVERY).then_some(now);
        let Some(connection) = &mut writer.connection else { return Err(Error::Closed) };
        match store_block(connection, (seq, &block, &body), &laid_out, prune, (notes, now)) {
            Ok(()) => {
                self.place.fold(connection);
                writer.next += 1;
                self.publish(seq, block, laid_out.types);
            }
            Err(error) => self.after_failure(writer, seq, error)?,
        }
        Ok(Committed { stored, repeated: laid_out.repeated })
    }

    /// Notes alone: every event of the commit was there already, or was rejected.
    fn write_notes(&self, writer: &mut Writer, notes: &Notes) -> Result<()> {
        let Some(connection) = writer.connection.as_mut().filter(|_| !notes.is_empty()) else { return Ok(()) };
        let now = self.environment.clock.now();
        let outcome = connection.transaction().and_then(|transaction| {
            store_notes(&transaction, notes, now)?;
            transaction.commit()
        });
        // The same notes may be written again, so it does not matter whether these were.
        outcome.map_err(|error| {
            writer.connection = None;
            storage_error(error)
        })
    }

    /// After a failure it may not be known whether the commit is durable: the file is opened anew and looked into. The
    /// fsync is never tried again on the same connection, since its dirty pages may be gone. Until it is known nobody is
    /// answered; who tried again might be stored twice.
    fn after_failure(&self, writer: &mut Writer, seq: i64, error: rusqlite::Error) -> Result<()> {
        writer.connection = None;
        for _ in 0..REOPENS {
            match self.with_connection(writer) {
                // A commit that is there was taken into the index like any other.
                Ok(()) if writer.next > seq => return Ok(()),
                Ok(()) => return Err(named(self.place.path(), storage_error(error))),
                Err(again) if again.is_transient() => std::thread::sleep(REOPEN_WAIT),
                Err(again) => return Err(again),
            }
        }
        let path = self.place.path().display();
        Err(Error::Corrupt(format!(
            "{path} failed ({error}) and cannot be opened: whether its last commit is durable is not known"
        )))
    }

    fn publish(&self, seq: i64, block: Block, decoded: BTreeMap<String, RecordBatch>) {
        let bytes = decoded.values().map(RecordBatch::get_array_memory_size).sum();
        let mut index = self.index.lock();
        index.add(seq, block);
        index.keep(seq, Arc::new(decoded), bytes);
        self.grown.notify_all();
    }

    /// Puts a merged block in the place of others, in the file and then in the index.
    pub(super) fn swap(&self, merged: &[i64], block: Block, body: &[u8]) -> Result<()> {
        let mut writer = self.writer.lock();
        self.with_connection(&mut writer)?;
        let Some(connection) = &mut writer.connection else { return Err(Error::Closed) };
        if let Err(error) = store_merged(connection, merged, &block, body) {
            writer.connection = None;
            writer.unsure = Some((merged.to_vec(), block));
            return Err(named(self.place.path(), storage_error(error)));
        }
        self.place.fold(connection);
        let mut index = self.index.lock();
        index.replace(merged, block);
        index.forget_before(merged.last().map_or(i64::MIN, |last| last + 1));
        Ok(())
    }

    /// Names the block that an error is about.
    pub(super) fn in_block(&self, seq: i64, error: Error) -> Error {
        let block = format!("{}: block {seq}", self.place.path().display());
        match error {
            Error::Corrupt(why) => Error::Corrupt(format!("{block}: {why}")),
            Error::Arrow(why) => Error::Corrupt(format!("{block}: {why}")),
            other => other,
        }
    }

    fn next_block(&self, from: &Positions, until: Option<&Positions>) -> Option<(i64, Arc<Footer>)> {
        let index = self.index.lock();
        let seq = index.first_beyond(from, until)?;
        index.blocks.get(&seq).map(|block| (seq, Arc::clone(&block.footer)))
    }

    fn footer(&self, seq: i64) -> Option<Arc<Footer>> {
        self.index.lock().blocks.get(&seq).map(|block| Arc::clone(&block.footer))
    }

    /// The wanted rows of a block by event type; `None` if compaction has changed the block meanwhile.
    pub(super) fn decode(&self, seq: i64, footer: &Arc<Footer>, cut: &Cut<'_>) -> Result<Option<Decoded>> {
        if let Some(decoded) = self.index.lock().decoded(seq) {
            return Ok(Some(decoded));
        }
        let wanted: Vec<&TypeIndex> =
            footer.types.iter().filter(|index| cut.columns_of(&index.event_type).is_some()).collect();
        if wanted.is_empty() {
            return Ok(Some(Decoded::default()));
        }
        let Some(body) = self.body(seq, footer)? else { return Ok(None) };
        let mut decoded = BTreeMap::new();
        for index in wanted {
            let Some(event_type) = self.catalogue.types.get(&index.event_type) else { continue };
            let columns = cut.columns_of(&index.event_type).flatten();
            let rows = decode_type(index, &body, event_type, columns).map_err(|error| self.in_block(seq, error))?;
            decoded.insert(index.event_type.clone(), rows);
        }
        Ok(Some(Arc::new(decoded)))
    }

    /// A block's body; `None` if compaction has changed the block meanwhile.
    pub(super) fn body(&self, seq: i64, footer: &Arc<Footer>) -> Result<Option<Vec<u8>>> {
        let expected: usize = footer.types.iter().map(|index| index.length).sum();
        for _ in 0..SWAP_LOOKS {
            let body = self.read_body(seq)?;
            if !self.footer(seq).is_some_and(|now| Arc::ptr_eq(&now, footer)) {
                return Ok(None);
            }
            if let Some(body) = body.filter(|body| body.len() == expected) {
                return Ok(Some(body));
            }
            // The index changes just after the file does: either this is that moment, or the block is damaged.
            std::thread::sleep(SWAP_WAIT);
        }
        let why = format!("it does not hold the {expected} bytes that its footer says");
        Err(self.in_block(seq, Error::Corrupt(why)))
    }

    fn read_body(&self, seq: i64) -> Result<Option<Vec<u8>>> {
        self.readers.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT body FROM blocks WHERE seq = ?1").map_err(storage_error)?;
            statement.query_row([seq], |row| row.get(0)).optional().map_err(storage_error)
        })
    }
}
