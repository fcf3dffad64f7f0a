//! Bytes of connected clients that are no packets, or packets they may not send.

use super::Scene;
use crate::client::{Got, Hello, encoded, publish};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::PACKET_BYTES_MAX;
use kittiwake::wire::mqtt::Version;

const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;

#[track_caller]
fn breaks(scene: &mut Scene, bytes: &[u8], code: u8) {
    scene.is_told(bytes, code, "closed_protocol_error");
}

#[test]
fn mqtt5_3_1_0_2_a_second_connect_is_a_protocol_error() {
    let mut scene = Scene::new();
    breaks(&mut scene, &Hello::v5("bad").frame(), PROTOCOL_ERROR);
    scene.is_cut(&Hello::v3("bad").frame(), "closed_protocol_error");
    scene.ends();
}

#[test]
fn packets_that_only_servers_send_are_protocol_errors() {
    let mut scene = Scene::new();
    for frame in [&b"\x20\x03\0\0\0"[..], b"\x90\x04\0\x01\0\0", b"\xB0\x04\0\x01\0\0", b"\xD0\0"] {
        breaks(&mut scene, frame, PROTOCOL_ERROR);
    }
    for frame in [&b"\x20\x02\0\0"[..], b"\x90\x03\0\x01\0", b"\xB0\x02\0\x01", b"\xD0\0"] {
        scene.is_cut(frame, "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn mqtt5_2_1_2_reserved_packet_types_are_malformed() {
    let mut scene = Scene::new();
    breaks(&mut scene, b"\0\0", MALFORMED);
    breaks(&mut scene, b"\x0F\0", MALFORMED);
    scene.is_cut(b"\0\0", "closed_protocol_error");
    scene.ends();
}

#[test]
fn mqtt5_4_12_0_7_auth_without_a_method_is_a_protocol_error() {
    let mut scene = Scene::new();
    breaks(&mut scene, b"\xF0\0", PROTOCOL_ERROR);
    breaks(&mut scene, b"\xF0\x02\x18\0", PROTOCOL_ERROR);
    scene.is_cut(b"\xF0\0", "closed_protocol_error");
    scene.ends();
}

#[test]
fn mqtt5_2_1_3_1_wrong_flags_in_the_fixed_header_are_malformed() {
    let mut scene = Scene::new();
    for first in [0x41, 0x52, 0x60, 0x63, 0x71, 0x80, 0x83, 0xA0, 0xC1, 0xE1, 0xF1] {
        breaks(&mut scene, &[first, 2, 0, 1], MALFORMED);
        scene.is_cut(&[first, 2, 0, 1], "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn mqtt5_3_3_1_4_a_publish_with_both_qos_bits_is_malformed() {
    let mut scene = Scene::new();
    for first in [0x36, 0x37, 0x3E] {
        breaks(&mut scene, &[first, 7, 0, 1, b'a', 0, 1, 0, b'x'], MALFORMED);
        scene.is_cut(&[first, 6, 0, 1, b'a', 0, 1, b'x'], "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn mqtt5_3_3_1_2_dup_with_qos_0_is_malformed() {
    let mut scene = Scene::new();
    breaks(&mut scene, b"\x38\x05\0\x01a\0x", MALFORMED);
    scene.is_cut(b"\x38\x04\0\x01ax", "closed_protocol_error");
    scene.ends();
}

#[test]
fn mqtt5_2_2_1_3_packet_identifier_0_is_a_protocol_error() {
    let mut scene = Scene::new();
    for frame in [
        &b"\x32\x07\0\x01a\0\0\0x"[..],
        b"\x82\x07\0\0\0\0\x01a\0",
        b"\xA2\x06\0\0\0\0\x01a",
        b"\x40\x02\0\0",
        b"\x50\x02\0\0",
        b"\x62\x02\0\0",
        b"\x70\x02\0\0",
    ] {
        breaks(&mut scene, frame, PROTOCOL_ERROR);
    }
    scene.is_cut(b"\x32\x06\0\x01a\0\0x", "closed_protocol_error");
    scene.ends();
}

#[test]
fn lying_lengths_are_malformed() {
    let mut scene = Scene::new();
    for frame in [
        &b"\x30\x03\0\xFFa"[..],
        b"\x30\x04\0\x01a\x7F",
        b"\x30\x01\0",
        b"\x30\0",
        b"\x32\x04\0\x01a\0",
        b"\x82\x07\0\x01\0\0\xFFa\0",
        b"\x82\x06\0\x01\0\0\x01a",
        b"\x40\x01\0",
        b"\x40\0",
        b"\xC0\x01\0",
    ] {
        breaks(&mut scene, frame, MALFORMED);
    }
    for frame in [&b"\x30\x03\0\xFFa"[..], b"\x82\x05\0\x01\0\xFFa", b"\x40\x03\0\x01\0", b"\xE0\x01\0"] {
        scene.is_cut(frame, "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn mqtt5_1_5_5_1_a_remaining_length_that_is_none_is_malformed() {
    let mut scene = Scene::new();
    for frame in [&b"\x30\xFF\xFF\xFF\xFF"[..], b"\x30\x80\x80\x80\x80\x01", b"\xC0\x80\0"] {
        breaks(&mut scene, frame, MALFORMED);
        scene.is_cut(frame, "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn mqtt5_1_5_4_1_strings_that_are_no_utf8_are_malformed() {
    let mut scene = Scene::new();
    for text in [&b"\xC3\x28"[..], b"\0", b"\xED\xA0\x80", b"\xFF", b"\xC0\x80", b"\xF5\x80\x80\x80"] {
        let topic = [&[0, text.len() as u8], text].concat();
        let publish = [&[0x30, topic.len() as u8 + 2][..], &topic, b"\0x"].concat();
        breaks(&mut scene, &publish, MALFORMED);
        let subscribe = [&[0x82, topic.len() as u8 + 4, 0, 1, 0][..], &topic, b"\0"].concat();
        breaks(&mut scene, &subscribe, MALFORMED);
        let publish = [&[0x30, topic.len() as u8 + 1][..], &topic, b"x"].concat();
        scene.is_cut(&publish, "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn mqtt5_3_3_2_2_a_topic_name_with_wildcards_is_invalid() {
    let mut scene = Scene::new();
    for topic in ["#", "+", "a/#", "a/+/b", "a+", "a#b"] {
        let frame = publish_bytes(topic, Qos::AtMostOnce, 0);
        breaks(&mut scene, &frame, 0x90);
    }
    scene.is_cut(b"\x30\x04\0\x01#x", "closed_protocol_error");
    scene.ends();
}

#[test]
fn mqtt5_3_3_4_an_empty_topic_without_an_alias_is_a_protocol_error() {
    let mut scene = Scene::new();
    breaks(&mut scene, b"\x30\x04\0\0\0x", PROTOCOL_ERROR);
    scene.is_cut(b"\x30\x03\0\0x", "closed_protocol_error");
    scene.ends();
}

/// By hand: the codec asserts that names are names.
fn publish_bytes(topic: &str, qos: Qos, id: u16) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend_from_slice(topic.as_bytes());
    if qos > Qos::AtMostOnce {
        body.extend_from_slice(&id.to_be_bytes());
    }
    body.extend_from_slice(b"\0x");
    [&[0x30 | (qos as u8) << 1, body.len() as u8][..], &body].concat()
}

#[test]
fn mqtt5_3_3_2_8_topic_aliases_that_were_not_granted_are_invalid() {
    let mut scene = Scene::new();
    breaks(&mut scene, b"\x30\x08\0\x01a\x03\x23\0\0x", 0x94);
    breaks(&mut scene, b"\x30\x08\0\x01a\x03\x23\0\x11x", 0x94);
    // Granted, but never set.
    breaks(&mut scene, b"\x30\x07\0\0\x03\x23\0\x01x", PROTOCOL_ERROR);
    scene.ends();
}

#[test]
fn mqtt5_3_3_4_6_a_client_may_not_send_subscription_identifiers() {
    let mut scene = Scene::new();
    breaks(&mut scene, b"\x30\x07\0\x01a\x02\x0B\x01x", PROTOCOL_ERROR);
    scene.ends();
}

#[test]
fn mqtt5_3_8_3_2_a_subscribe_without_filters_is_a_protocol_error() {
    let mut scene = Scene::new();
    breaks(&mut scene, b"\x82\x03\0\x01\0", PROTOCOL_ERROR);
    breaks(&mut scene, b"\xA2\x03\0\x01\0", PROTOCOL_ERROR);
    scene.is_cut(b"\x82\x02\0\x01", "closed_protocol_error");
    scene.is_cut(b"\xA2\x02\0\x01", "closed_protocol_error");
    scene.ends();
}

#[test]
fn mqtt5_3_8_3_5_subscription_options_that_cannot_be_are_refused() {
    let mut scene = Scene::new();
    for (options, code) in [(0x03, PROTOCOL_ERROR), (0x30, PROTOCOL_ERROR), (0x40, MALFORMED), (0x80, MALFORMED)] {
        breaks(&mut scene, &[0x82, 7, 0, 1, 0, 0, 1, b'a', options], code);
    }
    for options in [0x03, 0x04, 0x80] {
        scene.is_cut(&[0x82, 6, 0, 1, 0, 1, b'a', options], "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn mqtt5_4_7_1_filters_that_are_none_are_refused() {
    let mut scene = Scene::new();
    for filter in ["a/#/b", "a#", "a+", "+a", "#/a"] {
        let body = [&b"\0\x01\0\0"[..], &[filter.len() as u8], filter.as_bytes(), b"\0"].concat();
        breaks(&mut scene, &[&[0x82, body.len() as u8][..], &body].concat(), 0x8F);
    }
    scene.ends();
}

#[test]
fn publishes_to_our_own_names_are_refused_and_the_connection_stands() {
    let mut scene = Scene::new();
    let mut client = scene.node.connect("bad");
    for (id, topic) in ["$inbox/orders", "$SYS/uptime", "$presence/x", "$"].into_iter().enumerate() {
        let id = id as u16 + 1;
        client.publish(topic, b"x", Qos::AtMostOnce, 0);
        client.expect_nothing();
        client.publish(topic, b"x", Qos::AtLeastOnce, id);
        client.expect(&Got::PubAck(id, 0x87));
        client.publish(topic, b"x", Qos::ExactlyOnce, id);
        client.expect(&Got::PubRec(id, 0x87));
    }
    assert_eq!(scene.node.counter("publish_refused"), 12);
    scene.bystander_is_served();
    client.expect_pong();
    client.bye();
    scene.ends();
}

#[test]
fn mqtt5_3_2_2_15_a_packet_of_the_largest_size_is_taken_and_a_byte_more_is_too_large() {
    let mut scene = Scene::new();
    let around = publish("a", b"", Qos::AtLeastOnce, 1);
    let around = encoded(Version::V5, &around).len() + 2;
    for bytes in [PACKET_BYTES_MAX - 1, PACKET_BYTES_MAX] {
        let mut client = scene.node.connect("large");
        client.publish("a", &vec![b'x'; bytes - around], Qos::AtLeastOnce, 1);
        client.expect(&Got::PubAck(1, 0x10));
        client.bye();
    }
    let payload = vec![b'x'; PACKET_BYTES_MAX + 1 - around];
    let frame = encoded(Version::V5, &publish("a", &payload, Qos::AtLeastOnce, 1));
    assert_eq!(frame.len(), PACKET_BYTES_MAX + 1);
    scene.is_told(&frame, 0x95, "closed_packet_too_large");
    // Its length alone says so.
    scene.is_told(b"\x30\xFF\xFF\xFF\x7F", 0x95, "closed_packet_too_large");
    scene.is_cut(b"\x30\xFF\xFF\xFF\x7F", "closed_packet_too_large");
    scene.ends();
}

#[test]
fn a_lowered_packet_limit_holds_for_packets_that_come_in_one_piece() {
    let node = Node::with(1, |limits| limits.packet_bytes = 1_000);
    for version in [Version::V5, Version::V311] {
        let around = encoded(version, &publish("a", b"", Qos::AtMostOnce, 0)).len() + 1;
        let mut client = if version == Version::V5 { node.connect("bad") } else { node.hello(&Hello::v3("bad")) };
        client.publish("a", &vec![b'x'; 1_000 - around], Qos::AtMostOnce, 0);
        client.expect_pong();
        client.publish("a", &vec![b'x'; 1_001 - around], Qos::AtMostOnce, 0);
        match version {
            Version::V5 => client.expect_goodbye(0x95),
            Version::V311 => client.expect_closed(),
        }
    }
    assert_eq!(node.counter("closed_packet_too_large"), 2);
    node.assert_at_rest();
}

#[test]
fn packets_cut_anywhere_mean_the_same() {
    let scene = Scene::new();
    let mut talk = Vec::new();
    talk.extend_from_slice(b"\x82\x09\0\x07\0\0\x03a/b\x01");
    talk.extend_from_slice(b"\x32\x0A\0\x03a/b\0\x09\0hi");
    talk.extend_from_slice(b"\xC0\0");
    for cut in 0..=talk.len() {
        let mut client = scene.node.connect("cut");
        client.send(&talk[..cut]);
        client.send(&talk[cut..]);
        client.expect(&Got::SubAck(7, vec![1]));
        let mut rest = client.all();
        rest.sort_by_key(|got| format!("{got:?}"));
        assert!(matches!(&rest[..], [Got::PingResp, Got::PubAck(9, 0), Got::Publish(_)]), "{cut}: {rest:?}");
        client.hang_up();
    }
    let mut client = scene.node.connect("bytewise");
    client.send_slowly(&talk);
    assert_eq!(client.all().len(), 4);
    client.bye();
    scene.ends();
}

#[test]
fn half_sent_packets_cost_their_bytes_until_the_connection_ends() {
    let mut scene = Scene::new();
    let mut half: Vec<_> =
        (0..20).map(|at| scene.node.hello(&Hello::v5(&format!("half-{at}")).keep_alive(10))).collect();
    let frame = publish_bytes("a/b", Qos::AtLeastOnce, 1);
    for client in &mut half {
        client.send(&frame[..frame.len() - 1]);
    }
    assert_eq!(scene.node.gauge("partial_frames"), 20);
    scene.bystander_is_served();
    scene.node.advance(15_400);
    half.iter_mut().for_each(|client| client.expect_goodbye(0x8D));
    assert_eq!(scene.node.counter("closed_keep_alive"), 20);
    scene.node.assert_holds_no_buffers();
    scene.ends();
}

#[test]
fn a_peer_that_ends_its_stream_or_vanishes_leaves_nothing() {
    let mut scene = Scene::new();
    let mut ended = scene.node.hello(&Hello::v5("ended").keep_alive(10));
    ended.send(b"\x30\x10\0");
    ended.finish();
    ended.expect_closed();
    let mut gone = scene.node.hello(&Hello::v5("gone").keep_alive(10));
    gone.send(b"\x30\x10\0");
    gone.vanish();
    assert_eq!(scene.node.gauge("connections"), 2);
    scene.node.advance(30_000);
    assert_eq!(scene.node.gauge("connections"), 1);
    assert_eq!((scene.node.counter("closed_by_peer"), scene.node.counter("closed_keep_alive")), (1, 1));
    scene.node.assert_holds_no_buffers();
    scene.bystander_is_served();
    scene.ends();
}

#[test]
fn a_byte_now_and_then_of_a_packet_that_never_ends_holds_one_small_block() {
    let mut scene = Scene::new();
    let mut client = scene.node.hello(&Hello::v5("dripping").keep_alive(10));
    client.send(b"\x30\x80\x02");
    for _ in 0..50 {
        client.send(b"\0");
        scene.node.advance(9_000);
        assert!(scene.node.gauge("blocks") <= 1);
    }
    scene.bystander_is_served();
    client.hang_up();
    scene.ends();
}

/// A QoS 0 PUBLISH to `a` with these properties and no payload.
fn with_properties(properties: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x01a".to_vec();
    body.push(properties.len() as u8);
    body.extend_from_slice(properties);
    [&[0x30, body.len() as u8][..], &body].concat()
}

#[test]
fn mqtt5_1_5_7_1_both_strings_of_a_pair_are_text() {
    let mut scene = Scene::new();
    for pair in [
        &b"\x26\0\x01\xFF\0\x01v"[..],
        b"\x26\0\x01k\0\x01\xFF",
        b"\x26\0\x01\0\0\x01v",
        b"\x26\0\x01k\0\x01\0",
        b"\x26\0\x01k",
    ] {
        breaks(&mut scene, &with_properties(pair), MALFORMED);
    }
    scene.ends();
}

#[test]
fn mqtt5_3_3_2_14_a_response_topic_is_a_topic_name() {
    let mut scene = Scene::new();
    for topic in [&b"\x08\0\x01#"[..], b"\x08\0\x01+", b"\x08\0\x03a/#", b"\x08\0\x03a+b"] {
        breaks(&mut scene, &with_properties(topic), PROTOCOL_ERROR);
    }
    for topic in [&b"\x08\0\x01\xFF"[..], b"\x08\0\x01\0"] {
        breaks(&mut scene, &with_properties(topic), MALFORMED);
    }
    scene.ends();
}

#[test]
fn mqtt5_3_3_2_19_a_content_type_is_text() {
    let mut scene = Scene::new();
    for text in [&b"\x03\0\x01\xFF"[..], b"\x03\0\x01\0", b"\x03\0\x02\xC3\x28"] {
        breaks(&mut scene, &with_properties(text), MALFORMED);
    }
    scene.ends();
}

#[test]
fn mqtt5_3_8_3_4_no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut scene = Scene::new();
    breaks(&mut scene, b"\x82\x10\0\x01\0\0\x0A$share/g/a\x04", PROTOCOL_ERROR);
    breaks(&mut scene, b"\x82\x10\0\x01\0\0\x0A$share/g/a\x05", PROTOCOL_ERROR);
    scene.ends();
}

#[test]
fn mqtt5_3_10_3_1_filters_of_an_unsubscribe_are_text() {
    let mut scene = Scene::new();
    for text in [&b"\xC3\x28"[..], b"\0", b"\xED\xA0\x80", b"\xFF"] {
        let filter = [&[0, text.len() as u8], text].concat();
        breaks(&mut scene, &[&[0xA2, filter.len() as u8 + 3, 0, 1, 0][..], &filter].concat(), MALFORMED);
        scene.is_cut(&[&[0xA2, filter.len() as u8 + 2, 0, 1][..], &filter].concat(), "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn mqtt311_3_8_3_1_filters_are_text() {
    let mut scene = Scene::new();
    for text in [&b"\xC3\x28"[..], b"\0", b"\xED\xA0\x80", b"\xFF"] {
        let filter = [&[0, text.len() as u8], text, &[0]].concat();
        scene.is_cut(&[&[0x82, filter.len() as u8 + 2, 0, 1][..], &filter].concat(), "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn mqtt5_4_7_3_1_an_empty_filter_is_none() {
    let mut scene = Scene::new();
    breaks(&mut scene, b"\x82\x06\0\x01\0\0\0\0", 0x8F);
    breaks(&mut scene, b"\xA2\x05\0\x01\0\0\0", 0x8F);
    scene.is_cut(b"\x82\x05\0\x01\0\0\0", "closed_protocol_error");
    scene.is_cut(b"\xA2\x04\0\x01\0\0", "closed_protocol_error");
    scene.ends();
}
