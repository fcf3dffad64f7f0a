//! The codecs. A PUBLISH is 200 bytes long.

use super::{Case, Make};
use kittiwake::base::ids::Qos;
use kittiwake::base::transform::Passage;
use kittiwake::wire::mqtt::properties::PublishProperties;
use kittiwake::wire::mqtt::{
    Ack, AckKind, Connect, Encode, Filter, Filters, PacketId, PingReq, Publish, Subscribe, Version, decode,
};
use kittiwake::wire::websocket::{HEAD_BYTES_MAX, Opcode, Reader, Role, Rules, apply_mask, decode_head, encode_head};
use std::hint::black_box;

pub const CASES: &[Make] = &[
    || decoding("mqtt/decode PUBLISH, 3.1.1, QoS 0", Version::V311, &publish(Qos::AtMostOnce, &[0; 178])),
    || decoding("mqtt/decode PUBLISH, 3.1.1, QoS 1", Version::V311, &publish(Qos::AtLeastOnce, &[0; 176])),
    || decoding("mqtt/decode PUBLISH, 5, QoS 0", Version::V5, &publish(Qos::AtMostOnce, &[0; 177])),
    || decoding("mqtt/decode PUBLISH, 5, QoS 1", Version::V5, &publish(Qos::AtLeastOnce, &[0; 175])),
    || decoding("mqtt/decode PUBLISH, 5, QoS 1, 3 properties", Version::V5, &with_properties()),
    || decoding("mqtt/decode PUBACK, 3.1.1", Version::V311, &Ack::success(AckKind::PubAck, packet_id())),
    || decoding("mqtt/decode PUBACK, 5", Version::V5, &Ack::success(AckKind::PubAck, packet_id())),
    || decoding("mqtt/decode PINGREQ", Version::V311, &PingReq),
    || decoding("mqtt/decode CONNECT, 5", Version::V5, &connect()),
    decode_subscribe,
    || encoding("mqtt/encode PUBLISH head, 3.1.1, QoS 0", Version::V311, Qos::AtMostOnce),
    || encoding("mqtt/encode PUBLISH head, 5, QoS 1", Version::V5, Qos::AtLeastOnce),
    patch,
    read_masked,
    unmask,
    websocket_head,
];

const BATCH: u32 = 64;
const TOPIC: &str = "devices/42/state";

fn packet_id() -> PacketId {
    PacketId::new(4_711).expect("not 0")
}

fn publish(qos: Qos, payload: &[u8]) -> Publish<'_> {
    let packet_id = (qos != Qos::AtMostOnce).then(packet_id);
    let properties = PublishProperties::default();
    Publish { dup: false, qos, retain: false, topic: TOPIC, packet_id, properties, payload }
}

fn with_properties() -> Publish<'static> {
    let mut publish = publish(Qos::AtLeastOnce, &[0; 140]);
    publish.properties.message_expiry_seconds = Some(3_600);
    publish.properties.content_type = Some("application/json");
    publish.properties.payload_is_utf8 = Some(true);
    publish
}

fn connect() -> Connect<'static> {
    let mut connect = Connect::new(Version::V5, "device-0123456789abc");
    connect.user_name = Some("device-0123456789abc");
    connect.properties.session_expiry_seconds = Some(3_600);
    connect
}

fn frame_of(version: Version, packet: &impl Encode) -> Vec<u8> {
    let mut frame = Vec::new();
    packet.encode_to(version, &mut frame);
    frame
}

fn decoding(name: &'static str, version: Version, packet: &impl Encode) -> Case {
    let frame = frame_of(version, packet);
    Case::plain(name, BATCH, move || {
        for _ in 0..BATCH {
            // By reference, as a caller looks at it: a packet is moved nowhere.
            let packet = decode(version, black_box(&frame));
            assert!(black_box(&packet).is_ok(), "it was encoded by us");
        }
    })
}

fn decode_subscribe() -> Case {
    let filters = [Filter::new("$inbox/#", Qos::AtLeastOnce), Filter::new("rooms/+/state", Qos::AtMostOnce)];
    let filters = Filters::borrowed(&filters);
    let subscribe = Subscribe { packet_id: packet_id(), properties: Default::default(), filters };
    decoding("mqtt/decode SUBSCRIBE, 2 filters", Version::V311, &subscribe)
}

/// Once for each flavour of a message.
fn encoding(name: &'static str, version: Version, qos: Qos) -> Case {
    let mut block = vec![0; 512];
    Case::plain(name, BATCH, move || {
        for _ in 0..BATCH {
            let publish = black_box(publish(qos, &[0; 176]));
            black_box(publish.encode_head(version, black_box(&mut block)));
        }
    })
}

/// Once for each subscriber: the copy of the frame, made that connection's.
fn patch() -> Case {
    let mut frame = vec![0; 256];
    let publish = publish(Qos::AtLeastOnce, &[0; 176]);
    let layout = publish.encode_head(Version::V311, &mut frame);
    let mut block = vec![0; 65_536];
    Case::plain("mqtt/copy and patch PUBLISH, 200 bytes", BATCH, move || {
        let mut at = 0;
        for _ in 0..BATCH {
            let copy = &mut block[at..at + layout.total_bytes];
            copy.copy_from_slice(&frame[..layout.total_bytes]);
            layout.patch(copy, Some(black_box(packet_id())), false, false);
            at += layout.total_bytes;
        }
        black_box(&mut block);
    })
}

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const RULES: Rules = Rules { role: Role::Server, text: false, frame_bytes_max: 1 << 20, message_bytes_max: None };

/// A turn's receive of small frames, as a client's heartbeat and acknowledgements are.
fn read_masked() -> Case {
    const PAYLOAD: usize = 200;
    let mut head = [0; HEAD_BYTES_MAX];
    let bytes = encode_head(true, Opcode::Binary, Some(KEY), PAYLOAD as u64, &mut head);
    let mut received = Vec::new();
    for _ in 0..BATCH {
        received.extend_from_slice(&head[..bytes]);
        received.extend_from_slice(&[0x55; PAYLOAD]);
    }
    let mut block = received.clone();
    let mut reader = Reader::default();
    Case::plain("websocket/read masked frame, 200 bytes", BATCH, move || {
        block.copy_from_slice(&received);
        let mut at = Passage::default();
        for _ in 0..BATCH {
            let event = reader.read(&mut block, &mut at, &RULES).expect("the frames are ours");
            black_box(event);
        }
        assert_eq!(at.write, PAYLOAD * BATCH as usize);
    })
}

fn unmask() -> Case {
    const KIBIBYTES: u32 = 16;
    let mut piece = vec![0x55; KIBIBYTES as usize * 1_024];
    Case::plain("websocket/unmask 1 KiB", KIBIBYTES, move || {
        black_box(apply_mask(black_box(&mut piece), KEY));
    })
}

fn websocket_head() -> Case {
    let mut head = [0; HEAD_BYTES_MAX];
    Case::plain("websocket/encode and decode head", BATCH, move || {
        for payload in 0..u64::from(BATCH) {
            let bytes = encode_head(true, Opcode::Binary, None, black_box(payload * 8), &mut head);
            black_box(decode_head(&head[..bytes]).is_ok());
        }
    })
}
