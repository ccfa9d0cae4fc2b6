//! The same behaviour from both backends, and what only files can show.

mod behaviour;
mod deliveries;
mod files;
mod retention;
mod world;
