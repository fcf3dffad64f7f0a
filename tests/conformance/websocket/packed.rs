//! permessage-deflate (RFC 7692) on MQTT's WebSockets: packed messages come and go like plain ones.

use crate::client::{Client, Got, Hello, encoded, publish};
use crate::node::Node;
use crate::websocket::{as_packed, assert_accepted, frame, packed, packed_frame, request};
use kittiwake::base::ids::Qos;
use kittiwake::limits::{DEFLATE_BYTES_MAX, DEFLATE_BYTES_MIN, RECEIVE_BLOCK_BYTES, TURN_DEFLATE_BYTES_MAX};
use kittiwake::shard::command::Target;
use kittiwake::wire::mqtt::{AckKind, PingReq, Version};
use kittiwake::wire::websocket::Opcode;

const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

fn dial(node: &Node) -> Client {
    Client::dial_packing(node, "permessage-deflate; client_max_window_bits", ANSWER)
}

fn connected(node: &Node, hello: &Hello<'_>) -> Client {
    let mut client = dial(node);
    client.hello(hello);
    client.expect_connack(0);
    client
}

/// Words enough that a packer finds something, and that no two texts are alike.
fn text(seed: usize, bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut random = seed as u64 + 1;
    while text.len() < bytes {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend(format!("{{\"order\":{},\"state\":\"on its way\"}},", random >> 40).bytes());
    }
    text.truncate(bytes);
    text
}

#[test]
fn rfc7692_5_1_what_is_not_offered_or_turned_off_is_not_agreed_to() {
    let node = Node::new();
    let mut on = Node::dial(&node);
    on.send(request("/mqtt", &[]).as_bytes());
    let answer = String::from_utf8(on.take_bytes()).expect("an answer is text");
    assert_accepted(&answer);
    assert!(!answer.contains("Extensions"), "{answer}");
    on.hang_up();
    assert_eq!(node.counter("deflate_connections"), 0);
    dial(&node).hang_up();
    let narrow = format!("{ANSWER}; server_max_window_bits=9");
    Client::dial_packing(&node, "permessage-deflate; server_max_window_bits=9", &narrow).hang_up();
    assert_eq!(node.counter("deflate_connections"), 2);
    node.assert_at_rest();

    let node = Node::with(1, |limits| limits.deflate_bytes = None);
    let mut off = Client::dial(&node);
    off.send(request("/mqtt", &[("Sec-WebSocket-Extensions", "permessage-deflate")]).as_bytes());
    let answer = String::from_utf8(off.take_bytes()).expect("an answer is text");
    assert_accepted(&answer);
    assert!(!answer.contains("Extensions"), "{answer}");
    off.send_raw(&packed_frame(&Hello::v5("a").frame()));
    assert_eq!(off.take_bytes(), b"\x88\x02\x03\xEA", "reserved bits mean nothing then");
    assert!(off.is_closed());
    node.assert_at_rest();
}

#[test]
fn rfc7692_6_2_packed_packets_are_taken_however_they_are_framed_and_an_idle_connection_holds_nothing() {
    let node = Node::new();
    let mut client = dial(&node);
    let connect = packed(&Hello::v5("a").frame());
    // Each byte in a frame of its own, with a ping between.
    for (at, byte) in connect.iter().enumerate() {
        let is_last = at + 1 == connect.len();
        let opcode = if at == 0 { Opcode::Binary } else { Opcode::Continuation };
        let fragment = frame(is_last, opcode, &[*byte]);
        client.send_raw(&if at == 0 { as_packed(fragment) } else { fragment });
        client.send_raw(&frame(true, Opcode::Ping, &[*byte]));
    }
    client.expect_connack(0);
    assert_eq!(client.websocket().pongs.concat(), connect);

    // A packet straddles packed and plain messages, and a message holds several packets.
    let publish = encoded(Version::V5, &publish("t", &text(1, 2_000), Qos::AtLeastOnce, 7));
    let ping = encoded(Version::V5, &PingReq);
    let (start, end) = publish.split_at(700);
    client.send_raw(&packed_frame(&[&ping[..], &ping, start].concat()));
    client.expect(&Got::PingResp);
    client.expect(&Got::PingResp);
    client.send(&end[..400]);
    client.send_raw(&packed_frame(&[&end[400..], &ping[..1]].concat()));
    client.expect(&Got::PubAck(7, 0x10));
    client.send_raw(&as_packed(frame(true, Opcode::Binary, &[0])));
    client.send(&ping[1..]);
    client.expect(&Got::PingResp);
    // Many in one piece, each a byte.
    let many: Vec<u8> = ping.repeat(300).iter().flat_map(|byte| packed_frame(&[*byte])).collect();
    client.send_raw(&many);
    assert_eq!(client.all(), vec![Got::PingResp; 300]);
    node.assert_holds_no_buffers();
    assert_eq!(node.counter("inflate_messages"), 1 + 1 + 1 + 1 + 600);
    client.bye();
    node.assert_at_rest();
}

