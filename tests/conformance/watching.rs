//! What backends are told of devices.

use crate::client::{Got, Hello};
use crate::node::Node;
use kittiwake::base::ids::{AppId, Epoch, Offset, Qos};
use kittiwake::shard::command::{AppWatch, Happened, Happening, Push, Target, Told};
use kittiwake::shard::upstream::{self, Group};
use kittiwake::wire::mqtt::{Ack, AckKind, PacketId, Reason};
use std::sync::Arc;

fn connections() -> AppWatch {
    AppWatch { connections: true, ..AppWatch::default() }
}

fn told(node: &Node) -> Vec<String> {
    let told = node.told().into_iter().map(|told| match told {
        Told::Missed(count) => format!("missed {count}"),
        Told::Happened(Happened { user, device, what, .. }) => match what {
            Happening::Connected { session_present } => format!("{user}/{device} connected {session_present}"),
            Happening::Disconnected { reason } => format!("{user}/{device} {reason}"),
            Happening::Published(message) => format!("{user}/{device} publishes {}", message.topic),
            Happening::Receipt { topic, inbox, receipt, count } => {
                let offset = inbox.map_or(Offset(0), |(_, offset)| offset);
                let count = if count == 1 { String::new() } else { format!(" {count}") };
                format!("{user}/{device} {receipt:?} {topic} {offset}{count}")
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
    assert_eq!(told(&node), ["a/a Delivered $inbox/push 2", "a/a Delivered $inbox/push 3", "a/a Delivered t 0"]);
}

#[test]
fn a_publish_that_a_group_wants_is_acknowledged_when_that_is_stored() {
    for (qos, ack) in [(Qos::AtLeastOnce, Got::PubAck(7, 0)), (Qos::ExactlyOnce, Got::PubRec(7, 0))] {
        let node = Node::with_shards(2);
        node.watch(AppWatch { publishes: vec!["t".into()], ..AppWatch::default() });
        let mut client = node.connect("a");
        node.hold_commits();
        client.publish("t", b"x", qos, 7);
        node.run();
        client.expect_nothing();
        node.release_commits();
        // Backends are somebody who listens.
        client.expect(&ack);
        assert_eq!(told(&node), ["a/a publishes t"]);
    }
}

#[test]
fn what_a_group_wants_is_told_after_a_restart_without_anybody_saying_so() {
    let node = Node::with_shards(2);
    let group = Group {
        wants: AppWatch { connections: true, publishes: vec!["t".into()], ..AppWatch::default() },
        acknowledged: (Epoch(0), Offset(0)),
        used_ms: 0,
    };
    node.record(upstream::record(AppId(0), "g", &group));
    node.restart();
    let mut client = node.connect("a");
    client.publish("t", b"x", Qos::ExactlyOnce, 7);
    node.run();
    client.expect(&Got::PubRec(7, 0));
    assert_eq!(told(&node), ["a/a connected false", "a/a publishes t"]);
}

#[test]
fn a_qos2_publish_that_is_sent_again_is_told_once() {
    let node = Node::new();
    node.watch(AppWatch { publishes: vec!["t".into()], ..AppWatch::default() });
    let lasting = Hello::lasting("a");
    let mut client = node.hello(&lasting);
    client.publish("t", b"x", Qos::ExactlyOnce, 7);
    node.run();
    client.expect(&Got::PubRec(7, 0));
    client.vanish();
    let mut client = node.hello(&lasting);
    client.publish("t", b"x", Qos::ExactlyOnce, 7);
    node.run();
    client.expect(&Got::PubRec(7, 0));
    assert_eq!(told(&node), ["a/a publishes t"]);
}

#[test]
fn what_is_refused_or_over_its_time_or_taken_by_retention_is_told() {
    let node = Node::with_retention(1, |limits| limits.inbox_entries = 3, |_| {});
    node.watch(AppWatch { receipts: true, ..AppWatch::default() });
    let hello = Hello::lasting("a");
    let mut client = node.hello(&hello);
    client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    node.push_user("a", b"one", Qos::AtLeastOnce);
    let message = client.expect_text("one");
    let id = PacketId::new(message.id).expect("it is one");
    client.send_packet(&Ack { reason: Reason::QuotaExceeded, ..Ack::success(AckKind::PubAck, id) });
    client.bye();
    let expires_ms = Some(node.net().now().wall_ms + 1_000);
    let target = || Target::User("a".into());
    let dies = |push: &mut Push| Arc::make_mut(&mut push.message).expires_ms = expires_ms;
    node.push_with(target(), b"two", Qos::AtLeastOnce, dies).expect("it is stored");
    node.advance(2_000);
    node.hello(&hello).bye();
    assert_eq!(told(&node), ["a/a Refused $inbox/push 1", "a/a Expired $inbox/push 2"]);
    for text in ["3", "4", "5", "6", "7"] {
        node.push_user("a", text.as_bytes(), Qos::AtLeastOnce);
    }
    let mut client = node.hello(&hello);
    client.expect_text(r#"{"first":3,"entries":2}"#);
    client.expect_text("5");
    assert_eq!(told(&node), ["a/a Trimmed  4 2"]);
}

#[test]
fn a_poll_is_no_coming_and_going() {
    let node = Node::new();
    node.watch(connections());
    let mut page = node.dial();
    page.send(b"GET /poll?inbox=1&user=a&device=d&timeout_ms=0 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    node.run();
    let answer = String::from_utf8_lossy(&page.take_bytes()).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    node.connect("b").bye();
    assert_eq!(told(&node), ["b/b connected false", "b/b client_disconnect"]);
}
