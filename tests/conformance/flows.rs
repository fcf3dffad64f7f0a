//! Messages and their acknowledgements, both ways.

use crate::client::{Client, Got, Hello, publish};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{HOT_RING_ENTRIES_MAX, RECEIVE_MAXIMUM_IN, RECEIVE_MAXIMUM_OUT};
use kittiwake::wire::mqtt::{AckKind, Publish};

const WINDOW: usize = RECEIVE_MAXIMUM_OUT as usize;
const IN: u16 = RECEIVE_MAXIMUM_IN;

/// Gets its inbox at QoS 1 or 2.
fn listener(node: &Node, hello: &Hello<'_>, qos: Qos) -> Client {
    let mut client = node.hello(hello);
    client.subscribe(&[("$inbox/#", qos)]);
    client
}

#[test]
fn mqtt5_3_3_4_9_no_more_than_receive_maximum_is_in_flight_towards_a_client() {
    let node = Node::new();
    for (maximum, window) in [(1, 1), (2, 2), (31, 31), (32, 32), (33, WINDOW), (u16::MAX, WINDOW)] {
        let name = format!("phone-{maximum}");
        let mut phone = listener(&node, &Hello::v5(&name).receive_maximum(maximum), Qos::AtLeastOnce);
        let texts: Vec<String> = (0..window + 1).map(|number| format!("{maximum}: {number}")).collect();
        for text in &texts {
            node.push_user(&name, text.as_bytes(), Qos::AtLeastOnce);
        }
        let arrived = phone.messages();
        assert!(arrived.iter().map(|arrived| arrived.text()).eq(texts[..window].iter()), "{maximum}");
        phone.puback(arrived[window - 1].id);
        phone.expect_text(&texts[window]);
        phone.expect_nothing();
        phone.bye();
    }
}

#[test]
fn a_window_of_32_serves_a_backlog_of_500_in_order() {
    for (shards, hello) in [(1, Hello::lasting("phone")), (2, Hello::v3("phone").clean(false))] {
        let node = Node::with_shards(shards);
        listener(&node, &hello, Qos::AtLeastOnce).bye();
        let texts: Vec<String> = (0..500).map(|number| number.to_string()).collect();
        for text in &texts {
            node.push_user("phone", text.as_bytes(), Qos::AtLeastOnce);
        }
        let mut phone = node.hello(&hello);
        let first = phone.messages();
        assert_eq!(first.len(), WINDOW);
        for arrived in &first {
            phone.puback(arrived.id);
        }
        let rest = phone.drain();
        let all = first.iter().map(|arrived| arrived.text()).chain(rest.iter().map(String::as_str));
        assert!(all.eq(texts.iter()));
        phone.bye();
        node.hello(&hello).expect_nothing();
    }
}

#[test]
fn a_session_that_reads_a_long_backlog_holds_a_window_and_not_the_backlog() {
    const BACKLOG: usize = HOT_RING_ENTRIES_MAX + 1_000;
    const WINDOW: u16 = 16;
    let node = Node::with_retention(1, |_| {}, |keep| keep.inbox.entries = BACKLOG);
    let hello = Hello::lasting("phone").receive_maximum(WINDOW);
    listener(&node, &hello, Qos::AtLeastOnce).bye();
    for number in 0..BACKLOG {
        node.push_user("phone", format!("{number:04}{}", "x".repeat(500)).as_bytes(), Qos::AtLeastOnce);
    }
    let mut phone = node.hello(&hello);
    let mut read = 0;
    while read < BACKLOG {
        let arrived = phone.messages();
        assert!(!arrived.is_empty() && arrived.len() <= usize::from(WINDOW), "{} at once", arrived.len());
        let numbers = arrived.iter().map(|arrived| arrived.text()[..4].parse::<usize>().expect("a number"));
        assert!(numbers.eq(read..read + arrived.len()));
        if read % 1_000 < arrived.len() {
            assert_eq!(node.user("phone").devices[0].in_flight as usize, arrived.len());
            assert!(node.gauge("blocks") <= 1, "what waits is in the log: {} blocks", node.gauge("blocks"));
        }
        read += arrived.len();
        arrived.iter().for_each(|arrived| phone.puback(arrived.id));
    }
    phone.expect_nothing();
    phone.bye();
    node.assert_holds_no_buffers();
}

