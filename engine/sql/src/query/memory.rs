//! Memory of queries: each has a bound of its own, and all of them share one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation};

/// What a query may take: no more than its own bound, and no more than there is left for all.
#[derive(Debug)]
pub(super) struct Share {
    own: GreedyMemoryPool,
    all: Arc<Total>,
}

/// What all queries may take together.
#[derive(Debug)]
pub(super) struct Total {
    most: usize,
    taken: AtomicUsize,
}

impl Total {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: AtomicUsize::new(0) })
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.most);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }
}

impl Share {
    pub(super) fn new(own: usize, all: &Arc<Total>) -> Self {
        Self { own: GreedyMemoryPool::new(own), all: Arc::clone(all) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a share of {} bytes", self.all.most)
    }
}

impl MemoryPool for Share {
    fn name(&self) -> &'static str {
        "share"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.all.taken.fetch_add(additional, Ordering::AcqRel);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.all.taken.fetch_sub(shrink, Ordering::AcqRel);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<(), DataFusionError> {
        self.own.try_grow(reservation, additional)?;
        if self.all.take(additional) {
            return Ok(());
        }
        self.own.shrink(reservation, additional);
        Err(DataFusionError::ResourcesExhausted(format!(
            "all queries together may take {} MiB, and that is in use",
            self.all.most >> 20
        )))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[test]
    fn a_query_takes_no_more_than_its_own_and_what_is_left() {
        let all = Total::new(100);
        let pools: [Arc<dyn MemoryPool>; 2] = [Arc::new(Share::new(80, &all)), Arc::new(Share::new(80, &all))];
        let reservations = pools.each_ref().map(|pool| MemoryConsumer::new("test").register(pool));
        assert!(reservations[0].try_grow(90).is_err(), "more than its own");
        reservations[0].try_grow(70).expect("there is room");
        assert!(reservations[1].try_grow(40).is_err_and(|error| error.to_string().contains("together")));
        reservations[1].try_grow(30).expect("there is room");
        reservations[0].shrink(20);
        reservations[1].try_grow(20).expect("room was made");
        drop(reservations);
        assert_eq!(all.taken.load(Ordering::SeqCst), 0);
    }
}
