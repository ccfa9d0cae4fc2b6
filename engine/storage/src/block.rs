//! Blocks: what one commit stored, as bytes.
//!
//! The body holds one Arrow IPC stream an event type, LZ4-compressed if it has many rows, its rows sorted by partition; the
//! footer says where each partition lies in it. Offsets are kept in the footer: the first one where they are dense (a partition of one
//! type), all of them where they are not. A reader names the columns it wants, and the others are never decompressed.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::compute::{cast, concat, concat_batches};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{
    DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, StreamWriter, write_message,
};
use cornjacket_core::catalogue::{Catalogue, EventType};
use cornjacket_core::log::{Chunk, Columns, Positions, TopicPartition};
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::checksum::{checksum, is_sound, open_stream, seal};
use crate::side_by_side::side_by_side;
use crate::split::Segment;

/// Where a partition's rows of one event type lie in a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) partition: u32,
    /// First row within the type's stream.
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Every offset, where they are not dense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offsets: Option<Vec<i64>>,
}

impl Span {
    pub(crate) fn offsets(&self) -> Int64Array {
        match &self.offsets {
            Some(offsets) => offsets.clone().into(),
            None => (self.first..=self.last).collect::<Vec<_>>().into(),
        }
    }
}

/// The stream of one event type in a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TypeIndex {
    pub(crate) event_type: String,
    pub(crate) topic: String,
    /// Bytes of the body.
    pub(crate) start: usize,
    pub(crate) length: usize,
    pub(crate) spans: Vec<Span>,
    /// Of those bytes; what older versions wrote has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) xxh64: Option<u64>,
}

impl TypeIndex {
    /// Its bytes of a block's body, as they were written.
    pub(crate) fn bytes<'a>(&self, body: &'a [u8]) -> Result<&'a [u8]> {
        let end = self.start.saturating_add(self.length);
        let bytes = body.get(self.start..end);
        let bytes =
            bytes.ok_or_else(|| Error::Corrupt(format!("it is shorter than its index of {}", self.event_type)))?;
        if self.xxh64.is_some_and(|sum| sum != checksum(0, bytes)) {
            return Err(Error::Corrupt(format!("the checksum of its events {} does not hold", self.event_type)));
        }
        Ok(bytes)
    }

    pub(crate) fn rows(&self) -> usize {
        self.spans.iter().map(|span| span.rows).sum()
    }

    /// How many of its rows lie before a position.
    pub(crate) fn rows_before(&self, until: &Positions) -> usize {
        let topic: Arc<str> = self.topic.as_str().into();
        let before = |span: &Span| {
            let end = until.get(&TopicPartition { topic: Arc::clone(&topic), partition: span.partition });
            match &span.offsets {
                Some(offsets) => offsets.partition_point(|offset| *offset < end),
                None => usize::try_from(end - span.first).unwrap_or(0).min(span.rows),
            }
        };
        self.spans.iter().map(before).sum()
    }
}

/// What a block's body holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footer {
    pub(crate) types: Vec<TypeIndex>,
}

impl Footer {
    pub(crate) fn rows(&self) -> usize {
        self.types.iter().map(TypeIndex::rows).sum()
    }

    /// As it is stored beside its body: sealed together with the block's number and times.
    pub(crate) fn to_text(&self, place: (i64, Micros, Micros)) -> String {
        seal(&serde_json::to_string(self).unwrap_or_default(), seed(place))
    }

    /// Reads what [`Footer::to_text`] wrote.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is not what was written there.
    pub(crate) fn from_text(text: &str, place: (i64, Micros, Micros)) -> Result<Self> {
        if !is_sound(text, seed(place)) {
            return Err(Error::Corrupt("the checksum of its footer does not hold".into()));
        }
        serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("its footer: {error}")))
    }

    /// How far it reaches in each partition: the offset after its last row there, of whichever type that is.
    pub(crate) fn ends(&self) -> BTreeMap<TopicPartition, i64> {
        let mut ends = BTreeMap::new();
        for index in &self.types {
            let topic: Arc<str> = index.topic.as_str().into();
            for span in &index.spans {
                let at = TopicPartition { topic: Arc::clone(&topic), partition: span.partition };
                let end = ends.entry(at).or_insert(i64::MIN);
                *end = (*end).max(span.last + 1);
            }
        }
        ends
    }
}

