//! The machine's time and randomness. The one place that reads them.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cornjacket_core::environment::{Clock, Environment, Random};
use cornjacket_core::time::Micros;
use rand::RngCore;

struct SystemClock {
    started: Instant,
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is where the clock comes from")]
    fn now(&self) -> Micros {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
    }

    fn monotonic(&self) -> Micros {
        Micros::try_from(self.started.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// The machine's own environment.
pub fn of_machine() -> Environment {
    Environment { clock: Arc::new(SystemClock { started: Instant::now() }), random: Arc::new(SystemRandom) }
}
