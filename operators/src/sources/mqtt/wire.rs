//! Packets on the wire. Everything inside speaks MQTT 5; what goes to and comes from clients of 3.1 and 3.1.1 is translated
//! here and nowhere else.
//!
//! A packet is decoded only when it is there whole, from exactly its own bytes. So nothing is reserved for a length that a
//! client merely claims, and what a packet has beyond its fields is a fault.

use bytes::BytesMut;
use mqtt_proto::v5::{self, DisconnectReasonCode as Reason, ErrorV5, Packet, VarByteInt};
use mqtt_proto::{Error, PollHeader, Protocol, v3};

use super::strict;

/// No protocol's name is longer.
const MAX_NAME: usize = 64;

/// Why a packet cannot be taken: the reason for the client, and in words for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub reason: Reason,
    pub why: String,
}

impl Broken {
    pub fn new(reason: Reason, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }
}

/// Takes the next packet off the front of what was received; `None` if it is not there whole.
///
/// # Errors
/// When it is none, or longer than `max` bytes.
pub(super) fn next(received: &mut BytesMut, protocol: Protocol, max: usize) -> Result<Option<Packet>, Broken> {
    let Some((head, length)) = header(received, max)? else { return Ok(None) };
    if received.len() < head + length {
        return Ok(None);
    }
    let frame = received.split_to(head + length);
    strict::check_length(&frame[1..head], protocol)?;
    strict::check(frame[0], &frame[head..], protocol)?;
    decode(frame[0], &frame[head..], protocol).map(Some)
}

/// The length of the fixed header and of what follows it; `None` if it is not there whole.
fn header(received: &[u8], max: usize) -> Result<Option<(usize, usize)>, Broken> {
    let mut length = 0;
    for (index, byte) in received.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let head = index + 2;
            if head + length > max {
                let why = format!("a packet of {} bytes, at most {max} are allowed", head + length);
                return Err(Broken::new(Reason::PacketTooLarge, why));
            }
            return Ok(Some((head, length)));
        }
    }
    if received.len() > 4 {
        return Err(Broken::new(Reason::MalformedPacket, "the length has more than four bytes"));
    }
    Ok(None)
}

/// What the first bytes of a connection turn out to be.
pub(super) enum Opening {
    /// There are too few of them to know.
    Unclear,
    /// A CONNECT of this version.
    Of(Protocol),
    /// A CONNECT of a version that there is none of, and the version to answer in.
    Unknown(Protocol),
    /// Nothing that has an answer: another protocol, or no packet at all.
    Noise,
}

/// Looks at the first bytes of a connection. In a CONNECT protocol name and level are at the same place in all versions.
pub(super) fn opening(received: &[u8]) -> Opening {
    if received.first().is_some_and(|first| *first != 0x10) {
        return Opening::Noise;
    }
    let (head, length) = match header(received, usize::MAX) {
        Ok(Some(found)) => found,
        Ok(None) => return Opening::Unclear,
        Err(_) => return Opening::Noise,
    };
    let body = &received[head..received.len().min(head + length)];
    // What is not there yet may come; what its packet has no room for will not.
    let cut = if body.len() == length { Opening::Noise } else { Opening::Unclear };
    let Some((size, rest)) = body.split_first_chunk::<2>() else { return cut };
    let size = usize::from(u16::from_be_bytes(*size));
    if size > MAX_NAME || size + 3 > length {
        return Opening::Noise;
    }
    let (Some(name), Some(level)) = (rest.get(..size), rest.get(size)) else { return Opening::Unclear };
    // The highest bit of the level is what Mosquitto's bridges ask for with.
    let answer = if level & 0x7f < 5 { Protocol::V311 } else { Protocol::V500 };
    Protocol::new(name, *level).map_or(Opening::Unknown(answer), Opening::Of)
}

fn decode(first: u8, body: &[u8], protocol: Protocol) -> Result<Packet, Broken> {
    let malformed = |error: &dyn std::fmt::Display| Broken::new(Reason::MalformedPacket, error.to_string());
    let length = u32::try_from(body.len()).map_err(|error| malformed(&error))?;
    let mut offset = 0;
    let packet = if protocol == Protocol::V500 {
        let header = v5::Header::new_with(first, length, length).map_err(|error| broken(&error))?;
        match header.build_empty_packet() {
            Some(packet) => packet,
            None => header.decode_buffer(body, &mut offset).map_err(|error| broken(&error))?,
        }
    } else {
        let header = v3::Header::new_with(first, length, length).map_err(|error| common(&error))?;
        let packet = match header.build_empty_packet() {
            Some(packet) => packet,
            None => header.decode_buffer(body, &mut offset).map_err(|error| common(&error))?,
        };
        from_v3(packet)
    };
    if offset != body.len() {
        return Err(malformed(&"there are bytes beyond the packet's fields"));
    }
    Ok(packet)
}

fn broken(error: &ErrorV5) -> Broken {
    let reason = match error {
        ErrorV5::Common(error) => return common(error),
        ErrorV5::InvalidPayloadFormat => Reason::PayloadFormatInvalid,
        _ => Reason::MalformedPacket,
    };
    Broken::new(reason, error.to_string())
}

