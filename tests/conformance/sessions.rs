//! A device's session: how it begins, who takes it over, when it ends.

use crate::client::{Client, Got, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{
    DEVICES_PER_USER_MAX, LAZY_WRITES_UNDER_WAY_MAX, PACKET_BYTES_MAX, RECEIVE_MAXIMUM_IN, SESSIONS_PER_CONNECTION_MAX,
    TOPIC_ALIAS_MAX, TURN_LAZY_WRITES_MAX,
};
use kittiwake::wire::mqtt::properties::DisconnectProperties;
use kittiwake::wire::mqtt::{Disconnect, Reason};

#[test]
fn mqtt5_3_1_4_3_a_second_connection_of_a_device_takes_over_and_the_first_is_told() {
    for shards in [1, 2] {
        let node = Node::with_shards(shards);
        let mut first = node.connect("phone");
        let mut second = node.connect("phone");
        first.expect_goodbye(0x8E);
        second.expect_pong();
        let mut third = node.hello(&Hello::v3("phone"));
        second.expect_goodbye(0x8E);
        let mut fourth = node.connect("phone");
        third.expect_closed();
        fourth.expect_pong();
        assert_eq!(node.counter("closed_taken_over"), 3);
        assert_eq!((node.gauge("sessions"), node.gauge("connections")), (1, 1));
        fourth.bye();
        node.assert_at_rest();
        assert_eq!(node.gauge("sessions"), 0);
    }
}

#[test]
fn the_same_device_of_two_users_is_two_sessions() {
    let node = Node::new();
    let mut ann = node.hello(&Hello::v5("phone").user("ann"));
    let mut bob = node.hello(&Hello::v5("phone").user("bob"));
    ann.expect_pong();
    bob.expect_pong();
    assert_eq!(node.gauge("sessions"), 2);
}

#[test]
fn many_take_overs_at_a_time_leave_one_connection() {
    let node = Node::with_shards(2);
    let mut clients: Vec<_> = (0..20).map(|_| node.dial()).collect();
    let frame = Hello::lasting("phone").frame();
    for client in &mut clients {
        assert_eq!(client.write(&frame), frame.len());
    }
    node.run();
    for client in &mut clients {
        let heard = client.all();
        let told = heard.contains(&Got::Disconnect(0x8E)) || heard.is_empty();
        assert_eq!(client.is_closed(), told, "{heard:?}");
    }
    let open = clients.iter_mut().filter_map(|client| (!client.is_closed()).then_some(())).count();
    assert_eq!((open, node.gauge("connections"), node.gauge("sessions")), (1, 1, 1));
}

#[test]
fn mqtt5_3_2_2_2_session_present_says_whether_there_was_one() {
    let node = Node::new();
    let connect = |hello: &Hello<'_>| {
        let mut client = node.dial();
        client.hello(hello);
        let present = client.expect_connack(0).session_present;
        client.bye();
        present
    };
    assert!(!connect(&Hello::lasting("phone")));
    assert!(connect(&Hello::lasting("phone")));
    // [MQTT-3.1.2-4]: a clean start discards it.
    assert!(!connect(&Hello::lasting("phone").clean(true)));
    assert!(connect(&Hello::lasting("phone")));
    // It ends with a connection that does not ask for more.
    assert!(connect(&Hello::v5("phone").clean(false)));
    assert!(!connect(&Hello::v5("phone").clean(false)));
    assert!(!connect(&Hello::v3("old").clean(false)));
    assert!(connect(&Hello::v3("old").clean(false)));
    assert!(!connect(&Hello::v3("old")));
    assert!(!connect(&Hello::v3("old").clean(false)));
}

#[test]
fn mqtt5_3_1_2_4_a_clean_start_forgets_subscriptions_and_what_was_owed() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::lasting("phone"));
    phone.subscribe(&[("a", Qos::AtLeastOnce), ("$inbox/#", Qos::AtLeastOnce)]);
    phone.bye();
    node.push_topic("a", b"missed", Qos::AtLeastOnce);
    let mut phone = node.hello(&Hello::lasting("phone").clean(true));
    node.push_topic("a", b"unwanted", Qos::AtLeastOnce);
    phone.expect_nothing();
    assert_eq!(node.gauge("subscriptions"), 0);
    phone.subscribe(&[("a", Qos::AtLeastOnce)]);
    phone.expect_nothing();
    node.push_topic("a", b"new", Qos::AtLeastOnce);
    phone.expect_and_ack("new");
}

#[test]
fn mqtt5_3_1_2_23_a_session_is_kept_for_its_expiry_and_no_longer() {
    let node = Node::new();
    for (away_ms, present) in [(9_000, true), (10_900, false)] {
        let hello = Hello::v5("phone").clean(false).expiry(10);
        node.hello(&hello).bye();
        node.advance(away_ms);
        let mut phone = node.dial();
        phone.hello(&hello);
        assert_eq!(phone.expect_connack(0).session_present, present, "{away_ms} ms");
        phone.bye();
        node.advance(60_000);
        assert_eq!((node.gauge("sessions"), node.gauge("session_timers")), (0, 0));
    }
}

