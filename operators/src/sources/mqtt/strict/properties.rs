//! The properties of MQTT 5: which ones a client may send where, and with which values.

use super::super::wire::Broken;
use super::fields::{Fields, malformed, protocol_error};

/// Where properties stand in what a client sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connect,
    Will,
    Publish,
    Acknowledgement,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

/// What follows a property's id.
enum Value {
    /// One byte, 0 or 1.
    Flag,
    Number16,
    Number32,
    /// Numbers that are never 0.
    Positive16,
    Positive32,
    PositiveVariable,
    Text,
    /// A topic to answer to, so without wildcards.
    Topic,
    Binary,
    /// Two texts.
    Pair,
}

struct Property {
    id: usize,
    value: Value,
    places: &'static [Place],
}

const fn property(id: usize, value: Value, places: &'static [Place]) -> Property {
    Property { id, value, places }
}

const SUBSCRIPTION_ID: usize = 0x0b;
const AUTHENTICATION_METHOD: usize = 0x15;
const AUTHENTICATION_DATA: usize = 0x16;
const USER_PROPERTY: usize = 0x26;

/// Table 2-4 of the standard, without what only brokers send.
const PROPERTIES: [Property; 18] = {
    use Place::{Acknowledgement, Connect, Disconnect, Publish, Subscribe, Unsubscribe, Will};
    [
        property(0x01, Value::Flag, &[Publish, Will]), // payload format indicator
        property(0x02, Value::Number32, &[Publish, Will]), // message expiry interval
        property(0x03, Value::Text, &[Publish, Will]), // content type
        property(0x08, Value::Topic, &[Publish, Will]), // response topic
        property(0x09, Value::Binary, &[Publish, Will]), // correlation data
        property(SUBSCRIPTION_ID, Value::PositiveVariable, &[Subscribe]),
        property(0x11, Value::Number32, &[Connect, Disconnect]), // session expiry interval
        property(AUTHENTICATION_METHOD, Value::Text, &[Connect]),
        property(AUTHENTICATION_DATA, Value::Binary, &[Connect]),
        property(0x17, Value::Flag, &[Connect]),  // request problem information
        property(0x18, Value::Number32, &[Will]), // will delay interval
        property(0x19, Value::Flag, &[Connect]),  // request response information
        property(0x1f, Value::Text, &[Acknowledgement, Disconnect]), // reason string
        property(0x21, Value::Positive16, &[Connect]), // receive maximum
        property(0x22, Value::Number16, &[Connect]), // topic alias maximum
        property(0x23, Value::Number16, &[Publish]), // topic alias: its range is the connection's
        property(
            USER_PROPERTY,
            Value::Pair,
            &[Connect, Will, Publish, Acknowledgement, Subscribe, Unsubscribe, Disconnect],
        ),
        property(0x27, Value::Positive32, &[Connect]), // maximum packet size
    ]
};

/// Looks at the properties that come next, with their length.
pub(super) fn check(fields: &mut Fields<'_>, place: Place) -> Result<(), Broken> {
    let length = fields.variable()?;
    let mut fields = Fields(fields.take(length)?);
    let mut seen = 0_u64;
    while !fields.is_empty() {
        let id = fields.variable()?;
        let found = PROPERTIES.iter().find(|property| property.id == id && property.places.contains(&place));
        let Some(property) = found else { return Err(misplaced(id, place)) };
        let bit = 1 << id;
        if seen & bit != 0 && id != USER_PROPERTY {
            return Err(protocol_error("a property is there twice"));
        }
        seen |= bit;
        property.value.check(&mut fields)?;
    }
    if seen & (1 << AUTHENTICATION_DATA) != 0 && seen & (1 << AUTHENTICATION_METHOD) == 0 {
        return Err(protocol_error("authentication data without a method"));
    }
    Ok(())
}

fn misplaced(id: usize, place: Place) -> Broken {
    if id == SUBSCRIPTION_ID && place == Place::Publish {
        return protocol_error("only brokers send subscription ids with a publish");
    }
    malformed("a property that is none, or none of this packet")
}

impl Value {
    fn check(&self, fields: &mut Fields<'_>) -> Result<(), Broken> {
        let is_allowed = match self {
            Self::Flag => fields.byte()? < 2,
            Self::Number16 => fields.u16().map(|_| true)?,
            Self::Number32 => fields.u32().map(|_| true)?,
            Self::Positive16 => fields.u16()? > 0,
            Self::Positive32 => fields.u32()? > 0,
            Self::PositiveVariable => fields.variable()? > 0,
            Self::Text => fields.text().map(|_| true)?,
            Self::Binary => fields.binary().map(|_| true)?,
            Self::Pair => fields.text().and_then(|_| fields.text()).map(|_| true)?,
            Self::Topic => return check_topic(fields.text()?),
        };
        if is_allowed { Ok(()) } else { Err(protocol_error("the value of a property is not allowed")) }
    }
}

fn check_topic(topic: &str) -> Result<(), Broken> {
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(protocol_error("the response topic is empty or has wildcards"));
    }
    Ok(())
}
