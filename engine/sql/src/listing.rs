//! Which functions there are: what tests walk, so that none is forgotten.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Signature;

/// The functions of a session by their names (an alias is a name too), each with lists of types that it takes. A list stands for
/// others: a function of one type may take any number of arguments of it, and one without lists may take anything.
#[derive(Clone, Debug)]
pub struct Functions {
    /// From a row's values to a value.
    pub scalars: BTreeMap<String, Vec<Vec<DataType>>>,
    /// From a group's rows to a value.
    pub aggregates: BTreeMap<String, Vec<Vec<DataType>>>,
    /// From a row and those around it to a value.
    pub windows: BTreeMap<String, Vec<Vec<DataType>>>,
}

/// The functions that streams may call.
#[must_use]
pub fn of_streams() -> Functions {
    of(crate::stream::session_state())
}

/// The functions that queries may call.
///
/// # Errors
/// What is wrong, when there can be no session.
pub fn of_queries() -> Result<Functions, crate::query::QueryError> {
    crate::query::session_state().map(|state| of(&state))
}

fn of(state: &SessionState) -> Functions {
    let types = |signature: &Signature| signature.type_signature.get_example_types();
    Functions {
        scalars: state.scalar_functions().iter().map(|(name, f)| (name.clone(), types(f.signature()))).collect(),
        aggregates: state.aggregate_functions().iter().map(|(name, f)| (name.clone(), types(f.signature()))).collect(),
        windows: state.window_functions().iter().map(|(name, f)| (name.clone(), types(f.signature()))).collect(),
    }
}
