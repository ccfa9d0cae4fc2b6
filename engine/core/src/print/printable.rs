//! Values that nobody can print: dates and times outside the years 1 to 9999, times of a day that has no such time, spans beyond
//! what can be written. They are found before they reach a table or an output.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, DurationMillisecondType, DurationSecondType, Field, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampSecondType,
};

use crate::error::{Error, Result};
use crate::time::{CALENDAR, SECOND};

const DAY_SECONDS: i64 = 86_400;
/// The first day of year 1 and the last of year 9999, from 1970.
const DAYS: (i64, i64) = (*CALENDAR.start() / (DAY_SECONDS * SECOND), *CALENDAR.end() / (DAY_SECONDS * SECOND));
/// The longest span that can be written, in seconds.
const LONGEST_SECONDS: i64 = i64::MAX / 1_000;

/// That all values of a batch can be printed.
///
/// # Errors
/// The column of which one cannot, and why.
pub fn check_printable(rows: &RecordBatch) -> Result<()> {
    let schema = rows.schema();
    schema.fields().iter().zip(rows.columns()).try_for_each(|(field, column)| check_column(field, column))
}

/// As [`check_printable`], of one column.
///
/// # Errors
/// As there.
pub fn check_column(field: &Field, column: &ArrayRef) -> Result<()> {
    match unprintable(column) {
        Some(what) => Err(Error::Compute(format!("`{}` has {what}", field.name()))),
        None => Ok(()),
    }
}

/// Whether all values of a column can be printed.
#[must_use]
pub fn is_printable(column: &ArrayRef) -> bool {
    unprintable(column).is_none()
}

fn unprintable(column: &ArrayRef) -> Option<&'static str> {
    const DATE: &str = "a date outside the years 1 to 9999";
    const TIME: &str = "a time outside the years 1 to 9999";
    const OF_DAY: &str = "a time of day that no day has";
    const SPAN: &str = "a span of time that is too long to be written";
    let days = |per_day: i64| (DAYS.0 * per_day, (DAYS.1 + 1) * per_day - 1);
    let (range, what) = match column.data_type() {
        DataType::Date32 => (beyond::<Date32Type>(column, DAYS), DATE),
        DataType::Date64 => (beyond::<Date64Type>(column, days(DAY_SECONDS * 1_000)), DATE),
        DataType::Timestamp(TimeUnit::Second, _) => (beyond::<TimestampSecondType>(column, days(DAY_SECONDS)), TIME),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            (beyond::<TimestampMillisecondType>(column, days(DAY_SECONDS * 1_000)), TIME)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (beyond::<TimestampMicrosecondType>(column, CALENDAR.into_inner()), TIME)
        }
        DataType::Time32(TimeUnit::Second) => (beyond::<Time32SecondType>(column, (0, DAY_SECONDS - 1)), OF_DAY),
        DataType::Time32(_) => (beyond::<Time32MillisecondType>(column, (0, DAY_SECONDS * 1_000 - 1)), OF_DAY),
        DataType::Time64(TimeUnit::Microsecond) => {
            (beyond::<Time64MicrosecondType>(column, (0, DAY_SECONDS * 1_000_000 - 1)), OF_DAY)
        }
        DataType::Time64(_) => (beyond::<Time64NanosecondType>(column, (0, DAY_SECONDS * 1_000_000_000 - 1)), OF_DAY),
        DataType::Duration(TimeUnit::Second) => {
            (beyond::<DurationSecondType>(column, (-LONGEST_SECONDS, LONGEST_SECONDS)), SPAN)
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            (beyond::<DurationMillisecondType>(column, (-i64::MAX, i64::MAX)), SPAN)
        }
        kind if kind.is_nested() => return parts(column).iter().find_map(unprintable),
        DataType::Dictionary(..) => return unprintable(column.as_any_dictionary().values()),
        _ => return None,
    };
    range.then_some(what)
}

fn beyond<T: ArrowPrimitiveType>(column: &ArrayRef, (least, most): (i64, i64)) -> bool
where
    T::Native: Into<i64>,
{
    let values: &PrimitiveArray<T> = column.as_primitive();
    min(values).is_some_and(|value| value.into() < least) || max(values).is_some_and(|value| value.into() > most)
}

/// The columns that a nested one is made of.
fn parts(column: &ArrayRef) -> Vec<ArrayRef> {
    match column.data_type() {
        DataType::Struct(_) => column.as_struct().columns().to_vec(),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let (start, end) = (list.value_offsets()[0], list.value_offsets()[list.len()]);
            let [start, end] = [start, end].map(|offset| usize::try_from(offset).unwrap_or(0));
            vec![list.values().slice(start, end - start)]
        }
        DataType::LargeList(_) => vec![ArrayRef::clone(column.as_list::<i64>().values())],
        DataType::FixedSizeList(..) => vec![ArrayRef::clone(column.as_fixed_size_list().values())],
        DataType::Map(..) => column.as_map().entries().columns().to_vec(),
        _ => Vec::new(),
    }
}
