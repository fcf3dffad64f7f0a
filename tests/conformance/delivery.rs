//! The steps of each QoS, clause by clause, and what a subscription gets.

use crate::client::{Client, Got, Hello, publish};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::RECEIVE_MAXIMUM_OUT;
use kittiwake::wire::mqtt::{Ack, AckKind, Filter, PacketId, Publish, Reason};

const ALL: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// A lasting subscriber to `a`, of each version.
fn subscriber(node: &Node, version: usize, qos: Qos) -> (Client, Hello<'static>) {
    let hello = if version == 0 { Hello::lasting("phone") } else { Hello::v3("phone").clean(false) };
    let mut client = node.hello(&hello);
    client.subscribe(&[("a", qos)]);
    (client, hello)
}

fn refuse(client: &mut Client, kind: AckKind, id: u16) {
    let packet_id = PacketId::new(id).expect("it is one");
    client.send_packet(&Ack { reason: Reason::Unspecified, ..Ack::success(kind, packet_id) });
}

#[test]
fn mqtt5_3_3_4_1_a_publish_is_answered_as_its_qos_says() {
    let node = Node::new();
    for hello in [Hello::v5("five"), Hello::v3("three")] {
        let mut client = node.hello(&hello);
        let nobody = if hello.0.properties == Default::default() && hello.0.version as u8 == 0 { 0 } else { 0x10 };
        client.publish("a", b"x", Qos::AtMostOnce, 0);
        client.expect_nothing();
        client.publish("a", b"x", Qos::AtLeastOnce, 7);
        client.expect(&Got::PubAck(7, nobody));
        client.publish("a", b"x", Qos::ExactlyOnce, 8);
        client.expect(&Got::PubRec(8, nobody));
        client.ack(AckKind::PubRel, 8);
        client.expect(&Got::PubComp(8, 0));
        client.expect_nothing();
    }
}

#[test]
fn mqtt5_2_2_1_2_a_qos_0_message_has_no_packet_identifier() {
    let node = Node::new();
    for (hello, bytes) in [(Hello::v5("five"), &b"\x30\x05\0\x01a\0x"[..]), (Hello::v3("three"), b"\x30\x04\0\x01ax")] {
        let mut client = node.hello(&hello);
        client.subscribe(&[("a", Qos::ExactlyOnce)]);
        // What would be an identifier is payload.
        client.send(bytes);
        client.expect_text("x");
        assert_eq!(client.last_frame(), bytes);
        client.bye();
    }
}

#[test]
fn mqtt5_2_2_1_5_acknowledgements_have_the_identifier_of_what_they_answer() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::lasting("phone"));
    phone.subscribe(&[("a", Qos::ExactlyOnce)]);
    for id in [1, 2, 0x1234, u16::MAX] {
        phone.publish("b", b"x", Qos::AtLeastOnce, id);
        phone.expect(&Got::PubAck(id, 0x10));
        phone.publish("b", b"x", Qos::ExactlyOnce, id);
        phone.expect(&Got::PubRec(id, 0x10));
        phone.ack(AckKind::PubRel, id);
        phone.expect(&Got::PubComp(id, 0));
        node.push_topic("a", b"x", Qos::ExactlyOnce);
        let delivery = phone.expect_text("x").id;
        phone.ack(AckKind::PubRec, delivery);
        phone.expect(&Got::PubRel(delivery, 0));
        phone.ack(AckKind::PubComp, delivery);
    }
}

#[test]
fn mqtt5_2_2_1_6_subacks_have_the_identifier_of_their_subscribe() {
    let node = Node::new();
    for hello in [Hello::v5("five"), Hello::v3("three")] {
        let mut client = node.hello(&hello);
        let is_five = hello.0.version as u8 == 1;
        for id in [1_u16, 0x1234, u16::MAX] {
            let [high, low] = id.to_be_bytes();
            let subscribe: &[u8] =
                if is_five { &[0x82, 7, high, low, 0, 0, 1, b'a', 0] } else { &[0x82, 6, high, low, 0, 1, b'a', 0] };
            client.send(subscribe);
            client.expect(&Got::SubAck(id, vec![0]));
            let unsubscribe: &[u8] =
                if is_five { &[0xA2, 6, high, low, 0, 0, 1, b'a'] } else { &[0xA2, 5, high, low, 0, 1, b'a'] };
            client.send(unsubscribe);
            client.expect(&Got::UnsubAck(id, if is_five { vec![0] } else { vec![] }));
        }
    }
}

