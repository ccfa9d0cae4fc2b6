//! Sources: where events come in. What they receive goes to the door.

pub mod file;
pub mod generator;
pub mod http;
pub mod mqtt;

mod messages;
