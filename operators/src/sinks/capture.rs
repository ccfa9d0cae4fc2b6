//! What a test of a pipeline looks at: the rows of a stream, kept in memory.
//!
//! It is no kind that a pipeline file can name: tests put it in the place of sinks that reach outside. It is an outlet as
//! files are, so what an epoch that was never committed gave is cut off again.

use std::collections::BTreeMap;
use std::sync::Arc;

use cornjacket_core::Result;
use cornjacket_core::batch::Batch;
use cornjacket_core::component::SinkContext;
use cornjacket_core::graph::{Outlet, Sink, SinkFactory, SinkOutput};
use parking_lot::Mutex;

use super::changes::{Changes, Stream, as_lines};

/// The rows of every capture, as JSON with `op`, by the name of what is looked at. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Captured(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Captured {
    /// The rows of a capture, from the first.
    #[must_use]
    pub fn rows(&self, name: &str) -> Vec<String> {
        self.0.lock().get(name).cloned().unwrap_or_default()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// The sink that keeps the rows of a stream.
    #[must_use]
    pub fn sink(&self, context: &SinkContext) -> Arc<dyn SinkFactory> {
        let stream =
            Stream { schema: Arc::clone(&context.schema), updating: context.updating, key: context.key.clone() };
        Arc::new(Factory { name: context.name.clone(), stream, captured: self.clone() })
    }
}

#[derive(Clone, Debug)]
struct Factory {
    name: String,
    stream: Stream,
    captured: Captured,
}

impl SinkFactory for Factory {
    fn kind(&self) -> &'static str {
        "capture"
    }

    fn starts_at_beginning(&self) -> bool {
        true
    }

    fn create(&self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(self.clone()))
    }

    fn outlet(&self, committed: Option<u64>) -> Result<Option<Box<dyn Outlet>>> {
        let length = usize::try_from(committed.unwrap_or(0)).unwrap_or(usize::MAX);
        self.captured.0.lock().entry(self.name.clone()).or_default().truncate(length);
        Ok(Some(Box::new(self.clone())))
    }

    fn describe(&self) -> String {
        "capture".into()
    }
}

impl Sink for Factory {
    fn on_epoch(&mut self, _: u64, batches: Vec<Batch>) -> Result<SinkOutput> {
        if batches.is_empty() {
            return Ok(SinkOutput::default());
        }
        let lines = Changes::of(&batches, &self.stream)?.json_lines(true)?;
        Ok(as_lines(&batches, lines))
    }
}

impl Outlet for Factory {
    /// The length is in lines.
    fn write(&mut self, length: u64, lines: &[String]) -> Result<u64> {
        let mut captured = self.captured.0.lock();
        let rows = captured.entry(self.name.clone()).or_default();
        rows.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        rows.extend_from_slice(lines);
        Ok(rows.len() as u64)
    }
}
