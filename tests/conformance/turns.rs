//! What a turn does at most while a message goes to many, and how many turns others wait meanwhile. A visit and its
//! send, or a receive, take some 10 µs (`TURN_FANOUT_VISITS_MAX`), so the counts here are times.

use crate::client::{Client, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{RECEIVES_IN_FLIGHT_MAX, TURN_FANOUT_VISITS_MAX};
use kittiwake::shard::Enforce;
use kittiwake::shard::command::Target;

const SUBSCRIBERS: usize = 3_000;
const TOPIC: &str = "news";
/// A turn sends to so many, receives from so many, and both take less than 2 ms.
const SENDS_MAX: usize = TURN_FANOUT_VISITS_MAX;
/// One in which the socket is found ready, one in which it is read, and two for those who are in line before it.
const TURNS_MAX: usize = 4;

const _: () = assert!((SENDS_MAX + RECEIVES_IN_FLIGHT_MAX) * 10 < 2_000);

/// The acknowledgement of a PUBLISH of QoS 1 to [`TOPIC`], of MQTT 3.1.1.
fn acknowledgement(publish: &[u8]) -> [u8; 4] {
    let id = 2 + 2 + TOPIC.len();
    assert!(publish[0] == 0x32 && publish[4..id] == *TOPIC.as_bytes(), "it is the message: {publish:02x?}");
    [0x40, 2, publish[id], publish[id + 1]]
}

fn connect(node: &Node, name: &str) -> Client {
    node.hello(&Hello::v3(name).keep_alive(0))
}

#[test]
fn a_turn_is_bounded_and_a_ping_waits_few_of_them_while_a_message_goes_to_thousands() {
    let node = Node::with(1, |limits| {
        limits.connections = 2 * SUBSCRIBERS;
        limits.defence.enforce = Enforce::Off;
    });
    let mut pinging = connect(&node, "pinging");
    let subscriber = |number: usize| {
        let mut client = connect(&node, &format!("device-{number}"));
        client.subscribe(&[(TOPIC, Qos::AtLeastOnce)]);
        client
    };
    let mut waiting: Vec<Client> = (0..SUBSCRIBERS).map(subscriber).collect();
    let mut reached = Vec::new();
    node.start_push(Target::Topic(TOPIC.into()), b"x", Qos::AtLeastOnce, |_| {}).expect("it is taken");
    let (mut turns, mut pings, mut waited, mut longest) = (0, 0, 0, 0);
    assert_eq!(pinging.write(&[0xc0, 0]), 2);
    while !waiting.is_empty() {
        node.step();
        node.net().advance(1);
        turns += 1;
        assert!(turns < SUBSCRIBERS, "each turn reaches somebody");
        let before = waiting.len();
        for mut client in core::mem::take(&mut waiting) {
            let got = client.take_arrived();
            if got.is_empty() {
                waiting.push(client);
            } else {
                assert_eq!(client.write(&acknowledgement(&got)), 4);
                reached.push(client);
            }
        }
        let sends = before - waiting.len();
        assert!(sends <= SENDS_MAX, "turn {turns} sent to {sends}");
        waited += 1;
        if pinging.take_arrived() == [0xd0, 0] {
            (longest, waited, pings) = (longest.max(waited), 0, pings + 1);
            assert_eq!(pinging.write(&[0xc0, 0]), 2);
        }
    }
    assert!(longest <= TURNS_MAX && pings >= turns / TURNS_MAX, "{pings} pings in {turns} turns, one waited {longest}");
    assert!(turns >= SUBSCRIBERS / SENDS_MAX, "the message took many turns");
    assert!(reached.iter_mut().all(|client| client.take_bytes().is_empty()), "each got it once");
}
