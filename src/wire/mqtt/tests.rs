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
