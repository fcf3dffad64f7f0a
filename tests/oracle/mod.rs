//! The other implementation's reading of frames, and every difference between it and ours that is justified.

use kittiwake::wire::mqtt::*;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use std::sync::Arc;

/// The oracle's reading of a frame, written by it again.
pub fn oracle(version: Version, frame: &[u8]) -> Result<Vec<u8>, MqttError> {
    fn again<P: GenericPacketTrait>(body: &[u8], parsed: Result<(P, usize), MqttError>) -> Result<Vec<u8>, MqttError> {
        let (packet, used) = parsed?;
        // Its parsers leave what is behind the last field to their caller.
        if used == body.len() { Ok(packet.to_continuous_buffer()) } else { Err(MqttError::MalformedPacket) }
    }
    let Ok(FrameLen::Known { header_bytes, total_bytes }) = frame_len(frame, usize::MAX) else {
        return Err(MqttError::MalformedPacket);
    };
    assert_eq!(total_bytes, frame.len(), "the test hands whole frames over");
    let (first, body) = (frame[0], &frame[header_bytes..]);
    let version = match first >> 4 {
        1 if body.get(6) == Some(&4) => Version::V311,
        1 => Version::V5,
        _ => version,
    };
    match (version, first >> 4) {
        (Version::V311, 1) => again(body, v3_1_1::Connect::parse(body)),
        (Version::V311, 2) => again(body, v3_1_1::Connack::parse(body)),
        (Version::V311, 3) => again(body, v3_1_1::Publish::parse(first & 0x0F, Arc::from(body))),
        (Version::V311, 4) => again(body, v3_1_1::Puback::parse(body)),
        (Version::V311, 5) => again(body, v3_1_1::Pubrec::parse(body)),
        (Version::V311, 6) => again(body, v3_1_1::Pubrel::parse(body)),
        (Version::V311, 7) => again(body, v3_1_1::Pubcomp::parse(body)),
        (Version::V311, 8) => again(body, v3_1_1::Subscribe::parse(body)),
        (Version::V311, 9) => again(body, v3_1_1::Suback::parse(body)),
        (Version::V311, 10) => again(body, v3_1_1::Unsubscribe::parse(body)),
        (Version::V311, 11) => again(body, v3_1_1::Unsuback::parse(body)),
        (Version::V311, 12) => again(body, v3_1_1::Pingreq::parse(body)),
        (Version::V311, 13) => again(body, v3_1_1::Pingresp::parse(body)),
        (Version::V311, 14) => again(body, v3_1_1::Disconnect::parse(body)),
        (Version::V5, 1) => again(body, v5_0::Connect::parse(body)),
        (Version::V5, 2) => again(body, v5_0::Connack::parse(body)),
        (Version::V5, 3) => again(body, v5_0::Publish::parse(first & 0x0F, Arc::from(body))),
        (Version::V5, 4) => again(body, v5_0::Puback::parse(body)),
        (Version::V5, 5) => again(body, v5_0::Pubrec::parse(body)),
        (Version::V5, 6) => again(body, v5_0::Pubrel::parse(body)),
        (Version::V5, 7) => again(body, v5_0::Pubcomp::parse(body)),
        (Version::V5, 8) => again(body, v5_0::Subscribe::parse(body)),
        (Version::V5, 9) => again(body, v5_0::Suback::parse(body)),
        (Version::V5, 10) => again(body, v5_0::Unsubscribe::parse(body)),
        (Version::V5, 11) => again(body, v5_0::Unsuback::parse(body)),
        (Version::V5, 12) => again(body, v5_0::Pingreq::parse(body)),
        (Version::V5, 13) => again(body, v5_0::Pingresp::parse(body)),
        (Version::V5, 14) => again(body, v5_0::Disconnect::parse(body)),
        (Version::V5, 15) => again(body, v5_0::Auth::parse(body)),
        _ => Err(MqttError::MalformedPacket),
    }
}

/// What ours refuses and the oracle takes.
pub struct Stricter {
    pub text: &'static str,
    pub clause: &'static str,
    pub version: Version,
    pub example: &'static [u8],
}

const fn stricter(text: &'static str, clause: &'static str, version: Version, example: &'static [u8]) -> Stricter {
    Stricter { text, clause, version, example }
}

pub const V311: Version = Version::V311;
pub const V5: Version = Version::V5;

