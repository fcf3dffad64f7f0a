//! Pushes to users, their devices, lists and everyone.

use crate::client::{Got, Hello};
use crate::node::Node;
use kittiwake::base::ids::{Offset, PushId, Qos};
use kittiwake::limits::{
    INBOX_ENTRIES_MAX, LETTERS_ENOUGH, LOG_BATCH_MAX, LOG_QUEUE_MAX, PUSH_USERS_MAX, PUSHES_UNRUNG_MAX,
};
use kittiwake::shard::command::{CommandError, CommandToken, Target};
use kittiwake::wire::mqtt::PingReq;

fn user(name: &str) -> Target {
    Target::User(name.into())
}

fn numbers(range: core::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

#[test]
fn a_push_reaches_all_devices_of_its_user_and_nobody_else() {
    let node = Node::with_shards(2);
    let mut phone = node.hello(&Hello::v5("phone").user("ann"));
    let mut tablet = node.hello(&Hello::v3("tablet").user("ann"));
    let mut other = node.hello(&Hello::v5("phone").user("bob"));
    for client in [&mut phone, &mut tablet, &mut other] {
        client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    }
    let pushed = node.push(user("ann"), b"x", Qos::AtLeastOnce).expect("it is taken");
    assert_eq!((pushed.results[0].online, pushed.duplicate), (Some(2), false));
    assert_eq!(pushed.results[0].position.map(|(_, offset)| offset), Some(Offset(1)));
    assert_eq!(phone.expect_and_ack("x").topic, "$inbox/push");
    tablet.expect_and_ack("x");
    other.expect_nothing();
}

#[test]
fn a_push_that_nobody_waits_for_arrives_and_is_not_answered() {
    let node = Node::with_shards(2);
    let mut phone = node.hello(&Hello::v5("ann"));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce), ("a", Qos::AtLeastOnce)]);
    let targets =
        [user("ann"), Target::Users(vec!["ann".into(), "bob".into()]), Target::Everyone, Target::Topic("a".into())];
    for target in targets {
        assert_eq!(node.push_unawaited(target.clone(), b"x", Qos::AtMostOnce), None, "{target:?}");
        phone.expect_text("x");
        assert_eq!(node.push_unawaited(target.clone(), b"y", Qos::AtLeastOnce), None, "{target:?}");
        phone.expect_and_ack("y");
    }
    assert_eq!(node.gauge("list_pushes"), 0);
}

#[test]
fn pushes_that_nobody_rings_for_are_rung_for_when_they_are_many() {
    let node = Node::with_shards(2);
    let mut phone = node.hello(&Hello::v5("ann"));
    phone.subscribe(&[("$inbox/#", Qos::AtMostOnce)]);
    for number in 1..=2 * PUSHES_UNRUNG_MAX {
        let text = number.to_string();
        let token = CommandToken::unawaited(u64::from(number));
        node.hand_over(user("ann"), text.as_bytes(), Qos::AtMostOnce, |_| {}, token).expect("the push is taken");
        assert_eq!(node.handle().is_unrung(), !number.is_multiple_of(PUSHES_UNRUNG_MAX), "{number}");
    }
    node.run();
    for number in 1..=2 * PUSHES_UNRUNG_MAX {
        phone.expect_text(&number.to_string());
    }
}

#[test]
fn a_shard_has_enough_letters_until_it_has_read_them() {
    let node = Node::with_shards(2);
    let handle = node.handle();
    for number in 0..LETTERS_ENOUGH as u64 {
        assert!(!handle.has_enough_letters(), "{number}");
        let token = CommandToken::unawaited(number);
        node.hand_over(user("ann"), b"x", Qos::AtMostOnce, |_| {}, token).expect("the push is taken");
    }
    assert!(handle.has_enough_letters());
    node.run();
    assert!(!handle.has_enough_letters());
}

