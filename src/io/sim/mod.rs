//! Owns: a network, a clock and their faults, all simulated from one seed. In: [`Op`](super::Op)s of any number of
//! [`SimDriver`]s, bytes of any number of [`Peer`]s, and the test's word that time passes. Out: completions.
//! Must not: read a real clock, block, touch a thread, or draw chance from anywhere but its seed.
//! Invariants: the same seed and the same calls give the same completions and the same [`SimNet::trace_hash`]; a
//! slot's completions keep their order; nothing sent over a connection that is not reset gets lost; misuse of the
//! driver panics where it happens.
//!
//! Everything of one [`SimNet`] lives on one thread (it is not `Send`); only [`Socket`](super::Socket)s and
//! [`Waker`](super::Waker)s may be sent on. A shard that is to be simulated is built and run by that thread.
//!
//! # The loop around it
//! `poll` never blocks. A turn whose `poll` brought nothing, under [`Wait::Until`](super::Wait::Until), leaves its
//! driver asleep; the outer loop runs the turns of the drivers that are due and, when none is, moves the clock on:
//!
//! ```
//! use kittiwake::io::sim::{Faults, Peer, SimNet};
//! use kittiwake::io::{Driver, Op, Outcome, Token, Wait};
//!
//! let net = SimNet::new(42, Faults::harsh());
//! let mut driver = net.driver();
//! let (listener, address) = driver.listen("10.0.0.1:1883".parse().unwrap(), true).unwrap();
//! driver.submit(Op::Accept { listener, token: Token(1) });
//! let mut peer = Peer::connect(&net, address);
//!
//! let (mut accepted, mut completions) = (None, Vec::new());
//! while accepted.is_none() {
//!     if !driver.is_due() {
//!         net.advance_to(net.next_due_ms().expect("someone waits for something"));
//!     }
//!     driver.poll(Wait::Until(net.now().monotonic_ms + 100), 64, &mut completions).unwrap();
//!     for completion in completions.drain(..) {
//!         match completion.outcome {
//!             Outcome::Accepted { socket, .. } => accepted = Some(driver.attach(socket)),
//!             Outcome::AcceptEnded(_) => driver.submit(Op::Accept { listener, token: Token(1) }),
//!             other => panic!("nothing else was asked for: {other:?}"),
//!         }
//!     }
//! }
//! assert!(peer.write(b"hello").is_ok());
//! driver.close(accepted.unwrap());
//! assert_eq!(driver.slots_open(), 0);
//! ```

mod driver;
mod faults;
mod lanes;
mod ops;
mod peer;
mod pipe;
mod random;
mod station;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use driver::SimDriver;
pub use faults::{Delay, Faults, Mark, Marks};
pub use peer::{Peer, PeerState};
pub use random::{Chance, Random};
pub(crate) use world::SimSocket;

use crate::base::clock::Now;
use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use world::{Owner, World};

/// The virtual monotonic clock starts here, so that a deadline mistaken for a duration shows.
const START_MS: u64 = 1_000_000;
/// The virtual wall clock starts here, 2026-01-01 UTC.
const START_WALL_MS: u64 = 1_767_225_600_000;

/// A simulated network and its clock. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct SimNet(Rc<RefCell<World>>);

/// What there is at a moment, for checks that nothing leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Slots open, over all drivers.
    pub slots: usize,
    /// Sockets outside any slot: just accepted or connected, in mail, or in a completion not yet reaped.
    pub sockets: usize,
    /// Connections that no driver has accepted yet.
    pub backlog: usize,
    /// Ends held by peers.
    pub peers: usize,
    /// Connections of which an end is still held, or being opened.
    pub connections: usize,
    /// Listeners open.
    pub listeners: usize,
    /// Bytes in pipes, arrived or not.
    pub bytes: usize,
    /// Watches, receives, sends and shutdowns submitted and not yet reaped, and ops in a driver's queue that belong
    /// to no slot.
    pub ops: usize,
    /// Completions not yet reaped.
    pub completions: usize,
    /// Sends that wait for room, each with its segment.
    pub blocked_sends: usize,
}