/// Every such difference, with the clause that ours keeps and a frame that shows it.
pub const STRICTER: &[Stricter] = &[
    stricter("a string has U+0000", "MQTT-1.5.4-2", V5, b"\x30\x04\x00\x01\0\0"),
    stricter("the reserved CONNECT flag is set", "MQTT-3.1.2-3", V5, b"\x10\x0D\x00\x04MQTT\x05\x03\0\0\0\0\0"),
    stricter(
        "will QoS or will retain without a will",
        "MQTT-3.1.2-11, MQTT-3.1.2-13",
        V311,
        b"\x10\x0C\x00\x04MQTT\x04\x0A\0\0\0\0",
    ),
    stricter("will QoS 3", "MQTT-3.1.2-14", V311, b"\x10\x11\x00\x04MQTT\x04\x1E\0\0\0\0\0\x01a\0\0"),
    stricter(
        "an empty client identifier without clean session",
        "MQTT-3.1.3-8 of 3.1.1",
        V311,
        b"\x10\x0C\x00\x04MQTT\x04\x00\0\0\0\0",
    ),
    stricter("reserved CONNACK flags", "MQTT-3.2.2-1", V5, &[0x20, 3, 2, 0, 0]),
    stricter("a refused connection with a session", "MQTT-3.2.2-6", V5, &[0x20, 3, 1, 0x80, 0]),
    stricter("a topic name has a wildcard", "MQTT-3.3.2-2", V5, b"\x30\x04\x00\x01+\0"),
    stricter("a topic name is empty", "MQTT-4.7.3-1", V311, b"\x30\x02\0\0"),
    stricter("neither a topic name nor a topic alias", "MQTT 5 3.3.2.1", V5, b"\x30\x03\0\0\0"),
    stricter("DUP with QoS 0", "MQTT-3.3.1-2", V311, b"\x38\x03\x00\x01a"),
    stricter("packet identifier 0", "MQTT-2.2.1-3", V5, b"\x32\x06\x00\x01a\0\0\0"),
    stricter("bytes are left after the last field", "3.1.1 3.4: the remaining length is 2", V311, &[0x40, 3, 0, 1, 0]),
    stricter("a topic filter is empty", "MQTT-4.7.3-1", V5, b"\x82\x06\x00\x01\0\0\0\0"),
    stricter(
        "a wildcard is not alone in its level, or # is not the last one",
        "MQTT-4.7.1-1, MQTT-4.7.1-2",
        V5,
        b"\x82\x08\x00\x01\0\0\x02a#\0",
    ),
    stricter("reserved subscription options", "MQTT-3-8.3-4 of 3.1.1", V311, b"\x82\x06\x00\x01\0\x01a\x04"),
    stricter("No Local on a shared subscription", "MQTT-3.8.3-4", V5, b"\x82\x10\x00\x01\0\0\x0A$share/g/a\x04"),
    stricter("a variable byte integer is not in its shortest form", "MQTT-1.5.5-1", V5, b"\x30\x05\x00\x01a\x80\0"),
    stricter(
        "the packet ends inside a field",
        "MQTT 5 3.3.2.3.1: a property length is there",
        V5,
        &[0x30, 3, 0, 1, b'a'],
    ),
    stricter(
        "a property is there twice",
        "MQTT 5 3.8.2.1.2: a subscription identifier of SUBSCRIBE",
        V5,
        b"\x82\x0B\x00\x01\x04\x0B\x01\x0B\x02\0\x01a\0",
    ),
    stricter("a response topic is not a topic name", "MQTT-3.3.2-14", V5, b"\x30\x08\x00\x01a\x04\x08\0\x01+"),
    stricter(
        "authentication data without a method",
        "MQTT 5 3.1.2.11.10",
        V5,
        b"\x10\x10\x00\x04MQTT\x05\x02\0\0\x03\x16\0\0\0\0",
    ),
    stricter("AUTH without an authentication method", "MQTT 5 3.15.2.2.2", V5, &[0xF0, 2, 0, 0]),
];

/// Compares the two on one whole frame; says what they disagree in.
pub fn compare(version: Version, frame: &[u8]) -> Result<(), String> {
    match (decode(version, frame), oracle(version, frame)) {
        (Err(_), Err(_)) => Ok(()),
        (Ok(ours), Ok(theirs)) => match decode(version, &theirs) {
            Ok(packet) if packet == ours => Ok(()),
            other => Err(format!("{frame:x?}\n ours: {ours:?}\n theirs: {other:?}\n {theirs:x?}")),
        },
        (Err(error), Ok(_)) if STRICTER.iter().any(|known| known.text == error.text()) => Ok(()),
        (Ok(ours), Err(_)) if LAXER.iter().any(|known| (known.is_it)(&ours)) => Ok(()),
        (ours, theirs) => Err(format!("{frame:x?}\n ours: {ours:?}\n theirs: {theirs:x?}")),
    }
}

/// What ours takes and the oracle refuses.
pub struct Laxer {
    pub clause: &'static str,
    pub is_it: fn(&Packet<'_>) -> bool,
    pub example: &'static [u8],
}

/// Every such difference, with what allows it and a frame that shows it.
pub const LAXER: &[Laxer] = &[
    Laxer {
        clause: "MQTT 5 3.1.2.9: a password without a user name",
        is_it: |packet| matches!(packet, Packet::Connect(connect) if connect.user_name.is_none() && connect.password.is_some()),
        example: b"\x10\x0F\x00\x04MQTT\x05\x42\0\0\0\0\0\0\0",
    },
    Laxer {
        clause: "MQTT 5 2.4: table 2-6 gives 0x8C to DISCONNECT",
        is_it: |packet| matches!(packet, Packet::Disconnect(goodbye) if goodbye.reason == Reason::BadAuthenticationMethod),
        example: &[0xE0, 1, 0x8C],
    },
];

/// Both on arbitrary bytes: the first says the version, the others are a stream of frames.
pub fn judge(bytes: &[u8]) {
    let Some((&first, mut left)) = bytes.split_first() else { return };
    let version = if first & 1 == 0 { V311 } else { V5 };
    while let Ok(FrameLen::Known { total_bytes, .. }) = frame_len(left, 1 << 20) {
        let Some((frame, rest)) = left.split_at_checked(total_bytes) else { return };
        if let Err(difference) = compare(version, frame) {
            panic!("{difference}");
        }
        left = rest;
    }
}
