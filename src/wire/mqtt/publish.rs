//! PUBLISH: MQTT 5 §3.3, 3.1.1 §3.3.

use super::bytes::{Reader, Sink, Writer, count};
use super::properties::{PropertySet, PublishProperties};
use super::{DecodeError, Encode, PUBLISH, PacketId, Version, read_packet_id, topic, varint, write_fixed_header};
use crate::base::ids::Qos;

/// A message on its way, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before. Never with QoS 0.
    pub dup: bool,
    /// Of this sending.
    pub qos: Qos,
    /// From a client: keep it. To a client: it was kept, or the subscription asked for the publisher's flag.
    pub retain: bool,
    /// A topic name, checked. Empty only in version 5 with a topic alias.
    pub topic: &'a str,
    /// There exactly if the QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// Version 5 only.
    pub properties: PublishProperties<'a>,
    /// Any bytes.
    pub payload: &'a [u8],
}

/// Where things stand in an encoded PUBLISH, so that a copy can be made another connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishLayout {
    /// Bytes before the payload.
    pub head_bytes: usize,
    /// Bytes of the whole frame.
    pub total_bytes: usize,
    /// Offset of the packet identifier's two bytes.
    pub packet_id_at: Option<usize>,
    /// Offset of the Message Expiry Interval's four bytes.
    pub message_expiry_at: Option<usize>,
}

impl PublishLayout {
    /// Makes `frame`, a copy of the encoded bytes, another sending: with its own packet identifier, DUP and retain
    /// flags. Panics when the identifier does not fit the QoS that was encoded.
    #[inline]
    pub fn patch(&self, frame: &mut [u8], packet_id: Option<PacketId>, dup: bool, retain: bool) {
        assert!(self.packet_id_at.is_some() == packet_id.is_some(), "a packet identifier goes with QoS above 0");
        frame[0] = frame[0] & !(DUP | RETAIN) | if dup { DUP } else { 0 } | u8::from(retain);
        if let (Some(at), Some(id)) = (self.packet_id_at, packet_id) {
            frame[at..at + 2].copy_from_slice(&id.get().to_be_bytes());
        }
    }

    /// Lowers the Message Expiry Interval of a copy to what is left of it `[MQTT-3.3.2-6]`; nothing to do when it has
    /// none.
    #[inline]
    pub fn patch_message_expiry(&self, frame: &mut [u8], seconds: u32) {
        if let Some(at) = self.message_expiry_at {
            frame[at..at + 4].copy_from_slice(&seconds.to_be_bytes());
        }
    }
}

const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;

impl<'a> Publish<'a> {
    #[inline(always)]
    pub(super) fn decode(version: Version, first: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let dup = first & DUP != 0;
        let qos = Qos::from_bits(first >> 1 & 0b11).ok_or(DecodeError::Malformed("QoS 3"))?;
        if dup && qos == Qos::AtMostOnce {
            return Err(DecodeError::Malformed("DUP with QoS 0"));
        }
        let (topic, has_no_wildcard) = reader.topic()?;
        let packet_id = if qos == Qos::AtMostOnce { None } else { Some(read_packet_id(reader)?) };
        let mut properties = PublishProperties::default();
        if version == Version::V5 {
            properties.read(reader)?;
            check_response_topic(properties.response_topic)?;
        }
        if !topic.is_empty() {
            if !has_no_wildcard {
                topic::check_name(topic)?;
            }
        } else if version == Version::V311 {
            return Err(DecodeError::TopicName("a topic name is empty"));
        } else if properties.topic_alias.is_none() {
            return Err(DecodeError::Protocol("neither a topic name nor a topic alias"));
        }
        Ok(Self { dup, qos, retain: first & RETAIN != 0, topic, packet_id, properties, payload: reader.rest() })
    }

