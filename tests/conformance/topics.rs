//! Topics over two shards: one order, and nothing missed after SUBACK.

use crate::client::{Client, Got, Hello, encoded, publish};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::shard::command::Target;
use kittiwake::wire::mqtt::{Filter, Version};

/// Clients whose homes are on both of two shards.
fn on_both(node: &Node, prefix: &str, lasting: bool) -> Vec<Client> {
    let names: Vec<String> = (0..6).map(|number| format!("{prefix}-{number}")).collect();
    let hello = |name| if lasting { Hello::lasting(name) } else { Hello::v5(name) };
    let clients = names.iter().map(|name| node.hello(&hello(name.as_str()))).collect();
    assert!(node.gauges("sessions").iter().all(|&sessions| sessions > 0), "all live on one shard");
    clients
}

#[test]
fn all_subscribers_see_a_topics_messages_in_one_order() {
    for lasting in [false, true] {
        let node = Node::with_shards(2);
        let mut subscribers = on_both(&node, "subscriber", lasting);
        for (number, subscriber) in subscribers.iter_mut().enumerate() {
            let filter = ["a/b", "a/+", "#"][number % 3];
            subscriber.subscribe(&[(filter, Qos::AtLeastOnce)]);
        }
        let mut publishers = on_both(&node, "publisher", false);
        for number in 1..=20 {
            for (publisher, client) in publishers.iter_mut().enumerate() {
                let text = format!("{publisher}-{number}");
                let frame = encoded(Version::V5, &publish("a/b", text.as_bytes(), Qos::AtLeastOnce, number));
                assert_eq!(client.write(&frame), frame.len());
            }
        }
        node.run();
        for client in &mut publishers {
            assert!(client.all().into_iter().eq((1..=20).map(|id| Got::PubAck(id, 0))));
        }
        let orders: Vec<Vec<String>> = subscribers.iter_mut().map(Client::drain).collect();
        assert_eq!(orders[0].len(), 120);
        assert!(orders.iter().all(|order| *order == orders[0]), "lasting: {lasting}");
        for publisher in 0..6 {
            let prefix = format!("{publisher}-");
            let of_it = orders[0].iter().filter_map(|text| text.strip_prefix(&prefix)?.parse::<u32>().ok());
            assert!(of_it.eq(1..=20), "a publisher's own order");
        }
    }
}

#[test]
fn lasting_and_passing_subscribers_see_one_order_also_while_commits_are_late() {
    let node = Node::with_shards(2);
    let mut lasting = on_both(&node, "lasting", true);
    let mut passing = on_both(&node, "passing", false);
    for client in lasting.iter_mut().chain(&mut passing) {
        client.subscribe(&[("a", Qos::AtLeastOnce)]);
    }
    let mut publishers = on_both(&node, "publisher", false);
    for round in 1..=10_u16 {
        if round % 3 == 0 {
            node.hold_commits()
        } else {
            node.release_commits()
        }
        for (publisher, client) in publishers.iter_mut().enumerate() {
            client.publish("a", format!("{publisher}-{round}").as_bytes(), Qos::AtLeastOnce, round);
        }
    }
    node.release_commits();
    let orders: Vec<Vec<String>> = lasting.iter_mut().chain(&mut passing).map(Client::drain).collect();
    assert_eq!(orders[0].len(), 60);
    assert!(orders.iter().all(|order| *order == orders[0]));
}

#[test]
fn what_is_published_after_a_suback_is_not_missed() {
    for lasting in [false, true] {
        for filter in ["exact", "wild/+"] {
            let node = Node::with_shards(2);
            for number in 0..8 {
                let name = format!("client-{number}");
                let hello = if lasting { Hello::lasting(&name) } else { Hello::v5(&name) };
                let mut client = node.hello(&hello);
                let text = format!("{filter}-{number}");
                let filter = if filter == "exact" { text.clone() } else { format!("wild-{number}/+") };
                let topic = filter.replace('+', "x");
                client.write_subscribe(&[Filter::new(&filter, Qos::AtLeastOnce)]);
                let mut turns = 0;
                while client.peek().is_none() {
                    node.step();
                    turns += 1;
                    assert!(turns < 1_000, "no SUBACK comes");
                }
                node.start_push(Target::Topic(topic.into()), text.as_bytes(), Qos::AtLeastOnce, |_| {})
                    .expect("there is room");
                assert!(matches!(client.next(), Some(Got::SubAck(_, codes)) if codes == [1]));
                client.expect_and_ack(&text);
            }
        }
    }
}

#[test]
fn an_inbox_push_after_a_suback_is_not_missed() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let node = Node::with_shards(2);
        for number in 0..8 {
            let name = format!("client-{number}");
            let mut client = node.connect(&name);
            client.write_subscribe(&[Filter::new("$inbox/#", Qos::AtLeastOnce)]);
            while client.peek().is_none() {
                node.step();
            }
            node.start_push(Target::User(name.as_str().into()), b"x", qos, |_| {}).expect("there is room");
            assert!(matches!(client.next(), Some(Got::SubAck(_, codes)) if codes == [1]));
            assert_eq!(client.drain(), ["x"]);
            client.write_subscribe(&[Filter::new("$inbox/push", Qos::AtLeastOnce)]);
            while client.peek().is_none() {
                node.step();
            }
            node.start_push(Target::Everyone, b"all", qos, |_| {}).expect("there is room");
            assert!(matches!(client.next(), Some(Got::SubAck(..))));
            assert_eq!(client.drain(), ["all"]);
        }
    }
}

