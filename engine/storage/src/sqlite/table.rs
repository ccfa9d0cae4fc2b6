//! A projection's table: how it is laid out, written and read.
//!
//! Columns are called `c0`, `c1`, … in the order of the projection, since `SQLite`'s column names know no case; the key's
//! text is the primary key.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use cornjacket_core::id::EventId;
use cornjacket_core::projection::{ProjectionSpec, ProjectionWrite, WriteMode};
use cornjacket_core::store::RowFilter;
use cornjacket_core::time::{Micros, timestamp_type};
use cornjacket_core::{Error, Result};
use rusqlite::types::{ToSql, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, Statement};

use super::connection::storage_error;
use super::read_schema;
use super::value::{Bound, Reading, parse};
use crate::key::key_texts;
use crate::written::Written;

/// How many rows a scan gives at a time.
const SCAN_ROWS: usize = 8_192;

/// The table's name in the file, quoted.
pub(super) fn table_name(projection: &str) -> String {
    format!("\"p_{}\"", projection.replace('"', "\"\""))
}

/// What must stay the same for the table to be used on.
pub(super) fn layout(spec: &ProjectionSpec) -> String {
    let column = |field: &std::sync::Arc<arrow::datatypes::Field>| format!("{} {}", field.name(), field.data_type());
    let columns: Vec<String> = spec.schema.fields().iter().map(column).collect();
    format!("{} by {:?}, third layout", columns.join(", "), spec.key)
}

/// The column that retention goes by.
pub(super) fn time_column(spec: &ProjectionSpec) -> String {
    spec.time.map_or_else(|| "_time".into(), |at| format!("c{at}"))
}

fn column_names(spec: &ProjectionSpec) -> Vec<String> {
    (0..spec.schema.fields().len()).map(|at| format!("c{at}")).collect()
}

pub(super) fn create(connection: &Connection, spec: &ProjectionSpec) -> Result<()> {
    let table = table_name(&spec.name);
    let columns: String = column_names(spec).iter().map(|name| format!("{name}, ")).collect();
    let sql = format!(
        "DROP TABLE IF EXISTS {table};
         CREATE TABLE {table} (_key TEXT PRIMARY KEY, {columns}_time INTEGER NOT NULL, _order INTEGER NOT NULL,
                               _event_id BLOB, _updated_at INTEGER NOT NULL) WITHOUT ROWID;"
    );
    connection.execute_batch(&sql).map_err(storage_error)?;
    if let Some(time) = spec.time {
        let index = table_name(&format!("{}_time", spec.name)).replace("\"p_", "\"i_");
        connection.execute_batch(&format!("CREATE INDEX {index} ON {table} (c{time});")).map_err(storage_error)?;
    }
    Ok(())
}

/// Puts a row in and updates one; the values have the same numbers in both. Together they are an upsert that tells which of
/// the two it did. `RETURNING` would tell as well, but then `SQLite` makes a table and a journal for each row.
struct Put<'a> {
    insert: CachedStatement<'a>,
    update: CachedStatement<'a>,
    /// Whether the last row was new. The next one probably is the same, so that is tried first.
    is_new: bool,
}

/// What became of a row.
enum Fate {
    Inserted,
    Updated,
    /// A newer one is there.
    Superseded,
}

impl<'a> Put<'a> {
    fn prepare(connection: &'a Connection, spec: &ProjectionSpec, mode: WriteMode) -> Result<Self> {
        let mut columns = vec!["_key".to_string()];
        columns.extend(column_names(spec));
        columns.extend(["_time", "_order", "_event_id", "_updated_at"].map(String::from));
        let count = columns.len();
        let table = table_name(&spec.name);
        let places: Vec<String> = (1..=count).map(|place| format!("?{place}")).collect();
        let sets: Vec<String> =
            columns.iter().zip(&places).skip(1).map(|(name, place)| format!("{name} = {place}")).collect();
        let newer = match mode {
            WriteMode::Newest => format!(" AND ({}, {}) >= (_time, _order)", places[count - 4], places[count - 3]),
            WriteMode::Changelog => String::new(),
        };
        let (columns, places) = (columns.join(", "), places.join(", "));
        let insert = format!("INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT (_key) DO NOTHING");
        let update = format!("UPDATE {table} SET {} WHERE _key = ?1{newer}", sets.join(", "));
        let prepare = |sql: &str| connection.prepare_cached(sql).map_err(storage_error);
        Ok(Self { insert: prepare(&insert)?, update: prepare(&update)?, is_new: true })
    }

