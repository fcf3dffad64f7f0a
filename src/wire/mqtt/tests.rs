//! Bytes of the specification's own examples, both ways, and what is wrong with wrong ones.

use super::properties::*;
use super::suback::Reasons;
use super::*;
use crate::base::ids::Qos;

const V311: Version = Version::V311;
const V5: Version = Version::V5;

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("tests use packet identifiers above 0")
}

/// The packet's bytes are these, and these bytes are the packet.
#[track_caller]
fn both_ways(version: Version, packet: Packet<'_>, bytes: &[u8]) {
    let mut out = Vec::new();
    packet.encode_to(version, &mut out);
    assert_eq!(out, bytes, "encoded");
    assert_eq!(packet.encoded_len(version), bytes.len());
    assert_eq!(decode(version, bytes), Ok(packet), "decoded");
    for end in 0..bytes.len() {
        assert!(decode(version, &bytes[..end]).is_err(), "{end} bytes of the frame are not the frame");
    }
}

#[test]
fn mqtt3_3_1_connect_of_the_specification() {
    // Figure 3.6's variable header with a payload for its flags.
    let mut bytes = b"\x10\x28\x00\x04MQTT\x04\xCE\x00\x0A".to_vec();
    bytes.extend_from_slice(b"\x00\x02me\x00\x0bwill/status\x00\x03bye\x00\x04user\x00\x04pass".as_slice());
    bytes[1] = u8::try_from(bytes.len() - 2).expect("short");
    let mut connect = Connect::new(V311, "me");
    connect.keep_alive_seconds = 10;
    connect.user_name = Some("user");
    connect.password = Some(b"pass");
    let properties = WillProperties::default();
    connect.will =
        Some(Will { topic: "will/status", payload: b"bye", qos: Qos::AtLeastOnce, retain: false, properties });
    both_ways(V311, Packet::Connect(connect), &bytes);
}

#[test]
fn mqtt5_3_1_2_figure_3_6_connect_with_properties() {
    let bytes = b"\x10\x17\x00\x04MQTT\x05\xC2\x00\x0A\x05\x11\x00\x00\x00\x0A\x00\x00\x00\x01u\x00\x00";
    let mut bytes = bytes.to_vec();
    bytes[1] = u8::try_from(bytes.len() - 2).expect("short");
    let mut connect = Connect::new(V5, "");
    connect.keep_alive_seconds = 10;
    connect.properties.session_expiry_seconds = Some(10);
    connect.user_name = Some("u");
    connect.password = Some(b"");
    both_ways(V5, Packet::Connect(connect), &bytes);
}

#[test]
fn a_password_is_not_printed() {
    let mut connect = Connect::new(V5, "c");
    connect.password = Some(b"hunter2");
    assert!(!format!("{connect:?}").contains("hunter2"));
    assert!(!format!("{connect:?}").contains("104"));
}

#[test]
fn connack_of_both_versions() {
    let accepted = ConnAck { session_present: true, reason: Reason::Success, properties: ConnAckProperties::default() };
    both_ways(V311, Packet::ConnAck(accepted), &[0x20, 2, 1, 0]);
    both_ways(V5, Packet::ConnAck(accepted), &[0x20, 3, 1, 0, 0]);
    let refused = ConnAck::refused(Reason::UnsupportedProtocolVersion);
    both_ways(V311, Packet::ConnAck(refused), &[0x20, 2, 0, 1]);
    both_ways(V5, Packet::ConnAck(refused), &[0x20, 3, 0, 0x84, 0]);
}

#[test]
fn mqtt3_3_3_2_figure_3_11_publish() {
    let publish = Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "a/b",
        packet_id: Some(id(10)),
        properties: PublishProperties::default(),
        payload: b"hi",
    };
    both_ways(V311, Packet::Publish(publish), b"\x32\x09\x00\x03a/b\x00\x0Ahi");
    both_ways(V5, Packet::Publish(publish), b"\x32\x0A\x00\x03a/b\x00\x0A\x00hi");
}

