//! Retention: what topics and projections keep only for a time is deleted when that is over, and so are dead letters that
//! somebody has settled.
//!
//! Events are deleted no further than the latest snapshot reaches, since recovery reads on from there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cornjacket_compiler::Pipeline;
use cornjacket_core::Result;
use cornjacket_core::environment::Environment;
use cornjacket_core::graph::NodeKind;
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::Storage;
use cornjacket_core::time::{Micros, SECOND};
use cornjacket_runtime::Status;
use tokio::sync::watch;

use crate::metrics::has_recovered;

/// How often it is looked for what is over.
const EVERY: Duration = Duration::from_secs(20);
/// How many rows one transaction deletes at most, so that no epoch waits long for it.
const ROWS: u64 = 5_000;
/// For how long a dead letter is kept that was replayed or discarded.
const SETTLED_LETTERS: Micros = 30 * 86_400 * SECOND;

/// Deletes what is over.
struct Retention {
    storage: Storage,
    environment: Environment,
    topics: BTreeMap<String, Micros>,
    projections: Vec<(Arc<ProjectionSpec>, Micros)>,
}

/// Starts the work; it ends when told.
pub(super) fn start(
    pipeline: &Pipeline,
    storage: &Storage,
    environment: &Environment,
    (status, mut stop): (watch::Receiver<Arc<Status>>, watch::Receiver<bool>),
) -> tokio::task::JoinHandle<()> {
    let projections = pipeline.graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Sink(factory) => Some((factory.projection()?, factory.retain()?)),
        _ => None,
    });
    let retention = Arc::new(Retention {
        storage: storage.clone(),
        environment: environment.clone(),
        topics: pipeline.catalogue.retain.clone(),
        projections: projections.collect(),
    });
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                // Without its sender nobody would tell.
                _ = stop.wait_for(|stop| *stop) => return,
            }
            // Tables are laid out, and what is to be built anew is known, only then.
            if !has_recovered(&status) {
                continue;
            }
            let (work, until) = (Arc::clone(&retention), stop.clone());
            let outcome = tokio::task::spawn_blocking(move || work.pass(&|| *until.borrow())).await;
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "what is past its retention cannot be deleted yet"),
                Err(error) => tracing::error!(%error, "what is past its retention could not be looked for"),
            }
        }
    })
}

impl Retention {
    fn pass(&self, is_told_to_end: &dyn Fn() -> bool) -> Result<()> {
        let now = self.environment.clock.now();
        if let Some(snapshot) = self.storage.store.latest_snapshot()?.filter(|_| !self.topics.is_empty()) {
            let before = self.topics.iter().map(|(topic, retain)| (topic.clone(), now - retain)).collect();
            while !is_told_to_end() && self.storage.log.forget(&before, &snapshot.positions)? > 0 {}
        }
        for (spec, retain) in &self.projections {
            while !is_told_to_end() && self.storage.store.forget_rows(spec, now - retain, ROWS)? == ROWS {}
        }
        while !is_told_to_end() && self.storage.store.forget_dead_letters(now - SETTLED_LETTERS, ROWS)? == ROWS {}
        Ok(())
    }
}
