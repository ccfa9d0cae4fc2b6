//! Room on the disk: what is kept free, and what can be made of it.

use std::time::{Duration, Instant};

use cornjacket_core::Result;

use super::connection::fold_now;
use super::log::{Shared, Writer};

/// How often room is made on a full disk, at most.
const FOLD_EVERY: Duration = Duration::from_secs(2);

impl Shared {
    /// Whether the disk has more room than what is kept for what is stored already.
    pub(super) fn has_room(&self) -> Result<()> {
        self.place.has_room(self.min_free)
    }

    /// On a full disk the write-ahead log may hold what is in the file already: it is folded, now and then.
    pub(super) fn make_room(&self, writer: &mut Writer) -> Result<()> {
        let full = match (self.has_room(), &writer.connection) {
            (Err(full), Some(connection)) if writer.folded.is_none_or(|at| at.elapsed() >= FOLD_EVERY) => {
                fold_now(connection, self.place.path());
                full
            }
            (outcome, _) => return outcome,
        };
        writer.folded = Some(Instant::now());
        self.has_room().map_err(|_| full)
    }
}