fn common(error: &Error) -> Broken {
    let reason = match error {
        Error::InvalidTopicName(_) => Reason::TopicNameInvalid,
        Error::InvalidTopicFilter(_) => Reason::TopicFilterInvalid,
        Error::EmptySubscription => Reason::ProtocolError,
        _ => Reason::MalformedPacket,
    };
    // Topics of strangers can be as long as a packet, and hold anything.
    Broken::new(reason, error.to_string().escape_debug().take(200).collect::<String>())
}

/// What a packet of MQTT 3 is in MQTT 5.
fn from_v3(packet: v3::Packet) -> Packet {
    match packet {
        v3::Packet::Connect(connect) => Packet::Connect(connect_from_v3(connect)),
        v3::Packet::Connack(connack) => Packet::Connack(v5::Connack::new(connack.session_present, code(connack.code))),
        v3::Packet::Publish(publish) => {
            let v3::Publish { dup, retain, qos_pid, topic_name, payload } = publish;
            let properties = v5::PublishProperties::default();
            Packet::Publish(v5::Publish { dup, retain, qos_pid, topic_name, payload, properties })
        }
        v3::Packet::Puback(pid) => Packet::Puback(v5::Puback::new_success(pid)),
        v3::Packet::Pubrec(pid) => Packet::Pubrec(v5::Pubrec::new_success(pid)),
        v3::Packet::Pubrel(pid) => Packet::Pubrel(v5::Pubrel::new_success(pid)),
        v3::Packet::Pubcomp(pid) => Packet::Pubcomp(v5::Pubcomp::new_success(pid)),
        v3::Packet::Subscribe(v3::Subscribe { pid, topics }) => {
            let options = |max_qos| v5::SubscriptionOptions {
                retain_as_published: false,
                ..v5::SubscriptionOptions::new(max_qos)
            };
            let topics = topics.into_iter().map(|(filter, qos)| (filter, options(qos))).collect();
            Packet::Subscribe(v5::Subscribe::new(pid, topics))
        }
        v3::Packet::Suback(v3::Suback { pid, topics }) => {
            let code = |code| match code {
                v3::SubscribeReturnCode::MaxLevel0 => v5::SubscribeReasonCode::GrantedQoS0,
                v3::SubscribeReturnCode::MaxLevel1 => v5::SubscribeReasonCode::GrantedQoS1,
                v3::SubscribeReturnCode::MaxLevel2 => v5::SubscribeReasonCode::GrantedQoS2,
                v3::SubscribeReturnCode::Failure => v5::SubscribeReasonCode::UnspecifiedError,
            };
            Packet::Suback(v5::Suback::new(pid, topics.into_iter().map(code).collect()))
        }
        v3::Packet::Unsubscribe(v3::Unsubscribe { pid, topics }) => {
            Packet::Unsubscribe(v5::Unsubscribe::new(pid, topics))
        }
        v3::Packet::Unsuback(pid) => Packet::Unsuback(v5::Unsuback::new(pid, Vec::new())),
        v3::Packet::Pingreq => Packet::Pingreq,
        v3::Packet::Pingresp => Packet::Pingresp,
        v3::Packet::Disconnect => Packet::Disconnect(v5::Disconnect::new_normal()),
    }
}

fn connect_from_v3(connect: v3::Connect) -> v5::Connect {
    let v3::Connect { protocol, clean_session, keep_alive, client_id, last_will, username, password } = connect;
    let expiry = if clean_session { 0 } else { u32::MAX };
    let last_will = last_will
        .map(|will| v5::LastWill { retain: will.retain, ..v5::LastWill::new(will.qos, will.topic_name, will.message) });
    v5::Connect {
        protocol,
        clean_start: clean_session,
        properties: v5::ConnectProperties { session_expiry_interval: Some(expiry), ..Default::default() },
        last_will,
        username,
        password,
        ..v5::Connect::new(client_id, keep_alive)
    }
}

fn code(code: v3::ConnectReturnCode) -> v5::ConnectReasonCode {
    match code {
        v3::ConnectReturnCode::Accepted => v5::ConnectReasonCode::Success,
        v3::ConnectReturnCode::UnacceptableProtocolVersion => v5::ConnectReasonCode::UnsupportedProtocolVersion,
        v3::ConnectReturnCode::IdentifierRejected => v5::ConnectReasonCode::ClientIdentifierNotValid,
        v3::ConnectReturnCode::ServerUnavailable => v5::ConnectReasonCode::ServerUnavailable,
        v3::ConnectReturnCode::BadUserNameOrPassword => v5::ConnectReasonCode::BadUserNameOrPassword,
        v3::ConnectReturnCode::NotAuthorized => v5::ConnectReasonCode::NotAuthorized,
    }
}

