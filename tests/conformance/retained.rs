//! Retained messages: what a topic keeps, and who is sent it.

use crate::client::{Client, Got, Hello, publish, will};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::shard::command::{CommandError, Target};
use kittiwake::wire::mqtt::{AckKind, Filter, Publish, RetainHandling};

fn retain(client: &mut Client, topic: &str, payload: &[u8], qos: Qos) {
    let id = u16::from(qos != Qos::AtMostOnce);
    client.send_packet(&Publish { retain: true, ..publish(topic, payload, qos, id) });
    match qos {
        Qos::AtMostOnce => {}
        Qos::AtLeastOnce => assert!(matches!(client.next(), Some(Got::PubAck(1, code)) if code < 0x80)),
        Qos::ExactlyOnce => {
            assert!(matches!(client.next(), Some(Got::PubRec(1, code)) if code < 0x80));
            client.ack(AckKind::PubRel, 1);
            client.expect(&Got::PubComp(1, 0));
        }
    }
}

/// A node with a publisher.
fn scene(shards: u16) -> (Node, Client) {
    let node = Node::with_shards(shards);
    let publisher = node.connect("publisher");
    (node, publisher)
}

fn topics(client: &mut Client) -> Vec<(String, String)> {
    let mut topics = Vec::new();
    while let Some(got) = client.next() {
        let Got::Publish(arrived) = got else { panic!("only messages are expected, not {got:?}") };
        assert!(arrived.retain, "{arrived:?}");
        if arrived.qos == Qos::AtLeastOnce {
            client.puback(arrived.id);
        }
        topics.push((arrived.topic.clone(), arrived.text().to_owned()));
    }
    topics
}

fn with(filter: &str, qos: Qos, retain_handling: RetainHandling) -> Filter<'_> {
    Filter { retain_handling, ..Filter::new(filter, qos) }
}

#[test]
fn mqtt5_3_3_1_5_a_retained_message_replaces_the_one_before_and_is_stored() {
    for shards in [1, 3] {
        let (node, mut publisher) = scene(shards);
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            retain(&mut publisher, "a/b", format!("{qos:?}").as_bytes(), qos);
            let mut phone = node.connect("phone");
            phone.subscribe(&[("a/b", Qos::AtLeastOnce)]);
            let arrived = phone.expect_message();
            assert_eq!((arrived.text(), arrived.retain, arrived.dup), (&*format!("{qos:?}"), true, false));
            assert_eq!(arrived.qos, qos.min(Qos::AtLeastOnce), "at the smaller of both");
            phone.expect_nothing();
            phone.hang_up();
        }
        assert_eq!(node.gauge("retained_messages"), 1);
    }
}

#[test]
fn mqtt5_3_3_1_6_an_empty_retained_message_leaves_none() {
    let (node, mut publisher) = scene(2);
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("a", Qos::AtLeastOnce)]);
    retain(&mut publisher, "a", b"x", Qos::AtLeastOnce);
    retain(&mut publisher, "a", b"", Qos::AtLeastOnce);
    watcher.expect_and_ack("x");
    assert!(!watcher.expect_and_ack("").retain, "it is a live message like any other");
    let mut phone = node.connect("phone");
    phone.subscribe(&[("#", Qos::AtLeastOnce)]);
    phone.expect_nothing();
    assert_eq!((node.gauge("retained_messages"), node.gauge("retained_bytes")), (0, 0));
}

#[test]
fn mqtt5_3_3_1_8_a_message_that_is_not_retained_leaves_the_retained_one() {
    for hello in [Hello::v5("publisher"), Hello::v3("publisher")] {
        let node = Node::with_shards(2);
        let mut publisher = node.hello(&hello);
        retain(&mut publisher, "a", b"kept", Qos::AtLeastOnce);
        for payload in [&b"passing"[..], b""] {
            publisher.publish("a", payload, Qos::AtMostOnce, 0);
            publisher.publish("b", payload, Qos::AtMostOnce, 0);
        }
        let mut phone = node.connect("phone");
        phone.subscribe(&[("#", Qos::AtMostOnce)]);
        assert!(phone.expect_text("kept").retain);
        phone.expect_nothing();
    }
}

