//! What was stored and perhaps not yet acknowledged, so that a message which the broker sends again is not stored twice.
//!
//! The broker sends a message again, with DUP set and the packet id it had, when the connection broke before it saw the
//! PUBACK. So each stored message is remembered by its packet id and a hash of topic and payload. That is a **mark**.
//!
//! Packet ids are used again for other messages, and devices say the same thing twice. A mark that outlived its
//! acknowledgement could make a new message look like an old one, and lose it. So a mark is forgotten as soon as the broker
//! is known to have the PUBACK: it answers a ping that was sent after it. What is left are the marks of the last seconds.
//!
//! Marks survive the process: those of a bundle are stored in one commit with its events (as a **record**), which also
//! says up to which number marks are settled. The marks from there on, out of all records, are those that count.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

/// The first bytes of a record.
const MAGIC: &[u8; 4] = b"MQR1";
const HEAD: usize = 4 + 8 + 8 + 4;
const ENTRY: usize = 2 + HASH;
const HASH: usize = 16;

/// What a message says, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content([u8; HASH]);

impl Content {
    /// Of a message.
    pub fn of(topic: &[u8], payload: &[u8]) -> Self {
        let whole = Sha256::new().chain_update(topic.len().to_be_bytes()).chain_update(topic).chain_update(payload);
        let mut hash = [0; HASH];
        hash.copy_from_slice(&whole.finalize()[..HASH]);
        Self(hash)
    }
}

/// A message that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Marks are numbered in the order in which their messages were stored.
    pub number: u64,
    pub packet_id: u16,
}

/// The marks that count. There are never more than there are packet ids.
#[derive(Debug, Default)]
pub(super) struct Recall {
    by_packet: HashMap<u16, (u64, Content)>,
    /// The packet ids by the numbers of their marks, so that the least number is at hand.
    by_number: BTreeMap<u64, u16>,
    next: u64,
}

impl Recall {
    /// The marks that records left, in whatever order they come.
    pub fn restore(records: &[Vec<u8>]) -> Self {
        let mut entries = Vec::new();
        let (mut settled, mut next) = (0, 0);
        for record in records {
            let mut rest = record.as_slice();
            while let Some((head, found, after)) = read(rest) {
                settled = settled.max(head.settled);
                next = next.max(head.first + found.len() as u64);
                entries.extend((head.first..).zip(found));
                rest = after;
            }
        }
        entries.retain(|(number, _)| *number >= settled);
        entries.sort_unstable_by_key(|(number, _)| *number);
        let mut recall = Self::default();
        for (number, (packet_id, content)) in entries {
            recall.insert(packet_id, number, content);
        }
        recall.next = next;
        recall
    }

    /// Of marks with the same packet id the last one counts.
    fn insert(&mut self, packet_id: u16, number: u64, content: Content) {
        if let Some((replaced, _)) = self.by_packet.insert(packet_id, (number, content)) {
            self.by_number.remove(&replaced);
        }
        self.by_number.insert(number, packet_id);
    }

    /// The mark of a message that is there already.
    pub fn find(&self, packet_id: u16, content: Content) -> Option<Mark> {
        let (number, known) = self.by_packet.get(&packet_id)?;
        (*known == content).then_some(Mark { number: *number, packet_id })
    }

    /// Remembers a message; what its packet id stood for before is forgotten.
    pub fn remember(&mut self, packet_id: u16, content: Content) -> Mark {
        let number = self.next;
        self.next += 1;
        self.insert(packet_id, number, content);
        Mark { number, packet_id }
    }

    /// The broker has the acknowledgements of these.
    pub fn settle(&mut self, marks: &[Mark]) {
        for mark in marks {
            // The packet id may have got another mark since.
            if self.by_number.remove(&mark.number).is_some() {
                self.by_packet.remove(&mark.packet_id);
            }
        }
    }

    /// The broker has a new session for us, in which packet ids mean something else.
    pub fn forget(&mut self) {
        self.by_packet.clear();
        self.by_number.clear();
    }

    /// Up to which number every mark is settled.
    pub fn settled(&self) -> u64 {
        self.by_number.keys().next().copied().unwrap_or(self.next)
    }

    /// Marks from before a number are settled as well, but for those whose acknowledgement is still under way.
    pub fn settle_before(&mut self, number: u64, under_way: &HashSet<u64>) {
        self.by_packet.retain(|_, (known, _)| *known >= number || under_way.contains(known));
        self.by_number.retain(|known, _| *known >= number || under_way.contains(known));
    }

    /// The number of the next mark.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The record of messages that were remembered one after the other, up to the last one.
    pub fn record(&self, messages: &[(Mark, Content)]) -> Vec<u8> {
        let first = messages.first().map_or(self.next, |(mark, _)| mark.number);
        let mut bytes = Vec::with_capacity(HEAD + messages.len() * ENTRY);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.settled().to_le_bytes());
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(messages.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (mark, Content(hash)) in messages {
            bytes.extend_from_slice(&mark.packet_id.to_le_bytes());
            bytes.extend_from_slice(hash);
        }
        bytes
    }
}

