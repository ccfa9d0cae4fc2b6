//! Identities: event ids, and the partition that an aggregate's events belong to.

use std::fmt;

use uuid::{Builder, Uuid};

use crate::time::Micros;

/// An event's UUID: version 7 where we assign it, the client's own where it sends one, and version 8 (a hash) for
/// every other identity a client may give.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// A version 7 id for an event taken in at `now`, with 10 bytes of randomness.
    #[must_use]
    pub fn v7(now: Micros, random: &[u8; 10]) -> Self {
        let millis = u64::try_from(now / 1_000).unwrap_or(0);
        Self(Builder::from_unix_timestamp_millis(millis, random).into_uuid().into_bytes())
    }

    /// A version 8 id from the first 16 bytes of a hash of a client's own identity.
    #[must_use]
    pub fn v8(hash: [u8; 16]) -> Self {
        Self(Builder::from_custom_bytes(hash).into_uuid().into_bytes())
    }

    /// Reads the hyphenated form (36 characters), in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        Uuid::try_parse(text).ok().map(|uuid| Self(uuid.into_bytes()))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The partition of an aggregate: `murmur2(aggregate_id) mod partitions`, as Kafka's default partitioner has it, so
/// that every Kafka client agrees with us.
#[must_use]
pub fn partition_of(aggregate_id: &[u8], partitions: u32) -> u32 {
    (murmur2(aggregate_id) & 0x7fff_ffff) % partitions.max(1)
}

/// `MurmurHash2` with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`). Also used to route rows by key:
/// it must never change, since stored state is laid out by it.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Kafka's length is a Java int; longer keys than 4 GiB cannot occur.
    #[allow(clippy::cast_possible_truncation)]
    let mut hash = SEED ^ (bytes.len() as u32);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafka() {
        // The vectors of Kafka's own UtilsTest (Apache Kafka, clients module).
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, expected) in vectors {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text}");
        }
    }

    #[test]
    fn ids_have_their_version_and_text_form() {
        let id = EventId::v7(1_767_225_610_000_000, &[7; 10]);
        let text = id.to_string();
        assert_eq!(text.as_bytes()[14], b'7');
        assert_eq!(EventId::parse(&text), Some(id));
        assert_eq!(EventId::v8([0xff; 16]).to_string().as_bytes()[14], b'8');
        assert_eq!(EventId::parse("not a uuid"), None);
    }
}
