//! The world of a test: a disk in memory, processes that may die, and a clock that only moves when the test says so.
//!
//! Events go through the real door as a source's messages do, each with its mark, so that one whose process died is
//! handed in again exactly if it was not stored. After each step the engine works until there is nothing left to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use anyhow::{Context, bail};
use cornjacket_compiler::{Pipeline, TargetKind};
use cornjacket_core::Error;
use cornjacket_core::dead_letter::{DeadLetter, LetterFilter};
use cornjacket_core::delivery::DeliveryFilter;
use cornjacket_core::door::{Bundle, Door, Message, Refusal, Rejects};
use cornjacket_core::environment::{Clock, Environment, Random};
use cornjacket_core::graph::NodeKind;
use cornjacket_core::print::{NonFinite, row_objects};
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::{RowFilter, Storage};
use cornjacket_core::time::{Micros, SECOND, format_rfc3339, parse_rfc3339};
use cornjacket_operators::sinks::capture::Captured;
use cornjacket_runtime::door::{DoorOptions, GroupCommit};
use cornjacket_runtime::{Engine, EngineOptions, Saver, Step};
use cornjacket_storage::sim::{Disk, Fault};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::{Map, Value, json};

use super::{graph, impossible};

/// Rows that a test looks at.
pub(super) type Rows = Vec<Map<String, Value>>;

/// The source that a test's events come from.
const SOURCE: &str = "given";
/// Of a thousand storage calls so many are a crash before their effect, and as many after it.
const CRASHES: u32 = 25;
/// A test dies this often in one run at most, so that it comes to an end.
const MOST_CRASHES: u32 = 30;
/// Where time starts if no event says otherwise: 2026-01-01T00:00:00Z.
const START: Micros = 1_767_225_600 * SECOND;

#[derive(Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Micros {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Micros {
        self.now()
    }
}

struct Seeded(Mutex<StdRng>);

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}

/// A process: it is gone after a crash, and the disk stays.
struct Process {
    door: GroupCommit,
    engine: Engine,
    storage: Storage,
}

pub(super) struct World<'a> {
    pipeline: &'a Pipeline,
    disk: Disk,
    clock: Arc<TestClock>,
    environment: Environment,
    captured: Captured,
    process: Option<Process>,
    /// Decides about crashes; `None` if there are none.
    dice: Option<StdRng>,
    crashes: u32,
    /// Whether there are to be no more crashes.
    is_calm: Arc<AtomicBool>,
    given: u64,
    has_time: bool,
    /// How many rows of each capture, and how many dead letters, were looked at.
    looked_at: BTreeMap<String, usize>,
}

impl<'a> World<'a> {
    pub(super) fn new(pipeline: &'a Pipeline, captured: Captured, crashes: Option<u64>) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(START)));
        let random = Arc::new(Seeded(Mutex::new(StdRng::seed_from_u64(0))));
        Self {
            pipeline,
            disk: Disk::new(),
            environment: Environment { clock: Arc::clone(&clock) as _, random },
            clock,
            captured,
            process: None,
            dice: crashes.map(StdRng::seed_from_u64),
            crashes: 0,
            is_calm: Arc::default(),
            given: 0,
            has_time: false,
            looked_at: BTreeMap::new(),
        }
    }

    pub(super) fn crashes(&self) -> u32 {
        self.crashes
    }

    /// Hands in an event and lets the engine work.
    pub(super) fn give(&mut self, event: &Value, at: Option<Micros>) -> anyhow::Result<()> {
        let own = event["event_time"].as_str().and_then(parse_rfc3339);
        if let Some(time) = at.or(own) {
            // The first time is where the test's time starts; from there it never goes back.
            let now = if self.has_time { time.max(self.clock.now()) } else { time };
            self.clock.0.store(now, Ordering::SeqCst);
            self.has_time = true;
        }
        self.given += 1;
        let mark = self.given.to_string();
        let bundle = Arc::new(bundle(event, self.given));
        self.survive(|process| {
            let stored = process.storage.log.marks()?;
            if stored.get(SOURCE) == Some(&mark) {
                return Ok(());
            }
            match futures::executor::block_on(process.door.submit_bundle(Arc::clone(&bundle))) {
                Ok(_) => Ok(()),
                // The simulated log is only ever unavailable because the process has died.
                Err(Refusal::Unavailable(_)) => Err(Error::Closed),
                Err(refusal) => Err(Error::Compute(format!("the door refused an event: {refusal:?}"))),
            }
        })?;
        self.settle()
    }

