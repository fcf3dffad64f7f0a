//! AUTH: MQTT 5 §3.15.

use super::bytes::{Reader, Sink};
use super::properties::{AuthProperties, PropertySet};
use super::reason::{Carrier, Reason};
use super::{AUTH, DecodeError, Encode, Version};

/// A step of an extended authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason: Reason,
    /// A method is always there but in the two-byte form that says Success.
    pub properties: AuthProperties<'a>,
}

impl<'a> Auth<'a> {
    pub(super) fn decode(version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if version == Version::V311 {
            return Err(DecodeError::Malformed("packet type 15 is reserved"));
        }
        // §3.15.2.1 lets a Success without properties be left out, though §3.15.2.2.2 asks for a method.
        if reader.is_empty() {
            return Ok(Self { reason: Reason::Success, properties: AuthProperties::default() });
        }
        let reason = Reason::decode(reader.u8()?, Carrier::Auth)?;
        let properties = AuthProperties::decode(reader)?;
        if properties.authentication_method.is_none() {
            return Err(DecodeError::Protocol("AUTH without an authentication method"));
        }
        Ok(Self { reason, properties })
    }
}

/// Panics when encoded for 3.1.1, which has no such packet.
impl Encode for Auth<'_> {
    fn first_byte(&self) -> u8 {
        AUTH << 4
    }

    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        assert!(version == Version::V5, "AUTH is a packet of version 5 only");
        if self.reason == Reason::Success && self.properties == AuthProperties::default() {
            return;
        }
        sink.u8(self.reason.code());
        self.properties.write(sink);
    }
}
