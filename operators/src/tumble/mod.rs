//! `tumble`: windows of one width, side by side, aggregated by key.
//!
//! A row belongs to the window [n·width, (n+1)·width) that its row time falls into. It is late when the window's end is
//! at or before its partition's clock as it was when the row arrived, or when the window has closed here already. A
//! window closes, and its rows leave, when the watermark reaches its end. With `lateness` the window stays that much
//! longer and takes rows; what they change leaves as updates: the old row with weight −1, the new one with +1.
//!
//! Rows that the aggregates refuse (a sum that leaves its type) are looked for by halving and are set aside; the window has
//! all others. Where a window's results are to be given one by one, a group that cannot be computed is lost, and no other.

mod one_by_one;
mod pane;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::{Schema, SchemaRef};
use cornjacket_core::aggregate::{Relation, TumbleSpec};
use cornjacket_core::batch::Batch;
use cornjacket_core::component::OperatorSpec;
use cornjacket_core::operator::{Operator, OperatorFactory, Output, StatePart, StateWriter, Windows};
use cornjacket_core::time::{Micros, format_span};
use cornjacket_core::{Error, Result};

use pane::Pane;

/// Its entry in the registry.
pub const SPEC: OperatorSpec = OperatorSpec {
    kind: "tumble",
    summary: "Aggregates rows by key in windows that stand side by side.",
    build: |relation| match relation {
        Relation::Tumble { window, .. } => Some(Arc::new(Factory(Arc::new(window.clone())))),
        _ => None,
    },
};

#[derive(Debug)]
struct Factory(Arc<TumbleSpec>);

impl OperatorFactory for Factory {
    fn kind(&self) -> &'static str {
        SPEC.kind
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Tumble { spec: Arc::clone(&self.0), panes: BTreeMap::new(), watermark: Micros::MIN }))
    }

    fn describe(&self) -> String {
        let TumbleSpec { width, lateness, aggregation, .. } = &*self.0;
        format!("tumble {width}us lateness {lateness}us: {}", aggregation.describe())
    }

    fn summary(&self) -> String {
        let TumbleSpec { width, aggregation, .. } = &*self.0;
        let fields = aggregation.schema().fields();
        let keys: Vec<&str> = fields[..aggregation.keys()].iter().map(|field| field.name().as_str()).collect();
        let groups = if keys.is_empty() { String::new() } else { format!(" and {}", keys.join(", ")) };
        let aggregates = aggregation.summary();
        let aggregates = if aggregates.is_empty() { "the groups that there are".into() } else { aggregates };
        format!("per window of {}{groups}: {aggregates}", format_span(*width))
    }

    fn windows(&self) -> Option<Windows> {
        let TumbleSpec { width, lateness, aggregation, window_at, .. } = &*self.0;
        // The window's column went in among the keys and moved those behind it.
        let keys = (0..aggregation.keys()).map(|key| key + usize::from(key >= *window_at));
        let key = std::iter::once(*window_at).chain(keys).collect();
        Some(Windows { width: *width, lateness: *lateness, key })
    }
}

struct Tumble {
    spec: Arc<TumbleSpec>,
    /// Open panes by the start of their window.
    panes: BTreeMap<Micros, Pane>,
    watermark: Micros,
}

impl Tumble {
    fn start_of(&self, time: Micros) -> Micros {
        time - time.rem_euclid(self.spec.width)
    }

    fn end_of(&self, start: Micros) -> Micros {
        start.saturating_add(self.spec.width)
    }

    /// When a window takes no more rows.
    fn last_call(&self, start: Micros) -> Micros {
        self.end_of(start).saturating_add(self.spec.lateness)
    }