    /// Lets time go on: every clock reaches this time, and so does the wall clock.
    pub(super) fn advance_to(&mut self, time: Micros) -> anyhow::Result<()> {
        if self.has_time && time < self.clock.now() {
            let (to, now) = (format_rfc3339(time), format_rfc3339(self.clock.now()));
            bail!("time cannot go back to {to}, it is {now} already");
        }
        self.clock.0.store(time, Ordering::SeqCst);
        self.has_time = true;
        self.settle()?;
        self.survive(|process| process.engine.advance_to(time).map(|_| ()))?;
        self.settle()
    }

    /// Lets time go on with nothing coming in, as a process would see it. From here on the process does not die: the next
    /// one would count the silence afresh, and windows would rightly close later.
    pub(super) fn silence(&mut self, span: Micros) -> anyhow::Result<()> {
        self.is_calm.store(true, Ordering::SeqCst);
        let until = self.clock.now() + span;
        let step = (span / 1_000).max(SECOND);
        while self.clock.now() < until {
            self.clock.0.store((self.clock.now() + step).min(until), Ordering::SeqCst);
            self.settle()?;
        }
        Ok(())
    }

    /// The rows that a test looks at: all of a projection, and what is new elsewhere.
    pub(super) fn rows(&mut self, target: &str, kind: TargetKind) -> anyhow::Result<Rows> {
        self.settle()?;
        let all = match kind {
            TargetKind::Projection => return self.projection(target),
            TargetKind::DeadLetters => self.letters()?.into_iter().map(|letter| letter_row(&letter)).collect(),
            TargetKind::Rows => parsed(&self.captured.rows(target))?,
            TargetKind::Deliveries => self.deliveries(target)?,
        };
        let seen = self.looked_at.entry(target.to_string()).or_default();
        let new = all.get(*seen..).unwrap_or_default().to_vec();
        *seen = all.len();
        Ok(new)
    }

    /// Dead letters of a test that does not expect any are faults of it.
    pub(super) fn unexpected_letters(&mut self) -> anyhow::Result<Vec<String>> {
        let text = |letter: DeadLetter| {
            let place = letter.place.as_deref().and_then(|place| place.split(':').next_back()).map(str::to_string);
            let which = place.map_or(String::new(), |number| format!(" (given event {number})"));
            format!("an unexpected dead letter, {} of {}{which}: {}", letter.reason, letter.source, letter.message)
        };
        Ok(self.letters()?.into_iter().map(text).collect())
    }

    /// Which windows still wait, as the end of a message.
    pub(super) fn open_windows(&mut self) -> anyhow::Result<String> {
        let process = self.process()?.context("the process is gone")?;
        let waiting = process.engine.waits();
        let text = |(node, until): (String, Micros)| {
            let stream = node.split('/').next().unwrap_or_default().to_string();
            format!("\n  {stream} has a window open that closes at {}: advance_to that time", format_rfc3339(until))
        };
        Ok(waiting.into_iter().map(text).collect())
    }

