//! The window functions of streaming SQL. They are markers: the compiler turns `tumble(…)` in a GROUP BY into a window
//! node, and they are never called. They are declared volatile, or the optimiser would fold them into constants.

use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit};
use cornjacket_core::time::timestamp_type;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// The name of the tumbling window function.
pub const TUMBLE: &str = "tumble";

/// Fields of the struct that a window function yields.
#[must_use]
pub fn window_fields() -> Fields {
    Fields::from(vec![Field::new("start", timestamp_type(), false), Field::new("end", timestamp_type(), false)])
}

/// The functions that streaming SQL has beyond `DataFusion`'s.
pub fn window_functions() -> Vec<Arc<ScalarUDF>> {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    vec![Arc::new(ScalarUDF::from(WindowFunction {
        name: TUMBLE,
        signature: Signature::exact(vec![interval], Volatility::Volatile),
    }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowFunction {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(window_fields()))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("{}() is only for the GROUP BY of a stream", self.name)
    }
}
