//! `/api/v1/actions` and `/api/v1/deliveries`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use cornjacket_core::delivery::{Action, Delivery, DeliveryFilter, DeliveryState};
use cornjacket_core::store::Ledger;
use cornjacket_core::time::{Micros, format_rfc3339};
use serde_json::{Map, Value, json};

use super::Actions;
use crate::http::{Answered, Problem};

const DEFAULT_LIMIT: u64 = 100;
const MOST: u64 = 10_000;

/// The service's routes.
pub fn routes(service: Arc<Actions>) -> Router {
    Router::new()
        .route("/api/v1/actions", get(actions))
        .route("/api/v1/deliveries", get(list))
        .route("/api/v1/deliveries/{id}", get(one))
        .route("/api/v1/deliveries/{id}/redeliver", post(redeliver))
        .with_state(service)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> cornjacket_core::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let failed = |text: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", text);
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
}

fn not_found(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "delivery_not_found", format!("there is no delivery `{id}`"))
}

/// `GET /api/v1/actions`
async fn actions(State(service): State<Arc<Actions>>) -> Answered {
    let store = Arc::clone(&service.store);
    let ledger = blocking(move || store.ledger(&[])).await?;
    let shown = service.sinks.iter().map(|(sink, action)| action_object(sink, action, &ledger));
    Ok(Json(json!({"actions": shown.collect::<Vec<_>>()})).into_response())
}

fn action_object(sink: &str, action: &Action, ledger: &Ledger) -> Value {
    let count = |what: &str| ledger.counters.get(&(sink.to_string(), what.to_string())).copied().unwrap_or(0);
    let is_on = action.url.is_some();
    json!({
        "name": sink,
        "kind": "webhook",
        "from": action.from,
        "state": if is_on { "on" } else { "off" },
        // A URL's path and query are often the secret itself.
        "endpoint": is_on.then_some(&action.endpoint),
        "signed": !action.keys.is_empty(),
        "pending": ledger.pending.get(sink).copied().unwrap_or(0),
        "delivered": count("written"),
        "dead": count("dead"),
        "suppressed": count("suppressed"),
    })
}

/// `GET /api/v1/deliveries?status&action&limit`
async fn list(State(service): State<Arc<Actions>>, Query(pairs): Query<Vec<(String, String)>>) -> Answered {
    let (mut filter, mut limit) = (DeliveryFilter::default(), DEFAULT_LIMIT);
    for (name, value) in pairs {
        match name.as_str() {
            "status" => {
                let state = DeliveryState::parse(&value);
                filter.state = Some(state.ok_or_else(|| invalid("`status` is pending, delivered or dead"))?);
            }
            "action" if service.sinks.iter().any(|(sink, _)| *sink == value) => filter.sink = Some(value),
            "action" => return Err(invalid(format!("there is no action `{value}`"))),
            "limit" => {
                let number = value.parse().ok().filter(|limit| *limit <= MOST);
                limit = number.ok_or_else(|| invalid(format!("`limit` must be a whole number up to {MOST}")))?;
            }
            _ => return Err(invalid(format!("there is no parameter `{name}`; known are status, action, limit"))),
        }
    }
    let store = Arc::clone(&service.store);
    let found = blocking(move || store.deliveries(&filter, limit)).await?;
    let shown: Vec<Value> = found.iter().map(|delivery| Value::Object(object(delivery))).collect();
    Ok(Json(json!({"deliveries": shown, "limit": limit})).into_response())
}

/// `GET /api/v1/deliveries/{id}`: one, with its body.
async fn one(State(service): State<Arc<Actions>>, Path(id): Path<String>) -> Answered {
    let (store, wanted) = (Arc::clone(&service.store), id.clone());
    let Some(delivery) = blocking(move || store.delivery(&wanted)).await? else { return Err(not_found(&id)) };
    let mut object = object(&delivery);
    object.insert("body".into(), String::from_utf8_lossy(&delivery.body).into());
    Ok(Json(object).into_response())
}

/// `POST /api/v1/deliveries/{id}/redeliver`: makes one due at once, with its id and body as they are.
async fn redeliver(State(service): State<Arc<Actions>>, Path(id): Path<String>) -> Answered {
    let (store, wanted) = (Arc::clone(&service.store), id.clone());
    let Some(delivery) = blocking(move || store.delivery(&wanted)).await? else { return Err(not_found(&id)) };
    let sink = &delivery.sink;
    if !service.sinks.iter().any(|(name, action)| name == sink && action.url.is_some()) {
        let message = format!("`{sink}` is off or no longer in the file, so nobody would send delivery `{id}`");
        return Err(Problem::new(StatusCode::CONFLICT, "action_is_off", message));
    }
    let (store, wanted, now) = (Arc::clone(&service.store), id.clone(), service.environment.clock.now());
    if !blocking(move || store.redeliver(&wanted, now)).await? {
        return Err(not_found(&id));
    }
    service.asked.send_modify(|times| *times += 1);
    Ok((StatusCode::ACCEPTED, Json(json!({"id": id, "status": DeliveryState::Pending.as_str()}))).into_response())
}

fn object(delivery: &Delivery) -> Map<String, Value> {
    let time = |time: Option<Micros>| time.map(format_rfc3339).map_or(Value::Null, Value::from);
    let is_pending = delivery.state == DeliveryState::Pending;
    let object = json!({
        "id": delivery.id,
        "action": delivery.sink,
        "status": delivery.state.as_str(),
        "created_at": time(Some(delivery.created_at)),
        "row_time": time(Some(delivery.row_time)),
        "event_id": delivery.event_id,
        "attempts": delivery.attempts,
        "next_attempt_at": time(is_pending.then_some(delivery.next_at)),
        "last_attempt_at": time(delivery.last_at),
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
        "settled_at": time(delivery.settled_at),
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
