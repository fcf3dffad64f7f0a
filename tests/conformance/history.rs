//! History by rule, an inbox's past, and what of it nobody has read.

use crate::client::Hello;
use crate::node::Node;
use kittiwake::base::ids::{AppId, Epoch, Offset, Qos};
use kittiwake::base::message::StreamKey;
use kittiwake::limits::{HISTORY_PAGE_BYTES_MAX, HISTORY_PAGE_MAX};
use kittiwake::shard::command::{HistoryPage, Missing, Place, Push, Target};
use kittiwake::shard::settings::HistoryRule;
use std::sync::Arc;
use std::time::Duration;

fn inbox(user: &str) -> StreamKey {
    StreamKey::Inbox(AppId(0), user.into())
}

fn topic(name: &str) -> StreamKey {
    StreamKey::Topic(AppId(0), name.into())
}

fn behind(offset: u64) -> Option<Place> {
    Some(Place { epoch: None, offset: Offset(offset) })
}

fn texts(page: &HistoryPage) -> Vec<String> {
    let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).expect("tests send text");
    page.entries.iter().map(|entry| text(&entry.message.payload)).collect()
}

fn numbers(range: core::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn with_rule(filter: &str, entries: usize, age: u64) -> Node {
    let rule = HistoryRule { filter: filter.into(), entries, age: Duration::from_secs(age) };
    Node::with_settings(2, |settings| settings.topics.history = vec![rule])
}

fn push_with_ttl(node: &Node, user: &str, text: &str, ttl_ms: u64) {
    let expires_ms = Some(node.net().now().wall_ms + ttl_ms);
    let with = |push: &mut Push| Arc::make_mut(&mut push.message).expires_ms = expires_ms;
    node.push_with(Target::User(user.into()), text.as_bytes(), Qos::AtLeastOnce, with).expect("it is taken");
}

#[test]
fn a_rule_keeps_messages_of_every_qos_although_nobody_listens() {
    let node = with_rule("rooms/+", 3, 3_600);
    let mut client = node.connect("ann");
    client.publish("rooms/1", b"0", Qos::AtMostOnce, 0);
    node.push_topic("rooms/1", b"1", Qos::AtLeastOnce);
    assert_eq!(texts(&node.history(topic("rooms/1"), None, 10)), numbers(0..2));
    (2..5).for_each(|number| node.push_topic("rooms/1", number.to_string().as_bytes(), Qos::AtMostOnce));
    node.push_topic("other", b"x", Qos::AtLeastOnce);
    let page = node.history(topic("rooms/1"), None, 10);
    assert_eq!((texts(&page), page.head.first, page.head.last), (numbers(2..5), Offset(3), Offset(5)));
    assert_eq!(node.history(topic("other"), None, 10).head.epoch, Epoch(0), "no rule keeps it and nobody is owed it");
    node.advance(3_601_000);
    assert_eq!(texts(&node.history(topic("rooms/1"), None, 10)), Vec::<String>::new());
}

#[test]
fn what_a_rule_keeps_reaches_who_listens_as_ever() {
    let node = with_rule("rooms/+", 100, 3_600);
    let mut exact = node.connect("exact");
    exact.subscribe(&[("rooms/1", Qos::AtLeastOnce)]);
    let mut wild = node.hello(&Hello::v3("wild"));
    wild.subscribe(&[("rooms/#", Qos::AtMostOnce)]);
    let mut owed = node.hello(&Hello::lasting("owed"));
    owed.subscribe(&[("rooms/1", Qos::ExactlyOnce)]);
    for (number, qos) in [Qos::AtMostOnce, Qos::AtLeastOnce].into_iter().enumerate() {
        node.push_topic("rooms/1", number.to_string().as_bytes(), qos);
    }
    for client in [&mut exact, &mut wild, &mut owed] {
        assert_eq!(client.drain(), numbers(0..2));
    }
    owed.bye();
    node.push_topic("rooms/1", b"away", Qos::AtLeastOnce);
    let mut owed = node.hello(&Hello::lasting("owed"));
    assert_eq!(owed.drain(), ["away"]);
}

#[test]
fn a_stream_is_read_in_pages_each_message_once() {
    let node = Node::with_shards(2);
    (0..300).for_each(|number| node.push_user("ann", number.to_string().as_bytes(), Qos::AtLeastOnce));
    for limit in [1, 7, HISTORY_PAGE_MAX, HISTORY_PAGE_MAX + 1] {
        let mut got = Vec::new();
        let mut page = node.history(inbox("ann"), None, limit);
        loop {
            assert!(page.entries.len() <= limit.min(HISTORY_PAGE_MAX));
            got.extend(texts(&page));
            if !page.has_more() {
                break;
            }
            let after = Some(Place { epoch: Some(page.head.epoch), offset: page.next });
            page = node.history(inbox("ann"), after, limit);
        }
        assert_eq!(got, numbers(0..300), "{limit}");
        assert_eq!(page.next, Offset(300));
    }
    let nothing = node.history(inbox("ann"), behind(10), 0);
    assert_eq!((nothing.entries.len(), nothing.next, nothing.head.last), (0, Offset(10), Offset(300)));
    let beyond = node.history(inbox("ann"), behind(999), 5);
    assert_eq!((beyond.entries.len(), beyond.next, beyond.has_more()), (0, Offset(300), false));
    let nobody = node.history(inbox("nobody"), None, 5);
    assert_eq!((nobody.head.epoch, nobody.next, nobody.has_more()), (Epoch(0), Offset(0), false));
}

#[test]
fn a_page_is_bounded_in_bytes_and_has_one_message_at_least() {
    let node = Node::with(1, |limits| (limits.packet_bytes, limits.outbox_bytes) = (1 << 20, 1 << 20));
    for (user, over, fitting) in [("ann", 0, 4), ("bob", 1, 3)] {
        let large = vec![b'x'; HISTORY_PAGE_BYTES_MAX / 4 + over];
        (0..6).for_each(|_| node.push_user(user, &large, Qos::AtLeastOnce));
        let page = node.history(inbox(user), None, 10);
        assert_eq!((page.entries.len(), page.next, page.has_more()), (fitting, Offset(fitting as u64), true));
    }
}

#[test]
fn a_place_of_another_life_is_told_and_the_page_begins_with_the_oldest() {
    let node = Node::with(1, |limits| limits.inbox_entries = 3);
    (0..5).for_each(|number| node.push_user("ann", number.to_string().as_bytes(), Qos::AtLeastOnce));
    let own = node.history(inbox("ann"), None, 1).head.epoch;
    let ask = |epoch, offset| node.history(inbox("ann"), Some(Place { epoch, offset: Offset(offset) }), 10);
    for (epoch, offset) in [(Some(Epoch(own.0 ^ 1)), 4), (Some(own), 6)] {
        let page = ask(epoch, offset);
        assert_eq!((page.missing, texts(&page)), (Some(Missing::Unknown), numbers(2..5)));
    }
    let page = ask(Some(own), 1);
    assert_eq!((page.missing, texts(&page)), (Some(Missing::Trimmed(Offset(2), 1)), numbers(2..5)));
    let page = ask(Some(Epoch(0)), 0);
    assert_eq!(page.missing, Some(Missing::Trimmed(Offset(1), 2)), "who stood before the first is of every life");
    assert_eq!((ask(Some(own), 2).missing, ask(None, 4).missing), (None, None));
}

#[test]
fn an_expired_message_is_neither_told_nor_counted() {
    let node = Node::new();
    push_with_ttl(&node, "ann", "short", 1_000);
    push_with_ttl(&node, "ann", "long", 9_000);
    node.push_user("ann", b"for ever", Qos::AtLeastOnce);
    assert_eq!(node.user("ann").unread, 3);
    node.advance(2_000);
    let page = node.history(inbox("ann"), None, 10);
    assert_eq!((texts(&page), page.next), (vec!["long".to_owned(), "for ever".to_owned()], Offset(3)));
    assert_eq!(node.user("ann").unread, 2);
    // A page may have nothing although there is more.
    let page = node.history(inbox("ann"), None, 1);
    assert_eq!((page.entries.len(), page.next, page.has_more()), (0, Offset(1), true));
}

#[test]
fn unread_is_counted_for_the_user_and_for_each_device_from_where_it_stands() {
    let node = Node::with_shards(2);
    (0..600).for_each(|_| node.push_user("ann", b"x", Qos::AtLeastOnce));
    let state = node.user("ann");
    assert_eq!((state.unread, state.read, state.devices.len()), (600, None, 0), "also without any device");
    let mut phone = node.hello(&Hello::lasting("phone").user("ann").receive_maximum(20));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    for _ in 0..250 {
        phone.expect_and_ack("x");
    }
    let tablet = node.hello(&Hello::v5("tablet").user("ann"));
    let state = node.user("ann");
    let device = |name: &str| state.devices.iter().find(|device| &*device.device == name).expect("it is there");
    assert_eq!((state.unread, state.read.map(|(_, offset)| offset)), (350, Some(Offset(250))));
    assert_eq!((device("phone").unread, device("phone").in_flight), (Some(350), 20));
    assert_eq!(device("tablet").unread, None, "it does not subscribe to the inbox");
    drop(tablet);
    phone.bye();
    // The tablet starts at the read mark.
    let mut tablet = node.hello(&Hello::lasting("tablet").user("ann"));
    tablet.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    (0..350).for_each(|_| drop(tablet.expect_and_ack("x")));
    let state = node.user("ann");
    let unread =
        |name: &str| state.devices.iter().find(|device| &*device.device == name).and_then(|device| device.unread);
    assert_eq!((state.unread, unread("phone"), unread("tablet")), (0, Some(350), Some(0)));
}

#[test]
fn what_is_another_devices_or_matches_no_filter_is_not_unread() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::lasting("phone").user("ann"));
    phone.subscribe(&[("$inbox/orders/#", Qos::AtLeastOnce)]);
    phone.bye();
    let label = |label: &'static str| {
        move |push: &mut Push| Arc::make_mut(&mut push.message).topic = format!("$inbox/{label}").into()
    };
    node.push_with(Target::User("ann".into()), b"x", Qos::AtLeastOnce, label("orders/1")).expect("it is taken");
    node.push_with(Target::User("ann".into()), b"x", Qos::AtLeastOnce, label("news")).expect("it is taken");
    let other = Target::Device { user: "ann".into(), device: "tablet".into() };
    node.push_with(other, b"x", Qos::AtLeastOnce, label("orders/2")).expect("it is taken");
    let state = node.user("ann");
    assert_eq!((state.unread, state.devices[0].unread), (3, Some(1)));
}

#[test]
fn unread_is_known_after_a_restart() {
    let node = Node::with_shards(2);
    let mut phone = node.hello(&Hello::lasting("phone").user("ann"));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    (0..3).for_each(|_| node.push_user("ann", b"x", Qos::AtLeastOnce));
    (0..2).for_each(|_| drop(phone.expect_and_ack("x")));
    phone.bye();
    node.advance(2_000);
    node.restart();
    let state = node.user("ann");
    assert_eq!((state.unread, state.devices[0].unread, state.devices[0].online), (1, Some(1), false));
}

#[test]
fn event_streams_are_told_the_time_left() {
    let node = Node::new();
    push_with_ttl(&node, "ann", "long", 9_000);
    let mut client = node.dial();
    client.send(b"GET /events?inbox=1&user=ann HTTP/1.1\r\nHost: e\r\n\r\n");
    let text = String::from_utf8(client.take_bytes()).expect("it is text");
    assert!(text.contains("\"ttl_ms\":9000}"), "{text}");
}
