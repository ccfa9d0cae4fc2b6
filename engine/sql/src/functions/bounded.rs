//! Functions whose results may be far larger than their arguments: how large is found out before anything is made. The library
//! would ask the system for the memory and end the process where there is none.
//!
//! Each has an upper bound of a result's size, computed from the arguments' sizes and numbers; mostly one look at the largest
//! ones is enough for a whole batch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use regex::Regex;

/// How much functions may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// The most bytes of one value.
    pub(crate) value: u64,
    /// The most bytes of one batch's values together.
    pub(crate) batch: u64,
}

/// What is known of an argument in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Measure {
    /// The bytes of a text, or of a list's items together.
    bytes: u64,
    /// The items of a list, the characters of a text at most.
    items: u64,
    /// Its value, if it is a whole number; times and spans are in microseconds.
    number: i64,
    is_null: bool,
}

/// An upper bound of a result's bytes.
type Size = fn(&[Measure]) -> u128;

/// Texts in which occurrences are counted, when the bound alone is too large.
type Exact = fn(&[&str]) -> Option<u128>;

/// A function and how large its results get.
struct Growth {
    name: &'static str,
    size: Size,
    /// Whether larger arguments make larger results.
    is_monotone: bool,
    /// Whether it gives null where an argument is null; others take it for a part of what they make.
    is_strict: bool,
    exact: Option<Exact>,
}

/// A function that takes null for a part of what it makes.
const fn grows(name: &'static str, size: Size) -> Growth {
    Growth { name, size, is_monotone: true, is_strict: false, exact: None }
}

impl Growth {
    const fn strict(self) -> Self {
        Self { is_strict: true, ..self }
    }

    const fn in_any_direction(self) -> Self {
        Self { is_monotone: false, ..self }
    }

    const fn or_exactly(self, exact: Exact) -> Self {
        Self { is_monotone: false, exact: Some(exact), ..self }
    }
}

/// An item of a list is counted with what it takes beside its bytes.
const ITEM: u128 = 8;

static GROWTHS: [Growth; 22] = [
    grows("repeat", |a| at(a, 0).bytes * count(a, 1)).strict(),
    grows("lpad", padded).strict(),
    grows("rpad", padded).strict(),
    grows("replace", replaced).strict().or_exactly(replaced_exactly),
    grows("regexp_replace", regexp_replaced).strict().or_exactly(regexp_replaced_exactly),
    grows("concat", sum),
    grows("concat_ws", |a| sum(&a[1.min(a.len())..]) + at(a, 0).bytes * a.len() as u128),
    grows("overlay", sum).strict(),
    grows("translate", |a| at(a, 0).bytes * 4).strict(),
    grows("array_repeat", |a| (at(a, 0).bytes + ITEM) * count(a, 1)),
    grows("array_resize", |a| sum(a) + (at(a, 2).bytes + ITEM) * count(a, 1)),
    grows("range", series).strict().in_any_direction(),
    grows("generate_series", series).strict().in_any_direction(),
    grows("array_to_string", |a| sum(a) * 4 + at(a, 0).items * (at(a, 1).bytes + at(a, 2).bytes + 24)),
    grows("string_to_array", |a| at(a, 0).bytes * (ITEM + 1) + at(a, 0).items * at(a, 2).bytes),
    grows("array_append", sum),
    grows("array_prepend", sum),
    grows("array_concat", sum),
    grows("make_array", sum),
    grows("array_replace_all", |a| sum(a) + at(a, 0).items * at(a, 2).bytes),
    grows("array_replace_n", |a| sum(a) + at(a, 0).items * at(a, 2).bytes),
    grows("array_insert", |a| sum(a) + count(a, 1) * ITEM),
];

struct Wide {
    bytes: u128,
    items: u128,
}

fn at(arguments: &[Measure], index: usize) -> Wide {
    let measure = arguments.get(index).copied().unwrap_or_default();
    Wide { bytes: measure.bytes.into(), items: measure.items.into() }
}

