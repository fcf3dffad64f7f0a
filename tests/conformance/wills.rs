//! Wills: published when a connection ends otherwise than agreed.

use crate::client::{Client, Hello, will};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::Filter;

fn scene() -> (Node, Client) {
    let node = Node::with_shards(2);
    let mut watcher = node.hello(&Hello::lasting("watcher"));
    watcher.subscribe(&[("wills/#", Qos::ExactlyOnce)]);
    (node, watcher)
}

fn mortal<'a>(delay: u32, expiry: u32) -> Hello<'a> {
    let mut will = will("wills/phone", b"gone", Qos::AtLeastOnce);
    will.properties.delay_seconds = Some(delay);
    Hello::v5("phone").clean(false).expiry(expiry).will(will)
}

#[test]
fn mqtt5_3_1_2_8_a_will_is_published_when_the_connection_is_lost() {
    let (node, mut watcher) = scene();
    node.hello(&mortal(0, 0)).hang_up();
    let arrived = watcher.expect_and_ack("gone");
    assert_eq!((arrived.topic.as_str(), arrived.retain), ("wills/phone", false));
    node.hello(&mortal(0, 0)).reset();
    watcher.expect_and_ack("gone");
    let three = Hello::v3("old").will(will("wills/old", b"gone", Qos::AtMostOnce));
    node.hello(&three).hang_up();
    assert_eq!(watcher.expect_text("gone").qos, Qos::AtMostOnce);
    watcher.expect_nothing();
}

#[test]
fn a_will_is_published_when_the_client_breaks_the_protocol_or_falls_silent() {
    let (node, mut watcher) = scene();
    let mut phone = node.hello(&mortal(0, 0));
    phone.send(b"\0\0");
    phone.expect_goodbye(0x81);
    watcher.expect_and_ack("gone");
    let mut phone = node.hello(&mortal(0, 0).keep_alive(2));
    node.advance(3_400);
    phone.expect_goodbye(0x8D);
    watcher.expect_and_ack("gone");
}

#[test]
fn mqtt5_3_14_4_3_a_disconnect_drops_the_will() {
    let (node, mut watcher) = scene();
    node.hello(&mortal(0, 0)).bye();
    node.hello(&mortal(5, 3_600)).bye();
    node.hello(&Hello::v3("old").will(will("wills/old", b"gone", Qos::AtMostOnce))).bye();
    node.advance(10_000);
    watcher.expect_nothing();
}

#[test]
fn mqtt5_3_14_2_a_disconnect_may_ask_for_the_will() {
    let (node, mut watcher) = scene();
    let mut phone = node.hello(&mortal(0, 0));
    phone.send(b"\xE0\x01\x04");
    phone.expect_closed();
    watcher.expect_and_ack("gone");
}

#[test]
fn mqtt5_3_1_3_9_a_delayed_will_waits_and_is_dropped_when_the_session_is_taken_up_again() {
    let (node, mut watcher) = scene();
    node.hello(&mortal(10, 3_600)).hang_up();
    node.advance(9_000);
    watcher.expect_nothing();
    node.advance(1_500);
    watcher.expect_and_ack("gone");
    node.hello(&mortal(10, 3_600)).hang_up();
    node.advance(9_000);
    node.hello(&mortal(10, 3_600)).bye();
    node.advance(20_000);
    watcher.expect_nothing();
}

#[test]
fn mqtt5_3_1_3_2_2_a_delayed_will_is_published_no_later_than_the_session_ends() {
    let (node, mut watcher) = scene();
    node.hello(&mortal(60, 5)).hang_up();
    node.advance(4_000);
    watcher.expect_nothing();
    node.advance(1_500);
    watcher.expect_and_ack("gone");
    // With no expiry the session ends at once.
    node.hello(&mortal(60, 0)).hang_up();
    watcher.expect_and_ack("gone");
    // A clean start ends it as well.
    node.hello(&mortal(60, 3_600)).hang_up();
    watcher.expect_nothing();
    node.hello(&Hello::v5("phone")).bye();
    watcher.expect_and_ack("gone");
}

#[test]
fn a_take_over_publishes_the_will_unless_it_is_delayed_and_the_session_goes_on() {
    let (node, mut watcher) = scene();
    let first = node.hello(&mortal(0, 3_600));
    let second = node.hello(&mortal(10, 3_600));
    watcher.expect_and_ack("gone");
    let third = node.hello(&mortal(10, 3_600));
    node.advance(20_000);
    watcher.expect_nothing();
    let fourth = node.hello(&mortal(10, 3_600).clean(true));
    watcher.expect_and_ack("gone");
    drop((first, second, third));
    fourth.bye();
    node.advance(20_000);
    watcher.expect_nothing();
}

#[test]
fn mqtt5_3_1_2_10_a_will_is_published_once() {
    let (node, mut watcher) = scene();
    for hello in [Hello::lasting("phone"), Hello::v3("phone").clean(false)] {
        let mortal = hello.will(will("wills/phone", b"gone", Qos::AtLeastOnce));
        node.hello(&mortal).hang_up();
        watcher.expect_and_ack("gone");
        // Of the connection that had none there is none, though the session goes on.
        node.hello(&hello).hang_up();
        node.advance(60_000);
        watcher.expect_nothing();
        node.hello(&mortal).bye();
        node.hello(&hello).hang_up();
        node.advance(60_000);
        watcher.expect_nothing();
    }
}

#[test]
fn mqtt5_3_1_2_14_a_will_that_is_not_to_be_retained_is_published_so() {
    let node = Node::with_shards(2);
    let mut watcher = node.connect("watcher");
    let keeping = Filter { retain_as_published: true, ..Filter::new("wills/#", Qos::AtMostOnce) };
    watcher.subscribe_with(&[keeping], None);
    node.hello(&mortal(0, 0)).hang_up();
    assert!(!watcher.expect_text("gone").retain);
    let three = Hello::v3("old").will(will("wills/old", b"gone", Qos::AtMostOnce));
    node.hello(&three).hang_up();
    assert!(!watcher.expect_text("gone").retain);
}
