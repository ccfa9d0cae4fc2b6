//! Projections over HTTP.

use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use cornjacket_core::print::{NonFinite, column_type_name, row_objects};
use cornjacket_core::projection::ProjectionSpec;
use cornjacket_core::store::RowFilter;
use cornjacket_storage::{key_text, parse_key, stored_text};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{QueryService, after, blocking, invalid};
use crate::http::{Answered, Problem};

const DEFAULT_LIMIT: u64 = 100;
const MOST: u64 = 10_000;

pub(super) type Pairs = Query<Vec<(String, String)>>;

pub(super) fn first<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

pub(super) fn not_found() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"error": "projection not found"}))).into_response()
}

/// `GET /api/v1/projections`
pub async fn list(State(service): State<Arc<QueryService>>, pairs: Pairs, headers: HeaderMap) -> Answered {
    after::wait(&service, first(&pairs, "after"), first(&pairs, "wait"), &headers).await?;
    let mut listed = Vec::new();
    for spec in service.projections.values() {
        let (store, of) = (Arc::clone(&service.storage.store), Arc::clone(spec));
        let rows = blocking(move || store.rows(&of, &RowFilter::default(), Some(0), 0)).await?.total;
        let name = |at: &usize| spec.schema.field(*at).name().clone();
        let columns = spec.schema.fields().iter();
        let columns: Vec<Value> =
            columns.map(|field| json!({"name": field.name(), "type": column_type_name(field)})).collect();
        let key: Vec<String> = spec.key.iter().map(name).collect();
        listed.push(json!({"name": spec.name, "columns": columns, "key": key, "rows": rows}));
    }
    Ok(Json(json!({"projections": listed})).into_response())
}

/// `GET /api/v1/projections/{name}?limit&offset&filter=column=value`
pub async fn page(State(service): State<Arc<QueryService>>, uri: Uri, pairs: Pairs, headers: HeaderMap) -> Answered {
    let (name, _) = segments(&uri);
    let Some(spec) = named(&service, name) else { return Ok(not_found()) };
    after::wait(&service, first(&pairs, "after"), first(&pairs, "wait"), &headers).await?;
    let limit = number(&pairs, "limit", DEFAULT_LIMIT)?;
    if limit > MOST {
        return Err(invalid(format!("`limit` may be {MOST} at most; use `offset`, or SQL for more")));
    }
    let offset = number(&pairs, "offset", 0)?;
    let filter = filter(&spec, &pairs)?;
    let (store, of) = (Arc::clone(&service.storage.store), Arc::clone(&spec));
    let found = blocking(move || store.rows(&of, &filter, Some(limit), offset)).await?;
    let projections = objects(&spec, &found.rows)?;
    Ok(Json(json!({"projections": projections, "total": found.total, "limit": limit, "offset": offset}))
        .into_response())
}

fn number(pairs: &Pairs, name: &str, default: u64) -> Result<u64, Problem> {
    let Some(text) = first(pairs, name) else { return Ok(default) };
    text.parse().map_err(|_| invalid(format!("`{name}` must be a whole number, and `{text}` is none")))
}

fn filter(spec: &ProjectionSpec, pairs: &Pairs) -> Result<RowFilter, Problem> {
    let mut equal = Vec::new();
    for (_, text) in pairs.iter().filter(|(key, _)| key == "filter") {
        let (column, value) = text.split_once('=').ok_or_else(|| invalid("`filter` is written column=value"))?;
        let at = spec.schema.index_of(column).map_err(|_| {
            let names: Vec<&str> = spec.schema.fields().iter().map(|field| field.name().as_str()).collect();
            invalid(format!("there is no column `{column}`: available are {}", names.join(", ")))
        })?;
        equal.push((at, value_as_stored(spec, at, value)?));
    }
    Ok(RowFilter { equal })
}

/// Name and key in `/api/v1/projections/{name}/{key}` as they came: a key's parts are percent-encoded on their own, and
/// decoding the whole path would take an encoded `/` for one that separates them.
pub(super) fn segments(uri: &Uri) -> (&str, &str) {
    let mut segments = uri.path().splitn(6, '/').skip(4);
    (segments.next().unwrap_or_default(), segments.next().unwrap_or_default())
}

pub(super) fn named(service: &QueryService, raw: &str) -> Option<Arc<ProjectionSpec>> {
    let name = parse_key(raw, 1)?.pop()??;
    service.projections.get(&name).cloned()
}

/// The text under which a value of a column is kept.
fn value_as_stored(spec: &ProjectionSpec, at: usize, text: &str) -> Result<String, Problem> {
    let column = spec.schema.field(at);
    stored_text(text, column.data_type()).ok_or_else(|| {
        let kind = column_type_name(column);
        invalid(format!("`{}` is of type {kind}, and `{text}` is no value of it", column.name()))
    })
}

