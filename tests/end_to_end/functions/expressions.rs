//! Calls of functions with arguments of their types: columns of the test's event type, extreme literals, and other calls.

use arrow::datatypes::{DataType, IntervalUnit};
use cornjacket_sql::listing::Functions;
use rand::Rng;
use rand::seq::IndexedRandom;

const TEXTS: &[&str] = &[
    "t",
    "u",
    "t",
    "''",
    "'a'",
    "'%Y-%m-%d'",
    "'(a|b)*c'",
    "'day'",
    "'century'",
    "'utf8'",
    "'base64'",
    "'sha256'",
    "'g'",
    "'Int8'",
    "'2024-02-29T12:30:59Z'",
    "'%'",
    "'NaN'",
    "'{\"a\":[1,{\"b\":null}]}'",
    "'a'",
    "chr(0)",
    "'/'",
    "NULL",
];
const INTEGERS: &[&str] = &[
    "n",
    "i",
    "n",
    "0",
    "1",
    "-1",
    "2",
    "100",
    "1000000",
    "2147483647",
    "2147483648",
    "-2147483648",
    "9223372036854775807",
    "(-9223372036854775807 - 1)",
    "NULL",
];
const DOUBLES: &[&str] =
    &["d", "d", "f", "0.0", "-0.0", "1.5", "1e308", "'NaN'::double", "'-Infinity'::double", "4.9e-324", "NULL"];
const TIMES: &[&str] = &[
    "ts",
    "event_time",
    "ts",
    "TIMESTAMP '0001-01-01T00:00:00Z'",
    "TIMESTAMP '9999-12-31T23:59:59Z'",
    "TIMESTAMP '1970-01-01T00:00:00Z'",
    "NULL",
];
const DATES: &[&str] = &["CAST(ts AS date)", "DATE '2024-02-29'", "DATE '0001-01-01'", "CAST(i AS date)"];
const SPANS: &[&str] = &[
    "INTERVAL '1 month'",
    "INTERVAL '1 second'",
    "INTERVAL '0 second'",
    "INTERVAL '-178956970 years'",
    "INTERVAL '2147483647 days'",
];
const BOOLEANS: &[&str] = &["b", "b", "true", "false", "NULL", "n > 0"];
const LISTS: &[&str] =
    &["l", "ls", "l", "make_array(n, i)", "make_array(1, NULL, 3)", "make_array()", "make_array(l, l)"];
const OTHERS: &[&str] = &[
    "m",
    "j",
    "payload",
    "payload->'j'",
    "payload->>'t'",
    "named_struct('a', n, 'b', t)",
    "m['x']",
    "ts - event_time",
    "arrow_cast(n, 'UInt64')",
    "arrow_cast(i, 'Int8')",
    "arrow_cast(d, 'Float16')",
    "CAST(t AS bytea)",
    "arrow_cast(t, 'Utf8View')",
    "arrow_cast(t, 'LargeUtf8')",
    "arrow_cast(t, 'Dictionary(Int32, Utf8)')",
    "arrow_cast(n, 'Duration(Second)')",
    "arrow_cast(n, 'Timestamp(Second, None)')",
    "arrow_cast(i, 'Time32(Second)')",
    "arrow_cast(n, 'Time64(Microsecond)')",
    "arrow_cast(n, 'Date64')",
    "arrow_cast(d, 'Decimal128(38, 10)')",
    "arrow_cast(n, 'Decimal256(76, 0)')",
    "make_array(ts)",
    "map(make_array('a'), make_array(n))",
    "aggregate_id",
];

fn pick(from: &[&str], rng: &mut impl Rng) -> String {
    (*from.choose(rng).unwrap_or(&"NULL")).to_string()
}

/// An argument of a type, or, now and then, of another.
fn of_type(data_type: &DataType, rng: &mut impl Rng) -> String {
    if rng.random_ratio(1, 12) {
        return anything(rng);
    }
    match data_type {
        DataType::Boolean => pick(BOOLEANS, rng),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => pick(TEXTS, rng),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => pick(DOUBLES, rng),
        DataType::Timestamp(..) => pick(TIMES, rng),
        DataType::Date32 | DataType::Date64 => pick(DATES, rng),
        DataType::Interval(IntervalUnit::MonthDayNano | IntervalUnit::DayTime | IntervalUnit::YearMonth)
        | DataType::Duration(_) => pick(SPANS, rng),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => pick(LISTS, rng),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            format!("CAST({} AS bytea)", pick(TEXTS, rng))
        }
        integer if integer.is_integer() => pick(INTEGERS, rng),
        other => format!("arrow_cast({}, '{other}')", pick(INTEGERS, rng)),
    }
}

