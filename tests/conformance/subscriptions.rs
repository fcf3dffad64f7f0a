//! Subscriptions: their limits, options, overlaps and ends.

use crate::client::{Got, Hello, encoded, publish, with_alias};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{SUBSCRIPTIONS_MAX, TOPIC_ALIAS_MAX, TOPIC_LEVELS_MAX};
use kittiwake::wire::mqtt::{Filter, Version};

#[test]
fn a_session_has_so_many_subscriptions_and_no_more() {
    let node = Node::with_shards(2);
    for (hello, refused) in [(Hello::v5("phone"), 0x97), (Hello::v3("phone"), 0x80)] {
        let mut phone = node.hello(&hello);
        let names: Vec<String> = (0..SUBSCRIPTIONS_MAX + 2).map(|at| format!("topics/{at}")).collect();
        let filters: Vec<_> = names.iter().map(|name| Filter::new(name, Qos::AtLeastOnce)).collect();
        phone.subscribe_with(&filters[..SUBSCRIPTIONS_MAX - 1], None);
        let id = phone.start_subscribe(&filters[SUBSCRIPTIONS_MAX - 1..], None);
        phone.expect(&Got::SubAck(id, vec![1, refused, refused]));
        assert_eq!(node.gauge("subscriptions"), SUBSCRIPTIONS_MAX as u64);
        // One that is there may be replaced, and one that went makes room.
        phone.subscribe_with(&[Filter::new("topics/3", Qos::AtMostOnce)], None);
        let id = phone.unsubscribe(&["topics/4"]);
        assert!(matches!(phone.next(), Some(Got::UnsubAck(other, _)) if other == id));
        phone.subscribe_with(&filters[SUBSCRIPTIONS_MAX..SUBSCRIPTIONS_MAX + 1], None);
        node.push_topic("topics/1000", b"there", Qos::AtMostOnce);
        phone.expect_text("there");
        phone.bye();
        for gauge in ["subscriptions", "filters", "interest_filters", "installing"] {
            assert_eq!(node.gauge(gauge), 0, "{gauge}");
        }
    }
    node.assert_at_rest();
}

#[test]
fn more_filters_than_a_session_may_have_in_one_packet_are_refused_one_by_one() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    let names: Vec<String> = (0..5_000).map(|at| format!("{at}/#")).collect();
    let filters: Vec<_> = names.iter().map(|name| Filter::new(name, Qos::ExactlyOnce)).collect();
    let id = phone.start_subscribe(&filters, None);
    let Some(Got::SubAck(other, codes)) = phone.next() else { panic!("no SUBACK") };
    assert_eq!((other, codes.len()), (id, 5_000));
    assert!(codes[..SUBSCRIPTIONS_MAX].iter().all(|&code| code == 2));
    assert!(codes[SUBSCRIPTIONS_MAX..].iter().all(|&code| code == 0x97));
    phone.hang_up();
    assert_eq!(node.gauge("filters"), 0);
    node.assert_at_rest();
}

#[test]
fn mqtt5_3_8_4_3_a_filter_subscribed_again_is_replaced() {
    let node = Node::with_shards(2);
    let mut phone = node.connect("phone");
    phone.subscribe_with(&[Filter::new("a", Qos::ExactlyOnce), Filter::new("a", Qos::AtMostOnce)], Some(1));
    assert_eq!(node.gauge("subscriptions"), 1);
    phone.subscribe_with(&[Filter::new("a", Qos::AtLeastOnce)], Some(2));
    assert_eq!(node.gauge("subscriptions"), 1);
    node.push_topic("a", b"x", Qos::ExactlyOnce);
    let arrived = phone.expect_and_ack("x");
    assert_eq!(arrived.subscriptions, [2]);
    phone.expect_nothing();
}

#[test]
fn mqtt5_3_3_4_2_overlapping_subscriptions_deliver_once_at_the_highest_qos_with_all_identifiers() {
    for shards in [1, 2] {
        for lasting in [false, true] {
            let node = Node::with_shards(shards);
            let hello = if lasting { Hello::lasting("phone") } else { Hello::v5("phone") };
            let mut phone = node.hello(&hello);
            for (filter, qos, id) in [
                ("a/#", Qos::AtMostOnce, 7),
                ("a/+", Qos::AtLeastOnce, 1),
                ("a/b", Qos::AtMostOnce, 900),
                ("#", Qos::AtMostOnce, 0),
            ] {
                phone.subscribe_with(&[Filter::new(filter, qos)], (id > 0).then_some(id));
            }
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                node.push_topic("a/b", b"x", qos);
                let mut arrived = phone.expect_text("x");
                arrived.subscriptions.sort_unstable();
                assert_eq!(arrived.subscriptions, [1, 7, 900], "{shards} shards, {lasting}, {qos:?}");
                assert_eq!(arrived.qos, qos.min(Qos::AtLeastOnce));
                if arrived.id > 0 {
                    phone.puback(arrived.id);
                }
                phone.expect_nothing();
            }
        }
    }
}

