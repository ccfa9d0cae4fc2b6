//! The index of the log's blocks, in memory: made from the blocks' footers when the log is opened, never from bodies.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use cornjacket_core::log::{Positions, TopicPartition};
use cornjacket_core::time::Micros;

use crate::block::Footer;

/// What is known of a block without reading it.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) first_at: Micros,
    pub(super) last_at: Micros,
    pub(super) bytes: usize,
    pub(super) footer: Arc<Footer>,
}

/// A block's rows, decoded, by event type.
pub(super) type Decoded = Arc<BTreeMap<String, RecordBatch>>;

/// Blocks by their sequence number, and where each partition's offsets begin in them.
#[derive(Default)]
pub(super) struct Index {
    pub(super) blocks: BTreeMap<i64, Block>,
    /// For each partition the offset after a block's last row and the block, in order.
    ends: HashMap<TopicPartition, Vec<(i64, i64)>>,
    pub(super) end: Positions,
    /// Where the partitions begin of which retention has deleted the oldest events.
    pub(super) begin: Positions,
    /// Compaction has done with the blocks before this one, so a long log is not looked through again and again.
    pub(super) settled: i64,
    tail: Tail,
}

/// The newest blocks, kept decoded so that who reads at the end of the log decodes nothing.
#[derive(Default)]
struct Tail {
    blocks: VecDeque<(i64, Decoded, usize)>,
    bytes: usize,
}

/// Bytes of decoded blocks that are kept.
const TAIL_BYTES: usize = 64 * 1024 * 1024;

impl Index {
    /// An index without blocks, of partitions that begin there.
    pub(super) fn start(&mut self, begin: &Positions) {
        self.blocks.clear();
        self.ends.clear();
        self.set_begin(begin);
    }

    /// Takes blocks out and puts others in their own places.
    pub(super) fn forget(&mut self, gone: &[i64], changed: Vec<(i64, Block)>, begin: &Positions) {
        for seq in gone {
            self.blocks.remove(seq);
        }
        self.blocks.extend(changed);
        // What is left of large blocks may be small.
        self.settled = 0;
        self.set_begin(begin);
        self.index_again();
    }

    /// A position, but nowhere before the beginning.
    pub(super) fn beginning(&self, from: &Positions) -> Positions {
        let mut from = from.clone();
        for (at, begin) in &self.begin.0 {
            let later = from.get(at).max(*begin);
            from.0.insert(at.clone(), later);
        }
        from
    }

    /// A partition does not end before it begins, also when it has no block.
    fn set_begin(&mut self, begin: &Positions) {
        for (at, offset) in &begin.0 {
            self.begin.0.insert(at.clone(), *offset);
            let end = self.end.get(at).max(*offset);
            self.end.0.insert(at.clone(), end);
        }
    }

    pub(super) fn add(&mut self, seq: i64, block: Block) {
        for (at, end) in block.footer.ends() {
            let reached = self.end.get(&at).max(end);
            self.end.0.insert(at.clone(), reached);
            self.ends.entry(at).or_default().push((end, seq));
        }
        self.blocks.insert(seq, block);
    }

    /// Puts one block in the place of several that follow one another; its number is the first one's.
    pub(super) fn replace(&mut self, old: &[i64], block: Block) {
        let (Some(first), Some(last)) = (old.first(), old.last()) else { return };
        for seq in old {
            self.blocks.remove(seq);
        }
        // Blocks stand in the order of their numbers and of their offsets.
        for (at, end) in block.footer.ends() {
            let ends = self.ends.entry(at).or_default();
            let from = ends.partition_point(|(_, seq)| seq < first);
            let to = ends.partition_point(|(_, seq)| seq <= last);
            ends.splice(from..to, [(end, *first)]);
        }
        self.blocks.insert(*first, block);
    }

    fn index_again(&mut self) {
        self.ends.clear();
        let blocks = std::mem::take(&mut self.blocks);
        for (seq, block) in blocks {
            self.add(seq, block);
        }
    }