#[test]
fn mqtt5_2_2_2_1_where_there_are_no_properties_their_length_is_zero() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    let id = phone.start_subscribe(&[Filter::new("a", Qos::AtLeastOnce)], None);
    phone.expect(&Got::SubAck(id, vec![1]));
    assert_eq!(phone.last_frame(), [0x90, 4, 0, 1, 0, 1]);
    node.push_topic("a", b"x", Qos::AtLeastOnce);
    phone.expect_text("x");
    assert_eq!(phone.last_frame(), [0x32, 7, 0, 1, b'a', 0, 1, 0, b'x']);
    let id = phone.unsubscribe(&["a"]);
    phone.expect(&Got::UnsubAck(id, vec![0]));
    assert_eq!(phone.last_frame(), [0xB0, 4, 0, 2, 0, 0]);
}

#[test]
fn mqtt5_3_3_1_3_dup_says_only_whether_this_sending_is_another() {
    let node = Node::with_shards(2);
    for (version, qos) in [(0, Qos::AtLeastOnce), (1, Qos::ExactlyOnce)] {
        let (mut phone, hello) = subscriber(&node, version, qos);
        let mut publisher = node.connect("publisher");
        publisher.send_packet(&Publish { dup: true, ..publish("a", b"marked", qos, 1) });
        assert!(!phone.expect_text("marked").dup, "the publisher's mark is its own");
        phone.hang_up();
        let mut phone = node.hello(&hello);
        assert!(phone.expect_text("marked").dup);
        phone.hang_up();
        node.hello(&Hello::v3("phone")).bye();
    }
}

#[test]
fn mqtt5_4_3_1_1_qos_0_is_sent_once_without_dup() {
    for version in [0, 1] {
        let node = Node::new();
        let (mut phone, hello) = subscriber(&node, version, Qos::ExactlyOnce);
        node.push_topic("a", b"x", Qos::AtMostOnce);
        let arrived = phone.expect_text("x");
        assert_eq!((arrived.qos, arrived.dup, arrived.id), (Qos::AtMostOnce, false, 0));
        phone.hang_up();
        node.hello(&hello).expect_nothing();
    }
}

#[test]
fn mqtt5_4_3_2_1_each_message_in_flight_has_an_identifier_of_its_own() {
    let node = Node::new();
    let (mut phone, _) = subscriber(&node, 0, Qos::ExactlyOnce);
    for number in 0..RECEIVE_MAXIMUM_OUT {
        node.push_topic("a", b"x", ALL[1 + usize::from(number % 2)]);
    }
    let arrived = phone.messages();
    let mut ids: Vec<u16> = arrived.iter().map(|arrived| arrived.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), usize::from(RECEIVE_MAXIMUM_OUT));
    assert!(ids[0] > 0 && arrived.iter().all(|arrived| !arrived.dup));
}

#[test]
fn mqtt5_4_3_2_3_a_message_is_unacknowledged_until_its_puback() {
    for version in [0, 1] {
        let node = Node::new();
        let (mut phone, hello) = subscriber(&node, version, Qos::AtLeastOnce);
        node.push_topic("a", b"x", Qos::AtLeastOnce);
        let id = phone.expect_text("x").id;
        // Neither time nor another message's acknowledgement settles it.
        for _ in 0..3 {
            phone.puback(id + 1);
            node.advance(1_000);
            phone.hang_up();
            phone = node.hello(&hello);
            assert_eq!(phone.expect_text("x").id, id);
        }
        phone.puback(id);
        phone.hang_up();
        node.hello(&hello).expect_nothing();
    }
}