fn seed((seq, first_at, last_at): (i64, Micros, Micros)) -> u64 {
    checksum(0, format!("{seq} {first_at} {last_at}").as_bytes())
}

/// Lays segments out as a block. Segments of one event type and partition are in the order of their offsets.
pub(crate) fn encode(segments: &[Segment]) -> Result<(Footer, Vec<u8>)> {
    let mut types: BTreeMap<String, RecordBatch> = BTreeMap::new();
    for (name, segments) in by_type(segments) {
        let rows = segments.iter().map(|segment| &segment.rows);
        types.insert(name.into(), concat_batches(&segments[0].rows.schema(), rows)?);
    }
    encode_types(segments, &types)
}

/// As [`encode`], with the rows of each type's segments in one batch, in the order of their partitions.
pub(crate) fn encode_types(segments: &[Segment], types: &BTreeMap<String, RecordBatch>) -> Result<(Footer, Vec<u8>)> {
    let (mut footer, mut body) = (Footer::default(), Vec::new());
    for ((name, segments), rows) in by_type(segments).into_iter().zip(types.values()) {
        let start = body.len();
        write_stream(rows, &mut body)?;
        footer.types.push(TypeIndex {
            event_type: name.into(),
            topic: segments[0].at.topic.to_string(),
            start,
            length: body.len() - start,
            spans: spans(&segments)?,
            xxh64: Some(checksum(0, &body[start..])),
        });
    }
    Ok((footer, body))
}

/// Segments by the names of their types, in the order of their partitions.
fn by_type(segments: &[Segment]) -> BTreeMap<&str, Vec<&Segment>> {
    let mut by_type: BTreeMap<&str, Vec<&Segment>> = BTreeMap::new();
    for segment in segments {
        by_type.entry(&segment.event_type.name).or_default().push(segment);
    }
    for segments in by_type.values_mut() {
        segments.sort_by_key(|segment| segment.at.partition);
    }
    by_type
}

fn spans(segments: &[&Segment]) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    let mut row = 0;
    for run in segments.chunk_by(|a, b| a.at.partition == b.at.partition) {
        let columns: Vec<&dyn arrow::array::Array> = run.iter().map(|segment| &segment.offsets as _).collect();
        let offsets = concat(&columns)?;
        let offsets = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&offsets).values().to_vec();
        let (Some(first), Some(last)) = (offsets.first().copied(), offsets.last().copied()) else { continue };
        let rows = offsets.len();
        let dense = usize::try_from(last - first).is_ok_and(|span| span + 1 == rows);
        let offsets = (!dense).then_some(offsets);
        spans.push(Span { partition: run[0].at.partition, row, rows, first, last, offsets });
        row += rows;
    }
    Ok(spans)
}

/// With fewer rows a compressed frame for each column costs more than it saves. Such blocks are soon merged into one that
/// is compressed.
const WORTH_COMPRESSING: usize = 256;

/// For a buffer of more than 256 KiB the compressor and its reverse allocate 4 MiB blocks, whose memory is new each time;
/// a column's part of a batch is to stay well below.
const FRAME_BYTES: usize = 128 << 10;

/// What a frame may take beside its parts: its marks, and what brings these to whole words.
const FRAME_MARGIN: usize = 256;

/// Appends rows as an IPC stream: as one batch, or as compressed ones if they are many.
pub(crate) fn write_stream(rows: &RecordBatch, to: &mut Vec<u8>) -> Result<()> {
    let count = rows.num_rows();
    let compression = (count >= WORTH_COMPRESSING).then_some(CompressionType::LZ4_FRAME);
    let options = IpcWriteOptions::default().try_with_compression(compression)?;
    let mut writer = StreamWriter::try_new_with_options(to, &rows.schema(), options.clone())?;
    let step = if compression.is_some() { rows_of_frames(rows) } else { count };
    if step >= count {
        writer.write(rows)?;
    } else {
        // Compressing takes the longest of all that is done to a commit, so the frames are made side by side.
        let starts: Vec<usize> = (0..count).step_by(step).collect();
        let frame = |start: &usize| {
            let frame = rows.slice(*start, step.min(count - start));
            let (mut tracker, mut context) = (DictionaryTracker::new(false), IpcWriteContext::default());
            IpcDataGenerator::default().encode(&frame, &mut tracker, &options, &mut context)
        };
        let frames = side_by_side(&starts, frame).into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        let bytes =
            frames.iter().map(|(_, frame)| frame.ipc_message.len() + frame.arrow_data.len() + FRAME_MARGIN).sum();
        writer.get_mut().reserve(bytes);
        for (dictionaries, frame) in frames {
            for part in dictionaries.into_iter().chain([frame]) {
                write_message(writer.get_mut(), part, &options)?;
            }
        }
    }
    writer.finish()?;
    Ok(())
}