#[test]
fn rfc7692_6_1_the_bit_of_packed_messages_anywhere_else_ends_the_connection() {
    let node = Node::new();
    let reserved = |mut frame: Vec<u8>, bits: u8| {
        frame[0] |= bits;
        frame
    };
    for wrong in [
        as_packed(frame(true, Opcode::Ping, b"")),
        as_packed(frame(true, Opcode::Close, b"")),
        as_packed(frame(true, Opcode::Continuation, b"")),
        [as_packed(frame(false, Opcode::Binary, b"\xC0")), as_packed(frame(true, Opcode::Continuation, b"\0"))]
            .concat(),
        reserved(frame(true, Opcode::Binary, b"\xC0\0"), 0x20),
        reserved(frame(true, Opcode::Binary, b"\xC0\0"), 0x50),
    ] {
        let mut client = connected(&node, &Hello::v5("a"));
        client.send_raw(&wrong);
        client.expect_closed();
        assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1002), "{wrong:x?}");
    }
    // Nor where it was not agreed to.
    let mut plain = Client::dial_websocket(&node);
    plain.hello(&Hello::v5("a"));
    plain.expect_connack(0);
    plain.send_raw(&packed_frame(b"\xC0\0"));
    plain.expect_closed();
    assert_eq!(plain.websocket().closed.flatten().map(|code| code.0), Some(1002));
    node.assert_at_rest();
}

#[test]
fn a_message_that_unpacks_to_more_than_is_taken_ends_the_connection_with_1009() {
    const PACKET_BYTES: usize = 4_096;
    const TAKEN: usize = PACKET_BYTES + RECEIVE_BLOCK_BYTES;
    let node = Node::with(1, |limits| limits.packet_bytes = PACKET_BYTES);
    let ping = encoded(Version::V5, &PingReq);
    for (bytes, is_taken) in [(TAKEN - 2, true), (TAKEN, true), (TAKEN + 2, false), (16 * TAKEN, false)] {
        let mut client = connected(&node, &Hello::v5("a"));
        let before = node.counter("inflate_refused_too_long");
        let bomb = packed_frame(&ping.repeat(bytes / ping.len()));
        assert!(bomb.len() < bytes / 100);
        client.send_raw(&bomb);
        if is_taken {
            assert_eq!(client.all().len(), bytes / ping.len());
            client.bye();
        } else {
            client.expect_closed();
            assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1009), "{bytes}");
        }
        assert_eq!(node.counter("inflate_refused_too_long"), before + u64::from(!is_taken), "{bytes}");
    }
    // With what was left of a packet before it, it is as long; and one that is long before it is unpacked.
    let mut client = connected(&node, &Hello::v5("a"));
    client.send(&publish_of(&[b'x'; 4_000])[..100]);
    client.send_raw(&packed_frame(&vec![b'x'; TAKEN - 99]));
    client.expect_closed();
    assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1009));
    let mut client = connected(&node, &Hello::v5("a"));
    client.send_raw(&as_packed(frame(false, Opcode::Binary, &vec![0; TAKEN + 1])));
    client.expect_closed();
    assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1009));
    node.assert_at_rest();
}

fn publish_of(payload: &[u8]) -> Vec<u8> {
    encoded(Version::V5, &publish("t", payload, Qos::AtMostOnce, 0))
}

#[test]
fn a_message_that_cannot_be_unpacked_ends_the_connection_with_1007() {
    let node = Node::new();
    let whole = packed(&publish_of(&text(1, 500)));
    for (at, broken) in [&[0xFF; 20][..], &whole[..whole.len() / 2], b""].into_iter().enumerate() {
        let mut client = connected(&node, &Hello::v5("a"));
        // What came before it is used.
        let ping = packed_frame(&encoded(Version::V5, &PingReq));
        client.send_raw(&[ping, as_packed(frame(true, Opcode::Binary, broken))].concat());
        client.expect(&Got::PingResp);
        client.expect_closed();
        assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1007));
        assert_eq!(node.counter("inflate_refused_broken"), at as u64 + 1);
        assert_eq!(node.counter("closed_websocket_violation"), at as u64 + 1);
    }
    node.assert_at_rest();
}

