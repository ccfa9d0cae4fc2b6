//! What the embedded broker counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the embedded broker.
#[derive(Debug, Default)]
pub struct BrokerCounts {
    pub(super) connections: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) publishes: [AtomicU64; 3],
    pub(super) acknowledged: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) unretained: AtomicU64,
}

/// What they stand at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerCounted {
    /// Clients that are connected.
    pub connections: u64,
    /// Connections since the start.
    pub connects: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Messages published with QoS 0, 1 and 2.
    pub publishes: [u64; 3],
    /// Messages acknowledged to their publishers.
    pub acknowledged: u64,
    /// Messages sent again that were stored already.
    pub repeated: u64,
    /// Messages sent to subscribers.
    pub delivered: u64,
    /// Messages that subscribers were too slow for, or too long away.
    pub dropped: u64,
    /// Messages that were to be retained and had no room.
    pub unretained: u64,
}

impl BrokerCounts {
    /// What they stand at.
    pub fn read(&self) -> BrokerCounted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BrokerCounted {
            connections: read(&self.connections),
            connects: read(&self.connects),
            refused: read(&self.refused),
            publishes: [read(&self.publishes[0]), read(&self.publishes[1]), read(&self.publishes[2])],
            acknowledged: read(&self.acknowledged),
            repeated: read(&self.repeated),
            delivered: read(&self.delivered),
            dropped: read(&self.dropped),
            unretained: read(&self.unretained),
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
