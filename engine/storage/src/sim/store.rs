//! The simulated store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use cornjacket_core::dead_letter::StoredDeadLetter;
use cornjacket_core::delivery::DeliveryState;
use cornjacket_core::log::Positions;
use cornjacket_core::operator::PartId;
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::{
    EpochCommit, EpochRecord, Ledger, PipelineState, ProjectionRows, Raise, RowFilter, SetAside, Snapshot, Store,
};
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};

use super::deliveries::add_delivery;
use super::letters::add_letter;
use super::table::{Table, join};
use super::{Process, State};
use crate::key::key_text;

pub(super) struct SimStore {
    pub(super) process: Process,
}

fn table<'a>(state: &'a State, spec: &ProjectionSpec) -> Result<&'a Table> {
    state.tables.get(&spec.name).ok_or_else(|| Error::Conflict(format!("there is no projection `{}`", spec.name)))
}

impl Store for SimStore {
    fn prepare(&self, projection: &ProjectionSpec, clear: bool) -> Result<()> {
        self.process.call("prepare", |state| match state.tables.get(&projection.name) {
            Some(table) if !clear && table.spec != *projection => Err(crate::sqlite::layout_differs(&projection.name)),
            Some(_) if !clear => Ok(()),
            _ => {
                state.tables.insert(projection.name.clone(), Table::new(projection.clone()));
                Ok(())
            }
        })
    }

    fn lengths(&self) -> Result<BTreeMap<String, u64>> {
        self.process.call("lengths", |state| Ok(state.lengths.clone()))
    }

    fn reset_length(&self, sink: &str) -> Result<()> {
        self.process.call("reset_length", |state| {
            state.lengths.entry(sink.into()).and_modify(|length| *length = 0);
            Ok(())
        })
    }

    fn claim(&self, sink: &str) -> Result<()> {
        self.process.call("claim", |state| {
            state.lengths.entry(sink.into()).or_insert(0);
            Ok(())
        })
    }

    fn pipeline_state(&self) -> Result<PipelineState> {
        self.process.call("pipeline_state", |state| Ok(state.pipeline.clone()))
    }

    fn set_pipeline_state(&self, pipeline: &PipelineState, restart: bool) -> Result<()> {
        self.process.call("set_pipeline_state", |state| {
            state.pipeline = pipeline.clone();
            if restart {
                let kept = |node: &String| pipeline.kept_sinks.contains(node);
                state.counters.retain(|(node, what), _| kept(node) && what != "base" && what != "kept");
                let taken = state.counters.iter().filter(|((_, what), _)| what == "rows_in");
                let bases: Vec<_> = taken.map(|((node, _), rows)| ((node.clone(), "base".into()), *rows)).collect();
                state.counters.extend(bases);
                state.epochs.clear();
                state.raises.clear();
                state.parts.clear();
                (state.last_epoch, state.snapshot) = (None, None);
            }
            Ok(())
        })
    }

    fn commit_epoch(&self, commit: &EpochCommit) -> Result<()> {
        self.process.call("commit_epoch", |state| {
            let next = state.last_epoch.as_ref().map_or(1, |last| last.epoch + 1);
            if commit.record.epoch != next {
                return Err(crate::sqlite::epoch_out_of_order(commit.record.epoch, next));
            }
            for write in &commit.writes {
                let name = &write.projection.name;
                let table = state.tables.get_mut(name);
                let table = table.ok_or_else(|| Error::Conflict(format!("there is no projection `{name}`")))?;
                let written = table.write(write, commit.now)?;
                for (what, by) in written.counters().into_iter().filter(|(_, by)| *by != 0) {
                    *state.counters.entry((name.clone(), what.into())).or_default() += by;
                }
            }
            for letter in &commit.dead_letters {
                add_letter(state, letter, commit.now);
            }
            for delivery in &commit.deliveries {
                add_delivery(state, delivery, commit.now);
            }
            for (counter, by) in &commit.counters {
                *state.counters.entry(counter.clone()).or_default() += by;
            }
            state.lengths.extend(commit.lengths.iter().map(|(sink, length)| (sink.clone(), *length)));
            let record = commit.record.clone();
            if !record.raises.is_empty() {
                state.raises.insert(record.epoch, (record.positions.clone(), record.raises.clone()));
            }
            state.set_aside.extend(record.set_aside.iter().cloned());
            state.epochs.insert(record.epoch, record.clone());
            state.last_epoch = Some(record);
            Ok(())
        })
    }

