//! The vocabulary and the traits of Cornjacket.
//!
//! Everything that two other crates must agree on stands here, and nothing else: events and their catalogue, batches,
//! the operator, sink, log and store traits, the compiled graph, diagnostics. This crate does no I/O, starts no thread,
//! knows no async runtime and reads no clock: time, randomness and storage come in through traits.

pub mod aggregate;
pub mod batch;
pub mod catalogue;
pub mod codec;
pub mod component;
pub mod dead_letter;
pub mod delivery;
pub mod diagnostic;
pub mod door;
pub mod environment;
pub mod graph;
pub mod guard;
pub mod id;
pub mod json;
pub mod log;
pub mod operator;
pub mod print;
pub mod projection;
pub mod setting;
pub mod source;
pub mod store;
pub mod template;
pub mod time;

mod error;

pub use error::{Error, Result};
