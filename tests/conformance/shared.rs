//! Shared subscriptions: each message for one member of its group. QoS 2 is in `shared_twice`.

use crate::client::{Client, Got, Hello, publish};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::{AckKind, Filter, Publish};

const SHARE: &str = "$share/group/t/+";

fn member(node: &Node, hello: &Hello<'_>) -> Client {
    let mut member = node.hello(hello);
    member.subscribe(&[(SHARE, Qos::AtLeastOnce)]);
    member
}

fn publish_all(publisher: &mut Client, from: usize, to: usize, qos: Qos) {
    for n in from..to {
        let id = if qos == Qos::AtMostOnce { 0 } else { 1 };
        publisher.publish(&format!("t/{n}"), format!("{n}").as_bytes(), qos, id);
        if qos == Qos::AtLeastOnce {
            assert!(matches!(publisher.next(), Some(Got::PubAck(1, code)) if code < 0x80));
        }
    }
}

/// What two members got together, in order of number.
fn together(members: &mut [&mut Client]) -> Vec<usize> {
    let mut all: Vec<usize> = Vec::new();
    for member in members {
        all.extend(member.drain().iter().map(|text| text.parse::<usize>().expect("a number")));
    }
    all.sort_unstable();
    all
}

#[test]
fn mqtt5_3_2_2_connack_says_that_shares_are_available() {
    let node = Node::new();
    let mut phone = node.dial();
    phone.hello(&Hello::v5("phone"));
    assert_eq!(phone.expect_connack(0).shared_available, Some(true));
}

#[test]
fn mqtt5_4_8_2_each_message_reaches_one_member_and_all_have_their_share() {
    for shards in [1, 4] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let node = Node::with_shards(shards);
            let mut one = member(&node, &Hello::v5("one"));
            let mut two = member(&node, &Hello::v3("two"));
            let mut publisher = node.connect("publisher");
            publish_all(&mut publisher, 0, 20, qos);
            let (first, second) = (together(&mut [&mut one]), together(&mut [&mut two]));
            assert!(first.len() >= 5 && second.len() >= 5, "{first:?} {second:?}");
            let mut all = [first, second].concat();
            all.sort_unstable();
            assert_eq!(all, (0..20).collect::<Vec<_>>(), "{shards} shards, {qos:?}");
        }
    }
}

#[test]
fn two_groups_and_a_plain_subscription_get_each_their_own() {
    let node = Node::with_shards(2);
    let mut phone = node.connect("phone");
    phone.subscribe_with(&[Filter::new("$share/a/t/+", Qos::AtLeastOnce)], Some(1));
    phone.subscribe_with(&[Filter::new("$share/b/t/+", Qos::AtLeastOnce)], Some(2));
    phone.subscribe_with(&[Filter::new("t/#", Qos::AtMostOnce)], Some(3));
    let mut publisher = node.connect("publisher");
    publish_all(&mut publisher, 0, 1, Qos::AtLeastOnce);
    let mut arrived = phone.messages();
    arrived.sort_by_key(|arrived| arrived.subscriptions.clone());
    let seen: Vec<_> = arrived.iter().map(|arrived| (arrived.qos as u8, arrived.subscriptions[..].to_vec())).collect();
    assert_eq!(seen, [(1, vec![1]), (1, vec![2]), (0, vec![3])]);
}

#[test]
fn mqtt5_3_8_3_4_no_local_on_a_share_is_a_protocol_error() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    phone.start_subscribe(&[Filter { no_local: true, ..Filter::new(SHARE, Qos::AtLeastOnce) }], None);
    phone.expect_goodbye(0x82);
}

#[test]
fn mqtt5_4_8_2_retained_messages_are_not_sent_for_a_share() {
    let node = Node::with_shards(2);
    let mut publisher = node.connect("publisher");
    publisher.send_packet(&Publish { retain: true, ..publish("t/0", b"0", Qos::AtLeastOnce, 1) });
    publisher.expect(&Got::PubAck(1, 0x10));
    let mut phone = member(&node, &Hello::v5("phone"));
    phone.expect_nothing();
}

#[test]
fn shares_of_what_is_a_user_s_own_are_refused() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    for name in ["$inbox/#", "$inbox", "$presence/a", "$api/x"] {
        let filter = format!("$share/group/{name}");
        let id = phone.start_subscribe(&[Filter::new(&filter, Qos::AtMostOnce)], None);
        phone.expect(&Got::SubAck(id, vec![0x8F]));
    }
    let mut old = node.hello(&Hello::v3("old"));
    for name in ["$share/group", "$share//a", "$share/group/"] {
        let id = old.start_subscribe(&[Filter::new(name, Qos::AtMostOnce)], None);
        old.expect(&Got::SubAck(id, vec![0x80]));
    }
    phone.expect_nothing();
}