#[test]
fn mqtt5_3_14_2_2_2_a_disconnect_may_change_the_expiry_but_not_begin_one() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::v5("phone").clean(false).expiry(3_600));
    phone.send(b"\xE0\x07\0\x05\x11\0\0\0\0");
    phone.expect_closed();
    assert_eq!(node.gauge("sessions"), 0);
    let mut phone = node.connect("phone");
    phone.send(b"\xE0\x07\0\x05\x11\0\0\0\x0A");
    phone.expect_goodbye(0x82);
}

#[test]
fn mqtt5_3_1_2_22_a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    let node = Node::new();
    let mut five = node.hello(&Hello::v5("five").keep_alive(10));
    let mut three = node.hello(&Hello::v3("three").keep_alive(10));
    node.advance(14_800);
    five.expect_nothing();
    three.expect_nothing();
    node.advance(400);
    five.expect_goodbye(0x8D);
    three.expect_closed();
    assert_eq!(node.counter("closed_keep_alive"), 2);
    node.assert_at_rest();
}

#[test]
fn any_packet_counts_for_the_keep_alive() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::v5("phone").keep_alive(10));
    for round in 0..5 {
        node.advance(14_000);
        match round {
            0 => phone.expect_pong(),
            1 => phone.publish("a", b"x", Qos::AtMostOnce, 0),
            2 => phone.subscribe(&[("b", Qos::AtMostOnce)]),
            3 => phone.puback(9),
            _ => phone.expect_nothing(),
        }
    }
    node.advance(1_200);
    phone.expect_goodbye(0x8D);
}

#[test]
fn what_the_server_sends_does_not_count_for_the_keep_alive() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::v5("phone").keep_alive(10));
    phone.subscribe(&[("a", Qos::AtMostOnce)]);
    for _ in 0..3 {
        node.advance(4_000);
        node.push_topic("a", b"x", Qos::AtMostOnce);
        phone.expect_text("x");
    }
    node.advance(3_200);
    phone.expect_goodbye(0x8D);
}

#[test]
fn without_a_keep_alive_the_idle_limit_holds() {
    let node = Node::with(1, |limits| limits.idle_timeout = core::time::Duration::from_secs(60));
    let mut phone = node.connect("phone");
    node.advance(59_800);
    phone.expect_pong();
    node.advance(59_800);
    phone.expect_nothing();
    node.advance(400);
    phone.expect_goodbye(0x8D);
}

#[test]
fn mqtt5_3_1_3_6_an_empty_client_identifier_gets_one_of_its_own() {
    let node = Node::with_shards(2);
    let mut names = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = node.dial();
        client.hello(&Hello::v5("").expiry(3_600));
        let welcome = client.expect_connack(0);
        assert_eq!(welcome.expiry, Some(0), "nobody could come back to it");
        names.push(welcome.assigned.expect("it is told its name"));
        clients.push(client);
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10);
    // Each is a user of its own, whom pushes reach.
    clients[3].subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    let mut three = node.hello(&Hello::v3(""));
    three.expect_pong();
    clients.into_iter().for_each(crate::client::Client::bye);
    three.bye();
    assert_eq!(node.gauge("sessions"), 0);
    node.assert_at_rest();
}

#[test]
fn connack_says_the_limits() {
    let node = Node::new();
    let mut phone = node.dial();
    phone.hello(&Hello::v5("phone").expiry(u32::MAX));
    let welcome = phone.expect_connack(0);
    assert_eq!(welcome.expiry, Some(7 * 24 * 3_600));
    assert_eq!(welcome.receive_maximum, Some(RECEIVE_MAXIMUM_IN));
    assert_eq!(welcome.packet_bytes, Some(PACKET_BYTES_MAX as u32));
    assert_eq!(welcome.alias_maximum, Some(TOPIC_ALIAS_MAX));
    assert_eq!(welcome.assigned, None);
    assert_eq!(welcome.retain_available, Some(true));
}

#[test]
fn mqtt5_3_2_2_15_connack_says_the_packet_size_of_the_configuration() {
    for bytes in [1_000, 1 << 20] {
        let node = Node::with(1, |limits| limits.packet_bytes = bytes);
        let mut phone = node.dial();
        phone.hello(&Hello::lasting("phone"));
        assert_eq!(phone.expect_connack(0).packet_bytes, Some(bytes as u32));
    }
}

#[test]
fn a_user_has_so_many_devices_and_no_more() {
    let node = Node::with(1, |limits| (limits.connections, limits.defence.user_connects) = (300, None));
    let names: Vec<String> = (0..=DEVICES_PER_USER_MAX).map(|device| format!("device-{device}")).collect();
    for name in &names[..DEVICES_PER_USER_MAX] {
        node.hello(&Hello::lasting(name).user("ann")).bye();
    }
    let last = &names[DEVICES_PER_USER_MAX];
    let mut client = node.dial();
    client.hello(&Hello::v5(last).user("ann"));
    client.expect_connack(0x97);
    client.expect_closed();
    let mut client = node.dial();
    client.hello(&Hello::v3(last).user("ann"));
    client.expect_connack(0x03);
    client.expect_closed();
    // One that is known may come back, and others have their own devices.
    node.hello(&Hello::lasting(&names[0]).user("ann")).bye();
    node.hello(&Hello::v5(last).user("bob")).bye();
    assert_eq!(node.gauge("connections"), 0);
}