#[test]
fn mqtt5_4_3_2_5_after_a_puback_the_same_identifier_is_a_new_message() {
    let node = Node::new();
    let mut watcher = node.hello(&Hello::lasting("watcher"));
    watcher.subscribe(&[("a", Qos::AtLeastOnce)]);
    for hello in [Hello::lasting("five"), Hello::v3("three")] {
        let mut client = node.hello(&hello);
        for dup in [false, true, true] {
            client.send_packet(&Publish { dup, ..publish("a", b"x", Qos::AtLeastOnce, 9) });
            client.expect(&Got::PubAck(9, 0));
        }
        assert_eq!(watcher.drain(), ["x", "x", "x"]);
    }
}

#[test]
fn mqtt5_4_3_3_3_a_qos_2_message_is_unacknowledged_until_its_pubrec_and_pubcomp() {
    for version in [0, 1] {
        let node = Node::new();
        let (mut phone, hello) = subscriber(&node, version, Qos::ExactlyOnce);
        node.push_topic("a", b"x", Qos::ExactlyOnce);
        let first = phone.expect_text("x");
        assert_eq!((first.qos, first.dup), (Qos::ExactlyOnce, false));
        for _ in 0..3 {
            phone.hang_up();
            phone = node.hello(&hello);
            let again = phone.expect_text("x");
            assert_eq!((again.id, again.dup), (first.id, true));
        }
        phone.ack(AckKind::PubRec, first.id);
        phone.expect(&Got::PubRel(first.id, 0));
        for _ in 0..3 {
            phone.hang_up();
            phone = node.hello(&hello);
            // The PUBLISH never again, the PUBREL each time.
            assert_eq!(phone.all(), [Got::PubRel(first.id, 0)]);
        }
        phone.ack(AckKind::PubComp, first.id);
        phone.hang_up();
        node.hello(&hello).expect_nothing();
    }
}

#[test]
fn mqtt5_4_3_3_7_expiry_does_not_touch_what_was_sent() {
    let node = Node::new();
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let (mut phone, hello) = subscriber(&node, 0, qos);
        let mut publisher = node.connect("publisher");
        let mut message = publish("a", b"x", qos, 1);
        message.properties.message_expiry_seconds = Some(5);
        publisher.send_packet(&message);
        let id = phone.expect_text("x").id;
        phone.hang_up();
        node.advance(10_000);
        let mut phone = node.hello(&hello);
        let again = phone.expect_text("x");
        assert_eq!((again.id, again.dup, again.expiry), (id, true, Some(0)));
        if qos == Qos::AtLeastOnce {
            phone.puback(id);
        } else {
            phone.ack(AckKind::PubRec, id);
            phone.expect(&Got::PubRel(id, 0));
            phone.ack(AckKind::PubComp, id);
        }
        phone.hang_up();
        node.hello(&hello).expect_nothing();
        node.hello(&Hello::v5("phone")).bye();
    }
}

#[test]
fn mqtt5_4_3_3_9_after_a_pubrec_that_refused_the_identifier_is_free() {
    let node = Node::new();
    let mut watcher = node.hello(&Hello::lasting("watcher"));
    watcher.subscribe(&[("a", Qos::AtLeastOnce)]);
    for hello in [Hello::v5("passing"), Hello::lasting("lasting")] {
        let mut phone = node.hello(&hello);
        phone.publish("$SYS/x", b"x", Qos::ExactlyOnce, 5);
        phone.expect(&Got::PubRec(5, 0x87));
        phone.publish("a", b"x", Qos::ExactlyOnce, 5);
        phone.expect(&Got::PubRec(5, 0));
        assert_eq!(watcher.drain(), ["x"]);
        phone.ack(AckKind::PubRel, 5);
        phone.expect(&Got::PubComp(5, 0));
    }
}

