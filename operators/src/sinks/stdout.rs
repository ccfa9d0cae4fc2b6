//! `stdout`: prints each row as a line of JSON, to look at a stream while writing it.
//!
//! Lines are printed after their epoch is committed, so what is seen is what is stored; a crash in between loses lines
//! from the screen, never from the pipeline. A new one starts with what comes from now on.

use std::any::Any;
use std::sync::Arc;

use cornjacket_core::Result;
use cornjacket_core::batch::Batch;
use cornjacket_core::component::{Description, Fault, SinkContext, SinkSpec, parse_settings};
use cornjacket_core::graph::{Sink, SinkFactory, SinkOutput};
use schemars::JsonSchema;
use serde::Deserialize;

use super::changes::{Changes, Stream, as_lines};

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
    #[schemars(example = "sensor.reading")]
    pub from: String,
}

fn build(settings: &(dyn Any + Send + Sync), context: &SinkContext) -> Result<Arc<dyn SinkFactory>, Vec<Fault>> {
    if !settings.is::<Settings>() {
        return Err(vec![Fault::new("", "these are not the settings of stdout")]);
    }
    let stream = Stream { schema: Arc::clone(&context.schema), updating: context.updating, key: context.key.clone() };
    Ok(Arc::new(Factory { stream }))
}

#[derive(Clone, Debug)]
struct Factory {
    stream: Stream,
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

    fn summary(&self) -> String {
        "prints each row as a line of JSON".into()
    }
}

struct Printer(Factory);

impl Sink for Printer {
    fn on_epoch(&mut self, _: u64, batches: Vec<Batch>) -> Result<SinkOutput> {
        if batches.is_empty() {
            return Ok(SinkOutput::default());
        }
        let lines = Changes::of(&batches, &self.0.stream)?.json_lines(self.0.stream.updating)?;
        Ok(as_lines(&batches, lines))
    }
}
