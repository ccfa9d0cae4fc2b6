//! How many events a caller may hand in, and how long one that is over has to wait.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// A rate such as `100/s`. As many events as it has in its unit of time may come at once.
#[derive(Debug)]
pub struct Rate {
    burst: NonZeroU32,
    limiter: DefaultDirectRateLimiter,
}

impl Rate {
    /// Reads `100/s`, `10/m` or `1000/h`.
    ///
    /// # Errors
    /// When the text is no such rate; the message says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(count, unit)| {
            let seconds = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                _ => return None,
            };
            let burst: NonZeroU32 = count.parse().ok()?;
            let period = Duration::from_secs(seconds) / burst.get();
            // A billion a second and more is no limit that could be counted.
            Some((burst, Quota::with_period(period)?.allow_burst(burst)))
        });
        let (burst, quota) = parsed
            .ok_or_else(|| format!("`{text}` is no rate: write a number of events and s, m or h, such as 100/s"))?;
        Ok(Self { burst, limiter: RateLimiter::direct(quota) })
    }

    /// How many events may come at once.
    pub(super) fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// Takes the right to hand in events, or says how long to wait for it. More than may come at once never get it, so the
    /// number is cut to that.
    pub(super) fn take(&self, events: usize) -> Result<(), Duration> {
        let events = u32::try_from(events).unwrap_or(u32::MAX).min(self.burst.get());
        let Some(events) = NonZeroU32::new(events) else { return Ok(()) };
        match self.limiter.check_n(events) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_yet)) => Err(not_yet.wait_time_from(self.limiter.clock().now())),
            Err(_) => Err(Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn rates_are_numbers_with_a_unit() {
        for right in ["100/s", "1/h", "10/m", "1000000/s"] {
            assert!(Rate::parse(right).is_ok(), "{right}");
        }
        for wrong in ["", "100", "0/s", "-1/s", "1.5/s", "1/d", "1/ s", "4294967295/s", "x/s"] {
            assert!(Rate::parse(wrong).is_err_and(|message| message.contains("such as 100/s")), "{wrong}");
        }
    }

    #[test]
    fn what_is_over_the_rate_waits() {
        let rate = Rate::parse("2/h").expect("a rate");
        assert_eq!(rate.take(0), Ok(()));
        assert_eq!(rate.take(1), Ok(()));
        assert_eq!(rate.take(1), Ok(()));
        let wait = rate.take(1).expect_err("over").as_secs();
        assert!((1_790..=1_800).contains(&wait), "{wait}");
        assert!(rate.take(7).is_err_and(|wait| wait.as_secs() > 3_590), "as long as for two");
    }
}
