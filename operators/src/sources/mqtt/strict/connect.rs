//! CONNECT: flags that go together, and exactly the fields that they announce.

use mqtt_proto::v5::DisconnectReasonCode as Reason;

use super::super::wire::Broken;
use super::fields::{Fields, malformed};
use super::properties::{self, Place};

const RESERVED: u8 = 1;
const WILL: u8 = 1 << 2;
const WILL_QOS: u8 = 0b11 << 3;
const WILL_RETAIN: u8 = 1 << 5;
const PASSWORD: u8 = 1 << 6;
const USER_NAME: u8 = 1 << 7;

pub(super) fn check(fields: &mut Fields<'_>, is_v5: bool) -> Result<(), Broken> {
    // The protocol's name and level were known before anyone came here.
    fields.binary()?;
    fields.byte()?;
    let flags = fields.byte()?;
    check_flags(flags, is_v5)?;
    let _keep_alive = fields.u16()?;
    if is_v5 {
        properties::check(fields, Place::Connect)?;
    }
    let _client_id = fields.text()?;
    if flags & WILL != 0 {
        check_will(fields, is_v5)?;
    }
    if flags & USER_NAME != 0 {
        fields.text()?;
    }
    if flags & PASSWORD != 0 {
        fields.binary()?;
    }
    Ok(())
}

fn check_flags(flags: u8, is_v5: bool) -> Result<(), Broken> {
    if flags & RESERVED != 0 {
        return Err(malformed("the reserved flag of CONNECT is set"));
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(malformed("Will QoS or Will Retain is set without a will"));
    }
    if flags & WILL_QOS == WILL_QOS {
        return Err(malformed("there is no QoS 3"));
    }
    if !is_v5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return Err(malformed("a password without a user name"));
    }
    Ok(())
}

fn check_will(fields: &mut Fields<'_>, is_v5: bool) -> Result<(), Broken> {
    if is_v5 {
        properties::check(fields, Place::Will)?;
    }
    if fields.text()?.is_empty() {
        return Err(Broken::new(Reason::TopicNameInvalid, "the topic of the will is empty"));
    }
    let _payload = fields.binary()?;
    Ok(())
}