#[test]
fn mqtt5_3_3_1_9_retain_handling_0_sends_at_every_subscribe() {
    let (node, mut publisher) = scene(2);
    retain(&mut publisher, "a", b"x", Qos::AtLeastOnce);
    let mut phone = node.connect("phone");
    for _ in 0..2 {
        phone.subscribe_with(&[with("a", Qos::AtLeastOnce, RetainHandling::Send)], None);
        assert_eq!(topics(&mut phone), [("a".into(), "x".into())]);
    }
    let mut old = node.hello(&Hello::v3("old"));
    for _ in 0..2 {
        old.subscribe(&[("+", Qos::AtLeastOnce)]);
        assert_eq!(topics(&mut old), [("a".into(), "x".into())], "[MQTT-3.8.4-3] of 3.1.1");
    }
}

#[test]
fn mqtt5_3_3_1_10_retain_handling_1_sends_only_for_a_new_subscription() {
    let (node, mut publisher) = scene(2);
    retain(&mut publisher, "a", b"x", Qos::AtLeastOnce);
    let mut phone = node.connect("phone");
    let filter = with("a", Qos::AtLeastOnce, RetainHandling::SendIfNew);
    phone.subscribe_with(&[filter], None);
    assert_eq!(topics(&mut phone).len(), 1);
    phone.subscribe_with(&[filter], None);
    assert_eq!(topics(&mut phone).len(), 0);
    let id = phone.unsubscribe(&["a"]);
    phone.expect(&Got::UnsubAck(id, vec![0]));
    phone.subscribe_with(&[filter], None);
    assert_eq!(topics(&mut phone).len(), 1);
}

#[test]
fn mqtt5_3_3_1_11_retain_handling_2_sends_none() {
    let (node, mut publisher) = scene(2);
    retain(&mut publisher, "a", b"x", Qos::AtLeastOnce);
    let mut phone = node.connect("phone");
    phone.subscribe_with(&[with("a", Qos::AtLeastOnce, RetainHandling::DoNotSend)], None);
    phone.expect_nothing();
}

#[test]
fn mqtt5_3_3_1_13_retain_as_published_says_what_live_messages_say() {
    let (node, mut publisher) = scene(2);
    let mut phone = node.connect("phone");
    phone.subscribe_with(&[Filter { retain_as_published: true, ..Filter::new("a", Qos::AtMostOnce) }], None);
    retain(&mut publisher, "a", b"one", Qos::AtMostOnce);
    publisher.publish("a", b"two", Qos::AtMostOnce, 0);
    assert!(phone.expect_text("one").retain);
    assert!(!phone.expect_text("two").retain);
    phone.subscribe(&[("a", Qos::AtMostOnce)]);
    assert!(phone.expect_text("one").retain, "sent because of a subscription it is retained whatever that asks for");
}

#[test]
fn mqtt5_4_7_2_1_topics_with_a_dollar_do_not_match_a_wildcard_at_the_start() {
    let (node, mut publisher) = scene(3);
    let push = |topic: &str| {
        let change = |push: &mut kittiwake::shard::command::Push| {
            std::sync::Arc::get_mut(&mut push.message).expect("it is new").retain = true;
        };
        node.push_with(Target::Topic(topic.into()), b"x", Qos::AtLeastOnce, change).expect("the push is taken");
    };
    push("$house/load");
    retain(&mut publisher, "load", b"x", Qos::AtLeastOnce);
    let mut phone = node.connect("phone");
    phone.subscribe(&[("#", Qos::AtLeastOnce)]);
    assert_eq!(topics(&mut phone), [("load".into(), "x".into())]);
    phone.subscribe(&[("+/load", Qos::AtLeastOnce)]);
    assert!(topics(&mut phone).is_empty());
    phone.subscribe(&[("$house/#", Qos::AtLeastOnce)]);
    assert_eq!(topics(&mut phone), [("$house/load".into(), "x".into())]);
}

#[test]
fn wildcards_find_the_retained_messages_of_every_home_in_the_order_of_topics() {
    for (shards, qos) in [(1, Qos::AtMostOnce), (1, Qos::AtLeastOnce), (4, Qos::AtMostOnce), (4, Qos::AtLeastOnce)] {
        let (node, mut publisher) = scene(shards);
        let names: Vec<String> = (0..300).map(|n| format!("t/{n:03}/x")).collect();
        names.iter().for_each(|name| retain(&mut publisher, name, name.as_bytes(), Qos::AtLeastOnce));
        retain(&mut publisher, "u", b"x", Qos::AtLeastOnce);
        let mut phone = node.connect("phone");
        phone.subscribe(&[("t/+/x", qos)]);
        let expected: Vec<_> = names.iter().map(|name| (name.clone(), name.clone())).collect();
        assert_eq!(topics(&mut phone), expected, "{shards} shards, {qos:?}");
        phone.expect_nothing();
        assert_eq!(node.gauge("retained_reads"), 0);
    }
}

