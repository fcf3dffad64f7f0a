//! How a WebSocket ends (RFC 6455 §7), and what ends it.

use crate::bad_input::Scene;
use crate::client::{Client, Got, Hello, will};
use crate::websocket::frame;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::{Disconnect, Reason, Version};
use kittiwake::wire::websocket::Opcode;

fn connected(scene: &Scene, hello: &Hello<'_>) -> Client {
    let mut client = Client::dial_websocket(&scene.node);
    client.hello(hello);
    client.expect_connack(0);
    client
}

/// A connected client sends this, is told that code, and its will is published: it said no goodbye.
#[track_caller]
fn is_closed(scene: &mut Scene, bytes: &[u8], code: Option<u16>, counter: &str) {
    let before = scene.node.counter(counter);
    let mut watcher = scene.node.connect("watcher");
    watcher.subscribe(&[("gone", Qos::AtMostOnce)]);
    let mut client = connected(scene, &Hello::v5("bad").will(will("gone", b"bad", Qos::AtMostOnce)));
    client.send_raw(bytes);
    client.expect_closed();
    let closed = client.websocket().closed.expect("a close frame comes before the end");
    assert_eq!(closed.map(|code| code.0), code, "{bytes:x?}");
    watcher.expect_text("bad");
    watcher.bye();
    assert_eq!(scene.node.counter(counter), before + 1, "{counter}");
    scene.node.assert_holds_no_buffers();
    scene.bystander_is_served();
}

#[track_caller]
fn violates(scene: &mut Scene, bytes: &[u8], code: u16) {
    is_closed(scene, bytes, Some(code), "closed_websocket_violation");
}

#[test]
fn rfc6455_5_5_1_a_close_frame_is_answered_with_its_code_and_the_connection_closed() {
    let mut scene = Scene::new();
    for code in [1000_u16, 1001, 3000, 4999] {
        let payload = [&code.to_be_bytes()[..], b"so long"].concat();
        is_closed(&mut scene, &frame(true, Opcode::Close, &payload), Some(code), "closed_by_peer");
    }
    is_closed(&mut scene, &frame(true, Opcode::Close, b""), None, "closed_by_peer");
    scene.ends();
}

#[test]
fn rfc6455_5_1_a_frame_without_a_mask_fails_the_connection() {
    let mut scene = Scene::new();
    violates(&mut scene, &[0x82, 2, 0xC0, 0], 1002);
    scene.ends();
}

#[test]
fn rfc6455_5_2_reserved_bits_opcodes_and_long_forms_fail_the_connection() {
    let mut scene = Scene::new();
    let masked = |first: u8, length: &[u8]| [&[first], length, &[0; 4]].concat();
    for bits in [0x40, 0x20, 0x10] {
        violates(&mut scene, &masked(0x82 | bits, &[0x80]), 1002);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        violates(&mut scene, &masked(0x80 | opcode, &[0x80]), 1002);
    }
    violates(&mut scene, &masked(0x82, &[0xFE, 0, 1]), 1002);
    violates(&mut scene, &masked(0x82, &[0xFF, 0, 0, 0, 0, 0, 0, 0, 1]), 1002);
    violates(&mut scene, &masked(0x82, &[0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]), 1002);
    scene.ends();
}

#[test]
fn rfc6455_5_4_fragments_out_of_order_fail_the_connection() {
    let mut scene = Scene::new();
    violates(&mut scene, &frame(true, Opcode::Continuation, b""), 1002);
    let twice = [frame(false, Opcode::Binary, b""), frame(true, Opcode::Binary, b"")].concat();
    violates(&mut scene, &twice, 1002);
    scene.ends();
}

#[test]
fn rfc6455_5_5_control_frames_are_short_and_whole() {
    let mut scene = Scene::new();
    violates(&mut scene, &frame(false, Opcode::Ping, b"x"), 1002);
    violates(&mut scene, &frame(true, Opcode::Ping, &[0; 126]), 1002);
    violates(&mut scene, &frame(true, Opcode::Close, b"\x03"), 1002);
    violates(&mut scene, &frame(true, Opcode::Close, &1005_u16.to_be_bytes()), 1002);
    violates(&mut scene, &frame(true, Opcode::Close, b"\x03\xE8\xFF"), 1007);
    scene.ends();
}

#[test]
fn a_frame_longer_than_anybody_sends_fails_the_connection_by_its_head() {
    let mut scene = Scene::new();
    violates(&mut scene, &[0x82, 0xFF, 0, 0, 0, 0, 0x40, 0, 0, 1, 0, 0, 0, 0], 1009);
    scene.ends();
}

#[test]
fn packets_before_the_violation_are_handled() {
    let scene = Scene::new();
    let mut client = connected(&scene, &Hello::v5("bad"));
    client.send_raw(&[frame(true, Opcode::Binary, b"\xC0\0"), vec![0xFF]].concat());
    client.expect(&Got::PingResp);
    client.expect_closed();
    assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1002));
    scene.ends();
}

