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
        for (at, _, last) in block.footer.ranges() {
            let reached = self.end.get(&at).max(last + 1);
            self.end.0.insert(at.clone(), reached);
            self.ends.entry(at).or_default().push((last + 1, seq));
        }
        self.blocks.insert(seq, block);
    }

    /// Puts one block in the place of several that follow one another; its number is the first one's.
    pub(super) fn replace(&mut self, old: &[i64], block: Block) {
        let Some(first) = old.first() else { return };
        for seq in old {
            self.blocks.remove(seq);
        }
        self.blocks.insert(*first, block);
        self.index_again();
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
