//! SQL text to graph nodes, and the query side. The only crate that holds a `DataFusion` session.

mod dialect;
pub mod functions;
pub mod listing;
pub mod query;
pub mod stream;

pub use stream::{SqlFault, StreamOptions, Tables, compile_stream};
