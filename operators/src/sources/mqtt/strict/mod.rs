//! What the standard forbids and the codec lets pass: a look at a packet's bytes before they are decoded.
//!
//! The codec checks topics, packet ids and reason codes. Here are the rest of the rules: flags, which packets
//! clients may send at all, that fields end where their packet ends, texts without U+0000, and properties, which a table
//! describes. docs/mqtt-conformance.md lists the standard's statements.
//!
//! It takes no memory, and of a PUBLISH it looks at everything but the payload.

mod connect;
mod fields;
mod properties;

use mqtt_proto::Protocol;
use mqtt_proto::v5::DisconnectReasonCode as Reason;

use self::fields::{Fields, malformed, protocol_error};
use self::properties::Place;
use super::wire::Broken;

/// What begins the filter of a shared subscription.
const SHARED: &str = "$share/";

/// Looks at a packet: its first byte, and what stands behind its length.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(first: u8, body: &[u8], protocol: Protocol) -> Result<(), Broken> {
    let is_v5 = protocol == Protocol::V500;
    check_first(first, is_v5)?;
    let mut fields = Fields(body);
    match first >> 4 {
        1 => connect::check(&mut fields, is_v5)?,
        // Its payload is what remains.
        3 => return check_publish(first, &mut fields, is_v5),
        4..=7 => check_acknowledgement(&mut fields, is_v5)?,
        8 => check_filters(&mut fields, is_v5, Place::Subscribe)?,
        10 => check_filters(&mut fields, is_v5, Place::Unsubscribe)?,
        14 if is_v5 => check_reason(&mut fields, Place::Disconnect)?,
        _ => {}
    }
    fields.end()
}

/// Packet type and flags.
fn check_first(first: u8, is_v5: bool) -> Result<(), Broken> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    let are_right = match kind {
        0 => return Err(malformed("there is no packet of type 0")),
        15 if !is_v5 => return Err(malformed("there is no packet of type 15 before MQTT 5")),
        3 => return check_publish_flags(flags),
        6 | 8 | 10 => flags == 0b0010,
        _ => flags == 0,
    };
    match kind {
        _ if !are_right => Err(malformed("the reserved flags of the first byte are not as they have to be")),
        2 | 9 | 11 | 13 => Err(protocol_error("a packet that only brokers send")),
        15 => Err(protocol_error("AUTH without an authentication method in CONNECT")),
        _ => Ok(()),
    }
}

fn check_publish_flags(flags: u8) -> Result<(), Broken> {
    match flags >> 1 & 0b11 {
        3 => Err(malformed("there is no QoS 3")),
        0 if flags & 0b1000 != 0 => Err(malformed("DUP is set on a publish of QoS 0")),
        _ => Ok(()),
    }
}

fn check_publish(first: u8, fields: &mut Fields<'_>, is_v5: bool) -> Result<(), Broken> {
    fields.text()?;
    if first & 0b0110 != 0 {
        fields.u16()?;
    }
    if is_v5 { properties::check(fields, Place::Publish) } else { Ok(()) }
}

fn check_acknowledgement(fields: &mut Fields<'_>, is_v5: bool) -> Result<(), Broken> {
    fields.u16()?;
    if is_v5 { check_reason(fields, Place::Acknowledgement) } else { Ok(()) }
}

/// A reason and properties, both of which may be left out from the end.
fn check_reason(fields: &mut Fields<'_>, place: Place) -> Result<(), Broken> {
    if fields.is_empty() {
        return Ok(());
    }
    fields.byte()?;
    if fields.is_empty() { Ok(()) } else { properties::check(fields, place) }
}

/// SUBSCRIBE and UNSUBSCRIBE.
fn check_filters(fields: &mut Fields<'_>, is_v5: bool, place: Place) -> Result<(), Broken> {
    fields.u16()?;
    if is_v5 {
        properties::check(fields, place)?;
    }
    if fields.is_empty() {
        return Err(protocol_error("there is no topic filter"));
    }
    while !fields.is_empty() {
        let filter = fields.text()?;
        check_filter(filter)?;
        if place == Place::Subscribe {
            check_options(fields.byte()?, filter, is_v5)?;
        }
    }
    Ok(())
}

/// Wildcards stand for whole levels, and a shared subscription has a name and a filter. How many levels there may be is
/// not the standard's to say, so it is told with the answer to each filter.
fn check_filter(filter: &str) -> Result<(), Broken> {
    let invalid = |why: &str| Err(Broken::new(Reason::TopicFilterInvalid, why));
    let (name, filter) = match filter.strip_prefix(SHARED) {
        None => (None, filter),
        Some(shared) => match shared.split_once('/') {
            Some((name, filter)) => (Some(name), filter),
            None => return invalid("no filter follows the name of a shared subscription"),
        },
    };
    if filter.is_empty() || name.is_some_and(|name| name.is_empty() || name.contains(['+', '#'])) {
        return invalid("a filter, or the name of a shared subscription, is empty or has wildcards");
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_whole = level.len() == 1 || !level.contains(['+', '#']);
        if !is_whole || (level == "#" && levels.peek().is_some()) {
            return invalid("a wildcard is not a whole level, or `#` is not the last");
        }
    }
    Ok(())
}

fn check_options(options: u8, filter: &str, is_v5: bool) -> Result<(), Broken> {
    if !is_v5 {
        return if options > 2 { Err(malformed("a QoS is 0, 1 or 2")) } else { Ok(()) };
    }
    match options {
        _ if options & 0b1100_0000 != 0 => Err(malformed("reserved bits of the subscription options are set")),
        _ if options & 0b11 == 3 => Err(protocol_error("a QoS is 0, 1 or 2")),
        _ if options >> 4 == 3 => Err(protocol_error("there is no retain handling 3")),
        _ if options & 0b100 != 0 && filter.starts_with(SHARED) => {
            Err(protocol_error("No Local is set on a shared subscription"))
        }
        _ => Ok(()),
    }
}

/// The length of a packet, a variable byte integer in bytes: MQTT 5 wants it as short as it can be.
///
/// # Errors
/// When it has a byte too many.
pub(super) fn check_length(bytes: &[u8], protocol: Protocol) -> Result<(), Broken> {
    if protocol == Protocol::V500 && bytes.len() > 1 && bytes.last() == Some(&0) {
        return Err(malformed("the length has more bytes than it needs"));
    }
    Ok(())
}