#[test]
fn a_plain_puback_is_what_the_decoder_takes_for_one() {
    for (first, length) in (0..=255).flat_map(|first| [0, 1, 2, 3].map(|length| (first, length))) {
        for packet_id in [0, 1, 0x0102, u16::MAX] {
            let [high, low] = packet_id.to_be_bytes();
            for frame in [&[first, length, high, low][..], &[first, length, high, low, 0], &[first, length, high]] {
                for version in [Version::V311, Version::V5] {
                    let decoded = match decode(version, frame) {
                        Ok(Packet::Ack(ack)) if ack.kind == AckKind::PubAck && frame.len() == 4 => Some(ack.packet_id),
                        _ => None,
                    };
                    assert_eq!(plain_puback(frame), decoded, "{frame:?} in {version:?}");
                }
            }
        }
    }
}

#[test]
fn acknowledgements_are_as_short_as_they_may_be() {
    for (kind, first) in
        [(AckKind::PubAck, 0x40), (AckKind::PubRec, 0x50), (AckKind::PubRel, 0x62), (AckKind::PubComp, 0x70)]
    {
        let mut ack = Ack::success(kind, id(0x1234));
        both_ways(V311, Packet::Ack(ack), &[first, 2, 0x12, 0x34]);
        both_ways(V5, Packet::Ack(ack), &[first, 2, 0x12, 0x34]);
        assert_eq!(decode(V5, &[first, 3, 0x12, 0x34, 0]), Ok(Packet::Ack(ack)));
        assert_eq!(decode(V5, &[first, 4, 0x12, 0x34, 0, 0]), Ok(Packet::Ack(ack)));
        ack.properties.reason_string = Some("x");
        both_ways(V5, Packet::Ack(ack), &[first, 8, 0x12, 0x34, 0, 4, 0x1F, 0, 1, b'x']);
    }
    let ack = Ack { reason: Reason::QuotaExceeded, ..Ack::success(AckKind::PubAck, id(1)) };
    both_ways(V5, Packet::Ack(ack), &[0x40, 3, 0, 1, 0x97]);
    let ack = Ack { reason: Reason::PacketIdentifierNotFound, ..Ack::success(AckKind::PubComp, id(1)) };
    both_ways(V5, Packet::Ack(ack), &[0x70, 3, 0, 1, 0x92]);
}

#[test]
fn mqtt3_3_8_3_figure_3_23_subscribe_and_its_answer() {
    let filters = [Filter::new("a/b", Qos::AtLeastOnce), Filter::new("c/d", Qos::ExactlyOnce)];
    let filters = Filters::borrowed(&filters);
    let subscribe = Subscribe { packet_id: id(10), properties: SubscribeProperties::default(), filters };
    both_ways(V311, Packet::Subscribe(subscribe), b"\x82\x0E\x00\x0A\x00\x03a/b\x01\x00\x03c/d\x02");
    both_ways(V5, Packet::Subscribe(subscribe), b"\x82\x0F\x00\x0A\x00\x00\x03a/b\x01\x00\x03c/d\x02");
    let reasons = [Reason::Success, Reason::GrantedQos2, Reason::Unspecified];
    let reasons = Reasons::borrowed(&reasons);
    let suback = SubAck { packet_id: id(10), properties: AckProperties::default(), reasons };
    both_ways(V311, Packet::SubAck(suback), &[0x90, 5, 0, 10, 0, 2, 0x80]);
    both_ways(V5, Packet::SubAck(suback), &[0x90, 6, 0, 10, 0, 0, 2, 0x80]);
}

