//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use mqtt_proto::QoS;
use mqtt_proto::v5::{
    Packet, Suback, Subscribe, SubscribeReasonCode as Granted, SubscriptionOptions, Unsuback, Unsubscribe,
    UnsubscribeReasonCode, VarByteInt,
};

use super::connection::Connection;
use super::filter::Filter;

impl Connection {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe) {
        let Subscribe { pid, properties, topics } = subscribe;
        let (mut codes, mut retained) = (Vec::new(), Vec::new());
        for (text, options) in &topics {
            let (code, found) = self.subscribe_to(text, (*options, properties.subscription_id));
            codes.push(code);
            retained.extend(found);
        }
        self.send(Packet::Suback(Suback::new(pid, codes)));
        let (_, session) = self.parts();
        for queued in retained {
            // Whoever wants more than fits into the queue gets what fits.
            if !session.offer(queued) {
                break;
            }
        }
    }

    fn subscribe_to(
        &mut self,
        text: &str,
        (options, id): (SubscriptionOptions, Option<VarByteInt>),
    ) -> (Granted, Vec<super::session::Queued>) {
        if text.starts_with("$share/") {
            return (Granted::SharedSubscriptionNotSupported, Vec::new());
        }
        let Ok(filter) = Filter::parse(text) else { return (Granted::TopicFilterInvalid, Vec::new()) };
        let (shared, session) = self.parts();
        match shared.hub.subscribe(&Arc::clone(session), text, &filter, (options, id)) {
            None => (Granted::QuotaExceeded, Vec::new()),
            Some(retained) => {
                let code = match options.max_qos {
                    QoS::Level0 => Granted::GrantedQoS0,
                    QoS::Level1 => Granted::GrantedQoS1,
                    QoS::Level2 => Granted::GrantedQoS2,
                };
                (code, retained)
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let (shared, session) = self.parts();
        let codes = unsubscribe.topics.iter().map(|text| {
            let was_there = shared.hub.unsubscribe(session, text);
            if was_there { UnsubscribeReasonCode::Success } else { UnsubscribeReasonCode::NoSubscriptionExisted }
        });
        let unsuback = Unsuback::new(unsubscribe.pid, codes.collect());
        self.send(Packet::Unsuback(unsuback));
    }
}
