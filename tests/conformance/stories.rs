//! What operators are told of single connections, whether messages flow, and devices that somebody else lets in.

use crate::client::{Got, Hello};
use crate::node::Node;
use core::time::Duration;
use kittiwake::auth::{Fault, Grant, Lists};
use kittiwake::base::ids::{AppId, Qos};
use kittiwake::limits::STORIES_PER_SECOND_MAX;
use kittiwake::shard::command::{Follow, Story};
use kittiwake::wire::mqtt::Version;
use std::sync::Arc;

fn words(story: &Story) -> Vec<String> {
    story.events.iter().map(|event| event.what.to_string()).collect()
}

#[test]
fn a_connection_that_ends_badly_is_told_of_with_what_happened_to_it_before() {
    let node = Node::new();
    node.connect("well").bye();
    let mut bad = node.connect("bad");
    bad.subscribe(&[("a", Qos::AtMostOnce), ("b", Qos::AtMostOnce)]);
    assert!(node.stories().is_empty(), "nothing is wrong yet");
    bad.send(&Hello::v5("bad").frame());
    node.run();
    let stories = node.stories();
    let [story] = &stories[..] else { panic!("{stories:?}") };
    assert_eq!(
        (story.user.as_deref(), story.device.as_deref(), story.why),
        (Some("bad"), Some("bad"), Some("protocol_error"))
    );
    assert_eq!(words(story), ["arrived: mqtt 5.0", "subscribed: 2", "closing: protocol_error"]);
}

#[test]
fn a_flood_of_bad_ends_is_counted_and_told_of_in_part() {
    let node = Node::new();
    let floods = STORIES_PER_SECOND_MAX + 5;
    for _ in 0..floods {
        let mut guest = node.dial();
        guest.send(&[0x20, 2, 0, 0]);
    }
    node.run();
    assert_eq!(node.stories().len(), STORIES_PER_SECOND_MAX as usize);
    let counters = &node.stats()[0].counters;
    let count = |name| counters.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    assert_eq!(count("connections_failed"), Some(u64::from(floods)));
    assert_eq!(count("connections_failed_untold"), Some(5));
}

#[test]
fn who_is_followed_is_told_of_at_once_and_for_a_while() {
    let node = Node::new();
    let until_ms = node.net().now().wall_ms + 1_000;
    let ann = Follow { app: None, user: Some("ann".into()), address: None, until_ms };
    node.handle().follow(&Arc::from(vec![ann])).expect("there is room");
    node.connect("bob").bye();
    node.connect("ann").bye();
    let stories = node.stories();
    assert!(stories.iter().all(|story| story.user.as_deref() == Some("ann") && story.why.is_none()), "{stories:?}");
    let told: Vec<String> = stories.iter().flat_map(words).collect();
    assert_eq!(told[..2], ["arrived: mqtt 5.0", "closing: client_disconnect"]);
    node.advance(1_000);
    node.connect("ann").bye();
    assert!(node.stories().is_empty(), "it is over by itself");
}

#[test]
fn a_canary_does_not_come_through_a_log_that_is_stuck() {
    let node = Node::with_shards(3);
    assert_eq!(node.canaries(node.send_canary()), [true, true, true]);
    node.hold_commits();
    let token = node.send_canary();
    node.advance(10_000);
    assert!(node.canaries(token).is_empty(), "the shards live, and no message would come through");
    node.release_commits();
    assert_eq!(node.canaries(token), [true, true, true]);
}

#[test]
fn a_drain_that_runs_out_of_time_is_over_all_the_same() {
    let node = Node::with(1, |limits| limits.drain_within = Duration::from_secs(1));
    let mut client = node.hello(&Hello::lasting("a"));
    node.hold_commits();
    client.start_subscribe(&[kittiwake::wire::mqtt::Filter::new("a", Qos::AtLeastOnce)], None);
    node.run();
    node.handle().drain();
    node.advance(950);
    assert_eq!(node.drained(), 0, "a commit is under way");
    node.advance(100);
    assert_eq!(node.drained(), 1);
}

#[test]
fn who_says_nothing_holds_up_a_drain_for_a_second() {
    let node = Node::new();
    let _guest = node.dial();
    node.run();
    node.handle().drain();
    node.advance(900);
    assert_eq!(node.drained(), 0);
    node.advance(200);
    assert_eq!(node.drained(), 1);
}

#[test]
fn whoever_is_asked_decides_who_a_device_is() {
    let node = Node::with_settings(1, |settings| settings.hook = true);
    let begin = || {
        let mut client = node.dial();
        client.speak(Version::V5);
        client.send(&Hello::v5("phone").user("ann").token("pw").frame());
        node.run();
        let mut asked = node.introductions();
        let (token, who) = asked.pop().expect("it is asked about");
        assert_eq!((&*who.device, who.username.as_deref(), who.protocol), ("phone", Some("ann"), "mqtt 5.0"));
        assert_eq!(who.password.as_ref().map(|shown| shown.bytes()), Some(&b"pw"[..]));
        (client, token)
    };
    for (fault, code) in [(Fault::Denied, 0x86), (Fault::Unanswered, 0x88)] {
        let (mut client, token) = begin();
        node.handle().verdict(token, Err(fault));
        node.run();
        assert!(matches!(client.next(), Some(Got::ConnAck(welcome)) if welcome.code == code), "{fault:?}");
    }
    let ends_ms = node.net().now().wall_ms + 5_000;
    for (ends_ms, ends) in [(ends_ms, true), (u64::MAX, false)] {
        let (mut client, token) = begin();
        let grant = Grant { app: AppId(0), user: "bob".into(), ends_ms, lists: Lists::default() };
        node.handle().verdict(token, Ok(grant));
        client.expect_connack(0);
        client.subscribe(&[("$inbox/#", Qos::AtMostOnce)]);
        node.push_user("bob", b"for bob", Qos::AtMostOnce);
        client.expect_text("for bob");
        node.advance(6_000);
        assert_eq!(matches!(client.next(), Some(Got::Disconnect(_))), ends, "{ends_ms}");
    }
}