    fn row(&mut self, bind: impl Fn(&mut Statement<'_>) -> Result<()>) -> Result<Fate> {
        for _ in 0..2 {
            let statement = if self.is_new { &mut self.insert } else { &mut self.update };
            bind(statement)?;
            if statement.raw_execute().map_err(storage_error)? > 0 {
                return Ok(if self.is_new { Fate::Inserted } else { Fate::Updated });
            }
            self.is_new = !self.is_new;
        }
        Ok(Fate::Superseded)
    }
}

/// Writes an epoch's rows.
pub(super) fn write(connection: &Connection, write: &ProjectionWrite, now: Micros) -> Result<Written> {
    let spec = &write.projection;
    let keys = key_texts(&write.rows, &spec.key)?;
    let columns = write.rows.columns().iter().map(Bound::new).collect::<Result<Vec<_>>>()?;
    let mut put = Put::prepare(connection, spec, write.mode)?;
    let delete = format!("DELETE FROM {} WHERE _key = ?", table_name(&spec.name));
    let mut delete = connection.prepare_cached(&delete).map_err(storage_error)?;
    let mut written = Written::default();
    for (row, key) in keys.iter().enumerate() {
        if write.weight.as_ref().is_some_and(|weight| weight.value(row) < 0) {
            match delete.execute([key]).map_err(storage_error)? {
                0 => written.superseded += 1,
                _ => written.deleted += 1,
            }
            continue;
        }
        match put.row(|statement| bind_row(statement, write, (key, now), (&columns, row)))? {
            Fate::Inserted => written.inserted += 1,
            Fate::Updated => written.updated += 1,
            Fate::Superseded => written.superseded += 1,
        }
    }
    Ok(written)
}

fn bind_row(
    put: &mut Statement<'_>,
    write: &ProjectionWrite,
    (key, now): (&str, Micros),
    (columns, row): (&[Bound], usize),
) -> Result<()> {
    let mut bind = |at: usize, value: &dyn ToSql| put.raw_bind_parameter(at, value).map_err(storage_error);
    bind(1, &key)?;
    for (at, column) in columns.iter().enumerate() {
        bind(at + 2, &column.at(row)?)?;
    }
    let rest = columns.len() + 2;
    bind(rest, &write.time.value(row))?;
    bind(rest + 1, &write.order.value(row))?;
    let id = write.event_id.as_ref().filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row));
    bind(rest + 2, &id)?;
    bind(rest + 3, &now)
}

/// The `WHERE` of a filter and its values; `None` if no row can fit.
fn condition(spec: &ProjectionSpec, filter: &RowFilter) -> Result<Option<(String, Vec<Value>)>> {
    let (mut parts, mut values) = (Vec::new(), Vec::new());
    for (at, text) in &filter.equal {
        let Some(bound) = parse(text, spec.schema.field(*at).data_type()) else { return Ok(None) };
        parts.push(format!("c{at} = ?"));
        let cell = bound.at(0)?;
        let value = cell.to_sql().map_err(storage_error)?;
        values.push(match value {
            rusqlite::types::ToSqlOutput::Borrowed(value) => {
                Value::try_from(value).map_err(|error| Error::Compute(error.to_string()))?
            }
            rusqlite::types::ToSqlOutput::Owned(value) => value,
            _ => Value::Null,
        });
    }
    let text = if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) };
    Ok(Some((text, values)))
}

fn select(spec: &ProjectionSpec, rest: &str) -> String {
    let columns: String = column_names(spec).iter().map(|name| format!("{name}, ")).collect();
    format!("SELECT {columns}_event_id, _time, _updated_at FROM {}{rest}", table_name(&spec.name))
}

/// How many rows fit a filter.
pub(super) fn count(connection: &Connection, spec: &ProjectionSpec, filter: &RowFilter) -> Result<u64> {
    let Some((condition, values)) = condition(spec, filter)? else { return Ok(0) };
    let sql = format!("SELECT count(*) FROM {}{condition}", table_name(&spec.name));
    let mut statement = connection.prepare_cached(&sql).map_err(storage_error)?;
    let count: i64 =
        statement.query_row(rusqlite::params_from_iter(values), |row| row.get(0)).map_err(storage_error)?;
    Ok(count.unsigned_abs())
}