#[test]
fn mqtt5_4_3_3_13_the_steps_go_on_after_the_message_has_expired() {
    let node = Node::new();
    let (mut watcher, _) = subscriber(&node, 0, Qos::AtMostOnce);
    let mut phone = node.connect("publisher");
    let mut message = publish("a", b"x", Qos::ExactlyOnce, 3);
    message.properties.message_expiry_seconds = Some(1);
    phone.send_packet(&message);
    phone.expect(&Got::PubRec(3, 0));
    watcher.expect_text("x");
    node.advance(5_000);
    phone.send_packet(&Publish { dup: true, ..message });
    phone.expect(&Got::PubRec(3, 0));
    watcher.expect_nothing();
    phone.ack(AckKind::PubRel, 3);
    phone.expect(&Got::PubComp(3, 0));
}

#[test]
fn mqtt5_4_4_0_2_what_a_client_refuses_is_not_sent_again() {
    let node = Node::new();
    let hello = Hello::lasting("phone");
    let mut phone = node.hello(&hello);
    phone.subscribe(&[("a", Qos::ExactlyOnce)]);
    node.push_topic("a", b"once", Qos::AtLeastOnce);
    node.push_topic("a", b"twice", Qos::ExactlyOnce);
    let arrived = phone.messages();
    refuse(&mut phone, AckKind::PubAck, arrived[0].id);
    refuse(&mut phone, AckKind::PubRec, arrived[1].id);
    // A refusal ends a QoS 2 message: no PUBREL.
    phone.expect_nothing();
    assert_eq!(node.counter("refused_by_client"), 2);
    phone.hang_up();
    node.hello(&hello).expect_nothing();
}

#[test]
fn mqtt5_4_5_0_1_a_message_is_kept_for_every_session_that_subscribes_to_it() {
    for shards in [1, 2] {
        let node = Node::with_shards(shards);
        let hellos: Vec<_> = ["ann", "bob", "cid", "dan"].map(Hello::lasting).into_iter().collect();
        for (at, hello) in hellos.iter().enumerate() {
            let mut client = node.hello(hello);
            client.subscribe(&[(["a/b", "a/+", "#", "other"][at], Qos::AtLeastOnce)]);
            if at % 2 == 0 { client.bye() } else { client.hang_up() }
        }
        let mut publisher = node.connect("publisher");
        publisher.publish("a/b", b"x", Qos::AtLeastOnce, 1);
        publisher.expect(&Got::PubAck(1, 0));
        for hello in &hellos[..3] {
            node.hello(hello).expect_and_ack("x");
        }
        node.hello(&hellos[3]).expect_nothing();
    }
}

#[test]
fn mqtt5_3_8_4_8_the_smaller_of_both_qos_is_what_arrives() {
    for version in [0, 1] {
        for granted in ALL {
            for lasting in [false, true] {
                let node = Node::new();
                let hello = match (version, lasting) {
                    (0, false) => Hello::v5("phone"),
                    (0, true) => Hello::lasting("phone"),
                    (_, lasting) => Hello::v3("phone").clean(!lasting),
                };
                let mut phone = node.hello(&hello);
                phone.subscribe(&[("a", granted)]);
                for published in ALL {
                    node.push_topic("a", b"x", published);
                    assert_eq!(phone.expect_text("x").qos, published.min(granted));
                }
            }
        }
    }
}

#[test]
fn mqtt5_3_8_4_6_a_suback_has_a_code_for_each_filter_in_their_order() {
    let node = Node::new();
    for (hello, bad) in [(Hello::v5("five"), 0x8F), (Hello::v3("three"), 0x80)] {
        let deep = "a/".repeat(40);
        let mut client = node.hello(&hello);
        let filters = [
            Filter::new("a", Qos::ExactlyOnce),
            Filter::new(&deep, Qos::AtMostOnce),
            Filter::new("b/#", Qos::AtMostOnce),
            Filter::new(&deep, Qos::ExactlyOnce),
            Filter::new("+", Qos::AtLeastOnce),
        ];
        let id = client.start_subscribe(&filters, None);
        client.expect(&Got::SubAck(id, vec![2, bad, 0, bad, 1]));
        // As if each had come alone: those that are right stand.
        assert_eq!(node.gauge("subscriptions"), 3);
        node.push_topic("b/c", b"x", Qos::AtLeastOnce);
        assert_eq!(client.expect_text("x").qos, Qos::AtMostOnce);
        client.bye();
    }
}

