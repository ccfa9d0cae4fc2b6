//! What is measured: how much in which time, and how long each took.

use std::time::Duration;

use serde::Serialize;

/// How long each of many things took.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

/// Milliseconds that half, 99 in 100, and all of them took at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(clippy::struct_field_names, reason = "names in JSON end in their unit")]
pub(super) struct Percentiles {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// By nearest rank: each is a time that really was.
    pub(super) fn percentiles(mut self) -> Percentiles {
        self.0.sort_unstable();
        let at = |percent: usize| {
            let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
            self.0.get(rank).map_or(0.0, |time| rounded(time.as_secs_f64() * 1e3))
        };
        Percentiles { p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

/// So much in a second.
#[allow(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { rounded(count as f64 / time.as_secs_f64()) }
}

/// To a thousandth.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// What became of the events that were sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Answered with 202: stored.
    pub(super) accepted: u64,
    /// Refused for good.
    pub(super) rejected: u64,
    /// Why the first of those was.
    pub(super) first_reason: Option<String>,
    /// Requests that were told to come again later.
    pub(super) put_off: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.put_off += other.put_off;
        self.first_reason = self.first_reason.take().or(other.first_reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were() {
        let mut times = Times::default();
        (1..=200).rev().for_each(|number| times.add(Duration::from_millis(number)));
        assert_eq!(times.percentiles(), Percentiles { p50_ms: 100.0, p99_ms: 198.0, max_ms: 200.0 });
        let mut one = Times::default();
        one.add(Duration::from_micros(1_500));
        assert_eq!(one.percentiles(), Percentiles { p50_ms: 1.5, p99_ms: 1.5, max_ms: 1.5 });
        assert_eq!(Times::default().percentiles(), Percentiles::default());
    }
}
