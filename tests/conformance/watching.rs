//! What the control plane is told of devices when it watches.

use crate::client::{Got, Hello};
use crate::node::Node;
use kittiwake::base::ids::{Offset, Qos};
use kittiwake::limits::NOTICES_MAX;
use kittiwake::shard::command::{AppWatch, Happening, Notice, Target};
use kittiwake::wire::mqtt::AckKind;

fn connections() -> AppWatch {
    AppWatch { connections: true, ..AppWatch::default() }
}

fn told(node: &Node) -> Vec<String> {
    let told = node.notices().into_iter().map(|notice| match notice {
        Notice::Story(story) => format!("story {:?}", story.why),
        Notice::Missed { count, .. } => format!("missed {count}"),
        Notice::Happened { user, device, what, .. } => match what {
            Happening::Connected { session_present } => format!("{user}/{device} connected {session_present}"),
            Happening::Disconnected { reason } => format!("{user}/{device} {reason}"),
            Happening::Published(message) => format!("{user}/{device} publishes {}", message.topic),
            Happening::Received { topic, inbox, refused } => {
                let offset = inbox.map_or(Offset(0), |(_, offset)| offset);
                format!("{user}/{device} has {topic} {offset}{}", if refused { " refused" } else { "" })
            }
        },
    });
    told.collect()
}

#[test]
fn who_comes_and_goes_is_told_with_the_reason() {
    let node = Node::with_shards(2);
    node.connect("before").bye();
    node.watch(connections());
    node.connect("a").bye();
    assert_eq!(told(&node), ["a/a connected false", "a/a client_disconnect"]);
    node.connect("b").reset();
    assert_eq!(told(&node), ["b/b connected false", "b/b lost"]);
    let lasting = Hello::lasting("c");
    let _first = node.hello(&lasting);
    let _second = node.hello(&lasting);
    assert_eq!(told(&node), ["c/c connected false", "c/c taken_over", "c/c connected true"]);
    let _idle = node.hello(&Hello::v5("d").keep_alive(10));
    node.advance(20_000);
    assert!(told(&node).contains(&"d/d keep_alive".to_owned()));
    node.watch(AppWatch::default());
    node.connect("after").bye();
    assert_eq!(told(&node), Vec::<String>::new());
}

#[test]
fn publishes_are_told_as_far_as_a_filter_matches() {
    let node = Node::new();
    node.watch(AppWatch { publishes: vec!["rooms/+".into(), "exact".into()], ..AppWatch::default() });
    let mut client = node.connect("a");
    client.publish("rooms/1", b"x", Qos::AtMostOnce, 0);
    client.publish("rooms/1/2", b"x", Qos::AtMostOnce, 0);
    client.publish("exact", b"x", Qos::AtLeastOnce, 7);
    node.run();
    node.push(Target::Topic("rooms/2".into()), b"a backend's", Qos::AtMostOnce).expect("it is taken");
    assert_eq!(told(&node), ["a/a publishes rooms/1", "a/a publishes exact"]);
}

#[test]
fn acknowledgements_are_told_with_the_place_in_the_inbox() {
    let node = Node::new();
    let mut client = node.connect("a");
    client.subscribe(&[("$inbox/#", Qos::ExactlyOnce), ("t", Qos::AtLeastOnce)]);
    node.push_user("a", b"unwatched", Qos::AtLeastOnce);
    client.expect_and_ack("unwatched");
    node.watch(AppWatch { receipts: true, ..AppWatch::default() });
    node.push_user("a", b"one", Qos::AtLeastOnce);
    client.expect_and_ack("one");
    node.push_user("a", b"two", Qos::ExactlyOnce);
    let message = client.expect_text("two");
    client.ack(AckKind::PubRec, message.id);
    node.run();
    let released = client.next();
    assert!(matches!(released, Some(Got::PubRel(id, 0)) if id == message.id), "{released:?}");
    node.push_topic("t", b"three", Qos::AtLeastOnce);
    client.expect_and_ack("three");
    node.push_user("a", b"not acknowledged by anybody", Qos::AtMostOnce);
    assert_eq!(told(&node), ["a/a has $inbox/push 2", "a/a has $inbox/push 3", "a/a has t 0"]);
}

#[test]
fn a_watcher_that_does_not_read_costs_notices_and_is_told_how_many() {
    let node = Node::new();
    node.watch(AppWatch { publishes: vec!["t".into()], ..AppWatch::default() });
    let mut client = node.connect("a");
    for over in [0, 5] {
        for _ in 0..NOTICES_MAX + over {
            client.publish("t", b"x", Qos::AtMostOnce, 0);
        }
        node.run();
        let told = told(&node);
        assert_eq!(told.len(), NOTICES_MAX, "{over}");
        assert!(told.iter().all(|line| line == "a/a publishes t"));
        node.advance(10);
        let then = self::told(&node);
        assert_eq!(then, if over == 0 { Vec::new() } else { vec![format!("missed {over}")] });
    }
    assert_eq!(node.counter("notices_dropped"), 5);
    client.expect_pong();
}