#[test]
fn mqtt5_3_3_4_9_a_full_window_gets_the_rest_as_it_opens() {
    let (node, mut publisher) = scene(2);
    for n in 0..10 {
        retain(&mut publisher, &format!("t/{n}"), b"x", Qos::AtLeastOnce);
    }
    let mut phone = node.hello(&Hello::v5("phone").receive_maximum(2));
    phone.subscribe(&[("t/#", Qos::AtLeastOnce)]);
    let mut names = Vec::new();
    for round in 0..5 {
        let arrived = phone.messages();
        assert_eq!(arrived.len(), 2, "round {round}");
        arrived.iter().for_each(|arrived| phone.puback(arrived.id));
        names.extend(arrived.into_iter().map(|arrived| arrived.topic));
    }
    assert_eq!(names, (0..10).map(|n| format!("t/{n}")).collect::<Vec<_>>());
    phone.expect_nothing();
}

#[test]
fn mqtt5_4_4_0_1_what_was_not_sent_or_not_acknowledged_comes_after_a_resume() {
    for restarts in [false, true] {
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            resumes(restarts, qos);
        }
    }
}

/// A client with a window of two is gone after one of ten.
fn resumes(restarts: bool, qos: Qos) {
    let (node, mut publisher) = scene(2);
    for n in 0..10 {
        retain(&mut publisher, &format!("t/{n}"), b"x", qos);
    }
    publisher.hang_up();
    let hello = Hello::lasting("phone").receive_maximum(2);
    let mut phone = node.hello(&hello);
    phone.subscribe(&[("t/#", qos)]);
    let first = phone.messages();
    settle(&mut phone, first[0].id, qos);
    let second = match qos {
        Qos::ExactlyOnce => {
            phone.expect(&Got::PubRel(first[0].id, 0));
            phone.ack(AckKind::PubComp, first[0].id);
            phone.expect_message()
        }
        _ => phone.expect_message(),
    };
    phone.hang_up();
    if restarts {
        // Acknowledgements are written lazily.
        node.advance(2_000);
        node.restart();
    }
    let mut phone = node.hello(&hello);
    let mut names = vec![first[0].topic.clone()];
    while let Some(got) = phone.next() {
        let arrived = match got {
            Got::Publish(arrived) => arrived,
            Got::PubRel(id, 0) => {
                phone.ack(AckKind::PubComp, id);
                continue;
            }
            other => panic!("{other:?}"),
        };
        // The two that were in flight come again under their identifiers.
        assert_eq!(arrived.dup, names.len() <= 2, "{arrived:?} {qos:?} {restarts}");
        assert_eq!((arrived.retain, arrived.qos), (true, qos));
        if names.len() <= 2 {
            assert_eq!(arrived.id, [first[1].id, second.id][names.len() - 1]);
        }
        settle(&mut phone, arrived.id, qos);
        names.push(arrived.topic);
    }
    assert_eq!(names, (0..10).map(|n| format!("t/{n}")).collect::<Vec<_>>(), "{qos:?} {restarts}");
    node.advance(2_000);
    phone.hang_up();
    let mut phone = node.hello(&hello);
    phone.expect_nothing();
    phone.hang_up();
    node.advance(3_700_000);
    assert_eq!(node.session_records(), 0);
}

fn settle(client: &mut Client, id: u16, qos: Qos) {
    match qos {
        Qos::ExactlyOnce => client.ack(AckKind::PubRec, id),
        _ => client.puback(id),
    }
}

#[test]
fn retained_messages_survive_a_restart() {
    let (node, mut publisher) = scene(2);
    retain(&mut publisher, "a", b"one", Qos::AtLeastOnce);
    retain(&mut publisher, "a", b"two", Qos::AtMostOnce);
    retain(&mut publisher, "b", b"gone", Qos::AtLeastOnce);
    retain(&mut publisher, "b", b"", Qos::AtLeastOnce);
    node.restart();
    assert_eq!(node.gauge("retained_messages"), 1);
    let mut phone = node.connect("phone");
    phone.subscribe(&[("#", Qos::AtLeastOnce)]);
    assert_eq!(topics(&mut phone), [("a".into(), "two".into())]);
}