#[test]
fn what_came_meanwhile_arrives_on_return_in_order_from_every_source() {
    let node = Node::with_shards(2);
    let hello = Hello::lasting("phone");
    let mut phone = node.hello(&hello);
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce), ("a", Qos::AtLeastOnce), ("b/+", Qos::AtLeastOnce)]);
    phone.bye();
    for number in 0..40 {
        node.push_user("phone", format!("inbox {number}").as_bytes(), Qos::AtLeastOnce);
        node.push_topic("a", format!("exact {number}").as_bytes(), Qos::AtLeastOnce);
        node.push_topic("b/c", format!("wild {number}").as_bytes(), Qos::AtLeastOnce);
        node.push(Target::Everyone, format!("everyone {number}").as_bytes(), Qos::AtLeastOnce).expect("it is taken");
        node.push_user("phone", b"fleeting", Qos::AtMostOnce);
        node.push_topic("a", b"fleeting", Qos::AtMostOnce);
    }
    let mut phone = node.hello(&hello);
    let texts = phone.drain();
    assert_eq!(texts.len(), 160);
    for source in ["inbox", "exact", "wild", "everyone"] {
        let of_it = texts.iter().filter_map(|text| text.strip_prefix(source)?.trim().parse::<u32>().ok());
        assert!(of_it.eq(0..40), "{source}");
    }
    phone.bye();
    node.hello(&hello).expect_nothing();
}

#[test]
fn an_inbox_keeps_its_newest_entries_and_says_how_many_went() {
    let node = Node::new();
    let hello = Hello::lasting("phone");
    for over in [0, 1, 5] {
        let mut phone = node.hello(&hello);
        phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
        phone.bye();
        let before = node.counter("gap_entries");
        for text in numbers(0..INBOX_ENTRIES_MAX + over) {
            node.push_user("phone", text.as_bytes(), Qos::AtLeastOnce);
        }
        let mut phone = node.hello(&hello);
        if over > 0 {
            let gap = phone.expect_message();
            assert_eq!(gap.topic, "$inbox/$gap");
        }
        assert!(phone.drain().into_iter().eq(numbers(over..INBOX_ENTRIES_MAX + over)), "{over}");
        assert_eq!(node.counter("gap_entries") - before, over as u64);
        phone.bye();
    }
}

#[test]
fn a_push_to_a_device_is_skipped_by_the_others() {
    let node = Node::new();
    let (phone_hello, tablet_hello) = (Hello::lasting("phone").user("ann"), Hello::lasting("tablet").user("ann"));
    let mut phone = node.hello(&phone_hello);
    let mut tablet = node.hello(&tablet_hello);
    for client in [&mut phone, &mut tablet] {
        client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    }
    let target = || Target::Device { user: "ann".into(), device: "phone".into() };
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        node.push(target(), b"for the phone", qos).expect("it is taken");
        assert_eq!(phone.drain(), ["for the phone"]);
        tablet.expect_nothing();
    }
    phone.bye();
    tablet.bye();
    node.push(target(), b"for the phone", Qos::AtLeastOnce).expect("it is taken");
    node.push_user("ann", b"for both", Qos::AtLeastOnce);
    assert_eq!(node.hello(&tablet_hello).drain(), ["for both"]);
    assert_eq!(node.hello(&phone_hello).drain(), ["for the phone", "for both"]);
}

#[test]
fn a_device_new_to_a_user_starts_after_the_read_mark() {
    let node = Node::new();
    for text in numbers(0..3) {
        node.push_user("ann", text.as_bytes(), Qos::AtLeastOnce);
    }
    // Nobody has read anything: from the beginning.
    let mut phone = node.hello(&Hello::lasting("phone").user("ann"));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    assert_eq!(phone.drain(), ["0", "1", "2"]);
    phone.bye();
    node.push_user("ann", b"3", Qos::AtLeastOnce);
    let mut tablet = node.hello(&Hello::lasting("tablet").user("ann"));
    tablet.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    assert_eq!(tablet.drain(), ["3"]);
    tablet.bye();
    // The mark outlives the sessions.
    node.hello(&Hello::v5("phone").user("ann")).bye();
    node.hello(&Hello::v5("tablet").user("ann")).bye();
    assert_eq!(node.gauge("sessions"), 0);
    node.push_user("ann", b"4", Qos::AtLeastOnce);
    let mut watch = node.hello(&Hello::v5("watch").user("ann"));
    watch.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    assert_eq!(watch.drain(), ["4"]);
}

