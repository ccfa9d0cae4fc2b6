//! Sinks: where rows leave the graph.

pub mod file;
pub mod projection;
pub mod stdout;
pub mod webhook;

pub mod capture;
mod changes;
mod rows;
