//! Memory of queries: each has a bound of its own, and all of them share one.

use std::fmt;
use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;

/// What all queries may take together.
pub trait Budget: Send + Sync {
    /// Takes so many bytes, if there are so many.
    fn take(&self, bytes: usize) -> bool;

    /// Gives so many back.
    fn give(&self, bytes: usize);
}

/// How much is taken out of the budget at a time, since asking may take a while.
const PIECE: usize = 4 << 20;

/// What a query may take: no more than its own bound, and no more than there is left for all.
pub(super) struct Share {
    own: GreedyMemoryPool,
    all: Arc<dyn Budget>,
    /// What is taken out of the budget: whole pieces.
    taken: Mutex<usize>,
}

impl Share {
    pub(super) fn new(own: usize, all: &Arc<dyn Budget>) -> Self {
        Self { own: GreedyMemoryPool::new(own), all: Arc::clone(all), taken: Mutex::new(0) }
    }

    /// Takes what is missing, unless there is not enough left.
    fn cover(&self) -> bool {
        let mut taken = self.taken.lock();
        let wanted = self.own.reserved().div_ceil(PIECE) * PIECE;
        let missing = wanted.saturating_sub(*taken);
        if missing > 0 && !self.all.take(missing) {
            return false;
        }
        *taken += missing;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let taken = std::mem::take(self.taken.get_mut());
        if taken > 0 {
            self.all.give(taken);
        }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("own", &self.own).finish_non_exhaustive()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share of all queries' memory")
    }
}

impl MemoryPool for Share {
    fn name(&self) -> &'static str {
        "share"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        // What must be had is had, whether there is enough left or not.
        self.cover();
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<(), DataFusionError> {
        self.own.try_grow(reservation, additional)?;
        if self.cover() {
            return Ok(());
        }
        self.own.shrink(reservation, additional);
        Err(DataFusionError::ResourcesExhausted("what all queries together may take is in use".into()))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    pub struct Left(pub Mutex<usize>);

    impl Budget for Left {
        fn take(&self, bytes: usize) -> bool {
            let mut left = self.0.lock();
            let fits = bytes <= *left;
            *left -= if fits { bytes } else { 0 };
            fits
        }

        fn give(&self, bytes: usize) {
            *self.0.lock() += bytes;
        }
    }

    #[test]
    fn a_query_takes_no_more_than_its_own_and_what_is_left() {
        let left = Arc::new(Left(Mutex::new(100 << 20)));
        let all: Arc<dyn Budget> = Arc::clone(&left) as _;
        let pools: [Arc<dyn MemoryPool>; 2] =
            [Arc::new(Share::new(80 << 20, &all)), Arc::new(Share::new(80 << 20, &all))];
        let reservations = pools.each_ref().map(|pool| MemoryConsumer::new("test").register(pool));
        assert!(reservations[0].try_grow(90 << 20).is_err(), "more than its own");
        reservations[0].try_grow(71 << 20).expect("there is room");
        assert_eq!(*left.0.lock(), 28 << 20, "whole pieces are taken");
        assert!(reservations[1].try_grow(40 << 20).is_err_and(|error| error.to_string().contains("together")));
        reservations[1].try_grow(28 << 20).expect("there is room");
        let [first, second] = reservations;
        drop((first, second));
        drop(pools);
        assert_eq!(*left.0.lock(), 100 << 20);
    }
}