    fn letters(&mut self) -> anyhow::Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        self.survive(|process| {
            letters = process.storage.store.dead_letters(&LetterFilter::default(), u64::from(u32::MAX))?;
            Ok(())
        })?;
        letters.sort_by_key(|letter| letter.id);
        Ok(letters.into_iter().map(|stored| stored.letter).collect())
    }

    /// The rows that are to be sent for a sink, in the order in which they were written.
    fn deliveries(&mut self, sink: &str) -> anyhow::Result<Rows> {
        let filter = DeliveryFilter { sink: Some(sink.into()), ..DeliveryFilter::default() };
        let mut bodies = Vec::new();
        self.survive(|process| {
            let found = process.storage.store.deliveries(&filter, u64::from(u32::MAX))?;
            bodies = found.into_iter().rev().map(|found| found.body).collect();
            Ok(())
        })?;
        bodies.iter().map(|body| Ok(serde_json::from_slice(body)?)).collect()
    }

    fn projection(&mut self, name: &str) -> anyhow::Result<Rows> {
        let spec = projection_of(self.pipeline, name).with_context(|| format!("there is no projection {name}"))?;
        let mut found = Vec::new();
        self.survive(|process| {
            let rows = process.storage.store.rows(&spec, &RowFilter::default(), None, 0)?.rows;
            found = row_objects(&rows, NonFinite::Text)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// Lets the engine work until there is nothing left to do.
    fn settle(&mut self) -> anyhow::Result<()> {
        loop {
            let mut step = Step::default();
            self.survive(|process| {
                step = process.engine.step()?;
                Ok(())
            })?;
            if !step.committed {
                return Ok(());
            }
        }
    }

    /// Does something with the process; if it dies on the way, the next one does it again.
    fn survive(&mut self, mut work: impl FnMut(&mut Process) -> cornjacket_core::Result<()>) -> anyhow::Result<()> {
        loop {
            let Some(process) = self.process()? else { continue };
            match work(process) {
                Ok(()) => return Ok(()),
                Err(Error::Closed) => self.die(),
                Err(error) => return Err(impossible(error)),
            }
        }
    }

    fn die(&mut self) {
        self.crashes += 1;
        self.process = None;
    }

    /// The process, started if there is none; `None` if it died while it started.
    fn process(&mut self) -> anyhow::Result<Option<&mut Process>> {
        if self.process.is_none() {
            match self.start() {
                Ok(process) => self.process = Some(process),
                Err(Error::Closed) => {
                    self.crashes += 1;
                    return Ok(None);
                }
                Err(error) => return Err(impossible(error)),
            }
        }
        Ok(self.process.as_mut())
    }

    fn start(&mut self) -> cornjacket_core::Result<Process> {
        let is_last = self.crashes >= MOST_CRASHES;
        let mut dice = self.dice.as_mut().filter(|_| !is_last).map(|dice| StdRng::seed_from_u64(dice.random()));
        let is_calm = Arc::clone(&self.is_calm);
        let strike = move |_: &'static str| match dice.as_mut().map(|dice| dice.random_range(0..1_000)) {
            _ if is_calm.load(Ordering::SeqCst) => Fault::None,
            Some(roll) if roll < CRASHES => Fault::CrashBefore,
            Some(roll) if roll < 2 * CRASHES => Fault::CrashAfter,
            _ => Fault::None,
        };
        let storage = self.disk.open(&self.pipeline.catalogue, Box::new(strike))?;
        let options = EngineOptions {
            workers: 1,
            snapshot_every: self.dice.as_mut().map_or(i64::MAX, |dice| dice.random_range(0..60) * SECOND),
            saver: Saver::Inline,
            ..EngineOptions::default()
        };
        let engine = Engine::open(graph(self.pipeline), storage.clone(), self.environment.clone(), options)?;
        let (log, letters) = (Arc::clone(&storage.log), Arc::clone(&storage.store) as _);
        let registry = prometheus::Registry::new();
        let door = GroupCommit::start(
            &self.pipeline.catalogue,
            (log, letters),
            self.environment.clone(),
            DoorOptions::default(),
            &registry,
        )?;
        Ok(Process { door, engine, storage })
    }
}

fn bundle(event: &Value, number: u64) -> Bundle {
    let bytes = event.to_string().into_bytes();
    Bundle {
        source: SOURCE.into(),
        origin: SOURCE.into(),
        messages: vec![Message { bytes: 0..bytes.len(), number, fault: None }],
        bytes,
        known: Vec::new(),
        envelope: None,
        position: Some(number.to_string()),
        receipts: Vec::new(),
        rejects: Rejects::DeadLetters,
        chain: None,
    }
}

fn projection_of(pipeline: &Pipeline, name: &str) -> Option<Arc<ProjectionSpec>> {
    let node = pipeline.graph.nodes.iter().find(|node| node.name == name)?;
    match &node.kind {
        NodeKind::Sink(sink) => sink.projection(),
        _ => None,
    }
}

fn letter_row(letter: &DeadLetter) -> Map<String, Value> {
    let body = serde_json::from_slice(&letter.body)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&letter.body).into_owned()));
    let row = json!({
        "reason": letter.reason,
        "source": letter.source,
        "message": letter.message,
        "event_id": letter.event_id,
        "event_time": letter.event_time.map(format_rfc3339),
        "place": letter.place,
        "body": body,
    });
    match row {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}

fn parsed(lines: &[String]) -> anyhow::Result<Rows> {
    lines.iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