#[test]
fn a_shard_without_room_for_another_session_says_so_and_serves_those_it_has() {
    let node = Node::with(1, |limits| limits.connections = 4);
    let room = 4 * SESSIONS_PER_CONNECTION_MAX;
    let names: Vec<String> = (0..=room).map(|user| format!("user-{user}")).collect();
    let hello = |name| Hello::v5(name).clean(false).expiry(60);
    for name in &names[..room] {
        node.hello(&hello(name)).bye();
    }
    for (hello, code) in [(hello(&names[room]), 0x88), (Hello::v3(&names[room]), 0x03)] {
        let mut client = node.dial();
        client.hello(&hello);
        client.expect_connack(code);
        client.expect_closed();
    }
    assert_eq!(node.counter("closed_refused"), 2);
    // Known ones come back, with and without their session.
    node.hello(&hello(&names[3])).bye();
    node.hello(&hello(&names[4]).clean(true)).bye();
    node.advance(61_000);
    node.hello(&hello(&names[room])).bye();
    assert_eq!(node.gauge("sessions"), 1);
}

#[test]
fn packets_after_connect_are_answered_in_order_although_they_came_with_it() {
    for shards in [1, 2] {
        let node = Node::with_shards(shards);
        for name in ["ann", "bob", "cid", "dan"] {
            let mut client = node.dial();
            let mut bytes = Hello::lasting(name).frame();
            bytes.extend_from_slice(b"\x82\x07\0\x01\0\0\x01a\x01\xC0\0\xC0\0");
            client.send(&bytes);
            client.expect_connack(0);
            client.expect(&Got::SubAck(1, vec![1]));
            assert_eq!(client.all(), [Got::PingResp, Got::PingResp]);
            client.bye();
        }
    }
}

#[test]
fn a_session_that_comes_and_goes_waits_once_for_the_writing_of_its_record() {
    let node = Node::new();
    for hello in [Hello::lasting("phone"), Hello::lasting("tablet")] {
        for _ in 0..20 {
            node.hello(&hello).hang_up();
        }
    }
    assert_eq!(node.gauge("dirty_records"), 2);
    node.advance(2_000);
    assert_eq!(node.gauge("dirty_records"), 0);
    // Also one whose delayed will is published meanwhile.
    let mut last = crate::client::will("a", b"w", Qos::AtLeastOnce);
    last.properties.delay_seconds = Some(0);
    for _ in 0..20 {
        node.hello(&Hello::lasting("phone").will(last)).hang_up();
    }
    assert_eq!(node.gauge("dirty_records"), 1);
}

#[test]
fn positions_that_change_all_at_once_go_to_the_log_a_few_at_a_time() {
    const UNDER_WAY: usize = TURN_LAZY_WRITES_MAX * LAZY_WRITES_UNDER_WAY_MAX;
    let node = Node::with(1, |limits| limits.connections = 2 * UNDER_WAY);
    for number in 0..UNDER_WAY + 300 {
        node.hello(&Hello::lasting(&format!("d{number}"))).hang_up();
    }
    assert_eq!(node.gauge("dirty_records"), (UNDER_WAY + 300) as u64);
    node.hold_commits();
    node.advance(5_000);
    assert_eq!(node.gauge("dirty_records"), 300, "the log has not answered");
    node.release_commits();
    node.advance(100);
    assert_eq!(node.gauge("dirty_records"), 0, "it has");
}

#[test]
fn what_is_committed_with_a_publish_of_a_session_that_is_over_is_removed() {
    let node = Node::with_shards(2);
    for clean in [true, false] {
        let mut listener = node.hello(&Hello::lasting("listener"));
        listener.subscribe(&[("a", Qos::ExactlyOnce)]);
        let mut phone = node.hello(&Hello::lasting("phone"));
        node.hold_commits();
        phone.publish("a", b"late", Qos::ExactlyOnce, 7);
        if clean {
            // Another session of the device begins while the message is on its way.
            phone = Client::dial(&node);
            phone.hello(&Hello::v5("phone").clean(true));
        } else {
            phone.send_packet(&Disconnect {
                properties: DisconnectProperties { session_expiry_seconds: Some(0), ..Default::default() },
                ..Disconnect::new(Reason::Success)
            });
        }
        node.run();
        node.release_commits();
        node.run();
        let left = node.session_record_keys();
        let of_phone = left.iter().filter(|key| key.windows(5).any(|name| name == b"phone")).count();
        assert_eq!((of_phone, node.gauge("orphan_records")), (0, 0), "clean start: {clean}, {left:?}");
        phone.hang_up();
        listener.bye();
    }
}
