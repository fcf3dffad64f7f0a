//! Topics whose only lasting subscriber comes and goes, so that they turn from unlogged to owed again and again, while
//! backends push to them. Somebody listens to whom all of it must come in order, whichever way it took. Others subscribe
//! to too much for too long for this to happen to their topics more than a few times in a run.

use crate::client::{Client, Mood, Traits};
use crate::ledger::{Ledger, Life};
use crate::world::World;
use kittiwake::base::ids::Qos;
use kittiwake::io::sim::{Random, SimNet};
use kittiwake::wire::mqtt::Version;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

/// No wildcard of others matches them. They may have different homes.
const TOPICS: [&str; 2] = ["$turns/1", "$turns/2"];
const FILTER: &str = "$turns/+";

/// Who takes part besides backends.
pub struct Turning {
    /// A stream of its own: a run without this is the same as if there were no such thing.
    random: Random,
    /// Its session ends with its connection: for its sake nothing is logged.
    listener: Client,
    /// Its session lasts: the topics are owed while it subscribes.
    visitor: Client,
}

impl Turning {
    /// In some runs; its clients' numbers are the next ones.
    pub fn drawn(seed: u64, net: &SimNet, address: SocketAddr, ledger: &Rc<RefCell<Ledger>>) -> Option<Self> {
        let mut random = Random::new(seed ^ 0x7e7e);
        if random.below(4) > 0 {
            return None;
        }
        let listener = Self::client("listener", false, net, address, ledger);
        let visitor = Self::client("visitor", true, net, address, ledger);
        Some(Self { random, listener, visitor })
    }

    fn client(name: &str, durable: bool, net: &SimNet, address: SocketAddr, ledger: &Rc<RefCell<Ledger>>) -> Client {
        let index = ledger.borrow().lives.len();
        ledger.borrow_mut().lives.push(Life::new(name, name, durable));
        let traits = Traits {
            index,
            user: name.to_owned(),
            device: name.to_owned(),
            version: Version::V5,
            durable,
            receive_maximum: 32,
            keep_alive: 0,
            expiry: 100_000,
            packet_bytes_max: None,
            is_wide: false,
        };
        Client::new(traits, net, address, ledger)
    }

    /// Whether the next to do something is one of these.
    pub fn is_next(&mut self) -> bool {
        self.random.below(3) == 0
    }

    /// They read and acknowledge what has come.
    pub fn act(&mut self) {
        self.listener.act(&mut self.random, Mood::Good);
        self.visitor.act(&mut self.random, Mood::Good);
    }

    /// Whether they have nothing more to say or hear.
    pub fn is_settled(&self) -> bool {
        self.listener.is_settled() && self.visitor.is_settled()
    }

    /// To leave for good.
    pub fn into_clients(self) -> [Client; 2] {
        [self.listener, self.visitor]
    }
}

impl World {
    /// One of those who take part does something.
    pub fn go_on_turning(&mut self) {
        let Some(Turning { random, listener, visitor }) = &mut self.turning else { return };
        match random.below(8) {
            0 | 1 => listener.watch(random, FILTER),
            2 | 3 if visitor.has_subscribed(FILTER) => visitor.unwatch(random),
            2 | 3 => visitor.watch(random, FILTER),
            _ => {
                let Some(running) = &self.node.running else { return };
                let topic = TOPICS[random.below(TOPICS.len() as u64) as usize];
                let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][random.below(2) as usize];
                // What has a key goes through the log although nobody is owed it.
                let is_keyed = random.below(2) == 0;
                self.backend.push_to_topic(topic, qos, is_keyed, &running.handle, self.net.now().wall_ms);
            }
        }
    }
}
