//! The store: projections, epochs, snapshots and dead letters, written in one small transaction an epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::dead_letter::{DeadLetter, DeadLetters};
use crate::delivery::{Deliveries, NewDelivery};
use crate::error::Result;
use crate::log::Positions;
use crate::operator::PartId;
use crate::projection::{ProjectionSpec, ProjectionWrite};
use crate::time::Micros;

/// A clock that was raised because its partition was silent. It is data: recovery and replay read it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raise {
    /// The event type whose clock it is.
    pub event_type: String,
    /// The partition.
    pub partition: u32,
    /// The clock's new value.
    pub clock: Micros,
}

/// A stored event that the pipeline could not compute: it is left out of everything, and is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetAside {
    /// Its type.
    pub event_type: String,
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: i64,
}

/// What is recorded of an epoch: where it ended, the raises at its end, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Its number, from 1, without gaps.
    pub epoch: u64,
    /// Where its rows end.
    pub positions: Positions,
    /// Raises, applied after its rows and before its watermarks.
    pub raises: Vec<Raise>,
    /// Events of it that are left out, and were not before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<SetAside>,
    /// Whether operators give results one by one, so that one which cannot be computed costs no other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_by_one: bool,
    /// Whether it is a part of what would have been one epoch: the watermarks stay as they are, as within an epoch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_part: bool,
}

/// Everything that becomes true at the end of an epoch, together or not at all.
#[derive(Clone, Debug)]
pub struct EpochCommit {
    /// The epoch's record. Its number must be the one after the last committed epoch's.
    pub record: EpochRecord,
    /// The wall clock, for `updated_at`.
    pub now: Micros,
    /// Rows of projections, at most one write a projection.
    pub writes: Vec<ProjectionWrite>,
    /// What could not be processed.
    pub dead_letters: Vec<DeadLetter>,
    /// What is to be sent. One whose id is there already, or that a dedupe window covers, is left out and counted
    /// (`superseded`, `suppressed`).
    pub deliveries: Vec<NewDelivery>,
    /// By how much each counter (`node`, `what`) rose.
    pub counters: BTreeMap<(String, String), i64>,
    /// How long the outlet of each sink is now, in bytes.
    pub lengths: BTreeMap<String, u64>,
}

/// A consistent cut of all state at the end of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The epoch at whose end it was taken.
    pub epoch: u64,
    /// Where the epoch ended.
    pub positions: Positions,
    /// What the engine needs of it, in the engine's own form (JSON).
    pub body: String,
    /// Every part that belongs to it.
    pub parts: Vec<PartId>,
}

/// What a store remembers of a pipeline between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineState {
    /// Fingerprint of each sink and stateful node, by name; decides what an edit of the file rebuilds.
    pub fingerprints: BTreeMap<String, String>,
    /// While a rebuild runs: sinks that are already right and stay untouched until `rebuild_until` is passed.
    pub kept_sinks: Vec<String>,
    /// While a rebuild runs: where the pipeline stood when it began.
    pub rebuild_until: Option<Positions>,
    /// Raises of the time before the last rebuild, with the positions at which they took place, in order.
    pub past_raises: Vec<(Positions, Vec<Raise>)>,
    /// How many events of each type retention had deleted when the epochs began (again): they were never read.
    #[serde(default)]
    pub forgotten: BTreeMap<String, u64>,
    /// Where each sink that begins with what comes from now on began, by its name.
    #[serde(default)]
    pub begins: BTreeMap<String, Positions>,
    /// Fingerprint of every node, by name, as the last run had them.
    #[serde(default)]
    pub nodes: BTreeMap<String, String>,
    /// What equations of the audit start from, by check and node, where an edit without a rebuild changed the node: the
    /// counters of the time before are those of another graph.
    #[serde(default)]
    pub carried: BTreeMap<String, i64>,
}

/// What the epochs counted, beside what there is: both are of the same moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The last committed epoch's position.
    pub positions: Positions,
    /// Counters by (`node`, `what`).
    pub counters: BTreeMap<(String, String), i64>,
    /// How many rows each projection has.
    pub rows: BTreeMap<String, u64>,
    /// How many dead letters there are, by (`source`, `reason`).
    pub letters: BTreeMap<(String, String), u64>,
    /// How many deliveries of each sink wait.
    pub pending: BTreeMap<String, u64>,
}

/// Which rows of a projection are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowFilter {
    /// Equal text of a column's value, by position in the projection's schema; all must hold.
    pub equal: Vec<(usize, String)>,
}

