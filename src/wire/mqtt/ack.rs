//! PUBACK, PUBREC, PUBREL and PUBCOMP: MQTT 5 §3.4 to §3.7. They differ in their type and their reason codes only.

use super::bytes::{Reader, Sink};
use super::properties::{AckProperties, PropertySet};
use super::reason::{Carrier, Reason};
use super::{DecodeError, Encode, PUBACK, PUBCOMP, PUBREC, PUBREL, PacketId, Version, read_packet_id};

/// Which of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// Answers a QoS 1 PUBLISH.
    PubAck,
    /// Answers a QoS 2 PUBLISH.
    PubRec,
    /// Answers PUBREC.
    PubRel,
    /// Answers PUBREL.
    PubComp,
}

impl AckKind {
    fn carrier(self) -> Carrier {
        match self {
            Self::PubAck | Self::PubRec => Carrier::Received,
            Self::PubRel | Self::PubComp => Carrier::Released,
        }
    }
}

/// One of the four acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which.
    pub kind: AckKind,
    /// Of the PUBLISH.
    pub packet_id: PacketId,
    /// Success in 3.1.1, which has no other and is not sent one.
    pub reason: Reason,
    /// Version 5 only.
    pub properties: AckProperties<'a>,
}

impl<'a> Ack<'a> {
    /// Success, without properties.
    pub fn success(kind: AckKind, packet_id: PacketId) -> Self {
        Self { kind, packet_id, reason: Reason::Success, properties: AckProperties::default() }
    }

    #[inline(always)]
    pub(super) fn decode(kind: AckKind, version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = read_packet_id(reader)?;
        let (mut reason, mut properties) = (Reason::Success, AckProperties::default());
        // 3.1.1 ends here. In version 5 a reason of Success may be left out with the properties, and without
        // properties so may their length (§3.4.2.1, §3.4.2.2.1).
        if version == Version::V5 && !reader.is_empty() {
            reason = Reason::decode(reader.u8()?, kind.carrier())?;
            if !reader.is_empty() {
                properties = AckProperties::decode(reader)?;
            }
        }
        reader.end()?;
        Ok(Self { kind, packet_id, reason, properties })
    }
}

impl Encode for Ack<'_> {
    #[inline]
    fn first_byte(&self) -> u8 {
        match self.kind {
            AckKind::PubAck => PUBACK << 4,
            AckKind::PubRec => PUBREC << 4,
            AckKind::PubRel => PUBREL << 4 | 0b0010,
            AckKind::PubComp => PUBCOMP << 4,
        }
    }

    #[inline]
    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        let plain = self.properties == AckProperties::default();
        if version == Version::V311 || (plain && self.reason == Reason::Success) {
            return;
        }
        sink.u8(self.reason.code());
        if !plain {
            self.properties.write(sink);
        }
    }
}
