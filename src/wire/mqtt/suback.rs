//! SUBACK: MQTT 5 §3.9, 3.1.1 §3.9. The list of reason codes serves UNSUBACK too.

use super::bytes::{Reader, Sink};
use super::properties::{AckProperties, PropertySet};
use super::reason::{Carrier, Reason};
use super::{DecodeError, Encode, PacketId, SUBACK, Version, read_packet_id};
use core::fmt;

/// The server's answer to a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Version 5 only.
    pub properties: AckProperties<'a>,
    /// One for each filter, in its order. In 3.1.1 every failure becomes 0x80.
    pub reasons: Reasons<'a>,
}

impl<'a> SubAck<'a> {
    pub(super) fn decode(version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = read_packet_id(reader)?;
        let properties = match version {
            Version::V311 => AckProperties::default(),
            Version::V5 => AckProperties::decode(reader)?,
        };
        let reasons = Reasons::decode(reader, Carrier::SubAck)?;
        if version == Version::V311 && reasons.iter().any(|reason| reason.to_v3_suback() != reason.code()) {
            return Err(DecodeError::Malformed("a reserved SUBACK return code"));
        }
        Ok(Self { packet_id, properties, reasons })
    }
}

/// Panics without a reason code.
impl Encode for SubAck<'_> {
    fn first_byte(&self) -> u8 {
        SUBACK << 4
    }

    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        assert!(self.reasons.iter().next().is_some(), "a SUBACK answers at least one filter");
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.write(sink);
        }
        for reason in self.reasons.iter() {
            sink.u8(if version == Version::V5 { reason.code() } else { reason.to_v3_suback() });
        }
    }
}

/// Reason codes in the order of what they answer: from a decoded packet, or to encode.
#[derive(Clone, Copy)]
pub struct Reasons<'a>(List<'a>);

#[derive(Clone, Copy)]
enum List<'a> {
    /// Checked.
    Wire(&'a [u8]),
    Borrowed(&'a [Reason]),
}

impl<'a> Reasons<'a> {
    /// To encode.
    pub const fn borrowed(reasons: &'a [Reason]) -> Self {
        Self(List::Borrowed(reasons))
    }

    /// All that is left of the packet, at least one.
    pub(super) fn decode(reader: &mut Reader<'a>, carrier: Carrier) -> Result<Self, DecodeError> {
        let codes = reader.rest();
        if codes.is_empty() {
            return Err(DecodeError::Protocol("an acknowledgement without a reason code"));
        }
        for &code in codes {
            Reason::decode(code, carrier)?;
        }
        Ok(Self(List::Wire(codes)))
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self.0 {
            List::Wire(codes) => codes.len(),
            List::Borrowed(reasons) => reasons.len(),
        }
    }

    /// Whether there is none, as in an UNSUBACK of 3.1.1.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Reason> + use<'a> {
        let (codes, reasons): (&[u8], &[Reason]) = match self.0 {
            List::Wire(codes) => (codes, &[]),
            List::Borrowed(reasons) => (&[], reasons),
        };
        codes.iter().filter_map(|&code| Reason::from_code(code)).chain(reasons.iter().copied())
    }
}

impl Default for Reasons<'_> {
    fn default() -> Self {
        Self::borrowed(&[])
    }
}

impl PartialEq for Reasons<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
impl Eq for Reasons<'_> {}

impl fmt::Debug for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
