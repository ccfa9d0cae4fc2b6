//! What follows from an attempt: done, again later, or given up.

use cornjacket_core::delivery::{Delivery, RetryPolicy, Verdict};
use cornjacket_core::time::{Micros, SECOND};

/// No wait is longer, whatever the receiver asks for, so that one that is back is noticed within the hour.
const LONGEST: Micros = 3_600 * SECOND;

/// What the receiver said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has it (2xx).
    Taken,
    /// It wants no more of these (410).
    Gone,
    /// Anything else, and for how long it asked to be left alone.
    Failed(Option<Micros>),
}

/// The verdict over an attempt that ended at `now`. `chance`, from 0 to 1, spreads the tries of deliveries that failed
/// together.
pub(super) fn verdict(
    outcome: &Outcome,
    delivery: &Delivery,
    policy: &RetryPolicy,
    now: Micros,
    chance: f64,
) -> Verdict {
    let asked = match outcome {
        Outcome::Taken => return Verdict::Delivered,
        Outcome::Gone => return Verdict::GivenUp,
        Outcome::Failed(asked) => *asked,
    };
    let deadline = delivery.since.saturating_add(policy.max_age);
    if now >= deadline {
        return Verdict::GivenUp;
    }
    let wait = wait(policy, delivery.attempts, chance).max(asked.unwrap_or(0).min(LONGEST));
    // The last try is at the end of its life, not some time before.
    Verdict::Again(now.saturating_add(wait).min(deadline))
}

/// The wait after so many failures before this one: between a half and the whole of what the policy says.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "waits are at most an hour")]
fn wait(policy: &RetryPolicy, failures: u32, chance: f64) -> Micros {
    let exponent = i32::try_from(failures.min(1_000)).unwrap_or(1_000);
    let whole = (policy.first as f64 * policy.factor.powi(exponent)).min(LONGEST as f64);
    (whole * f64::midpoint(1.0, chance)) as Micros
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { first: SECOND, factor: 2.0, max_age: 86_400 * SECOND };

    fn delivery(attempts: u32) -> Delivery {
        Delivery {
            number: 1,
            id: "msg_1".into(),
            sink: "page".into(),
            created_at: 0,
            row_time: 0,
            event_id: None,
            body: Vec::new(),
            state: cornjacket_core::delivery::DeliveryState::Pending,
            since: 0,
            attempts,
            next_at: 0,
            last_at: None,
            last_status: None,
            last_error: None,
            settled_at: None,
        }
    }

    fn after(attempts: u32, now: Micros, chance: f64, asked: Option<Micros>) -> Verdict {
        verdict(&Outcome::Failed(asked), &delivery(attempts), &POLICY, now, chance)
    }

    #[test]
    fn waits_grow_and_are_spread_and_end_at_the_age() {
        let waits: Vec<Verdict> = [0, 1, 2, 11, 12, 400].map(|attempts| after(attempts, 0, 1.0, None)).to_vec();
        let expected = [1, 2, 4, 2_048, 3_600, 3_600].map(|seconds| Verdict::Again(seconds * SECOND));
        assert_eq!(waits, expected);
        assert_eq!(after(3, 0, 0.0, None), Verdict::Again(4 * SECOND));
        assert_eq!(after(30, 86_399 * SECOND, 1.0, None), Verdict::Again(86_400 * SECOND));
        assert_eq!(after(30, 86_400 * SECOND, 1.0, None), Verdict::GivenUp);
    }

    #[test]
    fn what_the_receiver_says_counts() {
        let said = |outcome| verdict(&outcome, &delivery(0), &POLICY, 0, 1.0);
        assert_eq!(said(Outcome::Taken), Verdict::Delivered);
        assert_eq!(said(Outcome::Gone), Verdict::GivenUp);
        assert_eq!(said(Outcome::Failed(Some(90 * SECOND))), Verdict::Again(90 * SECOND));
        assert_eq!(said(Outcome::Failed(Some(90_000 * SECOND))), Verdict::Again(LONGEST));
        assert_eq!(said(Outcome::Failed(Some(Micros::MAX))), Verdict::Again(LONGEST));
        // What is over, or shorter than the wait would be, changes nothing.
        assert_eq!(said(Outcome::Failed(Some(0))), Verdict::Again(SECOND));
    }
}
