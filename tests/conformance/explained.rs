//! Reason strings, and that no packet is larger than its client takes.

use crate::client::{Client, Got, Hello, publish, will};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::SUBSCRIPTIONS_MAX;
use kittiwake::wire::mqtt::{AckKind, Filter};

/// Does much that is answered, most of it refused; the end is a protocol error.
fn misbehave(node: &Node, client: &mut Client) -> Vec<Got> {
    let deep = "a/".repeat(40);
    let mut got = client.all();
    client.start_subscribe(&[Filter::new("a", Qos::ExactlyOnce)], None);
    client.start_subscribe(&[Filter::new(&deep, Qos::AtMostOnce), Filter::new("b", Qos::AtMostOnce)], Some(1));
    got.extend(client.all());
    client.unsubscribe(&["b", "none"]);
    client.publish("$SYS/x", b"x", Qos::AtLeastOnce, 1);
    client.publish("$SYS/x", b"x", Qos::ExactlyOnce, 2);
    client.publish(&deep, b"x", Qos::AtLeastOnce, 3);
    client.ack(AckKind::PubRel, 9);
    client.ack(AckKind::PubRec, 9);
    got.extend(client.all());
    client.publish("b", b"x", Qos::ExactlyOnce, 4);
    client.ack(AckKind::PubRel, 4);
    node.push_topic("a", b"x", Qos::ExactlyOnce);
    got.extend(client.all());
    let delivery =
        got.iter().rev().find_map(|got| if let Got::Publish(arrived) = got { Some(arrived.id) } else { None });
    if let Some(id) = delivery {
        client.ack(AckKind::PubRec, id);
        client.ack(AckKind::PubComp, id);
    }
    client.send(b"\xC0\0\x30\x04\0\0\0x");
    got.extend(client.all());
    got
}

#[test]
fn mqtt5_3_1_2_24_no_packet_of_any_kind_is_larger_than_the_client_takes() {
    let node = Node::new();
    let mut whole = node.connect("whole");
    let everything = misbehave(&node, &mut whole);
    let longest = whole.longest_frame();
    assert!(longest > 40 && everything.len() > 12, "{everything:?}");
    for bytes in 1..=longest as u32 + 1 {
        let mut client = node.dial();
        client.hello(&Hello::v5("small").packet_bytes(bytes));
        let got = misbehave(&node, &mut client);
        assert!(client.longest_frame() <= bytes as usize, "{bytes}: {} in {got:?}", client.longest_frame());
        // Whatever does not fit is left out or ends the connection; the client is never left waiting.
        assert!(client.is_closed(), "{bytes}");
    }
}

#[test]
fn mqtt5_3_4_2_2_a_reason_string_is_left_out_where_it_does_not_fit() {
    // Each answer: how it is provoked, and its bytes without a word.
    type Provoke = fn(&mut Client);
    let answers: [(Provoke, Got); 6] = [
        (|client| client.publish("$SYS/x", b"", Qos::AtLeastOnce, 1), Got::PubAck(1, 0x87)),
        (|client| client.publish("$SYS/x", b"", Qos::ExactlyOnce, 1), Got::PubRec(1, 0x87)),
        (|client| client.ack(AckKind::PubRec, 1), Got::PubRel(1, 0x92)),
        (|client| client.ack(AckKind::PubRel, 1), Got::PubComp(1, 0x92)),
        (
            |client| {
                client.start_subscribe(&[Filter::new(&"a/".repeat(40), Qos::AtMostOnce)], None);
            },
            Got::SubAck(1, vec![0x8F]),
        ),
        (|client| client.send(b"\0\0"), Got::Disconnect(0x81)),
    ];
    let node = Node::new();
    for (provoke, expected) in answers {
        let mut client = node.connect("wordy");
        provoke(&mut client);
        client.expect(&expected);
        let (words, users) = client.last_words();
        assert!(words.is_some_and(|words| words.len() > 10), "{expected:?}");
        assert_eq!(users, 0);
        let whole = client.last_frame().len();
        for (bytes, is_said) in [(whole - 1, false), (whole, true), (whole + 1, true)] {
            // A CONNACK has to fit as well, so there is padding where an answer is shorter.
            let mut client = node.dial();
            client.hello(&Hello::v5("wordy").packet_bytes(bytes as u32));
            client.expect_connack(0);
            provoke(&mut client);
            client.expect(&expected);
            assert_eq!(client.last_words().0.is_some(), is_said, "{expected:?} in {bytes}");
        }
    }
}