#[test]
fn mqtt5_3_10_4_1_filters_are_taken_away_by_their_very_characters() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    phone.subscribe(&[("a/+", Qos::AtLeastOnce), ("a/b", Qos::AtLeastOnce)]);
    let id = phone.unsubscribe(&["a/#", "A/+", "a/+/", "a/b "]);
    phone.expect(&Got::UnsubAck(id, vec![0x11; 4]));
    assert_eq!(node.gauge("subscriptions"), 2);
    // A wildcard takes away itself, not what it matches.
    let id = phone.unsubscribe(&["a/+"]);
    phone.expect(&Got::UnsubAck(id, vec![0]));
    node.push_topic("a/c", b"gone", Qos::AtLeastOnce);
    node.push_topic("a/b", b"still", Qos::AtLeastOnce);
    phone.expect_and_ack("still");
    phone.expect_nothing();
}

#[test]
fn mqtt5_3_10_4_3_what_was_begun_is_completed_after_an_unsubscribe() {
    for (version, hello) in [(0, Hello::lasting("phone")), (1, Hello::v3("phone").clean(false))] {
        let node = Node::new();
        let (mut phone, _) = subscriber(&node, version, Qos::ExactlyOnce);
        node.push_topic("a", b"once", Qos::AtLeastOnce);
        node.push_topic("a", b"twice", Qos::ExactlyOnce);
        let begun = phone.messages();
        phone.unsubscribe(&["a"]);
        assert!(matches!(phone.next(), Some(Got::UnsubAck(..))));
        node.push_topic("a", b"too late", Qos::ExactlyOnce);
        phone.expect_nothing();
        phone.hang_up();
        let mut phone = node.hello(&hello);
        let again = phone.messages();
        assert!(again.iter().map(|a| (a.id, a.text(), a.dup)).eq(begun.iter().map(|a| (a.id, a.text(), true))));
        phone.puback(again[0].id);
        phone.ack(AckKind::PubRec, again[1].id);
        phone.expect(&Got::PubRel(again[1].id, 0));
        phone.ack(AckKind::PubComp, again[1].id);
        phone.hang_up();
        node.hello(&hello).expect_nothing();
    }
}

#[test]
fn mqtt5_3_3_4_10_a_full_window_delays_nothing_but_publishes() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::lasting("phone").receive_maximum(1));
    phone.subscribe(&[("a", Qos::ExactlyOnce)]);
    for text in ["first", "second"] {
        node.push_topic("a", text.as_bytes(), Qos::ExactlyOnce);
    }
    let first = phone.expect_text("first");
    phone.expect_nothing();
    phone.expect_pong();
    phone.publish("b", b"x", Qos::AtLeastOnce, 7);
    phone.expect(&Got::PubAck(7, 0x10));
    phone.publish("b", b"x", Qos::ExactlyOnce, 8);
    phone.expect(&Got::PubRec(8, 0x10));
    phone.ack(AckKind::PubRel, 8);
    phone.expect(&Got::PubComp(8, 0));
    let id = phone.start_subscribe(&[Filter::new("c", Qos::AtMostOnce)], None);
    phone.expect(&Got::SubAck(id, vec![0]));
    let id = phone.unsubscribe(&["c"]);
    phone.expect(&Got::UnsubAck(id, vec![0]));
    phone.ack(AckKind::PubRec, first.id);
    // The PUBREL, too, leaves; the window opens with the PUBCOMP.
    phone.expect(&Got::PubRel(first.id, 0));
    phone.expect_nothing();
    phone.ack(AckKind::PubComp, first.id);
    phone.expect_text("second");
}