    pub(super) fn keep(&mut self, seq: i64, decoded: Decoded, bytes: usize) {
        self.tail.blocks.push_back((seq, decoded, bytes));
        self.tail.bytes += bytes;
        while self.tail.bytes > TAIL_BYTES && self.tail.blocks.len() > 1 {
            if let Some((_, _, bytes)) = self.tail.blocks.pop_front() {
                self.tail.bytes -= bytes;
            }
        }
    }

    pub(super) fn decoded(&self, seq: i64) -> Option<Decoded> {
        let (first, _, _) = self.tail.blocks.front()?;
        if seq < *first {
            return None;
        }
        self.tail.blocks.iter().find(|(at, _, _)| *at == seq).map(|(_, decoded, _)| Arc::clone(decoded))
    }

    /// Decoded blocks that compaction has merged away are of no use.
    pub(super) fn forget_before(&mut self, seq: i64) {
        while self.tail.blocks.front().is_some_and(|(at, _, _)| *at < seq) {
            if let Some((_, _, bytes)) = self.tail.blocks.pop_front() {
                self.tail.bytes -= bytes;
            }
        }
    }

    /// The first block with a row beyond the position and before `until`, if there is one.
    pub(super) fn first_beyond(&self, position: &Positions, until: Option<&Positions>) -> Option<i64> {
        let first = |(at, ends): (&TopicPartition, &Vec<(i64, i64)>)| {
            let from = position.get(at);
            if until.is_some_and(|until| from >= until.get(at)) {
                return None;
            }
            let index = ends.partition_point(|(end, _)| *end <= from);
            ends.get(index).map(|(_, seq)| *seq)
        };
        self.ends.iter().filter_map(first).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Span, TypeIndex};

    const TOPIC: &str = "system-events";

    fn at() -> TopicPartition {
        TopicPartition { topic: TOPIC.into(), partition: 0 }
    }

    fn until(offset: i64) -> Positions {
        Positions([(at(), offset)].into())
    }

    /// A block of one partition: the first and last offset of each type in it.
    fn block(types: &[(&str, i64, i64)]) -> Block {
        let index = |(name, first, last): &(&str, i64, i64)| {
            let rows = usize::try_from(last - first + 1).expect("rows");
            let span = Span { partition: 0, row: 0, rows, first: *first, last: *last, offsets: None };
            let event_type = (*name).to_owned();
            TypeIndex { event_type, topic: TOPIC.into(), start: 0, length: 0, spans: vec![span], xxh64: None }
        };
        let footer = Arc::new(Footer { types: types.iter().map(index).collect() });
        Block { first_at: 0, last_at: 0, bytes: 0, footer }
    }

    /// Blocks with two types that share a topic; the one whose name comes first reaches further in the odd ones.
    fn index() -> Index {
        let mut index = Index::default();
        for seq in 0..8 {
            let (first, far, near) = (seq * 10, seq * 10 + 9, seq * 10 + 5);
            let (a, b) = if seq % 2 == 1 { (far, near) } else { (near, far) };
            index.add(seq, block(&[("order.placed", first, a), ("user.created", first + 1, b)]));
        }
        index
    }

    #[test]
    fn every_offset_is_found_in_the_block_that_reaches_beyond_it() {
        let mut index = index();
        for offset in 0..80 {
            assert_eq!(index.first_beyond(&until(offset), None), Some(offset / 10), "{offset}");
        }
        assert_eq!(index.first_beyond(&until(80), None), None);
        // Blocks in the middle are merged, then the merged one with its neighbours.
        let range = |a, b| block(&[("order.placed", a, b), ("user.created", a + 1, b - 3)]);
        index.replace(&[3, 4], range(30, 49));
        index.replace(&[2, 3, 5], range(20, 59));
        let mut whole = Index::default();
        index.blocks.iter().for_each(|(seq, block)| whole.add(*seq, block.clone()));
        for offset in 0..=80 {
            let expected = (offset < 80).then_some(if (20..60).contains(&offset) { 2 } else { offset / 10 });
            assert_eq!(index.first_beyond(&until(offset), None), expected, "{offset}");
            assert_eq!(whole.first_beyond(&until(offset), None), expected, "{offset}");
        }
        assert_eq!(index.end.get(&at()), 80);
    }
}
