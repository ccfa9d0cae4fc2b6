//! Graph to running tasks: the door that takes events in, the engine that works in epochs, watermarks, snapshots and
//! recovery.

pub mod status;

pub use status::{ClockStatus, NodeStatus, Status};
