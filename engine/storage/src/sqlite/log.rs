//! The embedded log: one block a commit.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use cornjacket_core::catalogue::{Catalogue, stored};
use cornjacket_core::environment::Environment;
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Columns, Committed, EventLog, Events, Mark, Positions, Slice, TopicPartition};
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_core::{Error, Result};
use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OptionalExtension, params};

use super::compact::Compactor;
use super::connection::{Readers, open_writer, storage_error};
use super::index::{Block, Decoded, Index};
use crate::block::{Cut, Footer, TypeIndex, decode_type, encode};
use crate::sim::partitions_differ;
use crate::split::{Split, client_ids, split};

const MIGRATIONS: [&str; 2] = [
    include_str!("../../../../migrations/sqlite/log/0001_log.sql"),
    include_str!("../../../../migrations/sqlite/log/0002_marks.sql"),
];
/// For how long a repeat of a client-given id is looked for.
const CLIENT_ID_AGE: Micros = 7 * 86_400 * SECOND;
/// Old client-given ids are deleted a few at a time, so that no append waits long for it.
const PRUNE_EVERY: u64 = 1_000;

/// How often, and how long in between, a reader looks whether compaction has just swapped the block it reads.
const SWAP_LOOKS: u32 = 100;
const SWAP_WAIT: Duration = Duration::from_millis(5);

/// The log in `log.db`.
pub struct SqliteLog {
    shared: Arc<Shared>,
    compactor: Compactor,
}

/// What appends, reads and compaction share.
pub(super) struct Shared {
    path: PathBuf,
    pub(super) catalogue: Arc<Catalogue>,
    environment: Environment,
    writer: Mutex<Writer>,
    pub(super) readers: Readers,
    pub(super) index: Mutex<Index>,
    grown: Condvar,
}

struct Writer {
    /// `None` after a failure, until it is opened again.
    connection: Option<Connection>,
    next: i64,
    appends: u64,
}

impl SqliteLog {
    /// Opens or makes the log in a folder.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a topic has another number of partitions or the file is a newer version's.
    pub fn open(folder: &Path, catalogue: Arc<Catalogue>, environment: Environment) -> Result<Self> {
        let path = folder.join("log.db");
        let connection = open_writer(&path, &MIGRATIONS)?;
        check_topics(&connection, &catalogue)?;
        let index = load_index(&connection)?;
        let next = index.blocks.keys().next_back().map_or(1, |last| last + 1);
        let shared = Arc::new(Shared {
            readers: Readers::new(path.clone()),
            path,
            catalogue,
            environment,
            writer: Mutex::new(Writer { connection: Some(connection), next, appends: 0 }),
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
            if !offsets.iter().copied().eq(0..slice.end.get(&at)) {
                return Err(Error::Corrupt(format!("offsets of {}/{} are not dense", at.topic, at.partition)));
            }
        }
        Ok(())
    }
}

fn check_topics(connection: &Connection, catalogue: &Catalogue) -> Result<()> {
    for (topic, partitions) in &catalogue.topics {
        let sql =
            "INSERT INTO topics VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET name = name RETURNING partitions";
        let stored: u32 =
            connection.query_row(sql, params![topic, partitions], |row| row.get(0)).map_err(storage_error)?;
        if stored != *partitions {
            return Err(partitions_differ(topic, stored, *partitions));
        }
    }
    Ok(())
}

fn load_index(connection: &Connection) -> Result<Index> {
    let sql = "SELECT seq, first_at, last_at, footer, length(body) FROM blocks ORDER BY seq";
    let mut statement = connection.prepare(sql).map_err(storage_error)?;
    let mut rows = statement.query([]).map_err(storage_error)?;
    let mut index = Index::default();
    while let Some(row) = rows.next().map_err(storage_error)? {
        let column = |at: usize| row.get::<_, i64>(at).map_err(storage_error);
        let footer: String = row.get(3).map_err(storage_error)?;
        let footer: Footer = serde_json::from_str(&footer)
            .map_err(|error| Error::Corrupt(format!("the footer of block {}: {error}", column(0).unwrap_or(-1))))?;
        let bytes = usize::try_from(column(4)?).unwrap_or(0);
        index.add(column(0)?, Block { first_at: column(1)?, last_at: column(2)?, bytes, footer: Arc::new(footer) });
    }
    Ok(index)
}

impl EventLog for SqliteLog {
    fn append(&self, commit: &[Events], marks: &[Mark]) -> Result<Committed> {
        let mut writer = self.shared.writer.lock();
        let end = self.shared.index.lock().end.clone();
        self.shared.with_connection(&mut writer)?;
        let known = match &writer.connection {
            Some(connection) => known_ids(connection, &client_ids(commit))?,
            None => return Err(Error::Unavailable("the log is closed".into())),
        };
        let laid_out = split(commit, &self.shared.catalogue, &end, &known)?;
        if laid_out.segments.is_empty() {
            Shared::write_marks(&mut writer, marks)?;
            return Ok(Committed { stored: 0, repeated: laid_out.repeated });
        }
        self.shared.write(&mut writer, laid_out, marks)
    }

