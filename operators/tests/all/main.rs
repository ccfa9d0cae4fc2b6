//! Integration tests of the components against the world outside.

mod files;
mod http;
mod http_batch;
mod http_cloud_events;
mod http_hostile;
mod mqtt;
mod odd_files;
