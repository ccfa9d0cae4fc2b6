//! How long to wait before the next try: longer each time, and never the same for all who wait.

use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::environment::Random;

/// Waiting times.
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
    random: Arc<dyn Random>,
}

impl Backoff {
    /// From `first`, doubled each time, up to `most`.
    pub fn new(first: Duration, most: Duration, random: Arc<dyn Random>) -> Self {
        Self { first, most, next: first, random }
    }

    /// The next waiting time: from a half of it to the whole, so that those who lost their connections together do not
    /// come back together.
    pub fn next(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.most);
        let mut byte = [0];
        self.random.fill(&mut byte);
        whole / 2 + whole / 2 * u32::from(byte[0]) / 255
    }

    /// From the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);

    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn waiting_times_grow_and_differ() {
        let times = |random| {
            let mut backoff =
                Backoff::new(Duration::from_millis(100), Duration::from_millis(500), Arc::new(Fixed(random)));
            let mut times: Vec<u128> = (0..5).map(|_| backoff.next().as_millis()).collect();
            backoff.reset();
            times.push(backoff.next().as_millis());
            times
        };
        assert_eq!(times(255), [100, 200, 400, 500, 500, 100]);
        assert_eq!(times(0), [50, 100, 200, 250, 250, 50]);
    }
}
