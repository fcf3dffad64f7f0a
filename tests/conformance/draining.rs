//! The polite end of a node.

use crate::client::Hello;
use crate::node::Node;
use kittiwake::base::ids::Qos;

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
