//! What a query's process and the one that started it say to each other: frames of a head in JSON and bytes behind it.

use std::io::{Error, ErrorKind, Read, Result, Write};

use arrow::array::RecordBatch;
use cornjacket_sql::query::{QueryError, QueryOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::query::format::Format;

/// A question, as the process that computes it gets it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The SQL.
    pub sql: String,
    /// Values for `$1`, `$2`, …
    pub params: Vec<Value>,
    /// The form of the answer.
    pub format: Format,
    /// The most rows of the answer.
    pub limit: u64,
}

/// What a query's process is told.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// What each of its queries may take. The first frame.
    Begin(QueryOptions),
    /// A table; its number is how many came before it. Behind it is an Arrow IPC stream with its schema.
    Table {
        /// What stands before the dot in its name.
        schema: Option<String>,
        /// Its name.
        name: String,
    },
    /// There are no more tables.
    Tables,
    /// Something to answer. The next comes when this is answered.
    Query(Question),
    /// The next part of a scan's Arrow IPC stream.
    Rows {
        /// Which.
        scan: u32,
        /// How many rows; where no column is wanted, there is no more to say of them.
        count: usize,
    },
    /// A scan is over.
    End {
        /// Which.
        scan: u32,
        /// Why it has not all rows.
        error: Option<String>,
    },
    /// Whether the memory that was asked for may be had.
    Room(bool),
}

/// What a query's process tells.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// The question has arrived.
    Heard,
    /// The next part of the answer.
    Piece,
    /// The answer is over.
    Done {
        /// Why it is not whole.
        error: Option<QueryError>,
        /// Whether the process may answer another question.
        is_fit: bool,
    },
    /// Begin a scan of a table, and give its first [`AHEAD`] parts.
    Open {
        /// Its number from now on.
        scan: u32,
        /// The number of the table.
        table: usize,
        /// Its columns.
        columns: Vec<usize>,
    },
    /// Give one part more.
    More {
        /// Of which scan.
        scan: u32,
    },
    /// A scan is not wanted any more.
    Close {
        /// Which.
        scan: u32,
    },
    /// May a query have so many bytes more of what all have together? Waits for [`ToWorker::Room`].
    Take(usize),
    /// So many bytes are given back.
    Give(usize),
}

/// How many parts of a scan may be under way.
pub const AHEAD: usize = 4;

/// About how large a part of rows is, in bytes.
const PART: usize = 2 << 20;

/// The longest part of a frame that can be meant, which tells a frame from something else.
const MOST: u32 = 1 << 30;

/// Writes a frame.
pub fn write(out: &mut impl Write, head: &impl Serialize, body: &[u8]) -> Result<()> {
    let head = serde_json::to_vec(head)?;
    let length = |bytes: &[u8]| match u32::try_from(bytes.len()) {
        Ok(length) if length <= MOST => Ok(length.to_le_bytes()),
        _ => Err(Error::new(ErrorKind::FileTooLarge, "a frame of more than a GiB")),
    };
    let lengths = [length(&head)?, length(body)?].concat();
    // In one go, if it is short: what is written in pieces wakes the reader for each.
    if head.len() + body.len() < 16 << 10 {
        out.write_all(&[&lengths, &head[..], body].concat())?;
    } else {
        out.write_all(&[&lengths, &head[..]].concat())?;
        out.write_all(body)?;
    }
    out.flush()
}

/// Reads a frame; `None` where the other side has ended.
pub fn read<T: DeserializeOwned>(input: &mut impl Read) -> Result<Option<(T, Vec<u8>)>> {
    let [mut of_head, mut of_body] = [[0; 4]; 2];
    match input.read_exact(&mut of_head) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome?,
    }
    input.read_exact(&mut of_body)?;
    let mut part = |length: [u8; 4]| {
        let length = u32::from_le_bytes(length);
        if length > MOST {
            return Err(Error::new(ErrorKind::InvalidData, "this is no frame"));
        }
        let mut bytes = vec![0; length as usize];
        input.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let head = part(of_head)?;
    let body = part(of_body)?;
    Ok(Some((serde_json::from_slice(&head)?, body)))
}

/// The same rows in pieces of about [`PART`] bytes.
pub fn parts(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let (count, bytes) = (rows.num_rows(), rows.get_array_memory_size());
    let of_part = (count / bytes.div_ceil(PART).max(1)).max(1);
    (0..count).step_by(of_part).map(move |from| rows.slice(from, of_part.min(count - from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut bytes = Vec::new();
        let long = vec![7; 100_000];
        write(&mut bytes, &ToWorker::Rows { scan: 5, count: 9 }, &long).expect("written");
        write(&mut bytes, &ToWorker::End { scan: 5, error: Some("gone".into()) }, &[]).expect("written");
        let mut input = bytes.as_slice();
        let first = read::<ToWorker>(&mut input).expect("read").expect("a frame");
        assert!(matches!(first, (ToWorker::Rows { scan: 5, count: 9 }, body) if body == long));
        let second = read::<ToWorker>(&mut input).expect("read").expect("a frame");
        assert!(
            matches!(second, (ToWorker::End { scan: 5, error: Some(text) }, body) if text == "gone" && body.is_empty())
        );
        assert!(read::<ToWorker>(&mut input).expect("the end").is_none());
        assert!(read::<ToWorker>(&mut &bytes[..20]).is_err(), "half a frame");
        assert!(read::<ToWorker>(&mut &b"SELECT 1 FROM numbers"[..]).is_err());
    }
}
