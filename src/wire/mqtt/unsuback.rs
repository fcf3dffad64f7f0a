//! UNSUBACK: MQTT 5 §3.11, 3.1.1 §3.11.

use super::bytes::{Reader, Sink};
use super::properties::{AckProperties, PropertySet};
use super::reason::Carrier;
use super::suback::Reasons;
use super::{DecodeError, Encode, PacketId, UNSUBACK, Version, read_packet_id};

/// The server's answer to an UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Version 5 only.
    pub properties: AckProperties<'a>,
    /// One for each filter, in its order; 3.1.1 sends none.
    pub reasons: Reasons<'a>,
}

impl<'a> UnsubAck<'a> {
    pub(super) fn decode(version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = read_packet_id(reader)?;
        let (properties, reasons) = match version {
            Version::V311 => (AckProperties::default(), Reasons::default()),
            Version::V5 => (AckProperties::decode(reader)?, Reasons::decode(reader, Carrier::UnsubAck)?),
        };
        Ok(Self { packet_id, properties, reasons })
    }
}

/// Panics in version 5 without a reason code.
impl Encode for UnsubAck<'_> {
    fn first_byte(&self) -> u8 {
        UNSUBACK << 4
    }

    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            assert!(!self.reasons.is_empty(), "an UNSUBACK answers at least one filter");
            self.properties.write(sink);
            for reason in self.reasons.iter() {
                sink.u8(reason.code());
            }
        }
    }
}
