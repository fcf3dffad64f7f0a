//! Topic aliases both ways, and subscription identifiers.

use crate::client::{Arrived, Client, Hello, publish, with_alias};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{TOPIC_ALIAS_MAX, TOPIC_ALIAS_OUT_MAX};
use kittiwake::wire::mqtt::{Filter, Publish};

/// A subscriber whose messages are encoded for it alone, as an identifier makes them.
fn listener(node: &Node, aliases: u16) -> Client {
    let mut phone = node.hello(&Hello::lasting("phone").alias_maximum(aliases));
    phone.subscribe_with(&[Filter::new("#", Qos::AtLeastOnce)], Some(1));
    phone
}

fn named(arrived: &Arrived) -> (&str, Option<u16>, bool) {
    (&arrived.topic, arrived.alias, arrived.is_named)
}

#[test]
fn mqtt5_3_1_2_26_no_alias_is_above_the_clients_maximum() {
    for maximum in [1, 2, TOPIC_ALIAS_OUT_MAX - 1, TOPIC_ALIAS_OUT_MAX, TOPIC_ALIAS_OUT_MAX + 1, u16::MAX] {
        let node = Node::with_shards(2);
        let mut phone = listener(&node, maximum);
        let given = maximum.min(TOPIC_ALIAS_OUT_MAX);
        for round in 0..2 {
            for number in 1..=given + 2 {
                let topic = format!("rooms/{number}");
                node.push_topic(&topic, b"x", if round == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce });
                let arrived = phone.expect_text("x");
                let alias = (number <= given).then_some(number);
                assert_eq!(named(&arrived), (&*topic, alias, round == 0 || alias.is_none()), "{maximum}");
                if arrived.id > 0 {
                    phone.puback(arrived.id);
                }
            }
        }
    }
}

#[test]
fn mqtt5_3_1_2_27_without_a_maximum_there_are_no_aliases() {
    let node = Node::new();
    for hello in [Hello::v5("silent"), Hello::v5("none").alias_maximum(0), Hello::v3("old")] {
        let mut client = node.hello(&hello);
        client.subscribe_with(&[Filter::new("#", Qos::AtLeastOnce)], None);
        for _ in 0..3 {
            node.push_topic("rooms/42", b"x", Qos::AtLeastOnce);
            assert_eq!(named(&client.expect_and_ack("x")), ("rooms/42", None, true));
        }
    }
}

#[test]
fn mqtt5_3_3_2_7_aliases_end_with_their_connection() {
    let node = Node::new();
    let mut phone = listener(&node, 5);
    node.push_topic("rooms/1", b"x", Qos::AtLeastOnce);
    assert_eq!(named(&phone.expect_text("x")), ("rooms/1", Some(1), true));
    node.push_topic("rooms/1", b"y", Qos::AtLeastOnce);
    assert_eq!(named(&phone.expect_text("y")), ("rooms/1", Some(1), false));
    phone.hang_up();
    // The new connection is told anew, also what is sent again; one that takes none gets none.
    let mut phone = node.hello(&Hello::lasting("phone").alias_maximum(5));
    assert_eq!(named(&phone.expect_text("x")), ("rooms/1", Some(1), true));
    assert_eq!(named(&phone.expect_text("y")), ("rooms/1", Some(1), false));
    phone.hang_up();
    let mut phone = node.hello(&Hello::lasting("phone"));
    assert_eq!(named(&phone.expect_and_ack("x")), ("rooms/1", None, true));
    assert_eq!(named(&phone.expect_and_ack("y")), ("rooms/1", None, true));
    // Nor do a client's own aliases outlive its connection.
    let mut first = node.connect("publisher");
    first.send_packet(&with_alias(publish("rooms/2", b"z", Qos::AtMostOnce, 0), 1));
    first.send_packet(&with_alias(publish("", b"z", Qos::AtMostOnce, 0), 1));
    assert_eq!(phone.messages().len(), 2);
    let mut second = node.connect("publisher");
    second.send_packet(&with_alias(publish("", b"z", Qos::AtMostOnce, 0), 1));
    second.expect_goodbye(0x82);
    phone.expect_nothing();
}

#[test]
fn an_inbox_push_is_named_by_an_alias_too() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::lasting("phone").alias_maximum(1));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    for (qos, is_named) in [(Qos::AtMostOnce, true), (Qos::AtLeastOnce, false), (Qos::AtMostOnce, false)] {
        node.push_user("phone", b"x", qos);
        let arrived = phone.expect_text("x");
        assert_eq!(named(&arrived), ("$inbox/push", Some(1), is_named));
    }
}

#[test]
fn a_topic_as_short_as_an_alias_has_none() {
    let node = Node::new();
    let mut phone = listener(&node, 3);
    for (topic, alias) in [("abc", None), ("abcd", Some(1)), ("a", None), ("äö", Some(2))] {
        node.push_topic(topic, b"x", Qos::AtMostOnce);
        assert_eq!(named(&phone.expect_text("x")), (topic, alias, true));
    }
}

