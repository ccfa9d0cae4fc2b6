//! `stdout`: prints each row as a line of JSON, to look at a stream while writing it.
//!
//! Lines are printed after their epoch is committed, so what is seen is what is stored; a crash in between loses lines
//! from the screen, never from the pipeline. A new one starts with what comes from now on.

use std::any::Any;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use cornjacket_core::Result;
use cornjacket_core::batch::Batch;
use cornjacket_core::component::{Description, Fault, SinkContext, SinkSpec, parse_settings};
use cornjacket_core::graph::{Sink, SinkFactory, SinkOutput};
use schemars::JsonSchema;
use serde::Deserialize;

use super::rows::EpochRows;

/// Its entry in the registry.
pub const SPEC: SinkSpec = SinkSpec {
    description: Description {
        kind: "stdout",
        summary: "Prints rows as lines of JSON.",
        guarantee: "At most once around a crash: for looking at a stream, not for keeping it.",
        example: "from: sensor.reading",
        schema: || schemars::schema_for!(Settings),
    },
    parse: parse_settings::<Settings>,
    from: |settings| settings.downcast_ref::<Settings>().map_or("", |settings| &settings.from),
    build,
};

/// Settings of the stdout sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The event type or stream whose rows it prints.
    pub from: String,
}

fn build(settings: &(dyn Any + Send + Sync), context: &SinkContext) -> Result<Arc<dyn SinkFactory>, Vec<Fault>> {
    if !settings.is::<Settings>() {
        return Err(vec![Fault::new("", "these are not the settings of stdout")]);
    }
    Ok(Arc::new(Factory { schema: Arc::clone(&context.schema), updating: context.updating }))
}

#[derive(Clone, Debug)]
struct Factory {
    schema: SchemaRef,
    updating: bool,
}

impl SinkFactory for Factory {
    fn kind(&self) -> &'static str {
        SPEC.description.kind
    }

    fn starts_at_beginning(&self) -> bool {
        false
    }

    fn create(&self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Printer(self.clone())))
    }

    fn describe(&self) -> String {
        "print".into()
    }
}

struct Printer(Factory);

impl Sink for Printer {
    fn on_epoch(&mut self, _: u64, batches: Vec<Batch>) -> Result<SinkOutput> {
        if batches.is_empty() {
            return Ok(SinkOutput::default());
        }
        let columns: Vec<usize> = (0..self.0.schema.fields().len()).collect();
        let mut epoch = EpochRows::concat(&batches, &columns, &self.0.schema)?;
        if self.0.updating {
            epoch = epoch.consolidated()?;
        }
        let mut lines = json_lines(&epoch.rows)?;
        if let Some(weights) = epoch.weight.as_ref().filter(|_| self.0.updating) {
            for (line, weight) in lines.iter_mut().zip(weights.values()) {
                let operation = if *weight < 0 { "delete" } else { "insert" };
                line.insert_str(1, &format!("\"op\":\"{operation}\"{}", if line.len() > 2 { "," } else { "" }));
            }
        }
        Ok(SinkOutput { write: None, lines })
    }
}

/// Each row as a JSON object; nulls are written.
fn json_lines(rows: &RecordBatch) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    writer.write(rows)?;
    writer.finish()?;
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_string).collect())
}
