//! What an app may have at most, and what a topic takes.

use crate::client::{Client, Got, Hello, publish, will};
use crate::node::Node;
use crate::sse::stream::answer;
use core::time::Duration;
use kittiwake::auth::{Lists, Publishers, Rights};
use kittiwake::base::bucket::Rate;
use kittiwake::base::ids::Qos;
use kittiwake::shard::command::{CommandError, Target};
use kittiwake::shard::{Quota, RateRule};
use kittiwake::wire::mqtt::Filter;
use std::sync::Arc;

fn node_with(shards: u16, quota: Quota) -> Node {
    Node::with(shards, |limits| limits.quotas = vec![quota])
}

fn refused(node: &Node, hello: &Hello<'_>, code: u8) {
    let mut client = node.dial();
    client.hello(hello);
    client.expect_connack(code);
    client.expect_closed();
}

fn events(user: &str, topics: &str) -> String {
    format!("GET /events?user={user}&device=page&{topics} HTTP/1.1\r\nHost: kittiwake\r\n\r\n")
}

#[test]
fn an_app_has_so_many_connections_over_all_shards_and_who_takes_over_needs_no_room() {
    for shards in [1, 4] {
        let node = node_with(shards, Quota { connections: Some(3), ..Quota::default() });
        let mut clients: Vec<Client> = ["ann", "bob", "cleo"].map(|name| node.connect(name)).into();
        refused(&node, &Hello::v5("dora"), 0x97);
        refused(&node, &Hello::v3("dora"), 3);
        let said = answer(&node, &events("dora", "topic=a"));
        assert!(said.starts_with("HTTP/1.1 429 ") && said.contains("\r\nRetry-After: "), "{said}");
        let mut again = node.connect("bob");
        clients[1].expect_goodbye(0x8e);
        refused(&node, &Hello::v5("dora"), 0x97);
        assert_eq!((node.counter("refused_app_connections"), node.gauge("connections")), (4, 3));
        clients.swap_remove(0).bye();
        node.connect("dora").expect_pong();
        again.expect_pong();
    }
}

#[test]
fn an_app_has_so_many_subscriptions_with_those_of_sessions_that_are_away_also_after_a_restart() {
    let node = node_with(2, Quota { subscriptions: Some(3), ..Quota::default() });
    let mut away = node.hello(&Hello::lasting("away"));
    away.subscribe(&[("a", Qos::AtLeastOnce), ("$inbox/#", Qos::AtLeastOnce)]);
    away.bye();
    for _ in 0..2 {
        let mut client = node.connect("ann");
        let both = [Filter::new("a", Qos::AtLeastOnce), Filter::new("b", Qos::AtMostOnce)];
        let id = client.start_subscribe(&both, None);
        client.expect(&Got::SubAck(id, vec![1, 0x97]));
        // What it has already may be changed.
        client.subscribe(&[("a", Qos::ExactlyOnce)]);
        let said = answer(&node, &events("dora", "topic=a"));
        assert!(said.starts_with("HTTP/1.1 429 "), "{said}");
        let id = client.unsubscribe(&["a"]);
        client.expect(&Got::UnsubAck(id, vec![0]));
        client.subscribe(&[("c", Qos::AtMostOnce)]);
        let id = client.start_subscribe(&[Filter::new("$share/g/d", Qos::AtLeastOnce)], None);
        client.expect(&Got::SubAck(id, vec![0x97]));
        assert_eq!(node.counter("refused_app_subscriptions"), 3);
        client.bye();
        assert_eq!(node.gauge("subscriptions"), 2);
        node.restart();
    }
}