    fn marks(&self) -> Result<BTreeMap<String, String>> {
        self.shared.readers.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT source, position FROM marks").map_err(storage_error)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(storage_error)?;
            rows.collect::<rusqlite::Result<_>>().map_err(storage_error)
        })
    }

    fn end(&self) -> Positions {
        self.shared.index.lock().end.clone()
    }

    fn read(&self, from: &Positions, until: Option<&Positions>, max_rows: usize, columns: &Columns) -> Result<Slice> {
        let mut slice = Slice { chunks: Vec::new(), end: from.clone() };
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
            return Ok(Some(found));
        }
        self.shared.find_ours(event)
    }
}

impl Shared {
    /// Makes sure that there is a connection to write with.
    fn with_connection(&self, writer: &mut Writer) -> Result<()> {
        if writer.connection.is_none() {
            writer.connection = Some(open_writer(&self.path, &MIGRATIONS)?);
        }
        Ok(())
    }

    fn write(&self, writer: &mut Writer, laid_out: Split, marks: &[Mark]) -> Result<Committed> {
        let (footer, body) = encode(&laid_out.segments)?;
        let block = Block { bytes: body.len(), ..block_of(&laid_out, footer) };
        let seq = writer.next;
        writer.appends += 1;
        let prune = writer.appends.is_multiple_of(PRUNE_EVERY).then(|| self.environment.clock.now() - CLIENT_ID_AGE);
        let Some(connection) = &mut writer.connection else { return Err(Error::Closed) };
        if let Err(error) = store_block(connection, (seq, &block, &body), &laid_out, prune, marks) {
            self.after_failure(writer, seq, error)?;
        }
        writer.next += 1;
        let stored = laid_out.segments.iter().map(|segment| segment.rows.num_rows() as u64).sum();
        self.publish(seq, block, &laid_out)?;
        Ok(Committed { stored, repeated: laid_out.repeated })
    }

    /// Marks alone: every event of the commit was there already, or was rejected.
    fn write_marks(writer: &mut Writer, marks: &[Mark]) -> Result<()> {
        let Some(connection) = writer.connection.as_mut().filter(|_| !marks.is_empty()) else { return Ok(()) };
        let outcome = connection.transaction().and_then(|transaction| {
            store_marks(&transaction, marks)?;
            transaction.commit()
        });
        // The same marks may be written again, so it does not matter whether these were.
        outcome.map_err(|error| {
            writer.connection = None;
            storage_error(error)
        })
    }

    /// After a failure it may not be known whether the commit is durable: the file is opened anew and looked into. The
    /// fsync is never tried again on the same connection, since its dirty pages may be gone.
    fn after_failure(&self, writer: &mut Writer, seq: i64, error: rusqlite::Error) -> Result<()> {
        writer.connection = None;
        self.with_connection(writer)?;
        let Some(connection) = &writer.connection else { return Err(Error::Closed) };
        let sql = "SELECT 1 FROM blocks WHERE seq = ?1";
        let there = connection.query_row(sql, [seq], |_| Ok(())).optional().map_err(storage_error)?;
        if there.is_some() { Ok(()) } else { Err(storage_error(error)) }
    }

    fn publish(&self, seq: i64, block: Block, laid_out: &Split) -> Result<()> {
        let mut by_type: BTreeMap<String, Vec<(u32, RecordBatch)>> = BTreeMap::new();
        for segment in &laid_out.segments {
            let rows = (segment.at.partition, segment.rows.clone());
            by_type.entry(segment.event_type.name.clone()).or_default().push(rows);
        }
        let mut decoded = BTreeMap::new();
        for (name, mut rows) in by_type {
            rows.sort_by_key(|(partition, _)| *partition);
            let batches: Vec<RecordBatch> = rows.into_iter().map(|(_, rows)| rows).collect();
            decoded.insert(name, arrow::compute::concat_batches(&batches[0].schema(), &batches)?);
        }
        let bytes = decoded.values().map(RecordBatch::get_array_memory_size).sum();
        let mut index = self.index.lock();
        index.add(seq, block);
        index.keep(seq, Arc::new(decoded), bytes);
        self.grown.notify_all();
        Ok(())
    }