fn anything(rng: &mut impl Rng) -> String {
    let kinds: [&[&str]; 9] = [TEXTS, INTEGERS, DOUBLES, TIMES, DATES, SPANS, BOOLEANS, LISTS, OTHERS];
    pick(kinds.choose(rng).unwrap_or(&TEXTS), rng)
}

/// The arguments of a call; one of them may be a call itself.
fn arguments(lists: &[Vec<DataType>], functions: &Functions, depth: u32, rng: &mut impl Rng) -> String {
    let types = lists.choose(rng).filter(|_| rng.random_ratio(7, 8));
    let mut arguments: Vec<String> = match types {
        // One type may stand for any number of it.
        Some(types) if types.len() == 1 && rng.random_ratio(1, 2) => {
            (0..rng.random_range(1..=4)).map(|_| of_type(&types[0], rng)).collect()
        }
        Some(types) => types.iter().map(|data_type| of_type(data_type, rng)).collect(),
        None => {
            let first = if rng.random_ratio(1, 2) { pick(LISTS, rng) } else { anything(rng) };
            let rest = (0..rng.random_range(0..=3)).map(|_| anything(rng)).collect::<Vec<_>>();
            std::iter::once(first).chain(rest).collect()
        }
    };
    if depth > 0 && rng.random_ratio(1, 4) && !arguments.is_empty() {
        let at = rng.random_range(0..arguments.len());
        let names: Vec<&String> = functions.scalars.keys().collect();
        let name = names.choose(rng).map_or("abs", |name| name.as_str());
        arguments[at] = scalar(name, functions, depth - 1, rng);
    }
    arguments.join(", ")
}

/// A call of a scalar function.
pub fn scalar(name: &str, functions: &Functions, depth: u32, rng: &mut impl Rng) -> String {
    let lists = functions.scalars.get(name).map_or(&[][..], Vec::as_slice);
    format!("\"{name}\"({})", arguments(lists, functions, depth, rng))
}

/// A call of an aggregate, with what SQL allows around it.
pub fn aggregate(name: &str, functions: &Functions, rng: &mut impl Rng) -> String {
    let lists = functions.aggregates.get(name).map_or(&[][..], Vec::as_slice);
    let arguments = arguments(lists, functions, 1, rng);
    let distinct = if rng.random_ratio(1, 6) { "DISTINCT " } else { "" };
    let order = if rng.random_ratio(1, 6) { " ORDER BY n" } else { "" };
    let filter = if rng.random_ratio(1, 5) { " FILTER (WHERE n <> 0)" } else { "" };
    format!("\"{name}\"({distinct}{arguments}{order}){filter}")
}

/// A call of a window function, or of an aggregate as one.
pub fn window(name: &str, lists: &[Vec<DataType>], functions: &Functions, rng: &mut impl Rng) -> String {
    let frames =
        ["", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", " RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"];
    let frame = pick(&frames, rng);
    format!(
        "\"{name}\"({}) OVER (PARTITION BY aggregate_id ORDER BY event_time{frame})",
        arguments(lists, functions, 1, rng)
    )
}

/// An expression of operators, which are functions by another name.
pub fn operation(rng: &mut impl Rng) -> String {
    let operators = [
        "+",
        "-",
        "*",
        "/",
        "%",
        "||",
        "=",
        "<>",
        "<",
        ">=",
        "AND",
        "OR",
        "LIKE",
        "~",
        "->",
        "->>",
        "&",
        "|",
        "#",
        "<<",
        ">>",
        "IS DISTINCT FROM",
    ];
    let operator = pick(&operators, rng);
    let (left, right) = (anything(rng), anything(rng));
    match rng.random_range(0..6) {
        0 => format!("- {left}"),
        1 => format!("CASE WHEN {left} {operator} {right} THEN {} END", anything(rng)),
        2 => {
            let types = [
                "bigint",
                "int",
                "smallint",
                "double",
                "text",
                "date",
                "timestamp",
                "boolean",
                "decimal(10,2)",
                "time",
            ];
            format!("CAST({left} AS {})", pick(&types, rng))
        }
        _ => format!("({left}) {operator} ({right})"),
    }
}
