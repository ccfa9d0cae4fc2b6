//! Floating point keys: -0.0 and 0.0 are one, and so are all NaNs. Group tables compare bits, so what they are given is made one.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, Float64Array};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

/// The number, without a sign if it is zero, and with one form of NaN.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Canonical(Signature);

impl Canonical {
    fn of(argument: Expr) -> Expr {
        let func = Arc::new(ScalarUDF::from(Self(Signature::any(1, Volatility::Immutable))));
        Expr::ScalarFunction(ScalarFunction { func, args: vec![argument] })
    }
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &'static str {
        "canonical"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(super::operator_field("canonical", arguments.arg_fields[0].data_type(), &arguments))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = arguments.args[0].to_array(1)?;
        let values: ArrayRef = match values.data_type() {
            DataType::Float64 => {
                let canonical = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
                Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical) as Float64Array)
            }
            DataType::Float32 => {
                let canonical = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
                Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(canonical) as Float32Array)
            }
            _ => values,
        };
        Ok(match arguments.args[0] {
            ColumnarValue::Array(_) => ColumnarValue::Array(values),
            ColumnarValue::Scalar(_) => {
                ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&values, 0)?)
            }
        })
    }
}

/// Makes the keys of GROUP BY and the values of DISTINCT canonical.
#[derive(Debug)]
pub(super) struct CanonicalKeys;

impl AnalyzerRule for CanonicalKeys {
    fn name(&self) -> &'static str {
        "canonical_keys"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite).map(|plan| plan.data)
    }
}

fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => rewrite_aggregate(aggregate),
        LogicalPlan::Distinct(Distinct::All(input)) if has_floats(input.schema()) => {
            let columns = input.schema().iter().map(|(table, field)| {
                let column = Expr::Column(Column::new(table.cloned(), field.name()));
                if !field.data_type().is_floating() {
                    return column;
                }
                Canonical::of(column).alias_qualified(table.cloned(), field.name())
            });
            let columns: Vec<Expr> = columns.collect();
            let input = LogicalPlanBuilder::from(input.as_ref().clone()).project(columns)?.build()?;
            Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::All(Arc::new(input)))))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn has_floats(schema: &DFSchema) -> bool {
    schema.fields().iter().any(|field| field.data_type().is_floating())
}

fn rewrite_aggregate(mut aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let (names, schema) = (NamePreserver::new_for_projection(), Arc::clone(aggregate.input.schema()));
    let is_float = |expression: &Expr| expression.get_type(&schema).is_ok_and(|kind| kind.is_floating());
    let mut changed = false;
    for key in &mut aggregate.group_expr {
        if !matches!(key, Expr::GroupingSet(_)) && is_float(key) {
            let name = names.save(key);
            *key = name.restore(Canonical::of(key.clone().unalias()));
            changed = true;
        }
    }
    for result in &mut aggregate.aggr_expr {
        let name = names.save(result);
        let rewritten = result.clone().transform_up(|part| match part {
            Expr::AggregateFunction(mut call) if call.params.distinct && call.params.args.iter().any(is_float) => {
                for argument in call.params.args.iter_mut().filter(|argument| is_float(argument)) {
                    *argument = Canonical::of(argument.clone());
                }
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        if rewritten.transformed {
            *result = name.restore(rewritten.data);
            changed = true;
        }
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let Aggregate { input, group_expr, aggr_expr, .. } = aggregate;
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, group_expr, aggr_expr)?)))
}
