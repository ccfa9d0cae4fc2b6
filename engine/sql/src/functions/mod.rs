//! Functions beyond `DataFusion`'s, and its own where they need more care. Streams and queries have the same: what is made here
//! is put into both sessions by [`install`].

mod arithmetic;
mod bounded;
mod conditional;
mod json;
mod sum;
mod window;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;

pub(crate) use arithmetic::with_operators;
pub(crate) use bounded::{Bounds, Concatenation};
pub(crate) use conditional::{ShortCircuit, short_circuited};
pub(crate) use sum::as_take_back;
pub use window::{TUMBLE, window_fields, window_functions};

/// Puts the functions into a session, and the rules that make its operators careful.
pub(crate) fn install(state: &mut SessionState, bounds: Bounds) -> Result<()> {
    json::install(state)?;
    bounded::install(state, bounds)?;
    state.register_udaf(sum::checked_sum())?;
    state.add_analyzer_rule(Arc::new(conditional::FilterFirst));
    state.add_analyzer_rule(Arc::new(arithmetic::Checked::new(bounds)));
    Ok(())
}