#[test]
fn acknowledgements_in_any_order_keep_the_window_full_and_lose_nothing() {
    let node = Node::new();
    let hello = Hello::lasting("phone");
    let mut phone = listener(&node, &hello, Qos::AtLeastOnce);
    for number in 0..100 {
        node.push_user("phone", format!("{number}").as_bytes(), Qos::AtLeastOnce);
    }
    let first = phone.messages();
    for arrived in first.iter().rev().filter(|arrived| arrived.text() != "0") {
        phone.puback(arrived.id);
    }
    let rest = phone.drain();
    assert!(rest.iter().map(|text| text.parse::<u32>().expect("a number")).eq(32..100));
    // All but the first are settled.
    phone.hang_up();
    let mut phone = node.hello(&hello);
    let again = phone.expect_and_ack("0");
    assert!(again.dup && again.id == first[0].id);
    phone.expect_nothing();
    phone.hang_up();
    node.hello(&hello).expect_nothing();
}

#[test]
fn mqtt5_3_3_4_7_more_than_receive_maximum_unacknowledged_publishes_end_the_connection() {
    let node = Node::with_shards(2);
    node.hello(&Hello::lasting("owed")).subscribe(&[("a", Qos::AtLeastOnce)]);
    for (count, told) in [(IN - 1, false), (IN, false), (IN + 1, true)] {
        node.hold_commits();
        node.release_commits();
        let mut phone = node.connect("phone");
        node.hold_commits();
        for id in 1..=count {
            phone.publish("a", b"x", Qos::AtLeastOnce, id);
        }
        if told {
            phone.expect_goodbye(0x93);
            assert_eq!(node.counter("closed_receive_maximum"), 1);
        } else {
            phone.expect_nothing();
        }
        node.release_commits();
        if !told {
            assert!(phone.all().into_iter().eq((1..=count).map(|id| Got::PubAck(id, 0))));
            phone.bye();
        }
    }
}

#[test]
fn qos_2_publishes_count_for_receive_maximum_until_pubcomp() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    for id in 1..=IN {
        phone.publish("a", b"x", Qos::ExactlyOnce, id);
        phone.expect(&Got::PubRec(id, 0x10));
    }
    phone.ack(AckKind::PubRel, 1);
    phone.expect(&Got::PubComp(1, 0));
    phone.publish("a", b"x", Qos::ExactlyOnce, 1);
    phone.expect(&Got::PubRec(1, 0x10));
    phone.publish("a", b"x", Qos::AtLeastOnce, IN + 1);
    phone.expect_goodbye(0x93);
}

#[test]
fn a_311_publisher_that_sends_too_much_is_read_more_slowly_and_loses_nothing() {
    let node = Node::with_shards(2);
    let mut owed = node.hello(&Hello::lasting("owed"));
    owed.subscribe(&[("a", Qos::AtLeastOnce)]);
    let mut phone = node.hello(&Hello::v3("phone"));
    node.hold_commits();
    for id in 1..=1_000 {
        phone.publish("a", id.to_string().as_bytes(), Qos::AtLeastOnce, id);
    }
    phone.expect_nothing();
    node.release_commits();
    assert!(phone.all().into_iter().eq((1..=1_000).map(|id| Got::PubAck(id, 0))));
    assert!(owed.drain().into_iter().eq((1..=1_000).map(|id| id.to_string())));
    phone.expect_pong();
}