/// A projection's rows with what every projection row has beside its columns.
#[derive(Clone, Debug)]
pub struct ProjectionRows {
    /// The projection's columns, then `last_event_id` (Utf8), `last_event_timestamp`, `updated_at` (timestamps).
    pub rows: RecordBatch,
    /// How many rows fit the filter in all.
    pub total: u64,
}

/// Projections, epochs, snapshots and dead letters of one pipeline.
///
/// Epochs are committed by one thread at a time; reads come from any number and see whole epochs only.
pub trait Store: DeadLetters + Deliveries {
    /// Makes a projection's table if it is not there. `clear` empties it and lays it out anew.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] if a table of that name has other columns and `clear` is false.
    fn prepare(&self, projection: &ProjectionSpec, clear: bool) -> Result<()>;

    /// How long the outlets of sinks are, in bytes, by the sink's name; those that never had an epoch are missing.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn lengths(&self) -> Result<BTreeMap<String, u64>>;

    /// Says that a sink's outlet is empty: it is written anew.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn reset_length(&self, sink: &str) -> Result<()>;

    /// Says that a sink's outlet is ours, and empty if nothing was written to it.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn claim(&self, sink: &str) -> Result<()>;

    /// What is remembered of the pipeline; the default for a new one.
    ///
    /// # Errors
    /// When the store cannot be read; so for every read below.
    fn pipeline_state(&self) -> Result<PipelineState>;

    /// Remembers it. With `restart` also forgets epochs and snapshots, so that the next epoch is number 1, and counters
    /// except those of `kept_sinks`, whose `base` is then what they had taken (`rows_in`): the start of a rebuild.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn set_pipeline_state(&self, state: &PipelineState, restart: bool) -> Result<()>;

    /// Commits an epoch; durable when it returns.
    ///
    /// # Errors
    /// Transient errors mean that nothing of it was written. [`crate::Error::Conflict`]: the number does not follow.
    fn commit_epoch(&self, commit: &EpochCommit) -> Result<()>;

    /// The last committed epoch.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn last_epoch(&self) -> Result<Option<EpochRecord>>;

    /// The committed epochs after this number, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn epochs_after(&self, epoch: u64) -> Result<Vec<EpochRecord>>;

    /// Saves new parts and the snapshot that refers to them (and to older ones), and forgets older snapshots and the
    /// parts that only they had, in one transaction. Epochs up to the snapshot's are forgotten except for their raises.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn save_snapshot(&self, snapshot: &Snapshot, new_parts: &[(PartId, RecordBatch)]) -> Result<()>;

    /// The latest snapshot.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn latest_snapshot(&self) -> Result<Option<Snapshot>>;

    /// A part of a snapshot.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] if it is not there.
    fn part(&self, id: PartId) -> Result<RecordBatch>;

    /// Every raise since the last rebuild, with the positions of its epoch, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn raises(&self) -> Result<Vec<(Positions, Vec<Raise>)>>;

    /// Every event that was ever set aside and is still in the log, also before a rebuild.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn set_aside(&self) -> Result<Vec<SetAside>>;

    /// Rows of a projection in the order of their keys' text.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn rows(
        &self,
        projection: &ProjectionSpec,
        filter: &RowFilter,
        limit: Option<u64>,
        offset: u64,
    ) -> Result<ProjectionRows>;

    /// Rows of a projection in batches, as one consistent read; `sink` says whether to go on.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, projection: &ProjectionSpec, sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()>;

    /// The row of a key: its values' text in order; `None` for null.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn row(&self, projection: &ProjectionSpec, key: &[Option<String>]) -> Result<Option<RecordBatch>>;

    /// The ledger: what was counted, and what there is, of one moment.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn ledger(&self, projections: &[Arc<ProjectionSpec>]) -> Result<Ledger>;

    /// Deletes rows of a projection that are of before a time (its time column, or the row time where that is null or
    /// there is none), and counts them as `forgotten`; says how many they were. `max` at a time, so that no epoch waits
    /// long.
    ///
    /// # Errors
    /// When they cannot be deleted.
    fn forget_rows(&self, projection: &ProjectionSpec, before: Micros, max: u64) -> Result<u64>;

    /// As [`crate::log::EventLog::fold`].
    fn fold(&self) {}
}

/// A log and a store that belong together.
#[derive(Clone)]
pub struct Storage {
    /// Outbox, event store and bus.
    pub log: Arc<dyn crate::log::EventLog>,
    /// Projections, epochs, snapshots and dead letters.
    pub store: Arc<dyn Store>,
}
