//! Compiled expressions as people would write them, for `explain`.
//!
//! A chain is told in as few steps as stay readable: a column that only changes its name is followed through, one that is
//! computed stands once, under its name. The text is for reading. A node's identity is another one, and knows nothing of
//! what is done here.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::aggregate::LoweredAggregate;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr,
    NotExpr, TryCastExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_common::physical_expr::fmt_sql;

use super::chain::Step;
use super::words::{plain, type_name};
use crate::functions::{Canonical, Concatenation, ShortCircuit};

type Expression = Arc<dyn PhysicalExpr>;

/// The steps of a chain, one a line.
pub(super) fn chain(input: &Schema, steps: &[Step]) -> String {
    let mut told = Told::new(input);
    for step in steps {
        match step {
            Step::Filter(predicate) => {
                if told.computes(predicate) {
                    told.select();
                }
                let predicate = told.text(predicate);
                // What is true of renamed columns is said before they are.
                told.lines.push(format!("where {predicate}"));
            }
            Step::Project { expressions, schema } => {
                let builds_on_computed =
                    |expression: &Expression| !expression.is::<Column>() && told.computes(expression);
                if expressions.iter().any(builds_on_computed) {
                    told.select();
                }
                let columns = expressions.iter().zip(schema.fields()).map(|(expression, field)| {
                    Told::column(told.text(expression), field.name(), told.is_plain(expression))
                });
                told.columns = columns.collect();
                told.changed = true;
            }
        }
    }
    told.finish(input)
}

/// What has been told of a chain, and the columns as they stand.
struct Told {
    lines: Vec<String>,
    columns: Vec<Shown>,
    /// Whether the columns are others than those after the last line.
    changed: bool,
}

/// A column as it stands.
struct Shown {
    text: String,
    name: String,
    /// Whether it is a column of the input or a field of one, whatever its name.
    is_plain: bool,
}

impl Told {
    fn new(input: &Schema) -> Self {
        let columns = input.fields().iter().map(|field| Self::column(name(field.name()), field.name(), true));
        Self { lines: Vec::new(), columns: columns.collect(), changed: false }
    }

    fn column(text: String, name: &str, is_plain: bool) -> Shown {
        Shown { text, name: name.to_string(), is_plain }
    }

    /// Whether an expression reads a column that is computed.
    fn computes(&self, expression: &Expression) -> bool {
        match expression.downcast_ref::<Column>() {
            Some(column) => self.columns.get(column.index()).is_some_and(|shown| !shown.is_plain),
            None => expression.children().into_iter().any(|child| self.computes(child)),
        }
    }

    fn is_plain(&self, expression: &Expression) -> bool {
        match expression.downcast_ref::<Column>() {
            Some(column) => self.columns.get(column.index()).is_some_and(|shown| shown.is_plain),
            None => field_of(expression).is_some_and(|(of, _)| self.is_plain(of)),
        }
    }

    fn text(&self, expression: &Expression) -> String {
        let column = |column: &Column| match self.columns.get(column.index()) {
            Some(shown) => shown.text.clone(),
            None => name(column.name()),
        };
        Printer { column: &column }.text(expression)
    }

    /// Tells the columns as they stand; from now on they go by their names.
    fn select(&mut self) {
        let shown = |shown: &Shown| {
            let name = name(&shown.name);
            let is_named = column_name(&shown.name) == shown.name;
            if shown.text == name || !is_named { shown.text.clone() } else { format!("{} AS {name}", shown.text) }
        };
        let columns: Vec<String> = self.columns.iter().map(shown).collect();
        self.lines.push(format!("select {}", columns.join(", ")));
        for column in &mut self.columns {
            (column.text, column.is_plain) = (name(&column.name), true);
        }
        self.changed = false;
    }

