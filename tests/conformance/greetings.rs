//! CONNECT and CONNACK: what is taken, what is answered, and what comes before anything else.

use crate::client::{Client, Got, Hello, will};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::{Filter, PingReq};

/// A client whose CONNECT was sent and is not answered before commits go on.
fn waiting(node: &Node, hello: &Hello<'_>) -> Client {
    node.hold_commits();
    let mut client = node.dial();
    client.hello(hello);
    client
}

#[test]
fn mqtt5_3_1_2_5_a_session_is_resumed_with_its_subscriptions_and_what_is_owed() {
    for hello in [Hello::lasting("phone"), Hello::v3("phone").clean(false)] {
        let node = Node::new();
        let mut phone = node.hello(&hello);
        phone.subscribe(&[("a", Qos::AtLeastOnce)]);
        phone.bye();
        node.push_topic("a", b"while away", Qos::AtLeastOnce);
        let mut phone = node.dial();
        phone.hello(&hello);
        assert!(phone.expect_connack(0).session_present);
        phone.expect_and_ack("while away");
        node.push_topic("a", b"afterwards", Qos::AtLeastOnce);
        phone.expect_and_ack("afterwards");
    }
}

#[test]
fn mqtt5_3_1_2_6_without_a_session_a_new_one_begins() {
    let node = Node::new();
    let mut phone = node.dial();
    phone.hello(&Hello::lasting("phone"));
    assert!(!phone.expect_connack(0).session_present);
    assert_eq!(node.gauge("sessions"), 1);
    phone.subscribe(&[("a", Qos::AtMostOnce)]);
    node.push_topic("a", b"x", Qos::AtMostOnce);
    phone.expect_text("x");
}

#[test]
fn mqtt311_3_1_2_6_a_clean_session_lasts_as_long_as_its_connection() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::v3("phone"));
    phone.subscribe(&[("a", Qos::AtLeastOnce)]);
    phone.bye();
    assert_eq!((node.gauge("sessions"), node.gauge("subscriptions")), (0, 0));
    node.push_topic("a", b"missed", Qos::AtLeastOnce);
    let mut phone = node.dial();
    phone.hello(&Hello::v3("phone").clean(false));
    assert!(!phone.expect_connack(0).session_present);
    phone.expect_nothing();
}

#[test]
fn mqtt5_3_1_3_2_the_client_identifier_names_the_session() {
    let node = Node::with_shards(2);
    for (name, topic) in [("one", "of/one"), ("two", "of/two")] {
        let mut client = node.hello(&Hello::lasting(name).user("ann"));
        client.subscribe(&[(topic, Qos::AtLeastOnce)]);
        client.bye();
    }
    node.push_topic("of/two", b"x", Qos::AtLeastOnce);
    node.hello(&Hello::lasting("one").user("ann")).expect_nothing();
    node.hello(&Hello::lasting("two").user("ann")).expect_and_ack("x");
}

#[test]
fn mqtt5_3_1_3_5_client_identifiers_of_1_to_23_letters_and_digits_are_taken() {
    let node = Node::new();
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for bytes in 1..=23 {
        node.hello(&Hello::v5(&all[..bytes])).bye();
        node.hello(&Hello::v3(&all[all.len() - bytes..])).bye();
    }
    node.hello(&Hello::v5(&all[23..46])).bye();
    // More than has to be.
    node.hello(&Hello::v5(all)).bye();
    node.hello(&Hello::v3("größe/+#")).bye();
    assert_eq!(node.gauge("sessions"), 0);
}

#[test]
fn mqtt5_3_1_4_5_an_accepted_connect_is_answered_with_success() {
    let node = Node::new();
    for hello in [Hello::v5("phone"), Hello::lasting("phone"), Hello::v3("phone"), Hello::v3("phone").clean(false)] {
        let mut phone = node.dial();
        phone.hello(&hello);
        phone.expect_connack(0);
        phone.bye();
    }
}

#[test]
fn mqtt5_3_1_4_6_nothing_behind_a_refused_connect_is_processed() {
    let node = Node::new();
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("a", Qos::AtMostOnce)]);
    let refused = will("a/+", b"w", Qos::AtMostOnce);
    for (hello, answers) in [(Hello::v5("bad").will(refused), 1), (Hello::v3("bad").will(refused), 0)] {
        let mut client = node.dial();
        client.speak(hello.0.version);
        let mut bytes = hello.frame();
        let publish: &[u8] = if answers == 1 { b"\x30\x05\0\x01a\0x" } else { b"\x30\x04\0\x01ax" };
        bytes.extend_from_slice(publish);
        bytes.extend_from_slice(b"\xC0\0");
        client.send(&bytes);
        assert_eq!(client.all().len(), answers);
        client.send(publish);
        client.expect_closed();
    }
    watcher.expect_nothing();
}