/// A number that says how often, as a count.
fn count(arguments: &[Measure], index: usize) -> u128 {
    arguments.get(index).map_or(0, |measure| measure.number.max(0).unsigned_abs().into())
}

fn sum(arguments: &[Measure]) -> u128 {
    arguments
        .iter()
        .map(|measure| u128::from(measure.bytes) + ITEM * u128::from(measure.items.min(measure.bytes)))
        .sum()
}

/// So many characters of one byte, or of four where a text has others.
fn padded(arguments: &[Measure]) -> u128 {
    let is_wide = [0, 2].into_iter().filter_map(|at| arguments.get(at)).any(|text| text.items != text.bytes);
    count(arguments, 1) * if is_wide { 4 } else { 1 }
}

fn replaced(arguments: &[Measure]) -> u128 {
    let (text, from, to) = (at(arguments, 0).bytes, at(arguments, 1).bytes, at(arguments, 2).bytes);
    text + (text / from.max(1) + 1) * to
}

fn replaced_exactly(texts: &[&str]) -> Option<u128> {
    let [text, from, to] = texts else { return None };
    Some((text.len() + text.matches(from).count() * to.len()) as u128)
}

fn regexp_replaced(arguments: &[Measure]) -> u128 {
    let (text, to) = (at(arguments, 0).bytes, at(arguments, 2).bytes);
    // Every group that the replacement names may be the whole of a match, and two bytes name one.
    (text + 1) * to + text * (to / 2 + 1)
}

fn regexp_replaced_exactly(texts: &[&str]) -> Option<u128> {
    let (text, pattern, to) = (texts.first()?, texts.get(1)?, texts.get(2)?);
    let matches = Regex::new(pattern).ok()?.find_iter(text).count();
    let named = to.matches(['\\', '$']).count();
    Some((text.len() + matches * to.len() + text.len() * named) as u128)
}

/// From the first to the second in steps of the third; from nothing to the only one.
fn series(arguments: &[Measure]) -> u128 {
    let number = |index: usize| arguments.get(index).map(|measure| i128::from(measure.number));
    let (start, stop) = match (number(0), number(1)) {
        (Some(stop), None) => (0, stop),
        (start, stop) => (start.unwrap_or(0), stop.unwrap_or(0)),
    };
    let step = number(2).unwrap_or(1);
    if step == 0 || (stop - start).signum() * step.signum() < 0 {
        return 0;
    }
    ((stop - start) / step).unsigned_abs() * ITEM + ITEM
}

/// Puts bounded functions in the place of the session's.
pub(super) fn install(state: &mut SessionState, bounds: Bounds) -> Result<()> {
    for growth in &GROWTHS {
        if let Ok(inner) = state.udf(growth.name) {
            state.register_udf(Arc::new(ScalarUDF::from(Bounded { inner, growth, bounds })))?;
        }
    }
    Ok(())
}

/// A function that looks at the size of what it will give.
#[derive(Debug)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: &'static Growth,
    bounds: Bounds,
}

impl std::fmt::Debug for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner && self.bounds == other.bounds
    }
}

impl Eq for Bounded {}