#[test]
fn subscription_options_of_version_5() {
    let filters = [Filter {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        ..Filter::new("#", Qos::AtLeastOnce)
    }];
    let filters = Filters::borrowed(&filters);
    let properties = SubscribeProperties { subscription_id: SubscriptionId::new(200), ..Default::default() };
    let subscribe = Subscribe { packet_id: id(1), properties, filters };
    both_ways(V5, Packet::Subscribe(subscribe), b"\x82\x0A\x00\x01\x03\x0B\xC8\x01\x00\x01#\x2D");
}

#[test]
fn unsubscribe_and_its_answer() {
    let filters = FilterNames::borrowed(&["a/b", "c/d"]);
    let unsubscribe = Unsubscribe { packet_id: id(10), properties: UnsubscribeProperties::default(), filters };
    both_ways(V311, Packet::Unsubscribe(unsubscribe), b"\xA2\x0C\x00\x0A\x00\x03a/b\x00\x03c/d");
    both_ways(V5, Packet::Unsubscribe(unsubscribe), b"\xA2\x0D\x00\x0A\x00\x00\x03a/b\x00\x03c/d");
    let none = UnsubAck { packet_id: id(10), properties: AckProperties::default(), reasons: Reasons::default() };
    both_ways(V311, Packet::UnsubAck(none), &[0xB0, 2, 0, 10]);
    let reasons = Reasons::borrowed(&[Reason::Success, Reason::NoSubscriptionExisted]);
    both_ways(V5, Packet::UnsubAck(UnsubAck { reasons, ..none }), &[0xB0, 5, 0, 10, 0, 0, 0x11]);
}

#[test]
fn heartbeats_disconnect_and_auth() {
    for version in [V311, V5] {
        both_ways(version, Packet::PingReq, &[0xC0, 0]);
        both_ways(version, Packet::PingResp, &[0xD0, 0]);
        both_ways(version, Packet::Disconnect(Disconnect::new(Reason::Success)), &[0xE0, 0]);
    }
    let mut disconnect = Disconnect::new(Reason::SessionTakenOver);
    both_ways(V5, Packet::Disconnect(disconnect), &[0xE0, 1, 0x8E]);
    disconnect.properties.session_expiry_seconds = Some(0);
    both_ways(V5, Packet::Disconnect(disconnect), &[0xE0, 7, 0x8E, 5, 0x11, 0, 0, 0, 0]);
    let mut auth = Auth { reason: Reason::Success, properties: AuthProperties::default() };
    both_ways(V5, Packet::Auth(auth), &[0xF0, 0]);
    auth.reason = Reason::ContinueAuthentication;
    auth.properties.authentication_method = Some("m");
    both_ways(V5, Packet::Auth(auth), &[0xF0, 6, 0x18, 4, 0x15, 0, 1, b'm']);
}

/// A frame of `first` and `body` with the right remaining length.
fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let (length, bytes) = varint::encode(u32::try_from(body.len()).expect("short"));
    [&[first], &length[..bytes], body].concat()
}

#[track_caller]
fn refused(version: Version, first: u8, body: &[u8], code: u8) {
    let frame = frame(first, body);
    let verdict = decode(version, &frame).map_err(|error| error.reason().code());
    assert_eq!(verdict, Err(code), "{frame:x?}");
}

#[test]
fn mqtt5_2_1_3_1_wrong_flag_bits_are_malformed_before_the_rest_has_come() {
    for first in 0..=u8::MAX {
        let right = match first >> 4 {
            0 => false,
            3 => first & 0b0110 != 0b0110,
            6 | 8 | 10 => first & 0x0F == 0b0010,
            _ => first & 0x0F == 0,
        };
        assert_eq!(frame_len(&[first], 1024) == Ok(FrameLen::NeedMore), right, "{first:#x}");
        assert_eq!(decode(V5, &[first, 0]).is_ok(), matches!(first, 0xC0 | 0xD0 | 0xE0 | 0xF0), "{first:#x}");
    }
}

