//! Rows that an operator could not use, as dead letters: nothing vanishes without a trace.

use arrow::array::{Array, RecordBatch};
use arrow::json::writer::{LineDelimited, WriterBuilder};
use cornjacket_core::Result;
use cornjacket_core::batch::Batch;
use cornjacket_core::id::EventId;
use cornjacket_core::operator::Output;
use cornjacket_core::store::DeadLetter;
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
    for (batch, message) in &output.failed {
        add(node, "compute", batch, to, |_| message.clone())?;
    }
    Ok(())
}

fn add(
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
        to.push(DeadLetter {
            reason: reason.into(),
            source: node.into(),
            message: message(row),
            event_id: id(row),
            event_time: Some(times.value(row)),
            body,
            place: None,
        });
    }
    Ok(())
}

fn json_rows(rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    writer.write(rows)?;
    writer.finish()?;
    Ok(bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}
