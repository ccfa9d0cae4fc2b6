//! A message on its way from a publisher to subscribers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt_proto::v5::{LastWill, Publish, PublishProperties};
use mqtt_proto::{QoS, QosPid, TopicName};
use tokio::time::Instant;

/// What a user property takes beside its texts: two pointers to texts that are counted, and what is lost between them.
const USER_PROPERTY_BYTES: usize = 96;

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub topic: TopicName,
    pub payload: Bytes,
    pub qos: QoS,
    /// As it was published.
    pub retain: bool,
    /// Without what belongs to one connection.
    properties: PublishProperties,
    expires: Option<Instant>,
    /// The client that published it.
    pub from: Arc<str>,
}

impl Message {
    /// What a client published.
    pub fn new(publish: Publish, from: &Arc<str>) -> Self {
        let Publish { retain, qos_pid, topic_name, payload, mut properties, .. } = publish;
        properties.topic_alias = None;
        properties.subscription_id = None;
        let expires = properties.message_expiry_interval.map(|seconds| {
            // More than a hundred years is for ever.
            Instant::now() + Duration::from_secs(u64::from(seconds))
        });
        let from = Arc::clone(from);
        Self { topic: topic_name, payload, qos: qos_pid.qos(), retain, properties, expires, from }
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + memory_of(&self.properties) + 256
    }

    /// Whether nobody wants it any more.
    pub fn is_over(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }

    /// The packet for a subscriber, without the ids of its subscriptions.
    pub fn packet(&self, qos_pid: QosPid, dup: bool, retain: bool) -> Publish {
        let left = self.expires.map(|at| at.saturating_duration_since(Instant::now()).as_secs());
        let properties = PublishProperties {
            message_expiry_interval: left.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            ..self.properties.clone()
        };
        let (topic_name, payload) = (self.topic.clone(), self.payload.clone());
        Publish { dup, retain, qos_pid, topic_name, payload, properties }
    }
}

/// About how much memory properties take: those that are short and many take far more than they do in their packet.
pub(super) fn memory_of(properties: &PublishProperties) -> usize {
    let users = properties.user_properties.iter().map(|user| user.name.len() + user.value.len() + USER_PROPERTY_BYTES);
    let others = [
        properties.content_type.as_ref().map_or(0, |text| text.len()),
        properties.response_topic.as_ref().map_or(0, |topic| topic.len()),
        properties.correlation_data.as_ref().map_or(0, Bytes::len),
    ];
    users.sum::<usize>() + others.iter().sum::<usize>()
}

/// A will as what its client would have published. It has no packet id, so its quality of service is the caller's to keep.
pub(super) fn of_will(will: LastWill) -> Publish {
    let LastWill { retain, topic_name, payload, properties, .. } = will;
    let properties = PublishProperties {
        payload_is_utf8: properties.payload_is_utf8,
        message_expiry_interval: properties.message_expiry_interval,
        content_type: properties.content_type,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        user_properties: properties.user_properties,
        ..PublishProperties::default()
    };
    Publish { dup: false, retain, qos_pid: QosPid::Level0, topic_name, payload, properties }
}