    fn finish(mut self, input: &Schema) -> String {
        let is_input = |(shown, field): (&Shown, &Arc<arrow::datatypes::Field>)| {
            shown.text == name(&shown.name) && shown.name == *field.name()
        };
        let same = self.columns.len() == input.fields().len() && self.columns.iter().zip(input.fields()).all(is_input);
        if self.changed && !(same && self.lines.iter().all(|line| line.starts_with("where"))) {
            self.select();
        }
        if self.lines.is_empty() { "all rows as they are".into() } else { self.lines.join("\n") }
    }
}

/// An aggregate's call.
pub(super) fn aggregate(lowered: &LoweredAggregate) -> String {
    let aggregate = &lowered.aggregate;
    let arguments: Vec<String> = aggregate.expressions().iter().map(expression).collect();
    let of_rows = aggregate.fun().name() == "count"
        && aggregate.expressions().iter().all(|argument| argument.downcast_ref::<Literal>().is_some());
    let arguments = if of_rows { "*".into() } else { arguments.join(", ") };
    let distinct = if aggregate.is_distinct() { "DISTINCT " } else { "" };
    let sorts = aggregate.order_bys().iter().map(|sort| {
        let direction = if sort.options.descending { " DESC" } else { "" };
        format!("{}{direction}", expression(&sort.expr))
    });
    let sorts: Vec<String> = sorts.collect();
    let order = if sorts.is_empty() { String::new() } else { format!(" ORDER BY {}", sorts.join(", ")) };
    let call = format!("{}({distinct}{arguments}{order})", aggregate.fun().name());
    match &lowered.filter {
        Some(filter) => format!("{call} FILTER (WHERE {})", expression(filter)),
        None => call,
    }
}

/// An expression over columns that go by their own names.
fn expression(expression: &Expression) -> String {
    Printer { column: &|column| name(column.name()) }.text(expression)
}

/// A column's name as SQL has it.
fn name(text: &str) -> String {
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if starts && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return text.into();
    }
    let plain = column_name(text);
    if plain == text && !text.contains('(') { format!("\"{}\"", text.replace('"', "\"\"")) } else { plain }
}

/// A column that was given no name goes by what it is: `avg(celsius)`, and a window as `window`.
pub(super) fn column_name(text: &str) -> String {
    if text.starts_with("tumble(") {
        return "window".into();
    }
    if text.contains('(') { plain(text).replace("count(1)", "count(*)") } else { text.into() }
}

/// A field that an expression takes out of a struct, if that is what it does.
fn field_of(expression: &Expression) -> Option<(&Expression, &str)> {
    let call = expression.downcast_ref::<ScalarFunctionExpr>().filter(|call| call.name() == "get_field")?;
    let [of, field] = call.args() else { return None };
    Some((of, field.downcast_ref::<Literal>()?.value().try_as_str().flatten()?))
}

/// Writes expressions; what a column is called is said from outside.
struct Printer<'a> {
    column: &'a dyn Fn(&Column) -> String,
}

