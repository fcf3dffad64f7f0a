//! The handshake (RFC 6455 §4.2).

use crate::bad_input::Scene;
use crate::client::{Client, Got, Hello};
use crate::node::Node;
use crate::websocket::{WebSocket, assert_accepted, frame, request};
use kittiwake::limits::HANDSHAKE_TIMEOUT;
use kittiwake::wire::http::Origins;
use kittiwake::wire::websocket::Opcode;

fn answered(node: &Node, request: &str) -> String {
    let mut client = node.dial();
    client.send(request.as_bytes());
    String::from_utf8(client.take_bytes()).expect("an answer is text")
}

#[track_caller]
fn is_refused(scene: &mut Scene, headers: &[(&str, &str)], status: u16) {
    let before = scene.node.counter("refused_http");
    let answer = answered(&scene.node, &request("/mqtt", headers));
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?}: {answer}");
    if status == 426 {
        assert!(answer.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{answer}");
    }
    assert_eq!(scene.node.counter("refused_http"), before + 1);
    scene.node.assert_holds_no_buffers();
    scene.bystander_is_served();
}

#[test]
fn rfc6455_4_2_2_a_request_as_it_should_be_is_accepted() {
    let scene = Scene::new();
    assert_accepted(&answered(&scene.node, &request("/mqtt", &[])));
    assert_accepted(&answered(&scene.node, &request("/mqtt?x=y", &[("Connection", "keep-alive, upgrade")])));
    assert_accepted(&answered(&scene.node, &request("/mqtt", &[("Sec-WebSocket-Protocol", "mqttv3.1, mqtt")])));
    // §9.1: an extension that is offered need not be taken.
    let answer = answered(&scene.node, &request("/mqtt", &[("Sec-WebSocket-Extensions", "permessage-bzip2")]));
    assert_accepted(&answer);
    assert!(!answer.contains("Extensions"));
    scene.ends();
}

#[test]
fn rfc6455_4_2_1_a_request_that_lacks_something_is_refused() {
    let mut scene = Scene::new();
    is_refused(&mut scene, &[("Upgrade", "")], 426);
    is_refused(&mut scene, &[("Connection", "keep-alive")], 426);
    is_refused(&mut scene, &[("Sec-WebSocket-Version", "8")], 426);
    is_refused(&mut scene, &[("Sec-WebSocket-Version", "")], 426);
    is_refused(&mut scene, &[("Sec-WebSocket-Key", "")], 400);
    is_refused(&mut scene, &[("Sec-WebSocket-Key", "c2hvcnQ=")], 400);
    is_refused(&mut scene, &[("Host", "")], 400);
    scene.ends();
}

#[test]
fn mqtt5_6_0_0_3_the_subprotocol_mqtt_must_be_offered() {
    let mut scene = Scene::new();
    is_refused(&mut scene, &[("Sec-WebSocket-Protocol", "")], 400);
    is_refused(&mut scene, &[("Sec-WebSocket-Protocol", "mqttv3.1")], 400);
    scene.ends();
}

#[test]
fn rfc6455_10_2_a_page_of_another_host_is_refused() {
    let mut scene = Scene::new();
    is_refused(&mut scene, &[("Origin", "https://evil.example")], 403);
    is_refused(&mut scene, &[("Origin", "null")], 403);
    assert_accepted(&answered(&scene.node, &request("/mqtt", &[("Origin", "https://edge.example")])));
    scene.ends();
}

#[test]
fn pages_on_the_list_may_connect() {
    let list = ["https://app.example".to_owned()];
    let node = Node::with_origins(Origins::new(&list).expect("it is one"));
    assert_accepted(&answered(&node, &request("/mqtt", &[("Origin", "https://app.example")])));
    let refused = answered(&node, &request("/mqtt", &[("Origin", "https://edge.example")]));
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    node.assert_at_rest();
}

#[test]
fn packets_may_follow_the_request_at_once() {
    let node = Node::new();
    let mut client = node.dial();
    let connect = frame(true, Opcode::Binary, &Hello::v5("eager").frame());
    client.send(&[request("/mqtt", &[]).as_bytes(), &connect].concat());
    let bytes = client.take_bytes();
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("an answer comes first") + 4;
    assert_accepted(core::str::from_utf8(&bytes[..head]).expect("it is text"));
    let (mut websocket, mut packets) = (WebSocket::default(), Vec::new());
    websocket.take(&bytes[head..], &mut packets);
    assert_eq!((packets[0], packets[3], websocket.messages), (0x20, 0, 1));
    client.hang_up();
    node.assert_at_rest();
}

#[test]
fn a_request_may_come_a_byte_at_a_time() {
    let node = Node::new();
    let mut client = node.dial();
    client.send_slowly(request("/mqtt", &[]).as_bytes());
    assert_accepted(core::str::from_utf8(&client.take_bytes()).expect("it is text"));
    client.hang_up();
    node.assert_at_rest();
}

#[test]
fn a_websocket_must_say_connect_in_time_and_nothing_else_first() {
    let scene = Scene::new();
    let before = scene.node.counter("closed_handshake_timeout");
    let mut silent = Client::dial_websocket(&scene.node);
    scene.node.advance(HANDSHAKE_TIMEOUT.as_millis() as u64);
    silent.expect_closed();
    assert_eq!(scene.node.counter("closed_handshake_timeout"), before + 1);

    let before = scene.node.counter("closed_protocol_error");
    for first in [&b"\xC0\0"[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = Client::dial_websocket(&scene.node);
        client.send(first);
        client.expect_closed();
    }
    assert_eq!(scene.node.counter("closed_protocol_error"), before + 2);
    scene.ends();
}

#[test]
fn a_connect_that_is_refused_is_told_so_before_the_close_frame() {
    let scene = Scene::new();
    let mut client = Client::dial_websocket(&scene.node);
    client.hello(&Hello::v3(&"x".repeat(300)));
    let Some(Got::ConnAck(welcome)) = client.next() else { panic!("no CONNACK") };
    assert_eq!(welcome.code, 2);
    client.expect_closed();
    assert_eq!(client.websocket().closed.flatten().map(|code| code.0), Some(1008));
    scene.ends();
}
