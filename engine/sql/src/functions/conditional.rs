//! An expression is computed only where its CASE, AND, OR or FILTER asks for it, as far as it can fail.
//!
//! `DataFusion` computes the arguments of an aggregate for all rows and filters then, and both sides of AND for all rows unless
//! few of them matter. That is fast, and the same as long as nothing fails.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{and_kleene, filter_record_batch, is_not_null, not, or_kleene};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Case, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::expressions::{self, CaseExpr, CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

/// Functions that give a value or null whatever they are given.
const SAFE: [&str; 23] = [
    "canonical",
    "json_get",
    "json_as_text",
    "json_get_str",
    "json_get_int",
    "json_get_float",
    "json_get_bool",
    "json_contains",
    "json_length",
    "get_field",
    "coalesce",
    "nullif",
    "lower",
    "upper",
    "btrim",
    "ltrim",
    "rtrim",
    "character_length",
    "octet_length",
    "starts_with",
    "contains",
    "strpos",
    "named_struct",
];

/// Whether computing the expression may fail on a row.
fn can_fail(expression: &Expr, schema: &DFSchema) -> bool {
    expression.exists(|part| Ok(fails_by_itself(part, schema))).unwrap_or(true)
}

/// Whether an operator compares, or joins what is true or false: that gives a value for all operands.
fn compares(operator: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | And | Or)
}

/// Whether every value of a type can be cast to another.
fn always_casts(from: &DataType, to: &DataType) -> bool {
    let is_wider = || match (from.primitive_width(), to.primitive_width()) {
        (Some(from_width), Some(to_width)) => {
            to_width > from_width || (to_width == from_width && from.is_signed_integer() == to.is_signed_integer())
        }
        _ => false,
    };
    from == to
        || from.is_null()
        || (from.is_numeric() && to.is_floating())
        || (from.is_integer() && to.is_signed_integer() && is_wider())
        || ((from.is_numeric() || from.is_string() || *from == DataType::Boolean) && to.is_string())
}

fn fails_by_itself(expression: &Expr, schema: &DFSchema) -> bool {
    match expression {
        Expr::Column(_)
        | Expr::OuterReferenceColumn(..)
        | Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Case(_)
        | Expr::TryCast(_)
        | Expr::Like(_) => false,
        // Floating point numbers have a result for everything.
        Expr::BinaryExpr(BinaryExpr { op, .. }) => {
            !compares(*op) && !expression.get_type(schema).is_ok_and(|kind| kind.is_floating())
        }
        Expr::Cast(cast) => !cast.expr.get_type(schema).is_ok_and(|from| always_casts(&from, cast.field.data_type())),
        Expr::ScalarFunction(call) => !SAFE.contains(&call.func.name()),
        _ => true,
    }
}

/// Puts the condition of an aggregate's FILTER around its arguments where they may fail.
#[derive(Debug)]
pub(super) struct FilterFirst;

impl FilterFirst {
    fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if !matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) {
            return Ok(Transformed::no(plan));
        }
        let schema = merge_schema(&plan.inputs());
        super::rewrite_expressions(plan, |part| match part {
            Expr::AggregateFunction(mut call) => {
                let changed = guard(&mut call, &schema);
                Ok(Transformed::new_transformed(Expr::AggregateFunction(call), changed))
            }
            other => Ok(Transformed::no(other)),
        })
    }
}

fn guard(call: &mut AggregateFunction, schema: &DFSchema) -> bool {
    let Some(filter) = call.params.filter.clone() else { return false };
    let mut changed = false;
    let sorts = call.params.order_by.iter_mut().map(|sort| &mut sort.expr);
    for argument in call.params.args.iter_mut().chain(sorts).filter(|argument| can_fail(argument, schema)) {
        let then = Box::new(std::mem::replace(argument, Expr::Literal(ScalarValue::Null, None)));
        *argument = Expr::Case(Case { expr: None, when_then_expr: vec![(filter.clone(), then)], else_expr: None });
        changed = true;
    }
    changed
}

impl AnalyzerRule for FilterFirst {
    fn name(&self) -> &'static str {
        "filter_first"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(Self::rewrite).map(|plan| plan.data)
    }
}

/// The compiled expression, in which AND and OR compute their right side only where the left one leaves that open, if it may
/// fail.
pub(crate) fn short_circuited(expression: Arc<dyn PhysicalExpr>, input: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let rewritten = expression.transform_up(|part| {
        let Some(binary) = part.downcast_ref::<expressions::BinaryExpr>() else { return Ok(Transformed::no(part)) };
        if !matches!(binary.op(), Operator::And | Operator::Or) || !compiled_can_fail(binary.right(), input) {
            return Ok(Transformed::no(part));
        }
        let lazy = ShortCircuit {
            is_and: *binary.op() == Operator::And,
            left: Arc::clone(binary.left()),
            right: Arc::clone(binary.right()),
        };
        Ok(Transformed::yes(Arc::new(lazy) as Arc<dyn PhysicalExpr>))
    })?;
    Ok(rewritten.data)
}

/// Makes the conditions and columns of a query compute so, too.
#[derive(Debug)]
pub(crate) struct ShortCircuits;

