//! What every service's HTTP server has: limits, health, metrics, errors as JSON, and an orderly end.

mod patience;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use cornjacket_core::door::Detail;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::Layer;
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use crate::metrics::{Health, Metrics};

use patience::Attended;
pub use patience::patient;

/// Connections of one service at one time.
const CONNECTIONS: usize = 10_000;
/// How long a client may take to send a request's head, idle connections included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests under way may take to finish once the service ends.
const DRAIN: Duration = Duration::from_secs(10);

/// An error as every client gets it.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(skip)]
    pub status: StatusCode,
    pub error: String,
    pub code: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), code, details: Vec::new() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let retry = matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        let mut response = (self.status, Json(&self)).into_response();
        if retry {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// A service's routes with what all services have.
pub fn service(routes: Router, metrics: Arc<Metrics>) -> Router {
    let common = Router::new()
        .route("/health", get(healthy))
        .route("/health/live", get(healthy))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(metrics);
    routes
        .merge(common)
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method")
        })
}

/// What a client gets whose request made a handler panic.
#[derive(Clone)]
struct Panicked;

impl ResponseForPanic for Panicked {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, _: Box<dyn std::any::Any + Send>) -> Response {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this request could not be handled").into_response()
    }
}

async fn healthy() -> Json<serde_json::Value> {
    Json(json!({"status": "healthy"}))
}

async fn ready(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.health() {
        Health::Ready => Json(json!({"status": "ready"})).into_response(),
        Health::Starting => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "starting"}))).into_response(),
        Health::Failed(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "failed", "error": why}))).into_response()
        }
    }
}

async fn metrics_text(State(metrics): State<Arc<Metrics>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.text()).into_response()
}

/// Serves until `stop` says so, then lets requests under way finish.
pub async fn serve(listener: TcpListener, routes: Router, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Once around all routes; as a layer of the router it would be one around each, with boxes of its own.
    let service = CatchPanicLayer::custom(Panicked).layer(routes);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, place) = accepted;
        // Answers are small and clients wait for them.
        let _ = stream.set_nodelay(true);
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .half_close(true)
            .serve_connection(TokioIo::new(Attended::new(stream)), TowerToHyperService::new(service.clone()));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            // How a connection ends is its client's business.
            let _ = watched.await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time and were cut off");
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, tokio::sync::OwnedSemaphorePermit) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                // Out of file descriptors, mostly: connections that end make room.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What a handler ends with.
pub type Answered = std::result::Result<Response, Problem>;