#[test]
fn a_frame_is_as_long_as_is_accepted_and_not_longer() {
    let frame = frame(0x30, &[0; 200]);
    let total_bytes = frame.len();
    let known = Ok(FrameLen::Known { header_bytes: 3, total_bytes });
    for bytes in [&frame[..3], &frame] {
        assert_eq!(frame_len(bytes, total_bytes - 1), Err(DecodeError::TooLarge));
        assert_eq!(frame_len(bytes, total_bytes), known);
        assert_eq!(frame_len(bytes, total_bytes + 1), known);
    }
    assert_eq!(frame_len(&frame[..2], total_bytes), Ok(FrameLen::NeedMore));
    assert_eq!(frame_len(&[], 0), Ok(FrameLen::NeedMore));
}

#[test]
fn a_remaining_length_that_lies_is_malformed() {
    for bytes in [&[0x30, 0xFF, 0xFF, 0xFF, 0xFF][..], &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], &[0xC0, 0x80, 0x00]] {
        assert!(matches!(frame_len(bytes, usize::MAX), Err(DecodeError::Malformed(_))), "{bytes:x?}");
    }
    for bytes in [&[0xC0, 0x01][..], &[0xC0, 0x00, 0x00], &[0xC0], &[]] {
        assert!(matches!(decode(V5, bytes), Err(DecodeError::Malformed(_))), "{bytes:x?}");
    }
}

#[test]
fn a_connect_of_another_level_or_name_is_told_so() {
    let level = |body: &[u8]| decode(V5, &frame(0x10, body)).expect_err("not spoken here");
    for (body, expected) in [
        (&b"\x00\x06MQIsdp\x03\x02\0\0\0\0"[..], 3),
        (b"\x00\x04MQTT\x03\x02\0\0\0\0", 3),
        (b"\x00\x04MQTT\x06\x02\0\0\0\0", 6),
        (b"\x00\x04MQTT\x84\x02\0\0\0\0", 0x84),
    ] {
        assert_eq!(level(body), DecodeError::UnsupportedVersion { level: expected });
    }
    assert!(matches!(level(b"\x00\x04MQTX\x04\x02\0\0\0\0"), DecodeError::Malformed(_)));
}

#[test]
fn mqtt5_3_1_2_connect_flags_that_contradict_each_other_are_malformed() {
    let connect = |level: u8, flags: u8, rest: &[u8]| [b"\x00\x04MQTT", &[level, flags, 0, 0][..], rest].concat();
    for flags in [0x03, 0x0A, 0x12, 0x22, 0x1E] {
        refused(V5, 0x10, &connect(5, flags, b"\0\0\0\0\0\0\0\0"), 0x81);
        refused(V311, 0x10, &connect(4, flags, b"\0\0\0\x01t\0\0"), 0x81);
    }
    // A password alone is version 5's.
    refused(V311, 0x10, &connect(4, 0x42, b"\0\0\0\0"), 0x81);
    assert!(decode(V5, &frame(0x10, &connect(5, 0x42, b"\0\0\0\0\0"))).is_ok());
    // Fields that the flags promise, and bytes that they do not.
    refused(V311, 0x10, &connect(4, 0x82, b"\0\0"), 0x81);
    refused(V311, 0x10, &connect(4, 0x02, b"\0\0\0\0"), 0x81);
    // Will topics are topic names.
    refused(V311, 0x10, &connect(4, 0x06, b"\0\0\0\x01#\0\0"), 0x90);
    refused(V5, 0x10, &connect(5, 0x06, b"\0\0\0\0\0\x01#\0\0"), 0x90);
    refused(V5, 0x10, &connect(5, 0x06, b"\0\0\0\0\0\0\0\0"), 0x90);
    refused(V5, 0x10, &connect(5, 0x06, b"\0\0\0\x03\x23\0\x01\0\x01t\0\0"), 0x82);
}

