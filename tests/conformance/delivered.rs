//! Pushes that are answered once devices have them.

use crate::client::{Client, Hello};
use crate::node::Node;
use core::time::Duration;
use kittiwake::base::ids::Qos;
use kittiwake::shard::command::{CommandToken, Pushed, Target};
use kittiwake::wire::mqtt::{Ack, AckKind, PacketId, Reason};

const WITHIN_MS: u64 = 5_000;

fn start(node: &Node, target: Target, payload: &[u8], qos: Qos) -> CommandToken {
    let wait = |push: &mut kittiwake::shard::command::Push| {
        push.deliver_within = Some(Duration::from_millis(WITHIN_MS));
    };
    let token = node.start_push(target, payload, qos, wait).expect("it is taken");
    node.run();
    token
}

fn taken(node: &Node, token: CommandToken) -> Option<Pushed> {
    node.run();
    node.take_pushed(token).map(|result| result.expect("it works"))
}

/// Devices that have it, of the user at this index, sorted.
fn delivered(pushed: &Pushed, index: usize) -> Vec<&str> {
    let mut devices: Vec<&str> = pushed.results[index].delivered.iter().map(|device| &**device).collect();
    devices.sort_unstable();
    devices
}

fn device(node: &Node, user: &str, name: &str, qos: Qos) -> Client {
    let mut client = node.hello(&Hello::v5(name).user(user));
    client.subscribe(&[("$inbox/#", qos)]);
    client
}

fn ann() -> Target {
    Target::User("ann".into())
}

#[test]
fn it_is_answered_when_the_last_connected_device_has_acknowledged() {
    let node = Node::with_shards(2);
    let mut phone = device(&node, "ann", "phone", Qos::AtLeastOnce);
    let mut tablet = device(&node, "ann", "tablet", Qos::AtLeastOnce);
    let _deaf = node.hello(&Hello::v5("deaf").user("ann"));
    device(&node, "ann", "away", Qos::AtLeastOnce).bye();
    let token = start(&node, ann(), b"x", Qos::AtLeastOnce);
    assert_eq!((node.take_pushed(token), node.gauge("delivery_waits")), (None, 2));
    phone.expect_and_ack("x");
    assert_eq!(taken(&node, token), None);
    tablet.expect_and_ack("x");
    let pushed = taken(&node, token).expect("both have it");
    assert_eq!((delivered(&pushed, 0), pushed.results[0].online), (vec!["phone", "tablet"], Some(3)));
    assert_eq!(node.gauge("delivery_waits"), 0);
}

#[test]
fn at_the_timeout_it_names_those_that_have_it() {
    let node = Node::new();
    let mut phone = device(&node, "ann", "phone", Qos::AtLeastOnce);
    let _silent = device(&node, "ann", "tablet", Qos::AtLeastOnce);
    let token = start(&node, ann(), b"x", Qos::AtLeastOnce);
    phone.expect_and_ack("x");
    node.advance(WITHIN_MS - 1);
    assert_eq!(taken(&node, token), None);
    node.advance(1);
    assert_eq!(delivered(&taken(&node, token).expect("time is up"), 0), ["phone"]);
    assert_eq!(node.gauge("delivery_waits"), 0);
    let token = start(&node, Target::User("nobody".into()), b"x", Qos::AtLeastOnce);
    assert!(delivered(&taken(&node, token).expect("nobody is waited for"), 0).is_empty());
}

#[test]
fn at_qos_2_pubrec_is_enough_and_at_qos_0_the_socket_is() {
    let node = Node::new();
    let mut exact = node.hello(&Hello::lasting("exact").user("ann"));
    exact.subscribe(&[("$inbox/#", Qos::ExactlyOnce)]);
    let mut loose = device(&node, "ann", "loose", Qos::AtMostOnce);
    let token = start(&node, ann(), b"x", Qos::ExactlyOnce);
    let message = exact.expect_text("x");
    assert_eq!((message.qos, taken(&node, token)), (Qos::ExactlyOnce, None));
    exact.ack(AckKind::PubRec, message.id);
    assert_eq!(delivered(&taken(&node, token).expect("both have it"), 0), ["exact", "loose"]);
    loose.expect_text("x");
    let token = start(&node, ann(), b"y", Qos::AtMostOnce);
    assert_eq!(delivered(&taken(&node, token).expect("it is answered at once"), 0), ["exact", "loose"]);
}

