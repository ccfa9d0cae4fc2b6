//! `log.db`: every block as it was written, and no offset missing.

use std::collections::BTreeMap;
use std::path::Path;

use cornjacket_core::log::{LogCount, Positions, TopicPartition};
use cornjacket_core::time::{Micros, format_rfc3339};
use cornjacket_core::{Error, Result};
use rusqlite::Connection;

use super::super::connection::storage_error;
use super::super::forget::begins;
use super::{Finding, Report, Watcher, counted};
use crate::block::{Footer, read_stream};

const REMEDY: &str = "put back a copy of log.db and store.db, or give the block up as docs/operations.md says; until then \
                      whatever reads it fails, and all else works";

const FOOTER_REMEDY: &str = "put back a copy of log.db and store.db, or give the block up as docs/operations.md says; until then \
                             every start is refused";

/// What the log holds.
pub(super) struct Blocks {
    footers: Vec<Footer>,
    pub(super) end: Positions,
    /// Accepted and forgotten events by type, and those that are there.
    pub(super) counts: BTreeMap<String, LogCount>,
    /// Streams without a checksum.
    pub(super) unsealed: usize,
}

impl Blocks {
    /// How many events of a type lie before a position.
    pub(super) fn reached(&self, event_type: &str, until: &Positions) -> u64 {
        let types = self.footers.iter().flat_map(|footer| &footer.types);
        types.filter(|index| index.event_type == event_type).map(|index| index.rows_before(until) as u64).sum()
    }
}

/// Reads every block.
pub(super) fn check(connection: &Connection, path: &Path, report: &mut Report, watcher: &mut Watcher<'_>) -> Blocks {
    let file = path.display().to_string();
    let (mut sums, mut order) = (Finding::new("blocks", &file), Finding::new("offsets", &file));
    let begin = begins(connection).unwrap_or_default();
    let mut blocks =
        Blocks { footers: Vec::new(), end: begin.clone(), counts: accepted(connection, &mut sums), unsealed: 0 };
    let (mut line, mut rows, mut bytes) = (Line { next: begin, last: 0 }, 0, 0);
    let all = numbers(connection, &mut sums);
    for (done, seq) in all.iter().enumerate() {
        watcher("blocks of events", done as u64, all.len() as u64);
        let place = format!("{file}: block {seq}");
        match footer(connection, *seq) {
            Ok((footer, times)) => {
                bytes += body(connection, (*seq, &footer), times, &mut sums, &mut blocks.unsealed);
                rows += footer.rows();
                line.add(*seq, &footer, &mut order);
                blocks.footers.push(footer);
            }
            Err(error) => sums.fault(place, why(error), FOOTER_REMEDY),
        }
    }
    for footer in &blocks.footers {
        for index in &footer.types {
            blocks.counts.entry(index.event_type.clone()).or_default().present += index.rows() as u64;
        }
    }
    blocks.end = line.next;
    sums.looked_at = format!("{}, {}, {bytes} bytes", counted(all.len(), "block"), counted(rows, "event"));
    order.looked_at = counted(blocks.end.0.len(), "partition");
    report.findings.extend([sums, order]);
    blocks
}

fn numbers(connection: &Connection, finding: &mut Finding) -> Vec<i64> {
    let mut found = Vec::new();
    let mut read = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare("SELECT seq FROM blocks ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            found.push(row.get(0)?);
        }
        Ok(())
    };
    if let Err(error) = read() {
        let place = format!("{}: the list of blocks", finding.of);
        finding.fault(place, format!("it cannot be read to its end: {error}"), super::COPY);
    }
    found
}

fn footer(connection: &Connection, seq: i64) -> Result<(Footer, (Micros, Micros))> {
    let sql = "SELECT first_at, last_at, footer FROM blocks WHERE seq = ?1";
    let row = connection.query_row(sql, [seq], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)));
    let (first_at, last_at, text) = row.map_err(storage_error)?;
    Ok((Footer::from_text(&text, (seq, first_at, last_at))?, (first_at, last_at)))
}