/// Puts a packet at the end of what is to be sent. What a version does not have (a DISCONNECT from the broker before MQTT
/// 5) adds nothing.
pub(super) fn write(packet: Packet, protocol: Protocol, out: &mut Vec<u8>) {
    let encoded = if protocol == Protocol::V500 {
        packet.encode()
    } else if let Packet::Suback(suback) = &packet {
        return write_suback_v3(suback, out);
    } else {
        let Some(packet) = to_v3(packet, protocol) else { return };
        packet.encode()
    };
    match encoded {
        Ok(bytes) => out.extend_from_slice(bytes.as_ref()),
        // Only what has more than 256 MiB cannot be encoded, and nothing that long comes in.
        Err(error) => tracing::error!(%error, "a packet cannot be sent"),
    }
}

/// The codec has 3 for what the standard calls 0x80, a failure. MQTT 3.1 has none; it is the one way to say so all the same.
fn write_suback_v3(suback: &v5::Suback, out: &mut Vec<u8>) {
    let body = suback.topics.iter().map(|code| match code {
        v5::SubscribeReasonCode::GrantedQoS0 => 0,
        v5::SubscribeReasonCode::GrantedQoS1 => 1,
        v5::SubscribeReasonCode::GrantedQoS2 => 2,
        _ => 0x80,
    });
    out.push(0x90);
    write_length(2 + suback.topics.len(), out);
    out.extend_from_slice(&suback.pid.value().to_be_bytes());
    out.extend(body);
}

/// Puts a message at the end of what is to be sent, with all of its subscription ids: the codec has room for one.
pub(super) fn write_message(publish: v5::Publish, ids: &[VarByteInt], protocol: Protocol, out: &mut Vec<u8>) {
    let start = out.len();
    let before = 2 + publish.topic_name.len() + publish.qos_pid.pid().map_or(0, |_| 2);
    write(Packet::Publish(publish), protocol, out);
    if ids.is_empty() || protocol != Protocol::V500 {
        return;
    }
    let packet = out.split_off(start);
    let Ok(Some((head, _))) = header(&packet, usize::MAX) else { return };
    let (fields, rest) = packet[head..].split_at(before);
    // The length of the properties, as that of a packet, stands behind one byte.
    let Ok(Some((size, properties))) = header(&packet[head + before - 1..], usize::MAX) else { return };
    let mut more = Vec::new();
    for id in ids {
        more.push(0x0b);
        write_length(id.value() as usize, &mut more);
    }
    let mut body = fields.to_vec();
    write_length(properties + more.len(), &mut body);
    body.extend_from_slice(&more);
    body.extend_from_slice(&rest[size - 1..]);
    out.push(packet[0]);
    write_length(body.len(), out);
    out.extend_from_slice(&body);
}

fn write_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        if length == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn to_v3(packet: Packet, protocol: Protocol) -> Option<v3::Packet> {
    Some(match packet {
        Packet::Connect(connect) => v3::Packet::Connect(v3::Connect {
            protocol,
            clean_session: connect.clean_start,
            keep_alive: connect.keep_alive,
            client_id: connect.client_id,
            last_will: None,
            username: connect.username,
            password: connect.password,
        }),
        Packet::Connack(connack) => {
            v3::Packet::Connack(v3::Connack::new(connack.session_present, return_code(connack.reason_code)))
        }
        Packet::Publish(publish) => {
            let v5::Publish { dup, retain, qos_pid, topic_name, payload, .. } = publish;
            v3::Packet::Publish(v3::Publish { dup, retain, qos_pid, topic_name, payload })
        }
        Packet::Puback(puback) => v3::Packet::Puback(puback.pid),
        Packet::Pubrec(pubrec) => v3::Packet::Pubrec(pubrec.pid),
        Packet::Pubrel(pubrel) => v3::Packet::Pubrel(pubrel.pid),
        Packet::Pubcomp(pubcomp) => v3::Packet::Pubcomp(pubcomp.pid),
        Packet::Subscribe(subscribe) => {
            let topics = subscribe.topics.into_iter().map(|(filter, options)| (filter, options.max_qos)).collect();
            v3::Packet::Subscribe(v3::Subscribe::new(subscribe.pid, topics))
        }
        Packet::Unsuback(unsuback) => v3::Packet::Unsuback(unsuback.pid),
        Packet::Pingreq => v3::Packet::Pingreq,
        Packet::Pingresp => v3::Packet::Pingresp,
        Packet::Disconnect(disconnect) if disconnect.reason_code == Reason::NormalDisconnect => v3::Packet::Disconnect,
        Packet::Unsubscribe(_) | Packet::Suback(_) | Packet::Disconnect(_) | Packet::Auth(_) => return None,
    })
}

fn return_code(code: v5::ConnectReasonCode) -> v3::ConnectReturnCode {
    match code {
        v5::ConnectReasonCode::Success => v3::ConnectReturnCode::Accepted,
        v5::ConnectReasonCode::UnsupportedProtocolVersion => v3::ConnectReturnCode::UnacceptableProtocolVersion,
        v5::ConnectReasonCode::ClientIdentifierNotValid => v3::ConnectReturnCode::IdentifierRejected,
        v5::ConnectReasonCode::BadUserNameOrPassword => v3::ConnectReturnCode::BadUserNameOrPassword,
        v5::ConnectReasonCode::NotAuthorized => v3::ConnectReturnCode::NotAuthorized,
        _ => v3::ConnectReturnCode::ServerUnavailable,
    }
}
