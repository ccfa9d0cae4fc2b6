//! Tables whose rows are in the process that started this one.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use cornjacket_core::{Error, Result};
use cornjacket_sql::query::TableSource;

use super::link::{Link, Part};

/// A table by its number.
pub struct RemoteTable {
    number: usize,
    schema: SchemaRef,
    link: Arc<Link>,
}

impl RemoteTable {
    pub fn new(number: usize, schema: SchemaRef, link: Arc<Link>) -> Self {
        Self { number, schema, link }
    }
}

impl TableSource for RemoteTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn scan(&self, projection: &[usize], sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let (scan, parts) = self.link.open(self.number, projection);
        let mut decoder = StreamDecoder::new();
        while let Ok(part) = parts.recv() {
            let (count, bytes) = match part {
                Part::Rows { count, bytes } => (count, bytes),
                Part::End(None) => return Ok(()),
                Part::End(Some(error)) => return Err(Error::Compute(error)),
            };
            self.link.more(scan);
            let goes_on = if projection.is_empty() {
                let options = RecordBatchOptions::new().with_row_count(Some(count));
                sink(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?)
            } else {
                give(&mut decoder, bytes, sink)?
            };
            if !goes_on {
                self.link.close(scan);
                return Ok(());
            }
        }
        Err(Error::Closed)
    }
}

/// Gives what is whole by now; false where no more is wanted.
fn give(decoder: &mut StreamDecoder, bytes: Vec<u8>, sink: &mut dyn FnMut(RecordBatch) -> bool) -> Result<bool> {
    let mut bytes = Buffer::from_vec(bytes);
    while let Some(rows) = decoder.decode(&mut bytes)? {
        if !sink(rows) {
            return Ok(false);
        }
    }
    Ok(true)
}
