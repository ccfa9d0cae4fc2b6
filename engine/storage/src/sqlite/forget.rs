//! Retention of events: the oldest blocks lose the topics whose time is over, and go when nothing is left in them.
//!
//! What is kept of a block is copied as it is, so that types which the catalogue no longer has are kept as well. Each
//! topic is forgotten from its oldest block on without a gap; where a partition begins since then is stored in the same
//! transaction, and so is how many events went.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cornjacket_core::log::{Positions, TopicPartition};
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};
use rusqlite::{Connection, params};

use super::connection::{named, storage_error};
use super::index::{Block, Index};
use super::log::Shared;
use crate::block::{Footer, TypeIndex};

/// How many blocks one transaction changes at most, so that no append waits long for it.
const BLOCKS: usize = 64;

/// Blocks that lose something.
#[derive(Default)]
struct Plan {
    /// Those that go whole.
    gone: Vec<i64>,
    /// What the others will be, with the footer that they have now.
    changed: Vec<(i64, Block, Arc<Footer>)>,
    /// Where partitions begin then.
    begin: Positions,
    /// How many events go, by type.
    rows: BTreeMap<String, u64>,
}

impl Shared {
    /// Forgets some of what topics took in before a time, below `floor`; says how many events that were.
    pub(super) fn forget(&self, before: &BTreeMap<String, Micros>, floor: &Positions) -> Result<u64> {
        // Compaction would bring back what goes meanwhile.
        let _alone = self.maintenance.lock();
        let plan = plan(&self.index.lock(), before, floor);
        let rows = plan.rows.values().sum();
        if rows > 0 {
            self.carry_out(plan)?;
        }
        Ok(rows)
    }

    fn carry_out(&self, plan: Plan) -> Result<()> {
        let mut changed = Vec::new();
        for (seq, mut block, footer) in plan.changed {
            let Some(body) = self.body(seq, &footer)? else {
                return Err(self.in_block(seq, Error::Corrupt("it is gone".into())));
            };
            let (footer, body) = without(&block.footer, &body);
            (block.bytes, block.footer) = (body.len(), Arc::new(footer));
            changed.push((seq, block, body));
        }
        let mut writer = self.writer.lock();
        self.with_connection(&mut writer)?;
        let Some(connection) = &mut writer.connection else { return Err(Error::Closed) };
        if let Err(error) = store(connection, &plan.gone, &changed, &plan.begin, &plan.rows) {
            writer.is_index_unsure = true;
            writer.connection = None;
            return Err(named(self.place.path(), storage_error(error)));
        }
        self.place.fold(connection);
        let changed = changed.into_iter().map(|(seq, block, _)| (seq, block)).collect();
        self.index.lock().forget(&plan.gone, changed, &plan.begin);
        Ok(())
    }
}

fn plan(index: &Index, before: &BTreeMap<String, Micros>, floor: &Positions) -> Plan {
    let mut plan = Plan::default();
    // A topic goes on only as long as nothing of it stayed.
    let mut over: BTreeSet<&str> = before.keys().map(String::as_str).collect();
    for (seq, block) in &index.blocks {
        if over.is_empty() || plan.gone.len() + plan.changed.len() >= BLOCKS {
            break;
        }
        let stays = |types: &TypeIndex| {
            let is_young = before.get(&types.topic).is_none_or(|before| block.last_at >= *before);
            is_young || spans(types).any(|(at, last)| last >= floor.get(&at))
        };
        for types in block.footer.types.iter().filter(|types| stays(types)) {
            over.remove(types.topic.as_str());
        }
        let (goes, kept): (Vec<_>, Vec<_>) =
            block.footer.types.iter().cloned().partition(|types| over.contains(types.topic.as_str()));
        for types in &goes {
            *plan.rows.entry(types.event_type.clone()).or_default() += types.rows() as u64;
            for (at, last) in spans(types) {
                let begin = plan.begin.get(&at).max(last + 1);
                plan.begin.0.insert(at, begin);
            }
        }
        match (goes.is_empty(), kept.is_empty()) {
            (true, _) => {}
            (false, true) => plan.gone.push(*seq),
            (false, false) => {
                let left = Block { footer: Arc::new(Footer { types: kept }), ..block.clone() };
                plan.changed.push((*seq, left, Arc::clone(&block.footer)));
            }
        }
    }
    plan
}

/// Each partition in a type's stream, and its last offset there.
fn spans(types: &TypeIndex) -> impl Iterator<Item = (TopicPartition, i64)> + '_ {
    let topic: Arc<str> = types.topic.as_str().into();
    types
        .spans
        .iter()
        .map(move |span| (TopicPartition { topic: Arc::clone(&topic), partition: span.partition }, span.last))
}

/// A body with only these streams of it, and the footer that says where they are now.
fn without(kept: &Footer, body: &[u8]) -> (Footer, Vec<u8>) {
    let (mut footer, mut left) = (Footer::default(), Vec::new());
    for types in &kept.types {
        let start = left.len();
        left.extend_from_slice(&body[types.start..types.start + types.length]);
        footer.types.push(TypeIndex { start, ..types.clone() });
    }
    (footer, left)
}

fn store(
    connection: &mut Connection,
    gone: &[i64],
    changed: &[(i64, Block, Vec<u8>)],
    begin: &Positions,
    rows: &BTreeMap<String, u64>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for seq in gone {
        transaction.prepare_cached("DELETE FROM blocks WHERE seq = ?1")?.execute([seq])?;
    }
    for (seq, block, body) in changed {
        let footer = block.footer.to_text((*seq, block.first_at, block.last_at));
        let sql = "UPDATE blocks SET footer = ?2, body = ?3 WHERE seq = ?1";
        transaction.prepare_cached(sql)?.execute(params![seq, footer, body])?;
    }
    for (at, offset) in &begin.0 {
        let sql = "INSERT INTO begins VALUES (?1, ?2, ?3)
                   ON CONFLICT (topic, partition) DO UPDATE SET \"offset\" = excluded.\"offset\"";
        transaction.prepare_cached(sql)?.execute(params![&*at.topic, at.partition, offset])?;
    }
    for (event_type, rows) in rows {
        let sql = "UPDATE accepted SET forgotten = forgotten + ?2 WHERE event_type = ?1";
        transaction.prepare_cached(sql)?.execute(params![event_type, rows])?;
    }
    transaction.commit()
}

/// Where each partition begins, if retention has deleted something of it.
pub(super) fn begins(connection: &Connection) -> Result<Positions> {
    let sql = "SELECT topic, partition, \"offset\" FROM begins";
    let mut statement = connection.prepare(sql).map_err(storage_error)?;
    let row = |row: &rusqlite::Row<'_>| {
        let topic: String = row.get(0)?;
        Ok((TopicPartition { topic: topic.into(), partition: row.get(1)? }, row.get(2)?))
    };
    let rows = statement.query_map([], row).map_err(storage_error)?;
    Ok(Positions(rows.collect::<rusqlite::Result<_>>().map_err(storage_error)?))
}