#[test]
fn who_refuses_it_or_cannot_be_sent_it_does_not_have_it() {
    let node = Node::new();
    let mut refuses = device(&node, "ann", "refuses", Qos::AtLeastOnce);
    let mut small = node.hello(&Hello::v5("small").user("ann").packet_bytes(40));
    small.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    let mut small_and_loose = node.hello(&Hello::v5("loose").user("ann").packet_bytes(40));
    small_and_loose.subscribe(&[("$inbox/#", Qos::AtMostOnce)]);
    let token = start(&node, ann(), &[b'x'; 100], Qos::AtLeastOnce);
    let message = refuses.expect_message();
    let id = PacketId::new(message.id).expect("it has one");
    refuses.send_packet(&Ack { reason: Reason::QuotaExceeded, ..Ack::success(AckKind::PubAck, id) });
    assert!(delivered(&taken(&node, token).expect("nobody is left to wait for"), 0).is_empty());
    small.expect_nothing();
    small_and_loose.expect_nothing();
}

#[test]
fn one_device_is_waited_for_when_it_is_for_one() {
    let node = Node::new();
    let mut phone = device(&node, "ann", "phone", Qos::AtLeastOnce);
    let _tablet = device(&node, "ann", "tablet", Qos::AtLeastOnce);
    let target = Target::Device { user: "ann".into(), device: "phone".into() };
    let token = start(&node, target, b"x", Qos::AtLeastOnce);
    phone.expect_and_ack("x");
    assert_eq!(delivered(&taken(&node, token).expect("it has it"), 0), ["phone"]);
}

#[test]
fn a_list_over_many_homes_is_answered_when_all_have_it() {
    let node = Node::with_shards(4);
    let names: Vec<String> = (0..12).map(|number| format!("user-{number}")).collect();
    let mut devices: Vec<Client> = names.iter().map(|name| device(&node, name, name, Qos::AtLeastOnce)).collect();
    let users = || Target::Users(names.iter().map(|name| name.as_str().into()).collect());
    let token = start(&node, users(), b"x", Qos::AtLeastOnce);
    for device in &mut devices {
        assert_eq!(taken(&node, token), None);
        device.expect_and_ack("x");
    }
    let pushed = taken(&node, token).expect("all have it");
    for (index, name) in names.iter().enumerate() {
        assert_eq!(delivered(&pushed, index), [name.as_str()]);
    }
    let token = start(&node, users(), b"y", Qos::AtMostOnce);
    let pushed = taken(&node, token).expect("it is answered at once");
    assert!((0..names.len()).all(|index| delivered(&pushed, index) == [names[index].as_str()]));
    let token = start(&node, users(), b"z", Qos::AtLeastOnce);
    node.advance(WITHIN_MS);
    let pushed = taken(&node, token).expect("time is up");
    assert!((0..names.len()).all(|index| delivered(&pushed, index).is_empty()));
    assert_eq!((node.gauge("delivery_waits"), node.gauge("list_pushes")), (0, 0));
}

#[test]
fn a_device_that_lags_is_waited_for_until_it_gets_there() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::v5("phone").user("ann").receive_maximum(1));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    node.push_user("ann", b"first", Qos::AtLeastOnce);
    let token = start(&node, ann(), b"second", Qos::AtLeastOnce);
    phone.expect_and_ack("first");
    assert_eq!(taken(&node, token), None);
    phone.expect_and_ack("second");
    assert_eq!(delivered(&taken(&node, token).expect("it has it"), 0), ["phone"]);
}

#[test]
fn a_repeated_key_waits_for_what_the_first_push_sent() {
    let node = Node::new();
    let mut phone = device(&node, "ann", "phone", Qos::AtLeastOnce);
    let push = || {
        let keyed = |push: &mut kittiwake::shard::command::Push| {
            push.deliver_within = Some(Duration::from_millis(WITHIN_MS));
            push.key = Some(("k".into(), 7));
        };
        node.start_push(ann(), b"x", Qos::AtLeastOnce, keyed).expect("it is taken")
    };
    let (first, second) = (push(), push());
    assert_eq!((taken(&node, first), taken(&node, second)), (None, None));
    phone.expect_and_ack("x");
    for (token, duplicate) in [(first, false), (second, true), (push(), true)] {
        let pushed = taken(&node, token).expect("it has it");
        assert_eq!((delivered(&pushed, 0), pushed.duplicate), (vec!["phone"], duplicate));
    }
    phone.expect_nothing();
}

#[test]
fn a_drain_answers_what_still_waits() {
    let node = Node::new();
    let _silent = device(&node, "ann", "phone", Qos::AtLeastOnce);
    let token = start(&node, ann(), b"x", Qos::AtLeastOnce);
    node.handle().drain();
    assert!(delivered(&taken(&node, token).expect("nothing is left to wait for"), 0).is_empty());
}