#[test]
fn nothing_is_too_large_because_of_its_alias() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::lasting("phone").alias_maximum(3).packet_bytes(100));
    phone.subscribe_with(&[Filter::new("#", Qos::AtMostOnce)], Some(1));
    // 2 of the fixed header, 9 of the topic, 3 of the properties with the identifier; an alias is 3, and saves 7.
    for (bytes, alias) in [(98, None), (97, Some(1)), (100, Some(1)), (104, Some(1))] {
        node.push_topic("rooms/1", &vec![b'x'; bytes - 14], Qos::AtMostOnce);
        let arrived = phone.expect_message();
        assert_eq!((arrived.alias, phone.last_frame().len() <= 100), (alias, true), "{bytes}");
    }
    node.push_topic("rooms/1", &[b'x'; 105 - 14], Qos::AtMostOnce);
    phone.expect_nothing();
    assert_eq!(node.counter("dropped_too_large"), 1);
}

#[test]
fn an_alias_that_found_no_room_in_the_outbox_was_not_told() {
    let node = Node::with(1, |limits| limits.outbox_bytes = 64 << 10);
    let mut phone = listener(&node, 8);
    for number in 0..400 {
        let topic = format!("rooms/{}", number / 80);
        node.push_topic(&topic, &[b'x'; 1_000], Qos::AtMostOnce);
    }
    // The test's client does not know an alias that it was not told.
    let arrived = phone.messages();
    assert!(arrived.len() < 400 && node.counter("dropped_outbox_full") > 0);
    for number in 0..5 {
        node.push_topic(&format!("rooms/{number}"), b"x", Qos::AtMostOnce);
        assert_eq!(phone.expect_text("x").topic, format!("rooms/{number}"));
    }
}

#[test]
fn mqtt5_3_3_2_12_every_alias_up_to_the_servers_maximum_is_taken() {
    let node = Node::with_shards(2);
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("rooms/#", Qos::AtLeastOnce)]);
    let mut phone = node.connect("phone");
    for alias in 1..=TOPIC_ALIAS_MAX {
        let topic = format!("rooms/{alias}");
        phone.send_packet(&with_alias(publish(&topic, b"x", Qos::AtMostOnce, 0), alias));
    }
    for alias in (1..=TOPIC_ALIAS_MAX).rev() {
        let id = alias;
        phone.send_packet(&with_alias(publish("", b"y", Qos::AtLeastOnce, id), alias));
    }
    let topics: Vec<u16> =
        watcher.messages().iter().map(|arrived| arrived.topic["rooms/".len()..].parse().expect("a number")).collect();
    assert!(topics.into_iter().eq((1..=TOPIC_ALIAS_MAX).chain((1..=TOPIC_ALIAS_MAX).rev())));
    assert_eq!(phone.all().len(), usize::from(TOPIC_ALIAS_MAX));
}

#[test]
fn an_alias_of_a_refused_publish_stands_all_the_same() {
    let node = Node::new();
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("#", Qos::AtMostOnce)]);
    let mut phone = node.connect("phone");
    phone.send_packet(&with_alias(publish("$SYS/x", b"x", Qos::AtMostOnce, 0), 1));
    phone.send_packet(&with_alias(publish("", b"x", Qos::AtLeastOnce, 1), 1));
    phone.expect(&crate::client::Got::PubAck(1, 0x87));
    phone.send_packet(&with_alias(publish("rooms/1", b"x", Qos::AtMostOnce, 0), 1));
    phone.send_packet(&with_alias(publish("", b"y", Qos::AtMostOnce, 0), 1));
    assert_eq!(watcher.messages().len(), 2);
}

#[test]
fn mqtt5_3_3_4_3_the_identifiers_of_all_matching_filters_come_along_and_no_other() {
    let node = Node::with_shards(2);
    for hello in [Hello::v5("phone"), Hello::lasting("phone")] {
        let mut phone = node.hello(&hello);
        let own = Filter { no_local: true, ..Filter::new("a/b", Qos::AtLeastOnce) };
        phone.subscribe_with(&[own], Some(1));
        phone.subscribe_with(&[Filter::new("a/+", Qos::AtLeastOnce)], Some(268_435_455));
        phone.subscribe_with(&[Filter::new("a/#", Qos::AtLeastOnce)], None);
        phone.subscribe_with(&[Filter::new("x/#", Qos::AtLeastOnce)], Some(3));
        // Two may have the same.
        phone.subscribe_with(&[Filter::new("+/b", Qos::AtLeastOnce)], Some(268_435_455));
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            node.push_topic("a/b", b"another's", qos);
            let mut arrived = phone.expect_text("another's");
            arrived.subscriptions.sort_unstable();
            assert_eq!(arrived.subscriptions, [1, 268_435_455, 268_435_455]);
            if arrived.id > 0 {
                phone.puback(arrived.id);
            }
            // Its own message is not the first filter's.
            phone.send_packet(&Publish { qos, ..publish("a/b", b"its own", qos, u16::from(qos > Qos::AtMostOnce)) });
            let got = phone.all();
            let own = got.iter().find_map(|got| if let crate::client::Got::Publish(a) = got { Some(a) } else { None });
            let own = own.expect("other filters want it");
            assert_eq!(own.subscriptions, [268_435_455, 268_435_455], "{qos:?}");
            if own.id > 0 {
                phone.puback(own.id);
            }
        }
        phone.bye();
    }
}
