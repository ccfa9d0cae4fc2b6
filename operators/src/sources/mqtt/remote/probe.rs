//! A look at an outside broker, for `check --connect`: whether it lets us in, and which subscriptions it grants.
//!
//! It comes under a name of its own and leaves no session behind, so a pipeline that runs is not disturbed; and it asks
//! without the share group, which would get messages meant for others.

use std::time::Duration;

use cornjacket_core::environment::Random;
use rumqttc::{AsyncClient, Event, Packet, QoS, SubscribeFilter, SubscribeReasonCode};

use super::super::source::Source;
use super::address::Address;
use super::link::{options, reason_at_first};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects and subscribes for a moment; says what was found.
///
/// # Errors
/// Why the source would get nothing, or not everything, for the user.
pub async fn probe(source: &Source, address: &Address, random: &dyn Random) -> Result<String, String> {
    match tokio::time::timeout(PATIENCE, ask(source, address, random)).await {
        Ok(found) => found.map_err(|reason| format!("{address}: {reason}")),
        Err(_) => Err(format!("{address}: no answer within {} seconds", PATIENCE.as_secs())),
    }
}

async fn ask(source: &Source, address: &Address, random: &dyn Random) -> Result<String, String> {
    let mut bytes = [0; 6];
    random.fill(&mut bytes);
    let unique: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = options(address, &format!("cornjacket-check-{unique}"), true);
    options.set_transport(address.transport()?);
    let (client, mut eventloop) = AsyncClient::new(options, 10);
    let qos = if source.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    let filters: Vec<String> = source.filters.iter().map(ToString::to_string).collect();
    let wanted = filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), qos));
    client.try_subscribe_many(wanted).map_err(|error| error.to_string())?;
    let codes = loop {
        match eventloop.poll().await {
            Ok(Event::Incoming(Packet::SubAck(answer))) => break answer.return_codes,
            Ok(_) => {}
            Err(error) => return Err(reason_at_first(&error, address)),
        }
    };
    // Leaving is a courtesy.
    if client.try_disconnect().is_ok() {
        let _ = eventloop.poll().await;
    }
    let refused: Vec<&str> = filters
        .iter()
        .zip(&codes)
        .filter(|(_, code)| matches!(code, SubscribeReasonCode::Failure))
        .map(|(filter, _)| filter.as_str())
        .collect();
    if !refused.is_empty() {
        return Err(format!("the broker lets us in and refuses to subscribe us to {}", refused.join(", ")));
    }
    let is_weaker = codes.iter().any(|code| matches!(code, SubscribeReasonCode::Success(granted) if *granted < qos));
    let how = if is_weaker { ", but with quality of service 0 only" } else { "" };
    Ok(format!("{address} lets us in and grants {}{how}", filters.join(", ")))
}
