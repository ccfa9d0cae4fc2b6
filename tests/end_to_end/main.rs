//! The real binary, from outside: HTTP, signals, `kill -9`.

mod journey;
mod kills;
mod process;