/// Reads a block's body, and everything in it; says how long it is.
fn body(
    connection: &Connection,
    (seq, footer): (i64, &Footer),
    times: (Micros, Micros),
    finding: &mut Finding,
    unsealed: &mut usize,
) -> usize {
    let place = format!("{}: block {seq}", finding.of);
    let holds = format!(
        "it holds {} taken in from {} to {}",
        counted(footer.rows(), "event"),
        format_rfc3339(times.0),
        format_rfc3339(times.1)
    );
    let read = connection.query_row("SELECT body FROM blocks WHERE seq = ?1", [seq], |row| row.get::<_, Vec<u8>>(0));
    let body = match read {
        Ok(body) => body,
        Err(error) => {
            finding.fault(place, format!("{error}; {holds}"), REMEDY);
            return 0;
        }
    };
    for index in &footer.types {
        *unsealed += usize::from(index.xxh64.is_none());
        let rows = index.bytes(&body).and_then(|bytes| read_stream(bytes, None)).map(|rows| rows.num_rows());
        match rows {
            Ok(rows) if rows == index.rows() => {}
            Ok(rows) => {
                let what = format!("it has {rows} events {} where its footer says {}", index.event_type, index.rows());
                finding.fault(place.clone(), what, REMEDY);
            }
            Err(error) => finding.fault(place.clone(), format!("{}; {holds}", why(error)), REMEDY),
        }
    }
    body.len()
}

/// The offsets that come next.
struct Line {
    next: Positions,
    last: i64,
}

impl Line {
    fn add(&mut self, seq: i64, footer: &Footer, finding: &mut Finding) {
        let mut offsets: BTreeMap<TopicPartition, Vec<i64>> = BTreeMap::new();
        for index in &footer.types {
            for span in &index.spans {
                let at = TopicPartition { topic: index.topic.as_str().into(), partition: span.partition };
                offsets.entry(at).or_default().extend(span.offsets().values());
            }
        }
        for (at, mut offsets) in offsets {
            offsets.sort_unstable();
            let mut next = self.next.get(&at);
            for offset in offsets {
                if offset != next {
                    let between = format!("{}: between block {} and block {seq}", finding.of, self.last);
                    finding.fault(between, broken(&at, next, offset), super::COPY);
                }
                next = offset + 1;
            }
            self.next.0.insert(at, next);
        }
        self.last = seq;
    }
}

fn broken(at: &TopicPartition, next: i64, offset: i64) -> String {
    let TopicPartition { topic, partition } = at;
    if offset < next {
        return format!("the event {offset} of {topic}/{partition} is there twice");
    }
    let (missing, last) = (offset - next, offset - 1);
    format!("{missing} events are missing, {next} to {last} of {topic}/{partition}")
}

fn accepted(connection: &Connection, finding: &mut Finding) -> BTreeMap<String, LogCount> {
    let read = || -> rusqlite::Result<BTreeMap<String, LogCount>> {
        let mut statement = connection.prepare("SELECT event_type, rows, forgotten FROM accepted")?;
        let row = |row: &rusqlite::Row<'_>| {
            let count = LogCount { accepted: row.get(1)?, forgotten: row.get(2)?, ..LogCount::default() };
            Ok((row.get::<_, String>(0)?, count))
        };
        statement.query_map([], row)?.collect()
    };
    read().unwrap_or_else(|error| {
        finding.fault(format!("{}: the counts of events", finding.of), error.to_string(), super::COPY);
        BTreeMap::new()
    })
}

/// What an error says, without what everybody knows here.
pub(super) fn why(error: Error) -> String {
    match error {
        Error::Corrupt(why) => why,
        Error::Arrow(error) => error.to_string(),
        other => other.to_string(),
    }
}
