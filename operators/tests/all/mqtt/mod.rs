//! The embedded MQTT broker over real sockets: what the standard wants of it, and what strangers may do to it.

mod broker;
mod client;
mod conformance;
mod hostile;
mod hostile_broker;
#[path = "../../../../tests/end_to_end/mosquitto.rs"]
#[expect(dead_code, reason = "the end-to-end tests use more of it")]
mod mosquitto;
mod pressure;
mod publishing;
mod sessions;
mod subscribing;
