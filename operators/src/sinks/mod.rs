//! Sinks: where rows leave the graph.

pub mod projection;
pub mod stdout;

mod rows;