impl std::hash::Hash for Bounded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
        self.bounds.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(self.growth, &arguments.args, arguments.number_rows, self.bounds)?;
        self.inner.invoke_with_args(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// Refuses a batch in which a value, or all values together, would be too large.
fn check(growth: &Growth, arguments: &[ColumnarValue], rows: usize, bounds: Bounds) -> Result<()> {
    let columns: Vec<Measures> = arguments.iter().map(Measures::of).collect::<Result<_>>()?;
    let is_scalar = columns.iter().all(|column| column.values.len() == 1 && column.is_scalar);
    let rows = if is_scalar { 1 } else { rows };
    if growth.is_monotone {
        let largest: Vec<Measure> = columns.iter().map(Measures::largest).collect();
        let most = (growth.size)(&largest);
        if most <= bounds.value.into() && most * rows as u128 <= bounds.batch.into() {
            return Ok(());
        }
    }
    let mut total = 0_u128;
    for row in 0..rows {
        let measures: Vec<Measure> = columns.iter().map(|column| column.row(row)).collect();
        if growth.is_strict && measures.iter().any(|measure| measure.is_null) {
            continue;
        }
        let mut size = (growth.size)(&measures);
        if size > bounds.value.into()
            && let Some(exact) = growth.exact
        {
            size = exactly(exact, arguments, row).unwrap_or(size);
        }
        if size > bounds.value.into() {
            return exec_err!(
                "{}: a value would take up to {size} bytes, and at most {} are allowed",
                growth.name,
                bounds.value
            );
        }
        total += size;
    }
    if total > bounds.batch.into() {
        return exec_err!(
            "{}: {rows} values would take up to {total} bytes, and at most {} are allowed",
            growth.name,
            bounds.batch
        );
    }
    Ok(())
}

fn exactly(exact: Exact, arguments: &[ColumnarValue], row: usize) -> Option<u128> {
    let text = |argument: &ColumnarValue| -> Option<String> {
        let value = match argument {
            ColumnarValue::Scalar(value) => value.clone(),
            ColumnarValue::Array(values) => ScalarValue::try_from_array(values, row).ok()?,
        };
        value.try_as_str().flatten().map(str::to_string)
    };
    let texts: Vec<String> = arguments.iter().map(text).collect::<Option<_>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    exact(&texts)
}

/// What is known of an argument in each row.
struct Measures {
    values: Vec<Measure>,
    is_scalar: bool,
}

impl Measures {
    fn of(argument: &ColumnarValue) -> Result<Self> {
        Ok(match argument {
            ColumnarValue::Array(values) => Self { values: measures(values)?, is_scalar: false },
            ColumnarValue::Scalar(value) => Self { values: measures(&value.to_array()?)?, is_scalar: true },
        })
    }

    fn row(&self, row: usize) -> Measure {
        let row = if self.is_scalar { 0 } else { row };
        self.values.get(row).copied().unwrap_or_default()
    }

    fn largest(&self) -> Measure {
        let mut largest = Measure { number: i64::MIN, ..Measure::default() };
        let mut has_wide = false;
        for measure in &self.values {
            has_wide |= measure.items != measure.bytes;
            largest.bytes = largest.bytes.max(measure.bytes);
            largest.items = largest.items.max(measure.items);
            largest.number = largest.number.max(measure.number);
        }
        // Characters of several bytes stay to be seen.
        if has_wide && largest.items == largest.bytes {
            largest.bytes += 1;
        }
        largest
    }
}

fn measures(values: &ArrayRef) -> Result<Vec<Measure>> {
    let with_null = |(row, measure): (usize, Measure)| Measure { is_null: values.is_null(row), ..measure };
    let numbers = |numbers: &ArrayRef| -> Vec<Measure> {
        let numbers = numbers.as_primitive::<Int64Type>();
        numbers.iter().map(|number| Measure { bytes: 8, number: number.unwrap_or(0), ..Measure::default() }).collect()
    };
    let plain: Vec<Measure> = match values.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            let texts = cast(values, &DataType::Utf8View)?;
            let text = |text: Option<&str>| {
                let text = text.unwrap_or("");
                let is_wide = !text.is_ascii();
                Measure {
                    bytes: text.len() as u64,
                    items: (text.len() - usize::from(is_wide)) as u64,
                    ..Measure::default()
                }
            };
            texts.as_string_view().iter().map(text).collect()
        }
        integer if integer.is_integer() => {
            let options = arrow::compute::CastOptions { safe: true, ..Default::default() };
            let wide = arrow::compute::cast_with_options(values, &DataType::Int64, &options)?;
            let mut measures = numbers(&wide);
            // An unsigned number beyond the range is as large as can be.
            for (row, measure) in measures.iter_mut().enumerate() {
                if wide.is_null(row) && values.is_valid(row) {
                    measure.number = i64::MAX;
                }
            }
            measures
        }
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
            numbers(&cast(&cast(values, &DataType::Timestamp(TimeUnit::Microsecond, None))?, &DataType::Int64)?)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let span = |span: Option<arrow::datatypes::IntervalMonthDayNano>| {
                let span = span.unwrap_or_default();
                // Shorter than any month, so that there are rather more steps.
                let days = i64::from(span.months) * 28 + i64::from(span.days);
                let micros = days.saturating_mul(86_400_000_000).saturating_add(span.nanoseconds / 1_000);
                Measure { bytes: 16, number: micros, ..Measure::default() }
            };
            values.as_primitive::<IntervalMonthDayNanoType>().iter().map(span).collect()
        }
        DataType::Null => vec![Measure::default(); values.len()],
        // What it takes in memory, shared out; a slice of a larger array counts as the slice.
        _ => (0..values.len()).map(|row| nested(values, row)).collect::<Result<_>>()?,
    };
    Ok(plain.into_iter().enumerate().map(with_null).collect())
}

