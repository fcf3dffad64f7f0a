//! The MQTT codec against another implementation of the same specifications, mqtt-protocol-core: on valid packets
//! both must say the same, byte for byte; on broken ones they must agree on the verdict and on the content, except
//! where a clause listed here says that ours is right.

#![allow(missing_docs, reason = "a test")]

mod packets;

use kittiwake::wire::mqtt::*;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use packets::with_packet;
use proptest::prelude::*;
use std::sync::Arc;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// The oracle's reading of a frame, written by it again.
fn oracle(version: Version, frame: &[u8]) -> Result<Vec<u8>, MqttError> {
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
struct Stricter {
    text: &'static str,
    clause: &'static str,
    version: Version,
    example: &'static [u8],
}

const fn stricter(text: &'static str, clause: &'static str, version: Version, example: &'static [u8]) -> Stricter {
    Stricter { text, clause, version, example }
}

const V311: Version = Version::V311;
const V5: Version = Version::V5;

/// Every such difference, with the clause that ours keeps and a frame that shows it.
const STRICTER: &[Stricter] = &[
    stricter("a string has U+0000", "MQTT-1.5.4-2", V5, b"\x30\x04\x00\x01\0\0"),
    stricter("the reserved CONNECT flag is set", "MQTT-3.1.2-3", V5, b"\x10\x0D\x00\x04MQTT\x05\x03\0\0\0\0\0"),
    stricter(
        "will QoS or will retain without a will",
        "MQTT-3.1.2-11, MQTT-3.1.2-13",
        V311,
        b"\x10\x0C\x00\x04MQTT\x04\x0A\0\0\0\0",
    ),
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
    stricter("a response topic is not a topic name", "MQTT-3.3.2-14", V5, b"\x30\x08\x00\x01a\x04\x08\0\x01+"),
    stricter(
        "authentication data without a method",
        "MQTT 5 3.1.2.11.10",
        V5,
        b"\x10\x10\x00\x04MQTT\x05\x02\0\0\x03\x16\0\0\0\0",
    ),
];

/// Compares the two on one whole frame; says what they disagree in.
fn compare(version: Version, frame: &[u8]) -> Result<(), String> {
    match (decode(version, frame), oracle(version, frame)) {
        (Err(_), Err(_)) => Ok(()),
        (Ok(ours), Ok(theirs)) => match decode(version, &theirs) {
            Ok(packet) if packet == ours => Ok(()),
            other => Err(format!("{frame:x?}\n ours: {ours:?}\n theirs: {other:?}\n {theirs:x?}")),
        },
        (Err(error), Ok(_)) if STRICTER.iter().any(|known| known.text == error.text()) => Ok(()),
        (Ok(ours), Err(_)) if is_laxer(&ours) => Ok(()),
        (ours, theirs) => Err(format!("{frame:x?}\n ours: {ours:?}\n theirs: {theirs:x?}")),
    }
}

/// What ours takes and the oracle refuses: a password without a user name, which version 5 allows (§3.1.2.9), and
/// 0x8C in a DISCONNECT, which table 2-6 allows.
fn is_laxer(ours: &Packet<'_>) -> bool {
    match ours {
        Packet::Connect(connect) => connect.user_name.is_none() && connect.password.is_some(),
        Packet::Disconnect(disconnect) => disconnect.reason == Reason::BadAuthenticationMethod,
        _ => false,
    }
}

fn entropy() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..120)
}

fn encoded(version: Version, entropy: &[u8]) -> Vec<u8> {
    with_packet(version, entropy, |packet| {
        let mut frame = Vec::new();
        packet.encode_to(version, &mut frame);
        frame
    })
}

/// Sets the remaining length to what is there, so that a mutation reaches the fields.
fn reframe(first: u8, body: &[u8]) -> Vec<u8> {
    let (length, bytes) = varint::encode(u32::try_from(body.len()).expect("short"));
    [&[first], &length[..bytes], body].concat()
}

#[test]
fn every_listed_difference_is_one() {
    for Stricter { text, clause, version, example } in STRICTER {
        assert_eq!(decode(*version, example).map_err(DecodeError::text), Err(*text), "{clause}");
        assert!(oracle(*version, example).is_ok(), "{clause}: the oracle refuses {example:x?} as well");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn both_read_and_write_valid_packets_alike(entropy in entropy(), v5: bool) {
        let version = VERSIONS[usize::from(v5)];
        let frame = encoded(version, &entropy);
        if let Err(difference) = compare(version, &frame) {
            panic!("{difference}");
        }
    }

    #[test]
    fn both_judge_mutated_packets_alike(
        entropy in entropy(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..4), 1..4),
        v5: bool,
    ) {
        let version = VERSIONS[usize::from(v5)];
        let frame = encoded(version, &entropy);
        let Ok(FrameLen::Known { header_bytes, .. }) = frame_len(&frame, usize::MAX) else {
            panic!("what was encoded is a frame");
        };
        let mut body = frame[header_bytes..].to_vec();
        for (at, byte, change) in changes {
            let at = at.index(body.len() + 1);
            match change {
                0 => body.truncate(at),
                1 => body.insert(at, byte),
                _ if at < body.len() => body[at] = if change == 2 { byte } else { byte & 7 },
                _ => {}
            }
        }
        if let Err(difference) = compare(version, &reframe(frame[0], &body)) {
            panic!("{difference}");
        }
    }

    #[test]
    fn both_judge_arbitrary_bodies_alike(first: u8, body in proptest::collection::vec(any::<u8>(), 0..32), v5: bool) {
        if let Err(difference) = compare(VERSIONS[usize::from(v5)], &reframe(first, &body)) {
            panic!("{difference}");
        }
    }
}