#[test]
fn a_restart_does_not_move_the_read_mark_back() {
    let node = Node::new();
    let mut slow = node.hello(&Hello::lasting("slow").user("ann").receive_maximum(1));
    slow.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    let mut quick = node.hello(&Hello::v5("quick").user("ann"));
    quick.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    for text in numbers(0..5) {
        node.push_user("ann", text.as_bytes(), Qos::AtLeastOnce);
    }
    assert_eq!(quick.drain(), ["0", "1", "2", "3", "4"]);
    quick.bye();
    node.advance(2_000);
    node.restart();
    // The one that is far behind goes on, and is written.
    let mut slow = node.hello(&Hello::lasting("slow").user("ann").receive_maximum(1));
    slow.expect_and_ack("0");
    node.advance(2_000);
    node.restart();
    let mut watch = node.hello(&Hello::v5("watch").user("ann"));
    watch.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    node.push_user("ann", b"5", Qos::AtLeastOnce);
    assert_eq!(watch.drain(), ["5"], "what the user has read is read");
}

#[test]
fn everyone_is_everyone_with_a_matching_filter() {
    let node = Node::with_shards(2);
    let mut here: Vec<_> = ["ann", "bob", "cid", "dan", "eve"].iter().map(|name| node.connect(name)).collect();
    for client in &mut here {
        client.subscribe(&[("$inbox/#", Qos::AtLeastOnce), ("$inbox/push", Qos::AtMostOnce)]);
    }
    let mut elsewhere = node.connect("fay");
    elsewhere.subscribe(&[("$inbox/other", Qos::AtLeastOnce), ("#", Qos::AtLeastOnce)]);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        node.push(Target::Everyone, b"all", qos).expect("it is taken");
        for client in &mut here {
            let arrived = client.expect_text("all");
            assert_eq!((arrived.topic.as_str(), arrived.qos), ("$inbox/push", qos.min(Qos::AtLeastOnce)));
            if arrived.id > 0 {
                client.puback(arrived.id);
            }
            client.expect_nothing();
        }
        elsewhere.expect_nothing();
    }
}

#[test]
fn a_list_of_ten_thousand_users_is_one_push() {
    let node = Node::with_shards(2);
    let users: Vec<std::sync::Arc<str>> = (0..PUSH_USERS_MAX).map(|user| format!("user-{user}").into()).collect();
    let names = [0, 1, 4_999, 5_000, 9_999].map(|user| users[user].clone());
    let mut here: Vec<_> = names.iter().map(|name| node.connect(name)).collect();
    for client in &mut here {
        client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    }
    for (round, qos) in [Qos::AtLeastOnce, Qos::AtMostOnce, Qos::AtLeastOnce].into_iter().enumerate() {
        let pushed = node.push(Target::Users(users.clone()), b"all", qos).expect("it is taken");
        assert_eq!(pushed.results.len(), PUSH_USERS_MAX);
        for (result, user) in pushed.results.iter().zip(&users) {
            assert_eq!(result.user.as_ref(), Some(user));
            assert_eq!(result.online, Some(u32::from(names.contains(user))));
            let offset = (qos > Qos::AtMostOnce).then_some(Offset(1 + round as u64 / 2));
            assert_eq!(result.position.map(|(_, offset)| offset), offset);
        }
        for client in &mut here {
            assert_eq!(client.drain(), ["all"]);
        }
    }
    // Somebody of the list who comes later.
    let mut late = node.connect("user-77");
    late.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    assert_eq!(late.drain(), ["all", "all"]);
    assert_eq!(node.gauge("list_pushes"), 0);
}

