//! Shared subscriptions at QoS 2: a message that was begun with one member is completed with that one, or with nobody.

use crate::client::{Client, Got, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::{Ack, AckKind, PacketId, Reason};

const SHARE: &str = "$share/group/t/+";

/// A member whose CONNECT says so.
fn member(node: &Node, hello: &Hello<'_>) -> Client {
    let mut member = node.hello(hello);
    member.subscribe(&[(SHARE, Qos::ExactlyOnce)]);
    member
}

/// A member that is only there so that all is logged, and kept, whoever else is.
fn absent_member(node: &Node) {
    member(node, &Hello::lasting("absent")).hang_up();
}

/// A returning device, whatever it has come back to.
fn back(node: &Node, hello: &Hello<'_>) -> Client {
    let mut client = node.dial();
    client.hello(hello);
    client.expect_connack(0);
    client
}

fn publish(node: &Node, text: &str) {
    let mut publisher = node.connect("publisher");
    publisher.publish("t/0", text.as_bytes(), Qos::ExactlyOnce, 1);
    publisher.hang_up();
}

/// A QoS 2 message with that payload; its identifier.
#[track_caller]
fn expect_twice(client: &mut Client, text: &str, dup: bool) -> u16 {
    let arrived = client.expect_text(text);
    assert_eq!((arrived.qos, arrived.dup), (Qos::ExactlyOnce, dup));
    arrived.id
}

#[track_caller]
fn complete(client: &mut Client, id: u16) {
    client.ack(AckKind::PubRec, id);
    client.expect(&Got::PubRel(id, 0));
    client.ack(AckKind::PubComp, id);
}

/// Nobody who comes now gets anything of QoS 2, also after a crash, and nothing is left but the group's own record.
#[track_caller]
fn is_nobody_s(node: &Node) {
    for restarts in [false, true] {
        if restarts {
            node.restart();
        }
        let mut other = member(node, &Hello::v5("other"));
        let mut absent = back(node, &Hello::lasting("absent"));
        for client in [&mut other, &mut absent] {
            // What was acknowledged at QoS 1 a moment before a crash comes again.
            for arrived in client.messages() {
                assert_eq!((arrived.qos, restarts), (Qos::AtLeastOnce, true), "{arrived:?}");
                client.puback(arrived.id);
            }
        }
    }
    node.advance(3_000);
    assert_eq!((node.gauge("share_messages"), node.share_records()), (0, 1));
}

#[test]
fn mqtt5_4_8_2_3_the_granted_qos_of_a_share_is_respected() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    phone.subscribe(&[(SHARE, Qos::ExactlyOnce)]);
    publish(&node, "0");
    let id = expect_twice(&mut phone, "0", false);
    complete(&mut phone, id);
    phone.subscribe(&[(SHARE, Qos::AtLeastOnce)]);
    publish(&node, "1");
    phone.expect_and_ack("1");
    phone.subscribe(&[(SHARE, Qos::AtMostOnce)]);
    publish(&node, "2");
    assert_eq!(phone.expect_text("2").qos, Qos::AtMostOnce);
}

#[test]
fn mqtt5_4_8_2_4_a_qos2_message_is_completed_with_the_client_it_was_begun_with() {
    for shards in [1, 3] {
        for restarts in [false, true] {
            for received in [false, true] {
                let node = Node::with_shards(shards);
                let hello = Hello::lasting("one");
                let mut one = member(&node, &hello);
                publish(&node, "0");
                let id = expect_twice(&mut one, "0", false);
                if received {
                    one.ack(AckKind::PubRec, id);
                    one.expect(&Got::PubRel(id, 0));
                }
                let mut two = member(&node, &Hello::lasting("two"));
                one.hang_up();
                two.expect_nothing();
                if restarts {
                    node.restart();
                    two = back(&node, &Hello::lasting("two"));
                }
                two.expect_nothing();
                let mut one = back(&node, &hello);
                if received {
                    one.expect(&Got::PubRel(id, 0));
                    one.ack(AckKind::PubComp, id);
                } else {
                    assert_eq!(expect_twice(&mut one, "0", true), id);
                    complete(&mut one, id);
                }
                one.expect_nothing();
                two.expect_nothing();
                one.hang_up();
                back(&node, &hello).expect_nothing();
                node.advance(3_000);
                assert_eq!((node.gauge("share_messages"), node.share_records()), (0, 1), "{shards} {restarts}");
            }
        }
    }
}

