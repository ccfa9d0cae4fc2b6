//! Rows that an operator could not use, as dead letters: nothing vanishes without a trace.

use arrow::array::{Array, RecordBatch};
use cornjacket_core::Result;
use cornjacket_core::batch::Batch;
use cornjacket_core::dead_letter::DeadLetter;
use cornjacket_core::id::EventId;
use cornjacket_core::operator::Output;
use cornjacket_core::print::{NonFinite, json_lines};
use cornjacket_core::time::{Micros, format_rfc3339};

/// Adds what `node` could not use.
pub(super) fn letters(node: &str, output: &Output, watermark: Option<Micros>, to: &mut Vec<DeadLetter>) -> Result<()> {
    for batch in &output.late {
        let clocks = batch.lineage.clock()?;
        let times = batch.lineage.time()?;
        add(node, "late", batch, to, |row| {
            let clock = clocks.value(row).max(watermark.unwrap_or(Micros::MIN));
            let (time, clock) = (format_rfc3339(times.value(row)), format_rfc3339(clock));
            format!("its window had closed: its time is {time}, and the clock stood at {clock}")
        })?;
    }
    for (batch, message) in output.failed.iter().chain(&output.lost) {
        add(node, "compute", batch, to, |_| message.clone())?;
    }
    Ok(())
}

/// Adds a letter for each row of a batch.
pub(super) fn add(
    node: &str,
    reason: &str,
    batch: &Batch,
    to: &mut Vec<DeadLetter>,
    message: impl Fn(usize) -> String,
) -> Result<()> {
    let times = batch.lineage.time()?;
    let ids = batch.lineage.event_id()?;
    let id = |row: usize| {
        let bytes = ids.as_ref().filter(|ids| ids.is_valid(row))?.value(row);
        bytes.try_into().ok().map(|bytes| EventId(bytes).to_string())
    };
    for (row, body) in json_rows(&batch.rows)?.into_iter().enumerate() {
        let event_id = id(row);
        to.push(DeadLetter {
            reason: reason.into(),
            source: node.into(),
            message: message(row),
            // An edit of the pipeline computes all anew: a row still has one letter for a node.
            place: Some(place(reason, event_id.as_deref(), times.value(row), &body)),
            is_placed: true,
            event_id,
            event_time: Some(times.value(row)),
            body,
            ..DeadLetter::default()
        });
    }
    Ok(())
}

/// What tells a row from every other of its node: the event that it is, or what it says.
fn place(reason: &str, event_id: Option<&str>, time: Micros, body: &[u8]) -> String {
    if let Some(id) = event_id {
        return format!("{reason} {id}");
    }
    // FNV-1a: the same in every version, and rows of one time are few.
    let hash = body
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{reason} {} {hash:016x}", format_rfc3339(time))
}

fn json_rows(rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
    Ok(json_lines(rows, NonFinite::Text)?.into_iter().map(String::into_bytes).collect())
}