#[test]
fn a_key_that_repeats_delivers_nothing_and_one_with_another_body_is_refused() {
    let node = Node::with_shards(2);
    let mut phone = node.connect("phone");
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce), ("a", Qos::AtLeastOnce)]);
    let targets = [user("phone"), Target::Topic("a".into()), Target::Users(vec!["phone".into()]), Target::Everyone];
    for (number, target) in targets.into_iter().enumerate() {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let key = format!("key-{number}-{qos:?}");
            let push = |hash, id| {
                node.push_with(target.clone(), b"x", qos, |push| {
                    (push.key, push.id) = (Some((key.as_str().into(), hash)), PushId(id));
                })
            };
            let first = push(1, 21).expect("it is taken");
            assert_eq!((first.duplicate, first.id), (false, PushId(21)));
            assert_eq!(phone.drain(), ["x"], "{key}");
            let second = push(1, 22).expect("it is a duplicate");
            assert_eq!((second.duplicate, second.id), (true, PushId(21)), "the first reply");
            let positions = |pushed: &kittiwake::shard::command::Pushed| -> Vec<_> {
                pushed.results.iter().map(|result| result.position).collect()
            };
            assert_eq!(positions(&first), positions(&second), "{key}");
            assert_eq!(push(2, 23), Err(CommandError::KeyConflict), "{key}");
            phone.expect_nothing();
        }
    }
}

#[test]
fn a_key_that_repeats_before_its_commit_is_a_duplicate_too() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    node.hold_commits();
    let start = |hash| {
        let with_key = |push: &mut kittiwake::shard::command::Push| push.key = Some(("key".into(), hash));
        node.start_push(user("phone"), b"x", Qos::AtLeastOnce, with_key).expect("there is room")
    };
    let tokens = [start(1), start(1), start(2)];
    node.run();
    phone.expect_nothing();
    node.release_commits();
    let [first, second, third] = tokens.map(|token| node.take_pushed(token).expect("it is answered"));
    assert!(!first.expect("it is taken").duplicate);
    assert!(second.expect("it is a duplicate").duplicate);
    assert_eq!(third, Err(CommandError::KeyConflict));
    assert_eq!(phone.drain(), ["x"]);
}

#[test]
fn nothing_is_delivered_before_its_commit() {
    let node = Node::with_shards(2);
    let mut phone = node.hello(&Hello::lasting("phone"));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce), ("a", Qos::AtLeastOnce)]);
    node.hold_commits();
    for target in [user("phone"), Target::Topic("a".into()), Target::Everyone] {
        node.start_push(target, b"x", Qos::AtLeastOnce, |_| {}).expect("there is room");
    }
    node.advance(5_000);
    phone.expect_nothing();
    node.release_commits();
    assert_eq!(phone.drain().len(), 3);
}

#[test]
fn a_slow_consumer_loses_only_qos_0_and_that_is_counted() {
    let node = Node::with(1, |limits| limits.outbox_bytes = 64 << 10);
    let mut slow = node.connect("slow");
    slow.subscribe(&[("$inbox/#", Qos::AtLeastOnce), ("a", Qos::AtLeastOnce)]);
    let mut quick = node.connect("quick");
    quick.subscribe(&[("a", Qos::AtMostOnce)]);
    let payload = [b'x'; 1_000];
    for _ in 0..400 {
        node.push_topic("a", &payload, Qos::AtMostOnce);
        node.push_user("slow", &payload, Qos::AtMostOnce);
        assert_eq!(quick.messages().len(), 1);
    }
    let dropped = node.counter("dropped_outbox_full");
    assert!(dropped > 0, "its outbox is full");
    let held = node.gauge("blocks");
    assert!(held < 10, "its outbox is bounded: {held} blocks");
    for number in 0..40 {
        node.push_user("slow", format!("{number:05}{}", "y".repeat(9_000)).as_bytes(), Qos::AtLeastOnce);
    }
    assert!(node.gauge("blocks") < 20);
    // Now it reads.
    let texts = slow.drain();
    let (fleeting, kept): (Vec<_>, Vec<_>) = texts.iter().partition(|text| text.starts_with('x'));
    assert_eq!(fleeting.len() as u64 + dropped, 800);
    assert!(kept.iter().map(|text| text[..5].parse::<u32>().expect("a number")).eq(0..40));
    slow.expect_pong();
    node.assert_holds_no_buffers();
}

