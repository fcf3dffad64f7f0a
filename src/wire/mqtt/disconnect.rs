//! DISCONNECT: MQTT 5 §3.14, 3.1.1 §3.14.

use super::bytes::{Reader, Sink};
use super::properties::{DisconnectProperties, PropertySet};
use super::reason::{Carrier, Reason};
use super::{DISCONNECT, DecodeError, Encode, Version};

/// The last packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Success is a normal disconnection, and all that 3.1.1 can say.
    pub reason: Reason,
    /// Version 5 only.
    pub properties: DisconnectProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Without properties.
    pub fn new(reason: Reason) -> Self {
        Self { reason, properties: DisconnectProperties::default() }
    }

    pub(super) fn decode(version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(Reason::Success);
        // As with acknowledgements: 3.1.1 has no more, version 5 may leave out both parts (§3.14.2.1, §3.14.2.2.1).
        if version == Version::V5 && !reader.is_empty() {
            disconnect.reason = Reason::decode(reader.u8()?, Carrier::Disconnect)?;
            if !reader.is_empty() {
                disconnect.properties = DisconnectProperties::decode(reader)?;
            }
        }
        Ok(disconnect)
    }
}

impl Encode for Disconnect<'_> {
    fn first_byte(&self) -> u8 {
        DISCONNECT << 4
    }

    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        let plain = self.properties == DisconnectProperties::default();
        if version == Version::V311 || (plain && self.reason == Reason::Success) {
            return;
        }
        sink.u8(self.reason.code());
        if !plain {
            self.properties.write(sink);
        }
    }
}
