//! CONNACK: MQTT 5 §3.2, 3.1.1 §3.2.

use super::bytes::{Reader, Sink};
use super::properties::{ConnAckProperties, PropertySet};
use super::reason::{Carrier, Reason};
use super::{CONNACK, DecodeError, Encode, Version};

/// The server's answer to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Only with Success `[MQTT-3.2.2-6]`.
    pub session_present: bool,
    /// In 3.1.1 one that [`Reason::to_v3_connack`] has a return code for.
    pub reason: Reason,
    /// Version 5 only.
    pub properties: ConnAckProperties<'a>,
}

impl<'a> ConnAck<'a> {
    /// Refuses, without properties.
    pub fn refused(reason: Reason) -> Self {
        Self { session_present: false, reason, properties: ConnAckProperties::default() }
    }

    pub(super) fn decode(version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let session_present = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Malformed("reserved CONNACK flags")),
        };
        let code = reader.u8()?;
        let (reason, properties) = match version {
            Version::V311 => (
                Reason::from_v3_connack(code).ok_or(DecodeError::Malformed("a reserved CONNACK return code"))?,
                ConnAckProperties::default(),
            ),
            Version::V5 => (Reason::decode(code, Carrier::ConnAck)?, ConnAckProperties::decode(reader)?),
        };
        if session_present && reason != Reason::Success {
            return Err(DecodeError::Protocol("a refused connection with a session"));
        }
        Ok(Self { session_present, reason, properties })
    }
}

/// Panics when encoded for 3.1.1 with a reason that has no return code there: then there is no CONNACK to send.
impl Encode for ConnAck<'_> {
    fn first_byte(&self) -> u8 {
        CONNACK << 4
    }

    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        assert!(self.reason == Reason::Success || !self.session_present, "a refused connection has no session");
        sink.u8(u8::from(self.session_present));
        match version {
            Version::V311 => sink.u8(self.reason.to_v3_connack().expect("this reason has no 3.1.1 return code")),
            Version::V5 => {
                sink.u8(self.reason.code());
                self.properties.write(sink);
            }
        }
    }
}