#[test]
fn mqtt5_4_8_2_5_a_qos2_message_goes_to_nobody_else_when_its_session_ends() {
    for logged in [false, true] {
        let node = Node::with_shards(3);
        if logged {
            absent_member(&node);
        }
        let mut one = member(&node, &Hello::v5("one"));
        publish(&node, "0");
        expect_twice(&mut one, "0", false);
        let mut two = member(&node, &Hello::v5("two"));
        one.hang_up();
        two.expect_nothing();
        assert_eq!(node.counter("dropped_share_session_ended"), 1);
        if logged {
            is_nobody_s(&node);
        }
    }
    // The same of a session that is discarded.
    let node = Node::with_shards(3);
    let mut one = member(&node, &Hello::lasting("one"));
    publish(&node, "0");
    expect_twice(&mut one, "0", false);
    one.hang_up();
    absent_member(&node);
    back(&node, &Hello::lasting("one").clean(true)).expect_nothing();
    is_nobody_s(&node);
}

#[test]
fn mqtt5_4_8_2_6_a_qos2_message_that_a_member_refuses_is_nobody_s() {
    let node = Node::with_shards(2);
    absent_member(&node);
    let mut one = member(&node, &Hello::lasting("one"));
    publish(&node, "0");
    let id = PacketId::new(expect_twice(&mut one, "0", false)).expect("not 0");
    one.send_packet(&Ack { reason: Reason::QuotaExceeded, ..Ack::success(AckKind::PubRec, id) });
    one.expect_nothing();
    one.hang_up();
    back(&node, &Hello::lasting("one")).expect_nothing();
    is_nobody_s(&node);
}

#[test]
fn what_was_completed_is_not_assigned_again_after_a_crash() {
    for lasting in [false, true] {
        let node = Node::with_shards(3);
        absent_member(&node);
        let one = member(&node, &if lasting { Hello::lasting("one") } else { Hello::v5("one") });
        // Its position stays behind because of this one, at QoS 1.
        let mut slow = node.hello(&Hello::lasting("slow"));
        one.hang_up();
        slow.subscribe(&[(SHARE, Qos::AtLeastOnce)]);
        publish(&node, "0");
        let open = slow.expect_text("0");
        let mut one = member(&node, &if lasting { Hello::lasting("one") } else { Hello::v5("one") });
        for n in 1..12 {
            publish(&node, &n.to_string());
            if let Some(Got::Publish(arrived)) = one.next() {
                complete(&mut one, arrived.id);
            } else {
                let arrived = slow.expect_message();
                slow.puback(arrived.id);
            }
            if n == 6 {
                node.advance(3_000);
                assert_eq!(node.share_records(), 1, "the group's own record says what is taken");
            }
        }
        assert!(node.share_records() > 1, "what was taken since is on record");
        // At QoS 1 what was acknowledged a moment ago may come again; what was completed may not.
        node.restart();
        one = back(&node, &Hello::v5("third"));
        one.subscribe(&[(SHARE, Qos::ExactlyOnce)]);
        let all: Vec<String> = one
            .all()
            .into_iter()
            .map(|got| match got {
                Got::Publish(arrived) => {
                    assert_eq!(arrived.qos, Qos::ExactlyOnce);
                    arrived.text().to_owned()
                }
                other => panic!("no message but {other:?}"),
            })
            .collect();
        assert_eq!(all.first().map(String::as_str), Some("0"), "it was not acknowledged: {all:?}");
        let acknowledged_lately = all.iter().skip(1).all(|text| text.parse::<u32>().is_ok_and(|n| n > 6));
        assert!(acknowledged_lately && all.len() <= 4, "{all:?}");
        assert_eq!(open.qos, Qos::AtLeastOnce);
    }
}

/// A member that has an assignment whose commit is not answered.
#[track_caller]
fn hold_assignment(node: &Node, hello: Hello<'_>) -> Client {
    absent_member(node);
    let mut one = member(node, &hello.receive_maximum(1));
    let mut publisher = node.connect("publisher");
    publisher.publish("t/0", b"0", Qos::AtLeastOnce, 1);
    let first = one.expect_text("0");
    publish(node, "1");
    one.expect_nothing();
    node.hold_commits();
    // Now there is room for the second one.
    one.puback(first.id);
    one.expect_nothing();
    one
}

