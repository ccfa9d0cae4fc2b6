//! What a source that subscribes counts, for metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of a source. They are written by its tasks and read by whoever asks for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    connected: AtomicBool,
    connections: AtomicU64,
    messages: AtomicU64,
    acknowledged: AtomicU64,
    repeated: AtomicU64,
    ignored: AtomicU64,
    refused: AtomicU64,
}

/// The same at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Whether it is connected.
    pub connected: bool,
    /// How often the connection was made again after it had been there.
    pub reconnects: u64,
    /// Messages that came, those included that came again.
    pub messages: u64,
    /// Acknowledgements that were given.
    pub acknowledged: u64,
    /// Messages that came again and were stored already.
    pub repeated: u64,
    /// Retained messages, and messages of topics that are no longer wanted, which were left out.
    pub ignored: u64,
    /// Subscriptions that the broker refuses.
    pub refused: u64,
}

impl Counts {
    pub(super) fn connected(&self, is_connected: bool) {
        let was_connected = self.connected.swap(is_connected, Ordering::Relaxed);
        if is_connected && !was_connected {
            self.connections.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn message(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn acknowledged(&self, count: usize) {
        self.acknowledged.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ignored(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, count: usize) {
        self.refused.store(count as u64, Ordering::Relaxed);
    }

    /// What was counted up to now.
    #[must_use]
    pub fn read(&self) -> Counted {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            connected: self.connected.load(Ordering::Relaxed),
            reconnects: of(&self.connections).saturating_sub(1),
            messages: of(&self.messages),
            acknowledged: of(&self.acknowledged),
            repeated: of(&self.repeated),
            ignored: of(&self.ignored),
            refused: of(&self.refused),
        }
    }
}
