//! Bounds that an operator may change hold at the number that was set: one below, at it, and one beyond.

use crate::client::{Client, Got, Hello};
use crate::node::Node;
use core::time::Duration;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{RECEIVE_MAXIMUM_IN_MAX, RECEIVE_MAXIMUM_OUT_MAX};
use kittiwake::wire::mqtt::{AckKind, Filter};

#[test]
fn the_window_towards_a_device_is_as_wide_as_was_set() {
    for set in [1, 3, 100, RECEIVE_MAXIMUM_OUT_MAX] {
        let node = Node::with(1, |limits| limits.receive_maximum_out = set);
        for asked in [set - 1, set, set + 1].into_iter().filter(|&asked| asked > 0) {
            let window = usize::from(asked.min(set));
            let name = format!("phone-{asked}");
            let mut phone = node.hello(&Hello::v5(&name).receive_maximum(asked));
            phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
            for number in 0..=window {
                node.push_user(&name, number.to_string().as_bytes(), Qos::AtLeastOnce);
            }
            assert_eq!(phone.messages().len(), window, "{asked} of {set}");
            phone.bye();
        }
        // 3.1.1 cannot ask for less.
        let mut phone = node.hello(&Hello::v3("old"));
        phone.subscribe(&[("$inbox/#", Qos::ExactlyOnce)]);
        for _ in 0..=set {
            node.push_user("old", b"x", Qos::ExactlyOnce);
        }
        assert_eq!(phone.messages().len(), usize::from(set));
    }
}

#[test]
fn a_device_may_have_as_many_publishes_unacknowledged_as_was_set() {
    for set in [1, 3, RECEIVE_MAXIMUM_IN_MAX] {
        let node = Node::with(1, |limits| limits.receive_maximum_in = set);
        let mut phone = node.dial();
        phone.hello(&Hello::v5("phone"));
        assert_eq!(phone.expect_connack(0).receive_maximum, Some(set));
        for id in 1..=set {
            phone.publish("a", b"x", Qos::ExactlyOnce, id);
            phone.expect(&Got::PubRec(id, 0x10));
        }
        // One that is done makes room for one.
        phone.ack(AckKind::PubRel, 1);
        phone.expect(&Got::PubComp(1, 0));
        phone.publish("a", b"x", Qos::ExactlyOnce, 1);
        phone.expect(&Got::PubRec(1, 0x10));
        phone.publish("a", b"x", Qos::AtLeastOnce, set + 1);
        phone.expect_goodbye(0x93);
        // 3.1.1 knows no such number: it is read more slowly and loses nothing.
        let mut owed = node.hello(&Hello::lasting("owed"));
        owed.subscribe(&[("a", Qos::AtLeastOnce)]);
        let mut old = node.hello(&Hello::v3("old"));
        node.hold_commits();
        for id in 1..=set + 1 {
            old.publish("a", b"x", Qos::AtLeastOnce, id);
        }
        old.expect_nothing();
        node.release_commits();
        assert_eq!(old.all(), (1..=set + 1).map(|id| Got::PubAck(id, 0)).collect::<Vec<_>>());
    }
}

#[test]
fn a_session_has_as_many_subscriptions_as_was_set() {
    for set in [1, 2, 7] {
        let node = Node::with(1, |limits| limits.subscriptions = set);
        for (hello, refused) in [(Hello::v5("phone"), 0x97), (Hello::v3("phone"), 0x80)] {
            let mut phone = node.hello(&hello);
            let names: Vec<String> = (0..=set).map(|at| at.to_string()).collect();
            let filters: Vec<_> = names.iter().map(|name| Filter::new(name, Qos::AtLeastOnce)).collect();
            let id = phone.start_subscribe(&filters, None);
            let mut codes = vec![1; set];
            codes.push(refused);
            phone.expect(&Got::SubAck(id, codes));
            assert_eq!(node.gauge("subscriptions"), set as u64);
            phone.bye();
        }
    }
}

