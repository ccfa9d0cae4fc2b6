//! `projection`: a table that is kept up to date from the stream and can be queried by anyone.
//!
//! Rows are written in the epoch's transaction together with the position that they reflect, so the table is exact after
//! any crash. From events and from streams that only add rows, the newest row of each key stays: the greater event time
//! wins, then the later offset. A stream that takes rows back is applied as a changelog.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use cornjacket_core::Result;
use cornjacket_core::batch::Batch;
use cornjacket_core::catalogue::ENVELOPE;
use cornjacket_core::component::{Description, Fault, SinkContext, SinkSpec, parse_settings};
use cornjacket_core::graph::{Sink, SinkFactory, SinkOutput};
use cornjacket_core::projection::{ProjectionSpec, ProjectionWrite, WriteMode};
use cornjacket_core::setting::Span;
use cornjacket_core::time::{Micros, SECOND};
use schemars::JsonSchema;
use serde::Deserialize;

use super::rows::EpochRows;

/// Its entry in the registry.
pub const SPEC: SinkSpec = SinkSpec {
    description: Description {
        kind: "projection",
        summary: "Keeps a table of the newest row per key, for queries.",
        guarantee: "Effectively once: rows are written in one transaction with the position they reflect. While the store \
                    cannot be written the pipeline waits; nothing is skipped.",
        example: "from: sensor.reading\nkey: [aggregate_id]",
        schema: || schemars::schema_for!(Settings),
    },
    parse: parse_settings::<Settings>,
    from: |settings| settings.downcast_ref::<Settings>().map_or("", |settings| &settings.from),
    build,
};

/// Settings of a projection.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The event type or stream whose rows it keeps.
    #[schemars(example = "sensor.reading")]
    pub from: String,
    /// The columns that identify a row; at least one.
    #[schemars(length(min = 1), example = ["device", "window_start"])]
    pub key: Vec<String>,
    /// The time column that queries and retention go by.
    #[serde(default)]
    #[schemars(example = &"window_start")]
    pub time: Option<String>,
    /// For how long rows are kept, by the time column, or else by the row's time; for ever unless set.
    #[serde(default)]
    #[schemars(example = &"30d")]
    pub retain: Option<Span>,
}

/// For less than this nobody could look at a row.
const LEAST_RETAINED: Micros = 60 * SECOND;

fn build(settings: &(dyn Any + Send + Sync), context: &SinkContext) -> Result<Arc<dyn SinkFactory>, Vec<Fault>> {
    let Some(settings) = settings.downcast_ref::<Settings>() else {
        return Err(vec![Fault::new("", "these are not the settings of a projection")]);
    };
    let mut faults = key_faults(settings, context);
    if let Some(time) = &settings.time {
        faults.extend(time_fault(time, context));
    }
    if let Some(retain) = settings.retain.filter(|retain| retain.0 < LEAST_RETAINED) {
        let message = format!("rows cannot be kept for only {retain}");
        faults.push(Fault::new("retain", message).with_hint("write a span of at least 1m, such as 30d"));
    }
    let columns = columns(settings, context);
    faults.extend(columns.iter().filter_map(|at| reserved_fault(context.schema.field(*at).name())));
    if !faults.is_empty() {
        return Err(faults);
    }
    let schema = Arc::new(context.schema.project(&columns).unwrap_or_else(|_| Schema::empty()));
    let position = |name: &String| schema.index_of(name).ok();
    let spec = ProjectionSpec {
        name: context.name.clone(),
        key: settings.key.iter().filter_map(position).collect(),
        time: settings.time.as_ref().and_then(position),
        schema,
    };
    let retain = settings.retain.map(|retain| retain.0);
    Ok(Arc::new(Factory { spec: Arc::new(spec), columns, updating: context.updating, retain }))
}

/// Every row of a projection has these beside its columns.
fn reserved_fault(name: &str) -> Option<Fault> {
    let reserved = ["last_event_id", "last_event_timestamp", "updated_at"].contains(&name);
    let message = format!("every row of a projection has a column `{name}` already");
    let hint = format!("read from a stream that gives it another name: SELECT {name} AS own_{name}, …");
    reserved.then(|| Fault::new("from", message).with_hint(hint))
}

fn key_faults(settings: &Settings, context: &SinkContext) -> Vec<Fault> {
    if settings.key.is_empty() {
        let hint = "name the columns that identify a row, such as key: [aggregate_id]";
        return vec![Fault::new("key", "a projection needs a key").with_hint(hint)];
    }
    let fault = |(index, name): (usize, &String)| {
        if settings.key[..index].contains(name) {
            return Some(
                Fault::new("key", format!("`{name}` is in the key twice")).at(index).with_hint("leave one of them out"),
            );
        }
        match context.schema.field_with_name(name) {
            Err(_) => Some(unknown_column("key", name, context).at(index)),
            Ok(field) if field.data_type().is_nested() => {
                let message = format!("`{name}` is a {}, which cannot be part of a key", field.data_type());
                Some(
                    Fault::new("key", message).at(index).with_hint("SELECT a plain field of it as a column of its own"),
                )
            }
            Ok(_) => None,
        }
    };
    settings.key.iter().enumerate().filter_map(fault).collect()
}