#[test]
fn mqtt5_3_2_0_1_nothing_is_sent_before_connack() {
    let node = Node::new();
    let hello = Hello::lasting("phone");
    let mut phone = node.hello(&hello);
    phone.subscribe(&[("a", Qos::AtLeastOnce)]);
    node.push_topic("a", b"in flight", Qos::AtLeastOnce);
    phone.expect_text("in flight");
    phone.hang_up();
    for hello in [hello, Hello::v3("phone").clean(false)] {
        let mut phone = waiting(&node, &hello);
        phone.send_packet(&PingReq);
        phone.start_subscribe(&[Filter::new("b", Qos::AtMostOnce)], None);
        node.push_topic("a", b"live", Qos::AtMostOnce);
        phone.expect_nothing();
        node.release_commits();
        assert!(matches!(phone.next(), Some(Got::ConnAck(_))));
        let later = phone.all();
        assert!(later.len() >= 3 && later.iter().all(|got| !matches!(got, Got::ConnAck(_))), "{later:?}");
        phone.hang_up();
    }
}

#[test]
fn mqtt5_3_2_0_2_a_connection_gets_one_connack() {
    let node = Node::new();
    let hello = Hello::lasting("phone");
    let mut phone = node.dial();
    phone.hello(&hello);
    phone.expect_connack(0);
    // A second CONNECT is no reason for another.
    phone.send(&hello.frame());
    phone.expect_goodbye(0x82);
}

#[test]
fn mqtt5_3_2_2_1_the_flags_of_connack_are_session_present_and_zeros() {
    let node = Node::new();
    for (hello, flags) in
        [(Hello::lasting("phone"), 0), (Hello::lasting("phone"), 1), (Hello::v3("old").clean(false), 0)]
    {
        let mut phone = node.dial();
        phone.hello(&hello);
        phone.expect_connack(0);
        assert_eq!((phone.last_frame()[0], phone.last_frame()[2]), (0x20, flags));
        phone.bye();
    }
    let mut refused = node.dial();
    refused.hello(&Hello::v5("bad").will(will("#", b"", Qos::AtMostOnce)));
    refused.expect_connack(0x90);
    assert_eq!(refused.last_frame()[2], 0);
}

#[test]
fn mqtt5_3_2_2_6_a_refused_connection_has_no_session_and_is_closed() {
    let node = Node::new();
    for (good, bad, code) in [
        (Hello::lasting("phone"), Hello::lasting("phone").will(will("$x", b"", Qos::AtMostOnce)), 0x87),
        (Hello::v3("old").clean(false), Hello::v3("old").clean(false).will(will("$x", b"", Qos::AtMostOnce)), 0x05),
    ] {
        node.hello(&good).bye();
        let mut client = node.dial();
        client.hello(&bad);
        assert!(!client.expect_connack(code).session_present);
        client.expect_closed();
    }
    assert_eq!(node.gauge("sessions"), 2);
}

#[test]
fn mqtt5_3_2_2_9_every_qos_is_supported_and_no_maximum_is_said() {
    let node = Node::new();
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut phone = node.dial();
        phone.hello(&Hello::v5("phone").will(will("a", b"w", qos)));
        assert_eq!(phone.expect_connack(0).maximum_qos, None);
        phone.subscribe(&[("a", qos)]);
        phone.publish("a", b"x", qos, qos as u16);
        let got = phone.all();
        assert!(matches!(got.last(), Some(Got::Publish(arrived)) if arrived.qos == qos), "{got:?}");
        assert_eq!(got.len(), 1 + usize::from(qos > Qos::AtMostOnce));
        phone.bye();
    }
}

#[test]
fn mqtt5_3_2_2_16_an_assigned_identifier_is_nobody_elses() {
    let node = Node::with_shards(2);
    let assigned = |client: &mut Client| client.expect_connack(0).assigned.expect("it has a name");
    let mut first = node.dial();
    first.hello(&Hello::v5(""));
    let name = assigned(&mut first);
    let mut second = node.dial();
    second.hello(&Hello::v5(""));
    assert_ne!(assigned(&mut second), name);
    // It is a name like any other: who comes with it takes over.
    node.hello(&Hello::v5(&name)).expect_pong();
    first.expect_goodbye(0x8E);
    second.expect_pong();
}

#[test]
fn mqtt5_3_2_2_22_without_a_server_keep_alive_the_clients_own_holds() {
    let node = Node::with(1, |limits| limits.idle_timeout = core::time::Duration::from_secs(60));
    for seconds in [1, 10, 600, u16::MAX] {
        let mut phone = node.dial();
        phone.hello(&Hello::v5("phone").keep_alive(seconds));
        assert_eq!(phone.expect_connack(0).keep_alive, None);
        let bound_ms = u64::from(seconds) * 1_500;
        node.advance(bound_ms - 200);
        phone.expect_nothing();
        node.advance(400);
        phone.expect_goodbye(0x8D);
    }
}

