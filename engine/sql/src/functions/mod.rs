//! Functions beyond `DataFusion`'s, and its own where they need more care. Streams and queries have the same: what is made here
//! is put into both sessions by [`install`].

mod arithmetic;
mod bounded;
mod canonical;
mod conditional;
mod json;
mod sum;
mod times;
mod window;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, ReturnFieldArgs};

pub(crate) use arithmetic::with_operators;
pub(crate) use bounded::{Bounds, Concatenation};
pub(crate) use canonical::Canonical;
pub(crate) use conditional::{ShortCircuit, ShortCircuits, short_circuited};
pub use window::{TUMBLE, window_fields, window_functions};

/// Puts the functions into a session, and the rules that make its operators careful.
pub(crate) fn install(state: &mut SessionState, bounds: Bounds) -> Result<()> {
    json::install(state)?;
    times::install(state)?;
    bounded::install(state, bounds)?;
    state.register_udaf(sum::checked_sum())?;
    state.add_analyzer_rule(Arc::new(arithmetic::Checked::new(bounds)));
    state.add_analyzer_rule(Arc::new(canonical::CanonicalKeys));
    state.add_analyzer_rule(Arc::new(conditional::FilterFirst));
    Ok(())
}

/// Rewrites the parts of a plan node's expressions; columns keep their names.
fn rewrite_expressions(
    plan: LogicalPlan,
    rewrite: impl Fn(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expression| {
        let name = names.save(&expression);
        let rewritten = expression.transform_up(&rewrite)?;
        Ok(if rewritten.transformed { rewritten.update_data(|data| name.restore(data)) } else { rewritten })
    })
}

/// What an operator gives: null only if an operand may be.
fn operator_field(name: &str, kind: &DataType, arguments: &ReturnFieldArgs<'_>) -> FieldRef {
    Arc::new(Field::new(name, kind.clone(), arguments.arg_fields.iter().any(|field| field.is_nullable())))
}
