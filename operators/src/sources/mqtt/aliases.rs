//! Numbers that stand for topics on one connection, so that a device need not send the whole topic each time.

use std::collections::HashMap;

use mqtt_proto::TopicName;
use mqtt_proto::v5::{DisconnectReasonCode as Reason, Publish};

use super::handshake::TOPIC_ALIASES;
use super::wire::Broken;

/// What each number stands for.
#[derive(Default)]
pub(super) struct Aliases(HashMap<u16, TopicName>);

impl Aliases {
    /// Gives a publish its topic, or notes which number stands for it from now on.
    ///
    /// # Errors
    /// When there is no topic, and no number that stands for one.
    pub fn resolve(&mut self, publish: &mut Publish) -> Result<(), Broken> {
        let broken = |why: String| Err(Broken::new(Reason::ProtocolError, why));
        let Some(alias) = publish.properties.topic_alias else {
            return if publish.topic_name.is_empty() { broken("a publish without a topic".into()) } else { Ok(()) };
        };
        if alias == 0 || alias > TOPIC_ALIASES {
            return Err(Broken::new(Reason::TopicAliasInvalid, format!("the topic alias {alias}")));
        }
        if !publish.topic_name.is_empty() {
            self.0.insert(alias, publish.topic_name.clone());
            return Ok(());
        }
        let Some(topic) = self.0.get(&alias) else {
            return broken(format!("the topic alias {alias} stands for nothing"));
        };
        publish.topic_name = topic.clone();
        Ok(())
    }
}