/// How many rows have frames of the right size in their largest column.
fn rows_of_frames(rows: &RecordBatch) -> usize {
    let sizes = rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
    let parts = sizes.max().unwrap_or(0).div_ceil(FRAME_BYTES).max(1);
    rows.num_rows().div_ceil(parts).max(WORTH_COMPRESSING)
}

/// Reads a stream's batches as one; `projection` names columns of the stream's own schema.
pub(crate) fn read_stream(bytes: &[u8], projection: Option<Vec<usize>>) -> Result<RecordBatch> {
    let bytes = open_stream(bytes)?;
    let reader = StreamReader::try_new(Cursor::new(bytes), projection)?;
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
    // The reader's own schema has the columns it was not asked for, too.
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    match batches.as_slice() {
        [] => Err(Error::Corrupt("an empty stream".into())),
        [one] => Ok(one.clone()),
        // Without columns, a batch has nothing but its number of rows to be put together.
        several if schema.fields().is_empty() => {
            let rows = several.iter().map(RecordBatch::num_rows).sum();
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            Ok(RecordBatch::try_new_with_options(schema, Vec::new(), &options)?)
        }
        several => Ok(concat_batches(&schema, several)?),
    }
}

/// The rows of one event type in a block, in the catalogue's stored schema.
pub(crate) fn decode_type(
    index: &TypeIndex,
    body: &[u8],
    event_type: &EventType,
    columns: Option<&[usize]>,
) -> Result<RecordBatch> {
    let bytes = index.bytes(body)?;
    let stream = StreamReader::try_new(Cursor::new(bytes), None)?.schema();
    let wanted = |at: usize| columns.is_none_or(|columns| columns.contains(&at));
    let target = event_type.stored_schema();
    let names = |at: &usize| target.index_of(stream.field(*at).name()).is_ok_and(wanted);
    let projection: Vec<usize> = (0..stream.fields().len()).filter(names).collect();
    let read = read_stream(bytes, Some(projection))?;
    // Without columns a batch knows its rows all the same.
    if read.num_rows() != index.rows() {
        let (rows, said) = (read.num_rows(), index.rows());
        return Err(Error::Corrupt(format!("it has {rows} events {} where its footer says {said}", index.event_type)));
    }
    adapt(&read, target, &wanted, index.rows())
}

/// Stored rows under the catalogue of today: optional fields that are new are null, widened numbers are cast, and columns
/// that nobody wants are filled with what costs nothing.
fn adapt(read: &RecordBatch, target: &SchemaRef, wanted: &impl Fn(usize) -> bool, rows: usize) -> Result<RecordBatch> {
    let column = |(at, field): (usize, &Arc<arrow::datatypes::Field>)| -> Result<ArrayRef> {
        match read.column_by_name(field.name()).filter(|_| wanted(at)) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Ok(cast(column, field.data_type())?),
            None => Ok(filler(field.data_type(), field.is_nullable() || wanted(at), rows)),
        }
    };
    let columns = target.fields().iter().enumerate().map(column).collect::<Result<_>>()?;
    RecordBatch::try_new(Arc::clone(target), columns)
        .map_err(|error| Error::Corrupt(format!("stored events do not fit the catalogue: {error}")))
}

fn filler(data_type: &DataType, nullable: bool, rows: usize) -> ArrayRef {
    match data_type {
        DataType::Utf8 if !nullable => {
            Arc::new(StringArray::new(OffsetBuffer::new_zeroed(rows), Buffer::default(), None))
        }
        other if nullable => new_null_array(other, rows),
        // A zeroed column: built as nulls, then the nulls are declared to be values.
        other => {
            let data = new_null_array(other, rows).to_data().into_builder().nulls(None).build();
            data.map_or_else(|_| new_null_array(other, rows), arrow::array::make_array)
        }
    }
}