#[test]
fn mqtt311_4_6_0_2_acknowledgements_leave_in_the_order_of_the_publishes() {
    let node = Node::with_shards(2);
    let mut owed = node.hello(&Hello::lasting("owed"));
    owed.subscribe(&[("owed/#", Qos::ExactlyOnce)]);
    let mut phone = node.connect("phone");
    node.hold_commits();
    // What nobody is owed could be answered at once.
    for id in 1..=20 {
        let topic = if id % 3 == 0 { format!("owed/{id}") } else { format!("nobody/{id}") };
        phone.publish(&topic, b"x", Qos::AtLeastOnce, id);
        phone.publish(&topic, b"x", Qos::ExactlyOnce, id + 100);
    }
    let early = phone.all();
    assert_eq!(early.len(), 4, "{early:?}");
    node.release_commits();
    let mut acks = early;
    acks.extend(phone.all());
    let once: Vec<u16> =
        acks.iter().filter_map(|got| if let Got::PubAck(id, _) = got { Some(*id) } else { None }).collect();
    let twice: Vec<u16> =
        acks.iter().filter_map(|got| if let Got::PubRec(id, _) = got { Some(*id) } else { None }).collect();
    assert!(once.into_iter().eq(1..=20));
    assert!(twice.into_iter().eq(101..=120));
}

#[test]
fn mqtt5_4_3_2_4_an_acknowledgement_is_sent_no_earlier_than_the_commit() {
    let node = Node::new();
    node.hello(&Hello::lasting("owed")).subscribe(&[("a", Qos::AtLeastOnce)]);
    let mut phone = node.connect("phone");
    node.hold_commits();
    phone.publish("a", b"x", Qos::AtLeastOnce, 1);
    phone.publish("a", b"x", Qos::ExactlyOnce, 2);
    node.advance(5_000);
    phone.expect_nothing();
    node.release_commits();
    assert_eq!(phone.all(), [Got::PubAck(1, 0), Got::PubRec(2, 0)]);
}

#[test]
fn mqtt5_4_4_0_1_qos_1_messages_come_again_on_return_with_dup_in_their_order() {
    for (shards, hello) in [(1, Hello::lasting("phone")), (2, Hello::v3("phone").clean(false))] {
        let node = Node::with_shards(shards);
        let mut phone = node.hello(&hello);
        phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce), ("a", Qos::AtLeastOnce)]);
        for number in 0..5 {
            node.push_user("phone", format!("inbox {number}").as_bytes(), Qos::AtLeastOnce);
            node.push_topic("a", format!("topic {number}").as_bytes(), Qos::AtLeastOnce);
        }
        let first = phone.messages();
        assert_eq!(first.len(), 10);
        phone.puback(first[3].id);
        phone.puback(first[6].id);
        phone.hang_up();
        node.push_user("phone", b"meanwhile", Qos::AtLeastOnce);
        let mut phone = node.hello(&hello);
        let again = phone.messages();
        let unsettled = first.iter().enumerate().filter(|(at, _)| ![3, 6].contains(at)).map(|(_, arrived)| arrived);
        assert!(again[..8].iter().map(|arrived| (arrived.id, arrived.text())).eq(unsettled.map(|a| (a.id, a.text()))));
        assert!(again[..8].iter().all(|arrived| arrived.dup));
        assert_eq!((again.len(), again[8].text(), again[8].dup), (9, "meanwhile", false));
        for arrived in &again {
            phone.puback(arrived.id);
        }
        phone.hang_up();
        node.hello(&hello).expect_nothing();
    }
}

#[test]
fn mqtt5_4_4_0_1_nothing_is_sent_again_while_the_connection_stands() {
    let node = Node::new();
    let mut phone = listener(&node, &Hello::lasting("phone").keep_alive(0), Qos::ExactlyOnce);
    node.push_user("phone", b"once", Qos::AtLeastOnce);
    node.push_user("phone", b"twice", Qos::ExactlyOnce);
    assert_eq!(phone.messages().len(), 2);
    node.advance(600_000);
    phone.expect_nothing();
}

