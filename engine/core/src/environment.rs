//! What a running system takes from the world: time and randomness. Production passes the machine's, tests their own,
//! so that a simulation can be repeated from its seed.

use std::sync::Arc;

use crate::time::Micros;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The wall clock. It may jump; use it for times that are recorded.
    fn now(&self) -> Micros;

    /// Time since some fixed point, never going back; use it for measuring how long something lasts.
    fn monotonic(&self) -> Micros;
}

/// Gives random bytes.
pub trait Random: Send + Sync {
    /// Fills the bytes with randomness.
    fn fill(&self, bytes: &mut [u8]);
}

/// Time and randomness, handed to whatever needs them.
#[derive(Clone)]
pub struct Environment {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives random bytes.
    pub random: Arc<dyn Random>,
}
