//! Whole numbers that never wrap around. `DataFusion` computes `+`, `-` and `*` modulo two to the number of bits; here a result
//! that leaves its type is an error of its row.
//!
//! A rule of the analyzer turns the operators into functions once types are known, so that constants are folded with the same
//! care. Streams turn them back into operators that are checked, which read better and are the same otherwise.

use std::sync::Arc;

use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, expressions};
use datafusion::physical_expr_common::datum::apply;

use super::bounded::{Bounds, Concatenation, concatenation};

/// Checked operators, and `||` that is bounded.
#[derive(Debug)]
pub(super) struct Checked {
    concat: Arc<ScalarUDF>,
}

impl Checked {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { concat: concatenation(bounds) }
    }

    fn rewrite(&self, expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expression else {
            return rewrite_negative(expression, schema);
        };
        let func = match op {
            Operator::Plus | Operator::Minus | Operator::Multiply => {
                let kind = operand_type(&left, &right, schema).filter(DataType::is_integer);
                kind.map(|kind| checked(op, kind))
            }
            Operator::StringConcat => {
                let kind = operand_type(&left, &right, schema).filter(DataType::is_string);
                kind.map(|_| Arc::clone(&self.concat))
            }
            _ => None,
        };
        Ok(match func {
            Some(func) => Transformed::yes(call(&func, *left, *right)),
            None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        })
    }

    fn rewrite_plan(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
        }
        super::rewrite_expressions(plan, |part| self.rewrite(part, &schema))
    }
}

impl AnalyzerRule for Checked {
    fn name(&self) -> &'static str {
        "checked_operators"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| self.rewrite_plan(plan)).map(|plan| plan.data)
    }
}

/// The negative of a whole number is zero less it.
fn rewrite_negative(expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::Negative(inner) = expression else { return Ok(Transformed::no(expression)) };
    let kind = inner.get_type(schema)?;
    if !kind.is_signed_integer() {
        return Ok(Transformed::no(Expr::Negative(inner)));
    }
    let zero = Expr::Literal(ScalarValue::new_zero(&kind)?, None);
    Ok(Transformed::yes(call(&checked(Operator::Minus, kind), zero, *inner)))
}

/// The type of both operands, which is one since types were coerced. Chains of operators may be thousands long, so it is taken
/// from the operand that knows it without asking its own.
fn operand_type(left: &Expr, right: &Expr, schema: &DFSchema) -> Option<DataType> {
    let known = |side: &Expr| match side {
        Expr::Column(_) | Expr::Literal(..) | Expr::Cast(_) => side.get_type(schema).ok(),
        Expr::ScalarFunction(call) => match call.func.inner().downcast_ref::<CheckedOperator>() {
            Some(checked) => Some(checked.kind.clone()),
            None => call.func.inner().is::<Concatenation>().then_some(DataType::Utf8),
        },
        _ => None,
    };
    if let Some(kind) = known(right).or_else(|| known(left)) {
        return Some(kind);
    }
    right.get_type(schema).ok()
}

fn checked(operator: Operator, kind: DataType) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(CheckedOperator { operator, kind, signature: Signature::any(2, Volatility::Immutable) }))
}

fn call(func: &Arc<ScalarUDF>, left: Expr, right: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction { func: Arc::clone(func), args: vec![left, right] })
}

/// `+`, `-` or `*` of two whole numbers of one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedOperator {
    operator: Operator,
    kind: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for CheckedOperator {
    fn name(&self) -> &'static str {
        match self.operator {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            _ => "checked_multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(super::operator_field(self.name(), &self.kind, &arguments))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &arguments.args[..] else { return datafusion::common::internal_err!("two operands") };
        match self.operator {
            Operator::Plus => apply(left, right, add),
            Operator::Minus => apply(left, right, sub),
            _ => apply(left, right, mul),
        }
    }
}

/// The expression with checked operators in the place of the functions.
pub(crate) fn with_operators(expression: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let rewritten = expression.transform_up(|part| {
        let Some(call) = part.downcast_ref::<ScalarFunctionExpr>() else { return Ok(Transformed::no(part)) };
        let Some(checked) = call.fun().inner().downcast_ref::<CheckedOperator>() else {
            return Ok(Transformed::no(part));
        };
        let [left, right] = call.args() else { return Ok(Transformed::no(part)) };
        let binary = expressions::BinaryExpr::new(Arc::clone(left), checked.operator, Arc::clone(right));
        Ok(Transformed::yes(Arc::new(binary.with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>))
    })?;
    Ok(rewritten.data)
}