#[test]
fn mqtt5_4_3_3_a_qos_2_message_passes_its_four_steps() {
    for hello in [Hello::v5("phone"), Hello::lasting("phone"), Hello::v3("phone").clean(false)] {
        let node = Node::new();
        let mut phone = listener(&node, &hello, Qos::ExactlyOnce);
        node.push_user("phone", b"x", Qos::ExactlyOnce);
        let arrived = phone.expect_text("x");
        assert_eq!((arrived.qos, arrived.dup), (Qos::ExactlyOnce, false));
        phone.ack(AckKind::PubRec, arrived.id);
        phone.expect(&Got::PubRel(arrived.id, 0));
        phone.ack(AckKind::PubComp, arrived.id);
        phone.expect_nothing();
        assert_eq!(node.counter("settled"), 1);
        phone.hang_up();
        node.hello(&hello).expect_nothing();
    }
}

#[test]
fn mqtt5_4_3_3_a_qos_2_publish_comes_again_on_return_and_after_pubrec_only_its_pubrel() {
    for hello in [Hello::lasting("phone"), Hello::v3("phone").clean(false)] {
        let node = Node::new();
        let mut phone = listener(&node, &hello, Qos::ExactlyOnce);
        for text in ["first", "second", "third"] {
            node.push_user("phone", text.as_bytes(), Qos::ExactlyOnce);
        }
        let ids: Vec<u16> = phone.messages().iter().map(|arrived| arrived.id).collect();
        phone.ack(AckKind::PubRec, ids[1]);
        phone.expect(&Got::PubRel(ids[1], 0));
        phone.hang_up();
        let mut phone = node.hello(&hello);
        let first = phone.expect_text("first");
        assert!(first.dup && first.id == ids[0]);
        phone.expect(&Got::PubRel(ids[1], 0));
        let third = phone.expect_text("third");
        assert!(third.dup && third.id == ids[2]);
        phone.ack(AckKind::PubComp, ids[1]);
        phone.hang_up();
        let mut phone = node.hello(&hello);
        assert_eq!(phone.messages().len(), 2);
        for id in [ids[0], ids[2]] {
            phone.ack(AckKind::PubRec, id);
            phone.expect(&Got::PubRel(id, 0));
            phone.ack(AckKind::PubComp, id);
        }
        phone.hang_up();
        node.hello(&hello).expect_nothing();
    }
}

#[test]
fn mqtt5_4_3_3_10_a_qos_2_publish_that_comes_again_is_routed_once() {
    for hello in [Hello::lasting("phone"), Hello::v3("phone").clean(false)] {
        let node = Node::with_shards(2);
        let mut watcher = node.hello(&Hello::lasting("watcher"));
        watcher.subscribe(&[("a", Qos::AtLeastOnce)]);
        let mut phone = node.hello(&hello);
        let message = publish("a", b"x", Qos::ExactlyOnce, 5);
        let again = Publish { dup: true, ..message };
        phone.send_packet(&message);
        phone.expect(&Got::PubRec(5, 0));
        phone.send_packet(&again);
        phone.expect(&Got::PubRec(5, 0));
        phone.hang_up();
        let mut phone = node.hello(&hello);
        phone.send_packet(&again);
        phone.expect(&Got::PubRec(5, 0));
        assert_eq!(watcher.drain(), ["x"]);
        assert_eq!(node.counter("duplicate_received"), 2);
        phone.ack(AckKind::PubRel, 5);
        phone.expect(&Got::PubComp(5, 0));
        // [MQTT-4.3.3-12]: the identifier may be used again.
        phone.send_packet(&message);
        phone.expect(&Got::PubRec(5, 0));
        assert_eq!(watcher.drain(), ["x"]);
        phone.ack(AckKind::PubRel, 5);
        phone.expect(&Got::PubComp(5, 0));
        phone.bye();
    }
}

