//! The real binary, from outside: HTTP, signals, `kill -9`.

mod check;
mod files;
mod journey;
mod kills;
mod language;
mod process;
mod watch;
mod watermarks;
