//! Integration tests of the components against the world outside.

mod files;
mod http;
