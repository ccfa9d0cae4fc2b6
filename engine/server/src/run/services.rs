//! The services of a round: an HTTP server each, on a port of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use cornjacket_compiler::Pipeline;
use cornjacket_core::door::Door;
use cornjacket_core::environment::Environment;
use cornjacket_core::store::Storage;
use cornjacket_operators::sources::http::{self as http_source, Patience};
use cornjacket_runtime::door::GroupCommit;
use cornjacket_runtime::{Changes, EngineHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::retention;
use super::sockets::Sockets;
use crate::actions::{self, Guard};
use crate::dead_letters::{self, DeadLetterService};
use crate::keys::{Keys, Scope, guard};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::query::{self, QueryService, Sight};
use crate::{audit, http};

/// What the services answer from.
pub(super) struct Books<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) storage: &'a Storage,
    pub(super) door: &'a Arc<GroupCommit>,
    pub(super) environment: &'a Environment,
    pub(super) engine: &'a EngineHandle,
    pub(super) changes: &'a Arc<Changes>,
    pub(super) memory: Memory,
    pub(super) registry: &'a prometheus::Registry,
    pub(super) guard: &'a Guard,
    pub(super) keys: Option<&'a Arc<Keys>>,
}

/// Services at work.
pub(super) struct Services {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    /// Where what can be reached, for people.
    places: Vec<String>,
}

impl Services {
    /// Starts every service that has a socket.
    pub(super) fn start(sockets: &Sockets, books: &Books<'_>, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let mut services = Self { tasks: Vec::new(), stop: watch::channel(false).0, places: Vec::new() };
        let door: Arc<dyn Door> = Arc::clone(books.door) as _;
        let clock = Arc::clone(&books.environment.clock);
        let letters = DeadLetterService::new(books.pipeline, books.storage, door, clock);
        let writes = http::patient(dead_letters::write_routes(Arc::clone(&letters)));
        let ingest = guard(ingest_routes(&services, books), books.keys, Scope::Ingest, Scope::Ingest).merge(guard(
            writes,
            books.keys,
            Scope::Admin,
            Scope::Admin,
        ));
        services.serve(sockets.ingest()?, ingest, metrics, |at| format!("events at http://{at}/api/v1/events"));
        let (status, changes) = (books.engine.status.clone(), Arc::clone(books.changes));
        let sight = Sight { status, changes, memory: books.memory, stop: services.stop.subscribe() };
        let service = QueryService::new(books.pipeline, books.storage, sight)?;
        let query = query::routes(service)
            .merge(dead_letters::read_routes(letters))
            .merge(audit::routes(Arc::clone(&books.pipeline.graph), books.storage.clone()));
        let query = guard(http::patient(query), books.keys, Scope::Query, Scope::Query);
        services.serve(sockets.query()?, query, metrics, |at| format!("queries at http://{at}/api/v1/sql"));
        let (actions, delivering) = actions::start(actions::Given {
            pipeline: books.pipeline,
            store: &books.storage.store,
            environment: books.environment,
            guard: books.guard,
            registry: books.registry,
            epochs: books.engine.status.clone(),
            stop: services.stop.subscribe(),
        })?;
        services.tasks.push(delivering);
        let place = |at| format!("deliveries at http://{at}/api/v1/deliveries");
        let actions = guard(http::patient(actions::routes(actions)), books.keys, Scope::Actions, Scope::Admin);
        services.serve(sockets.actions()?, actions, metrics, place);
        let signs = (books.engine.status.clone(), services.stop.subscribe());
        services.tasks.push(retention::start(books.pipeline, books.storage, books.environment, signs));
        Ok(services)
    }

    fn serve(
        &mut self,
        socket: Option<(TcpListener, SocketAddr)>,
        routes: Router,
        metrics: &Arc<Metrics>,
        place: impl FnOnce(SocketAddr) -> String,
    ) {
        let Some((socket, at)) = socket else { return };
        let routes = http::service(routes, Arc::clone(metrics));
        self.tasks.push(tokio::spawn(http::serve(socket, routes, self.stop.subscribe())));
        self.places.push(place(at));
    }

    /// Where what can be reached, for people.
    pub(super) fn places(&self) -> Vec<String> {
        self.places.clone()
    }

    /// Lets requests under way finish.
    pub(super) async fn stop(self) {
        // Closing the channel would end the services as well.
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

fn ingest_routes(services: &Services, books: &Books<'_>) -> Router {
    let mut routes = Router::new();
    for source in &books.pipeline.sources {
        if let Some(settings) = source.settings.downcast_ref::<http_source::Settings>() {
            let door: Arc<dyn Door> = Arc::clone(books.door) as _;
            // Batches can be as long as they like, so they are told when the service ends.
            let patience = Patience { end: Some(services.stop.subscribe()), ..Patience::default() };
            routes = routes.merge(http_source::routes_with(door, settings, &source.name, patience));
        }
    }
    routes
}
