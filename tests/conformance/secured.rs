//! TLS, the PROXY protocol and what a listener asks, in virtual time.

use crate::client::{Client, Hello, ends};
use crate::node::Node;
use core::time::Duration;
use kittiwake::auth::BanRule;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{HANDSHAKE_TIMEOUT, PROXY_V1_BYTES_MAX, TURN_COSTLY_MAX};
use kittiwake::shard::command::{ConnectionQuery, Target};
use kittiwake::shard::{Door, Protocols, TlsUse};
use kittiwake::wire::tls::{self, Heard};

fn node(shards: u16, door: Door) -> Node {
    Node::with_settings(shards, |settings| {
        settings.tls = Some(ends().0.clone());
        settings.doors = vec![door];
    })
}

/// The address of the one connection, which is kept waiting for this.
fn peer_of(node: &Node) -> String {
    let figures = node.connections(ConnectionQuery::Slowest(1));
    assert_eq!(figures.len(), 1);
    figures[0].peer.to_string()
}

/// Says who it is and leaves a message unacknowledged.
fn come_and_wait(node: &Node, client: &mut Client) {
    client.hello(&Hello::v5("a"));
    client.expect_connack(0);
    client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    node.push(to_user("a"), b"x", Qos::AtLeastOnce).expect("it is stored");
    client.expect_message();
}

fn to_user(user: &str) -> Target {
    Target::User(user.into())
}

#[test]
fn a_secured_connection_moves_home_and_is_idle_without_a_block() {
    for shards in [1, 4] {
        let node = node(shards, Door::OPEN);
        let mut clients: Vec<Client> = (0..8)
            .map(|number| {
                let mut client = Client::dial_secured(&node, &ends().1);
                client.hello(&Hello::v5(&format!("d{number}")));
                client.expect_connack(0);
                client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
                client
            })
            .collect();
        assert_eq!((node.gauge("transforms"), node.counter("tls_handshakes_done")), (8, 8));
        assert!(shards == 1 || node.gauges("connections").iter().filter(|&&count| count > 0).count() > 1);
        node.assert_holds_no_buffers();
        for (number, client) in clients.iter_mut().enumerate() {
            node.push(to_user(&format!("d{number}")), &vec![b'x'; 100_000], Qos::AtLeastOnce).expect("it is stored");
            let message = client.expect_message();
            assert_eq!(message.payload.len(), 100_000);
            client.puback(message.id);
        }
        node.run();
        node.assert_holds_no_buffers();
        clients.into_iter().for_each(Client::bye);
        assert_eq!((node.gauge("transforms"), node.gauge("tls_handshakes")), (0, 0));
        node.assert_at_rest();
    }
}

#[test]
fn handshakes_that_fail_are_their_addresss_and_get_it_banned() {
    let node = Node::with_settings(1, |settings| {
        settings.tls = Some(ends().0.clone());
        let minute = Duration::from_secs(60);
        settings.limits.defence.bans = BanRule { weight: 90, time: minute, time_max: minute };
    });
    // Half of them break the rules, half leave in the middle. Each weighs ten.
    for (rounds, failed, bans) in [(4, 8, 0), (1, 10, 1)] {
        for _ in 0..rounds {
            let mut broken = Client::dial_plain_from(&node, "192.0.2.66:4711");
            broken.send(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0x7f]);
            broken.hang_up();
            let mut gone = Client::dial_plain_from(&node, "192.0.2.66:4712");
            gone.send(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
            gone.hang_up();
        }
        node.advance(1_500);
        assert_eq!((node.counter("tls_handshakes_failed"), node.counter("bans")), (failed, bans));
    }
    let mut banned = Client::dial_plain_from(&node, "192.0.2.66:4713");
    assert!(banned.is_closed());
    assert_eq!(node.counter("refused_banned_source"), 1);
    let mut other = Client::dial_plain_from(&node, "192.0.2.67:4711").secured(&ends().1);
    other.hello(&Hello::v5("a"));
    other.expect_connack(0);
}

