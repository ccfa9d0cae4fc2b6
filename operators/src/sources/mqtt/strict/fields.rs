//! The fields of a packet, one after the other.

use mqtt_proto::v5::DisconnectReasonCode as Reason;

use super::super::wire::Broken;

/// What is left of a packet, or of its properties.
pub(super) struct Fields<'a>(pub &'a [u8]);

/// The bytes are none that mean anything.
pub(super) fn malformed(why: &str) -> Broken {
    Broken::new(Reason::MalformedPacket, why)
}

/// They mean something that is not allowed.
pub(super) fn protocol_error(why: &str) -> Broken {
    Broken::new(Reason::ProtocolError, why)
}

impl<'a> Fields<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), Broken> {
        if self.is_empty() { Ok(()) } else { Err(malformed("there are bytes beyond the packet's fields")) }
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let split = self.0.split_at_checked(count);
        let (taken, rest) = split.ok_or_else(|| malformed("a field goes beyond the end of its packet"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        self.take(N)?.try_into().map_err(|_| malformed("a field goes beyond the end of its packet"))
    }

    pub fn byte(&mut self) -> Result<u8, Broken> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Broken> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Broken> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer: one to four bytes, and no more than it needs.
    pub fn variable(&mut self) -> Result<usize, Broken> {
        let mut number = 0;
        for index in 0..4 {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let is_short = index == 0 || byte != 0;
                return is_short.then_some(number).ok_or_else(|| malformed("a number has more bytes than it needs"));
            }
        }
        Err(malformed("a number has more than four bytes"))
    }

    pub fn binary(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub fn text(&mut self) -> Result<&'a str, Broken> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(malformed("a text has the character U+0000"));
        }
        std::str::from_utf8(bytes).map_err(|_| malformed("a text is not UTF-8"))
    }
}