#[test]
fn mqtt5_3_8_3_3_no_local_keeps_a_clients_own_messages_from_it() {
    let node = Node::with_shards(2);
    let mut phone = node.connect("phone");
    let own = Filter { no_local: true, ..Filter::new("a", Qos::AtLeastOnce) };
    phone.subscribe_with(&[own], Some(1));
    let mut other = node.connect("other");
    other.publish("a", b"theirs", Qos::AtLeastOnce, 1);
    assert_eq!(phone.expect_and_ack("theirs").subscriptions, [1]);
    phone.publish("a", b"mine", Qos::AtLeastOnce, 1);
    phone.publish("a", b"mine", Qos::AtMostOnce, 0);
    assert!(matches!(phone.all()[..], [Got::PubAck(1, _)]));
    // Another of its subscriptions wants it.
    phone.subscribe_with(&[Filter::new("#", Qos::AtMostOnce)], Some(2));
    phone.publish("a", b"mine too", Qos::AtMostOnce, 0);
    assert_eq!(phone.expect_text("mine too").subscriptions, [2]);
    phone.expect_nothing();
}

#[test]
fn mqtt5_3_3_1_13_retain_is_kept_only_where_it_was_asked_for() {
    let node = Node::with_shards(2);
    let mut plain = node.connect("plain");
    plain.subscribe(&[("a", Qos::AtLeastOnce)]);
    let mut keeping = node.connect("keeping");
    keeping.subscribe_with(&[Filter { retain_as_published: true, ..Filter::new("a", Qos::AtLeastOnce) }], None);
    let mut publisher = node.hello(&Hello::v3("publisher"));
    let message = publish("a", b"x", Qos::AtLeastOnce, 1);
    publisher.send_packet(&kittiwake::wire::mqtt::Publish { retain: true, ..message });
    assert!(!plain.expect_and_ack("x").retain);
    assert!(keeping.expect_and_ack("x").retain);
    publisher.send_packet(&message);
    assert!(!plain.expect_and_ack("x").retain);
    assert!(!keeping.expect_and_ack("x").retain);
}

#[test]
fn mqtt5_3_10_4_4_unsubscribe_ends_a_subscription_and_says_which_there_were() {
    let node = Node::with_shards(2);
    for (name, hello) in [("passing", Hello::v5("passing")), ("lasting", Hello::lasting("lasting"))] {
        let mut phone = node.hello(&hello);
        phone.subscribe(&[("a", Qos::AtLeastOnce), ("b/+", Qos::AtLeastOnce), ("$inbox/#", Qos::AtLeastOnce)]);
        let id = phone.unsubscribe(&["a", "c", "b/+", "a"]);
        phone.expect(&Got::UnsubAck(id, vec![0, 0x11, 0, 0x11]));
        node.push_topic("a", b"x", Qos::AtLeastOnce);
        node.push_topic("b/c", b"x", Qos::AtLeastOnce);
        phone.expect_nothing();
        node.push_user(name, b"still", Qos::AtLeastOnce);
        phone.expect_and_ack("still");
        let id = phone.unsubscribe(&["$inbox/#"]);
        phone.expect(&Got::UnsubAck(id, vec![0]));
        node.push_user(name, b"x", Qos::AtLeastOnce);
        phone.expect_nothing();
        assert_eq!((node.gauge("filters"), node.gauge("interest_filters")), (0, 0));
        phone.bye();
    }
}

#[test]
fn mqtt5_4_7_2_1_wildcards_do_not_match_our_own_names() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    phone.subscribe(&[("#", Qos::AtLeastOnce), ("+/push", Qos::AtLeastOnce)]);
    node.push_user("phone", b"x", Qos::AtLeastOnce);
    phone.expect_nothing();
}

#[test]
fn filters_have_so_many_levels_and_no_more() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    for (levels, code) in [(TOPIC_LEVELS_MAX - 1, 0), (TOPIC_LEVELS_MAX, 0), (TOPIC_LEVELS_MAX + 1, 0x8F)] {
        let filter = vec!["a"; levels].join("/");
        let id = phone.start_subscribe(&[Filter::new(&filter, Qos::AtMostOnce)], None);
        phone.expect(&Got::SubAck(id, vec![code]));
    }
}

#[test]
fn mqtt5_3_3_2_3_4_a_topic_alias_stands_for_its_topic_on_its_connection() {
    let node = Node::with_shards(2);
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("#", Qos::AtLeastOnce)]);
    let mut phone = node.hello(&Hello::lasting("phone"));
    let mut says = |phone: &mut crate::client::Client, topic: &str, alias: u16, arrives_as: &str| {
        phone.send_packet(&with_alias(publish(topic, b"x", Qos::AtMostOnce, 0), alias));
        assert_eq!(watcher.expect_text("x").topic, arrives_as);
    };
    says(&mut phone, "a", 1, "a");
    says(&mut phone, "", 1, "a");
    says(&mut phone, "b", TOPIC_ALIAS_MAX, "b");
    says(&mut phone, "", TOPIC_ALIAS_MAX, "b");
    says(&mut phone, "c", 1, "c");
    says(&mut phone, "", 1, "c");
    phone.hang_up();
    let mut phone = node.hello(&Hello::lasting("phone"));
    phone.send(&encoded(Version::V5, &with_alias(publish("", b"x", Qos::AtMostOnce, 0), 1)));
    phone.expect_goodbye(0x82);
}
