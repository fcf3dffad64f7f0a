//! The polite end of a node.

use crate::client::{Got, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::Version;

#[test]
fn a_drain_tells_everybody_and_is_over_as_soon_as_they_are_gone() {
    let node = Node::new();
    let mut clients = ["a", "b", "c", "d"].map(|name| node.hello(&Hello::lasting(name)));
    for client in &mut clients {
        client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    }
    node.push_user("a", b"a position to be written", Qos::AtLeastOnce);
    clients[0].expect_and_ack("a position to be written");
    node.handle().drain();
    for client in &mut clients {
        client.expect_goodbye(0x8b);
    }
    node.advance(20);
    assert_eq!(node.drained(), 1);
}

/// It has said who it is, and is on its way to its home, when the drain begins.
#[test]
fn who_is_on_the_move_when_a_drain_begins_is_refused() {
    for turns in 0..6 {
        let node = Node::with_shards(4);
        let mut clients: Vec<_> = (0..8).map(|_| node.dial()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let name = format!("phone-{number}");
            let frame = Hello::v5(&name).frame();
            assert_eq!(client.write(&frame), frame.len());
        }
        (0..turns).for_each(|_| node.step());
        node.handle().drain();
        node.advance(20);
        assert_eq!(node.drained(), 4, "{turns} turns");
        for client in &mut clients {
            client.speak(Version::V5);
            let said = client.all();
            let is_refused = matches!(&said[..], [Got::ConnAck(welcome)] if welcome.code == 0x88);
            let is_sent_away = matches!(&said[..], [Got::ConnAck(welcome), Got::Disconnect(0x8b)] if welcome.code == 0);
            assert!(is_refused || is_sent_away || said.is_empty(), "{said:?}");
        }
    }
}
