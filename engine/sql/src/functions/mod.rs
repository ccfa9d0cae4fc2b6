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
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::ReturnFieldArgs;

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

/// What an operator gives: null only if an operand may be.
fn operator_field(name: &str, kind: &DataType, arguments: &ReturnFieldArgs<'_>) -> FieldRef {
    Arc::new(Field::new(name, kind.clone(), arguments.arg_fields.iter().any(|field| field.is_nullable())))
}
