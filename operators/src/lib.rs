//! Every source, operator and sink, one file each, and the list that registers them.
//!
//! To add one: write its file, name it in a `mod` line, and put its `SPEC` into [`REGISTRY`]. The checks of the pipeline
//! file, its schema and the reference pages follow from that entry.

pub mod sinks;
pub mod sources;
pub mod transform;
pub mod tumble;
pub mod union;

use cornjacket_core::component::Registry;

/// Every component there is.
pub const REGISTRY: Registry = Registry {
    sources: &[sources::http::SPEC, sources::file::SPEC, sources::generator::SPEC, sources::mqtt::SPEC],
    operators: &[transform::SPEC, union::SPEC, tumble::SPEC],
    sinks: &[sinks::projection::SPEC, sinks::file::SPEC, sinks::stdout::SPEC, sinks::webhook::SPEC],
};
