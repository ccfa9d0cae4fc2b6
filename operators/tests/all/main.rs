//! Integration tests of the components against the world outside.

mod http;
