//! A limit of requests in a time: whatever comes beyond it waits.
//!
//! The last so many starts are remembered, and another is allowed when the first of them is a period ago. So in no period
//! of that length there are more than the limit says, at no boundary either. After a restart the starts are taken from the
//! deliveries, of which each knows its last attempt: what was under way when a process was killed is missing there.

use std::collections::VecDeque;

use cornjacket_core::delivery::RateLimit;
use cornjacket_core::time::Micros;

/// The starts that count, by a clock that never goes back.
pub(super) struct Pace {
    limit: Option<RateLimit>,
    starts: VecDeque<Micros>,
}

impl Pace {
    /// With the starts of an earlier process, in any order; none of them is in the future.
    pub(super) fn new(limit: Option<RateLimit>, mut starts: Vec<Micros>) -> Self {
        starts.sort_unstable();
        let most = limit.map_or(0, |limit| limit.count as usize);
        let from = starts.len().saturating_sub(most);
        Self { limit, starts: starts.split_off(from).into() }
    }

    /// When the next request may start: now or later.
    pub(super) fn next_at(&self, now: Micros) -> Micros {
        let Some(limit) = self.limit.filter(|limit| self.starts.len() >= limit.count as usize) else { return now };
        self.starts.front().map_or(now, |first| now.max(first + limit.period))
    }

    /// Notes that one starts.
    pub(super) fn start(&mut self, now: Micros) {
        let Some(limit) = self.limit else { return };
        while self.starts.len() >= limit.count as usize {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Option<RateLimit> = Some(RateLimit { count: 3, period: 100 });

    #[test]
    fn no_period_has_more_than_the_limit() {
        let (mut pace, mut now, mut starts) = (Pace::new(LIMIT, Vec::new()), 0, Vec::new());
        for step in [0, 0, 0, 0, 30, 0, 250, 10, 0, 0, 0] {
            now = pace.next_at(now + step);
            pace.start(now);
            starts.push(now);
        }
        assert_eq!(starts, [0, 0, 0, 100, 130, 130, 380, 390, 390, 480, 490]);
        for (at, first) in starts.iter().enumerate() {
            assert!(starts[at..].iter().filter(|start| **start < first + 100).count() <= 3, "{starts:?}");
        }
    }

    #[test]
    fn what_an_earlier_process_started_counts() {
        let pace = Pace::new(LIMIT, vec![-10, -60, -20, -5]);
        assert_eq!(pace.next_at(0), 80);
        assert_eq!(Pace::new(LIMIT, vec![-10, -60]).next_at(0), 0);
        assert_eq!(Pace::new(None, vec![-10]).next_at(0), 0);
    }
}
