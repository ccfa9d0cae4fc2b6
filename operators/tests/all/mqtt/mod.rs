//! The embedded MQTT broker over real sockets: what the standard wants of it, and what strangers may do to it.

mod broker;
mod client;
mod conformance;
mod hostile;
mod publishing;
mod sessions;
mod subscribing;
