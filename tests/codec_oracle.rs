//! The MQTT codec against another implementation of the same specifications, mqtt-protocol-core: on valid packets
//! both must say the same, byte for byte; on broken ones they must agree on the verdict and on the content, except
//! where a clause listed here says that ours is right.

#![allow(missing_docs, reason = "a test")]

#[allow(dead_code, reason = "the fuzz targets use the rest of it")]
mod oracle;
mod packets;

use kittiwake::wire::mqtt::*;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder};
use oracle::{LAXER, Laxer, STRICTER, Stricter, V5, compare, oracle};
use packets::with_packet;
use proptest::prelude::*;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

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
