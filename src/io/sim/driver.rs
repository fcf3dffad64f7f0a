//! [`Driver`] over the simulated network.

use super::SimNet;
use super::faults::Mark;
use super::station::Station;
use super::trace::Note;
use super::world::{EndId, Owner, World};
use crate::base::clock::Now;
use crate::io::{Completion, Driver, ListenerId, Op, Slot, Socket, Wait, Waker, WakerKind};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// One shard's driver. Dropping it is a crash of its process, see [`SimDriver::crash`].
#[derive(Debug)]
pub struct SimDriver {
    net: SimNet,
    index: usize,
}

impl SimDriver {
    pub(super) fn new(net: SimNet, level_triggered: bool) -> Self {
        let index = {
            let mut world = net.world();
            world.stations.push(Station::new(level_triggered));
            world.stations.len() - 1
        };
        Self { net, index }
    }

    /// The network it is on.
    pub fn net(&self) -> &SimNet {
        &self.net
    }

    /// Whether a real driver's `poll` would return now: its last one brought something or did not wait, an op was
    /// submitted since, a completion is due, it was woken, or its deadline has come.
    pub fn is_due(&self) -> bool {
        let mut world = self.net.world();
        let now_ms = world.now_ms;
        world.due_ms(self.index).is_some_and(|due_ms| due_ms <= now_ms)
    }

    /// Until when its last `poll` would wait for a completion or a wake; none while its shard has work.
    pub fn waiting_until_ms(&self) -> Option<u64> {
        self.net.world().stations[self.index].asleep_until_ms
    }

    /// Whether its waker was used since it last noticed.
    pub fn is_woken(&self) -> bool {
        self.net.world().stations[self.index].flag.load(core::sync::atomic::Ordering::Acquire)
    }

    /// Kills it: listeners, slots and completions not reaped are gone, and each of their peers sees a reset. Sockets
    /// that are outside the driver close when they are dropped.
    pub fn crash(self) {
        drop(self);
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        // A failing test unwinds through here while the world may be borrowed: a second panic would hide the first.
        if let Ok(mut world) = self.net.0.try_borrow_mut() {
            world.crash(self.index);
        }
    }
}

impl World {
    fn crash(&mut self, driver: usize) {
        let listeners: Vec<u32> =
            self.listeners.iter().filter(|(_, listener)| listener.driver == driver).map(|(&id, _)| id).collect();
        let station = &mut self.stations[driver];
        let slots = core::mem::take(&mut station.slots);
        if !slots.is_empty() || !listeners.is_empty() {
            self.marks.hit(Mark::Crash);
        }
        let station = &mut self.stations[driver];
        station.alive = false;
        // What these hold is dropped: sockets close at the next `collect_dropped`, blocks go to the allocator, for
        // their pool dies with the shard.
        drop((core::mem::take(&mut station.queue), core::mem::take(&mut station.lanes)));
        station.repeats.clear();
        station.installed = 0;
        // A driver may have both ends of a connection: none of them is told anything any more.
        for slot in slots.values() {
            self.end(slot.end).owner = Owner::Nobody;
        }
        for listener in listeners {
            self.drop_listener(listener);
        }
        for slot in slots.into_values() {
            self.reset_end(slot.end, Mark::Reset);
        }
        let connecting = |(&id, connection): (&u64, &super::world::Connection)| {
            matches!(connection.ends[0].owner, Owner::Connecting { driver: other, .. } if other == driver).then_some(id)
        };
        let opening: Vec<u64> = self.connections.iter().filter_map(connecting).collect();
        for connection in opening {
            self.release(EndId(connection << 1));
        }
        self.collect_dropped();
        self.trace.note(Note::Crash, &[driver as u64, self.now_ms]);
    }
}

impl Driver for SimDriver {
    fn listen(&mut self, address: SocketAddr, shared: bool) -> io::Result<(ListenerId, SocketAddr)> {
        let (listener, address) = self.net.world().listen(self.index, address, shared)?;
        Ok((ListenerId(listener), address))
    }

    fn adopt_listener(&mut self, _listener: Socket) -> io::Result<(ListenerId, SocketAddr)> {
        // Nobody starts a simulated process with descriptors of its own.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close_listener(&mut self, listener: ListenerId) {
        let mut world = self.net.world();
        let open = world.listeners.get(&listener.0).expect("the listener is unknown or was closed");
        assert!(open.driver == self.index, "another driver's listener was closed");
        assert!(!open.accept_open, "a listener was closed with its accept in flight: its port stays bound");
        world.drop_listener(listener.0);
    }

    fn submit(&mut self, op: Op) {
        self.net.world().submit(self.index, op);
    }

    fn poll(&mut self, wait: Wait, max: usize, into: &mut Vec<Completion>) -> io::Result<Now> {
        self.net.world().poll(self.index, wait, max, into);
        Ok(self.net.now())
    }

    fn attach(&mut self, socket: Socket) -> Slot {
        let mut world = self.net.world();
        assert!(world.stations[self.index].alive, "a socket was attached to a crashed driver");
        world.take_in(self.index, socket, false)
    }

    fn detach(&mut self, slot: Slot, _stays: bool) -> Socket {
        let mut world = self.net.world();
        assert!(!world.stations[self.index].slot(slot.0).installed, "an installed slot was detached");
        let removed = world.stations[self.index].remove_slot(slot.0, "a slot was detached");
        world.socket(removed.end)
    }

    fn close(&mut self, slot: Slot) {
        let mut world = self.net.world();
        let removed = world.stations[self.index].remove_slot(slot.0, "a slot was closed");
        world.close_end(removed.end);
    }

    fn set_reading(&mut self, slot: Slot, reading: bool) {
        let mut world = self.net.world();
        let level = world.stations[self.index].level;
        let slot = world.stations[self.index].slot(slot.0);
        let resumes = level && reading && !slot.reading;
        slot.reading = reading;
        let end = slot.end;
        if resumes && world.readable(end) {
            world.on_readable(end);
        }
    }

    fn waker(&self) -> Waker {
        Waker(WakerKind::Flag(Arc::clone(&self.net.world().stations[self.index].flag)))
    }

    fn slots_open(&self) -> usize {
        self.net.world().stations[self.index].slots.len()
    }

    fn name(&self) -> &'static str {
        "sim"
    }
}
