//! Deliveries of the simulated store.

use cornjacket_core::Result;
use cornjacket_core::dead_letter::{DeadLetter, LetterState, StoredDeadLetter};
use cornjacket_core::delivery::{
    Attempt, Deliveries, Delivery, DeliveryFilter, DeliveryState, LATEST, NewDelivery, Turn, Verdict,
};
use cornjacket_core::time::Micros;

use super::State;
use super::letters::add_letter;
use super::store::SimStore;
use crate::given_up;

/// Writes a delivery unless it is there or kept away, and counts it as what it is.
pub(super) fn add_delivery(state: &mut State, delivery: &NewDelivery, now: Micros) {
    let NewDelivery { id, sink, trigger } = delivery;
    let key = trigger.dedupe.as_ref().map(|dedupe| (sink.clone(), dedupe.key.clone()));
    let sent = key.as_ref().and_then(|key| state.delivery_keys.get(key)).copied();
    let is_covered =
        trigger.dedupe.as_ref().zip(sent).is_some_and(|(dedupe, (at, _))| dedupe.covers(at, trigger.row_time));
    if state.deliveries.iter().any(|stored| stored.id == *id) {
        return count(state, sink, "superseded", 1);
    }
    if is_covered {
        return count(state, sink, "suppressed", 1);
    }
    if let Some((key, dedupe)) = key.zip(trigger.dedupe.as_ref()) {
        let (time, until) = (trigger.row_time, trigger.row_time.saturating_add(dedupe.window));
        let last = state.delivery_keys.entry(key).or_insert((time, until));
        *last = (time.max(last.0), until.max(last.1));
    }
    state.deliveries.push(Delivery {
        number: state.deliveries.last().map_or(1, |last| last.number + 1),
        id: id.clone(),
        sink: sink.clone(),
        created_at: now,
        row_time: trigger.row_time,
        event_id: trigger.event_id.clone(),
        body: trigger.body.clone(),
        state: DeliveryState::Pending,
        since: now,
        attempts: 0,
        next_at: now,
        last_at: None,
        last_status: None,
        last_error: None,
        settled_at: None,
    });
    count(state, sink, "pending", 1);
}

fn count(state: &mut State, sink: &str, what: &str, by: i64) {
    *state.counters.entry((sink.into(), what.into())).or_default() += by;
}

/// What a delivery in this state counts as.
fn counter(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "pending",
        DeliveryState::Delivered => "written",
        DeliveryState::Dead => "dead",
    }
}

fn record(state: &mut State, now: Micros, attempt: &Attempt) {
    let is_it = |stored: &&mut Delivery| {
        let is_open = stored.number == attempt.number && stored.state == DeliveryState::Pending;
        let counts = attempt.verdict == Verdict::Delivered || stored.since <= attempt.at;
        is_open && counts && stored.last_at != Some(attempt.at)
    };
    let Some(stored) = state.deliveries.iter_mut().find(is_it) else { return };
    stored.attempts += 1;
    (stored.last_at, stored.last_status) = (Some(attempt.at), attempt.status);
    stored.last_error.clone_from(&attempt.error);
    match attempt.verdict {
        Verdict::Again(at) => {
            stored.next_at = at;
            return;
        }
        Verdict::Delivered => stored.state = DeliveryState::Delivered,
        Verdict::GivenUp => stored.state = DeliveryState::Dead,
    }
    stored.settled_at = Some(now);
    let settled = stored.clone();
    count(state, &settled.sink, "pending", -1);
    count(state, &settled.sink, counter(settled.state), 1);
    if settled.state == DeliveryState::Dead {
        add_letter(state, &given_up(&settled), now);
    }
}

fn fits(filter: &DeliveryFilter, stored: &Delivery) -> bool {
    filter.sink.as_ref().is_none_or(|sink| *sink == stored.sink)
        && filter.state.is_none_or(|state| state == stored.state)
        && (filter.event_id.is_none() || filter.event_id == stored.event_id)
        && filter.before.is_none_or(|before| stored.number < before)
}

