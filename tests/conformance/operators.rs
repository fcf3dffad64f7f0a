//! What operators see: slow connections, and the node's figures as messages.

use crate::client::{Got, Hello};
use crate::node::{Node, OPERATOR};
use kittiwake::base::ids::Qos;
use kittiwake::limits::{CENSUS_INTERVAL, TURN_SURVEY_MAX};
use kittiwake::shard::command::Target;
use kittiwake::shard::command::{ConnectionName, ConnectionQuery};
use kittiwake::wire::mqtt::Filter;

#[test]
fn a_connection_that_keeps_messages_waiting_is_named_before_others() {
    let node = Node::with_shards(2);
    let mut quick = node.hello(&Hello::v5("quick"));
    quick.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    let mut slow = node.hello(&Hello::lasting("slow").receive_maximum(1));
    slow.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    let mut waiting = node.hello(&Hello::lasting("waiting").receive_maximum(2));
    waiting.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    assert_eq!(node.connections(ConnectionQuery::Slowest(10)), []);
    for text in ["1", "2"] {
        node.push_user("slow", text.as_bytes(), Qos::AtLeastOnce);
    }
    node.push_user("waiting", b"1", Qos::AtLeastOnce);
    let mut found = node.connections(ConnectionQuery::Slowest(10));
    found.sort_by_key(|figures| std::cmp::Reverse(figures.slowness()));
    let names: Vec<&str> = found.iter().map(|figures| &*figures.device).collect();
    assert_eq!(names, ["slow", "waiting"]);
    assert_eq!((found[0].behind, found[0].in_flight, found[0].durable), (true, 1, true));
    assert_eq!((found[1].behind, found[1].in_flight, found[1].subscriptions), (false, 1, 1));
    assert_eq!(found[0].protocol, "mqtt 5.0");

    let one = |name: ConnectionName| node.connections(ConnectionQuery::One(name));
    assert_eq!(one(found[0].name), [found[0].clone()]);
    let text = found[0].name.to_string();
    assert_eq!(text.parse(), Ok(found[0].name));
    slow.hang_up();
    node.run();
    assert_eq!(one(found[0].name), [], "its name is nobody's any more");
}

#[test]
fn each_shard_names_no_more_than_were_asked_for() {
    let node = Node::new();
    let mut clients = Vec::new();
    for number in 0..7 {
        let mut client = node.hello(&Hello::v5(&format!("client-{number}")));
        client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
        clients.push(client);
        for _ in 0..=number {
            node.push_user(&format!("client-{number}"), b"x", Qos::AtLeastOnce);
        }
    }
    assert!(clients.len() < TURN_SURVEY_MAX as usize, "one turn sees them all");
    let found = node.connections(ConnectionQuery::Slowest(3));
    let names: Vec<(&str, usize)> = found.iter().map(|figures| (&*figures.device, figures.in_flight)).collect();
    assert_eq!(names, [("client-6", 7), ("client-5", 6), ("client-4", 5)]);
}

#[test]
fn figures_of_the_node_are_for_those_who_are_named() {
    let node = Node::new();
    let mut anybody = node.hello(&Hello::v5("anybody"));
    for filter in ["$SYS/#", "$SYS", "$SYS/broker/uptime", "$SYS/+/version"] {
        let id = anybody.start_subscribe(&[Filter::new(filter, Qos::AtMostOnce)], None);
        anybody.expect(&Got::SubAck(id, vec![0x87]));
    }
    // A topic that only begins alike, and what wildcards cover, is everybody's.
    anybody.subscribe(&[("$SYSTEM/#", Qos::AtMostOnce), ("#", Qos::AtMostOnce)]);
    let mut old = node.hello(&Hello::v3("old"));
    let id = old.start_subscribe(&[Filter::new("$SYS/#", Qos::AtMostOnce)], None);
    old.expect(&Got::SubAck(id, vec![0x80]));

    let mut operator = node.hello(&Hello::v5("console").user(OPERATOR));
    operator.subscribe(&[("$SYS/#", Qos::AtMostOnce)]);
    node.push_topic("$SYS/broker/uptime", b"1 seconds", Qos::AtMostOnce);
    operator.expect_text("1 seconds");
    anybody.expect_nothing();
}

#[test]
fn windows_lag_and_who_stalls_are_counted_when_figures_are_asked_for() {
    let node = Node::with_shards(2);
    let mut slow = node.hello(&Hello::v5("slow").receive_maximum(2));
    slow.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    let mut quick = node.connect("quick");
    quick.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    for _ in 0..5 {
        node.push_user("slow", b"x", Qos::AtLeastOnce);
    }
    node.push_user("quick", b"x", Qos::AtLeastOnce);
    let figures = || {
        // The first answer is of the look before, if there was one; it begins another.
        node.stats();
        node.run();
        ["window_messages", "behind_connections", "stalled_connections", "inbox_lag_entries", "inbox_lag_entries_max"]
            .map(|name| node.gauge(name))
    };
    node.advance(CENSUS_INTERVAL.as_millis() as u64);
    assert_eq!(figures(), [3, 1, 1, 3, 3]);
    let found = node.connections(ConnectionQuery::Slowest(1));
    let told: Vec<_> = found.iter().map(|found| (&*found.device, found.window, found.stalled, found.lag)).collect();
    assert!(told.contains(&("slow", 2, true, 3)), "{told:?}");
    quick.expect_and_ack("x");
    assert_eq!(figures(), [3, 1, 1, 3, 3], "nobody looks so soon again");
    assert_eq!(slow.drain().len(), 5);
    node.advance(CENSUS_INTERVAL.as_millis() as u64);
    assert_eq!(figures(), [0; 5]);
}

#[test]
fn messages_and_bytes_are_counted_by_direction_and_qos() {
    let node = Node::new();
    let mut client = node.connect("ann");
    client.subscribe(&[("t", Qos::ExactlyOnce)]);
    let mut old = node.hello(&Hello::v3("old"));
    old.subscribe(&[("t", Qos::AtMostOnce)]);
    client.publish("t", b"four", Qos::AtMostOnce, 0);
    client.publish("t", b"seven77", Qos::AtLeastOnce, 1);
    node.run();
    let count = |name: &str| [0, 1, 2].map(|qos| node.counter(&format!("{name}{qos}")));
    assert_eq!((count("published_qos"), count("published_bytes_qos")), ([1, 1, 0], [5, 8, 0]));
    // A fixed header of two bytes, the topic with its length, in MQTT 5 an empty list of properties, at QoS 1 an identifier.
    let (to_5, to_5_once, to_3) = (2 + 3 + 1 + 4, 2 + 3 + 2 + 1 + 7, [2 + 3 + 4, 2 + 3 + 7]);
    assert_eq!(count("sent_qos"), [3, 1, 0]);
    assert_eq!(count("sent_bytes_qos"), [to_5 + to_3[0] + to_3[1], to_5_once, 0]);
}

/// Each counts, also where one pass carries several of them.
#[test]
fn bytes_of_messages_that_leave_together_are_all_counted() {
    let node = Node::new();
    let mut old = node.hello(&Hello::v3("old"));
    old.subscribe(&[("t", Qos::AtMostOnce)]);
    for payload in [&b"four"[..], b"seven77"] {
        node.start_push(Target::Topic("t".into()), payload, Qos::AtMostOnce, |_| {}).expect("the push is taken");
    }
    node.run();
    assert_eq!((node.counter("sent_qos0"), node.counter("sent_bytes_qos0")), (2, 2 + 3 + 4 + 2 + 3 + 7));
}