#[test]
fn mqtt5_3_12_4_1_a_pingreq_is_answered() {
    let node = Node::new();
    for hello in [Hello::v5("five"), Hello::v3("three")] {
        let mut client = node.hello(&hello);
        client.send(b"\xC0\0\xC0\0\xC0\0");
        assert_eq!(client.all(), [Got::PingResp, Got::PingResp, Got::PingResp]);
    }
}

#[test]
fn mqtt5_3_14_4_1_nothing_follows_a_disconnect() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    phone.subscribe(&[("a", Qos::AtLeastOnce)]);
    // The end comes first, then in one piece what would be answered.
    phone.send(b"\0\0\xC0\0\x32\x06\0\x01a\0\x01\0");
    node.push_topic("a", b"x", Qos::AtLeastOnce);
    phone.expect_goodbye(0x81);
    let mut phone = node.connect("phone");
    phone.subscribe(&[("a", Qos::AtLeastOnce)]);
    phone.send(b"\xE0\0\xC0\0\x30\x05\0\x01a\0x");
    phone.expect_closed();
}

#[test]
fn mqtt311_3_3_5_2_a_publish_that_is_not_allowed_is_acknowledged_and_goes_nowhere() {
    let node = Node::new();
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("#", Qos::AtMostOnce), ("$other/#", Qos::AtMostOnce)]);
    let mut old = node.hello(&Hello::v3("old"));
    old.publish("$other/x", b"x", Qos::AtLeastOnce, 1);
    old.expect(&Got::PubAck(1, 0));
    old.publish("$other/x", b"x", Qos::ExactlyOnce, 2);
    old.expect(&Got::PubRec(2, 0));
    old.expect_pong();
    watcher.expect_nothing();
    assert_eq!(node.counter("publish_refused"), 2);
}

#[test]
fn mqtt311_3_3_5_1_overlapping_subscriptions_deliver_at_the_highest_qos() {
    for lasting in [false, true] {
        let node = Node::with_shards(2);
        let mut old = node.hello(&Hello::v3("old").clean(!lasting));
        old.subscribe(&[("a/#", Qos::AtMostOnce), ("a/b", Qos::ExactlyOnce), ("a/+", Qos::AtLeastOnce)]);
        for qos in ALL {
            node.push_topic("a/b", b"x", qos);
            assert_eq!(old.expect_text("x").qos, qos);
            // One copy, which the standard allows.
            old.expect_nothing();
        }
    }
}

#[test]
fn mqtt311_3_10_4_5_an_unsubscribe_of_nothing_is_answered() {
    let node = Node::new();
    for hello in [Hello::v3("old"), Hello::v3("lasting").clean(false)] {
        let mut old = node.hello(&hello);
        old.subscribe(&[("a", Qos::AtLeastOnce), ("b", Qos::AtLeastOnce), ("c", Qos::AtLeastOnce)]);
        for (filters, left) in [(&["x"][..], 3), (&["a", "y", "b", "a"], 1), (&["a"], 1)] {
            let id = old.unsubscribe(filters);
            assert_eq!(old.all(), [Got::UnsubAck(id, vec![])]);
            assert_eq!(node.gauge("subscriptions"), left);
        }
        old.bye();
        node.hello(&Hello::v3("lasting")).bye();
    }
}

#[test]
fn mqtt311_4_6_0_4_pubrels_leave_in_the_order_of_the_pubrecs() {
    for (version, name) in [(0, "phone"), (1, "phone")] {
        let node = Node::new();
        let (mut phone, _) = subscriber(&node, version, Qos::ExactlyOnce);
        for _ in 0..6 {
            node.push_topic("a", b"x", Qos::ExactlyOnce);
        }
        let ids: Vec<u16> = phone.messages().iter().map(|arrived| arrived.id).collect();
        let order = [ids[3], ids[0], ids[5], ids[1], ids[4], ids[2]];
        node.hold_commits();
        for id in order {
            phone.ack(AckKind::PubRec, id);
        }
        phone.expect_nothing();
        node.release_commits();
        assert!(phone.all().into_iter().eq(order.map(|id| Got::PubRel(id, 0))), "{name}");
    }
}
