//! Compaction: small blocks that follow one another become one of about 1 MiB, in the background.
//!
//! The newest blocks are left alone (they are read from memory anyway). A merge reads and encodes without holding
//! anything; only the swap, one short transaction, waits for its turn between two appends.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use cornjacket_core::Result;
use cornjacket_core::log::{Columns, Positions, TopicPartition};

use super::index::Block;
use super::log::Shared;
use crate::block::{Cut, Footer, encode};
use crate::split::Segment;

/// A merged block is about this large at most.
const TARGET_BYTES: usize = 1024 * 1024;
/// Blocks at least this large are left as they are.
const LARGE_BYTES: usize = TARGET_BYTES / 2;
/// How many of the newest blocks are left alone.
const NEWEST: usize = 64;
/// How few blocks are not worth a merge.
const FEWEST: usize = 16;
const EVERY: Duration = Duration::from_secs(1);

/// The background thread; ends with the log.
pub(super) struct Compactor {
    shared: Arc<Shared>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Compactor {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let of_thread = Arc::clone(&shared);
        let work = move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                loop {
                    match compact(&of_thread, NEWEST, FEWEST) {
                        Ok(0) => break,
                        Ok(merged) => tracing::debug!(merged, "blocks of the log were merged"),
                        Err(error) if error.is_transient() => {
                            tracing::warn!(%error, "compaction of the log failed and will be tried again");
                            break;
                        }
                        Err(error) => {
                            tracing::error!(%error, "blocks of the log are not merged any more: look with `cornjacket check --data`");
                            return;
                        }
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("compaction".into()).spawn(work);
        let thread = thread.map_err(|error| cornjacket_core::Error::Unavailable(error.to_string()))?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Merges once, leaving only so many of the newest blocks alone.
    pub(super) fn once(&self, newest: usize) -> Result<usize> {
        compact(&self.shared, newest, 2)
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread logs its own failures.
            let _ = thread.join();
        }
    }
}

/// The blocks of one merge.
type Run = Vec<(i64, Block)>;

fn compact(shared: &Shared, newest: usize, fewest: usize) -> Result<usize> {
    // Retention would be undone by what was read before it.
    let _alone = shared.maintenance.lock();
    let run = next_run(shared, newest, fewest);
    // What room is left on a full disk is not for this.
    if run.is_empty() || shared.has_room().is_err() {
        return Ok(0);
    }
    let Some((footer, body)) = merge(shared, &run)? else { return Ok(0) };
    let block = Block {
        first_at: run.iter().map(|(_, block)| block.first_at).min().unwrap_or(0),
        last_at: run.iter().map(|(_, block)| block.last_at).max().unwrap_or(0),
        bytes: body.len(),
        footer: Arc::new(footer),
    };
    let merged: Vec<i64> = run.iter().map(|(seq, _)| *seq).collect();
    shared.swap(&merged, block, &body)?;
    Ok(merged.len())
}

/// The first run of small blocks that is worth a merge.
fn next_run(shared: &Shared, newest: usize, fewest: usize) -> Run {
    let index = shared.index.lock();
    let old = index.blocks.len().saturating_sub(newest);
    let mut run: Run = Vec::new();
    let mut bytes = 0;
    for (seq, block) in index.blocks.iter().take(old) {
        if block.bytes < LARGE_BYTES && bytes + block.bytes <= TARGET_BYTES {
            run.push((*seq, block.clone()));
            bytes += block.bytes;
            continue;
        }
        if run.len() >= fewest {
            return run;
        }
        (run, bytes) = (Vec::new(), 0);
        if block.bytes < LARGE_BYTES {
            run.push((*seq, block.clone()));
            bytes = block.bytes;
        }
    }
    if run.len() >= fewest { run } else { Vec::new() }
}

fn merge(shared: &Shared, run: &Run) -> Result<Option<(Footer, Vec<u8>)>> {
    let columns = Columns::All;
    let from = Positions::default();
    let cut = Cut { from: &from, until: None, columns: &columns, catalogue: &shared.catalogue };
    let mut segments = Vec::new();
    for (seq, block) in run {
        // A type that this pipeline does not declare cannot be decoded here; its blocks stay as they are.
        if block.footer.types.iter().any(|index| !cut.catalogue.types.contains_key(&index.event_type)) {
            return Ok(None);
        }
        let Some(decoded) = shared.decode(*seq, &block.footer, &cut)? else { return Ok(None) };
        for index in &block.footer.types {
            let Some(event_type) = cut.catalogue.types.get(&index.event_type) else { return Ok(None) };
            let Some(rows) = decoded.get(&index.event_type) else { return Ok(None) };
            segments.extend(index.spans.iter().map(|span| Segment {
                event_type: Arc::clone(event_type),
                at: TopicPartition { topic: index.topic.as_str().into(), partition: span.partition },
                offsets: span.offsets(),
                rows: rows.slice(span.row, span.rows),
            }));
        }
    }
    encode(&segments).map(Some)
}