#[test]
fn a_handshake_that_is_not_finished_ends_with_its_deadline() {
    let node = node(1, Door::OPEN);
    let millis = u64::try_from(HANDSHAKE_TIMEOUT.as_millis()).expect("it is short");
    // Nothing, a part of the first record, all of it, and all but the last of the client's records.
    let mut silent = [Client::dial_plain(&node), Client::dial_plain(&node), Client::dial_plain(&node)];
    silent[1].send(&[22, 3, 1]);
    silent[2].send(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    let greeted = Client::dial_greeting(&node, &ends().1);
    let agreed = Client::dial_secured(&node, &ends().1);
    assert_eq!(node.gauge("tls_handshakes"), 3);
    for _ in 0..9 {
        // A byte now and then helps nobody.
        node.advance(millis / 10);
        silent[2].send(&[0]);
    }
    assert_eq!(node.gauge("connections"), 5);
    node.advance(millis / 10 + 200);
    assert_eq!((node.gauge("connections"), node.gauge("tls_handshakes")), (0, 0));
    assert_eq!(node.counter("tls_handshakes_failed"), 3);
    drop((silent, greeted, agreed));
    node.assert_at_rest();
}

#[test]
fn so_many_handshakes_are_under_way_and_no_more() {
    let node = Node::with_settings(1, |settings| {
        settings.tls = Some(ends().0.clone());
        settings.limits.tls_handshakes = 3;
    });
    let under_way: Vec<Client> = (0..3).map(|_| Client::dial_greeting(&node, &ends().1)).collect();
    assert_eq!((node.gauge("tls_handshakes"), node.counter("refused_tls_busy")), (3, 0));
    let mut refused = Client::dial_plain(&node);
    refused.send(&[22, 3, 1, 2, 0, 1]);
    assert_eq!(refused.take_bytes(), tls::REFUSAL);
    assert!(refused.is_closed());
    assert_eq!(node.counter("refused_tls_busy"), 1);
    // Who speaks plainly is served meanwhile, and one that leaves makes room.
    node.connect("plain").bye();
    drop(under_way);
    node.run();
    assert_eq!(node.gauge("tls_handshakes"), 0);
    let mut client = Client::dial_secured(&node, &ends().1);
    client.hello(&Hello::v5("a"));
    client.expect_connack(0);
    client.bye();
    node.assert_at_rest();
}

#[test]
fn a_turn_does_so_many_steps_of_handshakes_and_the_others_come_in_the_next() {
    let node = node(1, Door::OPEN);
    let count = 3 * TURN_COSTLY_MAX;
    let clients: Vec<Client> = (0..count).map(|_| Client::dial_greeting_unseen(&node, &ends().1)).collect();
    node.run();
    assert!(node.counter("handshake_steps_delayed") > 0);
    assert_eq!(node.gauge("tls_handshakes"), count as u64);
    let answered = |mut client: Client| client.answers_handshake();
    assert!(clients.into_iter().all(answered));
    node.run();
    node.assert_at_rest();
}

#[test]
fn all_that_was_said_leaves_before_the_end_is_said() {
    let node = node(1, Door::OPEN);
    let mut client = Client::dial_secured(&node, &ends().1);
    client.send(b"GET /nothing HTTP/1.1\r\nHost: edge\r\n\r\n");
    let answer = String::from_utf8(client.take_bytes()).expect("it is text");
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with('}'), "{answer}");
    assert_eq!(client.heard(), Some((true, Heard::End)));
    let mut client = Client::dial_secured(&node, &ends().1);
    client.hello(&Hello::v5("a"));
    client.expect_connack(0);
    client.send(b"\x10\x02no");
    client.expect_goodbye(0x81);
    assert_eq!(client.heard(), Some((true, Heard::End)));
    drop(client);
    node.run();
    node.assert_at_rest();
}

#[test]
fn a_websocket_inside_tls_is_as_any_other_also_when_it_does_not_wait_to_be_agreed_on() {
    let node = node(2, Door::OPEN);
    let mut client = Client::dial_secured(&node, &ends().1);
    client.upgrade_at_once("/mqtt", &Hello::v5("w"));
    client.expect_connack(0);
    client.subscribe(&[("a", Qos::AtMostOnce)]);
    client.publish("a", &vec![b'y'; 70_000], Qos::AtMostOnce, 0);
    assert_eq!(client.expect_message().payload.len(), 70_000);
    node.assert_holds_no_buffers();
    client.bye();
    node.assert_at_rest();
}

#[test]
fn whatever_is_said_within_tls_or_instead_of_it_leaves_nothing() {
    let node = node(1, Door::OPEN);
    let mut bystander = node.connect("bystander");
    bystander.subscribe(&[("a", Qos::AtMostOnce)]);
    for garbage in
        [&b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"[..], b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", b"\x16\x02"]
    {
        let mut client = Client::dial_plain(&node);
        client.send(garbage);
        drop(client);
    }
    for garbage in [&b"\0\0\0\0\0"[..], b"\x17\x03\x03\x00\x15abcdefghijklmnopqrstu", b"\x15\x03\x03\x00\x02\x02\x28"] {
        let mut client = Client::dial_secured(&node, &ends().1);
        client.hello(&Hello::v5("a"));
        client.expect_connack(0);
        client.send_below(garbage);
        client.take_bytes();
        assert!(client.is_closed(), "{garbage:x?}");
        drop(client);
    }
    assert!(node.counter("closed_tls_violation") >= 3);
    bystander.publish("a", b"still here", Qos::AtMostOnce, 0);
    bystander.expect_text("still here");
    bystander.bye();
    node.assert_at_rest();
}