#[test]
fn a_message_is_packed_once_for_all_its_receivers() {
    let node = Node::new();
    let hello = |n: usize, name: &'static str| if n.is_multiple_of(2) { Hello::v5(name) } else { Hello::v3(name) };
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let mut clients: Vec<Client> =
        NAMES.iter().enumerate().map(|(n, name)| connected(&node, &hello(n, name))).collect();
    let qos_of = |n: usize| [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][n / 2];
    for (n, client) in clients.iter_mut().enumerate() {
        client.subscribe(&[("t/#", qos_of(n))]);
    }
    let mut plain = node.hello(&Hello::v5("plain"));
    plain.subscribe(&[("t/#", Qos::AtMostOnce)]);
    for (round, qos) in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].into_iter().enumerate() {
        let payload = text(round, 3_000);
        node.push_topic("t/x", &payload, qos);
        for (n, client) in clients.iter_mut().enumerate() {
            let arrived = client.expect_message();
            assert_eq!((&arrived.payload, arrived.qos), (&payload, qos.min(qos_of(n))));
            let (before, after) = client.websocket().packed[round];
            assert!(before == payload.len() && after < before / 2, "{before} and {after}");
            match arrived.qos {
                Qos::AtMostOnce => {}
                Qos::AtLeastOnce => client.puback(arrived.id),
                Qos::ExactlyOnce => {
                    client.ack(AckKind::PubRec, arrived.id);
                    client.expect(&Got::PubRel(arrived.id, 0));
                    client.ack(AckKind::PubComp, arrived.id);
                }
            }
        }
        assert_eq!(plain.expect_message().payload, payload);
        assert_eq!(node.counter("deflate_messages"), round as u64 + 1);
    }
    assert_eq!(node.counter("deflate_bytes_before"), 3 * 3_000);
    assert!(node.counter("deflate_bytes_after") < 3 * 1_500);
    clients.into_iter().for_each(Client::bye);
    plain.bye();
    node.assert_at_rest();
}

#[test]
fn several_messages_on_their_way_are_packed_each_and_leave_in_one_send() {
    let node = Node::new();
    let mut client = connected(&node, &Hello::v5("a"));
    client.subscribe(&[("t", Qos::AtMostOnce)]);
    let mut sender = node.hello(&Hello::v5("sender"));
    let sends = node.counter("sends");
    let payloads: Vec<Vec<u8>> = (0..5).map(|n| if n == 2 { b"short".to_vec() } else { text(n, 2_000) }).collect();
    sender.send(&payloads.iter().flat_map(|payload| publish_of(payload)).collect::<Vec<u8>>());
    let arrived: Vec<Vec<u8>> = client.messages().into_iter().map(|arrived| arrived.payload).collect();
    assert_eq!(arrived, payloads);
    assert_eq!(client.websocket().packed.len(), 4);
    assert_eq!(node.counter("sends"), sends + 1);
    client.bye();
    sender.bye();
    node.assert_at_rest();
}

#[test]
fn what_is_short_or_long_or_would_not_become_smaller_goes_as_it_is() {
    let node = Node::with(1, |limits| limits.packet_bytes = 1 << 18);
    let mut client = connected(&node, &Hello::v5("a"));
    client.subscribe(&[("t", Qos::AtLeastOnce)]);
    let mut random = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    })
    .take(5_000)
    .collect();
    let mut packs = 0;
    for (payload, is_packed) in [
        (text(0, DEFLATE_BYTES_MIN - 1), false),
        (text(1, DEFLATE_BYTES_MIN), true),
        (text(2, DEFLATE_BYTES_MIN + 1), true),
        (text(3, DEFLATE_BYTES_MAX), true),
        (text(4, DEFLATE_BYTES_MAX + 1), false),
        (noise, false),
        (b"end".to_vec(), false),
    ] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            node.push_topic("t", &payload, qos);
            let arrived = client.expect_message();
            assert!(arrived.payload == payload, "{} bytes", payload.len());
            packs += usize::from(is_packed);
            assert_eq!(client.websocket().packed.len(), packs, "{} bytes", payload.len());
            if qos == Qos::AtLeastOnce {
                client.puback(arrived.id);
            }
        }
    }
    assert_eq!(node.counter("deflate_not_smaller"), 2);
    node.assert_holds_no_buffers();
    client.bye();
    node.assert_at_rest();
}

#[test]
fn rfc7692_7_1_2_1_a_small_window_gets_packed_what_it_holds() {
    let node = Node::new();
    let answer = format!("{ANSWER}; server_max_window_bits=11");
    let mut narrow = Client::dial_packing(&node, "permessage-deflate; server_max_window_bits=11", &answer);
    narrow.hello(&Hello::v5("narrow"));
    narrow.expect_connack(0);
    let mut wide = connected(&node, &Hello::v5("wide"));
    for client in [&mut narrow, &mut wide] {
        client.subscribe(&[("t", Qos::AtMostOnce)]);
    }
    for (bytes, narrow_packed) in [(2_047, 1), (2_048, 2), (2_049, 2)] {
        let payload = text(bytes, bytes);
        node.push_topic("t", &payload, Qos::AtMostOnce);
        assert_eq!(narrow.expect_message().payload, payload);
        assert_eq!(wide.expect_message().payload, payload);
        assert_eq!(narrow.websocket().packed.len(), narrow_packed, "{bytes}");
    }
    assert_eq!(wide.websocket().packed.len(), 3);
    narrow.bye();
    wide.bye();
    node.assert_at_rest();
}