#[test]
fn mqtt5_3_1_2_29_who_wants_no_problem_information_gets_no_words() {
    let node = Node::new();
    let mut client = node.hello(&Hello::v5("quiet").problems(false));
    client.publish("$SYS/x", b"", Qos::AtLeastOnce, 1);
    client.expect(&Got::PubAck(1, 0x87));
    assert_eq!(client.last_words(), (None, 0));
    client.publish("$SYS/x", b"", Qos::ExactlyOnce, 2);
    client.expect(&Got::PubRec(2, 0x87));
    assert_eq!(client.last_words(), (None, 0));
    client.ack(AckKind::PubRel, 9);
    client.expect(&Got::PubComp(9, 0x92));
    assert_eq!(client.last_words(), (None, 0));
    client.ack(AckKind::PubRec, 9);
    client.expect(&Got::PubRel(9, 0x92));
    assert_eq!(client.last_words(), (None, 0));
    let id = client.start_subscribe(&[Filter::new(&"a/".repeat(40), Qos::AtMostOnce)], None);
    client.expect(&Got::SubAck(id, vec![0x8F]));
    assert_eq!(client.last_words(), (None, 0));
    let id = client.unsubscribe(&["none"]);
    client.expect(&Got::UnsubAck(id, vec![0x11]));
    assert_eq!(client.last_words(), (None, 0));
    // Messages keep their user properties.
    client.subscribe(&[("a", Qos::AtMostOnce)]);
    let mut message = publish("a", b"x", Qos::AtMostOnce, 0);
    message.properties.user = kittiwake::wire::mqtt::properties::UserProperties::borrowed(&[("k", "v")]);
    client.send_packet(&message);
    assert_eq!(client.expect_text("x").user.len(), 1);
    // A session is not quiet for its next connection's sake.
    let mut wordy = node.hello(&Hello::v5("quiet").problems(true));
    wordy.publish("$SYS/x", b"", Qos::AtLeastOnce, 1);
    wordy.expect(&Got::PubAck(1, 0x87));
    assert!(wordy.last_words().0.is_some());
}

#[test]
fn successes_need_no_words() {
    let node = Node::new();
    let mut client = node.connect("phone");
    client.subscribe(&[("a", Qos::AtMostOnce)]);
    assert_eq!(client.last_words(), (None, 0));
    client.publish("b", b"x", Qos::AtLeastOnce, 1);
    client.expect(&Got::PubAck(1, 0x10));
    assert_eq!(client.last_words(), (None, 0));
}

#[test]
fn mqtt5_3_14_2_2_a_servers_disconnect_has_no_session_expiry() {
    let node = Node::new();
    let mut first = node.hello(&Hello::lasting("phone"));
    let mut second = node.hello(&Hello::lasting("phone").keep_alive(1));
    first.expect(&Got::Disconnect(0x8E));
    let without = |frame: &[u8]| {
        let packet = kittiwake::wire::mqtt::decode(kittiwake::wire::mqtt::Version::V5, frame);
        let Ok(kittiwake::wire::mqtt::Packet::Disconnect(goodbye)) = packet else { panic!("{packet:?}") };
        goodbye.properties.session_expiry_seconds.is_none()
    };
    assert!(without(first.last_frame()));
    node.advance(2_000);
    second.expect(&Got::Disconnect(0x8D));
    assert!(without(second.last_frame()));
}

#[test]
fn a_suback_that_does_not_fit_ends_the_connection() {
    let node = Node::new();
    let mut client = node.dial();
    client.hello(&Hello::v5("small").packet_bytes(100));
    client.expect_connack(0);
    let names: Vec<String> = (0..SUBSCRIPTIONS_MAX).map(|number| number.to_string()).collect();
    let filters: Vec<_> = names.iter().map(|name| Filter::new(name, Qos::AtMostOnce)).collect();
    // 5 bytes around the codes.
    let id = client.start_subscribe(&filters[..95], None);
    client.expect(&Got::SubAck(id, vec![0; 95]));
    client.start_subscribe(&filters[..96], None);
    client.expect_goodbye(0x95);
    assert_eq!(node.counter("closed_packet_too_large"), 1);
}

#[test]
fn a_refusal_that_does_not_fit_is_not_sent() {
    let node = Node::new();
    for (bytes, fits) in [(4, false), (5, true), (6, true)] {
        let mut client = node.dial();
        client.hello(&Hello::v5("bad").packet_bytes(bytes).will(will("$x", b"", Qos::AtMostOnce)));
        if fits {
            client.expect_connack(0x87);
        }
        client.expect_closed();
    }
}