impl Printer<'_> {
    fn text(&self, expression: &Expression) -> String {
        if let Some(column) = expression.downcast_ref::<Column>() {
            return (self.column)(column);
        }
        if let Some(value) = expression.downcast_ref::<Literal>() {
            return literal(value.value());
        }
        if let Some(binary) = expression.downcast_ref::<BinaryExpr>() {
            return self.binary(binary);
        }
        if let Some(case) = expression.downcast_ref::<CaseExpr>() {
            return self.case(case);
        }
        if let Some(cast) = expression.downcast_ref::<CastExpr>() {
            return format!("CAST({} AS {})", self.text(cast.expr()), type_name(cast.cast_type()));
        }
        if let Some(cast) = expression.downcast_ref::<TryCastExpr>() {
            return format!("TRY_CAST({} AS {})", self.text(cast.expr()), type_name(cast.cast_type()));
        }
        if let Some((of, field)) = field_of(expression) {
            return format!("{}.{}", self.operand(of), name(field));
        }
        if let Some(both) = expression.downcast_ref::<ShortCircuit>() {
            return self.both(both);
        }
        if let Some(call) = expression.downcast_ref::<ScalarFunctionExpr>() {
            if let ([key], true) = (call.args(), call.fun().inner().is::<Canonical>()) {
                return self.text(key);
            }
            if let ([left, right], true) = (call.args(), call.fun().inner().is::<Concatenation>()) {
                return format!("{} || {}", self.operand(left), self.operand(right));
            }
            return format!("{}({})", call.name(), self.list(call.args()));
        }
        self.test(expression).unwrap_or_else(|| plain(&fmt_sql(expression.as_ref()).to_string()))
    }

    /// Expressions that are true or false, and negative ones.
    fn test(&self, expression: &Expression) -> Option<String> {
        if let Some(not) = expression.downcast_ref::<NotExpr>() {
            return Some(format!("NOT {}", self.operand(not.arg())));
        }
        if let Some(negative) = expression.downcast_ref::<NegativeExpr>() {
            return Some(format!("-{}", self.operand(negative.arg())));
        }
        if let Some(is) = expression.downcast_ref::<IsNullExpr>() {
            return Some(format!("{} IS NULL", self.operand(is.arg())));
        }
        if let Some(is) = expression.downcast_ref::<IsNotNullExpr>() {
            return Some(format!("{} IS NOT NULL", self.operand(is.arg())));
        }
        if let Some(list) = expression.downcast_ref::<InListExpr>() {
            let not = if list.negated() { "NOT " } else { "" };
            return Some(format!("{} {not}IN ({})", self.operand(list.expr()), self.list(list.list())));
        }
        let like = expression.downcast_ref::<LikeExpr>()?;
        let not = if like.negated() { "NOT " } else { "" };
        let word = if like.case_insensitive() { "ILIKE" } else { "LIKE" };
        Some(format!("{} {not}{word} {}", self.operand(like.expr()), self.operand(like.pattern())))
    }

    fn list(&self, expressions: &[Expression]) -> String {
        expressions.iter().map(|expression| self.text(expression)).collect::<Vec<_>>().join(", ")
    }

    /// In brackets if it is made of several words.
    fn operand(&self, expression: &Expression) -> String {
        let text = self.text(expression);
        if precedence(expression).is_some() { format!("({text})") } else { text }
    }

    fn binary(&self, binary: &BinaryExpr) -> String {
        let own = binary.op().precedence();
        let side = |expression: &Expression, is_right: bool| {
            let text = self.text(expression);
            let inner = precedence(expression);
            let is_loose = inner.is_some_and(|inner| inner == 0 || inner < own || (is_right && inner == own));
            if is_loose { format!("({text})") } else { text }
        };
        format!("{} {} {}", side(binary.left(), false), binary.op(), side(binary.right(), true))
    }

    fn both(&self, both: &ShortCircuit) -> String {
        let operator = if both.is_and { Operator::And } else { Operator::Or };
        self.binary(&BinaryExpr::new(Arc::clone(&both.left), operator, Arc::clone(&both.right)))
    }

    fn case(&self, case: &CaseExpr) -> String {
        let mut text = String::from("CASE");
        if let Some(of) = case.expr() {
            text.extend([" ", &self.text(of)]);
        }
        for (when, then) in case.when_then_expr() {
            text.extend([" WHEN ", &self.text(when), " THEN ", &self.text(then)]);
        }
        if let Some(otherwise) = case.else_expr() {
            text.extend([" ELSE ", &self.text(otherwise)]);
        }
        text + " END"
    }
}

/// How tightly an expression of an operator holds together.
fn precedence(expression: &Expression) -> Option<u8> {
    if let Some(binary) = expression.downcast_ref::<BinaryExpr>() {
        return Some(binary.op().precedence());
    }
    if let Some(both) = expression.downcast_ref::<ShortCircuit>() {
        return Some(if both.is_and { Operator::And } else { Operator::Or }.precedence());
    }
    let call = expression.downcast_ref::<ScalarFunctionExpr>()?;
    call.fun().inner().is::<Concatenation>().then(|| Operator::StringConcat.precedence())
}

