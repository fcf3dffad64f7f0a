//! Clients that read slowly: what becomes of messages of QoS 0, by the topic's rule, and what they are told.

use crate::client::{Arrived, Client, Got, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::base::message::{Message, Properties};
use kittiwake::shard::command::Target;
use kittiwake::shard::{SlowPolicy, SlowRule};

const OUTBOX: usize = 16 << 10;

fn node(policy: SlowPolicy) -> Node {
    Node::with_settings(1, |settings| {
        settings.limits.outbox_bytes = OUTBOX;
        settings.topics.slow = vec![SlowRule { filter: "ticks/#".into(), policy }];
    })
}

fn tick(node: &Node, topic: &str, collapse: Option<&str>, text: &str) {
    let payload = format!("{text} {}", "x".repeat(1_000));
    let pushed = node.push_with(Target::Topic(topic.into()), payload.as_bytes(), Qos::AtMostOnce, |push| {
        let properties =
            collapse.map(|key| Box::new(Properties { collapse: Some(key.into()), ..Properties::default() }));
        push.message = Message { properties, ..(*push.message).clone() }.into();
    });
    pushed.expect("there is room for a push");
}

fn number(arrived: &Arrived) -> usize {
    arrived.text().split(' ').next().and_then(|text| text.parse().ok()).expect("it has a number")
}

fn told(arrived: &[Arrived]) -> u64 {
    let counts = arrived.iter().flat_map(|arrived| &arrived.user).filter(|(name, _)| name == "dropped");
    counts.map(|(_, count)| count.parse::<u64>().expect("a number")).sum()
}

/// Pushes so many ticks to a client that does not read, then has it read.
fn late(node: &Node, client: &mut Client, count: usize) -> Vec<Arrived> {
    (0..count).for_each(|number| tick(node, "ticks/a", None, &number.to_string()));
    client.messages()
}

#[test]
fn drop_newest_keeps_what_came_first_and_tells_how_many_did_not_come() {
    let node = node(SlowPolicy::DropNewest);
    let mut slow = node.connect("slow");
    slow.subscribe(&[("ticks/#", Qos::AtMostOnce)]);
    let arrived = late(&node, &mut slow, 500);
    let numbers: Vec<usize> = arrived.iter().map(number).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    let dropped = 500 - numbers.len() as u64;
    assert_eq!(node.counter("dropped_outbox_full"), dropped);
    assert_eq!(told(&arrived), 0, "the next one tells");
    let next = late(&node, &mut slow, 1);
    assert_eq!((next.len(), told(&next)), (1, dropped));
    assert_eq!(told(&late(&node, &mut slow, 1)), 0, "once");
    assert_eq!(node.gauge("slow_sessions"), 0);
}

#[test]
fn drop_oldest_keeps_the_newest_in_their_order() {
    let node = node(SlowPolicy::DropOldest);
    let mut slow = node.connect("slow");
    slow.subscribe(&[("ticks/#", Qos::AtMostOnce)]);
    let arrived = late(&node, &mut slow, 500);
    let numbers: Vec<usize> = arrived.iter().map(number).collect();
    assert!(numbers.is_sorted_by(|one, other| one < other) && numbers.last() == Some(&499), "{numbers:?}");
    let gap = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1).expect("some were dropped");
    assert_eq!(499 - numbers[gap + 1] + 1, numbers.len() - gap - 1, "behind the gap there is none");
    let dropped = 500 - numbers.len() as u64;
    assert_eq!((node.counter("dropped_oldest"), node.counter("dropped_outbox_full")), (dropped, 0));
    assert_eq!(told(&arrived), dropped);
    assert_eq!((node.gauge("slow_messages"), node.gauge("slow_bytes"), node.gauge("slow_sessions")), (0, 0, 0));
}

#[test]
fn conflate_keeps_the_newest_of_each_key_whatever_the_clients_speed() {
    let node = node(SlowPolicy::Conflate);
    let mut slow = node.connect("slow");
    slow.subscribe(&[("ticks/#", Qos::AtMostOnce)]);
    let keys = [("ticks/a", None), ("ticks/a", Some("one")), ("ticks/a", Some("two")), ("ticks/b", None)];
    for round in 0..200 {
        for (topic, collapse) in keys {
            tick(&node, topic, collapse, &round.to_string());
        }
    }
    let arrived = slow.messages();
    let last: Vec<usize> = arrived[arrived.len() - 4..].iter().map(number).collect();
    assert_eq!(last, [199; 4], "the newest of each of them is the last that comes");
    let dropped = 800 - arrived.len() as u64;
    assert_eq!((node.counter("dropped_conflated"), node.counter("dropped_outbox_full")), (dropped, 0));
    assert_eq!(told(&arrived), dropped);
    // Whoever reads gets each of them.
    assert_eq!(late(&node, &mut slow, 1).len() + late(&node, &mut slow, 1).len(), 2);
}