#[test]
fn a_client_that_asks_and_never_reads_is_closed_for_what_it_does_not_take() {
    let node = Node::new();
    let mut deaf = node.connect("deaf");
    let pings = b"\xC0\0".repeat(300_000);
    deaf.send(&pings);
    node.advance(1_000);
    assert_eq!(node.counter("closed_slow_consumer"), 1);
    assert_eq!(node.gauge("connections"), 0);
    node.assert_holds_no_buffers();
}

#[test]
fn a_push_to_nobody_is_done_at_once() {
    let node = Node::with_shards(2);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let pushed = node.push(Target::Topic("nobody/listens".into()), b"x", qos).expect("it is taken");
        assert_eq!((pushed.results.len(), pushed.results[0].position), (1, None));
        let pushed = node.push(user("nobody"), b"x", qos).expect("it is taken");
        assert_eq!(pushed.results[0].online, Some(0));
        assert_eq!(pushed.results[0].position.is_some(), qos > Qos::AtMostOnce);
    }
    node.assert_at_rest();
}

#[test]
fn a_disk_that_is_slow_is_busy_for_backends_and_holds_up_publishers_and_loses_nothing() {
    let queue_max = LOG_QUEUE_MAX + LOG_BATCH_MAX + 1;
    let node = Node::with(1, |limits| limits.inbox_entries = queue_max);
    let mut phone = node.hello(&Hello::lasting("phone"));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce), ("a", Qos::AtLeastOnce)]);
    let mut publisher = node.connect("publisher");
    node.hold_commits();
    let mut taken = Vec::new();
    loop {
        let text = taken.len().to_string();
        let token = node.start_push(user("phone"), text.as_bytes(), Qos::AtLeastOnce, |_| {}).expect("there is room");
        node.run();
        match node.take_pushed(token) {
            None => taken.push(token),
            Some(result) => {
                assert_eq!(result.err(), Some(CommandError::Busy));
                break;
            }
        }
        assert!(taken.len() <= queue_max, "what waits has no bound");
    }
    // Also who does not wait is told of a failure.
    let refused = node.push_unawaited(user("phone"), b"one more", Qos::AtLeastOnce);
    assert_eq!(refused, Some(Err(CommandError::Busy)));
    publisher.publish("a", b"a publish", Qos::AtLeastOnce, 1);
    publisher.send_packet(&PingReq);
    publisher.expect_nothing();
    // At QoS 0 nothing has to wait for the disk.
    node.push(user("phone"), b"fleeting", Qos::AtMostOnce).expect("it is taken");
    node.release_commits();
    for token in &taken {
        assert!(node.take_pushed(*token).is_some_and(|result| result.is_ok()), "what was taken is stored");
    }
    let answers = publisher.all();
    assert!(answers.len() == 2 && answers.contains(&Got::PubAck(1, 0)) && answers.contains(&Got::PingResp));
    let mut texts = phone.drain();
    let beside = |text: &str| ["a publish", "fleeting"].contains(&text);
    assert_eq!(texts.iter().filter(|text| beside(text)).count(), 2);
    texts.retain(|text| !beside(text));
    assert!(texts.into_iter().eq(numbers(0..taken.len())));
    node.assert_holds_no_buffers();
}
