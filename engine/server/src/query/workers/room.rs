//! Memory of all queries together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What is left of it.
pub struct Room(AtomicUsize);

impl Room {
    pub fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    /// Takes so many bytes, if there are so many.
    pub fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
    }

    /// Gives so many back.
    pub fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let room = Room::new(100);
        assert!(room.take(70));
        assert!(!room.take(31));
        assert!(room.take(30));
        room.give(70);
        assert!(room.take(70) && !room.take(1));
    }
}