/// The chunks of a decoded block between two positions, in the order of the footer.
pub(crate) struct Cut<'a> {
    pub(crate) from: &'a Positions,
    pub(crate) until: Option<&'a Positions>,
    pub(crate) columns: &'a Columns,
    pub(crate) catalogue: &'a Catalogue,
}

impl Cut<'_> {
    /// Which columns of a type are wanted, all if it does not say which: `None` if the type is not.
    #[allow(clippy::option_option, reason = "no rows, and all columns, are two answers")]
    pub(crate) fn columns_of(&self, event_type: &str) -> Option<Option<&[usize]>> {
        match self.columns {
            Columns::All => Some(None),
            Columns::Only(types) => types.get(event_type).map(|columns| Some(columns.as_slice())),
        }
    }

    /// Rows of the span from `skip`, `rows` of them, that lie in the cut.
    fn within(&self, at: &TopicPartition, span: &Span, offsets: &Int64Array) -> (usize, usize) {
        let values = offsets.values();
        let skip = values.partition_point(|offset| *offset < self.from.get(at));
        let stop = self.until.map_or(span.rows, |until| values.partition_point(|offset| *offset < until.get(at)));
        (skip, stop.saturating_sub(skip))
    }

    /// Adds the chunks of one type's rows and moves `end` past everything seen.
    pub(crate) fn chunks(
        &self,
        index: &TypeIndex,
        rows: Option<&RecordBatch>,
        chunks: &mut Vec<Chunk>,
        end: &mut Positions,
    ) {
        let topic: Arc<str> = index.topic.as_str().into();
        let event_type = self.catalogue.types.get(&index.event_type);
        for span in &index.spans {
            let at = TopicPartition { topic: Arc::clone(&topic), partition: span.partition };
            let offsets = span.offsets();
            let (skip, count) = self.within(&at, span, &offsets);
            if count == 0 {
                continue;
            }
            let past = offsets.value(skip + count - 1) + 1;
            let reached = end.get(&at).max(past);
            end.0.insert(at, reached);
            if let (Some(event_type), Some(rows)) = (event_type, rows) {
                chunks.push(Chunk {
                    event_type: Arc::clone(event_type),
                    partition: span.partition,
                    offsets: offsets.slice(skip, count),
                    rows: rows.slice(span.row + skip, count),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray};
    use arrow::compute::take_record_batch;

    use super::*;

    /// Rows with a null now and then, and texts of so many bytes.
    fn rows(count: usize, bytes: usize) -> RecordBatch {
        let texts = (0..count).map(|row| (row % 7 != 3).then(|| format!("{row}{}", "-".repeat(bytes))));
        let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
        let numbers = (0_u32..).take(count).map(|row| Some(row).filter(|row| row % 5 > 0).map(f64::from));
        let numbers: ArrayRef = Arc::new(numbers.collect::<Float64Array>());
        RecordBatch::try_from_iter_with_nullable([("text", texts, true), ("number", numbers, true)])
            .expect("columns fit")
    }

    #[test]
    fn rows_come_back_from_a_stream_however_many_and_large_they_are() {
        for (count, bytes) in [(0, 1), (1, 1), (255, 9), (256, 9), (5_000, 1), (10_000, 40), (300, 3_000), (3, 1 << 20)]
        {
            let (given, mut stream) = (rows(count, bytes), Vec::new());
            write_stream(&given, &mut stream).expect("written");
            assert_eq!(read_stream(&stream, None).expect("read"), given, "{count} rows of {bytes} bytes");
            let numbers = read_stream(&stream, Some(vec![1])).expect("read");
            assert_eq!(numbers, given.project(&[1]).expect("a column"), "{count} rows of {bytes} bytes");
            let nothing = read_stream(&stream, Some(Vec::new())).expect("read");
            assert_eq!((nothing.num_rows(), nothing.num_columns()), (count, 0));
        }
    }

    #[test]
    fn a_slice_of_rows_is_written_as_what_it_is() {
        let whole = rows(20_000, 40);
        let (slice, mut stream) = (whole.slice(1_234, 9_876), Vec::new());
        write_stream(&slice, &mut stream).expect("written");
        let order = (1_234..1_234 + 9_876).collect::<Vec<u32>>();
        let copied = take_record_batch(&whole, &arrow::array::UInt32Array::from(order)).expect("rows");
        assert_eq!(read_stream(&stream, None).expect("read"), copied);
        assert!(stream.len() < 9_876 * 40, "compressed");
    }
}