#[test]
fn a_publisher_is_answered_after_the_commit_of_what_is_retained() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let (node, mut publisher) = scene(2);
        node.hold_commits();
        publisher.send_packet(&Publish { retain: true, ..publish("a", b"x", qos, 1) });
        publisher.expect_nothing();
        node.release_commits();
        assert!(matches!(publisher.next(), Some(Got::PubAck(1, _) | Got::PubRec(1, _))));
    }
}

#[test]
fn mqtt5_3_3_2_5_a_retained_message_says_what_is_left_of_its_time_and_then_vanishes() {
    let (node, mut publisher) = scene(2);
    let mut message = publish("a", b"x", Qos::AtLeastOnce, 1);
    message.properties.message_expiry_seconds = Some(10);
    publisher.send_packet(&Publish { retain: true, ..message });
    node.advance(4_000);
    let mut phone = node.connect("phone");
    phone.subscribe(&[("+", Qos::AtMostOnce)]);
    assert_eq!(phone.expect_text("x").expiry, Some(6));
    node.advance(6_000);
    phone.subscribe(&[("+", Qos::AtMostOnce)]);
    phone.expect_nothing();
    assert_eq!(node.gauge("retained_messages"), 0);
    node.restart();
    assert_eq!(node.gauge("retained_messages"), 0);
}

#[test]
fn mqtt5_3_3_4_3_a_retained_message_carries_its_own_subscription_s_identifier() {
    let (node, mut publisher) = scene(2);
    retain(&mut publisher, "a", b"x", Qos::AtLeastOnce);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let mut phone = node.connect("phone");
        phone.subscribe_with(&[with("#", qos, RetainHandling::DoNotSend)], Some(1));
        phone.subscribe_with(&[Filter::new("a", qos)], Some(2));
        assert_eq!(phone.expect_text("x").subscriptions, [2]);
        phone.expect_nothing();
    }
}

#[test]
fn mqtt5_3_8_3_3_no_local_holds_for_retained_messages() {
    let (node, mut publisher) = scene(2);
    retain(&mut publisher, "a", b"x", Qos::AtLeastOnce);
    publisher.subscribe_with(&[Filter { no_local: true, ..Filter::new("a", Qos::AtMostOnce) }], None);
    publisher.expect_nothing();
    let mut phone = node.connect("phone");
    phone.subscribe_with(&[Filter { no_local: true, ..Filter::new("a", Qos::AtMostOnce) }], None);
    phone.expect_text("x");
}

#[test]
fn mqtt5_3_1_2_15_a_will_may_be_retained() {
    for hello in [Hello::v5("mortal"), Hello::v3("mortal")] {
        let node = Node::with_shards(2);
        let mut last = will("wills/a", b"gone", Qos::AtLeastOnce);
        last.retain = true;
        node.hello(&hello.will(last)).hang_up();
        let mut phone = node.connect("phone");
        phone.subscribe(&[("wills/#", Qos::AtMostOnce)]);
        assert!(phone.expect_text("gone").retain);
    }
}

#[test]
fn a_retained_message_does_not_come_behind_a_newer_live_one() {
    let (node, mut publisher) = scene(2);
    retain(&mut publisher, "t/0", b"old", Qos::AtLeastOnce);
    retain(&mut publisher, "t/1", b"old", Qos::AtLeastOnce);
    retain(&mut publisher, "t/2", b"old", Qos::AtLeastOnce);
    let mut phone = node.hello(&Hello::v5("phone").receive_maximum(1));
    phone.subscribe(&[("t/+", Qos::AtLeastOnce)]);
    let first = phone.expect_text("old");
    assert_eq!(first.topic, "t/0");
    // At QoS 0 it goes past the full window.
    publisher.publish("t/1", b"new", Qos::AtMostOnce, 0);
    assert_eq!(phone.expect_text("new").topic, "t/1");
    phone.puback(first.id);
    assert_eq!(phone.expect_and_ack("old").topic, "t/2");
    phone.expect_nothing();
    assert_eq!(node.counter("retained_overtaken"), 1);
}

