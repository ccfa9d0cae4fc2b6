//! The logical plan as relations.
//!
//! Scans, filters and projections become chains; an aggregate with `tumble` becomes a chain that prepares keys and
//! arguments as plain columns (so rows can be shuffled by key columns), then the window, and the projections above it
//! a chain again. Everything else is refused with what to write instead.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use cornjacket_core::aggregate::{Relation, TumbleSpec};
use datafusion::common::tree_node::TreeNode as _;
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result as DataFusionResult, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Operator, TableScan};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::aggregation::{GroupBy, PaneFactory};
use super::chain::{Chain, Step};
use super::faults::{Context, fault_of};
use super::session::{Session, table_name};
use super::words::{find_words, type_name};
use super::{SqlFault, StreamOptions, mismatch};
use crate::functions::{TUMBLE, short_circuited, with_operators};

pub(super) struct Lowering<'a> {
    context: Context<'a>,
    options: StreamOptions,
    properties: ExecutionProps,
    planning: PhysicalPlanningContext,
}

/// A relation whose uppermost chain may still grow.
enum Open {
    Closed(Relation),
    Chain(Relation, Chain),
}

impl Open {
    fn close(self) -> Relation {
        match self {
            Self::Closed(relation) => relation,
            Self::Chain(input, chain) => Relation::Transform { input: Box::new(input), transform: Arc::new(chain) },
        }
    }

    fn then(self, step: Step) -> Self {
        match self {
            Self::Closed(relation) => {
                let chain = Chain::new(relation.schema()).then(step);
                Self::Chain(relation, chain)
            }
            Self::Chain(input, chain) => Self::Chain(input, chain.then(step)),
        }
    }
}

impl<'a> Lowering<'a> {
    pub(super) fn new(session: &'a Session, sql: &'a str, options: StreamOptions) -> Self {
        Self {
            context: Context { sql, tables: &session.tables },
            options,
            properties: ExecutionProps::new(),
            planning: PhysicalPlanningContext::default(),
        }
    }

    pub(super) fn relation(&self, plan: &LogicalPlan) -> Result<Relation, SqlFault> {
        let open = self.open(plan)?;
        let schema = plain_schema(plan.schema());
        let relation = open.close();
        // Names and nullability are the plan's: aliases of sub-queries do not show in the chain below them.
        if relation.schema().fields().iter().map(|f| f.name()).eq(schema.fields().iter().map(|f| f.name())) {
            return Ok(relation);
        }
        Err(SqlFault::new("CJ203", "the columns of the stream cannot be named")
            .with_hint("give each one a name with AS"))
    }

    fn open(&self, plan: &LogicalPlan) -> Result<Open, SqlFault> {
        match plan {
            LogicalPlan::TableScan(scan) => Ok(open_scan(scan)),
            LogicalPlan::SubqueryAlias(alias) => self.open(&alias.input),
            LogicalPlan::Filter(filter) => {
                let predicate = self.physical(&filter.predicate, filter.input.schema())?;
                Ok(self.open(&filter.input)?.then(Step::Filter(predicate)))
            }
            LogicalPlan::Projection(projection) => {
                let input = self.open(&projection.input)?;
                let step = self.projection(&projection.expr, projection.input.schema(), &projection.schema)?;
                Ok(input.then(step))
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|input| self.relation(input)).collect::<Result<Vec<_>, _>>()?;
                open_union(inputs, &plain_schema(&union.schema))
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            other => Err(self.refusal(other)),
        }
    }

    fn projection(&self, expressions: &[Expr], input: &DFSchemaRef, output: &DFSchemaRef) -> Result<Step, SqlFault> {
        let expressions = expressions.iter().map(|e| self.physical(e, input)).collect::<Result<Vec<_>, _>>()?;
        Ok(Step::Project { expressions, schema: plain_schema(output) })
    }

    fn physical(&self, expression: &Expr, input: &DFSchema) -> Result<Arc<dyn PhysicalExpr>, SqlFault> {
        self.refuse_stray_window(expression)?;
        self.refuse_division_by_zero(expression)?;
        let compiled = create_physical_expr(expression, input, &self.properties, &self.planning);
        let careful =
            compiled.and_then(with_operators).and_then(|compiled| short_circuited(compiled, input.as_arrow()));
        careful.map_err(|error| self.fault(&error))
    }

    /// A window function is only a mark for the GROUP BY; anywhere else it would fail on every row.
    fn refuse_stray_window(&self, expression: &Expr) -> Result<(), SqlFault> {
        let is_window = |part: &Expr| Ok(matches!(part, Expr::ScalarFunction(call) if call.func.name() == TUMBLE));
        if !expression.exists(is_window).unwrap_or(false) {
            return Ok(());
        }
        Err(SqlFault::new("CJ218", "`tumble` makes windows for a GROUP BY, and here is none for it")
            .with_hint("write SELECT tumble(interval '1 minute') AS window, … GROUP BY window, …")
            .about(self.context.find_word(TUMBLE)))
    }

