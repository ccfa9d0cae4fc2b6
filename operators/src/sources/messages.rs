//! `event:` of sources whose messages are only a payload: how the envelope around it is made.

use std::sync::Arc;

use cornjacket_core::component::{Fault, SourceContext};
use cornjacket_core::door::EnvelopeTemplate;
use cornjacket_core::template::Template;
use schemars::JsonSchema;
use serde::Deserialize;

/// How a message becomes an event. Texts may have placeholders that are filled for each message, such as
/// `${payload.device}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventSettings {
    /// The event type.
    #[serde(rename = "type")]
    #[schemars(example = "sensor.reading")]
    pub event_type: String,
    /// What the event belongs to; order is kept per aggregate id.
    #[schemars(example = "${payload.device}")]
    pub aggregate_id: String,
    /// When it happened: RFC 3339, or epoch seconds, milliseconds or microseconds by size. The ingest time unless set.
    #[serde(default)]
    #[schemars(example = "${payload.ts}")]
    pub event_time: Option<String>,
    /// What identifies it within the source: the same one again is stored once. A new id unless set.
    #[serde(default)]
    #[schemars(example = "${payload.id}")]
    pub event_id: Option<String>,
}

impl EventSettings {
    /// The template that these settings are. `variables` is what the source can fill in beside the payload.
    pub fn template(&self, context: &SourceContext, variables: &[&str]) -> Result<EnvelopeTemplate, Vec<Fault>> {
        let mut faults = Vec::new();
        let event_type = context.catalogue.types.get(&self.event_type);
        if event_type.is_none() {
            let known: Vec<&str> = context.catalogue.types.keys().map(String::as_str).collect();
            let message = format!("there is no event type `{}`", self.event_type);
            faults.push(Fault::new("event.type", message).with_hint(format!("event types: {}", known.join(", "))));
        }
        let mut read = |setting: &str, text: &str| {
            let template = Template::parse(text, variables);
            template.map_err(|message| faults.push(Fault::new(format!("event.{setting}"), message))).ok()
        };
        let aggregate_id = read("aggregate_id", &self.aggregate_id);
        let event_time = self.event_time.as_deref().map(|text| read("event_time", text));
        let event_id = self.event_id.as_deref().map(|text| read("event_id", text));
        if event_id.as_ref().is_some_and(|id| id.as_ref().is_some_and(Template::is_constant)) {
            let hint = "take it from the message, such as ${payload.id}, or leave it out";
            faults.push(Fault::new("event.event_id", "every message would have the same id").with_hint(hint));
        }
        match (event_type, aggregate_id, faults.is_empty()) {
            (Some(event_type), Some(aggregate_id), true) => Ok(EnvelopeTemplate {
                event_type: Arc::clone(event_type),
                aggregate_id,
                event_time: event_time.flatten(),
                event_id: event_id.flatten(),
            }),
            _ => Err(faults),
        }
    }
}
