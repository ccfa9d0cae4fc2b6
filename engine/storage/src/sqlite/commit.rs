//! The log's statements: its topics and blocks, the ids that clients gave, and the notes of sources.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::AsArray;
use cornjacket_core::catalogue::{Catalogue, stored};
use cornjacket_core::id::EventId;
use cornjacket_core::log::{Notes, RECEIPT_AGE, TopicPartition};
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_core::{Error, Result};
use rusqlite::{Connection, OptionalExtension, params};

use super::connection::storage_error;
use super::index::Block;
use crate::block::Footer;
use crate::sim::partitions_differ;
use crate::split::Split;

/// For how long a repeat of a client-given id is looked for.
const CLIENT_ID_AGE: Micros = 7 * 86_400 * SECOND;

/// Only a topic that is new is written, so that a full disk does not keep a process from starting.
pub(super) fn check_topics(connection: &Connection, catalogue: &Catalogue) -> Result<()> {
    for (topic, partitions) in &catalogue.topics {
        let sql = "SELECT partitions FROM topics WHERE name = ?1";
        let stored: Option<u32> =
            connection.query_row(sql, [topic], |row| row.get(0)).optional().map_err(storage_error)?;
        match stored {
            Some(stored) if stored != *partitions => return Err(partitions_differ(topic, stored, *partitions)),
            Some(_) => {}
            None => {
                let sql = "INSERT INTO topics VALUES (?1, ?2)";
                connection.execute(sql, params![topic, partitions]).map_err(storage_error)?;
            }
        }
    }
    Ok(())
}

/// The blocks from a number on, by their footers.
pub(super) fn blocks_from(connection: &Connection, first: i64) -> Result<Vec<(i64, Block)>> {
    let sql = "SELECT seq, first_at, last_at, footer, length(body) FROM blocks WHERE seq >= ?1 ORDER BY seq";
    let mut statement = connection.prepare(sql).map_err(storage_error)?;
    let mut rows = statement.query([first]).map_err(storage_error)?;
    let mut blocks = Vec::new();
    while let Some(row) = rows.next().map_err(storage_error)? {
        let column = |at: usize| row.get::<_, i64>(at).map_err(storage_error);
        let (seq, first_at, last_at) = (column(0)?, column(1)?, column(2)?);
        let damaged = |why: &str| Error::Corrupt(format!("block {seq}: {why}"));
        let footer: String = row.get(3).map_err(|error| damaged(&error.to_string()))?;
        let footer = Footer::from_text(&footer, (seq, first_at, last_at)).map_err(|error| match error {
            Error::Corrupt(why) => damaged(&why),
            other => other,
        })?;
        let bytes = usize::try_from(column(4)?).unwrap_or(0);
        blocks.push((seq, Block { first_at, last_at, bytes, footer: Arc::new(footer) }));
    }
    Ok(blocks)
}

pub(super) fn block_of(laid_out: &Split, footer: Footer) -> Block {
    let times = laid_out.segments.iter().map(|segment| {
        let times = segment.rows.column(stored::INGESTED_AT);
        let times = times.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values();
        (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0))
    });
    let (first_at, last_at) = times.fold((Micros::MAX, Micros::MIN), |(a, b), (c, d)| (a.min(c), b.max(d)));
    Block { first_at, last_at, bytes: 0, footer: Arc::new(footer) }
}

pub(super) fn store_block(
    connection: &mut Connection,
    (seq, block, body): (i64, &Block, &[u8]),
    laid_out: &Split,
    prune: Option<Micros>,
    (notes, now): (&Notes, Micros),
) -> rusqlite::Result<()> {
    let footer = block.footer.to_text((seq, block.first_at, block.last_at));
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction
        .prepare_cached("INSERT INTO blocks (seq, first_at, last_at, footer, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![seq, block.first_at, block.last_at, footer, body])?;
    if !laid_out.client_ids.is_empty() {
        let mut insert = transaction.prepare_cached("INSERT INTO client_ids VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for given in &laid_out.client_ids {
            insert.execute(params![given.id.0, &*given.at.topic, given.at.partition, given.offset, block.last_at])?;
        }
    }
    store_notes(&transaction, notes, now)?;
    count_accepted(&transaction, &block.footer)?;
    if let Some(now) = prune {
        let sql = "DELETE FROM client_ids WHERE id IN (SELECT id FROM client_ids WHERE at < ?1 LIMIT 10000)";
        transaction.execute(sql, [now - CLIENT_ID_AGE])?;
        let sql = "DELETE FROM receipts WHERE number IN (SELECT number FROM receipts WHERE at < ?1 LIMIT 10000)";
        transaction.execute(sql, [now - RECEIPT_AGE])?;
    }
    transaction.commit()
}

/// Counted apart from the block, so that a block which gets lost is missed.
fn count_accepted(connection: &Connection, footer: &Footer) -> rusqlite::Result<()> {
    let sql = "INSERT INTO accepted (event_type, rows) VALUES (?1, ?2)
               ON CONFLICT (event_type) DO UPDATE SET rows = rows + excluded.rows";
    let mut count = connection.prepare_cached(sql)?;
    for index in &footer.types {
        count.execute(params![index.event_type, index.rows()])?;
    }
    Ok(())
}

pub(super) fn store_notes(connection: &Connection, notes: &Notes, now: Micros) -> rusqlite::Result<()> {
    for mark in &notes.marks {
        let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO marks VALUES (?1, ?2)")?;
        insert.execute(params![mark.source, mark.position])?;
    }
    for receipt in &notes.receipts {
        let mut insert = connection.prepare_cached("INSERT INTO receipts (source, at, bytes) VALUES (?1, ?2, ?3)")?;
        insert.execute(params![receipt.source, now, receipt.bytes])?;
    }
    Ok(())
}

pub(super) fn known_ids(connection: &Connection, ids: &[EventId]) -> Result<HashSet<EventId>> {
    let mut known = HashSet::new();
    if ids.is_empty() {
        return Ok(known);
    }
    let mut statement = connection.prepare_cached("SELECT 1 FROM client_ids WHERE id = ?1").map_err(storage_error)?;
    for id in ids {
        if statement.exists([id.0]).map_err(storage_error)? {
            known.insert(*id);
        }
    }
    Ok(known)
}

pub(super) fn find_client_id(connection: &Connection, event: EventId) -> Result<Option<(TopicPartition, i64)>> {
    let sql = "SELECT topic, partition, \"offset\" FROM client_ids WHERE id = ?1";
    let found = connection.query_row(sql, [event.0], |row| {
        let topic: String = row.get(0)?;
        Ok((TopicPartition { topic: topic.into(), partition: row.get(1)? }, row.get(2)?))
    });
    found.optional().map_err(storage_error)
}

/// Puts a merged block in the place of the blocks with these numbers; it has the first one's.
pub(super) fn store_merged(
    connection: &mut Connection,
    merged: &[i64],
    block: &Block,
    body: &[u8],
) -> rusqlite::Result<()> {
    let (Some(first), Some(last)) = (merged.first(), merged.last()) else { return Ok(()) };
    let footer = block.footer.to_text((*first, block.first_at, block.last_at));
    let transaction = connection.transaction()?;
    transaction.execute("DELETE FROM blocks WHERE seq > ?1 AND seq <= ?2", [first, last])?;
    let sql = "UPDATE blocks SET first_at = ?2, last_at = ?3, footer = ?4, body = ?5 WHERE seq = ?1";
    transaction.execute(sql, params![first, block.first_at, block.last_at, footer, body])?;
    transaction.commit()
}