/// Each of these filters ends the connection that subscribes to it, and leaves nothing.
#[track_caller]
fn are_no_filters(node: &Node, filters: &[&str]) {
    for filter in filters {
        let mut phone = node.connect("phone");
        phone.start_subscribe(&[Filter::new(filter, Qos::AtLeastOnce)], None);
        phone.expect_goodbye(0x8F);
    }
    assert_eq!((node.gauge("share_groups"), node.gauge("subscriptions")), (0, 0));
}

#[test]
fn mqtt5_4_8_2_1_a_share_has_a_name_of_at_least_one_character() {
    let node = Node::new();
    are_no_filters(&node, &["$share//a", "$share///", "$share/"]);
    let mut phone = node.connect("phone");
    phone.subscribe(&[("$share/g/a", Qos::AtLeastOnce)]);
    // What only looks like one is a filter like any other.
    phone.subscribe(&[("$shared/g/a", Qos::AtLeastOnce), ("share/g/a", Qos::AtLeastOnce)]);
    assert_eq!((node.gauge("share_groups"), node.gauge("subscriptions")), (1, 3));
}

#[test]
fn mqtt5_4_8_2_2_the_name_of_a_share_has_no_wildcard_and_is_followed_by_a_filter() {
    let node = Node::new();
    are_no_filters(&node, &["$share/g+/a", "$share/#/a", "$share/+/a", "$share/g", "$share/g/", "$share/g/#/a"]);
    let mut phone = node.connect("phone");
    // The filter begins behind the slash that ends the name: this one has an empty first level.
    phone.subscribe(&[("$share/g//a", Qos::AtLeastOnce)]);
    let mut publisher = node.connect("publisher");
    publisher.publish("a", b"other", Qos::AtLeastOnce, 1);
    publisher.publish("/a", b"mine", Qos::AtLeastOnce, 2);
    phone.expect_and_ack("mine");
    phone.expect_nothing();
}

#[test]
fn what_a_member_has_not_acknowledged_when_it_goes_is_another_s() {
    for lasting in [false, true] {
        let node = Node::with_shards(3);
        let hello = if lasting { Hello::lasting("one") } else { Hello::v5("one") };
        let mut one = member(&node, &hello);
        let mut publisher = node.connect("publisher");
        publish_all(&mut publisher, 0, 5, Qos::AtLeastOnce);
        let arrived = one.messages();
        assert_eq!(arrived.len(), 5);
        one.puback(arrived[0].id);
        let mut two = member(&node, &Hello::v5("two"));
        two.expect_nothing();
        one.hang_up();
        assert_eq!(together(&mut [&mut two]), [1, 2, 3, 4]);
        if lasting {
            node.hello(&hello).expect_nothing();
        }
        assert_eq!(node.gauge("share_messages"), 0);
    }
}

#[test]
fn an_unsubscribe_gives_back_what_was_not_acknowledged() {
    let node = Node::with_shards(2);
    let mut one = member(&node, &Hello::v5("one"));
    let mut publisher = node.connect("publisher");
    publish_all(&mut publisher, 0, 2, Qos::AtLeastOnce);
    let arrived = one.messages();
    one.puback(arrived[0].id);
    let mut two = member(&node, &Hello::v5("two"));
    let id = one.unsubscribe(&[SHARE]);
    one.expect(&Got::UnsubAck(id, vec![0]));
    assert_eq!(together(&mut [&mut two]), [1]);
    publish_all(&mut publisher, 2, 4, Qos::AtLeastOnce);
    assert_eq!(together(&mut [&mut two]), [2, 3]);
    one.expect_nothing();
}

#[test]
fn mqtt5_4_8_2_6_what_a_member_refuses_is_nobody_s() {
    let node = Node::with_shards(2);
    let mut one = member(&node, &Hello::v5("one"));
    let mut two = member(&node, &Hello::v5("two"));
    let mut publisher = node.connect("publisher");
    publish_all(&mut publisher, 0, 1, Qos::AtLeastOnce);
    let (taker, other) = match one.next() {
        Some(Got::Publish(arrived)) => {
            one.send_packet(&refusal(arrived.id));
            (one, &mut two)
        }
        _ => {
            let id = two.expect_message().id;
            two.send_packet(&refusal(id));
            (two, &mut one)
        }
    };
    other.expect_nothing();
    assert_eq!(node.gauge("share_messages"), 0);
    drop(taker);
}

fn refusal(id: u16) -> kittiwake::wire::mqtt::Ack<'static> {
    let id = kittiwake::wire::mqtt::PacketId::new(id).expect("not 0");
    let reason = kittiwake::wire::mqtt::Reason::QuotaExceeded;
    kittiwake::wire::mqtt::Ack { reason, ..kittiwake::wire::mqtt::Ack::success(AckKind::PubAck, id) }
}