#[test]
fn an_unsubscribe_ends_what_was_still_to_come() {
    let (node, mut publisher) = scene(2);
    for n in 0..5 {
        retain(&mut publisher, &format!("t/{n}"), b"x", Qos::AtLeastOnce);
    }
    let mut phone = node.hello(&Hello::v5("phone").receive_maximum(1));
    phone.subscribe(&[("t/+", Qos::AtLeastOnce)]);
    let first = phone.expect_message();
    let id = phone.unsubscribe(&["t/+"]);
    phone.expect(&Got::UnsubAck(id, vec![0]));
    phone.puback(first.id);
    phone.expect_nothing();
}

#[test]
fn what_has_no_room_is_refused_with_0x97_and_429_and_counted() {
    let node = Node::with(1, |limits| limits.retained_messages = 2);
    let mut publisher = node.connect("publisher");
    retain(&mut publisher, "a", b"x", Qos::AtLeastOnce);
    retain(&mut publisher, "b", b"x", Qos::AtLeastOnce);
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("c", Qos::AtLeastOnce)]);
    publisher.send_packet(&Publish { retain: true, ..publish("c", b"x", Qos::AtLeastOnce, 1) });
    publisher.expect(&Got::PubAck(1, 0x97));
    publisher.send_packet(&Publish { retain: true, ..publish("c", b"x", Qos::ExactlyOnce, 1) });
    publisher.expect(&Got::PubRec(1, 0x97));
    let pushed = node.push_with(Target::Topic("c".into()), b"x", Qos::AtLeastOnce, |push| {
        std::sync::Arc::get_mut(&mut push.message).expect("it is new").retain = true;
    });
    assert_eq!(pushed, Err(CommandError::RetainedFull));
    // 3.1.1 cannot be told [MQTT-3.3.5-2].
    let mut old = node.hello(&Hello::v3("old"));
    old.send_packet(&Publish { retain: true, ..publish("c", b"x", Qos::AtLeastOnce, 1) });
    old.expect(&Got::PubAck(1, 0));
    watcher.expect_nothing();
    assert_eq!(node.counter("retained_refused"), 4);
    retain(&mut publisher, "b", b"y", Qos::AtLeastOnce);
    retain(&mut publisher, "b", b"", Qos::AtLeastOnce);
    retain(&mut publisher, "c", b"x", Qos::AtLeastOnce);
    watcher.expect_and_ack("x");
}

#[test]
fn a_full_node_looks_for_what_is_over_its_time_first() {
    let node = Node::with(1, |limits| limits.retained_messages = 1);
    let mut publisher = node.connect("publisher");
    let mut message = publish("a", b"x", Qos::AtLeastOnce, 1);
    message.properties.message_expiry_seconds = Some(1);
    publisher.send_packet(&Publish { retain: true, ..message });
    publisher.expect(&Got::PubAck(1, 0x10));
    node.advance(1_000);
    retain(&mut publisher, "b", b"x", Qos::AtLeastOnce);
    assert_eq!((node.gauge("retained_messages"), node.counter("retained_refused")), (1, 0));
}

