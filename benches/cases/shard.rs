//! Whole turns of a shard over the simulated driver, whose own work counts: there is no kernel in these figures.

use super::{Case, Make};
use crate::client::{Client, Hello, encoded, publish};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::Version;
use std::cell::RefCell;
use std::rc::Rc;

pub const CASES: &[Make] = &[fan_out, fan_out_coalesced, push];

const CLIENTS: u32 = 256;
const TOPIC: &str = "rooms/42";

struct House {
    node: Node,
    clients: Vec<Client>,
    publisher: Client,
}

impl House {
    fn open(filter: &str) -> Rc<RefCell<Self>> {
        let node = Node::with(1, |limits| limits.connections = 1_024);
        let clients = (0..CLIENTS).map(|number| {
            let name = format!("device-{number}");
            let mut client = node.hello(&Hello::v3(&name).user(&name).keep_alive(0));
            client.subscribe(&[(filter, Qos::AtMostOnce)]);
            client
        });
        let clients = clients.collect();
        let publisher = node.hello(&Hello::v3("publisher").keep_alive(0));
        Rc::new(RefCell::new(Self { node, clients, publisher }))
    }

    /// Takes what the clients got, so that the next run finds them as this one did.
    fn drain(&mut self) {
        for client in &mut self.clients {
            client.take_bytes();
        }
    }
}

/// Bytes are written before and read after; what is between is measured.
fn turning(name: &'static str, units: u32, filter: &'static str, write: impl Fn(&mut House) + 'static) -> Case {
    let house = House::open(filter);
    let other = Rc::clone(&house);
    let prepare = move || {
        let mut house = other.borrow_mut();
        house.drain();
        write(&mut house);
    };
    Case::prepared(name, units, prepare, move || house.borrow().node.run())
}

fn publishing(name: &'static str, messages: u32) -> Case {
    let frame = encoded(Version::V311, &publish(TOPIC, &[0x55; 64], Qos::AtMostOnce, 0));
    let frames = frame.repeat(messages as usize);
    turning(name, CLIENTS * messages, TOPIC, move |house| {
        assert_eq!(house.publisher.write(&frames), frames.len(), "there is room");
    })
}

fn fan_out() -> Case {
    publishing("shard/delivery, 64 bytes, one at a time", 1)
}

fn fan_out_coalesced() -> Case {
    publishing("shard/delivery, 64 bytes, 16 under way", 16)
}

/// A push of QoS 0 to a user by the control plane, delivered.
fn push() -> Case {
    let users: Vec<_> = (0..CLIENTS).map(|number| format!("device-{number}").into()).collect();
    turning("shard/push delivered, QoS 0", CLIENTS, "$inbox/#", move |house| {
        for user in &users {
            let target = kittiwake::shard::command::Target::User(std::sync::Arc::clone(user));
            house.node.start_push(target, &[0x55; 64], Qos::AtMostOnce, |_| {}).expect("the mailbox has room");
        }
    })
}
