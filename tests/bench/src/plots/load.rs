//! Connections that send bodies of events, as fast as they are answered or at a pace, and count what became of each event.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use cornjacket_core::time::{Micros, format_rfc3339};
use serde_json::Value;

use crate::batch::ROUTE;
use crate::client::{Answer, Connection};
use crate::world::scattered;

/// How often one body may be refused for the moment before that counts as a failure.
const MOST_REFUSALS: u32 = 600;

/// What became of events; the whole load adds up here while it runs.
#[derive(Default)]
pub struct Counts {
    /// Events of bodies that were begun.
    pub sent: AtomicU64,
    /// Events that were accepted, as the answers say.
    pub accepted: AtomicU64,
    /// Answers that said to come again later.
    pub busy: AtomicU64,
    /// Set when the load is to end.
    pub is_over: AtomicBool,
}

impl Counts {
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Lines of events that are given the time at which they are sent: it is written over that of the last time.
pub struct Timed {
    text: Vec<u8>,
    /// Where the times stand.
    places: Vec<usize>,
}

/// As long as all others.
const SOME_TIME: &str = "2026-01-01T00:00:00.000Z";

impl Timed {
    /// Events of some of this many devices; another number gives other ones.
    pub fn new(number: usize, events: usize, devices: usize) -> Self {
        let (mut text, mut places) = (Vec::with_capacity(events * 160), Vec::with_capacity(events));
        for at in number * events..(number + 1) * events {
            let (device, value) = (scattered(at) % devices, scattered(at + 1) % 1_000);
            let begin =
                format!("{{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"device-{device}\",\"event_time\":\"");
            text.extend_from_slice(begin.as_bytes());
            places.push(text.len());
            let end = format!("\",\"payload\":{{\"value\":{}.{},\"unit\":\"celsius\"}}}}\n", value / 10, value % 10);
            text.extend_from_slice(SOME_TIME.as_bytes());
            text.extend_from_slice(end.as_bytes());
        }
        Self { text, places }
    }

    /// Its lines, for events of now.
    fn lines(&mut self) -> &[u8] {
        let time = milliseconds(now());
        for place in &self.places {
            self.text[*place..*place + SOME_TIME.len()].copy_from_slice(time.as_bytes());
        }
        &self.text
    }

    fn events(&self) -> u64 {
        self.places.len() as u64
    }
}

fn now() -> Micros {
    #[allow(clippy::disallowed_methods, reason = "the load is given to a process that goes by the wall clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(0)
}

/// A time with three digits after the point, in any case: a whole second is taken as the millisecond after it.
fn milliseconds(time: Micros) -> String {
    let time = time - time % 1_000;
    format_rfc3339(if time % 1_000_000 == 0 { time + 1_000 } else { time })
}

/// How fast bodies are sent.
#[derive(Clone, Copy)]
pub enum Pace {
    /// The next one when the last is answered.
    Answers,
    /// So many events in a second, all connections together. Who is late sends at once until that is made up for.
    Rate(f64),
}

impl Pace {
    /// When a body is due, from the beginning on.
    fn due(self, number: u64, events: u64) -> Duration {
        match self {
            Self::Answers => Duration::ZERO,
            #[allow(clippy::cast_precision_loss, reason = "to the microsecond for years")]
            Self::Rate(rate) => Duration::from_secs_f64((number * events) as f64 / rate),
        }
    }
}

/// Sends on as many connections as there are lists of bodies, each its bodies in turn, until it is told to end; the other
/// work runs meanwhile, and ends it. Gives for how long it sent, and what the other work gave.
pub fn run<R>(
    port: u16,
    bodies: &mut [Vec<Timed>],
    pace: Pace,
    counts: &Counts,
    meanwhile: impl FnOnce() -> Result<R>,
) -> Result<(Duration, R)> {
    let (began, connections) = (Instant::now(), bodies.len() as u64);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .zip(bodies.iter_mut())
            .map(|(number, bodies)| scope.spawn(move || one(port, bodies, (pace, began, number, connections), counts)))
            .collect();
        let result = meanwhile();
        counts.is_over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no panic")?;
        }
        Ok((began.elapsed(), result?))
    })
}