/// The bytes of all values; those of a slice are not those of what it is a slice of.
fn bytes_of(values: &dyn Array) -> Result<usize> {
    Ok(match values.data_type() {
        DataType::List(_) => {
            let list = values.as_list::<i32>();
            let (start, end) = (list.value_offsets()[0], list.value_offsets()[list.len()]);
            let [start, end] = [start, end].map(|offset| usize::try_from(offset).unwrap_or(0));
            4 * list.len() + bytes_of(&list.values().slice(start, end - start))?
        }
        DataType::Struct(_) => {
            values.as_struct().columns().iter().map(|column| bytes_of(column)).sum::<Result<usize>>()?
        }
        _ => values.to_data().get_slice_memory_size()?,
    })
}

fn nested(values: &ArrayRef, row: usize) -> Result<Measure> {
    let bytes = bytes_of(&values.slice(row, 1))? as u64;
    let items = match values.data_type() {
        DataType::List(_) if values.is_valid(row) => values.as_list::<i32>().value_length(row).unsigned_abs().into(),
        DataType::LargeList(_) if values.is_valid(row) => values.as_list::<i64>().value_length(row).unsigned_abs(),
        _ => 1,
    };
    Ok(Measure { bytes, items, ..Measure::default() })
}

/// `||` of two texts. Null if either is, as the operator has it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Concatenation {
    signature: Signature,
    bounds: Bounds,
}

pub(super) fn concatenation(bounds: Bounds) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Concatenation { signature: Signature::any(2, Volatility::Immutable), bounds }))
}

static CONCATENATION: Growth = grows("||", |a| at(a, 0).bytes + at(a, 1).bytes).strict();

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &'static str {
        "text_concat"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(super::operator_field(self.name(), arguments.arg_fields[0].data_type(), &arguments))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(&CONCATENATION, &arguments.args, arguments.number_rows, self.bounds)?;
        let [left, right] = &arguments.args[..] else { return datafusion::common::internal_err!("two operands") };
        apply(left, right, |left, right| {
            let (left, left_is_scalar) = left.get();
            let (right, right_is_scalar) = right.get();
            let rows = if left_is_scalar { right.len() } else { left.len() };
            let spread =
                |side: &dyn Array, is_scalar: bool| -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
                    if !is_scalar {
                        return Ok(arrow::array::make_array(side.to_data()));
                    }
                    arrow::compute::take(side, &arrow::array::UInt32Array::from(vec![0_u32; rows]), None)
                };
            let (left, right) = (spread(left, left_is_scalar)?, spread(right, right_is_scalar)?);
            arrow::compute::kernels::concat_elements::concat_elements_dyn(&left, &right)
        })
    }
}