#[test]
fn a_key_that_changes_all_the_time_is_sent_as_often_as_others() {
    let node = node(SlowPolicy::Conflate);
    let mut slow = node.connect("slow");
    slow.subscribe(&[("ticks/#", Qos::AtMostOnce)]);
    let (mut busy, mut calm) = (0, 0);
    for round in 0..10 {
        (0..150).for_each(|number| tick(&node, "ticks/busy", None, &number.to_string()));
        tick(&node, "ticks/calm", None, &round.to_string());
        for arrived in slow.messages() {
            *if arrived.topic == "ticks/busy" { &mut busy } else { &mut calm } += 1;
        }
    }
    assert!(busy >= 10 && calm == 10, "{busy} and {calm}");
}

#[test]
fn close_closes_with_a_reason_and_others_go_on() {
    let node = node(SlowPolicy::Close);
    let mut slow = node.connect("slow");
    let mut quick = node.connect("quick");
    slow.subscribe(&[("ticks/#", Qos::AtMostOnce)]);
    quick.subscribe(&[("ticks/#", Qos::AtMostOnce)]);
    for number in 0..500 {
        tick(&node, "ticks/a", None, &number.to_string());
        quick.expect_message();
    }
    let all = slow.all();
    assert_eq!(all.last(), Some(&Got::Disconnect(0x97)));
    assert!(slow.is_closed() && node.counter("closed_slow_consumer") == 1);
}

#[test]
fn a_topic_without_a_rule_is_not_held_up_by_one_with() {
    let node = node(SlowPolicy::DropOldest);
    let mut slow = node.connect("slow");
    slow.subscribe(&[("#", Qos::AtMostOnce)]);
    (0..500).for_each(|number| tick(&node, "ticks/a", None, &number.to_string()));
    // The outbox has no room for the next tick, and may have some for a word.
    node.push_topic("word", b"0 ", Qos::AtMostOnce);
    let waiting = node.gauge("slow_messages");
    assert!(waiting > 0);
    tick(&node, "ticks/a", None, "500");
    assert!(node.gauge("slow_messages") >= waiting, "a tick never passes one that waits");
    let ticks: Vec<usize> = slow.messages().iter().filter(|arrived| arrived.topic == "ticks/a").map(number).collect();
    assert!(ticks.is_sorted_by(|one, other| one < other) && ticks.last() == Some(&500), "{ticks:?}");
}

#[test]
fn pushes_to_a_user_have_the_rule_of_their_label() {
    let node = Node::with_settings(1, |settings| {
        settings.limits.outbox_bytes = OUTBOX;
        settings.topics.slow = vec![SlowRule { filter: "$inbox/#".into(), policy: SlowPolicy::Conflate }];
    });
    let mut slow = node.connect("slow");
    slow.subscribe(&[("$inbox/#", Qos::AtMostOnce)]);
    let payload = |number: usize| format!("{number} {}", "x".repeat(1_000));
    (0..300).for_each(|number| node.push_user("slow", payload(number).as_bytes(), Qos::AtMostOnce));
    let arrived = slow.messages();
    assert_eq!(number(arrived.last().expect("some")), 299);
    assert!(node.counter("dropped_conflated") > 0);
}

#[test]
fn what_waits_goes_with_the_connection_and_is_counted() {
    let node = node(SlowPolicy::DropOldest);
    let mut slow = node.hello(&Hello::lasting("slow"));
    slow.subscribe(&[("ticks/#", Qos::AtMostOnce)]);
    (0..200).for_each(|number| tick(&node, "ticks/a", None, &number.to_string()));
    let waiting = node.gauge("slow_messages");
    assert!(waiting > 0);
    let mut again = node.hello(&Hello::lasting("slow"));
    assert_eq!((node.gauge("slow_messages"), node.counter("dropped_waiting_closed")), (0, waiting));
    again.expect_nothing();
    again.reset();
    node.assert_at_rest();
}

#[test]
fn who_leaves_its_outbox_full_is_still_answered() {
    let node = node(SlowPolicy::DropOldest);
    let mut slow = node.connect("slow");
    slow.subscribe(&[("ticks/#", Qos::AtMostOnce)]);
    (0..200).for_each(|number| tick(&node, "ticks/a", None, &number.to_string()));
    slow.send_packet(&kittiwake::wire::mqtt::PingReq);
    slow.publish("b", b"x", Qos::AtLeastOnce, 1);
    let all = slow.all();
    let answers: Vec<&Got> = all.iter().filter(|got| !matches!(got, Got::Publish(_))).collect();
    assert_eq!(answers, [&Got::PingResp, &Got::PubAck(1, 0x10)]);
}

#[test]
fn older_clients_are_served_by_the_same_rules_and_told_nothing() {
    let node = node(SlowPolicy::Conflate);
    let mut slow = node.hello(&Hello::v3("slow"));
    slow.subscribe(&[("ticks/#", Qos::AtMostOnce)]);
    let arrived = late(&node, &mut slow, 500);
    assert_eq!(number(arrived.last().expect("some")), 499);
    assert!(arrived.iter().all(|arrived| arrived.user.is_empty()));
    assert_eq!(node.gauge("slow_sessions"), 0);
}