#[test]
fn a_qos_2_publish_is_routed_once_when_its_connection_ends_before_the_commit() {
    let node = Node::with_shards(2);
    let mut watcher = node.hello(&Hello::lasting("watcher"));
    watcher.subscribe(&[("a", Qos::AtLeastOnce)]);
    let mut phone = node.hello(&Hello::lasting("phone"));
    node.hold_commits();
    let message = publish("a", b"x", Qos::ExactlyOnce, 5);
    phone.send_packet(&message);
    phone.hang_up();
    let mut phone = node.dial();
    phone.hello(&Hello::lasting("phone"));
    phone.send_packet(&Publish { dup: true, ..message });
    node.release_commits();
    phone.expect_connack(0);
    phone.expect(&Got::PubRec(5, 0));
    phone.expect_nothing();
    assert_eq!(watcher.drain(), ["x"]);
}

#[test]
fn mqtt5_3_6_2_1_a_pubrel_or_pubrec_of_nothing_is_answered_not_found() {
    let node = Node::new();
    let mut phone = node.connect("phone");
    phone.ack(AckKind::PubRel, 9);
    phone.expect(&Got::PubComp(9, 0x92));
    phone.ack(AckKind::PubRec, 9);
    phone.expect(&Got::PubRel(9, 0x92));
    phone.ack(AckKind::PubAck, 9);
    phone.ack(AckKind::PubComp, 9);
    phone.expect_nothing();
    let mut old = node.hello(&Hello::v3("old"));
    old.ack(AckKind::PubRel, 9);
    old.expect(&Got::PubComp(9, 0));
    assert!(node.counter("unknown_ack") >= 2);
}

#[test]
fn acknowledgements_of_the_wrong_kind_settle_nothing() {
    let node = Node::new();
    let hello = Hello::lasting("phone");
    let mut phone = listener(&node, &hello, Qos::ExactlyOnce);
    node.push_user("phone", b"once", Qos::AtLeastOnce);
    node.push_user("phone", b"twice", Qos::ExactlyOnce);
    let arrived = phone.messages();
    phone.puback(arrived[1].id);
    phone.ack(AckKind::PubComp, arrived[1].id);
    phone.ack(AckKind::PubComp, arrived[0].id);
    phone.expect_nothing();
    phone.hang_up();
    let mut phone = node.hello(&hello);
    assert_eq!(phone.messages().len(), 2);
}

#[test]
fn mqtt5_3_1_2_25_what_is_too_large_for_a_client_is_skipped_and_counted() {
    let node = Node::new();
    let hello = Hello::lasting("phone").packet_bytes(100);
    let mut phone = listener(&node, &hello, Qos::AtLeastOnce);
    phone.subscribe(&[("a", Qos::AtMostOnce)]);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        node.push_user("phone", &[b'x'; 200], qos);
        node.push_topic("a", &[b'x'; 200], qos);
        node.push_user("phone", b"small", qos);
        assert_eq!(phone.drain(), ["small"]);
    }
    assert_eq!(node.counter("dropped_too_large"), 4);
    phone.hang_up();
    let mut phone = node.hello(&hello);
    phone.expect_nothing();
    // To the byte: 2 of the fixed header, 13 of the topic, 2 of the identifier, 1 of the properties.
    for (bytes, comes) in [(99, true), (100, true), (101, false)] {
        node.push_user("phone", &vec![b'x'; bytes - 18], Qos::AtLeastOnce);
        assert_eq!(phone.drain().len(), usize::from(comes), "{bytes}");
    }
}

#[test]
fn mqtt5_3_3_2_5_a_message_that_expired_is_not_delivered_and_one_that_will_says_when() {
    let node = Node::new();
    let hello = Hello::lasting("phone");
    listener(&node, &hello, Qos::AtLeastOnce).bye();
    for (text, seconds) in [("short", 5), ("long", 60)] {
        let until = node.net().now().wall_ms + seconds * 1_000;
        let target = kittiwake::shard::command::Target::User("phone".into());
        let pushed = node.push_with(target, text.as_bytes(), Qos::AtLeastOnce, |push| {
            let message = kittiwake::base::message::Message { expires_ms: Some(until), ..(*push.message).clone() };
            push.message = message.into();
        });
        assert!(pushed.is_ok());
    }
    node.advance(10_000);
    let mut phone = node.hello(&hello);
    assert_eq!(phone.expect_and_ack("long").expiry, Some(50));
    phone.expect_nothing();
    assert_eq!(node.counter("dropped_expired"), 1);
}

