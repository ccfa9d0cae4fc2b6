//! Differential, simulation, crash and end-to-end tests.
//!
//! Random tests print their seed when they fail; `SEED=n` repeats one, `RUNS=n` sets how many are made.

mod cascade;
mod clashes;
mod differential;
mod edits;
mod house;
mod oracle;
mod set_aside;
mod simulation;
mod world;
