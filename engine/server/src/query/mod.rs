//! The query service: projections, and SQL over everything.

mod after;
mod arrivals;
mod changes;
mod events;
mod format;
mod live;
mod projections;
mod records;
mod sql;
mod tables;
pub mod worker;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use cornjacket_compiler::Pipeline;
use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::graph::NodeKind;
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::Storage;
use cornjacket_runtime::{Changes, Status};
use tokio::sync::watch;

use self::live::Live;
use self::workers::{Limits, Workers};
use crate::http::Problem;
use crate::memory::Memory;

/// What the handlers share.
pub struct QueryService {
    storage: Storage,
    catalogue: Arc<Catalogue>,
    projections: BTreeMap<String, Arc<ProjectionSpec>>,
    workers: Workers,
    status: watch::Receiver<Arc<Status>>,
    changes: Arc<Changes>,
    live: Live,
    /// Tells this process and round from others.
    run: String,
}

/// What the service reads beside the storage.
pub struct Sight {
    /// The engine's status.
    pub status: watch::Receiver<Arc<Status>>,
    /// What it changed.
    pub changes: Arc<Changes>,
    /// How much memory there is.
    pub memory: Memory,
    /// Says when the service ends.
    pub stop: watch::Receiver<bool>,
}

impl QueryService {
    /// A service over a pipeline's storage.
    pub fn new(
        pipeline: &Pipeline,
        storage: &Storage,
        Sight { status, changes, memory, stop }: Sight,
    ) -> anyhow::Result<Arc<Self>> {
        let specs = pipeline.graph.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Sink(sink) => sink.projection(),
            _ => None,
        });
        let projections: BTreeMap<_, _> = specs.map(|spec| (spec.name.clone(), spec)).collect();
        let tables = tables::of(pipeline, &projections, storage, &status)?;
        Ok(Arc::new(Self {
            storage: storage.clone(),
            catalogue: Arc::clone(&pipeline.catalogue),
            projections,
            workers: Workers::new(tables, Limits::with_memory(memory.for_queries()))?,
            status,
            changes,
            live: Live::new(stop),
            run: format!("{:016x}", rand::random::<u64>()),
        }))
    }
}

/// The service's routes.
pub fn routes(service: Arc<QueryService>) -> Router {
    Router::new()
        .route("/api/v1/projections", get(projections::list))
        .route("/api/v1/projections/{name}", get(projections::page))
        .route("/api/v1/projections/{name}/changes", get(changes::follow))
        // The key that is the empty text; a wildcard stands for something.
        .route("/api/v1/projections/{name}/", get(projections::one))
        .route("/api/v1/projections/{name}/{*key}", get(projections::one))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/events/{id}", get(events::one))
        .route("/api/v1/sql", post(sql::answer))
        .with_state(service)
}

/// A parameter is wrong.
fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
}

/// Runs something that may block on storage.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> cornjacket_core::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let outcome = tokio::task::spawn_blocking(work).await;
    let failed = |text: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", text);
    outcome.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}
