//! Where an event lies, by its id.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use cornjacket_core::Result;
use cornjacket_core::catalogue::stored;
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Columns, Positions, TopicPartition};

use super::index::{Block, Decoded};
use super::log::Shared;
use crate::block::{Cut, Footer};

impl Shared {
    /// An event whose id we assigned: its id says in which millisecond it was taken in.
    pub(super) fn find_ours(&self, event: EventId) -> Result<Option<(TopicPartition, i64)>> {
        let millis = event.0[..6].iter().fold(0_i64, |value, byte| (value << 8) | i64::from(*byte));
        let (from, to) = (millis * 1_000, millis * 1_000 + 999);
        let near = |block: &Block| block.first_at <= to && block.last_at >= from;
        let candidates: Vec<(i64, Arc<Footer>)> = {
            let index = self.index.lock();
            let blocks = index.blocks.iter().rev().filter(|(_, block)| near(block));
            blocks.map(|(seq, block)| (*seq, Arc::clone(&block.footer))).collect()
        };
        let types = self.catalogue.types.keys().map(|name| (name.clone(), vec![stored::EVENT_ID])).collect();
        let columns = Columns::Only(types);
        let from = Positions::default();
        let cut = Cut { from: &from, until: None, columns: &columns, catalogue: &self.catalogue };
        for (seq, footer) in candidates {
            let Some(decoded) = self.decode(seq, &footer, &cut)? else { return self.find_ours(event) };
            if let Some(found) = find_in(&footer, &decoded, event) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn find_in(footer: &Footer, decoded: &Decoded, event: EventId) -> Option<(TopicPartition, i64)> {
    footer.types.iter().find_map(|index| {
        let ids = decoded.get(&index.event_type)?.column(stored::EVENT_ID).as_fixed_size_binary();
        let row = (0..ids.len()).find(|row| ids.value(*row) == event.0)?;
        let span = index.spans.iter().find(|span| (span.row..span.row + span.rows).contains(&row))?;
        let at = TopicPartition { topic: index.topic.as_str().into(), partition: span.partition };
        Some((at, span.offsets().value(row - span.row)))
    })
}
