//! The forms that an answer may have, by the `Accept` header.
//!
//! JSON is one document that says whether rows were left out, so it has a limit unless told otherwise. NDJSON, CSV and
//! Arrow are for whole results: they have no place to say so and no limit of their own.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use axum::http::{HeaderMap, header};
use cornjacket_core::print::{NonFinite, column_type_name, row_objects};
use cornjacket_sql::query::QueryError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Rows of a JSON answer unless the question says otherwise.
const JSON_LIMIT: u64 = 10_000;

/// A form of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
}

const FORMATS: [(Format, &str); 4] = [
    (Format::Json, "application/json"),
    (Format::Ndjson, "application/x-ndjson"),
    (Format::Csv, "text/csv"),
    (Format::Arrow, "application/vnd.apache.arrow.stream"),
];

impl Format {
    /// The first form that the client names and that there is; JSON for one that takes anything.
    ///
    /// # Errors
    /// The forms there are, if it wants only others.
    pub fn accepted(headers: &HeaderMap) -> Result<Self, String> {
        let mut wanted = Vec::new();
        for value in headers.get_all(header::ACCEPT) {
            wanted.extend(value.to_str().unwrap_or_default().split(',').map(|item| item.trim().to_ascii_lowercase()));
        }
        if wanted.is_empty() {
            return Ok(Self::Json);
        }
        let named = |item: &String| match item.split(';').next().unwrap_or_default().trim() {
            "*/*" | "application/*" => Some(Self::Json),
            "text/*" => Some(Self::Csv),
            essence => FORMATS.iter().find(|(_, name)| *name == essence).map(|(format, _)| *format),
        };
        let known = || FORMATS.map(|(_, name)| name).join(", ");
        wanted.iter().find_map(named).ok_or_else(|| format!("an answer is one of {}", known()))
    }

    pub fn content_type(self) -> &'static str {
        FORMATS.iter().find(|(format, _)| *format == self).map_or("application/json", |(_, name)| name)
    }

    pub fn default_limit(self) -> u64 {
        if self == Self::Json { JSON_LIMIT } else { u64::MAX }
    }
}

/// Writes an answer piece by piece.
pub struct Writer {
    format: Format,
    schema: SchemaRef,
    has_rows: bool,
    arrow: Option<StreamWriter<Vec<u8>>>,
}

fn failed(error: impl std::fmt::Display) -> QueryError {
    QueryError::Failed(error.to_string())
}

impl Writer {
    /// A writer, and what stands before the rows.
    pub fn begin(format: Format, schema: &SchemaRef) -> Result<(Self, Vec<u8>), QueryError> {
        let mut writer = Self { format, schema: Arc::clone(schema), has_rows: false, arrow: None };
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let head = match format {
            Format::Json => json_head(schema),
            Format::Ndjson => Vec::new(),
            Format::Csv => csv_line(names())?,
            Format::Arrow => {
                let mut stream = StreamWriter::try_new(Vec::new(), schema).map_err(failed)?;
                let head = std::mem::take(stream.get_mut());
                writer.arrow = Some(stream);
                head
            }
        };
        Ok((writer, head))
    }

    /// Rows.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        if let Some(stream) = &mut self.arrow {
            // A stream says nothing of rows that are not there.
            if batch.num_rows() > 0 {
                stream.write(batch).map_err(failed)?;
            }
            return Ok(std::mem::take(stream.get_mut()));
        }
        let mut text = Vec::new();
        for row in row_objects(batch, NonFinite::Null).map_err(failed)? {
            match self.format {
                Format::Csv => text.extend(csv_line(self.cells(&row))?),
                Format::Ndjson => {
                    self.object(&mut text, &row).map_err(failed)?;
                    text.push(b'\n');
                }
                Format::Json | Format::Arrow => {
                    if self.has_rows {
                        text.push(b',');
                    }
                    self.object(&mut text, &row).map_err(failed)?;
                }
            }
            self.has_rows = true;
        }
        Ok(text)
    }

    /// What stands behind the rows.
    pub fn end(mut self, truncated: bool) -> Result<Vec<u8>, QueryError> {
        match self.format {
            Format::Json => Ok(format!("],\"truncated\":{truncated}}}\n").into_bytes()),
            Format::Ndjson | Format::Csv => Ok(Vec::new()),
            Format::Arrow => match self.arrow.take() {
                Some(mut stream) => {
                    stream.finish().map_err(failed)?;
                    Ok(std::mem::take(stream.get_mut()))
                }
                None => Ok(Vec::new()),
            },
        }
    }

    /// A row as an object whose members stand in the order of the columns.
    fn object(&self, text: &mut Vec<u8>, row: &Map<String, Value>) -> serde_json::Result<()> {
        for (number, field) in self.schema.fields().iter().enumerate() {
            text.push(if number == 0 { b'{' } else { b',' });
            serde_json::to_writer(&mut *text, field.name())?;
            text.push(b':');
            serde_json::to_writer(&mut *text, row.get(field.name()).unwrap_or(&Value::Null))?;
        }
        text.extend_from_slice(if self.schema.fields().is_empty() { b"{}" } else { b"}" });
        Ok(())
    }

    /// Null is empty; lists and objects are their JSON.
    fn cells(&self, row: &Map<String, Value>) -> Vec<String> {
        let cell = |field: &Arc<Field>| match row.get(field.name()) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        self.schema.fields().iter().map(cell).collect()
    }
}

fn json_head(schema: &SchemaRef) -> Vec<u8> {
    let column = |field: &Arc<Field>| json!({"name": field.name(), "type": column_type_name(field)});
    let columns: Vec<Value> = schema.fields().iter().map(column).collect();
    format!("{{\"columns\":{},\"rows\":[", Value::Array(columns)).into_bytes()
}

fn csv_line(cells: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Vec<u8>, QueryError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).map_err(failed)?;
    writer.into_inner().map_err(failed)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_form_that_is_named_and_known_is_taken() {
        let accepted = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            Format::accepted(&headers)
        };
        assert_eq!(Format::accepted(&HeaderMap::new()), Ok(Format::Json));
        assert_eq!(accepted("*/*"), Ok(Format::Json));
        assert_eq!(accepted("text/html, text/csv;q=0.5"), Ok(Format::Csv));
        assert_eq!(accepted("Application/X-NDJSON"), Ok(Format::Ndjson));
        assert_eq!(accepted("application/vnd.apache.arrow.stream"), Ok(Format::Arrow));
        assert!(accepted("text/html").is_err_and(|text| text.contains("text/csv")));
    }
}
