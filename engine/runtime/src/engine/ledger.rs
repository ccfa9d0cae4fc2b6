//! What the ledger counts of a sink: every row that it takes is written, or there is a reason why not.

use std::collections::BTreeMap;

use cornjacket_core::graph::SinkOutput;

/// Counters by node and what they count.
pub(super) type Counters = BTreeMap<(String, String), i64>;

/// What becomes of what a sink gives in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is written.
    Written,
    /// It was written before the rebuild that is under way.
    Kept,
    /// It is older than the sink.
    TooOld,
}

/// Counts a sink's epoch. What the store alone can know (which rows of a projection are newer, which deliveries are there)
/// it counts itself.
pub(super) fn count_sink(counters: &mut Counters, sink: &str, output: &SinkOutput, fate: Fate) {
    let mut add = |what: &str, by: i64| {
        if by != 0 {
            *counters.entry((sink.into(), what.into())).or_default() += by;
        }
    };
    let whole = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
    match fate {
        Fate::Written => {
            add("written", whole(output.lines.len() as u64));
            add("superseded", whole(output.superseded));
            add("suppressed", whole(output.suppressed));
        }
        Fate::TooOld => {
            let taken = counters.get(&(sink.into(), "rows_in".into())).copied().unwrap_or(0);
            *counters.entry((sink.into(), "suppressed".into())).or_default() += taken;
        }
        Fate::Kept => {
            if let Some(taken) = counters.remove(&(sink.into(), "rows_in".into())) {
                counters.insert((sink.into(), "kept".into()), taken);
            }
        }
    }
}