#[test]
fn mqtt5_3_8_4_4_subscribing_again_sends_what_is_retained_again_and_loses_nothing() {
    for hello in [Hello::lasting("phone"), Hello::v3("phone").clean(false)] {
        let (node, mut publisher) = scene(2);
        retain(&mut publisher, "a", b"kept", Qos::AtLeastOnce);
        let mut phone = node.hello(&hello);
        phone.subscribe(&[("a", Qos::AtLeastOnce)]);
        phone.expect_and_ack("kept");
        // Twenty are under way, unacknowledged or behind them, while the subscription is replaced ten times.
        let mut live: Vec<String> = Vec::new();
        for n in 0..20_u16 {
            let text = n.to_string();
            publisher.publish("a", text.as_bytes(), Qos::AtLeastOnce, n + 1);
            assert!(matches!(publisher.next(), Some(Got::PubAck(_, code)) if code < 0x80));
            if n % 2 == 0 {
                phone.start_subscribe(&[Filter::new("a", Qos::AtLeastOnce)], None);
            }
            live.push(text);
        }
        let (mut granted, mut again, mut arrived) = (0, 0, Vec::new());
        while let Some(got) = phone.next() {
            match got {
                Got::SubAck(_, codes) => {
                    assert_eq!(codes, [1]);
                    granted += 1;
                }
                Got::Publish(message) => {
                    phone.puback(message.id);
                    if message.retain {
                        assert_eq!(message.text(), "kept");
                        again += 1;
                    } else {
                        arrived.push(message.text().to_owned());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((granted, arrived), (10, live));
        assert!(again >= 1, "it was sent again");
        phone.subscribe(&[("a", Qos::AtLeastOnce)]);
        assert_eq!(topics(&mut phone), [("a".into(), "kept".into())]);
    }
}

#[test]
fn mqtt311_3_1_2_7_what_is_retained_outlives_the_session_of_its_publisher() {
    let node = Node::with_shards(2);
    for clean in [true, false] {
        let mut publisher = node.hello(&Hello::v3("publisher").clean(clean));
        retain(&mut publisher, "a", format!("{clean}").as_bytes(), Qos::AtLeastOnce);
        publisher.bye();
        // A clean session takes the place of the one before and ends with its connection.
        node.hello(&Hello::v3("publisher")).bye();
        assert_eq!(node.gauge("sessions"), 0);
        let mut phone = node.hello(&Hello::v3("phone"));
        phone.subscribe(&[("a", Qos::AtLeastOnce)]);
        assert!(phone.expect_and_ack(&format!("{clean}")).retain);
        phone.bye();
    }
}

#[test]
fn mqtt311_3_3_1_7_a_qos_0_message_takes_the_place_of_the_one_before() {
    let node = Node::with_shards(2);
    let mut publisher = node.hello(&Hello::v3("publisher"));
    for before in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        retain(&mut publisher, "a", b"before", before);
        retain(&mut publisher, "a", b"after", Qos::AtMostOnce);
        let mut phone = node.hello(&Hello::v3("phone"));
        phone.subscribe(&[("a", Qos::ExactlyOnce)]);
        let arrived = phone.expect_text("after");
        assert_eq!((arrived.qos, arrived.retain), (Qos::AtMostOnce, true));
        phone.expect_nothing();
        phone.bye();
    }
}

#[test]
fn mqtt311_3_3_1_5_what_is_retained_is_stored_with_its_qos() {
    let node = Node::with_shards(2);
    let mut publisher = node.hello(&Hello::v3("publisher"));
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        retain(&mut publisher, "a", b"x", qos);
        for granted in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let mut phone = node.hello(&Hello::v3("phone"));
            phone.subscribe(&[("a", granted)]);
            assert_eq!(phone.expect_text("x").qos, qos.min(granted));
            phone.hang_up();
        }
    }
}

#[test]
fn mqtt311_3_3_1_6_a_new_subscription_gets_the_last_one_of_each_matching_topic() {
    let node = Node::with_shards(3);
    let mut publisher = node.hello(&Hello::v3("publisher"));
    for (topic, text) in [("t/a", "1"), ("t/b", "2"), ("t/a", "3"), ("t/b/c", "4"), ("u", "5")] {
        retain(&mut publisher, topic, text.as_bytes(), Qos::AtLeastOnce);
    }
    let mut phone = node.hello(&Hello::v3("phone"));
    phone.subscribe(&[("t/+", Qos::AtLeastOnce)]);
    // All with the retain flag [MQTT-3.3.1-8]: `topics` looks at it.
    assert_eq!(topics(&mut phone), [("t/a".into(), "3".into()), ("t/b".into(), "2".into())]);
    // And what comes later without it [MQTT-3.3.1-9].
    retain(&mut publisher, "t/a", b"6", Qos::AtLeastOnce);
    assert!(!phone.expect_and_ack("6").retain);
    phone.expect_nothing();
}

#[test]
fn mqtt311_3_3_1_10_an_empty_one_is_sent_on_and_leaves_none() {
    let node = Node::with_shards(2);
    let mut publisher = node.hello(&Hello::v3("publisher"));
    let mut watcher = node.hello(&Hello::v3("watcher"));
    watcher.subscribe(&[("a", Qos::AtMostOnce)]);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        retain(&mut publisher, "a", b"x", Qos::AtLeastOnce);
        watcher.expect_text("x");
        retain(&mut publisher, "a", b"", qos);
        assert!(!watcher.expect_text("").retain);
        assert_eq!((node.gauge("retained_messages"), node.gauge("retained_bytes")), (0, 0));
        let mut phone = node.hello(&Hello::v3("phone"));
        phone.subscribe(&[("#", Qos::AtLeastOnce)]);
        phone.expect_nothing();
        phone.bye();
    }
}
