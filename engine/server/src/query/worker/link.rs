//! The way to the process that started this one.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use cornjacket_sql::query::Budget;
use parking_lot::Mutex;

use super::limits;
use crate::query::workers::wire::{self, AHEAD, FromWorker, Question, ToWorker};

/// What is told from outside, in its order.
pub enum Told {
    Table { schema: Option<String>, name: String, columns: SchemaRef },
    Tables,
    Query(Question),
}

/// A part of a scan, or its end with why it has not all rows.
pub enum Part {
    Rows { count: usize, bytes: Vec<u8> },
    End(Option<String>),
}

/// Says and asks.
pub struct Link {
    out: Mutex<std::io::Stdout>,
    scans: Mutex<Scans>,
    room: Mutex<Receiver<bool>>,
}

#[derive(Default)]
struct Scans {
    begun: u32,
    open: HashMap<u32, SyncSender<Part>>,
}

impl Link {
    /// Hears on a thread of its own; gives what is told in its order.
    pub fn start(input: impl Read + Send + 'static) -> std::io::Result<(Arc<Self>, Receiver<Told>)> {
        let (room_sender, room) = sync_channel(1);
        let (sender, told) = sync_channel(1);
        let link =
            Arc::new(Self { out: Mutex::new(std::io::stdout()), scans: Mutex::default(), room: Mutex::new(room) });
        let hearing = Arc::clone(&link);
        std::thread::Builder::new().name("link".into()).spawn(move || {
            // However it ends, there is nobody to answer any more: what is being computed need not be.
            hearing.hear(input, &sender, &room_sender);
            limits::end();
        })?;
        Ok((link, told))
    }

    fn hear(&self, mut input: impl Read, told: &SyncSender<Told>, room: &SyncSender<bool>) -> Option<()> {
        while let Ok(Some((head, body))) = wire::read::<ToWorker>(&mut input) {
            match head {
                ToWorker::Begin(_) => {}
                ToWorker::Table { schema, name } => {
                    let columns = StreamReader::try_new(body.as_slice(), None).ok()?.schema();
                    told.send(Told::Table { schema, name, columns }).ok()?;
                }
                ToWorker::Tables => told.send(Told::Tables).ok()?,
                ToWorker::Query(question) => {
                    self.say(&FromWorker::Heard, &[]);
                    told.send(Told::Query(question)).ok()?;
                }
                // A scan that is not there is one that nobody reads any more.
                ToWorker::Rows { scan, count } => {
                    let open = self.scans.lock().open.get(&scan).cloned();
                    let _ = open.map(|open| open.send(Part::Rows { count, bytes: body }));
                }
                ToWorker::End { scan, error } => {
                    let open = self.scans.lock().open.remove(&scan);
                    let _ = open.map(|open| open.send(Part::End(error)));
                }
                ToWorker::Room(is_given) => room.send(is_given).ok()?,
            }
        }
        None
    }

    /// Says something. Where nobody hears it, the process ends.
    pub fn say(&self, head: &FromWorker, body: &[u8]) {
        if wire::write(&mut *self.out.lock(), head, body).is_err() {
            limits::end();
        }
    }

    /// Begins a scan; its number, and its parts as they come.
    pub fn open(&self, table: usize, columns: &[usize]) -> (u32, Receiver<Part>) {
        let (sender, parts) = sync_channel(AHEAD + 1);
        let mut scans = self.scans.lock();
        let scan = scans.begun;
        scans.begun = scans.begun.wrapping_add(1);
        scans.open.insert(scan, sender);
        drop(scans);
        self.say(&FromWorker::Open { scan, table, columns: columns.to_vec() }, &[]);
        (scan, parts)
    }

    /// Lets a scan give a part more.
    pub fn more(&self, scan: u32) {
        self.say(&FromWorker::More { scan }, &[]);
    }

    /// Ends a scan.
    pub fn close(&self, scan: u32) {
        self.scans.lock().open.remove(&scan);
        self.say(&FromWorker::Close { scan }, &[]);
    }
}

impl Budget for Link {
    fn take(&self, bytes: usize) -> bool {
        let room = self.room.lock();
        self.say(&FromWorker::Take(bytes), &[]);
        room.recv().unwrap_or(false)
    }

    fn give(&self, bytes: usize) {
        self.say(&FromWorker::Give(bytes), &[]);
    }
}