#[test]
fn a_goodbye_before_a_close_frame_drops_the_will() {
    let scene = Scene::new();
    let mut watcher = scene.node.connect("watcher");
    watcher.subscribe(&[("gone", Qos::AtMostOnce)]);
    let mut client = connected(&scene, &Hello::v5("polite").will(will("gone", b"gone", Qos::AtMostOnce)));
    let goodbye = crate::client::encoded(Version::V5, &Disconnect::new(Reason::Success));
    client.send_raw(
        &[frame(true, Opcode::Binary, &goodbye), frame(true, Opcode::Close, &1000_u16.to_be_bytes())].concat(),
    );
    client.expect_closed();
    assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1000));
    watcher.expect_nothing();
    watcher.bye();
    scene.ends();
}

#[test]
fn a_close_frame_waits_for_the_packets_before_it() {
    let scene = Scene::new();
    scene.node.hold_commits();
    // The session is not open before its commit, so its publish is not read, and neither is the end behind it.
    let mut watcher = Client::dial(&scene.node);
    watcher.hello(&Hello::v5("watcher"));
    let mut client = Client::dial_websocket(&scene.node);
    let publish = crate::client::publish("$inbox/none", b"x", Qos::AtLeastOnce, 9);
    let packets = [Hello::lasting("late").frame(), crate::client::encoded(Version::V5, &publish)].concat();
    client.send_raw(&[frame(true, Opcode::Binary, &packets), frame(true, Opcode::Close, b"")].concat());
    client.expect_nothing();
    scene.node.release_commits();
    client.expect_connack(0);
    assert!(matches!(client.next(), Some(Got::PubAck(9, _))), "the publish was answered");
    client.expect_closed();
    assert_eq!(client.websocket().closed, Some(None));
    watcher.hang_up();
    scene.node.advance(3_600_000);
}

#[test]
fn the_server_says_why_in_mqtt_and_then_in_websocket() {
    let scene = Scene::new();
    // A packet that breaks MQTT.
    let mut client = connected(&scene, &Hello::v5("bad"));
    client.send(b"\x0F\0");
    client.expect(&Got::Disconnect(0x81));
    client.expect_closed();
    assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1002));
    // Silence.
    let mut client = connected(&scene, &Hello::v5("silent").keep_alive(10));
    scene.node.advance(15_000);
    client.expect(&Got::Disconnect(0x8D));
    client.expect_closed();
    assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1000));
    // Take-over.
    let mut client = connected(&scene, &Hello::v5("twin"));
    let other = scene.node.connect("twin");
    client.expect(&Got::Disconnect(0x8E));
    client.expect_closed();
    other.bye();
    scene.ends();
}

#[test]
fn a_drain_says_that_the_server_goes_away() {
    let scene = Scene::new();
    let mut client = connected(&scene, &Hello::v5("a"));
    scene.node.handle().drain();
    scene.node.advance(10);
    client.expect(&Got::Disconnect(0x8B));
    client.expect_closed();
    assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1012));
}

#[test]
fn a_flood_of_pings_that_nobody_reads_answers_of_ends_the_connection() {
    let mut scene = Scene::new();
    let mut client = connected(&scene, &Hello::v5("flood"));
    let flood: Vec<u8> = (0..100).flat_map(|_| frame(true, Opcode::Ping, &[7; 125])).collect();
    let before = scene.node.counter("closed_by_peer");
    let floods = (0..1_000).position(|_| {
        client.write(&flood);
        scene.node.run();
        scene.node.gauge("connections") == 1
    });
    assert!(floods.is_some(), "it was closed");
    assert_eq!(scene.node.counter("closed_by_peer"), before + 1);
    scene.node.assert_holds_no_buffers();
    scene.bystander_is_served();
    client.hang_up();
    scene.ends();
}

#[test]
fn random_bytes_as_frames_and_inside_of_frames_never_hurt_anybody() {
    let mut scene = Scene::new();
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for round in 0..100_usize {
        let bytes: Vec<u8> = (0..1 + round * 7 % 300).map(|_| random()).collect();
        // As a guest and as a session, the frames themselves and what they carry.
        let mut guest = Client::dial_websocket(&scene.node);
        guest.send_raw(&bytes);
        let mut carried = Client::dial_websocket(&scene.node);
        carried.send(&bytes);
        let mut client = connected(&scene, &Hello::v5("random"));
        client.send_raw(&bytes);
        let mut carried = connected(&scene, &Hello::v5("random"));
        carried.send(&bytes);
        if round % 20 == 0 {
            scene.bystander_is_served();
        }
    }
    scene.node.advance(kittiwake::limits::HANDSHAKE_TIMEOUT.as_millis() as u64);
    scene.bystander_is_served();
    scene.node.assert_holds_no_buffers();
    // The bystander has one where the whole suite is run within TLS.
    assert_eq!(scene.node.gauge("transforms"), u64::from(scene.node.secures_all()));
    scene.ends();
}

#[test]
fn who_asks_for_a_websocket_in_a_drain_is_told_to_come_back() {
    let scene = Scene::new();
    let mut guest = scene.node.dial();
    scene.node.handle().drain();
    scene.node.run();
    guest.send(crate::websocket::request("/mqtt", &[]).as_bytes());
    let answer = String::from_utf8(guest.take_bytes()).expect("an answer is text");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    assert!(guest.is_closed());
}