#[test]
fn a_listener_speaks_what_it_was_told_to() {
    let only = |protocols: Protocols, tls| Door { tls, protocols, proxies: Vec::new() };
    let none = Protocols { mqtt: false, websocket: false, sse: false, poll: false };
    let poll = b"GET /poll?user=a&device=d&inbox=1&timeout_ms=0 HTTP/1.1\r\nHost: edge\r\n\r\n";
    let node_with = |protocols, tls| node(1, only(protocols, tls));
    let node = node_with(Protocols { poll: true, ..none }, TlsUse::Detected);
    for secured in [false, true] {
        let dial = || if secured { Client::dial_secured(&node, &ends().1) } else { Client::dial_plain(&node) };
        let mut client = dial();
        client.send(poll);
        assert!(client.take_bytes().starts_with(b"HTTP/1.1 200 "));
        for path in ["/mqtt", "/events?inbox=1&user=a&device=d"] {
            let mut client = dial();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n").as_bytes());
            assert!(client.take_bytes().starts_with(b"HTTP/1.1 404 "), "{path}");
        }
        let mut client = dial();
        client.send(&Hello::v5("a").frame());
        assert!(client.take_bytes().is_empty() && client.is_closed());
    }
    assert_eq!(node.counter("refused_protocol"), 2);
    let node = node_with(Protocols::ALL, TlsUse::Always);
    let mut plain = Client::dial_plain(&node);
    plain.send(&Hello::v5("a").frame());
    assert!(plain.take_bytes().is_empty() && plain.is_closed());
    assert_eq!(node.counter("refused_without_tls"), 1);
    let mut client = Client::dial_secured(&node, &ends().1);
    client.hello(&Hello::v5("a"));
    client.expect_connack(0);
    let node = node_with(Protocols::ALL, TlsUse::Never);
    let mut client = Client::dial_greeting(&node, &ends().1);
    assert!(!client.answers_handshake() && client.is_closed());
}

#[test]
fn a_balancer_says_for_whom_it_speaks_and_nobody_else_may() {
    let (peer, said) = ("10.0.0.9:4711", "192.0.2.77:5555");
    let door = |prefix: &str| Door { proxies: vec![prefix.parse().expect("it is one")], ..Door::OPEN };
    let v1 = "PROXY TCP4 192.0.2.77 198.51.100.1 5555 1883\r\n";
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x4d\xc6\x33\x64\x01\x15\xb3\x07\x5b";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    let node = node(2, door("10.0.0.0/24"));
    for (head, expected) in [(v1.as_bytes(), said), (v2, said), (local, peer)] {
        for slowly in [false, true] {
            let mut client = Client::dial_plain_from(&node, peer);
            match slowly {
                true => client.send_slowly(head),
                false => client.write_first(head),
            }
            come_and_wait(&node, &mut client);
            assert_eq!(peer_of(&node), expected);
            client.bye();
        }
        let mut client = Client::dial_plain_from(&node, peer);
        client.send(head);
        let mut client = client.secured(&ends().1);
        come_and_wait(&node, &mut client);
        assert_eq!(peer_of(&node), expected);
        client.bye();
    }
    let proxied = node.counter("proxied");
    assert_eq!((proxied, node.counter("refused_proxy")), (6, 0));
    // From a balancer a head has to come first.
    let mut client = Client::dial_plain_from(&node, peer);
    client.send(&Hello::v5("a").frame());
    assert!(client.take_bytes().is_empty() && client.is_closed());
    drop(client);
    node.run();
    let mut client = Client::dial_plain_from(&node, peer);
    client.send(&[b'P'; PROXY_V1_BYTES_MAX]);
    assert!(client.is_closed());
    drop(client);
    // Anybody else is who it is, and may not say otherwise.
    let mut client = Client::dial_plain_from(&node, "10.0.1.9:4711");
    come_and_wait(&node, &mut client);
    assert_eq!(peer_of(&node), "10.0.1.9:4711");
    client.bye();
    for (head, from) in [(v1.as_bytes(), "10.0.1.9:4712"), (v2, "10.0.1.9:4713")] {
        let mut client = Client::dial_plain_from(&node, from);
        client.send(head);
        assert!(client.take_bytes().is_empty() && client.is_closed());
    }
    assert_eq!(node.counter("refused_proxy"), 4);
    node.assert_at_rest();
}
