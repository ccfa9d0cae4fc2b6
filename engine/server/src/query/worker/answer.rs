//! An answer in the form that its client wants, in pieces.

use cornjacket_sql::query::{QueryEngine, QueryError, Rows};
use futures::StreamExt;

use crate::query::format::{Format, Writer};
use crate::query::workers::wire::{Question, parts};

/// The longest piece that is given, in bytes: all that the other process holds of an answer is a few of them.
const PIECE: usize = 1 << 20;

/// Computes an answer.
pub async fn answer(engine: &QueryEngine, question: &Question, give: &dyn Fn(&[u8])) -> Result<(), QueryError> {
    let rows = engine.query(&question.sql, &question.params).await?;
    write(rows, question.format, question.limit, give).await
}

/// Nothing is given before there is a row or the end, so that what fails at the start is an error and no beginning of an
/// answer.
async fn write(rows: Rows, format: Format, limit: u64, give: &dyn Fn(&[u8])) -> Result<(), QueryError> {
    let Rows { schema, mut batches } = rows;
    let (mut writer, mut ready) = Writer::begin(format, &schema)?;
    let (mut left, mut is_cut) = (limit, false);
    'rows: while let Some(batch) = batches.next().await.transpose()? {
        for part in parts(&batch) {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(part.num_rows());
            left -= wanted as u64;
            ready.extend(writer.rows(&part.slice(0, wanted))?);
            is_cut = wanted < part.num_rows();
            if is_cut {
                break 'rows;
            }
            give_all(&mut ready, give);
        }
    }
    ready.extend(writer.end(is_cut)?);
    give_all(&mut ready, give);
    Ok(())
}

fn give_all(ready: &mut Vec<u8>, give: &dyn Fn(&[u8])) {
    ready.chunks(PIECE).for_each(give);
    ready.clear();
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("b", DataType::Int64, true), Field::new("a", DataType::Int64, true)]))
    }

    fn rows(values: &[i64]) -> RecordBatch {
        let column = || Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_new(schema(), vec![column(), column()]).expect("two columns")
    }

    async fn written(
        format: Format,
        batches: Vec<Result<RecordBatch, QueryError>>,
        limit: u64,
    ) -> (Vec<u8>, Result<(), QueryError>) {
        let given = RefCell::new(Vec::new());
        let rows = Rows { schema: schema(), batches: Box::pin(futures::stream::iter(batches)) };
        let outcome = write(rows, format, limit, &|piece| given.borrow_mut().extend_from_slice(piece)).await;
        (given.into_inner(), outcome)
    }

    async fn text(format: Format, batches: Vec<Result<RecordBatch, QueryError>>, limit: u64) -> String {
        let (bytes, outcome) = written(format, batches, limit).await;
        outcome.expect("whole");
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[tokio::test]
    async fn every_form_has_the_same_rows() {
        let batches = || vec![Ok(rows(&[1, 2])), Ok(rows(&[])), Ok(rows(&[3]))];
        assert_eq!(text(Format::Csv, batches(), u64::MAX).await, "b,a\n1,1\n2,2\n3,3\n");
        let lines = "{\"b\":1,\"a\":1}\n{\"b\":2,\"a\":2}\n";
        assert_eq!(text(Format::Ndjson, batches(), 2).await, lines);
        let (bytes, outcome) = written(Format::Arrow, batches(), u64::MAX).await;
        outcome.expect("whole");
        let read = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
        let read: Vec<RecordBatch> = read.collect::<Result<_, _>>().expect("batches");
        assert_eq!(read, [rows(&[1, 2]), rows(&[3])]);
        assert_eq!(text(Format::Csv, vec![], u64::MAX).await, "b,a\n");
    }

    #[tokio::test]
    async fn rows_are_cut_at_the_limit_and_say_so() {
        let head = r#"{"columns":[{"name":"b","type":"bigint"},{"name":"a","type":"bigint"}],"rows":["#;
        let one = r#"{"b":1,"a":1}"#;
        let two = r#"{"b":2,"a":2}"#;
        let cases: [(&[&[i64]], u64, String, bool); 7] = [
            (&[], 5, String::new(), false),
            (&[&[]], 0, String::new(), false),
            (&[&[1]], 0, String::new(), true),
            (&[&[1], &[], &[2]], 2, format!("{one},{two}"), false),
            (&[&[1, 2]], 1, one.into(), true),
            (&[&[1], &[2]], 1, one.into(), true),
            (&[&[1], &[]], 1, one.into(), false),
        ];
        for (batches, limit, expected, truncated) in cases {
            let given = text(Format::Json, batches.iter().map(|values| Ok(rows(values))).collect(), limit).await;
            assert_eq!(given, format!("{head}{expected}],\"truncated\":{truncated}}}\n"), "{batches:?} {limit}");
        }
    }

    #[tokio::test]
    async fn what_fails_before_the_first_row_has_no_beginning() {
        let failed = || Err(QueryError::Failed("storage".into()));
        let (bytes, outcome) = written(Format::Json, vec![Ok(rows(&[])), failed()], 10).await;
        assert!(bytes.is_empty() && outcome.is_err());
        let (bytes, outcome) = written(Format::Json, vec![Ok(rows(&[1])), failed()], 10).await;
        assert!(!bytes.is_empty() && outcome.is_err());
    }
}
