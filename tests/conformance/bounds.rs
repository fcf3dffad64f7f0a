//! Limits that a packet can meet: one below, at, and one beyond. Those of packets' sizes, windows, subscriptions,
//! identities and aliases towards clients stand beside what they bound.

use crate::client::{Got, Hello, encoded, publish, will, with_alias};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{
    PACKET_BYTES_CEILING, RECEIVED_IDS_MAX, SERVER_REFERENCE_BYTES_MAX, SESSION_EXPIRY_MAX, TOPIC_ALIAS_MAX,
    TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX,
};
use kittiwake::wire::mqtt::{AckKind, Filter, Version};

/// Names around both bounds of a topic, and whether they are taken.
fn names() -> Vec<(String, bool)> {
    let levels = (TOPIC_LEVELS_MAX - 1..=TOPIC_LEVELS_MAX + 1).map(|levels| (vec!["a"; levels].join("/"), levels));
    let levels = levels.map(|(name, levels)| (name, levels <= TOPIC_LEVELS_MAX));
    let bytes = (TOPIC_BYTES_MAX - 1..=TOPIC_BYTES_MAX + 1).map(|bytes| ("b".repeat(bytes), bytes <= TOPIC_BYTES_MAX));
    levels.chain(bytes).collect()
}

#[test]
fn topics_are_published_to_up_to_their_bounds() {
    let node = Node::new();
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("#", Qos::AtMostOnce)]);
    for (hello, refusal) in [(Hello::v5("five"), 0x90), (Hello::v3("three"), 0)] {
        let mut client = node.hello(&hello);
        for (name, is_taken) in names() {
            client.publish(&name, b"x", Qos::AtLeastOnce, 1);
            // 3.1.1 cannot say no [MQTT-3.3.5-2].
            client.expect(&Got::PubAck(1, if is_taken { 0 } else { refusal }));
            let arrived = watcher.messages();
            assert_eq!(arrived.len(), usize::from(is_taken), "{} bytes", name.len());
            assert!(arrived.iter().all(|arrived| arrived.topic == name));
        }
    }
}

#[test]
fn the_longest_packet_of_any_configuration_is_taken_with_what_follows_at_once() {
    let node = Node::with(1, |limits| {
        (limits.packet_bytes, limits.outbox_bytes) = (PACKET_BYTES_CEILING, 4 * PACKET_BYTES_CEILING);
    });
    let mut client = node.hello(&Hello::v5("talker"));
    for behind in [0, 2, 16_000, 64_000] {
        // Fixed header, topic, packet identifier and no properties around it.
        let payload = vec![b'x'; PACKET_BYTES_CEILING - (4 + 3 + 2 + 1)];
        let longest = encoded(Version::V5, &publish("a", &payload, Qos::AtLeastOnce, 1));
        assert_eq!(longest.len(), PACKET_BYTES_CEILING);
        // What stands before it moves it against the blocks that receives bring.
        let mut bytes = encoded(Version::V5, &publish("c", b"z", Qos::AtMostOnce, 0));
        bytes.extend(longest);
        bytes.extend(encoded(Version::V5, &publish("b", &vec![b'y'; behind], Qos::AtLeastOnce, 2)));
        client.send(&bytes);
        assert_eq!(client.all(), [Got::PubAck(1, 0x10), Got::PubAck(2, 0x10)], "{behind} bytes behind it");
    }
}

#[test]
fn filters_are_subscribed_to_up_to_their_bounds() {
    let node = Node::new();
    for (hello, refusal) in [(Hello::v5("five"), 0x8F), (Hello::v3("three"), 0x80)] {
        let mut client = node.hello(&hello);
        for (name, is_taken) in names() {
            let id = client.start_subscribe(&[Filter::new(&name, Qos::AtMostOnce)], None);
            client.expect(&Got::SubAck(id, vec![if is_taken { 0 } else { refusal }]));
            assert_eq!(node.gauge("subscriptions"), u64::from(is_taken));
            client.unsubscribe(&[&name]);
            client.all();
        }
        client.bye();
    }
}

