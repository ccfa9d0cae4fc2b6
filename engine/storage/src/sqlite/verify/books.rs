//! The ledger, as far as it can be added up without the pipeline: what the counters say against what there is.

use std::collections::BTreeMap;

use cornjacket_core::Result;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params};

use super::super::connection::storage_error;
use super::super::table::table_name;
use super::blocks::{Blocks, why};
use super::state::{Known, REBUILD};
use super::{Finding, counted};

const LOG_REMEDY: &str = "put back a copy of log.db and store.db: events were taken out, or the count was changed";
const BOOKS_REMEDY: &str = "rows were taken out or put in, or a count was changed. Put back a copy of the folder, or move \
                            store.db, store.db-wal and store.db-shm away, and the next start makes everything anew from the log";

/// Adds up what is to be equal, and notes what is not.
struct Sums {
    finding: Finding,
    made: usize,
}

impl Sums {
    fn new(of: String) -> Self {
        Self { finding: Finding::new("ledger", of), made: 0 }
    }

    fn hold(&mut self, node: &str, equation: &str, sides: (i64, i64), holds: bool, remedy: &str) {
        self.made += 1;
        if !holds {
            let place = format!("{}: {node}", self.finding.of);
            let what = format!("{equation}: {} and {}", sides.0, sides.1);
            self.finding.fault(place, what, remedy);
        }
    }

    fn equal(&mut self, node: &str, equation: &str, left: i64, right: i64) {
        self.hold(node, equation, (left, right), left == right, BOOKS_REMEDY);
    }

    fn done(mut self) -> Finding {
        self.finding.looked_at = counted(self.made, "equation");
        self.finding
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Whether everything that the door stored is in the log.
pub(super) fn check_log(blocks: &Blocks, file: &str) -> Finding {
    let mut sums = Sums::new(file.into());
    for (name, count) in &blocks.counts {
        let sides = (whole(count.accepted), whole(count.present + count.forgotten));
        let equation = "stored by the door = in the log + deleted by retention";
        sums.hold(name, equation, sides, sides.0 == sides.1, LOG_REMEDY);
    }
    sums.done()
}

/// What the counters of a pipeline say against what there is.
pub(super) fn check(connection: &Connection, file: &str, known: &Known, blocks: Option<&Blocks>) -> Finding {
    let mut sums = Sums::new(format!("{file}: {}", known.name));
    let books = Books { connection, known };
    if let Err(error) = books.add_up(blocks, &mut sums) {
        sums.finding.fault(sums.finding.of.clone(), why(error), REBUILD);
    }
    sums.done()
}

struct Books<'a> {
    connection: &'a Connection,
    known: &'a Known,
}

type Counters = BTreeMap<String, BTreeMap<String, i64>>;

impl Books<'_> {
    fn add_up(&self, blocks: Option<&Blocks>, sums: &mut Sums) -> Result<()> {
        let counters = self.counters()?;
        let of = |node: &str, what: &str| counters.get(node).and_then(|node| node.get(what)).copied().unwrap_or(0);
        for (name, count) in blocks.iter().flat_map(|blocks| &blocks.counts).filter(|_| blocks.is_some()) {
            let reached = blocks.map_or(0, |blocks| blocks.reached(name, &self.known.positions));
            let before = self.known.state.forgotten.get(name).copied().unwrap_or(0);
            if counters.contains_key(name) {
                let equation =
                    "rows read = in the log up to the last epoch + deleted by retention since they were read";
                sums.equal(name, equation, of(name, "rows_in"), whole(reached + count.forgotten) - whole(before));
            }
        }
        let tables = self.counts("SELECT name, 0 FROM projections WHERE pipeline = ?1")?;
        for name in tables.keys() {
            let there = self.rows(name)?;
            let counted = of(name, "inserted") - of(name, "deleted") - of(name, "forgotten");
            sums.equal(name, "inserted − deleted − past retention = rows there are", counted, there);
        }
        let pending =
            self.counts("SELECT sink, sum(state = 'pending') FROM deliveries WHERE pipeline = ?1 GROUP BY sink")?;
        for (name, there) in &pending {
            sums.equal(name, "pending = deliveries that wait", of(name, "pending"), *there);
        }
        for name in tables.keys().chain(pending.keys()) {
            let out = ["written", "superseded", "suppressed", "dead", "pending"].map(|what| of(name, what));
            let equation = "rows in = written + superseded + suppressed + dead + pending";
            sums.equal(name, equation, of(name, "rows_in"), out.iter().sum());
        }
        let letters = self.counts("SELECT source, count(*) FROM dead_letters WHERE pipeline = ?1 GROUP BY source")?;
        for name in counters.keys() {
            let made = of(name, "late") + of(name, "failed");
            let there = letters.get(name).copied().unwrap_or(0) + of(name, "letters_forgotten");
            if made > 0 {
                let equation = "late + failed ≤ dead letters there are + deleted by retention";
                sums.hold(name, equation, (made, there), made <= there, BOOKS_REMEDY);
            }
        }
        Ok(())
    }

    fn counters(&self) -> Result<Counters> {
        let sql = "SELECT node, what, value FROM counters WHERE pipeline = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)));
        let mut counters = Counters::new();
        for (node, (what, value)) in all::<String, (String, i64)>(self.connection, sql, [&self.known.name], row)? {
            counters.entry(node).or_default().insert(what, value);
        }
        Ok(counters)
    }

    fn counts(&self, sql: &str) -> Result<BTreeMap<String, i64>> {
        let rows = all(self.connection, sql, [&self.known.name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.into_iter().collect())
    }

    fn rows(&self, projection: &str) -> Result<i64> {
        let sql = format!("SELECT count(*) FROM {}", table_name(projection));
        self.connection.query_row(&sql, [], |row| row.get(0)).map_err(storage_error)
    }
}

fn all<K: FromSql, V>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    map: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<(K, V)>,
) -> Result<Vec<(K, V)>> {
    let mut statement = connection.prepare(sql).map_err(storage_error)?;
    let rows = statement.query_map(params, map).map_err(storage_error)?;
    rows.collect::<rusqlite::Result<_>>().map_err(storage_error)
}