fn most(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

impl Deliveries for SimStore {
    fn pending(&self, sink: &str, turn: Turn, limit: u64) -> Result<Vec<Delivery>> {
        self.process.call("pending", |state| {
            let is_wanted = |stored: &&Delivery| stored.sink == sink && stored.state == DeliveryState::Pending;
            let mut found: Vec<Delivery> = state.deliveries.iter().filter(is_wanted).cloned().collect();
            if turn == Turn::Due {
                found.sort_by_key(|stored| (stored.next_at, stored.number));
            }
            found.truncate(most(limit));
            Ok(found)
        })
    }

    fn record_attempts(&self, now: Micros, attempts: &[Attempt]) -> Result<()> {
        self.process.call("record_attempts", |state| {
            for attempt in attempts {
                record(state, now, attempt);
            }
            Ok(())
        })
    }

    fn attempts_since(&self, sink: &str, since: Micros, limit: u64) -> Result<Vec<Micros>> {
        self.process.call("attempts_since", |state| {
            let of_sink = state.deliveries.iter().filter(|stored| stored.sink == sink);
            let mut times: Vec<Micros> = of_sink.filter_map(|stored| stored.last_at.filter(|at| *at > since)).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            times.truncate(most(limit));
            Ok(times)
        })
    }

    fn deliveries(&self, filter: &DeliveryFilter, limit: u64) -> Result<Vec<Delivery>> {
        self.process.call("deliveries", |state| {
            let newest = state.deliveries.iter().rev().filter(|stored| fits(filter, stored));
            Ok(newest.take(most(limit)).cloned().collect())
        })
    }

    fn delivery(&self, id: &str) -> Result<Option<Delivery>> {
        self.process.call("delivery", |state| Ok(state.deliveries.iter().find(|stored| stored.id == id).cloned()))
    }

    fn redeliver(&self, id: &str, now: Micros) -> Result<bool> {
        self.process.call("redeliver", |state| {
            let Some(stored) = state.deliveries.iter_mut().find(|stored| stored.id == id) else { return Ok(false) };
            let (sink, was) = (stored.sink.clone(), stored.state);
            stored.state = DeliveryState::Pending;
            (stored.since, stored.next_at, stored.attempts, stored.settled_at) = (now, now, 0, None);
            count(state, &sink, counter(was), -1);
            count(state, &sink, "pending", 1);
            let is_its = |letter: &DeadLetter| letter.reason == "webhook" && letter.place.as_deref() == Some(id);
            let open = |stored: &&mut StoredDeadLetter| stored.state == LetterState::Open && is_its(&stored.letter);
            for stored in state.dead_letters.iter_mut().filter(open) {
                (stored.state, stored.settled_at) = (LetterState::Replayed, Some(now));
            }
            Ok(true)
        })
    }

    fn forget_deliveries(&self, before: Micros, max: u64) -> Result<u64> {
        self.process.call("forget_deliveries", |state| {
            let mut forgotten = 0;
            state.deliveries.retain(|stored| {
                let goes = forgotten < max && stored.settled_at.is_some_and(|at| at < before);
                forgotten += u64::from(goes);
                !goes
            });
            let newest = |sink: &str| {
                let own = state.delivery_keys.iter().filter(|((other, _), _)| other == sink);
                own.map(|(_, (time, _))| *time).max().unwrap_or(Micros::MIN)
            };
            let past =
                |((sink, _), (_, until)): &(&(String, String), &(Micros, Micros))| *until < newest(sink) - LATEST;
            let past: Vec<_> = state.delivery_keys.iter().filter(past).map(|(key, _)| key.clone()).collect();
            for key in past {
                state.delivery_keys.remove(&key);
            }
            Ok(forgotten)
        })
    }
}