impl PhysicalOptimizerRule for ShortCircuits {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let rewritten = plan.transform_up(|node| {
            if let Some(filter) = node.downcast_ref::<FilterExec>() {
                let predicate = short_circuited(Arc::clone(filter.predicate()), &filter.input().schema())?;
                let filter = FilterExecBuilder::from(filter).with_predicate(predicate).build()?;
                return Ok(Transformed::yes(Arc::new(filter) as Arc<dyn ExecutionPlan>));
            }
            if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
                let input = projection.input().schema();
                let columns = projection.expr().iter().map(|column| {
                    let expr = short_circuited(Arc::clone(&column.expr), &input)?;
                    Ok(ProjectionExpr { expr, alias: column.alias.clone() })
                });
                let columns = columns.collect::<Result<Vec<_>>>()?;
                let projection = ProjectionExec::try_new(columns, Arc::clone(projection.input()))?;
                return Ok(Transformed::yes(Arc::new(projection) as Arc<dyn ExecutionPlan>));
            }
            Ok(Transformed::no(node))
        })?;
        Ok(rewritten.data)
    }

    fn name(&self) -> &'static str {
        "short_circuits"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn compiled_can_fail(expression: &Arc<dyn PhysicalExpr>, input: &Schema) -> bool {
    let by_itself = if let Some(binary) = expression.downcast_ref::<expressions::BinaryExpr>() {
        !compares(*binary.op()) && !expression.data_type(input).is_ok_and(|kind| kind.is_floating())
    } else if let Some(call) = expression.downcast_ref::<ScalarFunctionExpr>() {
        !SAFE.contains(&call.name())
    } else if let Some(cast) = expression.downcast_ref::<CastExpr>() {
        !cast.expr().data_type(input).is_ok_and(|from| always_casts(&from, cast.cast_type()))
    } else {
        !(expression.is::<Column>()
            || expression.is::<Literal>()
            || expression.is::<CaseExpr>()
            || expression.is::<ShortCircuit>()
            || expression.is::<expressions::NotExpr>()
            || expression.is::<expressions::IsNullExpr>()
            || expression.is::<expressions::IsNotNullExpr>()
            || expression.is::<expressions::InListExpr>()
            || expression.is::<expressions::LikeExpr>()
            || expression.is::<expressions::TryCastExpr>())
    };
    by_itself || expression.children().into_iter().any(|child| compiled_can_fail(child, input))
}

/// `left AND right` or `left OR right`, where the right side is computed for those rows only that the left one does not decide.
#[derive(Debug)]
pub(crate) struct ShortCircuit {
    pub(crate) is_and: bool,
    pub(crate) left: Arc<dyn PhysicalExpr>,
    pub(crate) right: Arc<dyn PhysicalExpr>,
}

impl PartialEq for ShortCircuit {
    fn eq(&self, other: &Self) -> bool {
        self.is_and == other.is_and && self.left.eq(&other.left) && self.right.eq(&other.right)
    }
}

impl Eq for ShortCircuit {}

impl Hash for ShortCircuit {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.is_and.hash(state);
        self.left.hash(state);
        self.right.hash(state);
    }
}

impl fmt::Display for ShortCircuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, if self.is_and { "AND" } else { "OR" }, self.right)
    }
}

fn booleans(value: ColumnarValue, rows: usize) -> Result<BooleanArray> {
    let array = value.into_array(rows)?;
    match array.data_type() {
        DataType::Boolean => Ok(array.as_boolean().clone()),
        _ => Ok(BooleanArray::new_null(rows)),
    }
}

impl PhysicalExpr for ShortCircuit {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        Ok(self.left.nullable(schema)? || self.right.nullable(schema)?)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        let left = booleans(self.left.evaluate(rows)?, rows.num_rows())?;
        // False decides AND, true decides OR; null decides neither.
        let decided = if self.is_and { not(&left)? } else { left.clone() };
        let open = BooleanArray::new(!(&(decided.values() & is_not_null(&decided)?.values())), None);
        let count = open.true_count();
        if count == 0 {
            return Ok(ColumnarValue::Array(Arc::new(left)));
        }
        let right = if count == rows.num_rows() {
            booleans(self.right.evaluate(rows)?, rows.num_rows())?
        } else {
            let some = booleans(self.right.evaluate(&filter_record_batch(rows, &open)?)?, count)?;
            spread(&some, &open)
        };
        let both = if self.is_and { and_kleene(&left, &right)? } else { or_kleene(&left, &right)? };
        Ok(ColumnarValue::Array(Arc::new(both)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.left, &self.right]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let [left, right] = &children[..] else { return datafusion::common::internal_err!("two sides") };
        Ok(Arc::new(Self { is_and: self.is_and, left: Arc::clone(left), right: Arc::clone(right) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Values of the open rows at the places of these rows, null elsewhere.
fn spread(some: &BooleanArray, open: &BooleanArray) -> BooleanArray {
    let mut values = some.iter();
    open.iter().map(|is_open| if is_open == Some(true) { values.next().flatten() } else { None }).collect()
}
