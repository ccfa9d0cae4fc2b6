//! The rows of tables for a query's process, as many as it wants.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use cornjacket_core::{Error, Result, guard};

use super::Pool;
use super::process::WorkerInput;
use super::wire::{AHEAD, ToWorker, parts};

/// The scans of a query. Dropping them ends them.
pub struct Scans {
    pool: Arc<Pool>,
    input: Arc<WorkerInput>,
    /// Each thread waits to be told to give a part more.
    open: HashMap<u32, SyncSender<()>>,
}

impl Scans {
    pub fn new(pool: &Arc<Pool>, input: &Arc<WorkerInput>) -> Self {
        Self { pool: Arc::clone(pool), input: Arc::clone(input), open: HashMap::new() }
    }

    /// Begins one.
    pub fn open(&mut self, number: u32, table: usize, columns: Vec<usize>) -> std::io::Result<()> {
        let (sender, wanted) = sync_channel(2 * AHEAD);
        for _ in 0..AHEAD {
            let _ = sender.try_send(());
        }
        let scan = Scan { number, input: Arc::clone(&self.input), wanted, stream: None };
        let pool = Arc::clone(&self.pool);
        std::thread::Builder::new().name("scan".into()).spawn(move || scan.run(&pool, table, &columns))?;
        self.open.insert(number, sender);
        Ok(())
    }

    /// Lets one give a part more.
    pub fn more(&self, number: u32) {
        if let Some(sender) = self.open.get(&number) {
            // There is room for more than a process may ask for.
            let _ = sender.try_send(());
        }
    }

    /// Ends one.
    pub fn close(&mut self, number: u32) {
        self.open.remove(&number);
    }
}

/// One reading of a table, on a thread of its own with the priority of the conversation that began it.
struct Scan {
    number: u32,
    input: Arc<WorkerInput>,
    wanted: Receiver<()>,
    stream: Option<StreamWriter<Vec<u8>>>,
}

impl Scan {
    fn run(mut self, pool: &Pool, table: usize, columns: &[usize]) {
        let outcome = guard::guarded(|| {
            let Some(table) = pool.tables.get(table) else { return Err(Error::Closed) };
            let mut failed = None;
            table.source.scan(columns, &mut |rows| {
                let given = self.give(&rows);
                let goes_on = matches!(given, Ok(true));
                failed = given.err();
                goes_on
            })?;
            failed.map_or(Ok(()), Err)
        });
        let end = ToWorker::End { scan: self.number, error: outcome.err().map(|error| error.words()) };
        // Where the process has ended, its conversation says so.
        let _ = self.input.say(&end, &[]);
    }

    /// Gives rows in parts as they are wanted; false where none are any more.
    fn give(&mut self, rows: &RecordBatch) -> Result<bool> {
        for part in parts(rows) {
            if self.wanted.recv().is_err() {
                return Ok(false);
            }
            let rows = ToWorker::Rows { scan: self.number, count: part.num_rows() };
            let bytes = if part.num_columns() > 0 { self.encoded(&part)? } else { Vec::new() };
            if self.input.say(&rows, &bytes).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn encoded(&mut self, part: &RecordBatch) -> Result<Vec<u8>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(StreamWriter::try_new(Vec::new(), &part.schema())?),
        };
        stream.write(part)?;
        Ok(std::mem::take(stream.get_mut()))
    }
}