    /// It would fail on every row.
    fn refuse_division_by_zero(&self, expression: &Expr) -> Result<(), SqlFault> {
        let is_zero = |value: &Expr| match value {
            Expr::Literal(value, _) => value.data_type().is_integer() && !value.is_null() && is_zero(value),
            _ => false,
        };
        let divides = |part: &Expr| match part {
            Expr::BinaryExpr(binary) => {
                matches!(binary.op, Operator::Divide | Operator::Modulo) && is_zero(&binary.right)
            }
            _ => false,
        };
        if !expression.exists(|part| Ok(divides(part))).unwrap_or(false) {
            return Ok(());
        }
        Err(SqlFault::new("CJ203", "a whole number is divided by zero, which fails on every row")
            .with_hint("divide by something else; nullif(x, 0) makes a null of a zero")
            .about(self.context.find_text("/ 0").or_else(|| self.context.find_text("% 0"))))
    }

    fn fault(&self, error: &DataFusionError) -> SqlFault {
        fault_of(error, &self.context)
    }

    fn aggregate(&self, aggregate: &Aggregate) -> Result<Open, SqlFault> {
        let (window_at, width) = self.window(aggregate)?;
        let keys: Vec<Expr> = aggregate
            .group_expr
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != window_at)
            .map(|(_, e)| e.clone())
            .collect();
        let input_schema = aggregate.input.schema();
        let mut prepared = Prepared::default();
        for key in &keys {
            prepared.add(key.clone());
        }
        let prepared_keys = prepared.columns.len();
        let calls: Vec<Expr> = aggregate.aggr_expr.iter().map(|call| prepared.move_arguments(call)).collect();
        let schema = prepared.schema(input_schema).map_err(|error| self.fault(&error))?;
        let step = self.projection(&prepared.columns, input_schema, &schema)?;
        let input = self.open(&aggregate.input)?.then(step).close();