fn literal(value: &ScalarValue) -> String {
    if value.is_null() {
        return "NULL".into();
    }
    let text = || {
        let array = value.to_array().ok()?;
        let formatter = ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()).ok()?;
        Some(formatter.value(0).to_string())
    };
    let text = text().unwrap_or_else(|| value.to_string());
    // A line of the text is a step, and a terminal obeys control characters.
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let text: String = text.chars().map(shown).collect();
    let quoted = || format!("'{}'", text.replace('\'', "''"));
    match value.data_type() {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => quoted(),
        DataType::Timestamp(..) => format!("TIMESTAMP {}", quoted()),
        DataType::Date32 | DataType::Date64 => format!("DATE {}", quoted()),
        DataType::Interval(_) | DataType::Duration(_) => format!("INTERVAL {}", quoted()),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use cornjacket_core::aggregate::Relation;

    use crate::stream::{StreamOptions, compile_stream, tests::tables};

    /// The steps of a stream, from its end to its beginning.
    fn told(sql: &str) -> Vec<String> {
        let relation = compile_stream(sql, &tables(), StreamOptions::default()).expect("compiles");
        let mut told = Vec::new();
        let mut at = &relation;
        loop {
            at = match at {
                Relation::Transform { input, transform } => {
                    told.push(transform.summary());
                    input
                }
                Relation::Tumble { input, window } => {
                    told.push(window.aggregation.summary());
                    input
                }
                _ => return told,
            };
        }
    }

    #[test]
    fn chains_read_as_their_sql_does() {
        let cases = [
            (
                "SELECT aggregate_id AS device, CASE unit WHEN 'fahr''t' THEN (value - 32) * 5 / 9 ELSE value END AS c \
                 FROM sensor.reading WHERE \"batteryLevel\" IS NOT NULL AND unit <> 'k'",
                "where \"batteryLevel\" IS NOT NULL AND unit != 'k'\n\
                 select aggregate_id AS device, CASE unit WHEN 'fahr''t' THEN (value - 32.0) * 5.0 / 9.0 ELSE value END AS c",
            ),
            (
                "SELECT device, doubled FROM (SELECT device, celsius * 2 AS doubled FROM readings) WHERE doubled > 80",
                "select device, celsius * 2.0 AS doubled\nwhere doubled > 80.0",
            ),
            (
                "SELECT celsius AS c FROM readings WHERE device IN ('a', 'b', 'c', 'd', 'e') AND NOT (celsius > 1 OR \
                 celsius - (1 - celsius) < 0)",
                "where device IN ('a', 'b', 'c', 'd', 'e') AND (celsius <= 1.0 AND celsius - (1.0 - celsius) >= 0.0)\n\
                 select celsius AS c",
            ),
            ("SELECT device, celsius FROM readings", "all rows as they are"),
            ("SELECT upper(device) AS up FROM readings", "select upper(device) AS up"),
            ("SELECT device || 'a\n\u{1b}b' AS two FROM readings", "select device || 'a\\n\\u{1b}b' AS two"),
        ];
        for (sql, expected) in cases {
            assert_eq!(told(sql).join("\n"), expected, "{sql}");
        }
    }

    #[test]
    fn windows_name_their_aggregates_and_what_comes_after_reads_them_by_what_they_are() {
        let told = told(
            "SELECT window.start AS at, n, hot, d FROM (SELECT tumble(interval '1 minute') AS window, device, count(*) AS n, \
             sum(celsius * 2) FILTER (WHERE celsius > 80) AS hot, count(DISTINCT device) AS d FROM readings \
             GROUP BY window, device)",
        );
        let [after, window, _] = told.as_slice() else { panic!("{told:?}") };
        assert!(after.starts_with("select window.start AS at, count(*) AS n, "), "{after}");
        assert!(window.starts_with("count(*), sum("), "{window}");
        assert!(window.contains("FILTER (WHERE ") && window.ends_with("count(DISTINCT device)"), "{window}");
        for text in &told {
            assert!(!text.contains('@') && !text.contains("Int64") && !text.contains("Utf8"), "{text}");
        }
    }
}
