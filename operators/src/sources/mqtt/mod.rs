//! `mqtt`: events from devices, through the broker in this process or from one outside.
//!
//! Without `CJ_MQTT_URL` devices connect to the **embedded broker**, which speaks MQTT 3.1, 3.1.1 and 5. A
//! publish to a topic that a source's filters match is handed to the door, and the device has its PUBACK (QoS 1) or PUBREC
//! (QoS 2) only when it is durable, as an event or as a dead letter. Other clients may subscribe; they see a message
//! after it is stored. With `CJ_MQTT_URL` each source **subscribes** to the broker there ([`Subscription`]) and acknowledges
//! by the same rule.
//!
//! Invariants:
//!
//! - Nothing is acknowledged before the door has answered. While the door cannot take anything, nothing is acknowledged
//!   and nobody is disconnected; reading stops when the memory for it is full.
//! - A client's publishes are stored in their order: its next bundle is handed in after the one before is answered, so a
//!   refusal cannot change the order. What arrives meanwhile goes into the next bundle together.
//! - Memory is bounded, per connection and over all connections.
//!
//! Sessions and retained messages live in memory. After a restart a client finds no session, subscribes again and sends
//! again what was not acknowledged; what of that was stored already is known by the receipts stored with it ([`recent`]).

mod aliases;
mod broker;
mod connection;
mod counts;
mod filter;
mod handshake;
mod hub;
mod intake;
mod message;
mod passwords;
mod recent;
mod remote;
mod session;
mod source;
mod strict;
mod subscribing;
mod topics;
mod wire;

use std::any::Any;
use std::sync::Arc;

use cornjacket_core::component::{BuiltSource, Description, Fault, SourceContext, SourceSpec, parse_settings};
use schemars::JsonSchema;
use serde::Deserialize;

use super::messages::EventSettings;

pub use broker::{Broker, Restored};
pub use counts::{BrokerCounted, BrokerCounts};
pub use passwords::Passwords;
pub use remote::{Address, Counted, Counts, RECEIPT_BYTES, Subscription, Surroundings, probe};
pub use source::Source;

/// Its entry in the registry.
pub const SPEC: SourceSpec = SourceSpec {
    description: Description {
        kind: "mqtt",
        summary: "Takes events from MQTT: devices publish to the embedded broker, or to the one that CJ_MQTT_URL names.",
        guarantee: "PUBACK (QoS 1) or PUBREC (QoS 2) only when the event is durable; at least once, in each client's \
                    order. A publish that is sent again with DUP set within 10 minutes is stored once, over crashes too. \
                    What cannot be used becomes a dead letter with its topic. While the log \
                    cannot be written nothing is acknowledged.",
        example: "topics: [\"devices/+/reading\"]\nevent: { type: sensor.reading, aggregate_id: \"${topic.1}\" }",
        schema: || schemars::schema_for!(Settings),
    },
    parse: parse_settings::<Settings>,
    build,
};

/// Settings of the mqtt source.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Which topics, as MQTT filters: `+` stands for one level and `#`, at the end, for all that follow.
    #[schemars(length(min = 1), example = ["devices/+/reading"])]
    pub topics: Vec<String>,
    /// With which quality of service to subscribe to an outside broker, 0 or 1. 0 loses what is sent while the process is
    /// down. The embedded broker takes whatever quality clients publish with.
    #[serde(default = "at_least_once")]
    #[schemars(range(min = 0, max = 1), example = 1)]
    pub qos: u8,
    /// How a message becomes an event. Texts may have `${payload.field}` and, for each `+` of the filter in its order,
    /// `${topic.1}`, `${topic.2}` and so on; what `#` stands for is the last one. Without it each message is a whole
    /// envelope.
    #[serde(default)]
    pub event: Option<EventSettings>,
    /// Whether to take retained messages that an outside broker replays on subscribing. They are old news, and come again
    /// with each connection, so they are ignored unless this is set; `retained` in their metadata tells them apart.
    #[serde(default)]
    pub retained: bool,
}

fn at_least_once() -> u8 {
    1
}

fn build(settings: &(dyn Any + Send + Sync), context: &SourceContext) -> Result<BuiltSource, Vec<Fault>> {
    let Some(settings) = settings.downcast_ref::<Settings>() else {
        return Err(vec![Fault::new("", "these are not the settings of an mqtt source")]);
    };
    let source = Source::new(&context.name, settings, &Arc::clone(&context.catalogue))?;
    Ok(BuiltSource::Served { envelope: source.envelope() })
}