/// The head of a record.
struct Head {
    settled: u64,
    first: u64,
}

/// A record's head and its messages, and what comes after it. `None` at the end, and where it is no record.
fn read(bytes: &[u8]) -> Option<(Head, Vec<(u16, Content)>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let rest_of_head = head.strip_prefix(MAGIC)?;
    let number = |at: usize| Some(u64::from_le_bytes(rest_of_head.get(at..at + 8)?.try_into().ok()?));
    let count = u32::from_le_bytes(rest_of_head.get(16..)?.try_into().ok()?);
    let (entries, after) = rest.split_at_checked(usize::try_from(count).ok()?.checked_mul(ENTRY)?)?;
    let entry = |bytes: &[u8; ENTRY]| {
        let mut hash = [0; HASH];
        hash.copy_from_slice(&bytes[2..]);
        (u16::from_le_bytes([bytes[0], bytes[1]]), Content(hash))
    };
    let found = entries.as_chunks::<ENTRY>().0.iter().map(entry).collect();
    Some((Head { settled: number(0)?, first: number(8)? }, found, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> Content {
        Content::of(b"t", text.as_bytes())
    }

    /// Remembers messages, and gives the record that is stored with them.
    fn store(recall: &mut Recall, messages: &[(u16, &str)]) -> Vec<u8> {
        let marks: Vec<_> =
            messages.iter().map(|(id, text)| (recall.remember(*id, content(text)), content(text))).collect();
        recall.record(&marks)
    }

    #[test]
    fn what_is_the_very_same_is_found() {
        let mut recall = Recall::default();
        store(&mut recall, &[(1, "a"), (2, "b")]);
        assert!(recall.find(1, content("a")).is_some());
        assert_eq!(recall.find(1, content("b")), None);
        assert_eq!(recall.find(3, content("a")), None);
        assert_eq!(recall.find(1, Content::of(b"ta", b"")), None);
        // The packet id stands for something else now.
        store(&mut recall, &[(1, "c")]);
        assert_eq!(recall.find(1, content("a")), None);
        assert!(recall.find(1, content("c")).is_some());
    }

    #[test]
    fn marks_survive_by_their_records_until_they_are_settled() {
        let mut recall = Recall::default();
        let first = store(&mut recall, &[(1, "a"), (2, "b")]);
        let second = store(&mut recall, &[(3, "c")]);
        // The newest comes first, and two may be one.
        let again = Recall::restore(&[second.clone(), first.clone()]);
        assert_eq!(again.find(2, content("b")), recall.find(2, content("b")));
        let mut joined = first.clone();
        joined.extend_from_slice(&second);
        let again = Recall::restore(&[joined]);
        assert_eq!(again.by_packet, recall.by_packet);
        assert_eq!(again.next(), 3);

        let marks = [recall.find(1, content("a")), recall.find(2, content("b"))];
        recall.settle(&marks.map(|mark| mark.expect("a mark")));
        let third = store(&mut recall, &[(1, "d")]);
        let again = Recall::restore(&[third, second, first]);
        assert_eq!(again.by_packet, recall.by_packet);
        assert_eq!(again.find(2, content("b")), None);
        assert!(again.find(3, content("c")).is_some() && again.find(1, content("d")).is_some());
    }

    #[test]
    fn an_old_acknowledgement_does_not_settle_the_packet_ids_new_meaning() {
        let mut recall = Recall::default();
        let old = recall.remember(1, content("a"));
        let new = recall.remember(1, content("b"));
        recall.settle(&[old]);
        assert_eq!(recall.find(1, content("b")), Some(new));
    }

    #[test]
    fn what_an_earlier_connection_left_is_settled_unless_it_is_under_way() {
        let mut recall = Recall::default();
        store(&mut recall, &[(1, "a"), (2, "b")]);
        let before = recall.next();
        store(&mut recall, &[(3, "c")]);
        recall.settle_before(before, &HashSet::from([1]));
        assert_eq!(recall.find(1, content("a")), None);
        assert!(recall.find(2, content("b")).is_some() && recall.find(3, content("c")).is_some());
        recall.forget();
        assert_eq!((recall.settled(), recall.by_packet.len()), (3, 0));
        // The next record tells that to those who come after.
        let record = store(&mut recall, &[(9, "z")]);
        assert_eq!(Recall::restore(&[record]).by_packet.len(), 1);
    }

    #[test]
    fn what_is_no_record_is_left_alone() {
        let mut recall = Recall::default();
        let record = store(&mut recall, &[(1, "a")]);
        for broken in [&b""[..], b"MQR1", b"nonsense that is long enough for a head", &record[..record.len() - 1]] {
            assert_eq!(Recall::restore(&[broken.to_vec()]).by_packet.len(), 0);
        }
    }
}