    /// Whether the payload is what the Payload Format Indicator says. Asked apart from decoding: it costs a pass over
    /// the payload, and its answer is an acknowledgement with 0x99, not the end of the connection (§3.3.2.3.2).
    pub fn check_payload_format(&self) -> Result<(), DecodeError> {
        check_payload_format(self.properties.payload_is_utf8, self.payload)
    }

    /// Writes all but the payload at the start of `out`; the payload's bytes have to follow. Panics as [`Encode`].
    #[inline]
    pub fn encode_head(&self, version: Version, out: &mut [u8]) -> PublishLayout {
        match version {
            Version::V311 => self.encode_head_of::<false>(out),
            Version::V5 => self.encode_head_of::<true>(out),
        }
    }

    /// Each version has code of its own: 3.1.1 does not make room for properties that it has not.
    #[inline(never)]
    fn encode_head_of<const IS_V5: bool>(&self, out: &mut [u8]) -> PublishLayout {
        let version = if IS_V5 { Version::V5 } else { Version::V311 };
        let payload_bytes = u32::try_from(self.payload.len()).expect("payloads are bounded far below 4 GiB");
        let body_bytes = count(|sink| self.write_before_payload(version, sink)) + payload_bytes;
        let mut writer = Writer::new(out);
        write_fixed_header(self.first_byte(), body_bytes, &mut writer);
        let body_at = writer.at;
        self.write_before_payload(version, &mut writer);
        let head_bytes = writer.at;
        let after_topic = body_at + 2 + self.topic.len();
        let packet_id_at = self.packet_id.map(|_| after_topic);
        let properties_at = after_topic + if packet_id_at.is_some() { 2 } else { 0 };
        let message_expiry_at = match version {
            Version::V5 if self.properties.message_expiry_seconds.is_some() => {
                // Behind the section's length and its own identifier, as it is always the first property written.
                let section_bytes = count(|sink| self.properties.write_each(sink));
                Some(properties_at + varint::encoded_len(section_bytes) + 1)
            }
            _ => None,
        };
        let total_bytes = head_bytes + self.payload.len();
        PublishLayout { head_bytes, total_bytes, packet_id_at, message_expiry_at }
    }

    /// Bytes that [`Publish::encode_head`] writes.
    #[inline]
    pub fn head_len(&self, version: Version) -> usize {
        self.encoded_len(version) - self.payload.len()
    }

    #[inline(always)]
    fn write_before_payload<S: Sink>(&self, version: Version, sink: &mut S) {
        assert!(self.packet_id.is_some() == (self.qos != Qos::AtMostOnce), "a packet identifier goes with QoS above 0");
        sink.string(self.topic);
        if let Some(packet_id) = self.packet_id {
            sink.u16(packet_id.get());
        }
        if version == Version::V5 {
            self.properties.write(sink);
        }
    }
}

/// Panics when a packet identifier is there without QoS 1 or 2, or missing with it.
impl Encode for Publish<'_> {
    #[inline]
    fn first_byte(&self) -> u8 {
        PUBLISH << 4 | if self.dup { DUP } else { 0 } | (self.qos as u8) << 1 | u8::from(self.retain)
    }

    #[inline]
    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        self.write_before_payload(version, sink);
        sink.bytes(self.payload);
    }
}

/// A response topic is a topic name without wildcards `[MQTT-3.3.2-14]`.
#[inline]
pub(super) fn check_response_topic(response_topic: Option<&str>) -> Result<(), DecodeError> {
    match response_topic.map(topic::check_name) {
        Some(Err(_)) => Err(DecodeError::Protocol("a response topic is not a topic name")),
        _ => Ok(()),
    }
}

pub(super) fn check_payload_format(payload_is_utf8: Option<bool>, payload: &[u8]) -> Result<(), DecodeError> {
    match payload_is_utf8 {
        Some(true) if core::str::from_utf8(payload).is_err() => Err(DecodeError::PayloadFormat),
        _ => Ok(()),
    }
}