#[test]
fn mqtt3_3_1_3_8_an_empty_client_identifier_needs_a_clean_session() {
    refused(V311, 0x10, b"\x00\x04MQTT\x04\x00\0\0\0\0", 0x85);
    assert!(decode(V311, &frame(0x10, b"\x00\x04MQTT\x04\x02\0\0\0\0")).is_ok());
    assert!(decode(V5, &frame(0x10, b"\x00\x04MQTT\x05\x00\0\0\0\0\0")).is_ok());
}

#[test]
fn mqtt5_3_3_publishes_that_are_refused() {
    refused(V5, 0x38, b"\x00\x01a\0", 0x81);
    refused(V5, 0x36, b"\x00\x01a\0\x01\0", 0x81);
    refused(V5, 0x32, b"\x00\x01a\0\0\0", 0x82);
    refused(V5, 0x30, b"\x00\x01#\0", 0x90);
    refused(V311, 0x30, b"\x00\x01+", 0x90);
    refused(V311, 0x30, b"\0\0", 0x90);
    refused(V5, 0x30, b"\0\0\0", 0x82);
    refused(V5, 0x30, b"\x00\x01a\x03\x23\0\0", 0x94);
    refused(V5, 0x30, b"\x00\x01a\x02\x0B\0", 0x82);
    refused(V5, 0x30, b"\x00\x01a\x04\x08\0\x01#", 0x82);
    refused(V5, 0x30, b"\x00\x01a\x03\x21\0\x01", 0x82);
    refused(V5, 0x30, b"\x00\x02\xC0\x80\0", 0x81);
    refused(V5, 0x30, b"\x00\x05a\0", 0x81);
    assert!(decode(V5, &frame(0x30, b"\0\0\x03\x23\0\x01")).is_ok());
}

#[test]
fn mqtt5_3_3_2_3_2_a_payload_is_checked_against_its_format_when_asked() {
    let check = |bytes: &[u8]| match decode(V5, &frame(0x30, bytes)) {
        Ok(Packet::Publish(publish)) => publish.check_payload_format(),
        other => panic!("not a PUBLISH: {other:?}"),
    };
    assert_eq!(check(b"\x00\x01a\x02\x01\x01ok"), Ok(()));
    assert_eq!(check(b"\x00\x01a\x02\x01\x01\xFF"), Err(DecodeError::PayloadFormat));
    assert_eq!(check(b"\x00\x01a\x02\x01\x00\xFF"), Ok(()));
    assert_eq!(check(b"\x00\x01a\x00\xFF"), Ok(()));
}

#[test]
fn mqtt5_3_8_subscribes_that_are_refused() {
    for (version, properties) in [(V311, &b""[..]), (V5, b"\0")] {
        let body = |id: &[u8], rest: &[u8]| [id, properties, rest].concat();
        refused(version, 0x82, &body(b"\0\x01", b""), 0x82);
        refused(version, 0x82, &body(b"\0\0", b"\0\x01a\0"), 0x82);
        refused(version, 0x82, &body(b"\0\x01", b"\0\x01a"), 0x81);
        refused(version, 0x82, &body(b"\0\x01", b"\0\x01a\x40"), 0x81);
        refused(version, 0x82, &body(b"\0\x01", b"\0\0\0"), 0x8F);
        refused(version, 0x82, &body(b"\0\x01", b"\0\x01a\0\0\x02a#\0"), 0x8F);
        refused(version, 0xA2, &body(b"\0\x01", b""), 0x82);
        refused(version, 0xA2, &body(b"\0\0", b"\0\x01a"), 0x82);
        refused(version, 0xA2, &body(b"\0\x01", b"\0\x02#/"), 0x8F);
    }
    refused(V311, 0x82, b"\0\x01\0\x01a\x03", 0x81);
    refused(V311, 0x82, b"\0\x01\0\x01a\x04", 0x81);
    refused(V5, 0x82, b"\0\x01\0\0\x01a\x03", 0x82);
    refused(V5, 0x82, b"\0\x01\0\0\x01a\x30", 0x82);
    refused(V5, 0x82, b"\0\x01\x02\x0B\0\0\x01a\0", 0x82);
    refused(V5, 0x82, b"\0\x01\0\0\x0A$share/g/a\x04", 0x82);
    refused(V5, 0x82, b"\0\x01\0\0\x08$share/g\0", 0x8F);
    assert!(decode(V311, &frame(0x82, b"\0\x01\0\x08$share/g\0")).is_ok());
}