    /// Takes rows into their window; those that it refuses are set aside.
    fn absorb(&mut self, start: Micros, batch: &Batch, output: &mut Output) -> Result<()> {
        match self.pane(start)?.update(&batch.rows) {
            Ok(()) => output.absorbed += batch.num_rows() as u64,
            Err(Error::Refused(why)) if batch.num_rows() <= 1 => output.failed.push((batch.clone(), why)),
            Err(Error::Refused(_)) => {
                let (first, second) = batch.halves()?;
                self.absorb(start, &first, output)?;
                self.absorb(start, &second, output)?;
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    fn pane(&mut self, start: Micros) -> Result<&mut Pane> {
        match self.panes.entry(start) {
            std::collections::btree_map::Entry::Occupied(pane) => Ok(pane.into_mut()),
            std::collections::btree_map::Entry::Vacant(place) => Ok(place.insert(Pane::new(&self.spec)?)),
        }
    }

    /// The window of each row, and the rows that are late for theirs.
    fn assign(&self, batch: &Batch) -> Result<(Assignment, Vec<u32>)> {
        let (times, clocks) = (batch.lineage.time()?, batch.lineage.clock()?);
        let mut assignment = Assignment::default();
        let mut late = Vec::new();
        for (row, (time, clock)) in (0..).zip(times.values().iter().zip(clocks.values())) {
            let start = self.start_of(*time);
            if self.last_call(start) <= self.watermark.max(*clock) {
                late.push(row);
            } else {
                assignment.add(start, row);
            }
        }
        Ok((assignment, late))
    }

    /// The rows carry the watermark as it was before it rose and let them go: what reads them has seen no more of time than
    /// that, however far it rose, so rows that leave in time are in time for the windows of the next stream.
    fn emit(&self, start: Micros, clock: Micros, rows: pane::Emission, output: &mut Output) -> Result<()> {
        let columns = self.with_window(start, &rows.rows)?;
        let order = i64::try_from(output.epoch).unwrap_or(i64::MAX);
        output.emit(Batch::computed(columns, self.end_of(start) - 1, clock, order, rows.weight));
        Ok(())
    }

    /// What can be told of a group that is lost: its window and its keys.
    fn lost_row(&self, start: Micros, clock: Micros, keys: &RecordBatch, epoch: u64) -> Result<Batch> {
        let window = pane::window_column(&self.spec, start, self.end_of(start), keys.num_rows())?;
        let mut fields = vec![self.spec.schema.fields()[self.spec.window_at].clone()];
        fields.extend(keys.schema().fields().iter().cloned());
        let columns = std::iter::once(window).chain(keys.columns().iter().cloned()).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let order = i64::try_from(epoch).unwrap_or(i64::MAX);
        Ok(Batch::computed(rows, self.end_of(start) - 1, clock, order, None))
    }

    /// The aggregation's columns with the window's struct put in at its place.
    fn with_window(&self, start: Micros, rows: &RecordBatch) -> Result<RecordBatch> {
        let window = pane::window_column(&self.spec, start, self.end_of(start), rows.num_rows())?;
        let mut columns = rows.columns().to_vec();
        columns.insert(self.spec.window_at, window);
        Ok(RecordBatch::try_new(Arc::clone(&self.spec.schema), columns)?)
    }
}

/// Row numbers by window. Most batches have one window or two, so a short list beats a map.
#[derive(Default)]
struct Assignment {
    windows: Vec<(Micros, Vec<u32>)>,
    last: usize,
}

impl Assignment {
    fn add(&mut self, start: Micros, row: u32) {
        if self.windows.get(self.last).is_none_or(|(window, _)| *window != start) {
            self.last = self.windows.iter().position(|(window, _)| *window == start).unwrap_or_else(|| {
                self.windows.push((start, Vec::new()));
                self.windows.len() - 1
            });
        }
        self.windows[self.last].1.push(row);
    }
}

impl Operator for Tumble {
    fn on_batch(&mut self, _: usize, batch: Batch, output: &mut Output) -> Result<()> {
        let (assignment, late) = self.assign(&batch)?;
        for (start, rows) in assignment.windows {
            let all = rows.len() == batch.num_rows();
            let selected = if all { batch.clone() } else { batch.take(&UInt32Array::from(rows))? };
            self.absorb(start, &selected, output)?;
        }
        if !late.is_empty() {
            output.late.push(batch.take(&UInt32Array::from(late))?);
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Micros, output: &mut Output) -> Result<()> {
        let before = self.watermark;
        self.watermark = before.max(watermark);
        let closing: Vec<Micros> =
            self.panes.keys().copied().take_while(|s| self.end_of(*s) <= self.watermark).collect();
        for start in closing {
            let done = self.last_call(start) <= self.watermark;
            let Some(pane) = self.panes.get_mut(&start) else { continue };
            let lost = if output.one_by_one { pane.drop_what_fails()? } else { Vec::new() };
            let emission = if done { pane.close()? } else { pane.emit()? };
            if done {
                self.panes.remove(&start);
            }
            for (keys, why) in lost {
                output.lost.push((self.lost_row(start, before, &keys, output.epoch)?, why));
            }
            if let Some(rows) = emission {
                self.emit(start, before, rows, output)?;
            }
        }
        Ok(())
    }

    fn next_timer(&self) -> Option<Micros> {
        let timer = |(start, pane): (&Micros, &Pane)| {
            if pane.has_emitted() { self.last_call(*start) } else { self.end_of(*start) }
        };
        self.panes.iter().map(timer).min()
    }

    fn snapshot(&mut self, writer: &mut dyn StateWriter) -> Result<()> {
        for (start, pane) in &mut self.panes {
            pane.snapshot(*start, writer)?;
        }
        Ok(())
    }

    fn restore(&mut self, parts: Vec<StatePart>, watermark: Option<Micros>) -> Result<()> {
        self.watermark = watermark.unwrap_or(Micros::MIN);
        for part in parts {
            let (start, what) = part.label.split_once(' ').unwrap_or((&part.label, ""));
            let start = start.parse().map_err(|_| Error::Corrupt(format!("window state labelled `{}`", part.label)))?;
            let what = what.to_string();
            self.pane(start)?.restore(&what, part)?;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.panes.values().map(Pane::size).sum()
    }
}
