//! Compaction: small blocks that follow one another become one of about 1 MiB, in the background.
//!
//! The newest blocks are left alone (they are read from memory anyway). A merge reads and encodes without holding
//! anything; only the swap, one transaction, waits for its turn between two appends, which then wait for it. How long
//! depends on the number of blocks that go, so few go at a time: commits of single events become blocks of middle size
//! first, and these become large ones.

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
/// Blocks smaller than this are as their commits made them, mostly.
const SMALL_BYTES: usize = 32 * 1024;
/// How many of them are merged at a time.
const MOST_SMALL: usize = 48;
/// How many of the newest blocks are left alone.
const NEWEST: usize = 64;
/// How few small blocks are not worth a merge.
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
        self.shared.index.lock().settled = 0;
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
    let Some((footer, body)) = merge(shared, &run)? else {
        // They would be found again and again, and those behind them never.
        shared.index.lock().settled = run.last().map_or(0, |(seq, _)| seq + 1);
        return Ok(0);
    };
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

/// The next blocks that are worth a merge: a run of small ones, or else of any that are not large yet.
fn next_run(shared: &Shared, newest: usize, fewest: usize) -> Run {
    let mut index = shared.index.lock();
    let Some(end) = index.blocks.keys().rev().nth(newest.saturating_sub(1)).copied() else { return Vec::new() };
    let old = |from: i64| index.blocks.range(from..).take_while(|(seq, _)| newest == 0 || **seq < end);
    let mut settled = index.settled;
    let small = small_run(old(settled), fewest);
    let run = if small.is_empty() { any_run(old(settled), fewest, &mut settled) } else { small };
    index.settled = settled;
    run
}

fn small_run<'a>(blocks: impl Iterator<Item = (&'a i64, &'a Block)>, fewest: usize) -> Run {
    let mut run: Run = Vec::new();
    for (seq, block) in blocks {
        if block.bytes < SMALL_BYTES && run.len() < MOST_SMALL {
            run.push((*seq, block.clone()));
        } else if run.len() >= fewest {
            break;
        } else {
            run.clear();
        }
    }
    if run.len() >= fewest { run } else { Vec::new() }
}

/// Moves `settled` to where the next merge can begin.
fn any_run<'a>(blocks: impl Iterator<Item = (&'a i64, &'a Block)>, fewest: usize, settled: &mut i64) -> Run {
    let (mut run, mut bytes) = (Run::new(), 0);
    let is_worth_it = |run: &Run, bytes| run.len() >= fewest || run.len() > 1 && bytes >= LARGE_BYTES;
    for (seq, block) in blocks {
        if run.is_empty() {
            *settled = *seq;
        }
        if block.bytes < LARGE_BYTES && bytes + block.bytes <= TARGET_BYTES {
            run.push((*seq, block.clone()));
            bytes += block.bytes;
            continue;
        }
        if is_worth_it(&run, bytes) {
            return run;
        }
        (run, bytes) = (Vec::new(), 0);
        *settled = *seq;
        if block.bytes < LARGE_BYTES {
            run.push((*seq, block.clone()));
            bytes = block.bytes;
        }
    }
    if is_worth_it(&run, bytes) { run } else { Vec::new() }
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
