//! HTTP on the edge port: what a request is told, and that nothing of it stays.

use crate::bad_input::Scene;
use crate::client::Client;
use kittiwake::limits::{HANDSHAKE_TIMEOUT, HTTP_HEAD_BYTES_MAX, HTTP_TARGET_BYTES_MAX};

/// A request is answered with this status, in JSON, and closed.
#[track_caller]
fn is_told(scene: &mut Scene, request: &[u8], status: u16) -> String {
    let before = scene.node.counter("refused_http");
    let mut client = scene.node.dial();
    client.send(request);
    let answer = answer(&mut client);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("\r\nContent-Type: application/problem+json\r\n"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(answer.ends_with('}') && answer.contains(&format!("\"status\":{status},")), "{answer}");
    assert!(client.is_closed());
    assert_eq!(scene.node.counter("refused_http"), before + 1);
    scene.node.assert_holds_no_buffers();
    scene.bystander_is_served();
    answer
}

fn answer(client: &mut Client) -> String {
    String::from_utf8(client.take_bytes()).expect("answers are text")
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: edge.example\r\n\r\n").into_bytes()
}

#[test]
fn a_request_that_leads_nowhere_is_told_why() {
    let mut scene = Scene::new();
    is_told(&mut scene, &get("/nothing?x=1"), 404);
    let answer = is_told(&mut scene, b"POST /mqtt HTTP/1.1\r\nHost: a\r\n\r\n", 405);
    assert!(answer.contains("\r\nAllow: GET\r\n"), "{answer}");
    is_told(&mut scene, b"GET / HTTP/1.1\r\n\r\n", 400);
    is_told(&mut scene, b"GET /mqtt HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 400);
    is_told(&mut scene, b"GET /mqtt HTTP/3.0\r\nHost: a\r\n\r\n", 505);
    is_told(&mut scene, &get(&"/a".repeat(HTTP_TARGET_BYTES_MAX)), 414);
    let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "c".repeat(HTTP_HEAD_BYTES_MAX));
    is_told(&mut scene, huge.as_bytes(), 431);
    scene.ends();
}

#[test]
fn a_plain_get_of_mqtt_is_told_to_upgrade() {
    let mut scene = Scene::new();
    let answer = is_told(&mut scene, &get("/mqtt"), 426);
    assert!(answer.contains("\r\nUpgrade: websocket\r\n") && answer.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    scene.ends();
}

#[test]
fn a_request_may_come_a_byte_at_a_time_but_not_for_ever() {
    let scene = Scene::new();
    let mut client = scene.node.dial();
    client.send_slowly(&get("/nothing"));
    assert!(answer(&mut client).starts_with("HTTP/1.1 404 "));
    for start in [&b"G"[..], b"GET /nothing HT", b"GET /nothing HTTP/1.1\r\nHost: a\r\n"] {
        let before = scene.node.counter("closed_handshake_timeout");
        let mut client = scene.node.dial();
        client.send(start);
        client.expect_nothing();
        scene.node.advance(HANDSHAKE_TIMEOUT.as_millis() as u64);
        client.expect_closed();
        assert_eq!(scene.node.counter("closed_handshake_timeout"), before + 1);
    }
    scene.ends();
}
