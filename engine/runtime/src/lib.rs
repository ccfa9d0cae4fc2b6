//! Graph to running tasks: the door that takes events in, the engine that works in epochs, watermarks, snapshots and
//! recovery.

pub mod door;
pub mod engine;
pub mod feed;
pub mod status;

pub use engine::{Engine, EngineHandle, EngineOptions, Saver, Step, spawn};
pub use feed::{Feed, Feeding, SourceStatus};
pub use status::{ClockStatus, NodeStatus, Status};