#[test]
fn what_was_kept_for_a_device_reaches_it_packed() {
    let node = Node::new();
    let payloads: Vec<Vec<u8>> = (0..3).map(|n| text(n, 20_000)).collect();
    let mut client = connected(&node, &Hello::lasting("u"));
    client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    client.hang_up();
    for payload in &payloads {
        node.push(Target::User("u".into()), payload, Qos::AtLeastOnce).expect("it is stored");
    }
    let mut client = connected(&node, &Hello::lasting("u").clean(false));
    for payload in &payloads {
        let arrived = client.expect_message();
        assert!(arrived.payload == *payload && arrived.topic == "$inbox/push");
        client.puback(arrived.id);
    }
    assert_eq!(client.websocket().packed.len(), 3);

    // A retained one, with an identifier and by an alias's name.
    let mut keeper = node.hello(&Hello::v5("keeper"));
    let mut retained = publish("kept", &payloads[0], Qos::AtMostOnce, 0);
    retained.retain = true;
    keeper.send_packet(&retained);
    keeper.expect_pong();
    client.subscribe(&[("kept", Qos::AtMostOnce)]);
    let arrived = client.expect_message();
    assert!(arrived.payload == payloads[0] && arrived.retain);
    assert_eq!(client.websocket().packed.len(), 4);
    keeper.bye();
    client.bye();
    node.assert_holds_no_buffers();
}

#[test]
fn a_connection_moves_to_its_home_with_part_of_a_packed_message() {
    let node = Node::with_shards(4);
    for round in 0..8 {
        let user = format!("u{round}");
        let mut client = dial(&node);
        let ping = encoded(Version::V5, &PingReq);
        let rest = packed(&ping.repeat(40));
        let (start, end) = rest.split_at(rest.len() / 2);
        let first = [
            packed_frame(&Hello::v5(&user).frame()),
            packed_frame(&ping),
            as_packed(frame(false, Opcode::Binary, start)),
        ];
        client.send_raw(&first.concat());
        client.expect_connack(0);
        client.expect(&Got::PingResp);
        client.send_raw(&frame(true, Opcode::Continuation, end));
        assert_eq!(client.all(), vec![Got::PingResp; 40]);
        client.bye();
    }
    node.assert_at_rest();
}

#[test]
fn a_turn_packs_so_much_and_the_rest_goes_as_it_is() {
    let node = Node::with(1, |limits| limits.outbox_bytes = 8 << 20);
    let mut client = connected(&node, &Hello::v5("a"));
    client.subscribe(&[("t", Qos::AtMostOnce)]);
    let mut sender = node.hello(&Hello::v5("sender"));
    let payloads: Vec<Vec<u8>> = (0..40).map(|n| text(n, 12_000)).collect();
    sender.send(&payloads.iter().flat_map(|payload| publish_of(payload)).collect::<Vec<u8>>());
    let arrived: Vec<Vec<u8>> = client.messages().into_iter().map(|arrived| arrived.payload).collect();
    assert!(arrived == payloads);
    let packed = client.websocket().packed.len() as u64;
    assert_eq!(packed, node.counter("deflate_messages"));
    assert!(packed as usize >= TURN_DEFLATE_BYTES_MAX / 12_000, "{packed}");
    if packed < 40 {
        assert!(node.counter("deflate_skipped_busy") > 0);
    }
    client.bye();
    sender.bye();
    node.assert_at_rest();
}

#[test]
fn a_turn_unpacks_so_much_and_the_rest_waits_in_line() {
    let node = Node::new();
    let mut others: Vec<Client> = ["b", "c", "d"].iter().map(|name| connected(&node, &Hello::v5(name))).collect();
    let mut client = connected(&node, &Hello::v5("a"));
    let large = packed_frame(&publish_of(&[b'x'; 200_000]));
    for client in &mut others {
        client.write(&large.repeat(8));
    }
    client.write(&large.repeat(8));
    node.run();
    assert_eq!(node.counter("published_qos0"), 32);
    assert!(node.counter("inflate_waits") > 0);
    client.expect_pong();
    node.assert_holds_no_buffers();
    client.bye();
    others.into_iter().for_each(Client::bye);
    node.assert_at_rest();
}