#[test]
fn mqtt5_3_3_4_9_only_members_with_an_open_window_are_assigned_to() {
    let node = Node::with_shards(2);
    let mut slow = member(&node, &Hello::v5("slow").receive_maximum(2));
    let mut quick = member(&node, &Hello::lasting("quick"));
    let mut publisher = node.connect("publisher");
    publish_all(&mut publisher, 0, 3, Qos::AtLeastOnce);
    assert!(!slow.messages().is_empty());
    let mut got = quick.drain().len();
    for n in 3..20 {
        publish_all(&mut publisher, n, n + 1, Qos::AtLeastOnce);
        got += quick.drain().len();
    }
    assert_eq!(got, 18, "two are with the slow one");
    quick.hang_up();
    publish_all(&mut publisher, 20, 25, Qos::AtLeastOnce);
    assert!(slow.messages().len() <= 2, "its window is full");
}

#[test]
fn a_group_of_absent_members_keeps_messages_for_them_across_a_restart() {
    for restarts in [false, true] {
        let node = Node::with_shards(3);
        let hello = Hello::lasting("one");
        let mut one = member(&node, &hello);
        let mut publisher = node.connect("publisher");
        publish_all(&mut publisher, 0, 3, Qos::AtLeastOnce);
        assert_eq!(together(&mut [&mut one]), [0, 1, 2]);
        one.hang_up();
        publish_all(&mut publisher, 3, 100, Qos::AtLeastOnce);
        publisher.hang_up();
        node.advance(2_000);
        if restarts {
            node.restart();
        }
        let mut one = node.hello(&hello);
        assert_eq!(together(&mut [&mut one]), (3..100).collect::<Vec<_>>(), "{restarts}");
        let mut publisher = node.connect("publisher");
        publish_all(&mut publisher, 100, 103, Qos::AtLeastOnce);
        assert_eq!(together(&mut [&mut one]), [100, 101, 102]);
        // The last member takes the group and its record along.
        let id = one.unsubscribe(&[SHARE]);
        one.expect(&Got::UnsubAck(id, vec![0]));
        assert_eq!((node.gauge("share_groups"), node.share_records()), (0, 0));
    }
}

#[test]
fn suback_of_a_lasting_member_follows_the_commit_of_its_group() {
    let node = Node::with_shards(2);
    let mut one = node.hello(&Hello::lasting("one"));
    node.hold_commits();
    let id = one.start_subscribe(&[Filter::new(SHARE, Qos::AtLeastOnce)], None);
    one.expect_nothing();
    node.release_commits();
    one.expect(&Got::SubAck(id, vec![1]));
    assert_eq!(node.share_records(), 1);
}

#[test]
fn unlogged_messages_for_which_nobody_has_room_are_bounded_and_counted() {
    let node = Node::with_shards(1);
    let mut slow = member(&node, &Hello::v5("slow").receive_maximum(1));
    let mut publisher = node.connect("publisher");
    publish_all(&mut publisher, 0, 1_030, Qos::AtLeastOnce);
    assert_eq!(node.gauge("share_messages"), 1_025);
    assert_eq!(node.counter("dropped_share_full"), 5);
    slow.drain();
    slow.hang_up();
    assert_eq!((node.gauge("share_groups"), node.gauge("subscriptions"), node.gauge("filters")), (0, 0, 0));
}

#[test]
fn a_new_group_does_not_go_on_where_one_of_its_name_was_left_by_a_crash() {
    let node = Node::with_shards(3);
    let keeper = Hello::lasting("keeper");
    node.hello(&keeper).subscribe(&[("t/#", Qos::AtLeastOnce)]);
    let mut one = member(&node, &Hello::lasting("one"));
    let mut two = member(&node, &Hello::v5("two"));
    let id = one.unsubscribe(&[SHARE]);
    one.expect(&Got::UnsubAck(id, vec![0]));
    let mut publisher = node.connect("publisher");
    publish_all(&mut publisher, 0, 3, Qos::AtLeastOnce);
    assert_eq!(together(&mut [&mut two]), [0, 1, 2]);
    assert_eq!(node.share_records(), 1);
    node.restart();
    let mut publisher = node.connect("publisher");
    publish_all(&mut publisher, 3, 6, Qos::AtLeastOnce);
    let mut three = member(&node, &Hello::v5("three"));
    three.expect_nothing();
    publish_all(&mut publisher, 6, 7, Qos::AtLeastOnce);
    assert_eq!(together(&mut [&mut three]), [6]);
    assert_eq!((node.share_records(), node.counter("records_of_ended_sessions")), (0, 1));
}
