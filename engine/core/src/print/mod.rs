//! How values are printed, the same wherever they come out: queries, REST, files, the console, webhooks, dead letters, tests.
//!
//! Numbers are JSON numbers, times RFC 3339 in UTC with up to microseconds, dates `YYYY-MM-DD`, bytes hexadecimal, lists,
//! structs and maps JSON, and text that is marked as JSON is what it says. What has no form of its own in JSON (an interval,
//! say) is text. NaN and the infinities are no numbers in JSON: see [`NonFinite`].
//!
//! Many rows are written by [`json_lines`], from whole columns; [`row_objects`] gives values to look at. Both give the same.

mod lines;
mod printable;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use lines::{cell_texts, json_lines};
pub use printable::{check_column, check_printable, is_printable};
pub use types::{column_type_name, type_name};
pub use value::row_objects;

/// How NaN and the infinities are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonFinite {
    /// As null, in the answers of queries.
    Null,
    /// As the texts `NaN`, `Infinity` and `-Infinity`, where rows go out.
    Text,
}

fn non_finite_text(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}
