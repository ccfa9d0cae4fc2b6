//! SQL whose parts do not fit together: types, arguments, grouping. The engine says so in its own words; here they become
//! the user's, with the place that they are about and a remedy.
//!
//! Each function knows one sentence of the engine and answers `None` to every other. A sentence that none knows is shown
//! with our names of types.

use std::ops::Range;

use super::SqlFault;
use super::faults::{Context, first_sentence};
use super::words::{between, find_words, plain};

type Known = fn(&str, &Context<'_>) -> Option<SqlFault>;

const SENTENCES: [Known; 17] = [
    statements,
    duplicate_column,
    arithmetic,
    comparison,
    function_arguments,
    aggregates,
    fields,
    casts,
    literals,
    conditions,
    branches,
    unions,
    json,
    operators,
    sub_queries,
    placeholders,
    lists,
];

/// What the engine's sentence means to who wrote the SQL.
pub(super) fn fault(message: &str, context: &Context<'_>) -> SqlFault {
    let message = bare(message);
    SENTENCES.iter().find_map(|known| known(message, context)).unwrap_or_else(|| {
        SqlFault::new("CJ203", plain(&first_sentence(message)))
            .with_hint("write it in another way, perhaps as several streams")
    })
}

/// Without the engine's names of its phases.
fn bare(message: &str) -> &str {
    const PHASES: [&str; 9] = [
        "Error during planning: ",
        "Internal error: ",
        "Execution error: ",
        "Schema error: ",
        "type_coercion",
        "Arrow error: ",
        "This feature is not implemented: ",
        "Parser error: ",
        "Cast error: ",
    ];
    let mut message = message;
    while let Some(rest) = PHASES.iter().find_map(|phase| message.strip_prefix(phase)) {
        message = rest.trim_start_matches(['\n', ' ', ':']).trim_start_matches("caused by").trim_start();
    }
    message
}

fn mismatch(message: impl Into<String>, hint: impl Into<String>) -> SqlFault {
    SqlFault::new("CJ203", message).with_hint(hint)
}

fn statements(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    if message.starts_with("No SQL statements") {
        return Some(SqlFault::new("CJ202", "there is no SQL here").with_hint("write SELECT … FROM …"));
    }
    if message.contains("only supports a single SQL statement") {
        let at = context.sql.find(';').map(|at| at..at + 1);
        let fault = SqlFault::new("CJ202", "a stream is one SELECT statement, and here are two");
        return Some(fault.with_hint("write each as a stream of its own").about(at));
    }
    None
}

fn duplicate_column(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    let expression = between(message, "unique expression names but the expression \"", "\" at position")?;
    let name = expression.rsplit_once(" AS ").map_or(expression, |(_, name)| name);
    let name = name.rsplit('.').next().unwrap_or(name);
    let places: Vec<Range<usize>> = find_words(context.sql, name).collect();
    if name.chars().any(|c| !(c.is_alphanumeric() || c == '_')) {
        let message = "two columns of the SELECT have the same expression and no name";
        return Some(
            SqlFault::new("CJ204", message).with_hint("give each a name with AS").about(context.find_word("select")),
        );
    }
    let by_star = places.len() < 2;
    let hint = if by_star {
        format!("`*` brings it already: leave it out, or give it another name: {name} AS {name}_2")
    } else {
        format!("leave one of them out, or give it another name: … AS {name}_2")
    };
    let at = places.get(1).or(places.first()).cloned();
    Some(SqlFault::new("CJ204", format!("two columns of the SELECT are called `{name}`")).with_hint(hint).about(at))
}

fn arithmetic(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    let inner = between(message, "Cannot coerce arithmetic expression ", " to valid types")?;
    let (left, operator, right) = operands(inner)?;
    let quoted_column = column_in_quotes(context).filter(|_| left == "string" || right == "string");
    let hint = match (left.as_str(), operator, right.as_str()) {
        _ if quoted_column.is_some() => {
            let name = quoted_column.unwrap_or_default();
            format!("'{name}' in single quotes is a text; the column is written {name}")
        }
        ("string", "+", "string") => "texts are joined with ||".to_string(),
        (a, _, b) if a == "json" || b == "json" => {
            "take a number out of the JSON: CAST(column ->> 'name' AS double)".into()
        }
        (a, _, b) if a == "timestamp" || b == "timestamp" => {
            "a time goes together with a span of time: … - interval '5 seconds'".into()
        }
        (a, _, b) if a == "string" || b == "string" => {
            "make a number of the text: CAST(… AS double); texts are joined with ||".into()
        }
        _ => "CAST one of them, or take a part of it".into(),
    };
    Some(mismatch(format!("`{operator}` does not work on {left} and {right}"), hint).about(around(context, operator)))
}

/// A column whose name stands in single quotes in the SQL, which makes a text of it.
fn column_in_quotes(context: &Context<'_>) -> Option<String> {
    let mut columns = context.tables.schemas.values().flat_map(|schema| schema.fields().iter());
    columns.find(|field| context.find_text(&format!("'{}'", field.name())).is_some()).map(|field| field.name().clone())
}

fn comparison(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    let inner = message.strip_prefix("Cannot infer common argument type for comparison operation ")?;
    let inner = first_sentence(inner);
    let (left, operator, right) = operands(&inner)?;
    let has = |name: &str| left == name || right == name;
    let hint = if has("boolean") {
        "write true or false, without quotes".to_string()
    } else if has("timestamp") {
        "compare it with a time: timestamp '2026-01-01T00:00:00Z'".into()
    } else if has("nested map") {
        "compare a field of it: column['field']".into()
    } else if left.starts_with("list") || right.starts_with("list") {
        "look into it with array_has(column, …), or compare an item of it: column[1]".into()
    } else {
        "CAST one of them".into()
    };
    Some(mismatch(format!("`{operator}` cannot compare {left} with {right}"), hint).about(around(context, operator)))
}

/// `Float64 + Struct("a": Utf8)` as its parts, in our words.
fn operands(inner: &str) -> Option<(String, &str, String)> {
    const OPERATORS: [&str; 13] = ["+", "-", "*", "/", "%", "=", "!=", "<>", "<=", ">=", "<", ">", "IS DISTINCT FROM"];
    let found = OPERATORS.iter().filter_map(|operator| Some((inner.find(&format!(" {operator} "))?, operator)));
    let (at, operator) = found.min()?;
    Some((plain(&inner[..at]), operator, plain(&inner[at + operator.len() + 2..])))
}

/// The only place of an operator, if it stands with spaces around it.
fn around(context: &Context<'_>, operator: &str) -> Option<Range<usize>> {
    let mut found = context.sql.match_indices(operator).map(|(at, _)| at..at + operator.len());
    let first = found.next();
    if found.next().is_some() { None } else { first }
}

fn function_arguments(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    if message.starts_with("Substring without for/from") {
        let fault = mismatch("`substr` needs to know where the part begins", "write substr(text, 1, 3)");
        return Some(fault.about(context.find_any(&["substr", "substring"])));
    }
    let given = between(message, "No function matches the given name and argument types '", "'.");
    let named = given.and_then(|given| given.split_once('('));
    let name = named.map(|(name, _)| name).or_else(|| between(message, "Function '", "'"))?;
    let arguments = named.map(|(_, rest)| plain(rest.strip_suffix(')').unwrap_or(rest)));
    let received = between(message, "received ", " (").or_else(|| between(message, "received ", "."));
    let arguments = arguments.or_else(|| received.map(plain)).unwrap_or_default();
    let place = context.find_word(name);
    if name == "tumble" {
        let message = if arguments.is_empty() {
            "`tumble` needs the width of its windows".to_string()
        } else {
            format!("`tumble` takes the width of its windows, and this is {arguments}")
        };
        return Some(SqlFault::new("CJ214", message).with_hint("write tumble(interval '1 minute')").about(place));
    }
    let said = if arguments.is_empty() {
        format!("`{name}` needs arguments")
    } else if let Some(count) = between(message, "expects ", " arguments but") {
        format!("`{name}` takes {count} {}, not ({arguments})", if count == "1" { "argument" } else { "arguments" })
    } else {
        format!("`{name}` does not work on ({arguments})")
    };
    Some(mismatch(said, wanted(message, &arguments)).about(place))
}

/// What a function wants, as far as the engine says.
fn wanted(message: &str, arguments: &str) -> String {
    let wants =
        |name: &str| message.contains(&format!("expects {name}")) || message.contains(&format!("requires {name}"));
    if wants("Numeric") || wants("Float64") || wants("Integer") || wants("Decimal") {
        return "it wants a number: take another column, or CAST(… AS double)".into();
    }
    if wants("String") {
        let of_nested = arguments.contains("nested map");
        return if of_nested {
            "it wants a text: take a field of the nested map: column['field']".into()
        } else {
            "it wants a text: take another column, or CAST(… AS string)".into()
        };
    }
    if wants("Timestamp") || wants("Date") {
        return "it wants a time: take event_time, or CAST(… AS timestamp)".into();
    }
    "look at the number and the types of its arguments; CAST where a type is another".into()
}

fn aggregates(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    if message.starts_with("Aggregate functions are not allowed in the WHERE") {
        let hint = "put the condition behind the GROUP BY, as HAVING count(*) > 3";
        let fault = mismatch("WHERE looks at single rows, so it cannot hold an aggregate", hint);
        return Some(fault.about(context.find_word("where")));
    }
    if message.starts_with("Aggregate function calls cannot be nested") {
        let hint = "aggregate in two streams: one computes the inner aggregate, the other reads it";
        return Some(mismatch("an aggregate cannot stand inside another", hint));
    }
    if message.starts_with("HAVING clause references") || message.contains("HAVING clause must") {
        let hint = "write WHERE for a condition on single rows";
        let fault = mismatch("HAVING is for groups, and this is no aggregate or column of the GROUP BY", hint);
        return Some(fault.about(context.find_word("having")));
    }
    if message.contains("must appear in the GROUP BY clause") {
        let column = between(message, "column \"", "\" must appear").unwrap_or_default();
        let name = column.rsplit('.').next().unwrap_or(column);
        let fault = mismatch(
            format!("`{name}` is neither in the GROUP BY nor inside an aggregate"),
            format!("add it to the GROUP BY, or take one value of the group: last_value({name} ORDER BY event_time)"),
        );
        return Some(fault.about(context.find_word(name)));
    }
    None
}

fn fields(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    if let Some(name) = between(message, "Field ", " not found in struct") {
        let owner = owner_of(context.sql, name);
        let known = owner.as_deref().and_then(|owner| context.fields_of(owner)).map(|fields| {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            names.join(", ")
        });
        let hint = known.map_or("name a field that it has".into(), |known| format!("its fields: {known}"));
        let message = format!("`{}` has no field `{name}`", owner.as_deref().unwrap_or("the nested map"));
        return Some(SqlFault::new("CJ208", message).with_hint(hint).about(context.find_word(name)));
    }
    let found = between(message, "Cannot access field at argument 1: type ", " is not Struct")?;
    let columns = context.tables.schemas.values().flat_map(|schema| schema.fields().iter());
    let accessed =
        |column: &str| context.find_text(&format!("{column}.")).or_else(|| context.find_text(&format!("{column}[")));
    let (name, at) = columns.into_iter().find_map(|field| {
        let at = accessed(field.name()).filter(|_| !field.data_type().is_nested() || found.starts_with("List"))?;
        (plain(&field.data_type().to_string()) == plain(found)).then(|| (field.name().clone(), at.start..at.end - 1))
    })?;
    let hint = match name.as_str() {
        "payload" => "the fields of the payload are columns of their own: write just the field's name".to_string(),
        _ if found.starts_with("List") => format!("items of a list are counted from 1: {name}[1]"),
        _ => format!("if it holds JSON, write {name} ->> 'field'"),
    };
    Some(mismatch(format!("`{name}` is a {} and has no fields", plain(found)), hint).about(Some(at)))
}

/// The column before `.name` or `['name']`.
fn owner_of(sql: &str, name: &str) -> Option<String> {
    let before = [format!(".{name}"), format!("['{name}']")].iter().find_map(|text| sql.split_once(text.as_str()))?.0;
    let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    Some(before[start..].to_string())
}

fn casts(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    if let Some(name) = message.strip_prefix("Unsupported SQL type ") {
        let hint = "types: boolean, int, bigint, float, double, string, timestamp";
        let name = first_sentence(name);
        return Some(mismatch(format!("there is no type `{name}`"), hint).about(context.find_word(&name)));
    }
    let (from, to) = between(&format!("{message}\n"), "Unsupported CAST from ", "\n")?
        .split_once(" to ")
        .map(|(a, b)| (plain(a), plain(b)))?;
    let hint = if from.starts_with("list") {
        "take an item of it, such as column[1]"
    } else if from == "nested map" {
        "take a field of it: column['field']"
    } else {
        "CAST to another type"
    };
    Some(mismatch(format!("a {from} cannot be made a {to}"), hint).about(context.find_any(&["cast", "try_cast"])))
}

fn literals(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    let quoted = |text: &str| context.find_text(&format!("'{text}'"));
    if let Some((text, kind)) =
        between(message, "Cannot cast string '", " type").and_then(|rest| rest.split_once("' to value of "))
    {
        let fault =
            mismatch(format!("'{text}' is no {}", plain(kind)), "write a value of that type, or compare with a text");
        return Some(fault.about(quoted(text)));
    }
    if let Some(text) = between(message, "Invalid input syntax for type interval: \"", "\"") {
        let hint =
            "write a number and a unit, such as interval '5 minutes'; units: seconds, minutes, hours, days, weeks";
        return Some(SqlFault::new("CJ214", format!("'{text}' is no interval")).with_hint(hint).about(quoted(text)));
    }
    if let Some(text) = between(message, "Error parsing timestamp from '", "'") {
        return Some(
            mismatch(format!("'{text}' is no time"), "write it as '2026-01-01T00:00:00Z'").about(quoted(text)),
        );
    }
    None
}

fn conditions(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    if let Some(kind) =
        message.rsplit_once("non-boolean predicate ").and_then(|(_, rest)| rest.rsplit_once(" returning "))
    {
        let kind = plain(&first_sentence(kind.1));
        let fault = mismatch(
            format!("WHERE wants a condition, and this is a {kind}"),
            "compare it with something, such as value > 0",
        );
        return Some(fault.about(context.find_any(&["where", "having"])));
    }
    let inner = between(message, "common type to coerce ", " in LIKE")?;
    let (left, right) = inner.split_once(" and ").map(|(a, b)| (plain(a), plain(b)))?;
    let fault =
        mismatch(format!("LIKE compares texts, and here are {left} and {right}"), "write CAST(… AS string) LIKE …");
    Some(fault.about(context.find_any(&["like", "ilike"])))
}

fn branches(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    if !message.contains("CASE WHEN") && !message.contains("CASE expression") {
        return None;
    }
    let one = between(message, "then (", ") and else").map(plain);
    let other = between(message, "and else (", ") to common types").map(plain);
    let message = match one.zip(other) {
        Some((one, other)) => format!("the branches of the CASE have types that do not go together: {one} and {other}"),
        None => "the parts of the CASE have types that do not go together".to_string(),
    };
    Some(
        mismatch(message, "let all of THEN and ELSE give one type; CAST where one differs")
            .about(context.find_word("case")),
    )
}

fn unions(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    let at = context.find_word("union");
    if message.starts_with("UNION queries have different number of columns") {
        let hint = "SELECT the same columns in the same order in each part; NULL AS name fills a gap";
        let fault = SqlFault::new("CJ211", "the parts of the UNION ALL have different numbers of columns");
        return Some(fault.with_hint(hint).about(at));
    }
    let one = between(message, "Previous inputs were of type ", ", but got incompatible type").map(plain)?;
    let other = between(message, "incompatible type ", " on column").map(plain)?;
    let column = between(message, "on column '", "'").unwrap_or_default();
    let message =
        format!("the parts of the UNION ALL have different types for one column: {one}, and {other} in `{column}`");
    let hint = "SELECT the same columns in the same order in each part; CAST where a type differs";
    Some(SqlFault::new("CJ211", message).with_hint(hint).about(at))
}

fn json(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    let function = between(message, "Unexpected argument type to '", "'")?;
    let found = message.rsplit_once("expected a string, got ").map(|(_, kind)| kind.trim_end_matches('.'));
    let kind = if found.is_some_and(|kind| kind.starts_with("Struct")) {
        "nested map".into()
    } else {
        plain(found.unwrap_or_default())
    };
    let operator = if function == "json_as_text" { "->>" } else { "->" };
    let hint = match kind.as_str() {
        "nested map" => "a nested map is no JSON: write column['field']",
        _ => "it works on columns of type json or string, such as payload ->> 'name'",
    };
    let at = context.find_text(operator).or_else(|| context.find_word(function));
    let operator = if context.find_text(operator).is_some() { operator } else { function };
    Some(mismatch(format!("`{operator}` looks into JSON, and this is a {kind}"), hint).about(at))
}

fn operators(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    if message.contains("PGOverlap") {
        let fault = SqlFault::new("CJ201", "`&&` is no operator between conditions").with_hint("write AND");
        return Some(fault.about(context.find_text("&&")));
    }
    if let Some(operator) = message.strip_prefix("Unsupported binary operator: ") {
        let message = format!("the operator {} is not supported", first_sentence(operator));
        return Some(
            SqlFault::new("CJ206", message).with_hint("write it with functions, or with AND, OR and comparisons"),
        );
    }
    if message.starts_with("Unary operator 'NOT'") {
        return Some(mismatch("NOT wants a condition", "write a comparison after it, such as NOT (value > 0)"));
    }
    if message.starts_with("Unary operator '-'") {
        return Some(mismatch("`-` wants a number", "CAST the text first: -CAST(… AS double)"));
    }
    None
}

fn sub_queries(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    if let Some(inner) = message.split_once("logical boolean operation ").map(|(_, rest)| rest) {
        let fault = mismatch(
            format!("AND and OR join conditions, and here is {}", plain(&first_sentence(inner))),
            "compare the value with something, such as value > 0",
        );
        return Some(fault.about(context.find_any(&["and", "or"])));
    }
    if message.contains("logical expression AggregateFunction") {
        let hint = "GROUP BY columns only; aggregates stand in the SELECT and in HAVING";
        return Some(mismatch("an aggregate cannot be what is grouped by", hint).about(context.find_word("group")));
    }
    if message.contains("logical expression WindowFunction") {
        let fault = SqlFault::new("CJ206", "OVER (…) is not supported in this version");
        return Some(
            fault
                .with_hint("aggregate in a window: GROUP BY tumble(interval '1 minute'), …")
                .about(context.find_word("over")),
        );
    }
    let is_one = message.contains("InSubquery") || message.contains("ScalarSubquery") || message.contains("Exists(");
    if !is_one {
        let is_other = message.contains("does not support logical expression");
        let fault = SqlFault::new("CJ206", "an expression of this SQL is not supported in a stream");
        return is_other.then(|| fault.with_hint("write it with columns, functions and aggregates"));
    }
    let place = find_words(context.sql, "select").nth(1);
    let fault = SqlFault::new("CJ206", "a sub-query inside an expression is not supported in this version");
    Some(fault.with_hint("a sub-query can stand in FROM only: SELECT … FROM (SELECT …)").about(place))
}

fn placeholders(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    let name = between(message, "Placeholder '", "'")?;
    let fault = mismatch(
        format!("`{name}` stands for a value that nobody gives"),
        "write the value itself, or ${NAME} for an environment variable",
    );
    Some(fault.about(context.find_text(name)))
}

fn lists(message: &str, context: &Context<'_>) -> Option<SqlFault> {
    let fault = message
        .starts_with("unnest() can only be applied")
        .then(|| mismatch("unnest works on a list only", "use the column as it is"))?;
    Some(fault.about(context.find_word("unnest")))
}
