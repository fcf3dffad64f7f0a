//! Rigs of the simulated driver: level-triggered, edge-triggered, and slow and out of order.

use crate::rig::Rig;
use kittiwake::base::clock::Now;
use kittiwake::io::sim::{Chance, Delay, Faults, Peer, SimDriver, SimNet};
use kittiwake::io::{Completion, Driver, ListenerId, Op, Slot, Socket, Wait, Waker};
use std::io;
use std::net::SocketAddr;

/// A wait that is longer than this stands for "until somebody else does something".
const LONG_WAIT_MS: u64 = 1_000;
/// How often another thread is given the processor before a long wait passes in virtual time.
const YIELDS: usize = 1_000_000;

/// The simulated driver with the outer loop that lets virtual time pass while it waits.
pub struct Waiting(SimDriver);

impl Driver for Waiting {
    fn poll(&mut self, wait: Wait, max: usize, into: &mut Vec<Completion>) -> io::Result<Now> {
        let before = into.len();
        if wait == Wait::No {
            // A real clock goes on while a program polls without waiting.
            self.0.net().advance(1);
        }
        loop {
            let now = self.0.poll(wait, max, into)?;
            let Some(until_ms) = self.0.waiting_until_ms() else { return Ok(now) };
            if into.len() > before || wait == Wait::No {
                return Ok(now);
            }
            if until_ms > now.monotonic_ms + LONG_WAIT_MS {
                (0..YIELDS).take_while(|_| !self.0.is_woken()).for_each(|_| std::thread::yield_now());
            }
            if !self.0.is_woken() {
                self.0.net().advance(1);
            }
        }
    }
    fn listen(&mut self, address: SocketAddr, shared: bool) -> io::Result<(ListenerId, SocketAddr)> {
        self.0.listen(address, shared)
    }
    fn adopt_listener(&mut self, listener: Socket) -> io::Result<(ListenerId, SocketAddr)> {
        self.0.adopt_listener(listener)
    }
    fn close_listener(&mut self, listener: ListenerId) {
        self.0.close_listener(listener);
    }
    fn submit(&mut self, op: Op) {
        self.0.submit(op);
    }
    fn attach(&mut self, socket: Socket) -> Slot {
        self.0.attach(socket)
    }
    fn detach(&mut self, slot: Slot, stays: bool) -> Socket {
        self.0.detach(slot, stays)
    }
    fn close(&mut self, slot: Slot) {
        self.0.close(slot);
    }
    fn set_reading(&mut self, slot: Slot, reading: bool) {
        self.0.set_reading(slot, reading);
    }
    fn waker(&self) -> Waker {
        self.0.waker()
    }
    fn slots_open(&self) -> usize {
        self.0.slots_open()
    }
    fn name(&self) -> &'static str {
        self.0.name()
    }
}

impl crate::rig::Peer for Peer {
    fn address(&self) -> SocketAddr {
        Peer::address(self)
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Peer::write(self, bytes)
    }
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Peer::read(self, into)
    }
    fn finish(&mut self) {
        Peer::finish(self);
    }
    fn reset(self) {
        Peer::reset(self);
    }
}

macro_rules! rig {
    ($(#[$doc:meta])* $name:ident, $level:expr, $faults:expr) => {
        $(#[$doc])*
        pub struct $name(SimNet);

        impl Rig for $name {
            type Driver = Waiting;
            type Peer = Peer;
            fn new() -> Self {
                Self(SimNet::new(7, $faults))
            }
            fn driver(&mut self, _: Option<usize>) -> Waiting {
                Waiting(self.0.driver_with($level))
            }
            fn any_address(&self) -> SocketAddr {
                SocketAddr::from(([10, 255, 0, 1], 0))
            }
            fn dead_address(&self) -> SocketAddr {
                SocketAddr::from(([10, 255, 0, 1], 9))
            }
            fn connect(&mut self, to: SocketAddr) -> Peer {
                Peer::connect(&self.0, to)
            }
        }
    };
}

rig!(
    /// Watches repeat themselves, as epoll's.
    SimLevel,
    true,
    Faults::none()
);
rig!(
    /// Watches say it once, as io_uring's.
    SimEdge,
    false,
    Faults::none()
);
rig!(
    /// Everything takes a while, completions overtake each other and watches cry wolf.
    SimSlow,
    false,
    Faults {
        completion_delay: Delay::new(Chance::percent(50), 5),
        travel_delay: Delay::new(Chance::percent(50), 5),
        reorder: Chance::percent(50),
        short_reap: Chance::percent(20),
        ..Faults::none()
    }
);
