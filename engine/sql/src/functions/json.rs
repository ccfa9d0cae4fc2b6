//! JSON out of JSON: what `->` gives is JSON text that carries the mark of it, so that every aggregate and every output knows it.
//! The library's own `json_get` gives a union of types, which neither can be sorted nor written.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use cornjacket_core::json;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::{Alias, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Documentation, Expr, GroupsAccumulator,
    ReturnFieldArgs, ReversedUDAF, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, SetMonotonicity, Signature,
    StatisticsArgs, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::udfs;

const NAME: &str = "json_get";

pub(super) fn install(state: &mut SessionState) -> Result<()> {
    let library = [
        udfs::json_get_bool_udf(),
        udfs::json_get_float_udf(),
        udfs::json_get_int_udf(),
        udfs::json_as_text_udf(),
        udfs::json_get_str_udf(),
        udfs::json_contains_udf(),
        udfs::json_length_udf(),
        udfs::json_object_keys_udf(),
    ];
    for function in library {
        state.register_udf(function)?;
    }
    state.register_udf(Arc::new(ScalarUDF::from(JsonGet::new())))?;
    for name in ["min", "max"] {
        let inner = state.udaf(name)?;
        state.register_udaf(Arc::new(AggregateUDF::from(Extreme(inner))))?;
    }
    state.register_function_rewrite(Arc::new(TypedGets))?;
    state.register_expr_planner(Arc::new(JsonOperators))
}

/// `min` or `max`: of JSON it is JSON.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme(Arc<AggregateUDF>);

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        let field = self.0.return_field(arguments)?;
        let is_json = arguments.first().is_some_and(|argument| json::is_marked(argument));
        Ok(if is_json { Arc::new(json::marked(field.as_ref().clone())) } else { field })
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.0.accumulator(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.state_fields(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.0.create_groups_accumulator(arguments)
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.0.create_sliding_accumulator(arguments)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn is_descending(&self) -> Option<bool> {
        self.0.is_descending()
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.0.value_from_stats(statistics)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.0.inner().set_monotonicity(kind)
    }
}

/// `json_get(text, key, …)`, also as `json_get_json`: the JSON at the path, null if there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    signature: Signature,
    aliases: Vec<String>,
    inner: Arc<ScalarUDF>,
}

impl JsonGet {
    fn new() -> Self {
        Self {
            signature: Signature::variadic_any(Volatility::Immutable),
            aliases: vec!["json_get_json".into()],
            inner: udfs::json_get_json_udf(),
        }
    }
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        NAME
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(json::marked(Field::new(NAME, self.return_type(&types)?, true))))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(arguments)
    }
}

fn is_get(expression: &Expr) -> Option<&ScalarFunction> {
    match expression {
        Expr::Alias(alias) => is_get(&alias.expr),
        Expr::ScalarFunction(call) if call.func.name() == NAME => Some(call),
        _ => None,
    }
}

/// `(payload->'n')::bigint` reads a number where a number is, and `->` of `->` is one path.
#[derive(Debug)]
struct TypedGets;

impl FunctionRewrite for TypedGets {
    fn name(&self) -> &'static str {
        "typed_json_gets"
    }

    fn rewrite(&self, expression: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expression {
            Expr::Cast(Cast { expr, field }) => match typed(&expr, field.data_type()) {
                Some(get) => Transformed::yes(Expr::Cast(Cast { expr: Box::new(get), field })),
                None => Transformed::no(Expr::Cast(Cast { expr, field })),
            },
            Expr::TryCast(TryCast { expr, field }) => match typed(&expr, field.data_type()) {
                Some(get) => Transformed::yes(Expr::TryCast(TryCast { expr: Box::new(get), field })),
                None => Transformed::no(Expr::TryCast(TryCast { expr, field })),
            },
            Expr::ScalarFunction(call) => match joined(&call) {
                Some(args) => Transformed::yes(Expr::ScalarFunction(ScalarFunction { func: call.func, args })),
                None => Transformed::no(Expr::ScalarFunction(call)),
            },
            other => Transformed::no(other),
        })
    }
}

fn typed(get: &Expr, to: &DataType) -> Option<Expr> {
    let func = match to {
        DataType::Boolean => udfs::json_get_bool_udf(),
        integer if integer.is_integer() => udfs::json_get_int_udf(),
        number if number.is_floating() || number.is_decimal() => udfs::json_get_float_udf(),
        _ => return None,
    };
    Some(Expr::ScalarFunction(ScalarFunction { func, args: is_get(get)?.args.clone() }))
}

/// The arguments of a call on what `->` gives, with both paths as one.
fn joined(call: &ScalarFunction) -> Option<Vec<Expr>> {
    if !matches!(
        call.func.name(),
        NAME | "json_as_text" | "json_get_str" | "json_get_int" | "json_get_float" | "json_get_bool"
    ) {
        return None;
    }
    let (first, rest) = call.args.split_first()?;
    let inner = is_get(first)?;
    let arguments: Vec<Expr> = inner.args.iter().chain(rest).cloned().collect();
    let is_literal = |argument: &Expr| matches!(argument, Expr::Literal(..));
    arguments[1..].iter().all(is_literal).then_some(arguments)
}

/// `->`, `->>`, `#>`, `#>>` and `?` as `PostgreSQL` has them.
#[derive(Debug)]
struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, binary: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let func = match &binary.op {
            BinaryOperator::Arrow | BinaryOperator::HashArrow => Arc::new(ScalarUDF::from(JsonGet::new())),
            BinaryOperator::LongArrow | BinaryOperator::HashLongArrow => udfs::json_as_text_udf(),
            BinaryOperator::Question => udfs::json_contains_udf(),
            _ => return Ok(PlannerResult::Original(binary)),
        };
        // A column that is given no name goes by what was written.
        let name = format!("{} {} {}", shown(&binary.left), binary.op, shown(&binary.right));
        let call = Expr::ScalarFunction(ScalarFunction { func, args: vec![binary.left, binary.right] });
        Ok(PlannerResult::Planned(Expr::Alias(Alias::new(call, None::<&str>, name))))
    }
}

fn shown(expression: &Expr) -> String {
    match expression {
        Expr::Column(column) => column.name.clone(),
        Expr::Alias(alias) => alias.name.clone(),
        Expr::Literal(value, _) => match value.try_as_str().flatten() {
            Some(text) => format!("'{text}'"),
            None => value.to_string(),
        },
        other => other.to_string(),
    }
}