#[test]
fn what_an_app_stores_beyond_its_quota_is_refused_until_retention_has_made_room() {
    let node = Node::with(2, |limits| {
        limits.quotas = vec![Quota { stored_bytes: Some(10), ..Quota::default() }];
        limits.inbox_age = Duration::from_secs(60);
    });
    let mut away = node.hello(&Hello::lasting("away"));
    away.subscribe(&[("t", Qos::AtLeastOnce)]);
    away.bye();
    let user = || Target::User("ann".into());
    for _ in 0..2 {
        node.push(user(), b"four", Qos::AtLeastOnce).expect("there is room");
    }
    assert_eq!(node.push(user(), b"four", Qos::AtLeastOnce), Err(CommandError::OverQuota));
    assert_eq!(node.push(Target::Topic("t".into()), b"four", Qos::AtLeastOnce), Err(CommandError::OverQuota));
    node.push(user(), b"four", Qos::AtMostOnce).expect("it is not stored");
    let mut client = node.connect("bob");
    client.publish("t", b"four", Qos::AtLeastOnce, 1);
    client.expect(&Got::PubAck(1, 0x97));
    client.publish("t", b"four", Qos::ExactlyOnce, 2);
    client.expect(&Got::PubRec(2, 0x97));
    // 3.1.1 cannot be told [MQTT-3.3.5-2].
    let mut old = node.hello(&Hello::v3("old"));
    old.publish("t", b"four", Qos::AtLeastOnce, 1);
    old.expect(&Got::PubAck(1, 0));
    client.publish("nobody is owed it", b"four", Qos::AtLeastOnce, 3);
    client.expect(&Got::PubAck(3, 0x10));
    assert_eq!(node.counter("refused_app_stored_bytes"), 5);
    client.publish("t", b"ok", Qos::AtLeastOnce, 4);
    client.expect(&Got::PubAck(4, 0));
    client.bye();
    old.bye();
    node.advance(61_000);
    // The sweep goes with commits.
    node.push(user(), b"", Qos::AtLeastOnce).expect("nothing has room anywhere");
    node.push(user(), b"eight888", Qos::AtLeastOnce).expect("what was there is over its time");
    let mut back = node.hello(&Hello::lasting("away").clean(false));
    back.expect_and_ack("ok");
    back.expect_nothing();
}

#[test]
fn a_topic_takes_so_many_messages_a_second_whoever_sends_them() {
    let node = Node::with_settings(2, |settings| {
        let rate = Rate { per_second: 2, burst_seconds: 1 };
        settings.topics.rate = vec![RateRule { filter: "chat/+".into(), rate }];
    });
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("chat/#", Qos::AtMostOnce), ("other", Qos::AtMostOnce)]);
    let (mut ann, mut old) = (node.connect("ann"), node.hello(&Hello::v3("old")));
    ann.publish("chat/1", b"a", Qos::AtLeastOnce, 1);
    ann.expect(&Got::PubAck(1, 0));
    old.publish("chat/1", b"b", Qos::AtMostOnce, 0);
    ann.publish("chat/1", b"c", Qos::AtLeastOnce, 2);
    ann.expect(&Got::PubAck(2, 0x97));
    ann.publish("chat/1", b"c", Qos::ExactlyOnce, 3);
    ann.expect(&Got::PubRec(3, 0x97));
    old.publish("chat/1", b"c", Qos::AtMostOnce, 0);
    old.publish("chat/1", b"c", Qos::AtLeastOnce, 1);
    old.expect(&Got::PubAck(1, 0));
    let pushed = node.push(Target::Topic("chat/1".into()), b"c", Qos::AtMostOnce);
    assert_eq!(pushed, Err(CommandError::TopicRate));
    assert_eq!(node.counter("refused_topic_rate"), 5);
    for topic in ["chat/2", "chat/1/2", "other"] {
        ann.publish(topic, b"d", Qos::AtLeastOnce, 4);
        ann.expect(&Got::PubAck(4, 0));
    }
    node.advance(500);
    node.push(Target::Topic("chat/1".into()), b"e", Qos::AtMostOnce).expect("one has flowed in");
    let mut texts: Vec<String> = watcher.messages().iter().map(|message| message.text().to_owned()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["a", "b", "d", "d", "d", "e"]);
    assert_eq!(node.counter("refused_topic_rate"), 5);
}

#[test]
fn only_those_whom_a_topics_rule_names_and_the_api_publish_there() {
    let node = Node::with_settings(2, |settings| {
        let rule = Publishers { filter: "news/#".into(), users: ["ann".into()].into() };
        let lists = Lists { publishers: [rule].into(), ..Lists::default() };
        settings.rights = Arc::new(Rights { node: Arc::new(lists), own: Lists::default() });
    });
    let (mut ann, mut bob) = (node.connect("ann"), node.connect("bob"));
    bob.subscribe(&[("#", Qos::AtMostOnce)]);
    ann.publish("news/1", b"from ann", Qos::AtLeastOnce, 1);
    ann.expect(&Got::PubAck(1, 0));
    bob.expect_text("from ann");
    bob.send_packet(&publish("news/1", b"no", Qos::AtLeastOnce, 1));
    bob.expect(&Got::PubAck(1, 0x87));
    bob.publish("rooms/1", b"to all", Qos::AtMostOnce, 0);
    bob.expect_text("to all");
    node.push_topic("news", b"from the API", Qos::AtMostOnce);
    bob.expect_text("from the API");
    refused(&node, &Hello::v5("carl").will(will("news/1", b"gone", Qos::AtMostOnce)), 0x87);
    node.hello(&Hello::v5("ann").will(will("news/1", b"gone", Qos::AtMostOnce))).reset();
    ann.expect_goodbye(0x8e);
    bob.expect_text("gone");
    assert_eq!(node.counter("publish_refused"), 1);
}
