//! Dead letters of the simulated store.

use cornjacket_core::Result;
use cornjacket_core::dead_letter::{DeadLetter, DeadLetters, LetterFilter, LetterState, StoredDeadLetter};
use cornjacket_core::time::Micros;

use super::State;
use super::store::SimStore;

pub(super) fn add_letter(state: &mut State, letter: &DeadLetter, now: Micros) {
    let is_same = |stored: &StoredDeadLetter| {
        letter.is_placed && stored.letter.place == letter.place && stored.letter.source == letter.source
    };
    if !state.dead_letters.iter().any(is_same) {
        let id = state.dead_letters.last().map_or(1, |last| last.id + 1);
        state.dead_letters.push(StoredDeadLetter {
            id,
            recorded_at: now,
            version: String::new(),
            state: LetterState::Open,
            settled_at: None,
            letter: letter.clone(),
        });
    }
}

fn fits(filter: &LetterFilter, stored: &StoredDeadLetter) -> bool {
    let is = |wanted: &Option<String>, text: Option<&String>| wanted.is_none() || wanted.as_ref() == text;
    is(&filter.reason, Some(&stored.letter.reason))
        && is(&filter.source, Some(&stored.letter.source))
        && is(&filter.event_id, stored.letter.event_id.as_ref())
        && filter.state.is_none_or(|state| state == stored.state)
        && filter.from.is_none_or(|from| stored.recorded_at >= from)
        && filter.to.is_none_or(|to| stored.recorded_at < to)
        && filter.before.is_none_or(|before| stored.id < before)
}

impl DeadLetters for SimStore {
    fn add_dead_letters(&self, now: Micros, letters: &[DeadLetter]) -> Result<()> {
        self.process.call("add_dead_letters", |state| {
            for letter in letters {
                add_letter(state, letter, now);
            }
            Ok(())
        })
    }

    fn dead_letters(&self, filter: &LetterFilter, limit: u64) -> Result<Vec<StoredDeadLetter>> {
        self.process.call("dead_letters", |state| {
            let take = usize::try_from(limit).unwrap_or(usize::MAX);
            let newest = state.dead_letters.iter().rev().filter(|stored| fits(filter, stored));
            Ok(newest.take(take).cloned().collect())
        })
    }

    fn dead_letter(&self, id: i64) -> Result<Option<StoredDeadLetter>> {
        self.process.call("dead_letter", |state| Ok(state.dead_letters.iter().find(|stored| stored.id == id).cloned()))
    }

    fn settle_dead_letter(&self, id: i64, to: LetterState, now: Micros) -> Result<bool> {
        self.process.call("settle_dead_letter", |state| {
            let open = |stored: &&mut StoredDeadLetter| stored.id == id && stored.state == LetterState::Open;
            let found = state.dead_letters.iter_mut().find(open);
            Ok(found.is_some_and(|stored| {
                (stored.state, stored.settled_at) = (to, Some(now));
                true
            }))
        })
    }

    fn forget_dead_letters(&self, before: Micros, max: u64) -> Result<u64> {
        self.process.call("forget_dead_letters", |state| {
            let is_over = |stored: &StoredDeadLetter| stored.state != LetterState::Open && stored.recorded_at < before;
            let mut forgotten = 0;
            for stored in state.dead_letters.extract_if(.., |stored| {
                let goes = forgotten < max && is_over(stored);
                forgotten += u64::from(goes);
                goes
            }) {
                *state.counters.entry((stored.letter.source, "letters_forgotten".into())).or_default() += 1;
            }
            Ok(forgotten)
        })
    }
}