/// A message of the window waits for the outbox and expires there; another waits unlogged for that window. Nothing that
/// the client sends makes room: what could not be sent does.
#[test]
fn a_window_freed_by_a_message_that_could_not_be_sent_takes_the_next_one() {
    let node = Node::with(1, |limits| limits.outbox_bytes = 16_384);
    let mut phone = node.hello(&Hello::v5("phone").receive_maximum(1));
    phone.subscribe(&[("a", Qos::AtLeastOnce)]);
    // Without a reader the network fills up, then the outbox, to the byte that the next message wants.
    for (dropped, bytes) in (0..).zip([4_000, 1_000, 100, 10, 1]) {
        while node.counter("dropped_outbox_full") == dropped {
            node.push_topic("a", &vec![b'x'; bytes], Qos::AtMostOnce);
        }
    }
    let until = node.net().now().wall_ms + 1_000;
    let target = || kittiwake::shard::command::Target::Topic("a".into());
    let mortal = node.push_with(target(), b"mortal", Qos::AtLeastOnce, |push| {
        let message = kittiwake::base::message::Message { expires_ms: Some(until), ..(*push.message).clone() };
        push.message = message.into();
    });
    assert!(mortal.is_ok());
    node.push_topic("a", b"next", Qos::AtLeastOnce);
    assert_eq!((node.gauge("unsent_sessions"), node.gauge("lagging_sessions")), (1, 1));
    node.advance(2_000);
    let arrived = phone.messages();
    let owed: Vec<&str> = arrived.iter().filter(|got| got.qos > Qos::AtMostOnce).map(|got| got.text()).collect();
    assert_eq!(owed, ["next"]);
    assert_eq!(node.counter("dropped_expired"), 1);
}

/// A pass over many subscribers takes many turns, and what all of them get is encoded in the first one.
#[test]
fn mqtt5_3_3_2_5_a_message_that_expires_during_its_fan_out_goes_to_nobody_from_then_on() {
    for (qos, sent) in [(Qos::AtMostOnce, "sent_qos0"), (Qos::AtLeastOnce, "sent_qos1")] {
        let arrived_after = |turns: usize| {
            let node = Node::with(1, |limits| limits.connections = 500);
            let mut clients: Vec<Client> =
                (0..200).map(|number| node.hello(&Hello::v5(&format!("client-{number}")))).collect();
            clients.iter_mut().for_each(|client| client.subscribe(&[("a", qos)]));
            let until = node.net().now().wall_ms + 1_000;
            let target = kittiwake::shard::command::Target::Topic("a".into());
            let pushed = node.start_push(target, b"mortal", qos, |push| {
                let message = kittiwake::base::message::Message { expires_ms: Some(until), ..(*push.message).clone() };
                push.message = message.into();
            });
            assert!(pushed.is_ok());
            (0..turns).for_each(|_| node.step());
            node.net().step_wall_clock(1_000);
            node.run();
            let arrived = clients.iter_mut().map(|client| client.messages().len() as u64).sum::<u64>();
            assert_eq!(
                (node.counter(sent), node.counter("dropped_expired")),
                (arrived, 200 - arrived),
                "{turns} turns"
            );
            arrived
        };
        let arrived: Vec<u64> = (0..6).map(arrived_after).collect();
        assert!(
            arrived.is_sorted() && arrived.iter().any(|arrived| (1..200).contains(arrived)),
            "{qos:?}: {arrived:?}"
        );
    }
}