/// The key that a path names, its values as they are stored, however they are written in the path.
fn key_of(spec: &ProjectionSpec, raw: &str) -> Result<Vec<Option<String>>, Problem> {
    let key = parse_key(raw, spec.key.len()).ok_or_else(|| invalid("the key is not percent-encoded UTF-8"))?;
    if key.len() != spec.key.len() {
        let names: Vec<&str> = spec.key.iter().map(|at| spec.schema.field(*at).name().as_str()).collect();
        return Err(invalid(format!(
            "the key is {} values ({}), and the path has {}: join them with `/`, and write `/` in a value as %2F",
            names.len(),
            names.join(", "),
            key.len()
        )));
    }
    let stored =
        |(at, value): (&usize, Option<String>)| value.map(|text| value_as_stored(spec, *at, &text)).transpose();
    spec.key.iter().zip(key).map(stored).collect()
}

/// The key with event ids in the form that they are stored in, if it is another: a UUID may be written in either case.
fn with_event_ids(spec: &ProjectionSpec, key: &[Option<String>]) -> Option<Vec<Option<String>>> {
    let is_id = |at: usize| spec.schema.field(at).name() == "event_id";
    let canonical = |(at, value): (&usize, &Option<String>)| {
        value.as_ref().map(|text| match Uuid::parse_str(text).ok().filter(|_| is_id(*at)) {
            Some(id) => id.to_string(),
            None => text.clone(),
        })
    };
    let other: Vec<Option<String>> = spec.key.iter().zip(key).map(canonical).collect();
    (other != key).then_some(other)
}

/// `GET /api/v1/projections/{name}/{key}`
pub async fn one(State(service): State<Arc<QueryService>>, uri: Uri, pairs: Pairs, headers: HeaderMap) -> Answered {
    let (name, raw) = segments(&uri);
    let Some(spec) = named(&service, name) else { return Ok(not_found()) };
    let key = key_of(&spec, raw)?;
    after::wait(&service, first(&pairs, "after"), first(&pairs, "wait"), &headers).await?;
    let (store, of) = (Arc::clone(&service.storage.store), Arc::clone(&spec));
    let look = move || match store.row(&of, &key)? {
        None => with_event_ids(&of, &key).map_or(Ok(None), |key| store.row(&of, &key)),
        found => Ok(found),
    };
    let found = blocking(look).await?;
    let Some(rows) = found else { return Ok(not_found()) };
    match objects(&spec, &rows)?.into_iter().next() {
        Some(object) => Ok(Json(object).into_response()),
        None => Ok(not_found()),
    }
}

/// Rows in the shape that every client knows.
pub(super) fn objects(spec: &ProjectionSpec, rows: &RecordBatch) -> Result<Vec<Value>, Problem> {
    let failed = |error: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error);
    let keys = key_values(spec, rows).map_err(|error| failed(error.to_string()))?;
    let values = row_objects(rows, NonFinite::Null).map_err(|error| failed(error.to_string()))?;
    Ok(values.into_iter().zip(keys).map(|(values, key)| object(spec, values, &key)).collect())
}

fn key_values(spec: &ProjectionSpec, rows: &RecordBatch) -> cornjacket_core::Result<Vec<Vec<Option<String>>>> {
    let columns = cornjacket_storage::key_columns(rows, &spec.key)?;
    Ok((0..rows.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

fn object(spec: &ProjectionSpec, mut values: Map<String, Value>, key: &[Option<String>]) -> Value {
    let mut take = |name: &str| values.remove(name).unwrap_or(Value::Null);
    let (id, at, updated) = (take("last_event_id"), take("last_event_timestamp"), take("updated_at"));
    for at in &spec.key {
        values.remove(spec.schema.field(*at).name());
    }
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"cornjacket:projection");
    let text = key_text(key);
    let plain: Vec<&str> = key.iter().map(|value| value.as_deref().unwrap_or("~")).collect();
    json!({
        "projection_id": Uuid::new_v5(&namespace, format!("{}/{text}", spec.name).as_bytes()).to_string(),
        "projection_type": spec.name,
        "aggregate_id": plain.join("/"),
        "state": values,
        "last_event_id": id,
        "last_event_timestamp": at,
        "updated_at": updated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_key_are_read_from_the_raw_path() {
        for (path, expected) in [
            ("/api/v1/projections/a", ("a", "")),
            ("/api/v1/projections/a/b%2Fc/d?after=x", ("a", "b%2Fc/d")),
            ("/api/v1/projections/a/b/", ("a", "b/")),
            ("/api/v1/projections/a/", ("a", "")),
            ("/api/v1/projections/a//", ("a", "/")),
        ] {
            let uri: Uri = path.parse().expect("a path");
            assert_eq!(segments(&uri), expected);
        }
    }
}
