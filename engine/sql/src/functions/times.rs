//! Times in microseconds, from year 1 to year 9999. `DataFusion` goes by nanoseconds where nobody says otherwise, which reach from
//! 1677 to 2262 only.
//!
//! Casts to nanoseconds are made casts to microseconds in UTC; texts and dates that are compared with a time become such times;
//! and the functions that insist on nanoseconds (`date_trunc`, `date_bin`, `to_char`, `to_timestamp`) have others in their place.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime};
use cornjacket_core::time::{SECOND, timestamp_type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::{Between, Cast, InList, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast as cast_to,
};

const DAY: i64 = 86_400 * SECOND;

pub(super) fn install(state: &mut SessionState) -> Result<()> {
    for (name, compute) in [("date_trunc", trunc as Compute), ("date_bin", bin), ("to_char", format_times)] {
        let inner = state.udf(name)?;
        let signature = Signature::user_defined(Volatility::Immutable);
        state.register_udf(Arc::new(ScalarUDF::from(Micros { inner, compute, signature })))?;
    }
    state.register_function_rewrite(Arc::new(MicrosecondTimes))
}

/// Makes times microseconds before their types are coerced to anything else.
#[derive(Debug)]
struct MicrosecondTimes;

impl FunctionRewrite for MicrosecondTimes {
    fn name(&self) -> &'static str {
        "microsecond_times"
    }

    fn rewrite(&self, expression: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expression {
            Expr::Cast(Cast { expr, field }) => match in_micros(field.data_type()) {
                Some(kind) => Transformed::yes(cast_to(*expr, kind)),
                None => Transformed::no(Expr::Cast(Cast { expr, field })),
            },
            Expr::TryCast(TryCast { expr, field }) => match in_micros(field.data_type()) {
                Some(kind) => Transformed::yes(Expr::TryCast(TryCast::new(expr, kind))),
                None => Transformed::no(Expr::TryCast(TryCast { expr, field })),
            },
            Expr::BinaryExpr(mut binary) if binary.op.supports_propagation() => {
                let changed = align(&mut [binary.left.as_mut(), binary.right.as_mut()], schema);
                let BinaryExpr { left, op, right } = binary;
                Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed)
            }
            Expr::Between(mut between) => {
                let Between { expr, low, high, .. } = &mut between;
                let changed = align(&mut [expr.as_mut(), low.as_mut(), high.as_mut()], schema);
                Transformed::new_transformed(Expr::Between(between), changed)
            }
            Expr::InList(mut list) => {
                let InList { expr, list: items, .. } = &mut list;
                let mut all: Vec<&mut Expr> = std::iter::once(expr.as_mut()).chain(items.iter_mut()).collect();
                let changed = align(&mut all, schema);
                Transformed::new_transformed(Expr::InList(list), changed)
            }
            Expr::ScalarFunction(call) => rewrite_call(call, schema),
            other => Transformed::no(other),
        })
    }
}

fn in_micros(kind: &DataType) -> Option<DataType> {
    let DataType::Timestamp(TimeUnit::Nanosecond, zone) = kind else { return None };
    Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone().or_else(|| Some("UTC".into()))))
}

/// Where a time is compared with texts and dates, those become times.
fn align(sides: &mut [&mut Expr], schema: &DFSchema) -> bool {
    let kinds: Vec<Option<DataType>> = sides.iter().map(|side| side.get_type(schema).ok()).collect();
    if !kinds.iter().flatten().any(|kind| matches!(kind, DataType::Timestamp(..))) {
        return false;
    }
    let mut changed = false;
    for (side, kind) in sides.iter_mut().zip(kinds) {
        if kind.is_some_and(|kind| kind.is_string() || matches!(kind, DataType::Date32 | DataType::Date64)) {
            let inner = std::mem::replace(*side, Expr::Literal(ScalarValue::Null, None));
            **side = cast_to(inner, timestamp_type());
            changed = true;
        }
    }
    changed
}

fn rewrite_call(call: ScalarFunction, schema: &DFSchema) -> Transformed<Expr> {
    if call.func.name() == "now" {
        return Transformed::yes(cast_to(Expr::ScalarFunction(call), timestamp_type()));
    }
    if call.func.name() != "to_timestamp" {
        return Transformed::no(Expr::ScalarFunction(call));
    }
    let kind = call.args.first().and_then(|argument| argument.get_type(schema).ok());
    let argument = |call: &ScalarFunction| call.args[0].clone();
    match (kind, call.args.len()) {
        (Some(kind), 1)
            if kind.is_string() || matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) =>
        {
            Transformed::yes(cast_to(argument(&call), timestamp_type()))
        }
        // Whole seconds since 1970.
        (Some(kind), 1) if kind.is_integer() => {
            let seconds = cast_to(argument(&call), DataType::Timestamp(TimeUnit::Second, Some("UTC".into())));
            Transformed::yes(cast_to(seconds, timestamp_type()))
        }
        (Some(kind), 1) if kind.is_floating() || kind.is_decimal() => {
            let micros =
                cast_to(argument(&call), DataType::Float64) * Expr::Literal(ScalarValue::Float64(Some(1e6)), None);
            Transformed::yes(cast_to(cast_to(micros, DataType::Int64), timestamp_type()))
        }
        // With formats.
        _ => Transformed::no(Expr::ScalarFunction(call)),
    }
}