#[test]
fn wills_have_topics_up_to_their_bounds() {
    let node = Node::new();
    for (name, is_taken) in names() {
        for (hello, refusal) in [(Hello::v5("five"), 0x90), (Hello::v3("three"), 0x05)] {
            let mut client = node.dial();
            client.hello(&hello.will(will(&name, b"w", Qos::AtMostOnce)));
            client.expect_connack(if is_taken { 0 } else { refusal });
            assert_eq!(client.is_closed(), !is_taken);
        }
    }
}

#[test]
fn session_expiry_is_granted_up_to_its_bound_and_lowered_beyond_it() {
    let node = Node::new();
    let bound = u32::try_from(SESSION_EXPIRY_MAX.as_secs()).expect("it fits");
    for (wanted, told) in [
        (bound - 1, None),
        (bound, None),
        (bound + 1, Some(bound)),
        (u32::MAX - 1, Some(bound)),
        (u32::MAX, Some(bound)),
    ] {
        let mut phone = node.dial();
        phone.hello(&Hello::v5("phone").expiry(wanted));
        assert_eq!(phone.expect_connack(0).expiry, told, "{wanted}");
        phone.bye();
    }
}

#[test]
fn topic_aliases_are_taken_up_to_their_bound() {
    let node = Node::new();
    for (alias, is_taken) in [(TOPIC_ALIAS_MAX - 1, true), (TOPIC_ALIAS_MAX, true), (TOPIC_ALIAS_MAX + 1, false)] {
        let mut phone = node.connect("phone");
        phone.send_packet(&with_alias(publish("rooms/1", b"x", Qos::AtMostOnce, 0), alias));
        if is_taken { phone.expect_pong() } else { phone.expect_goodbye(0x94) }
    }
}

#[test]
fn a_311_client_holds_so_many_qos_2_identifiers_and_no_more() {
    let node = Node::new();
    let most = u16::try_from(RECEIVED_IDS_MAX).expect("it fits");
    let mut old = node.hello(&Hello::v3("old"));
    for id in 1..=most {
        old.publish("a", b"x", Qos::ExactlyOnce, id);
    }
    assert!(old.all().into_iter().eq((1..=most).map(|id| Got::PubRec(id, 0))));
    // One that it lets go of makes room for one.
    old.ack(AckKind::PubRel, 7);
    old.expect(&Got::PubComp(7, 0));
    old.publish("a", b"x", Qos::ExactlyOnce, most + 1);
    old.expect(&Got::PubRec(most + 1, 0));
    old.publish("a", b"x", Qos::ExactlyOnce, most + 2);
    old.expect_closed();
    assert_eq!(node.counter("closed_receive_maximum"), 1);
}

#[test]
fn a_server_reference_of_the_largest_size_is_told() {
    for bytes in [1, SERVER_REFERENCE_BYTES_MAX - 1, SERVER_REFERENCE_BYTES_MAX] {
        let reference = "s".repeat(bytes);
        let node = Node::with_settings(1, |settings| settings.server_reference = Some(reference.as_str().into()));
        // 2 of the header, more for a longer frame, the code, the properties' length, and the property's 3.
        let around = if bytes > 122 { 9 } else { 7 };
        let (whole, least) = (bytes + around, bytes + around - 1);
        let mut exact = node.hello(&Hello::v5("exact").packet_bytes(whole.max(60) as u32));
        let mut small = node.hello(&Hello::v5("small").packet_bytes(least.max(60) as u32));
        node.handle().drain();
        exact.expect(&Got::Disconnect(0x9C));
        assert_eq!(exact.last_frame().len(), whole);
        small.expect(&Got::Disconnect(0x9C));
        assert_eq!(small.last_frame().len(), if least >= 60 { 3 } else { whole });
    }
}
