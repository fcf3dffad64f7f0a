//! Owns: the engine's tests over the simulated network: a handler that records what it is told, peers that do what
//! they are told. In: nothing. Out: verdicts. Must not: open a real socket, read a clock, sleep.
//! Invariants: at the end of each test every gauge is zero.

mod intake;
mod lifecycle;
mod memory;
mod moving;
mod outbox;
mod transform;

use super::mail;
use super::*;
use crate::io::sim::{Faults, Peer, SimDriver, SimNet};
use std::collections::HashMap;
use transform::Chunked;

type Probed = Core<SimDriver, Letter, Chunked>;
type OnBytes = Box<dyn FnMut(&mut Probed, ConnectionId, &[u8]) -> usize>;

/// What shards mail each other in these tests.
#[derive(Debug)]
enum Letter {
    Move(Departure<Chunked>),
    Word(u32),
}

/// Records everything; what it does with bytes is each test's.
struct Probe {
    on_bytes: OnBytes,
    /// Guests depart to this shard as soon as bytes come.
    moves_to: Option<ShardId>,
    /// But only once they have a transform.
    moves_transformed: bool,
    accepted: Vec<ConnectionId>,
    installed: Vec<ConnectionId>,
    connected: Vec<(ConnectionId, u32, bool)>,
    closed: Vec<(ConnectionId, CloseCause)>,
    drained: usize,
    words: Vec<u32>,
    /// What was offered, by connection, call by call.
    offered: HashMap<ConnectionId, Vec<Vec<u8>>>,
}

impl Probe {
    fn new(on_bytes: impl FnMut(&mut Probed, ConnectionId, &[u8]) -> usize + 'static) -> Self {
        Self {
            on_bytes: Box::new(on_bytes),
            moves_to: None,
            moves_transformed: false,
            accepted: Vec::new(),
            installed: Vec::new(),
            connected: Vec::new(),
            closed: Vec::new(),
            drained: 0,
            words: Vec::new(),
            offered: HashMap::new(),
        }
    }

    fn echo() -> Self {
        Self::new(|core, id, bytes| {
            let _ = core.write_bytes(id, Room::Data, bytes);
            bytes.len()
        })
    }
}

impl Handler<SimDriver> for Probe {
    type Letter = Letter;
    type Transform = Chunked;

    fn on_accept(&mut self, _: &mut Probed, id: ConnectionId, _: ListenerId, _: SocketAddr) {
        self.accepted.push(id);
    }
    fn on_bytes(&mut self, core: &mut Probed, id: ConnectionId, bytes: &[u8]) -> usize {
        self.offered.entry(id).or_default().push(bytes.to_vec());
        let ripe = !self.moves_transformed || core.has_transform(id);
        if self.moves_to.is_some() && self.accepted.contains(&id) && ripe {
            core.depart(id, false);
            return 0;
        }
        (self.on_bytes)(core, id, bytes)
    }
    fn on_closed(&mut self, core: &mut Probed, id: ConnectionId, cause: CloseCause) {
        assert!(core.tag(id).is_some(), "the id is valid while the handler is told");
        assert!(self.closed.iter().all(|(other, _)| *other != id), "told twice");
        self.closed.push((id, cause));
    }
    fn on_connected(&mut self, _: &mut Probed, id: ConnectionId, tag: u32, result: io::Result<()>) {
        self.connected.push((id, tag, result.is_ok()));
    }
    fn on_drained(&mut self, _: &mut Probed, _: ConnectionId) {
        self.drained += 1;
    }
    fn on_installed(&mut self, _: &mut Probed, id: ConnectionId) {
        self.installed.push(id);
    }
    fn on_departed(&mut self, core: &mut Probed, _: ConnectionId, departure: Departure<Chunked>) {
        let target = self.moves_to.expect("departs only where a test said so");
        core.send_control(target, Letter::Move(departure));
    }
    fn on_letter(&mut self, core: &mut Probed, letter: Letter) {
        match letter {
            Letter::Move(departure) => drop(core.adopt(departure, 7)),
            Letter::Word(word) => self.words.push(word),
        }
    }
}

/// Shards on one network, with one shared address.
struct Rig {
    net: SimNet,
    shards: Vec<Engine<SimDriver, Probe>>,
    address: SocketAddr,
}

impl Rig {
    fn one(settings: Settings, probe: Probe) -> Self {
        Self::with(1, Faults::none(), vec![(settings, probe)])
    }

    fn with(seed: u64, faults: Faults, shards: Vec<(Settings, Probe)>) -> Self {
        let net = SimNet::new(seed, faults);
        let boxes = mail::open(u16::try_from(shards.len()).expect("few"));
        let posts: Vec<_> = boxes.iter().map(Mailbox::post).collect();
        let mut address = "10.0.0.1:1883".parse().expect("an address");
        let shards = shards
            .into_iter()
            .zip(boxes)
            .map(|((settings, probe), mailbox)| {
                let mut engine = Engine::new(net.driver(), probe, settings, mailbox, posts.clone()).expect("starts");
                address = engine.core.listen(address, true).expect("listens").1;
                engine
            })
            .collect();
        Self { net, shards, address }
    }

    fn peer(&self) -> Peer {
        Peer::connect(&self.net, self.address)
    }

    /// Runs the turns that are due now, until none is.
    fn run_due(&mut self) {
        for _ in 0..100_000 {
            let mut ran = false;
            for shard in &mut self.shards {
                if shard.has_work() || shard.core.driver.is_due() {
                    shard.turn().expect("the simulated driver does not fail");
                    ran = true;
                }
            }
            if !ran {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Runs until nothing moves any more but deadlines and peers.
    fn settle(&mut self) {
        self.run_due();
        while let Some(at_ms) = self.net.next_event_ms() {
            self.net.advance_to(at_ms);
            self.run_due();
        }
    }

    /// Lets time pass, with the turns that fall into it.
    fn pass(&mut self, ms: u64) {
        let end_ms = self.net.now().monotonic_ms + ms;
        self.run_due();
        while let Some(at_ms) = self.net.next_due_ms().filter(|&at_ms| at_ms <= end_ms) {
            self.net.advance_to(at_ms);
            self.run_due();
        }
        self.net.advance_to(end_ms);
        self.run_due();
    }

    fn core(&mut self) -> &mut Probed {
        &mut self.shards[0].core
    }

    fn probe(&self) -> &Probe {
        &self.shards[0].handler
    }

    /// The first connection accepted.
    fn id(&self) -> ConnectionId {
        self.probe().accepted[0]
    }

    /// After all peers are gone: nothing is left anywhere.
    fn assert_at_rest(&mut self) {
        self.pass(30_000);
        for shard in &self.shards {
            let counts = Counts { listeners: 0, ..shard.core.counts() };
            assert_eq!(counts, Counts::default());
            assert!(shard.core.ready.is_empty() && shard.core.starved.is_empty() && shard.core.dirty.is_empty());
            assert_eq!(shard.core.receives_in_flight, 0);
        }
        let census = self.net.census();
        assert_eq!((census.slots, census.sockets, census.blocked_sends), (0, 0, 0));
    }
}
