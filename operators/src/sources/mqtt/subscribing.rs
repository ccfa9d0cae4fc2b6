//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use mqtt_proto::QoS;
use mqtt_proto::v5::{
    Packet, RetainHandling, Suback, Subscribe, SubscribeReasonCode as Granted, SubscriptionOptions, Unsuback,
    Unsubscribe, UnsubscribeReasonCode, VarByteInt,
};

use super::connection::Connection;
use super::filter::Filter;

impl Connection {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe) {
        let Subscribe { pid, properties, topics } = subscribe;
        let (mut codes, mut is_full) = (Vec::new(), false);
        for (text, mut options) in topics {
            if is_full {
                options.retain_handling = RetainHandling::DoNotSend;
            }
            let (code, retained) = self.subscribe_to(&text, (options, properties.subscription_id));
            codes.push(code);
            let (_, session) = self.parts();
            // Whoever wants more than fits into the queue gets what fits, and no more is looked for.
            is_full |= !retained.into_iter().all(|queued| session.offer(queued));
        }
        // What waits is sent behind this.
        self.send(Packet::Suback(Suback::new(pid, codes)));
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