#[test]
fn a_subscription_begins_with_what_comes_after_it() {
    let node = Node::with_shards(2);
    let mut first = node.hello(&Hello::lasting("first"));
    first.subscribe(&[("a", Qos::AtLeastOnce)]);
    node.push_topic("a", b"before", Qos::AtLeastOnce);
    let mut second = node.hello(&Hello::lasting("second"));
    second.subscribe(&[("a", Qos::AtLeastOnce)]);
    second.expect_nothing();
    node.push_topic("a", b"after", Qos::AtLeastOnce);
    assert_eq!(first.drain(), ["before", "after"]);
    assert_eq!(second.drain(), ["after"]);
}

#[test]
fn a_passing_subscriber_with_a_full_window_gets_the_rest_when_it_acknowledges() {
    let node = Node::with_shards(2);
    let mut subscribers = on_both(&node, "subscriber", false);
    for subscriber in &mut subscribers {
        subscriber.subscribe(&[("a", Qos::AtLeastOnce)]);
    }
    for number in 0..500 {
        node.push_topic("a", number.to_string().as_bytes(), Qos::AtLeastOnce);
    }
    for subscriber in &mut subscribers {
        assert!(subscriber.drain().into_iter().eq((0..500).map(|number| number.to_string())));
    }
    assert_eq!(node.counter("dropped_window_full"), 0);
    for subscriber in subscribers {
        subscriber.bye();
    }
    node.assert_at_rest();
}

#[test]
fn messages_of_each_qos_pass_between_versions() {
    let node = Node::with_shards(2);
    let mut five = node.connect("five");
    let mut three = node.hello(&Hello::v3("three"));
    for client in [&mut five, &mut three] {
        client.subscribe(&[("a", Qos::ExactlyOnce)]);
    }
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let id = qos as u16;
        five.publish("a", b"from five", qos, id);
        three.publish("a", b"from three", qos, id);
        for client in [&mut five, &mut three] {
            let mut arrived: Vec<String> = Vec::new();
            for got in client.all() {
                if let Got::Publish(message) = got {
                    assert_eq!(message.qos, qos);
                    arrived.push(message.text().to_owned());
                }
            }
            arrived.sort();
            assert_eq!(arrived, ["from five", "from three"]);
        }
    }
}

/// Two roads lead from a topic's home to a shard. What nobody was owed when it was published is on its way through the
/// log's queue without an entry, because it carries a QoS 2 identifier, when somebody begins to be owed the next one.
#[test]
fn what_is_owed_does_not_overtake_what_nobody_was_owed_and_is_under_way() {
    for shards in [1, 2, 4] {
        let node = Node::with_shards(shards);
        let mut listeners: Vec<Client> = (0..4).map(|number| node.connect(&format!("listener-{number}"))).collect();
        listeners.iter_mut().for_each(|listener| listener.subscribe(&[("a/+", Qos::AtLeastOnce)]));
        let mut publisher = node.hello(&Hello::lasting("publisher"));
        let mut latecomer = node.hello(&Hello::lasting("latecomer"));
        node.hold_commits();
        publisher.publish("a/b", b"first", Qos::ExactlyOnce, 1);
        node.run();
        // A wildcard turns every topic below it, at every home.
        latecomer.start_subscribe(&[Filter::new("a/#", Qos::AtLeastOnce)], None);
        publisher.publish("a/b", b"second", Qos::ExactlyOnce, 2);
        publisher.publish("a/b", b"third", Qos::AtLeastOnce, 3);
        publisher.publish("a/c", b"elsewhere", Qos::AtLeastOnce, 4);
        node.release_commits();
        for listener in &mut listeners {
            let texts = listener.drain();
            let of_a_b: Vec<&str> = texts.iter().map(String::as_str).filter(|text| *text != "elsewhere").collect();
            assert_eq!((texts.len(), of_a_b), (4, vec!["first", "second", "third"]), "{shards} shards");
        }
        assert_eq!(node.gauge("held_publishes"), 0);
        assert!(latecomer.all().contains(&Got::SubAck(1, vec![1])));
    }
}

/// Others begin to be owed something, twice, before what nobody was owed has left: it waits behind the first change, and
/// what somebody is owed from the last one on must wait until it has left.
#[test]
fn what_is_owed_does_not_overtake_what_was_held_between_two_changes() {
    for shards in [1, 2, 4] {
        let node = Node::with_shards(shards);
        let mut listeners: Vec<Client> = (0..4).map(|number| node.connect(&format!("listener-{number}"))).collect();
        listeners.iter_mut().for_each(|listener| listener.subscribe(&[("a/b", Qos::AtLeastOnce)]));
        let mut publisher = node.hello(&Hello::lasting("publisher"));
        let [mut early, mut other, mut late] = ["early", "other", "late"].map(|name| node.hello(&Hello::lasting(name)));
        node.hold_commits();
        publisher.publish("a/b", b"first", Qos::ExactlyOnce, 1);
        node.run();
        early.start_subscribe(&[Filter::new("x/#", Qos::AtLeastOnce)], None);
        node.run();
        // Some of them have the same home as the other topic.
        for number in 0..8 {
            publisher.publish(&format!("x/{number}"), b"elsewhere", Qos::AtLeastOnce, 10 + number);
        }
        node.run();
        other.start_subscribe(&[Filter::new("y/#", Qos::AtLeastOnce)], None);
        node.run();
        publisher.publish("a/b", b"second", Qos::ExactlyOnce, 2);
        node.run();
        late.start_subscribe(&[Filter::new("a/#", Qos::AtLeastOnce)], None);
        node.run();
        publisher.publish("a/b", b"third", Qos::ExactlyOnce, 3);
        node.run();
        node.release_commits();
        for listener in &mut listeners {
            assert_eq!(listener.drain(), ["first", "second", "third"], "{shards} shards");
        }
        assert_eq!(node.gauge("held_publishes"), 0);
    }
}
