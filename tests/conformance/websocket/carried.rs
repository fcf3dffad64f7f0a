//! MQTT over WebSocket (MQTT 5 §6): packets come through however they are framed.

use crate::client::{Client, Got, Hello, encoded, publish};
use crate::node::Node;
use crate::websocket::frame;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::{AckKind, PingReq, Version};
use kittiwake::wire::websocket::Opcode;

fn connected(node: &Node, hello: &Hello<'_>) -> Client {
    let mut client = Client::dial_websocket(node);
    client.hello(hello);
    client.expect_connack(0);
    client
}

#[test]
fn mqtt5_6_0_0_1_packets_are_in_binary_frames_and_text_is_refused() {
    let node = Node::new();
    let mut client = connected(&node, &Hello::v5("a"));
    assert_eq!(client.websocket().messages, 1, "and ours are, too: the client takes nothing else");
    let before = node.counter("closed_websocket_violation");
    client.send_raw(&frame(true, Opcode::Text, b"\xC0\0"));
    client.expect_closed();
    assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1003));
    assert_eq!(node.counter("closed_websocket_violation"), before + 1);
    node.assert_at_rest();
}

#[test]
fn mqtt5_6_0_0_2_a_packet_may_straddle_frames_and_a_frame_hold_several() {
    let node = Node::new();
    let mut client = Client::dial_websocket(&node);
    let connect = Hello::v5("a").frame();
    // Each byte in a frame of its own, of one message or of many, with a ping between.
    for (at, byte) in connect.iter().enumerate() {
        let is_last = at + 1 == connect.len();
        let opcode = if at == 0 { Opcode::Binary } else { Opcode::Continuation };
        client.send_raw(&frame(is_last, opcode, &[*byte]));
        client.send_raw(&frame(true, Opcode::Ping, &[*byte]));
    }
    client.expect_connack(0);
    assert_eq!(client.websocket().pongs.concat(), connect);

    let publish = encoded(Version::V5, &publish("t", b"hi", Qos::AtLeastOnce, 7));
    let ping = encoded(Version::V5, &PingReq);
    let (start, end) = publish.split_at(3);
    client.send(&[&ping, &ping[..], start].concat());
    client.expect(&Got::PingResp);
    client.expect(&Got::PingResp);
    client.send(&[end, &ping[..1]].concat());
    client.expect(&Got::PubAck(7, 0x10));
    client.send(&ping[1..]);
    client.expect(&Got::PingResp);
    client.bye();
    node.assert_at_rest();
}

#[test]
fn a_frame_may_come_a_byte_at_a_time_and_an_idle_connection_holds_no_block() {
    let node = Node::new();
    let mut client = Client::dial_websocket(&node);
    for byte in frame(true, Opcode::Binary, &Hello::v5("a").frame()) {
        client.send_raw(&[byte]);
    }
    client.expect_connack(0);
    for byte in frame(true, Opcode::Ping, b"still there") {
        client.send_raw(&[byte]);
    }
    client.expect_nothing();
    assert_eq!(client.websocket().pongs, [b"still there"]);
    node.assert_holds_no_buffers();
    assert_eq!(node.gauge("transforms"), 1);
    client.hang_up();
    assert_eq!(node.gauge("transforms"), 0);
    node.assert_at_rest();
}

#[test]
fn what_a_turn_brings_shares_one_frame() {
    let node = Node::new();
    let mut client = connected(&node, &Hello::v5("a"));
    client.subscribe(&[("t", Qos::AtMostOnce)]);
    let before = client.websocket().messages;
    let frames: Vec<u8> = (0..10)
        .flat_map(|n| encoded(Version::V5, &publish("t", format!("m{n}").as_bytes(), Qos::AtMostOnce, 0)))
        .collect();
    client.send(&frames);
    assert_eq!(client.messages().len(), 10);
    assert_eq!(client.websocket().messages, before + 1);
    client.bye();
    node.assert_at_rest();
}

#[test]
fn a_large_payload_goes_by_reference_under_one_head() {
    let node = Node::new();
    let mut client = connected(&node, &Hello::v5("a"));
    client.subscribe(&[("t", Qos::AtMostOnce)]);
    for bytes in [100, 4_095, 4_096, 65_500, 65_536, 200_000] {
        let payload: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
        let before = client.websocket().messages;
        node.push_topic("t", &payload, Qos::AtMostOnce);
        assert_eq!(client.expect_message().payload, payload);
        assert_eq!(client.websocket().messages, before + 1, "{bytes}");
    }
    node.assert_holds_no_buffers();
    client.bye();
    node.assert_at_rest();
}

#[test]
fn a_session_moves_between_tcp_and_websocket() {
    let node = Node::with_shards(4);
    for round in 0..8 {
        let user = format!("u{round}");
        let mut over_websocket = connected(&node, &Hello::lasting(&user));
        over_websocket.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
        node.push_user(&user, b"one", Qos::AtLeastOnce);
        over_websocket.expect_text("one");
        over_websocket.hang_up();
        node.push_user(&user, b"two", Qos::AtLeastOnce);
        let mut over_tcp = node.dial();
        over_tcp.hello(&Hello::lasting(&user));
        assert!(over_tcp.expect_connack(0).session_present);
        assert!(over_tcp.expect_and_ack("one").dup);
        over_tcp.expect_and_ack("two");
        // And back, by take-over.
        let mut back = connected(&node, &Hello::lasting(&user));
        over_tcp.expect_goodbye(0x8E);
        node.push_user(&user, b"three", Qos::AtLeastOnce);
        back.expect_and_ack("three");
        back.bye();
    }
    node.assert_at_rest();
}

#[test]
fn all_of_a_conversation_may_come_at_once() {
    let node = Node::with_shards(4);
    for round in 0..8 {
        // The connection moves to its home with frames unread: some turned already, some not.
        let mut client = Client::dial_websocket(&node);
        let name = format!("c{round}");
        let mut stream = frame(false, Opcode::Binary, &Hello::v5(&name).frame());
        for id in 1..=50 {
            let publish = encoded(Version::V5, &publish("t", b"x", Qos::ExactlyOnce, id));
            let (start, end) = publish.split_at(usize::from(id) % publish.len());
            stream.extend(frame(false, Opcode::Continuation, start));
            stream.extend(frame(true, Opcode::Ping, &[id as u8]));
            stream.extend(frame(false, Opcode::Continuation, end));
        }
        client.send_raw(&stream);
        client.expect_connack(0);
        for id in 1..=50 {
            client.expect(&Got::PubRec(id, 0x10));
        }
        assert_eq!(client.websocket().pongs.len(), 50);
        for id in 1..=50 {
            client.send_raw(&frame(
                false,
                Opcode::Continuation,
                &encoded(
                    Version::V5,
                    &kittiwake::wire::mqtt::Ack::success(
                        AckKind::PubRel,
                        kittiwake::wire::mqtt::PacketId::new(id).expect("not 0"),
                    ),
                ),
            ));
            client.expect(&Got::PubComp(id, 0));
        }
        client.hang_up();
    }
    node.assert_at_rest();
}