    fn last_epoch(&self) -> Result<Option<EpochRecord>> {
        self.process.call("last_epoch", |state| Ok(state.last_epoch.clone()))
    }

    fn epochs_after(&self, epoch: u64) -> Result<Vec<EpochRecord>> {
        self.process.call("epochs_after", |state| Ok(state.epochs.range(epoch + 1..).map(|(_, r)| r.clone()).collect()))
    }

    fn save_snapshot(&self, snapshot: &Snapshot, new_parts: &[(PartId, RecordBatch)]) -> Result<()> {
        for (id, rows) in new_parts {
            self.process.call("save_part", |state| {
                state.parts.insert(*id, rows.clone());
                Ok(())
            })?;
        }
        self.process.call("save_snapshot", |state| {
            let kept: BTreeSet<PartId> = snapshot.parts.iter().copied().collect();
            state.parts.retain(|id, _| kept.contains(id));
            state.epochs.retain(|epoch, _| *epoch > snapshot.epoch);
            state.snapshot = Some(snapshot.clone());
            Ok(())
        })
    }

    fn latest_snapshot(&self) -> Result<Option<Snapshot>> {
        self.process.call("latest_snapshot", |state| Ok(state.snapshot.clone()))
    }

    fn part(&self, id: PartId) -> Result<RecordBatch> {
        self.process.call("part", |state| {
            state.parts.get(&id).cloned().ok_or_else(|| Error::Corrupt(format!("part {id} of the snapshot is missing")))
        })
    }

    fn raises(&self) -> Result<Vec<(Positions, Vec<Raise>)>> {
        self.process.call("raises", |state| Ok(state.raises.values().cloned().collect()))
    }

    fn set_aside(&self) -> Result<Vec<SetAside>> {
        self.process.call("set_aside", |state| Ok(state.set_aside.iter().cloned().collect()))
    }

    fn rows(
        &self,
        spec: &ProjectionSpec,
        filter: &RowFilter,
        limit: Option<u64>,
        offset: u64,
    ) -> Result<ProjectionRows> {
        self.process.call("rows", |state| {
            let all = table(state, spec)?.select(filter)?;
            let total = all.len() as u64;
            let skip = usize::try_from(offset).unwrap_or(usize::MAX);
            let take = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
            let page: Vec<RecordBatch> = all.into_iter().skip(skip).take(take).collect();
            Ok(ProjectionRows { rows: join(spec, &page)?, total })
        })
    }

    fn scan(&self, spec: &ProjectionSpec, sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let rows = self.rows(spec, &RowFilter::default(), None, 0)?.rows;
        if rows.num_rows() > 0 {
            sink(rows);
        }
        Ok(())
    }

    fn row(&self, spec: &ProjectionSpec, key: &[Option<String>]) -> Result<Option<RecordBatch>> {
        self.process.call("row", |state| table(state, spec)?.get(&key_text(key)))
    }

    fn ledger(&self, projections: &[Arc<ProjectionSpec>]) -> Result<Ledger> {
        self.process.call("ledger", |state| {
            let mut ledger = Ledger { counters: state.counters.clone(), ..Ledger::default() };
            if let Some(last) = &state.last_epoch {
                ledger.positions = last.positions.clone();
            }
            for spec in projections {
                let rows = table(state, spec)?.select(&RowFilter::default())?.len() as u64;
                ledger.rows.insert(spec.name.clone(), rows);
            }
            for StoredDeadLetter { letter, .. } in &state.dead_letters {
                *ledger.letters.entry((letter.source.clone(), letter.reason.clone())).or_default() += 1;
            }
            for delivery in state.deliveries.iter().filter(|delivery| delivery.state == DeliveryState::Pending) {
                *ledger.pending.entry(delivery.sink.clone()).or_default() += 1;
            }
            Ok(ledger)
        })
    }

    fn forget_rows(&self, spec: &ProjectionSpec, before: Micros, max: u64) -> Result<u64> {
        self.process.call("forget_rows", |state| {
            let forgotten = match state.tables.get_mut(&spec.name) {
                Some(table) => table.forget(before, max)?,
                None => 0,
            };
            let counted = i64::try_from(forgotten).unwrap_or(i64::MAX);
            *state.counters.entry((spec.name.clone(), "forgotten".into())).or_default() += counted;
            Ok(forgotten)
        })
    }
}