    /// Does something with the writer's connection, between appends.
    pub(super) fn write_between<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let mut writer = self.writer.lock();
        self.with_connection(&mut writer)?;
        match &mut writer.connection {
            Some(connection) => work(connection),
            None => Err(Error::Closed),
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
    fn decode(&self, seq: i64, footer: &Arc<Footer>, cut: &Cut<'_>) -> Result<Option<Decoded>> {
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
            decoded.insert(index.event_type.clone(), decode_type(index, &body, event_type, columns)?);
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
        Err(Error::Corrupt(format!("block {seq} of the log does not hold the {expected} bytes that its footer says")))
    }

    fn read_body(&self, seq: i64) -> Result<Option<Vec<u8>>> {
        self.readers.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT body FROM blocks WHERE seq = ?1").map_err(storage_error)?;
            statement.query_row([seq], |row| row.get(0)).optional().map_err(storage_error)
        })
    }

    /// An event whose id we assigned: its id says in which millisecond it was taken in.
    fn find_ours(&self, event: EventId) -> Result<Option<(TopicPartition, i64)>> {
        let millis = event.0[..6].iter().fold(0_i64, |value, byte| (value << 8) | i64::from(*byte));
        let (from, to) = (millis * 1_000, millis * 1_000 + 999);
        let near = |block: &Block| block.first_at <= to && block.last_at >= from;
        let candidates: Vec<(i64, Arc<Footer>)> = {
            let index = self.index.lock();
            let blocks = index.blocks.iter().rev().filter(|(_, block)| near(block));
            blocks.map(|(seq, block)| (*seq, Arc::clone(&block.footer))).collect()
        };
        let types = self.catalogue.types.keys().map(|name| (name.clone(), vec![stored::EVENT_ID])).collect();
        let columns = Columns::Only(types);
        let from = Positions::default();
        let cut = Cut { from: &from, until: None, columns: &columns, catalogue: &self.catalogue };
        for (seq, footer) in candidates {
            let Some(decoded) = self.decode(seq, &footer, &cut)? else { return self.find_ours(event) };
            if let Some(found) = find_in(&footer, &decoded, event) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn find_in(footer: &Footer, decoded: &Decoded, event: EventId) -> Option<(TopicPartition, i64)> {
    footer.types.iter().find_map(|index| {
        let ids = decoded.get(&index.event_type)?.column(stored::EVENT_ID).as_fixed_size_binary();
        let row = (0..ids.len()).find(|row| ids.value(*row) == event.0)?;
        let span = index.spans.iter().find(|span| (span.row..span.row + span.rows).contains(&row))?;
        let at = TopicPartition { topic: index.topic.as_str().into(), partition: span.partition };
        Some((at, span.offsets().value(row - span.row)))
    })
}

fn block_of(laid_out: &Split, footer: Footer) -> Block {
    let times = laid_out.segments.iter().map(|segment| {
        let times = segment.rows.column(stored::INGESTED_AT);
        let times = times.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values();
        (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0))
    });
    let (first_at, last_at) = times.fold((Micros::MAX, Micros::MIN), |(a, b), (c, d)| (a.min(c), b.max(d)));
    Block { first_at, last_at, bytes: 0, footer: Arc::new(footer) }
}

fn store_block(
    connection: &mut Connection,
    (seq, block, body): (i64, &Block, &[u8]),
    laid_out: &Split,
    prune: Option<Micros>,
    marks: &[Mark],
) -> rusqlite::Result<()> {
    let footer = serde_json::to_string(&*block.footer).unwrap_or_default();
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction
        .prepare_cached("INSERT INTO blocks (seq, first_at, last_at, footer, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![seq, block.first_at, block.last_at, footer, body])?;
    if !laid_out.client_ids.is_empty() {
        let mut insert = transaction.prepare_cached("INSERT INTO client_ids VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for given in &laid_out.client_ids {
            insert.execute(params![given.id.0, &*given.at.topic, given.at.partition, given.offset, block.last_at])?;
        }
    }
    store_marks(&transaction, marks)?;
    if let Some(before) = prune {
        let sql = "DELETE FROM client_ids WHERE id IN (SELECT id FROM client_ids WHERE at < ?1 LIMIT 10000)";
        transaction.execute(sql, [before])?;
    }
    transaction.commit()
}

fn store_marks(connection: &Connection, marks: &[Mark]) -> rusqlite::Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO marks VALUES (?1, ?2)")?;
    for Mark { source, position } in marks {
        insert.execute(params![source, position])?;
    }
    Ok(())
}

fn known_ids(connection: &Connection, ids: &[EventId]) -> Result<HashSet<EventId>> {
    let mut known = HashSet::new();
    if ids.is_empty() {
        return Ok(known);
    }
    let mut statement = connection.prepare_cached("SELECT 1 FROM client_ids WHERE id = ?1").map_err(storage_error)?;
    for id in ids {
        if statement.exists([id.0]).map_err(storage_error)? {
            known.insert(*id);
        }
    }
    Ok(known)
}

fn find_client_id(connection: &Connection, event: EventId) -> Result<Option<(TopicPartition, i64)>> {
    let sql = "SELECT topic, partition, \"offset\" FROM client_ids WHERE id = ?1";
    let found = connection.query_row(sql, [event.0], |row| {
        let topic: String = row.get(0)?;
        Ok((TopicPartition { topic: topic.into(), partition: row.get(1)? }, row.get(2)?))
    });
    found.optional().map_err(storage_error)
}