/// One connection; where it fails the others end too.
fn one(
    port: u16,
    bodies: &mut [Timed],
    (pace, began, number, connections): (Pace, Instant, u64, u64),
    counts: &Counts,
) -> Result<()> {
    let mut connection = Connection::open(port)?;
    let mut count = bodies.len();
    for turn in 0.. {
        let at = turn % count.max(1);
        count = bodies.len();
        let Some(body) = bodies.get_mut(at) else { return Ok(()) };
        let due = pace.due(turn as u64 * connections + number, body.events());
        while let Some(left) = due.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            if counts.is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(200)));
        }
        if counts.is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let events = body.events();
        if let Err(error) = deliver(&mut connection, port, (body.lines(), events), counts) {
            counts.is_over.store(true, Ordering::Relaxed);
            return Err(error);
        }
    }
    Ok(())
}

/// Sends a body until all of it is accepted. Where it is told to come again it waits as long as it is told, then sends what
/// the answer says was not stored.
fn deliver(connection: &mut Connection, port: u16, (body, events): (&[u8], u64), counts: &Counts) -> Result<()> {
    counts.sent.fetch_add(events, Ordering::Relaxed);
    let (mut rest, mut left) = (body, events);
    for _ in 0..MOST_REFUSALS {
        let answer = connection.post(ROUTE, "application/x-ndjson", rest);
        let answer = answer.context("a connection broke, so nobody knows how much of its body was stored")?;
        let accepted = accepted(&answer)?;
        counts.accepted.fetch_add(accepted, Ordering::Relaxed);
        match answer.status {
            202 if accepted == left => return Ok(()),
            503 if accepted <= left => {
                counts.busy.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_secs(answer.retry_after.unwrap_or(1)));
                (rest, left) = (after_lines(rest, accepted), left - accepted);
                // After an answer that came before the end of the body, a connection may be of no use.
                *connection = Connection::open(port)?;
            }
            _ => bail!("{accepted} of {left} events were accepted: {}", answer.text()),
        }
        if left == 0 {
            return Ok(());
        }
    }
    bail!("a body was refused {MOST_REFUSALS} times")
}

fn accepted(answer: &Answer) -> Result<u64> {
    let body: Value = serde_json::from_slice(&answer.body).with_context(|| answer.text())?;
    ensure!(answer.status == 503 || body["accepted"].is_u64(), "an answer that does not say how many: {body}");
    Ok(body["accepted"].as_u64().unwrap_or(0))
}

/// What follows after some lines.
fn after_lines(text: &[u8], lines: u64) -> &[u8] {
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let begin = std::iter::once(0).chain(ends).nth(usize::try_from(lines).unwrap_or(usize::MAX));
    &text[begin.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_stored_is_the_rest_of_the_lines() {
        let text = b"a\nbb\nc\n";
        let rest = |lines| after_lines(text, lines);
        assert_eq!((rest(0), rest(1), rest(3), rest(9)), (&text[..], &b"bb\nc\n"[..], &b""[..], &b""[..]));
    }

    #[test]
    fn times_have_one_length_and_stand_in_every_event() {
        for time in [0, 1_767_225_600_000_000, 1_767_225_600_120_000, 1_767_225_600_123_456] {
            assert_eq!(milliseconds(time).len(), SOME_TIME.len(), "{}", milliseconds(time));
        }
        let mut body = Timed::new(3, 10, 100);
        let lines = String::from_utf8(body.lines().to_vec()).expect("text");
        assert!(!lines.contains(SOME_TIME));
        for line in lines.lines() {
            let event: Value = serde_json::from_str(line).expect("JSON");
            assert!(event["event_time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        }
        assert_eq!((lines.lines().count(), body.events()), (10, 10));
    }

    #[test]
    fn bodies_are_due_at_the_rate() {
        assert_eq!(Pace::Rate(50_000.0).due(100, 1_000), Duration::from_secs(2));
        assert_eq!(Pace::Answers.due(100, 1_000), Duration::ZERO);
    }
}