#[test]
fn answers_that_are_refused() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        for version in [V311, V5] {
            refused(version, first, b"\0\0", 0x82);
            refused(version, first, b"\0", 0x81);
        }
        refused(V311, first, b"\0\x01\0", 0x81);
        refused(V5, first, b"\0\x01\x8E", 0x81);
        refused(V5, first, b"\0\x01\0\0\0", 0x81);
        refused(V5, first, b"\0\x01\0\x03\x23\0\x01", 0x82);
    }
    refused(V5, 0x40, b"\0\x01\x92", 0x81);
    refused(V5, 0x62, b"\0\x01\x97", 0x81);
    refused(V311, 0x20, &[0, 6], 0x81);
    refused(V311, 0x20, &[2, 0], 0x81);
    refused(V311, 0x20, &[1, 5], 0x82);
    refused(V5, 0x20, &[0, 0], 0x81);
    refused(V5, 0x20, &[0, 1, 0], 0x81);
    refused(V311, 0x90, &[0, 1, 3], 0x81);
    refused(V311, 0x90, &[0, 1, 0x87], 0x81);
    refused(V311, 0x90, &[0, 1], 0x82);
    refused(V5, 0x90, &[0, 1, 0, 0x11], 0x81);
    refused(V5, 0xB0, &[0, 1, 0], 0x82);
    refused(V311, 0xB0, &[0, 1, 0], 0x81);
}

#[test]
fn farewells_and_authentications_that_are_refused() {
    refused(V311, 0xE0, &[0], 0x81);
    refused(V5, 0xE0, &[0x01], 0x81);
    refused(V5, 0xE0, &[0, 3, 0x23, 0, 1], 0x82);
    refused(V311, 0xF0, &[], 0x81);
    refused(V5, 0xF0, &[0x18], 0x81);
    refused(V5, 0xF0, &[0x18, 0], 0x82);
    refused(V5, 0xF0, &[0x04, 4, 0x15, 0, 1, b'm'], 0x81);
    // Authentication data of a CONNECT goes with a method.
    refused(V5, 0x10, b"\x00\x04MQTT\x05\x02\0\0\x03\x16\0\0\0\0", 0x82);
}

#[test]
#[should_panic(expected = "a packet identifier goes with QoS above 0")]
fn a_publish_without_its_packet_identifier_is_not_encoded() {
    let properties = PublishProperties::default();
    let qos = Qos::AtLeastOnce;
    let publish = Publish { dup: false, qos, retain: false, topic: "a", packet_id: None, properties, payload: b"" };
    publish.encode(V311, &mut [0; 64]);
}

#[test]
fn mqtt5_4_7_3_3_a_name_of_65535_bytes_is_read_and_of_more_cannot_be_said() {
    // Two bytes say the length, so nobody can send more, and we do not try to.
    let longest = "a".repeat(text::STRING_BYTES_MAX);
    let publish = |topic| Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: PublishProperties::default(),
        payload: b"",
    };
    for bytes in [text::STRING_BYTES_MAX - 1, text::STRING_BYTES_MAX] {
        for version in [V311, V5] {
            let mut out = Vec::new();
            publish(&longest[..bytes]).encode_to(version, &mut out);
            assert_eq!(decode(version, &out), Ok(Packet::Publish(publish(&longest[..bytes]))));
        }
    }
    let more = format!("{longest}a");
    let written = std::panic::catch_unwind(|| publish(&more).encoded_len(V5));
    assert!(written.is_err());
}