impl SimNet {
    /// A network of that seed.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self(Rc::new(RefCell::new(World {
            now_ms: START_MS,
            wall_base_ms: START_WALL_MS - START_MS,
            random: Random::new(seed),
            faults,
            marks: Marks::default(),
            trace: trace::Trace::default(),
            sequence: 0,
            events: Default::default(),
            connections: Default::default(),
            connections_made: 0,
            listeners: Default::default(),
            listeners_made: 0,
            stations: Vec::new(),
            dropped: Default::default(),
        })))
    }

    /// A new driver on this network. Whether its watches are level- or edge-triggered is drawn.
    pub fn driver(&self) -> SimDriver {
        let level = self.world().random.below(2) == 0;
        self.driver_with(level)
    }

    /// A new driver whose watches are level-triggered like epoll's, or edge-triggered like io_uring's.
    pub fn driver_with(&self, level_triggered: bool) -> SimDriver {
        SimDriver::new(self.clone(), level_triggered)
    }

    /// The virtual clock.
    pub fn now(&self) -> Now {
        let world = self.world();
        Now { monotonic_ms: world.now_ms, wall_ms: world.wall_base_ms + world.now_ms }
    }

    /// Lets `ms` pass.
    pub fn advance(&self, ms: u64) {
        let to_ms = self.world().now_ms + ms;
        self.advance_to(to_ms);
    }

    /// Lets time pass until that monotonic millisecond, through everything that happens on the way.
    pub fn advance_to(&self, ms: u64) {
        self.world().advance_to(ms);
    }

    /// Moves the wall clock alone, as an operator or NTP does.
    pub fn step_wall_clock(&self, by_ms: i64) {
        let mut world = self.world();
        world.wall_base_ms = world.wall_base_ms.saturating_add_signed(by_ms);
    }

    /// When the network next does something by itself: an arrival, or a completion falls due. `None`: all is still,
    /// and only drivers' deadlines or peers can move it.
    pub fn next_event_ms(&self) -> Option<u64> {
        let mut world = self.world();
        world.collect_dropped();
        let event = world.events.peek().map(|&std::cmp::Reverse((at_ms, ..))| at_ms);
        let alive = world.stations.iter().filter(|station| station.alive);
        let first = alive.filter_map(|station| station.lanes.next_ms()).chain(event).min()?;
        Some(first.max(world.now_ms))
    }

    /// When to run something next: the earliest of [`SimNet::next_event_ms`], wakes and drivers' deadlines; now, if
    /// a driver is not asleep.
    pub fn next_due_ms(&self) -> Option<u64> {
        let event = self.next_event_ms();
        let mut world = self.world();
        let drivers = 0..world.stations.len();
        drivers.filter_map(|driver| world.due_ms(driver)).chain(event).min()
    }

    /// Changes the faults from now on; buffers of open connections stay. A run that ends with [`Faults::none`]
    /// checks that everything heals.
    pub fn set_faults(&self, faults: Faults) {
        self.world().faults = faults;
    }

    /// The faults as they are.
    pub fn faults(&self) -> Faults {
        self.world().faults.clone()
    }

    /// How often each fault was injected.
    pub fn marks(&self) -> Marks {
        self.world().marks.clone()
    }

    /// A hash of all ops, completions, arrivals and peers' calls so far, in order.
    pub fn trace_hash(&self) -> u64 {
        self.world().trace.hash()
    }

    /// What there is. All zero but for listeners and peers, when everything is at rest.
    pub fn census(&self) -> Census {
        let mut world = self.world();
        world.collect_dropped();
        let mut census = Census { listeners: world.listeners.len(), ..Census::default() };
        for connection in world.connections.values() {
            census.connections += 1;
            census.bytes += connection.pipes.iter().map(pipe::Pipe::len).sum::<usize>();
            for end in &connection.ends {
                match end.owner {
                    Owner::Socket => census.sockets += 1,
                    Owner::Backlog(_) => census.backlog += 1,
                    Owner::Peer => census.peers += 1,
                    Owner::Connecting { .. } => census.ops += 1,
                    Owner::Nobody | Owner::Slot { .. } | Owner::Closed => {}
                }
            }
        }
        for station in &world.stations {
            census.slots += station.slots.len();
            census.ops += station.slots.values().map(station::Slot::ops_open).sum::<usize>();
            census.ops += station.queue.iter().filter(|op| ops::has_no_slot(op)).count();
            census.completions += station.lanes.len();
            census.blocked_sends += station.slots.values().filter(|slot| slot.blocked.is_some()).count();
        }
        census
    }

    fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }
}