/// What a function does with times in microseconds; `None` where it is to be the library's.
type Compute = fn(&[ColumnarValue], usize) -> Result<Option<ArrayRef>>;

/// A function that the library computes in nanoseconds.
struct Micros {
    inner: Arc<ScalarUDF>,
    compute: Compute,
    /// It takes what the library's function would, with times in microseconds.
    signature: Signature,
}

impl std::fmt::Debug for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.inner.name())
    }
}

impl PartialEq for Micros {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Micros {}

impl std::hash::Hash for Micros {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Micros {
    /// The place of the time among the arguments.
    fn time_at(&self) -> usize {
        usize::from(self.inner.name() != "to_char")
    }

    fn is_of_time(&self, types: &[DataType]) -> bool {
        types.get(self.time_at()).is_some_and(|kind| matches!(kind, DataType::Timestamp(..)))
    }
}

impl ScalarUDFImpl for Micros {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (name, time_at) = (self.name(), self.time_at());
        let most = if name == "date_bin" { 3 } else { 2 };
        if types.len() < 2 || types.len() > most {
            return plan_err!(
                "`{name}` takes {} arguments, and is given {}",
                if most == 3 { "2 or 3" } else { "2" },
                types.len()
            );
        }
        let coerce = |(at, kind): (usize, &DataType)| match kind {
            DataType::Timestamp(_, zone) if at >= time_at && name != "to_char" || at == time_at => {
                Ok(DataType::Timestamp(TimeUnit::Microsecond, zone.clone().or_else(|| Some("UTC".into()))))
            }
            DataType::Null | DataType::Date32 | DataType::Date64 if at >= time_at && name != "to_char" => {
                Ok(timestamp_type())
            }
            kind if kind.is_string() && at >= time_at && name != "to_char" => Ok(timestamp_type()),
            kind if kind.is_string() => Ok(DataType::Utf8),
            DataType::Null if at != time_at => Ok(DataType::Utf8),
            DataType::Interval(_) | DataType::Duration(_) if name == "date_bin" => {
                Ok(DataType::Interval(IntervalUnit::MonthDayNano))
            }
            DataType::Date32
            | DataType::Date64
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Duration(_)
            | DataType::Interval(_)
            | DataType::Null
                if at == time_at =>
            {
                Ok(kind.clone())
            }
            other => plan_err!("`{name}` does not work on {other}"),
        };
        types.iter().enumerate().map(coerce).collect()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if self.name() == "to_char" { Ok(DataType::Utf8) } else { Ok(types[1].clone()) }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(arrow::datatypes::Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = arguments.args.iter().map(ColumnarValue::data_type).collect();
        let is_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { arguments.number_rows };
        let computed = if self.is_of_time(&types) { (self.compute)(&arguments.args, rows)? } else { None };
        let Some(values) = computed else { return self.inner.invoke_with_args(arguments) };
        let values = cast(&values, arguments.return_field.data_type())?;
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

fn times_of(value: &ColumnarValue, rows: usize) -> Result<Option<TimestampMicrosecondArray>> {
    let DataType::Timestamp(TimeUnit::Microsecond, zone) = value.data_type() else { return Ok(None) };
    // Days of other zones begin at other times, which the library knows.
    if zone.is_some_and(|zone| !matches!(&*zone, "UTC" | "+00:00" | "Z")) {
        return Ok(None);
    }
    Ok(Some(value.to_array(rows)?.as_primitive::<TimestampMicrosecondType>().clone()))
}

fn texts_of(value: &ColumnarValue, rows: usize) -> Result<StringArray> {
    Ok(cast(&value.to_array(rows)?, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn date_time(micros: i64) -> Result<NaiveDateTime> {
    let time = DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc());
    time.ok_or_else(|| exec_datafusion_err!("a time outside the years that there are"))
}

fn micros_of(day: Option<NaiveDate>) -> Result<i64> {
    let time = day.and_then(|day| day.and_hms_opt(0, 0, 0)).map(|time| time.and_utc().timestamp_micros());
    time.ok_or_else(|| exec_datafusion_err!("a time outside the years that there are"))
}

/// `date_trunc(unit, time)`
fn trunc(arguments: &[ColumnarValue], rows: usize) -> Result<Option<ArrayRef>> {
    let Some(times) = times_of(&arguments[1], rows)? else { return Ok(None) };
    let units = texts_of(&arguments[0], rows)?;
    let pairs = units.iter().zip(times.iter());
    let truncated = pairs.map(|(unit, time)| unit.zip(time).map(|(unit, time)| trunc_one(unit, time)).transpose());
    Ok(Some(Arc::new(truncated.collect::<Result<TimestampMicrosecondArray>>()?)))
}

fn trunc_one(unit: &str, time: i64) -> Result<i64> {
    let floor = |width: i64, from: i64| (time - from).div_euclid(width) * width + from;
    Ok(match unit.to_ascii_lowercase().as_str() {
        "microsecond" => time,
        "millisecond" => floor(1_000, 0),
        "second" => floor(SECOND, 0),
        "minute" => floor(60 * SECOND, 0),
        "hour" => floor(3_600 * SECOND, 0),
        "day" => floor(DAY, 0),
        // Weeks begin on Monday, and 1970 began on a Thursday.
        "week" => floor(7 * DAY, -3 * DAY),
        "month" => micros_of(date_time(time)?.date().with_day(1))?,
        "quarter" => {
            let day = date_time(time)?.date();
            micros_of(NaiveDate::from_ymd_opt(day.year(), (day.month() - 1) / 3 * 3 + 1, 1))?
        }
        "year" => micros_of(NaiveDate::from_ymd_opt(date_time(time)?.year(), 1, 1))?,
        _ => {
            return exec_err!(
                "date_trunc: there is no unit `{unit}`; there are microsecond to hour, day, week, month, quarter, year"
            );
        }
    })
}

/// `date_bin(width, time, origin)`
fn bin(arguments: &[ColumnarValue], rows: usize) -> Result<Option<ArrayRef>> {
    let Some(times) = times_of(&arguments[1], rows)? else { return Ok(None) };
    let origins = match arguments.get(2) {
        Some(origin) => times_of(origin, rows)?,
        None => Some(TimestampMicrosecondArray::from(vec![0; rows])),
    };
    let Some(origins) = origins else { return Ok(None) };
    let widths = arguments[0].to_array(rows)?;
    let widths = widths.as_primitive::<IntervalMonthDayNanoType>();
    let binned = widths.iter().zip(times.iter()).zip(origins.iter()).map(|((width, time), origin)| {
        let (Some(width), Some(time), Some(origin)) = (width, time, origin) else { return Ok(None) };
        bin_one(width, time, origin).map(Some)
    });
    Ok(Some(Arc::new(binned.collect::<Result<TimestampMicrosecondArray>>()?)))
}

fn bin_one(width: IntervalMonthDayNano, time: i64, origin: i64) -> Result<i64> {
    if width.months != 0 {
        if width.months < 0 || width.days != 0 || width.nanoseconds != 0 {
            return exec_err!("date_bin: the width is months and years, or days and shorter, and more than nothing");
        }
        return bin_months(i64::from(width.months), time, origin);
    }
    let micros = i64::from(width.days).checked_mul(DAY).and_then(|days| days.checked_add(width.nanoseconds / 1_000));
    let Some(micros) = micros.filter(|micros| *micros > 0 && width.nanoseconds % 1_000 == 0) else {
        return exec_err!("date_bin: the width must be positive and whole microseconds");
    };
    let from = time.checked_sub(origin).map(|since| since.div_euclid(micros));
    let start = from.and_then(|count| count.checked_mul(micros)).and_then(|since| since.checked_add(origin));
    start.ok_or_else(|| exec_datafusion_err!("date_bin: the result is out of the range of times"))
}

fn bin_months(width: i64, time: i64, origin: i64) -> Result<i64> {
    let (at, from) = (date_time(time)?, date_time(origin)?);
    let months = i64::from(at.year() - from.year()) * 12 + i64::from(at.month()) - i64::from(from.month());
    let start = |count: i64| {
        let months = Months::new(u32::try_from(count.unsigned_abs()).ok()?);
        if count >= 0 { from.checked_add_months(months) } else { from.checked_sub_months(months) }
    };
    let mut count = months.div_euclid(width) * width;
    // The month may have begun before the day and hour of the origin.
    if start(count).is_some_and(|start| start > at) {
        count -= width;
    }
    let start = start(count).map(|start| start.and_utc().timestamp_micros());
    start.ok_or_else(|| exec_datafusion_err!("date_bin: the result is out of the range of times"))
}

/// `to_char(time, format)`
fn format_times(arguments: &[ColumnarValue], rows: usize) -> Result<Option<ArrayRef>> {
    let Some(times) = times_of(&arguments[0], rows)? else { return Ok(None) };
    let formats = texts_of(&arguments[1], rows)?;
    let pairs = times.iter().zip(formats.iter());
    let texts = pairs.map(|(time, format)| time.zip(format).map(|(time, format)| format_one(time, format)).transpose());
    Ok(Some(Arc::new(texts.collect::<Result<StringArray>>()?)))
}

fn format_one(time: i64, format: &str) -> Result<String> {
    let mut text = String::new();
    let written = write!(text, "{}", date_time(time)?.and_utc().format(format));
    written.map_err(|_| exec_datafusion_err!("to_char: `{format}` is no format of a time"))?;
    Ok(text)
}