        let output = plain_schema(&aggregate.schema);
        let mut fields = output.fields().to_vec();
        fields.remove(window_at);
        let lower = |call: &Expr| {
            LoweredAggregateBuilder::new(call, &schema, schema.as_arrow(), &self.properties, &self.planning).build()
        };
        let calls = calls.iter().map(lower).collect::<DataFusionResult<Vec<_>>>();
        let group_by = calls
            .and_then(|calls| GroupBy::new(prepared_keys, calls, plain_schema(&schema), Arc::new(Schema::new(fields))));
        let group_by = group_by.map_err(|error| self.fault(&error))?;
        let aggregation = PaneFactory(Arc::new(group_by));
        aggregation.probe().map_err(|error| mismatch::fault(&error.to_string(), &self.context))?;
        let window = TumbleSpec {
            width,
            lateness: self.options.lateness,
            aggregation: Arc::new(aggregation),
            window_at,
            schema: output,
        };
        Ok(Open::Closed(Relation::Tumble { input: Box::new(input), window }))
    }

    /// Which group expression is the window, and its width.
    fn window(&self, aggregate: &Aggregate) -> Result<(usize, i64), SqlFault> {
        let group = &aggregate.group_expr;
        let calls: Vec<_> = group.iter().enumerate().filter_map(|(at, e)| Some((at, tumble_argument(e)?))).collect();
        if group.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return Err(SqlFault::new("CJ206", "GROUPING SETS, CUBE and ROLLUP are not supported")
                .with_hint("write one stream per grouping")
                .about(self.context.find_any(&["cube", "rollup", "grouping"])));
        }
        match calls.as_slice() {
            [(at, argument)] => Ok((*at, self.width(argument)?)),
            [] => Err(self.no_window(aggregate)),
            _ => Err(SqlFault::new("CJ213", "a GROUP BY can have one window only")
                .with_hint("write one stream per window")
                .about(find_words(self.context.sql, TUMBLE).nth(1))),
        }
    }

    fn no_window(&self, aggregate: &Aggregate) -> SqlFault {
        let hint = "add one: GROUP BY tumble(interval '1 minute'), …";
        let word = |word: &str| self.context.find_word(word);
        let truncated = self.context.find_any(&["date_trunc", "date_bin"]);
        if let (Some(at), Some(_)) = (truncated, word("group")) {
            return SqlFault::new("CJ212", "cutting times off makes groups that never end on an unbounded stream")
                .with_hint(
                    "write tumble(interval '1 minute') instead, which is a window: its rows leave when it has passed",
                )
                .about(Some(at));
        }
        if let Some(at) = word("group") {
            return SqlFault::new("CJ212", "a GROUP BY over an unbounded stream needs a window")
                .with_hint(hint)
                .about(Some(at));
        }
        if word("union").is_some() && aggregate.aggr_expr.is_empty() && word("distinct").is_none() {
            return SqlFault::new("CJ212", "UNION removes duplicates, which takes for ever on an unbounded stream")
                .with_hint("write UNION ALL, which keeps them")
                .about(word("union"));
        }
        if aggregate.aggr_expr.is_empty() {
            return SqlFault::new("CJ212", "DISTINCT over an unbounded stream needs a window")
                .with_hint("GROUP BY tumble(interval '1 minute') and the columns instead")
                .about(word("distinct"));
        }
        let call = aggregate.aggr_expr[0].schema_name().to_string();
        let name = call.split('(').next().unwrap_or_default();
        SqlFault::new("CJ212", "an aggregate over an unbounded stream needs a window").with_hint(hint).about(word(name))
    }

    fn width(&self, argument: &Expr) -> Result<i64, SqlFault> {
        let fault = |message: &str| {
            SqlFault::new("CJ214", message)
                .with_hint("write a fixed span, such as tumble(interval '1 minute')")
                .about(self.context.find_word(TUMBLE))
        };
        let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = argument else {
            return Err(fault("the width of a window must be a literal interval"));
        };
        if interval.months != 0 {
            return Err(fault("months differ in length, so they cannot be the width of a window"));
        }
        let micros = i64::from(interval.days)
            .checked_mul(86_400_000_000)
            .and_then(|days| days.checked_add(interval.nanoseconds / 1_000))
            .filter(|micros| *micros > 0 && interval.nanoseconds % 1_000 == 0);
        micros.ok_or_else(|| fault("the width of a window must be positive and whole microseconds"))
    }

    fn refusal(&self, plan: &LogicalPlan) -> SqlFault {
        let word = |word: &str| self.context.find_word(word);
        match plan {
            LogicalPlan::Sort(_) => SqlFault::new("CJ215", "an unbounded stream never ends, so it cannot be sorted")
                .with_hint("leave ORDER BY out and sort where the projection is queried")
                .about(word("order")),
            LogicalPlan::Limit(_) => SqlFault::new("CJ216", "LIMIT has no meaning on an unbounded stream")
                .with_hint("leave it out and limit where the projection is queried")
                .about(word("limit")),
            LogicalPlan::Join(_) => self.no_join(),
            LogicalPlan::Distinct(_) if word("distinct").is_none() && word("union").is_some() => {
                SqlFault::new("CJ212", "UNION removes duplicates, which takes for ever on an unbounded stream")
                    .with_hint("write UNION ALL, which keeps them")
                    .about(word("union"))
            }
            LogicalPlan::Distinct(_) => SqlFault::new("CJ212", "DISTINCT over an unbounded stream needs a window")
                .with_hint("GROUP BY tumble(interval '1 minute') and the columns instead")
                .about(word("distinct")),
            LogicalPlan::Window(_) => SqlFault::new("CJ206", "OVER (…) is not supported in this version")
                .with_hint("aggregate in a window: GROUP BY tumble(interval '1 minute'), …")
                .about(word("over")),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
                SqlFault::new("CJ217", "a stream must read an event type or another stream")
                    .with_hint("add FROM …")
                    .about(self.context.find_any(&["select", "values"]))
            }
            LogicalPlan::RecursiveQuery(_) => SqlFault::new("CJ206", "WITH RECURSIVE is not supported in a stream")
                .with_hint("write one stream per step")
                .about(word("recursive")),
            LogicalPlan::Unnest(_) => SqlFault::new("CJ206", "unnest is not supported in this version")
                .with_hint("keep the list as a column, or take single items of it: column[1]")
                .about(word("unnest")),
            other => SqlFault::new("CJ206", format!("{} is not supported in a stream", plan_name(other)))
                .with_hint("write it with filters, columns, UNION ALL and windows"),
        }
    }

    fn no_join(&self) -> SqlFault {
        let word = |word: &str| self.context.find_word(word);
        if let Some(at) = self.context.find_any(&["except", "intersect"]) {
            return SqlFault::new(
                "CJ206",
                "comparing whole streams takes for ever, so EXCEPT and INTERSECT are not supported",
            )
            .with_hint("filter with WHERE, or compare where the projections are queried")
            .about(Some(at));
        }
        let hint = "put both into one stream with UNION ALL, or join where the projections are queried";
        let comma = || {
            let from = word("from")?.end;
            let at = from + self.context.sql[from..].find(',')?;
            Some(at..at + 1)
        };
        SqlFault::new("CJ206", "joins are not supported in this version")
            .with_hint(hint)
            .about(word("join").or_else(comma))
    }
}

