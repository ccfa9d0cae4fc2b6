//! Graph to running tasks: the door that takes events in, the engine that works in epochs, watermarks, snapshots and
//! recovery; and the audit of what they counted.

pub mod audit;
pub mod changes;
pub mod door;
pub mod engine;
pub mod feed;
pub mod status;

pub use changes::Changes;
pub use engine::{Engine, EngineHandle, EngineOptions, Saver, Step, spawn};
pub use feed::{Feed, Feeding, SourceStatus};
pub use status::{ClockStatus, NodeStatus, Status};
