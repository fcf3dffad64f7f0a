//! What reaches a subscriber is what was published: topics, payloads and properties.

use crate::client::{Arrived, Client, Hello, encoded, publish, will};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::properties::{PublishProperties, UserProperties};
use kittiwake::wire::mqtt::{Filter, Publish, Version};

const PAIRS: [(&str, &str); 5] = [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("größe", "\u{FEFF}x")];

fn rich<'a>(publish: Publish<'a>) -> Publish<'a> {
    let properties = PublishProperties {
        payload_is_utf8: Some(true),
        content_type: Some("text/plain; größe"),
        response_topic: Some("answers/42"),
        correlation_data: Some(&[0, 255, 1]),
        user: UserProperties::borrowed(&PAIRS),
        ..PublishProperties::default()
    };
    Publish { properties, ..publish }
}

#[track_caller]
fn assert_rich(arrived: &Arrived) {
    assert_eq!(arrived.is_utf8, Some(true));
    assert_eq!(arrived.content_type.as_deref(), Some("text/plain; größe"));
    assert_eq!(arrived.response_topic.as_deref(), Some("answers/42"));
    assert_eq!(arrived.correlation.as_deref(), Some(&[0, 255, 1][..]));
    let pairs = PAIRS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(arrived.user, pairs);
}

/// A subscriber by each road that a message may take: copied from the pass, encoded for it alone, read from the log.
fn by_each_road(node: &Node) -> Vec<Client> {
    let mut simple = node.connect("simple");
    simple.subscribe(&[("a/b", Qos::ExactlyOnce)]);
    let mut general = node.connect("general");
    general.subscribe_with(&[Filter::new("a/#", Qos::ExactlyOnce)], Some(5));
    let mut lasting = node.hello(&Hello::lasting("lasting"));
    lasting.subscribe(&[("a/+", Qos::ExactlyOnce)]);
    vec![simple, general, lasting]
}

#[test]
fn mqtt5_3_3_2_17_properties_are_forwarded_unaltered_and_in_their_order() {
    for shards in [1, 2] {
        let node = Node::with_shards(shards);
        let mut subscribers = by_each_road(&node);
        let away = Hello::lasting("away");
        let mut client = node.hello(&away);
        client.subscribe(&[("a/b", Qos::AtLeastOnce)]);
        client.hang_up();
        let mut publisher = node.connect("publisher");
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            publisher.send_packet(&rich(publish("a/b", "größe".as_bytes(), qos, qos as u16)));
            for subscriber in &mut subscribers {
                let arrived = subscriber.expect_text("größe");
                assert_eq!((arrived.qos, arrived.topic.as_str()), (qos, "a/b"));
                assert_rich(&arrived);
            }
        }
        let mut back = node.hello(&away);
        for _ in 0..2 {
            assert_rich(&back.expect_text("größe"));
        }
    }
}

#[test]
fn mqtt5_3_3_2_4_a_payload_format_is_forwarded_as_it_was_said() {
    let node = Node::new();
    let mut subscribers = by_each_road(&node);
    let mut publisher = node.connect("publisher");
    for is_utf8 in [None, Some(false), Some(true)] {
        let mut message = publish("a/b", b"x", Qos::AtLeastOnce, 1);
        message.properties.payload_is_utf8 = is_utf8;
        publisher.send_packet(&message);
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.expect_and_ack("x").is_utf8, is_utf8);
        }
    }
}

#[test]
fn a_payload_that_is_not_what_its_format_says_is_refused() {
    let node = Node::new();
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("a", Qos::AtMostOnce)]);
    let mut phone = node.connect("phone");
    for (bytes, code) in [(&b"\xC3\xA4"[..], 0), (b"", 0), (b"\0", 0), (b"\xC3", 0x99), (b"\xED\xA0\x80", 0x99)] {
        let mut message = publish("a", bytes, Qos::AtLeastOnce, 1);
        message.properties.payload_is_utf8 = Some(true);
        phone.send_packet(&message);
        phone.expect(&crate::client::Got::PubAck(1, code));
        let mut message = publish("a", bytes, Qos::ExactlyOnce, 2);
        message.properties.payload_is_utf8 = Some(true);
        phone.send_packet(&message);
        phone.expect(&crate::client::Got::PubRec(2, code));
        if code == 0 {
            phone.ack(kittiwake::wire::mqtt::AckKind::PubRel, 2);
            phone.expect(&crate::client::Got::PubComp(2, 0));
        }
        assert_eq!(watcher.messages().len(), if code == 0 { 2 } else { 0 });
        let mut message = publish("a", bytes, Qos::AtMostOnce, 0);
        message.properties.payload_is_utf8 = Some(true);
        phone.send_packet(&message);
        phone.expect_nothing();
        assert_eq!(watcher.messages().len(), usize::from(code == 0));
        // Unmarked, any bytes are a payload.
        phone.publish("a", bytes, Qos::AtMostOnce, 0);
        assert_eq!(watcher.messages().len(), 1);
    }
    assert_eq!(node.counter("publish_refused"), 6);
    let mut last = will("a", b"\xFF", Qos::AtMostOnce);
    last.properties.payload_is_utf8 = Some(true);
    let mut client = node.dial();
    client.hello(&Hello::v5("bad").will(last));
    client.expect_connack(0x99);
    client.expect_closed();
}

