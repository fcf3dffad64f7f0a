//! What is encoded is decoded again, and no bytes make the decoder panic.

#![allow(missing_docs, reason = "a test")]

mod packets;

use kittiwake::limits::PACKET_BYTES_MAX;
use kittiwake::wire::mqtt::*;
use packets::with_packet;
use proptest::prelude::*;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

fn entropy() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..120)
}

/// What was decoded can be gone through, and written again in its own version.
fn walk(decoded_as: Version, packet: Packet<'_>) {
    assert!(!format!("{packet:?}").is_empty());
    let version = if let Packet::Connect(connect) = packet { connect.version } else { decoded_as };
    let mut again = Vec::new();
    packet.encode_to(version, &mut again);
    assert_eq!(decode(version, &again), Ok(packet));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_packet_survives_and_no_prefix_of_it_is_one(entropy in entropy(), v5: bool) {
        let version = VERSIONS[usize::from(v5)];
        with_packet(version, &entropy, |packet| {
            let mut frame = Vec::new();
            packet.encode_to(version, &mut frame);
            assert_eq!(frame.len(), packet.encoded_len(version));
            assert_eq!(decode(version, &frame), Ok(packet));
            for end in 0..frame.len() {
                match frame_len(&frame[..end], PACKET_BYTES_MAX) {
                    Ok(FrameLen::NeedMore) => assert!(end < 5),
                    Ok(FrameLen::Known { total_bytes, .. }) => assert_eq!(total_bytes, frame.len()),
                    Err(error) => panic!("a prefix is refused: {error}"),
                }
                assert!(decode(version, &frame[..end]).is_err());
            }
        });
    }

    #[test]
    fn bytes_behind_a_frame_are_not_looked_at(entropy in entropy(), behind in entropy(), v5: bool) {
        let version = VERSIONS[usize::from(v5)];
        with_packet(version, &entropy, |packet| {
            let mut bytes = Vec::new();
            packet.encode_to(version, &mut bytes);
            let whole = bytes.len();
            bytes.extend_from_slice(&behind);
            let Ok(FrameLen::Known { total_bytes, .. }) = frame_len(&bytes, PACKET_BYTES_MAX) else {
                panic!("the frame is whole");
            };
            assert_eq!(total_bytes, whole);
            assert_eq!(decode(version, &bytes[..total_bytes]), Ok(packet));
        });
    }

    #[test]
    fn a_mutated_frame_never_panics(
        entropy in entropy(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        v5: bool,
        other: bool,
    ) {
        let version = VERSIONS[usize::from(v5)];
        let mut frame = with_packet(version, &entropy, |packet| {
            let mut frame = Vec::new();
            packet.encode_to(version, &mut frame);
            frame
        });
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        let _ = frame_len(&frame, PACKET_BYTES_MAX);
        let version = VERSIONS[usize::from(other)];
        if let Ok(packet) = decode(version, &frame) {
            walk(version, packet);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(first: u8, body in proptest::collection::vec(any::<u8>(), 0..64), v5: bool) {
        let mut frame = vec![first, u8::try_from(body.len()).expect("short")];
        frame.extend_from_slice(&body);
        let _ = frame_len(&body, PACKET_BYTES_MAX);
        let version = VERSIONS[usize::from(v5)];
        let _ = decode(version, &body);
        if let Ok(packet) = decode(version, &frame) {
            walk(version, packet);
        }
    }

    #[test]
    fn a_head_and_a_payload_make_the_frame_and_its_copies_can_be_patched(entropy in entropy(), v5: bool, id: PacketId) {
        let version = VERSIONS[usize::from(v5)];
        let mut entropy = entropy;
        entropy.insert(0, 2);
        with_packet(version, &entropy, |packet| {
            let Packet::Publish(publish) = packet else { panic!("2 draws a PUBLISH") };
            let mut whole = Vec::new();
            publish.encode_to(version, &mut whole);
            let mut head = vec![0; publish.head_len(version)];
            let layout = publish.encode_head(version, &mut head);
            assert_eq!((layout.head_bytes, layout.total_bytes), (head.len(), whole.len()));
            assert_eq!([&head, publish.payload].concat(), whole);

            let mut copy = publish;
            copy.packet_id = publish.packet_id.map(|_| id);
            copy.dup = publish.packet_id.is_some();
            copy.retain = !publish.retain;
            copy.properties.message_expiry_seconds = publish.properties.message_expiry_seconds.map(|_| 7);
            layout.patch(&mut whole, copy.packet_id, copy.dup, copy.retain);
            layout.patch_message_expiry(&mut whole, 7);
            assert_eq!(decode(version, &whole), Ok(Packet::Publish(copy)));
        });
    }
}
