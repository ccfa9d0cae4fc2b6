//! What the engine tells of itself while it runs. A new [`Status`] is published after every committed epoch.

use cornjacket_core::log::Positions;
use cornjacket_core::time::Micros;

/// The engine after an epoch.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The last committed epoch, 0 before the first.
    pub epoch: u64,
    /// What the sinks reflect.
    pub positions: Positions,
    /// Every node, in the order of the graph.
    pub nodes: Vec<NodeStatus>,
    /// The clock of every event type and partition that has had a row.
    pub clocks: Vec<ClockStatus>,
    /// The epoch of the last saved snapshot and when it was saved.
    pub snapshot: Option<(u64, Micros)>,
    /// Why the engine is not getting on, while it waits for storage.
    pub waiting_for: Option<String>,
    /// Whether a rebuild of changed parts from the log is under way.
    pub rebuilding: bool,
}

/// A node of the graph.
#[derive(Clone, Debug, Default)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its kind: `source`, `transform`, `tumble`, `projection`, …
    pub kind: String,
    /// Rows taken since the start of the process.
    pub rows_in: u64,
    /// Rows given since the start of the process.
    pub rows_out: u64,
    /// Rows that came too late, since the start of the process.
    pub late: u64,
    /// Bytes of state, approximately.
    pub state_bytes: u64,
    /// Its watermark, once it has one.
    pub watermark: Option<Micros>,
    /// The watermark at which it gives rows next: the end of its oldest window. `None` if it waits for nothing.
    pub waits_for: Option<Micros>,
    /// The event types that its rows come from, whose clocks its watermark goes by.
    pub event_types: Vec<String>,
    /// When, by the wall clock, its watermark gets there at the latest, even if no row ever comes again.
    pub closes_by: Option<Micros>,
}

/// The clock of an event type in a partition.
#[derive(Clone, Debug)]
pub struct ClockStatus {
    /// The event type.
    pub event_type: String,
    /// The partition.
    pub partition: u32,
    /// The clock: greatest event time less delay, or what it was raised to.
    pub clock: Micros,
    /// When its last row was taken, by the wall clock; `None` if none has come since the start of the process.
    pub last_row_at: Option<Micros>,
    /// When, by the wall clock, the partition counts as silent if no row comes before.
    pub silent_at: Micros,
}