#[test]
fn mqtt5_3_1_3_10_a_will_is_published_with_its_properties_in_their_order() {
    let node = Node::with_shards(2);
    let mut watcher = node.hello(&Hello::lasting("watcher"));
    watcher.subscribe(&[("wills", Qos::ExactlyOnce)]);
    let mut last = will("wills", "größe".as_bytes(), Qos::AtLeastOnce);
    last.properties.payload_is_utf8 = Some(true);
    last.properties.content_type = Some("text/plain; größe");
    last.properties.response_topic = Some("answers/42");
    last.properties.correlation_data = Some(&[0, 255, 1]);
    last.properties.user = UserProperties::borrowed(&PAIRS);
    last.properties.message_expiry_seconds = Some(60);
    last.properties.delay_seconds = Some(3);
    node.hello(&Hello::lasting("phone").will(last)).hang_up();
    node.advance(3_200);
    let arrived = watcher.expect_and_ack("größe");
    assert_rich(&arrived);
    // It counts from the publication, not from the CONNECT.
    assert_eq!(arrived.expiry, Some(60));
}

#[test]
fn mqtt5_1_5_4_3_a_byte_order_mark_stays_where_it_is() {
    let node = Node::with_shards(2);
    let mut phone = node.connect("\u{FEFF}phone");
    phone.subscribe(&[("\u{FEFF}a", Qos::AtMostOnce)]);
    let mut publisher = node.connect("phone");
    publisher.publish("a", b"another topic", Qos::AtMostOnce, 0);
    publisher.publish("\u{FEFF}a", "\u{FEFF}x".as_bytes(), Qos::AtMostOnce, 0);
    assert_eq!(phone.expect_text("\u{FEFF}x").topic, "\u{FEFF}a");
    // Nor are the two clients one.
    assert_eq!(node.gauge("connections"), 2);
}

#[test]
fn mqtt5_4_7_3_4_names_are_compared_as_they_are() {
    let node = Node::with_shards(2);
    // Composed and decomposed, upper and lower case, with and without spaces and slashes, unassigned characters.
    let names = ["ä", "a\u{308}", "A", "a", "a ", " a", "/a", "a/", "a//b", "a/b", "\u{1}", "\u{FFFF}", "\u{E0FFF}"];
    for (filter_of, filter) in [("exact", ""), ("wildcard", "/+")] {
        let mut phone = node.connect(filter_of);
        for name in names {
            phone.subscribe(&[(&format!("{name}{filter}"), Qos::AtMostOnce)]);
        }
        for name in names {
            let topic = if filter.is_empty() { name.to_owned() } else { format!("{name}/x") };
            node.push_topic(&topic, name.as_bytes(), Qos::AtMostOnce);
            let arrived = phone.messages();
            assert_eq!(arrived.len(), 1, "{name:?}");
            assert_eq!(arrived[0].topic, topic);
        }
        for name in names {
            assert!(phone.unsubscribe(&[&format!("{name}{filter}")]) > 0);
        }
        assert_eq!(phone.all().len(), names.len());
        assert_eq!(node.gauge("filters"), 0);
    }
}

#[test]
fn mqtt5_3_3_2_3_a_message_comes_under_a_name_that_a_filter_matches() {
    let node = Node::new();
    for (filter, yes, no) in [
        (
            "sport/tennis/player1/#",
            &["sport/tennis/player1", "sport/tennis/player1/ranking/x"][..],
            &["sport/tennis"][..],
        ),
        (
            "sport/tennis/+",
            &["sport/tennis/player1", "sport/tennis/"],
            &["sport/tennis", "sport/tennis/player1/ranking"],
        ),
        ("+/+", &["/finance", "a/b"], &["finance"]),
        ("/+", &["/finance"], &["finance", "a/b"]),
        ("+", &["finance"], &["/finance"]),
        ("#", &["/", "a", "a/b"], &[]),
    ] {
        for hello in [Hello::v5("phone"), Hello::v3("phone")] {
            let mut phone = node.hello(&hello);
            phone.subscribe(&[(filter, Qos::AtMostOnce)]);
            for topic in yes.iter().chain(no) {
                node.push_topic(topic, b"x", Qos::AtMostOnce);
            }
            assert!(phone.messages().iter().map(|arrived| arrived.topic.as_str()).eq(yes.iter().copied()), "{filter}");
            phone.bye();
        }
    }
}

#[test]
fn mqtt5_3_3_2_6_a_message_says_what_is_left_of_its_expiry() {
    let node = Node::with_shards(2);
    let hello = Hello::lasting("phone");
    let mut phone = node.hello(&hello);
    phone.subscribe(&[("a", Qos::AtLeastOnce)]);
    let mut publisher = node.connect("publisher");
    let mut expiring = |seconds: u32, text: &str| {
        let mut message = publish("a", text.as_bytes(), Qos::AtLeastOnce, 1);
        message.properties.message_expiry_seconds = Some(seconds);
        let frame = encoded(Version::V5, &message);
        publisher.send(&frame);
    };
    expiring(60, "at once");
    assert_eq!(phone.expect_and_ack("at once").expiry, Some(60));
    phone.hang_up();
    for (seconds, text) in [(9, "gone"), (10, "just gone"), (11, "just there"), (100, "there"), (u32::MAX, "for ever")]
    {
        expiring(seconds, text);
    }
    node.advance(10_000);
    let mut phone = node.hello(&hello);
    for (text, left) in [("just there", 1), ("there", 90), ("for ever", u32::MAX - 10)] {
        assert_eq!(phone.expect_and_ack(text).expiry, Some(left));
    }
    phone.expect_nothing();
    assert_eq!(node.counter("dropped_expired"), 2);
}