fn open_scan(scan: &TableScan) -> Open {
    let name = table_name(&scan.table_name);
    let relation = Relation::Table { name, schema: scan.source.schema() };
    match &scan.projection {
        None => Open::Closed(relation),
        Some(columns) => {
            let schema = relation.schema();
            let column = |index: &usize| -> Arc<dyn PhysicalExpr> {
                Arc::new(datafusion::physical_expr::expressions::Column::new(schema.field(*index).name(), *index))
            };
            let expressions = columns.iter().map(column).collect();
            let step = Step::Project { expressions, schema: plain_schema(&scan.projected_schema) };
            Open::Closed(relation).then(step)
        }
    }
}

/// Every input takes on the union's column names.
fn open_union(inputs: Vec<Relation>, schema: &SchemaRef) -> Result<Open, SqlFault> {
    let mut renamed = Vec::new();
    for input in inputs {
        if input.schema().fields().iter().zip(schema.fields()).any(|(a, b)| a.data_type() != b.data_type()) {
            let kinds = |schema: &SchemaRef| {
                schema.fields().iter().map(|field| type_name(field.data_type())).collect::<Vec<_>>().join(", ")
            };
            let (one, other) = (kinds(schema), kinds(input.schema()));
            return Err(SqlFault::new(
                "CJ211",
                format!("the parts of the UNION ALL have different types: {one} and {other}"),
            )
            .with_hint("CAST them to one type"));
        }
        let columns = input.schema().fields().iter().enumerate().map(|(index, field)| {
            Arc::new(datafusion::physical_expr::expressions::Column::new(field.name(), index)) as _
        });
        let step = Step::Project { expressions: columns.collect(), schema: Arc::clone(schema) };
        renamed.push(Open::Closed(input).then(step).close());
    }
    Ok(Open::Closed(Relation::Union { inputs: renamed }))
}

fn plan_name(plan: &LogicalPlan) -> String {
    let text = plan.display().to_string();
    text.split([':', ' ']).next().unwrap_or("this").to_string()
}

fn plain_schema(schema: &DFSchema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().to_vec()))
}

fn is_zero(value: &ScalarValue) -> bool {
    ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| zero == *value)
}

fn tumble_argument(expression: &Expr) -> Option<&Expr> {
    match expression {
        Expr::Alias(alias) => tumble_argument(&alias.expr),
        Expr::ScalarFunction(call) if call.func.name() == TUMBLE => call.args.first(),
        _ => None,
    }
}

/// The columns that a window's input is prepared with: keys, then each distinct argument once.
#[derive(Default)]
struct Prepared {
    columns: Vec<Expr>,
    names: Vec<String>,
}

impl Prepared {
    fn add(&mut self, column: Expr) -> &str {
        if let Some(at) = self.columns.iter().position(|known| *known == column) {
            return &self.names[at];
        }
        // Late rows are shown to people with these names.
        let mut name = match &column {
            Expr::Column(column) => column.name.clone(),
            other => other.schema_name().to_string(),
        };
        while self.names.contains(&name) {
            name.push('_');
        }
        self.columns.push(column);
        self.names.push(name);
        &self.names[self.names.len() - 1]
    }

    fn schema(&self, input: &DFSchema) -> DataFusionResult<DFSchemaRef> {
        let mut fields = Vec::new();
        for (column, name) in self.columns.iter().zip(&self.names) {
            let (_, field) = column.to_field(input)?;
            fields.push(Arc::new(Field::new(name, field.data_type().clone(), field.is_nullable())));
        }
        let schema = DFSchema::from_unqualified_fields(fields.into(), std::collections::HashMap::new())?;
        Ok(Arc::new(schema))
    }

    /// The call with columns of the prepared input for its arguments; literals stay, since some aggregates
    /// (`approx_percentile_cont(x, 0.9)`) must see them.
    fn move_arguments(&mut self, call: &Expr) -> Expr {
        match call {
            Expr::Alias(alias) => {
                let mut alias = alias.clone();
                alias.expr = Box::new(self.move_arguments(&alias.expr));
                Expr::Alias(alias)
            }
            Expr::AggregateFunction(function) => {
                let name = call.schema_name().to_string();
                Expr::AggregateFunction(self.move_all(function)).alias(name)
            }
            other => other.clone(),
        }
    }

    fn move_all(&mut self, function: &AggregateFunction) -> AggregateFunction {
        let mut function = function.clone();
        for argument in &mut function.params.args {
            self.move_one(argument);
        }
        if let Some(filter) = &mut function.params.filter {
            self.move_one(filter);
        }
        for sort in &mut function.params.order_by {
            self.move_one(&mut sort.expr);
        }
        function
    }

    fn move_one(&mut self, expression: &mut Expr) {
        let inner = expression.clone().unalias();
        if matches!(inner, Expr::Literal(..)) {
            return;
        }
        *expression = Expr::Column(Column::new_unqualified(self.add(inner)));
    }
}