fn time_fault(time: &str, context: &SinkContext) -> Option<Fault> {
    match context.schema.field_with_name(time) {
        Err(_) => Some(unknown_column("time", time, context)),
        Ok(field) if !matches!(field.data_type(), DataType::Timestamp(..)) => {
            let message = format!("`{time}` is a {}, not a time", field.data_type());
            Some(Fault::new("time", message).with_hint("name a column of type timestamp, such as event_time"))
        }
        Ok(_) => None,
    }
}

fn unknown_column(setting: &str, name: &str, context: &SinkContext) -> Fault {
    let columns = context.schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
    let available = columns.collect::<Vec<_>>().join(", ");
    Fault::new(setting, format!("there is no column `{name}`")).with_hint(format!("available: {available}"))
}

/// Which columns of the input the table has. Of an event type: the key and the payload's fields, since every row has the
/// event's id and time beside its columns; without declared fields, the payload's text.
fn columns(settings: &Settings, context: &SinkContext) -> Vec<usize> {
    let named = |at: &usize| context.schema.field(*at).name();
    let all = 0..context.schema.fields().len();
    let Some(event_type) = &context.event_type else { return all.collect() };
    let payload_text = ENVELOPE.len() - 1;
    let is_state = |at: &usize| *at > payload_text || (*at == payload_text && event_type.fields.is_empty());
    all.filter(|at| is_state(at) || settings.key.contains(named(at)) || settings.time.as_ref() == Some(named(at)))
        .collect()
}

#[derive(Debug)]
struct Factory {
    spec: Arc<ProjectionSpec>,
    columns: Vec<usize>,
    updating: bool,
    retain: Option<Micros>,
}

impl SinkFactory for Factory {
    fn kind(&self) -> &'static str {
        SPEC.description.kind
    }

    fn projection(&self) -> Option<Arc<ProjectionSpec>> {
        Some(Arc::clone(&self.spec))
    }

    fn retain(&self) -> Option<Micros> {
        self.retain
    }

    fn reads(&self) -> Option<Vec<usize>> {
        Some(self.columns.clone())
    }

    fn starts_at_beginning(&self) -> bool {
        true
    }

    fn create(&self) -> Result<Box<dyn Sink>> {
        let Self { spec, columns, updating, .. } = self;
        Ok(Box::new(ProjectionSink { spec: Arc::clone(spec), columns: columns.clone(), updating: *updating }))
    }

    fn describe(&self) -> String {
        let column = |at: &usize| self.spec.schema.field(*at).name().as_str();
        let key = self.spec.key.iter().map(column).collect::<Vec<_>>().join(", ");
        let mode = if self.updating { "changelog" } else { "newest row" };
        let types = self.spec.schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type()));
        format!("{mode} per {key} of ({})", types.collect::<Vec<_>>().join(", "))
    }

    fn summary(&self) -> String {
        let column = |at: &usize| self.spec.schema.field(*at).name().as_str();
        let key = self.spec.key.iter().map(column).collect::<Vec<_>>().join(", ");
        if self.updating {
            return format!("keeps a table with a row per {key}, as the changelog says");
        }
        format!("keeps a table with the newest row per {key}")
    }
}

struct ProjectionSink {
    spec: Arc<ProjectionSpec>,
    columns: Vec<usize>,
    updating: bool,
}

impl Sink for ProjectionSink {
    fn on_epoch(&mut self, _: u64, batches: Vec<Batch>) -> Result<SinkOutput> {
        if batches.is_empty() {
            return Ok(SinkOutput::default());
        }
        let taken: usize = batches.iter().map(Batch::num_rows).sum();
        let rows = EpochRows::concat(&batches, &self.columns, &self.spec.schema)?;
        let (rows, mode) = if self.updating {
            (rows.consolidated()?, WriteMode::Changelog)
        } else {
            (rows.newest(&self.spec.key)?, WriteMode::Newest)
        };
        let EpochRows { rows, time, order, event_id, weight } = rows;
        let projection = Arc::clone(&self.spec);
        Ok(SinkOutput {
            superseded: (taken - rows.num_rows()) as u64,
            write: Some(ProjectionWrite { projection, mode, rows, time, order, event_id, weight }),
            ..SinkOutput::default()
        })
    }
}
