//! What retention takes before it was read is never taken silently.

use crate::client::{Client, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::shard::command::Target;

fn node() -> Node {
    Node::with_retention(
        2,
        |limits| limits.inbox_entries = 3,
        |retentions| (retentions.topic.entries, retentions.everyone.entries) = (3, 3),
    )
}

/// What a message says of gaps, in order.
fn named(arrived: &crate::client::Arrived) -> Vec<&str> {
    arrived.user.iter().filter(|(name, _)| name == "gap").map(|(_, value)| value.as_str()).collect()
}

/// Shards serve from memory what they have seen themselves, whatever retention has done to the store meanwhile.
fn forget_what_is_at_hand(node: &Node) {
    node.advance(2_000);
    node.restart();
}

fn listener(node: &Node, hello: &Hello<'_>, filters: &[(&str, Qos)]) {
    let mut phone: Client = node.hello(hello);
    phone.subscribe(filters);
    phone.bye();
}

#[test]
fn a_gap_in_a_topic_is_named_by_the_next_message_and_counted() {
    let node = node();
    let exact = Hello::lasting("exact");
    let wild = Hello::lasting("wild");
    let old = Hello::v3("old").clean(false);
    listener(&node, &exact, &[("rooms/1", Qos::AtLeastOnce)]);
    listener(&node, &wild, &[("rooms/+", Qos::AtLeastOnce)]);
    listener(&node, &old, &[("rooms/1", Qos::AtLeastOnce)]);
    for text in ["1", "2", "3"] {
        node.push_topic("rooms/1", text.as_bytes(), Qos::AtLeastOnce);
    }
    // All is kept, so nothing is said.
    let mut phone = node.hello(&exact);
    for text in ["1", "2", "3"] {
        assert_eq!(named(&phone.expect_and_ack(text)), Vec::<&str>::new());
    }
    phone.bye();
    node.advance(2_000);
    for text in ["4", "5", "6", "7"] {
        node.push_topic("rooms/1", text.as_bytes(), Qos::AtLeastOnce);
    }
    node.push_topic("rooms/2", b"other", Qos::AtLeastOnce);
    forget_what_is_at_hand(&node);
    for hello in [&exact, &wild] {
        let mut phone = node.hello(hello);
        let first = phone.expect_and_ack("5");
        assert_eq!(named(&first), [r#"{"topic":"rooms/1","kept_from":5}"#]);
        assert_eq!(named(&phone.expect_and_ack("6")), Vec::<&str>::new(), "once");
        phone.expect_and_ack("7");
        phone.bye();
    }
    assert_eq!(node.counter("topic_gaps"), 2);
    let mut phone = node.hello(&old);
    assert_eq!(phone.drain(), ["5", "6", "7"]);
    assert_eq!((node.counter("topic_gaps"), node.gauge("gap_notes")), (3, 0));
    // What it was told it is not told again.
    node.advance(2_000);
    node.restart();
    let mut phone = node.hello(&exact);
    node.push_topic("rooms/1", b"8", Qos::AtLeastOnce);
    assert_eq!(named(&phone.expect_and_ack("8")), Vec::<&str>::new());
}

#[test]
fn a_gap_in_everyone_and_in_the_inbox_is_a_notice_too() {
    let node = node();
    let hello = Hello::lasting("phone");
    listener(&node, &hello, &[("$inbox/#", Qos::AtLeastOnce)]);
    for number in 1..=4 {
        node.push(Target::Everyone, format!("all {number}").as_bytes(), Qos::AtLeastOnce).expect("it is taken");
        node.push_user("phone", format!("own {number}").as_bytes(), Qos::AtLeastOnce);
    }
    forget_what_is_at_hand(&node);
    let mut phone = node.hello(&hello);
    let all = phone.messages();
    let (notices, messages): (Vec<_>, Vec<_>) = all.into_iter().partition(|arrived| arrived.topic == "$inbox/$gap");
    let mut told: Vec<&str> = notices.iter().map(|notice| notice.text()).collect();
    told.sort_unstable();
    let expected = [r#"{"everyone":true,"kept_from":2}"#, r#"{"first":1,"entries":1}"#];
    assert_eq!(told, expected);
    assert!(notices.iter().all(|notice| notice.user.is_empty()), "a notice is not the next message");
    let mut named: Vec<&str> = messages.iter().flat_map(named).collect();
    named.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!((node.counter("gap_entries"), node.counter("topic_gaps")), (1, 1));
}

#[test]
fn a_message_that_the_gap_would_make_too_long_comes_without_it_and_a_later_one_names_it() {
    let node = node();
    let hello = Hello::lasting("phone").packet_bytes(100);
    listener(&node, &hello, &[("a", Qos::AtLeastOnce)]);
    let long = "x".repeat(80);
    for payload in ["1", &long, "3", "4"] {
        node.push_topic("a", payload.as_bytes(), Qos::AtLeastOnce);
    }
    forget_what_is_at_hand(&node);
    let mut phone = node.hello(&hello);
    assert_eq!(named(&phone.expect_and_ack(&long)), Vec::<&str>::new());
    assert_eq!(named(&phone.expect_and_ack("3")), [r#"{"topic":"a","kept_from":2}"#]);
    phone.expect_and_ack("4");
    assert_eq!(node.counter("dropped_too_large"), 0);
}

#[test]
fn gap_notes_go_with_their_session() {
    let node = node();
    let hello = Hello::lasting("phone");
    listener(&node, &hello, &[("a", Qos::AtLeastOnce)]);
    for _ in 0..4 {
        node.push_topic("a", &[b'x'; 200], Qos::AtLeastOnce);
    }
    forget_what_is_at_hand(&node);
    // Everything is longer than it takes, so nothing can name the gap.
    let phone = node.hello(&hello.packet_bytes(60));
    assert_eq!((node.gauge("gap_notes"), node.counter("topic_gaps")), (1, 1));
    phone.bye();
    node.hello(&Hello::v5("phone")).bye();
    assert_eq!((node.gauge("gap_notes"), node.gauge("sessions")), (0, 0));
}

#[test]
fn what_is_gone_before_a_share_group_read_it_is_told_to_its_members() {
    let node = node();
    let one = Hello::lasting("one");
    listener(&node, &one, &[("$share/g/rooms/+", Qos::AtLeastOnce)]);
    for number in 1..=5 {
        node.push_topic("rooms/1", number.to_string().as_bytes(), Qos::AtLeastOnce);
    }
    node.push_topic("rooms/2", b"other", Qos::AtLeastOnce);
    node.push_topic("halls/1", b"nobody's", Qos::AtLeastOnce);
    forget_what_is_at_hand(&node);
    let mut phone = node.hello(&one);
    let gap = [r#"{"topic":"rooms/1","kept_from":3}"#];
    assert_eq!(named(&phone.expect_and_ack("3")), gap);
    for text in ["4", "5", "other"] {
        assert_eq!(named(&phone.expect_and_ack(text)), Vec::<&str>::new(), "once");
    }
    assert_eq!(node.counter("topic_gaps"), 1);
    phone.bye();
    forget_what_is_at_hand(&node);
    node.push_topic("rooms/1", b"6", Qos::AtLeastOnce);
    let mut phone = node.hello(&one);
    assert_eq!(named(&phone.expect_and_ack("6")), Vec::<&str>::new(), "what it was told it is not told again");
}

#[test]
fn what_retention_takes_before_a_share_group_reads_it_is_counted() {
    let node = node();
    let member = Hello::lasting("member");
    listener(&node, &member, &[("$share/group/rooms/+", Qos::ExactlyOnce)]);
    for text in ["1", "2", "3"] {
        node.push_topic("rooms/1", text.as_bytes(), Qos::AtLeastOnce);
    }
    forget_what_is_at_hand(&node);
    let mut phone = node.hello(&member);
    for text in ["1", "2", "3"] {
        phone.expect_and_ack(text);
    }
    assert_eq!(node.counter("share_gaps"), 0, "all is kept");
    phone.bye();
    for text in ["4", "5", "6", "7"] {
        node.push_topic("rooms/1", text.as_bytes(), Qos::AtLeastOnce);
    }
    node.push_topic("rooms/2", b"other", Qos::AtLeastOnce);
    forget_what_is_at_hand(&node);
    let mut phone = node.hello(&member);
    for text in ["5", "6", "7", "other"] {
        phone.expect_and_ack(text);
    }
    assert_eq!(node.counter("share_gaps"), 1);
}
