//! The MQTT codec against another implementation of the same specifications, mqtt-protocol-core: on valid packets
//! both must say the same, byte for byte; on broken ones they must agree on the verdict and on the content, except
//! where a clause listed here says that ours is right.

#![allow(missing_docs, reason = "a test")]

mod packets;

use kittiwake::wire::mqtt::*;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder};
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
        (Ok(ours), Err(_)) if LAXER.iter().any(|known| (known.is_it)(&ours)) => Ok(()),
        (ours, theirs) => Err(format!("{frame:x?}\n ours: {ours:?}\n theirs: {theirs:x?}")),
    }
}

/// What ours takes and the oracle refuses.
struct Laxer {
    clause: &'static str,
    is_it: fn(&Packet<'_>) -> bool,
    example: &'static [u8],
}

/// Every such difference, with what allows it and a frame that shows it.
const LAXER: &[Laxer] = &[
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
    for Laxer { clause, is_it, example } in LAXER {
        let ours = decode(V5, example).expect(clause);
        assert!(is_it(&ours), "{clause}: {ours:?}");
        assert!(oracle(V5, example).is_err(), "{clause}: the oracle takes {example:x?} as well");
    }
}

/// Every property there is, with a value of its type that `value` decides on.
fn property(id: u8, value: u8) -> Vec<u8> {
    const IDS: [u8; 28] = [
        0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1C, 0x1F, 0x21,
        0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x7E,
    ];
    let id = IDS[usize::from(id) % IDS.len()];
    let text = match value % 4 {
        0 => &b"\0\0"[..],
        1 => b"\0\x01a",
        2 => b"\0\x02\xC3\xA4",
        _ => b"\0\x03a/b",
    };
    let number = [0, 0, 0, value & 3];
    let value: Vec<u8> = match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => vec![value & 3],
        0x02 | 0x11 | 0x18 | 0x27 => number.to_vec(),
        0x13 | 0x21 | 0x22 | 0x23 => number[2..].to_vec(),
        0x0B if value & 1 == 0 => vec![value >> 1],
        0x0B => vec![value | 0x80, value >> 4],
        0x26 => [text, text].concat(),
        _ => text.to_vec(),
    };
    [&[id][..], &value].concat()
}

/// A packet of each type and direction of version 5, with this property section and otherwise nothing wrong.
fn around(kind: u8, section: &[u8]) -> Vec<u8> {
    let (length, bytes) = varint::encode(u32::try_from(section.len()).expect("short"));
    let section = [&length[..bytes], section].concat();
    let (first, before, after): (u8, &[u8], &[u8]) = match kind % 17 {
        0 => (0x10, b"\0\x04MQTT\x05\x02\0\0", b"\0\x01c"),
        // As the will's.
        1 => (0x10, b"\0\x04MQTT\x05\x06\0\0\0\0\x01c", b"\0\x01w\0\0"),
        2 => (0x20, &[0, 0], b""),
        3 => (0x20, &[0, 0x87], b""),
        4 => (0x30, b"\0\x01a", b"x"),
        5 => (0x30, b"\0\0", b"x"),
        6 => (0x3B, b"\0\x01a\0\x01", b""),
        7 => (0x40, &[0, 1, 0x10], b""),
        8 => (0x50, &[0, 1, 0], b""),
        9 => (0x62, &[0, 1, 0x92], b""),
        10 => (0x70, &[0, 1, 0], b""),
        11 => (0x82, &[0, 1], b"\0\x01a\x2D"),
        12 => (0x90, &[0, 1], &[0, 1, 2, 0x97]),
        13 => (0xA2, &[0, 1], b"\0\x01a"),
        14 => (0xB0, &[0, 1], &[0, 0x11]),
        15 => (0xE0, &[0x98], b""),
        _ => (0xF0, &[0x18], b""),
    };
    reframe(first, &[before, &section, after].concat())
}

/// The frames that ours cuts from a stream, and how it ends.
fn ours_cut(bytes: &[u8], max: usize) -> (Vec<Vec<u8>>, Option<DecodeError>) {
    let (mut frames, mut left) = (Vec::new(), bytes);
    loop {
        match frame_len(left, max) {
            Ok(FrameLen::Known { header_bytes, total_bytes }) if total_bytes <= left.len() => {
                frames.push([&left[..1], &left[header_bytes..total_bytes]].concat());
                left = &left[total_bytes..];
            }
            Ok(_) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// The oracle's, fed in pieces.
fn oracles_cut(bytes: &[u8], max: usize, piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut frames = Vec::new();
    let mut builder = PacketBuilder::with_maximum_packet_size(u32::try_from(max).expect("small"));
    for piece in bytes.chunks(piece) {
        let mut cursor = Cursor::new(piece);
        loop {
            match builder.feed(&mut cursor) {
                PacketBuildResult::Complete(raw) => {
                    frames.push([&[raw.packet_type() << 4 | raw.flags()], raw.data_as_slice()].concat());
                }
                PacketBuildResult::Incomplete => break,
                PacketBuildResult::Error(_) => return (frames, true),
            }
        }
    }
    (frames, false)
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
    fn both_judge_any_properties_in_any_packet_alike(
        kind: u8,
        drawn in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..5),
    ) {
        let section: Vec<u8> = drawn.iter().flat_map(|&(id, value)| property(id, value)).collect();
        if let Err(difference) = compare(V5, &around(kind, &section)) {
            panic!("{difference}");
        }
    }

    #[test]
    fn both_cut_a_stream_into_the_same_frames(
        packets in proptest::collection::vec(entropy(), 0..4),
        tail in proptest::collection::vec(any::<u8>(), 0..6),
        piece in 1_usize..40,
        max in 2_usize..400,
        v5: bool,
    ) {
        let version = VERSIONS[usize::from(v5)];
        let mut bytes: Vec<u8> = packets.iter().flat_map(|entropy| encoded(version, entropy)).collect();
        bytes.extend_from_slice(&tail);
        let (ours, error) = ours_cut(&bytes, max);
        let (theirs, failed) = oracles_cut(&bytes, max, piece);
        prop_assert_eq!(&theirs[..ours.len()], &ours[..]);
        match error {
            None => prop_assert!(!failed && theirs.len() == ours.len()),
            Some(DecodeError::TooLarge) => prop_assert!(failed && theirs.len() == ours.len()),
            // Ours looks at the first byte and at the length's form as soon as they are there ([MQTT-2.1.3-1],
            // [MQTT-1.5.5-1]); the oracle looks at the one when it parses, and not at the other.
            Some(_) => {}
        }
    }

    #[test]
    fn both_judge_arbitrary_bodies_alike(first: u8, body in proptest::collection::vec(any::<u8>(), 0..32), v5: bool) {
        if let Err(difference) = compare(VERSIONS[usize::from(v5)], &reframe(first, &body)) {
            panic!("{difference}");
        }
    }
}
