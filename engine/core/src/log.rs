//! The log: outbox, event store and bus as the engine and the doors see them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use serde::{Deserialize, Serialize};

use crate::catalogue::EventType;
use crate::error::Result;
use crate::id::EventId;
use crate::time::{Micros, SECOND};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: u32,
}

/// For each partition the offset after the last row that is covered; a partition that is missing stands at 0.
///
/// It is the same as text in JSON: `{"sensor-events/0": 17}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(pub BTreeMap<TopicPartition, i64>);

impl Positions {
    /// The offset after the last row covered.
    #[must_use]
    pub fn get(&self, partition: &TopicPartition) -> i64 {
        self.0.get(partition).copied().unwrap_or(0)
    }

    /// Whether every partition is at least where `other` has it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(partition, offset)| self.get(partition) >= *offset)
    }

    /// How many rows lie between this and `later`.
    #[must_use]
    pub fn distance(&self, later: &Self) -> i64 {
        later.0.iter().map(|(partition, offset)| offset - self.get(partition)).sum()
    }
}

impl Serialize for Positions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(at, offset)| (format!("{}/{}", at.topic, at.partition), offset)))
    }
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::<String, i64>::deserialize(deserializer)?;
        let partition = |text: String| -> Option<TopicPartition> {
            let (topic, partition) = text.rsplit_once('/')?;
            Some(TopicPartition { topic: topic.into(), partition: partition.parse().ok()? })
        };
        let pairs = texts.into_iter().map(|(text, offset)| {
            partition(text).map(|at| (at, offset)).ok_or_else(|| serde::de::Error::custom("not topic/partition"))
        });
        Ok(Self(pairs.collect::<Result<_, _>>()?))
    }
}

/// Checked events of one type, ready to be stored; rows of one aggregate are in their order.
#[derive(Clone, Debug)]
pub struct Events {
    /// Their type.
    pub event_type: Arc<EventType>,
    /// The rows, in the type's stored schema.
    pub rows: RecordBatch,
    /// For each row its place in the order of the whole commit, rising within the batch.
    pub sequence: Int64Array,
    /// Which rows have an id that a client gave, so that a repeat must be found; `None` if no row has.
    pub client_id: Option<BooleanArray>,
}

/// Where a source stands behind the events of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The source's name.
    pub source: String,
    /// Its position, in its own form.
    pub position: String,
}

/// What a source remembers of the messages behind these events, in its own form, to tell a message that is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The source's name.
    pub source: String,
    /// What it remembers.
    pub bytes: Vec<u8>,
}

/// What is stored beside the events of a commit, together with them or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Where sources stand behind them.
    pub marks: Vec<Mark>,
    /// What sources remember of them, for [`RECEIPT_AGE`].
    pub receipts: Vec<Receipt>,
}

impl Notes {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.receipts.is_empty()
    }
}

/// How long receipts are kept, at the least.
pub const RECEIPT_AGE: Micros = 3_600 * SECOND;

/// How many events of a type the log took and has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCount {
    /// How many were ever stored, as counted with each commit.
    pub accepted: u64,
    /// How many there are, by the blocks themselves.
    pub present: u64,
    /// How many of these lie before a position.
    pub reached: u64,
    /// How many retention has deleted.
    pub forgotten: u64,
}

/// What became of a commit.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// How many rows were stored; offered less this were repeats.
    pub stored: u64,
    /// Ids of the rows that were there already, and so were not stored again.
    pub repeated: Vec<EventId>,
}

/// Stored events of one type and partition, in the order of their offsets.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Their type, as the catalogue that the log was opened with has it.
    pub event_type: Arc<EventType>,
    /// Their partition.
    pub partition: u32,
    /// The offset of each row, rising; not always dense, since a partition's rows may be of several types.
    pub offsets: Int64Array,
    /// The rows, in the type's stored schema.
    pub rows: RecordBatch,
}

/// Chunks of the log up to a position.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// The rows. Those of one type and partition are in the order of their offsets.
    pub chunks: Vec<Chunk>,
    /// Where the slice ends; every row of the catalogue's types between the position asked for and this is in it.
    pub end: Positions,
}

/// Which columns of the stored schema a reader wants; the others come back as they are cheapest, and must not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    /// All.
    All,
    /// For each event type, by name, positions in its stored schema; types that are not named are left out whole.
    Only(BTreeMap<String, Vec<usize>>),
}

/// Outbox, event store and bus in one: what is appended is durable, in order per partition, and can be read from any
/// position. Appends come from one thread at a time, reads from any number.
pub trait EventLog: Send + Sync {
    /// Appends the batches as one commit, together with the notes of their sources, and returns when they are durable.
    /// Rows whose client-given id is there already, or comes twice in the commit, are left out: the first wins.
    ///
    /// # Errors
    /// [`crate::Error::Full`] or [`crate::Error::Unavailable`] when nothing of the commit is durable and it may be
    /// tried again; any other error means that this log accepts nothing more.
    fn append(&self, commit: &[Events], notes: &Notes) -> Result<Committed>;

    /// Where each source stands, by name.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn marks(&self) -> Result<BTreeMap<String, String>>;

    /// What a source remembers of the last [`RECEIPT_AGE`], the newest commit's first, up to about `max_bytes`.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn receipts(&self, source: &str, max_bytes: usize) -> Result<Vec<Vec<u8>>>;

    /// What the log says of itself, by event type, those included that the catalogue no longer has. `until` limits
    /// [`LogCount::reached`].
    ///
    /// # Errors
    /// When the log cannot be read.
    fn counts(&self, until: &Positions) -> Result<BTreeMap<String, LogCount>>;

    /// The end of what is durable.
    fn end(&self) -> Positions;

    /// Reads from a position, up to `until` where it is given, and about `max_rows` (at least one block, so that a
    /// reader always gets on). An empty slice whose end is `from` means that there is nothing more yet.
    ///
    /// # Errors
    /// When stored blocks cannot be read.
    fn read(&self, from: &Positions, until: Option<&Positions>, max_rows: usize, columns: &Columns) -> Result<Slice>;

    /// Waits until something beyond the position is durable or the time is up; says which.
    fn wait_beyond(&self, position: &Positions, timeout: Duration) -> bool;

    /// Where an event is stored, if it is: for `after=` and the like.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn find(&self, event: EventId) -> Result<Option<(TopicPartition, i64)>>;

    /// Deletes some of the oldest events of topics: of those taken in before a time, as far as whole commits go, and none
    /// at or beyond `floor`, which may still be needed. Says how many; 0 when nothing is left to delete. Reading from
    /// before them goes on behind them.
    ///
    /// # Errors
    /// When the log cannot be written; nothing is deleted then.
    fn forget(&self, before: &BTreeMap<String, Micros>, floor: &Positions) -> Result<u64>;

    /// Puts everything into as few files as there may be, as far as nobody reads: for an orderly end. What cannot be done
    /// now is done by the next start.
    fn fold(&self) {}
}
