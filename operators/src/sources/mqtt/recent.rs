//! What was stored a short time ago, so that a device which sends it again does not make a second event.
//!
//! A device sends a QoS 1 publish again, with DUP set, when it saw no PUBACK. Here is what each client's packet id stood
//! for when it was last stored. An id that has a new meaning forgets the old one, so only what is the very same is found.
//! Marks are stored in one commit with their events, and read back at the start: this holds over a crash as well.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// How long a publish is known.
const MAX_AGE: Duration = Duration::from_mins(10);
/// How many are known at most, over all clients; about 100 bytes each.
const MAX_COUNT: usize = 200_000;

type Hash = [u8; 16];

/// The publishes that were stored last.
#[derive(Default)]
pub(super) struct Recent(Mutex<State>);

#[derive(Default)]
struct State {
    /// By client and packet id.
    known: HashMap<(u64, u16), (Hash, Instant)>,
    /// In the order in which they were stored; those that were replaced since are still in it.
    order: VecDeque<((u64, u16), Instant)>,
}

/// A client's packet id and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    key: (u64, u16),
    content: Hash,
}

impl Mark {
    /// The mark of a publish.
    pub fn new(client: &str, packet_id: u16, topic: &str, payload: &[u8]) -> Self {
        let client = Sha256::digest(client.as_bytes());
        let content = Sha256::new().chain_update(topic.len().to_be_bytes()).chain_update(topic).chain_update(payload);
        let (mut id, mut hash) = ([0; 8], [0; 16]);
        id.copy_from_slice(&client[..8]);
        hash.copy_from_slice(&content.finalize()[..16]);
        Self { key: (u64::from_be_bytes(id), packet_id), content: hash }
    }
}

/// What was received and is not stored yet, by packet id.
#[derive(Default)]
pub(super) struct Pending(HashMap<u16, Option<Hash>>);

impl Pending {
    /// Adds a publish of that id; one that no source takes has no mark.
    pub fn add(&mut self, packet_id: u16, mark: Option<&Mark>) {
        self.0.insert(packet_id, mark.map(|mark| mark.content));
    }

    /// Whether anything has this id.
    pub fn has_id(&self, packet_id: u16) -> bool {
        self.0.contains_key(&packet_id)
    }

    /// Whether this very publish is among them.
    pub fn has(&self, mark: &Mark) -> bool {
        self.0.get(&mark.key.1) == Some(&Some(mark.content))
    }

    /// How many want an acknowledgement.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Bytes of a mark as it is stored.
const MARK_BYTES: usize = 26;

impl Mark {
    /// Puts it at the end of what is stored with its event.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.key.0.to_le_bytes());
        to.extend_from_slice(&self.key.1.to_le_bytes());
        to.extend_from_slice(&self.content);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (client, rest) = bytes.split_first_chunk()?;
        let (packet_id, content) = rest.split_first_chunk()?;
        let key = (u64::from_le_bytes(*client), u16::from_le_bytes(*packet_id));
        Some(Self { key, content: content.try_into().ok()? })
    }
}

impl Recent {
    /// What was stored before this process began; the newest comes first.
    pub fn restore(records: &[Vec<u8>]) -> Self {
        let recent = Self::default();
        for record in records.iter().rev() {
            record.chunks_exact(MARK_BYTES).filter_map(Mark::read).for_each(|mark| recent.remember(mark));
        }
        recent
    }

    /// Whether this very publish was stored a short time ago.
    pub fn has(&self, mark: &Mark) -> bool {
        self.has_at(mark, Instant::now())
    }

    fn has_at(&self, mark: &Mark, now: Instant) -> bool {
        let state = self.0.lock();
        let is_same = |(hash, at): &(Hash, Instant)| *hash == mark.content && now.duration_since(*at) < MAX_AGE;
        state.known.get(&mark.key).is_some_and(is_same)
    }

    /// Remembers that a publish is stored.
    pub fn remember(&self, mark: Mark) {
        self.remember_at(mark, Instant::now());
    }

    fn remember_at(&self, mark: Mark, now: Instant) {
        let mut state = self.0.lock();
        state.known.insert(mark.key, (mark.content, now));
        state.order.push_back((mark.key, now));
        while let Some((key, at)) = state.order.front().copied() {
            if state.order.len() <= MAX_COUNT && now.duration_since(at) < MAX_AGE {
                break;
            }
            state.order.pop_front();
            if state.known.get(&key).is_some_and(|(_, known)| *known == at) {
                state.known.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_known_for_a_while_and_another_meaning_replaces_it() {
        let recent = Recent::default();
        let mark = |client, id, body: &str| Mark::new(client, id, "t", body.as_bytes());
        recent.remember(mark("a", 1, "x"));
        assert!(recent.has(&mark("a", 1, "x")));
        for other in [mark("b", 1, "x"), mark("a", 2, "x"), mark("a", 1, "y"), Mark::new("a", 1, "u", b"x")] {
            assert!(!recent.has(&other));
        }
        recent.remember(mark("a", 1, "y"));
        assert!(!recent.has(&mark("a", 1, "x")));
        let later = Instant::now() + MAX_AGE;
        assert!(!recent.has_at(&mark("a", 1, "y"), later));
        recent.remember_at(mark("c", 1, "z"), later);
        assert_eq!(recent.0.lock().order.len(), 1);
        assert_eq!(recent.0.lock().known.len(), 1);
    }

    #[test]
    fn marks_outlive_the_process() {
        let marks = ["x", "y", "z"].map(|body| Mark::new("a", 1, "t", body.as_bytes()));
        let other = Mark::new("b", 9, "t", b"x");
        let record = |marks: &[Mark]| {
            let mut bytes = Vec::new();
            for mark in marks {
                mark.write(&mut bytes);
            }
            bytes
        };
        let recent = Recent::restore(&[record(&marks[2..]), record(&[marks[0], other, marks[1]])]);
        assert!(recent.has(&marks[2]) && recent.has(&other));
        assert!(!recent.has(&marks[0]) && !recent.has(&marks[1]), "the id stands for the newest only");
        assert!(Mark::read(b"short").is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let recent = Recent::default();
        for number in 0..=(MAX_COUNT as u64) {
            recent.remember(Mark { key: (number, 1), content: [0; 16] });
        }
        assert_eq!(recent.0.lock().known.len(), MAX_COUNT);
    }
}
