//! Bad input: a reason code where the protocol has one, else a close; a counter that says so; nothing kept; and a
//! bystander on the same shard that never notices.

mod bytes;
mod greeting;

use crate::client::{Client, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;

/// A node with somebody on it who behaves.
pub struct Scene {
    pub node: Node,
    bystander: Client,
    pushes: u32,
}

impl Scene {
    pub fn new() -> Self {
        let node = Node::new();
        let mut bystander = node.hello(&Hello::lasting("bystander").keep_alive(0));
        bystander.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
        Self { node, bystander, pushes: 0 }
    }

    /// The bystander gets its pushes as if nothing had happened.
    #[track_caller]
    pub fn bystander_is_served(&mut self) {
        self.pushes += 1;
        let text = format!("push {}", self.pushes);
        self.node.push_user("bystander", text.as_bytes(), Qos::AtLeastOnce);
        self.bystander.expect_and_ack(&text);
        self.bystander.expect_pong();
    }

    /// A connected MQTT 5 client does this: it is told the reason and closed, which is counted under that name.
    #[track_caller]
    pub fn is_told(&mut self, bytes: &[u8], code: u8, counter: &str) {
        let before = self.node.counter(counter);
        let mut client = self.node.connect("bad");
        client.send(bytes);
        client.expect_goodbye(code);
        self.was_counted(counter, before);
    }

    /// A connected 3.1.1 client does this: it is closed without a word, which is counted under that name.
    #[track_caller]
    pub fn is_cut(&mut self, bytes: &[u8], counter: &str) {
        let before = self.node.counter(counter);
        let mut client = self.node.hello(&Hello::v3("bad"));
        client.send(bytes);
        client.expect_closed();
        self.was_counted(counter, before);
    }

    /// A new connection begins with this and is answered with nothing but its end.
    #[track_caller]
    pub fn is_turned_away(&mut self, bytes: &[u8], counter: &str) {
        let before = self.node.counter(counter);
        let mut client = self.node.dial();
        client.send(bytes);
        client.expect_closed();
        self.was_counted(counter, before);
    }

    #[track_caller]
    fn was_counted(&mut self, counter: &str, before: u64) {
        assert_eq!(self.node.counter(counter), before + 1, "{counter}");
        self.node.assert_holds_no_buffers();
        assert_eq!(self.node.gauge("connections"), 1, "only the bystander is left");
        self.bystander_is_served();
    }

    /// After the bystander, too, has left, nothing is held.
    pub fn ends(self) {
        self.bystander.bye();
        self.node.assert_at_rest();
    }
}