fn refused(node: &Node, hello: &Hello<'_>, code: u8) {
    let mut client: Client = node.dial();
    client.hello(hello);
    client.expect_connack(code);
    client.expect_closed();
}

#[test]
fn a_user_has_as_many_devices_as_was_set_and_keeps_those_of_before() {
    let node = Node::with(1, |limits| limits.devices_per_user = 2);
    for name in ["one", "two"] {
        node.hello(&Hello::lasting(name).user("ann")).bye();
    }
    refused(&node, &Hello::v5("three").user("ann"), 0x97);
    refused(&node, &Hello::v3("three").user("ann"), 0x03);
    node.hello(&Hello::lasting("two").user("ann")).bye();
    node.hello(&Hello::v5("three").user("bob")).bye();
    // With a smaller bound after a restart the sessions that are there are served, and no further one.
    node.restart_with(|limits| limits.devices_per_user = 1);
    for name in ["one", "two"] {
        let mut known = node.dial();
        known.hello(&Hello::lasting(name).user("ann"));
        assert!(known.expect_connack(0).session_present, "{name}");
        known.bye();
    }
    refused(&node, &Hello::v5("three").user("ann"), 0x97);
}

#[test]
fn a_session_outlives_its_connection_for_as_long_as_was_set() {
    for (set, asked, told) in [(60, 59, None), (60, 60, None), (60, 61, Some(60)), (0, 1, Some(0))] {
        let node = Node::with(1, |limits| limits.session_expiry = Duration::from_secs(set));
        let lives_ms = set.min(asked) * 1_000;
        for (hello, lives_ms) in
            [(Hello::lasting("phone").expiry(asked as u32), lives_ms), (Hello::v3("old").clean(false), set * 1_000)]
        {
            for (waited_ms, is_there) in [(lives_ms.saturating_sub(500), set > 0), (lives_ms + 500, false)] {
                let mut phone = node.dial();
                phone.hello(&hello);
                let welcome = phone.expect_connack(0);
                let expected = told.filter(|_| hello.0.properties.session_expiry_seconds.is_some());
                assert_eq!(welcome.expiry, expected, "{asked} of {set}");
                phone.bye();
                node.advance(waited_ms);
                assert_eq!(node.gauge("sessions") > 0, is_there, "{asked} of {set}, after {waited_ms} ms");
            }
        }
    }
}

#[test]
fn a_longer_expiry_than_the_default_can_be_set() {
    const MONTH: u32 = 30 * 24 * 3_600;
    let node = Node::with(1, |limits| limits.session_expiry = Duration::from_secs(MONTH.into()));
    for (asked, told) in [(MONTH - 1, None), (MONTH, None), (MONTH + 1, Some(MONTH)), (u32::MAX, Some(MONTH))] {
        let mut phone = node.dial();
        phone.hello(&Hello::lasting("phone").expiry(asked));
        assert_eq!(phone.expect_connack(0).expiry, told, "{asked}");
        phone.bye();
    }
}

#[test]
fn keep_alive_ends_a_connection_at_one_and_a_half_times_and_not_a_tick_before() {
    for seconds in [1, 7, 20] {
        let node = Node::new();
        let mut phone = node.hello(&Hello::v5("phone").keep_alive(seconds));
        let limit_ms = u64::from(seconds) * 1_500;
        node.advance(limit_ms - 1);
        phone.expect_nothing();
        // Deadlines are kept to a tick of the wheel.
        node.advance(101);
        phone.expect_goodbye(0x8D);
    }
}

#[test]
fn without_a_keep_alive_a_connection_ends_after_an_hour_of_silence() {
    let node = Node::new();
    let mut five = node.hello(&Hello::v5("five").keep_alive(0));
    let mut three = node.hello(&Hello::v3("three").keep_alive(0));
    node.advance(1_800_000);
    three.expect_pong();
    node.advance(1_799_999);
    five.expect_nothing();
    node.advance(101);
    five.expect_goodbye(0x8D);
    three.expect_pong();
    node.advance(3_600_101);
    three.expect_closed();
}