#[test]
fn a_connection_that_ends_before_the_commit_is_answered_leaves_the_message_to_the_next() {
    let node = Node::with_shards(3);
    let hello = Hello::lasting("one");
    hold_assignment(&node, hello).hang_up();
    let mut two = member(&node, &Hello::v5("two"));
    two.expect_nothing();
    node.release_commits();
    two.expect_nothing();
    let mut one = back(&node, &hello);
    let id = expect_twice(&mut one, "1", true);
    complete(&mut one, id);
    one.hang_up();
    two.hang_up();
    is_nobody_s(&node);
}

#[test]
fn a_connection_that_takes_over_before_the_commit_is_answered_has_the_message_once() {
    let node = Node::with_shards(3);
    let hello = Hello::lasting("one");
    let _old = hold_assignment(&node, hello);
    let mut two = member(&node, &Hello::v5("two"));
    let mut one = node.dial();
    one.hello(&hello);
    node.release_commits();
    one.expect_connack(0);
    let id = one.expect_text("1").id;
    complete(&mut one, id);
    one.expect_nothing();
    two.expect_nothing();
    one.hang_up();
    two.hang_up();
    is_nobody_s(&node);
}

#[test]
fn a_session_that_ends_before_the_commit_is_answered_gives_the_message_back() {
    for discarded in [false, true] {
        let node = Node::with_shards(3);
        let hello = if discarded { Hello::lasting("one") } else { Hello::v5("one") };
        let one = hold_assignment(&node, hello);
        let mut two = member(&node, &Hello::v5("two"));
        let again = discarded.then(|| {
            let mut again = node.dial();
            again.hello(&hello.clean(true));
            again
        });
        one.hang_up();
        two.expect_nothing();
        node.release_commits();
        let id = expect_twice(&mut two, "1", false);
        complete(&mut two, id);
        assert_eq!(node.counter("share_returned"), 1);
        if let Some(mut again) = again {
            again.expect_connack(0);
            again.expect_nothing();
        }
        two.hang_up();
        is_nobody_s(&node);
    }
}

#[test]
fn a_member_that_leaves_before_the_commit_is_answered_has_the_message_all_the_same() {
    let node = Node::with_shards(3);
    let mut one = hold_assignment(&node, Hello::lasting("one"));
    let mut two = member(&node, &Hello::v5("two"));
    let unsubscribe = one.unsubscribe(&[SHARE]);
    node.release_commits();
    let id = expect_twice(&mut one, "1", false);
    one.expect(&Got::UnsubAck(unsubscribe, vec![0]));
    complete(&mut one, id);
    two.expect_nothing();
    one.hang_up();
    two.hang_up();
    is_nobody_s(&node);
}

#[test]
fn a_group_that_all_have_left_ends_when_the_last_commit_is_answered() {
    let node = Node::with_shards(3);
    let mut one = hold_assignment(&node, Hello::lasting("one"));
    let unsubscribe = one.unsubscribe(&[SHARE]);
    let mut absent = node.dial();
    absent.hello(&Hello::v5("absent"));
    assert_eq!(node.gauge("share_groups"), 1);
    node.release_commits();
    let id = expect_twice(&mut one, "1", false);
    one.expect(&Got::UnsubAck(unsubscribe, vec![0]));
    complete(&mut one, id);
    assert_eq!((node.gauge("share_groups"), node.gauge("share_messages"), node.share_records()), (0, 0, 0));
}

#[test]
fn a_crash_before_the_commit_leaves_the_message_to_the_group() {
    let node = Node::with_shards(3);
    let hello = Hello::lasting("one");
    let _one = hold_assignment(&node, hello);
    node.restart();
    node.release_commits();
    let mut two = member(&node, &Hello::v5("two"));
    // That the first one was acknowledged had not been written yet.
    let texts: Vec<String> = two.messages().iter().map(|arrived| arrived.text().to_owned()).collect();
    assert!(texts.ends_with(&["1".to_owned()]), "{texts:?}");
    back(&node, &hello).expect_nothing();
}

#[test]
fn mqtt5_3_3_4_9_qos2_messages_of_a_share_keep_to_the_window() {
    for hello in [Hello::v5("one"), Hello::lasting("one")] {
        let node = Node::with_shards(2);
        let mut one = member(&node, &hello.receive_maximum(2));
        (0..5).for_each(|n| publish(&node, &n.to_string()));
        let mut open = one.messages();
        assert_eq!(open.len(), 2);
        for n in 2..5 {
            one.ack(AckKind::PubRec, open[0].id);
            one.expect(&Got::PubRel(open[0].id, 0));
            one.expect_nothing();
            one.ack(AckKind::PubComp, open.remove(0).id);
            open.push(one.expect_text(&n.to_string()));
            one.expect_nothing();
        }
    }
}