#[test]
fn who_turns_its_keep_alive_off_is_told_the_one_that_holds() {
    let minute = core::time::Duration::from_secs(60);
    for (idle, told) in [(minute, 40), (minute * 60, 2_400), (minute / 60, 1), (minute * 60 * 24 * 300, u16::MAX)] {
        let node = Node::with(1, |limits| limits.idle_timeout = idle);
        let mut phone = node.dial();
        phone.hello(&Hello::v5("phone"));
        assert_eq!(phone.expect_connack(0).keep_alive, Some(told));
        node.hello(&Hello::v3("old")).expect_pong();
    }
    let node = Node::with(1, |limits| limits.idle_timeout = minute);
    let mut phone = node.connect("phone");
    for _ in 0..3 {
        // Who does as it is told stays.
        node.advance(40_000);
        phone.expect_pong();
    }
    node.advance(60_200);
    phone.expect_goodbye(0x8D);
}

#[test]
fn mqtt5_3_1_2_28_response_information_is_sent_to_who_asks() {
    let node = Node::with_shards(2);
    let told = |hello: &Hello<'_>| {
        let mut client = node.dial();
        client.hello(hello);
        let responses = client.expect_connack(0).responses;
        client.bye();
        responses
    };
    assert_eq!(told(&Hello::v5("phone")), None);
    assert_eq!(told(&Hello::v5("phone").responses(false)), None);
    let phone = told(&Hello::v5("phone").responses(true)).expect("it asked");
    let tablet = told(&Hello::v5("tablet").responses(true)).expect("it asked");
    // A device's own, and the same each time.
    assert_ne!(phone, tablet);
    assert_eq!(told(&Hello::lasting("phone").responses(true)), Some(phone.clone()));
    let mut phone_client = node.connect("phone");
    let answers = format!("{phone}/weather");
    phone_client.subscribe(&[(&answers, Qos::AtMostOnce)]);
    node.connect("service").publish(&answers, b"sunny", Qos::AtMostOnce, 0);
    phone_client.expect_text("sunny");
}

#[test]
fn mqtt5_4_12_0_6_no_authentication_method_is_named_to_who_has_none() {
    let node = Node::new();
    let mut phone = node.dial();
    phone.hello(&Hello::v5("phone"));
    assert_eq!(phone.expect_connack(0).authentication_method, None);
    // The test's client would not take an AUTH.
    phone.subscribe(&[("a", Qos::ExactlyOnce)]);
    phone.publish("a", b"x", Qos::AtLeastOnce, 1);
    assert_eq!(phone.all().len(), 2);
}

#[test]
fn mqtt5_3_14_0_1_before_connack_there_is_no_disconnect() {
    let node = Node::new();
    let mut first = waiting(&node, &Hello::lasting("phone"));
    let mut second = node.dial();
    second.hello(&Hello::lasting("phone"));
    first.expect_closed();
    node.release_commits();
    second.expect_connack(0);
    second.expect_pong();
}

#[test]
fn mqtt5_4_1_0_1_a_session_lasts_as_long_as_its_connection_whatever_its_expiry() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::v5("phone").clean(false).expiry(1).keep_alive(600));
    phone.subscribe(&[("a", Qos::AtLeastOnce)]);
    let mut passing = node.hello(&Hello::v5("passing").keep_alive(600));
    passing.subscribe(&[("a", Qos::AtLeastOnce)]);
    node.advance(120_000);
    node.push_topic("a", b"x", Qos::AtLeastOnce);
    phone.expect_and_ack("x");
    passing.expect_and_ack("x");
    assert_eq!(node.gauge("sessions"), 2);
}

#[test]
fn a_draining_node_names_another_when_it_knows_one() {
    for reference in [None, Some("other.example:1883")] {
        let node = Node::with_settings(1, |settings| settings.server_reference = reference.map(Into::into));
        let mut five = node.connect("five");
        let mut small = node.hello(&Hello::v5("small").packet_bytes(60));
        let mut three = node.hello(&Hello::v3("three"));
        let mut late = node.dial();
        node.handle().drain();
        node.run();
        let code = if reference.is_some() { 0x9C } else { 0x8B };
        five.expect(&Got::Disconnect(code));
        let named = |frame: &[u8]| frame.windows(18).any(|window| window == b"other.example:1883");
        assert_eq!(named(five.last_frame()), reference.is_some());
        small.expect(&Got::Disconnect(code));
        three.expect_closed();
        if late.is_closed() {
            continue;
        }
        late.hello(&Hello::v5("late"));
        let welcome = late.expect_connack(if reference.is_some() { 0x9C } else { 0x88 });
        assert_eq!(welcome.server_reference.as_deref(), reference);
        late.expect_closed();
    }
}