/// Rows that fit a filter, in the order of their keys.
pub(super) fn page(
    connection: &Connection,
    spec: &ProjectionSpec,
    filter: &RowFilter,
    (limit, offset): (Option<u64>, u64),
) -> Result<RecordBatch> {
    let Some((condition, mut values)) = condition(spec, filter)? else {
        return Ok(RecordBatch::new_empty(read_schema(spec)));
    };
    values.push(Value::Integer(limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))));
    values.push(Value::Integer(i64::try_from(offset).unwrap_or(i64::MAX)));
    let sql = select(spec, &format!("{condition} ORDER BY _key LIMIT ? OFFSET ?"));
    let mut whole = None;
    read(connection, spec, (&sql, values), usize::MAX, &mut |rows| {
        whole = Some(rows);
        true
    })?;
    Ok(whole.unwrap_or_else(|| RecordBatch::new_empty(read_schema(spec))))
}

pub(super) fn by_key(connection: &Connection, spec: &ProjectionSpec, key: String) -> Result<Option<RecordBatch>> {
    let mut found = None;
    let sql = select(spec, " WHERE _key = ?");
    read(connection, spec, (&sql, vec![Value::Text(key)]), 1, &mut |rows| {
        found = Some(rows);
        false
    })?;
    Ok(found)
}

pub(super) fn scan(
    connection: &Connection,
    spec: &ProjectionSpec,
    sink: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<()> {
    read(connection, spec, (&select(spec, ""), Vec::new()), SCAN_ROWS, sink)
}

fn read(
    connection: &Connection,
    spec: &ProjectionSpec,
    (sql, values): (&str, Vec<Value>),
    batch_rows: usize,
    sink: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<()> {
    let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(storage_error)?;
    let mut reader = RowReader::new(spec);
    while let Some(row) = rows.next().map_err(storage_error)? {
        reader.push(row)?;
        if reader.rows == batch_rows {
            let full = std::mem::replace(&mut reader, RowReader::new(spec));
            if !sink(full.finish(spec)?) {
                return Ok(());
            }
        }
    }
    if reader.rows > 0 {
        sink(reader.finish(spec)?);
    }
    Ok(())
}

/// Collects rows as Arrow columns.
struct RowReader {
    columns: Vec<Reading>,
    event_id: Reading,
    event_time: Reading,
    updated_at: Reading,
    rows: usize,
}

impl RowReader {
    fn new(spec: &ProjectionSpec) -> Self {
        Self {
            columns: spec.schema.fields().iter().map(|field| Reading::new(field.data_type())).collect(),
            event_id: Reading::new(&DataType::Utf8),
            event_time: Reading::new(&timestamp_type()),
            updated_at: Reading::new(&timestamp_type()),
            rows: 0,
        }
    }

    fn push(&mut self, row: &rusqlite::Row<'_>) -> Result<()> {
        let value = |at: usize| row.get_ref(at).map_err(storage_error);
        for (at, column) in self.columns.iter_mut().enumerate() {
            column.push(value(at)?)?;
        }
        let rest = self.columns.len();
        let id = value(rest)?.as_blob_or_null().map_err(|error| Error::Corrupt(error.to_string()))?;
        let id = id.and_then(|bytes| bytes.try_into().ok()).map(|bytes| EventId(bytes).to_string());
        self.event_id.push(id.as_ref().map_or(ValueRef::Null, |id| ValueRef::Text(id.as_bytes())))?;
        // Rows of aggregates are no events, so they have no event's time.
        self.event_time.push(if id.is_some() { value(rest + 1)? } else { ValueRef::Null })?;
        self.updated_at.push(value(rest + 2)?)?;
        self.rows += 1;
        Ok(())
    }

    fn finish(self, spec: &ProjectionSpec) -> Result<RecordBatch> {
        let mut columns = self.columns.into_iter().map(Reading::finish).collect::<Result<Vec<ArrayRef>>>()?;
        columns.extend([self.event_id.finish()?, self.event_time.finish()?, self.updated_at.finish()?]);
        debug_assert!(columns.iter().all(|column| column.len() == self.rows));
        Ok(RecordBatch::try_new(read_schema(spec), columns)?)
    }
}
