//! The state all handles share: clock, chance, connections and what travels in them. What drivers do with it is in
//! `station.rs` and `ops.rs`.

use super::faults::{Delay, Faults, Mark, Marks};
use super::lanes::{Ends, LaneKey, Pending};
use super::pipe::{Parcel, Pipe};
use super::random::{Chance, Random};
use super::station::{Listener, Station};
use super::trace::{Note, Trace};
use crate::io::{Completion, Outcome, Socket, SocketKind, Token};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Sockets dropped outside any slot; closed at the next call into the world.
pub(super) type Dropped = Arc<Mutex<Vec<EndId>>>;

/// One end of a connection: even numbers opened it, odd ones accepted it. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndId(pub u64);

impl EndId {
    pub fn connection(self) -> u64 {
        self.0 >> 1
    }
    pub fn side(self) -> usize {
        (self.0 & 1) as usize
    }
    pub fn other(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// Who holds an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody yet: the connection is being opened.
    Nobody,
    /// A driver waits for it to be connected.
    Connecting { driver: usize, token: Token },
    /// A listener's backlog.
    Backlog(u32),
    /// A [`Socket`] somewhere above.
    Socket,
    /// A driver's slot.
    Slot { driver: usize, slot: u32 },
    /// The test.
    Peer,
    /// Nobody any more.
    Closed,
}

#[derive(Debug)]
pub(super) struct End {
    pub owner: Owner,
    pub address: SocketAddr,
    /// The errno that the next receive or send reports, once.
    pub error: Option<i32>,
    /// A reset was sent or received.
    pub dead: bool,
    /// Shut down in both directions by its owner.
    pub shut: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub ends: [End; 2],
    /// `pipes[side]` is what that side writes.
    pub pipes: [Pipe; 2],
    pub established: bool,
    /// The cable is out: nothing arrives any more, and nobody is told.
    pub cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A connection request reaches its listener.
    Syn(u64),
    /// Something written by that end arrives.
    Arrive(EndId),
    /// A send of that end that was held back goes on.
    Unblock(EndId),
}

#[derive(Debug)]
pub(super) struct World {
    pub now_ms: u64,
    pub wall_base_ms: u64,
    pub random: Random,
    pub faults: Faults,
    pub marks: Marks,
    pub trace: Trace,
    pub sequence: u64,
    pub events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pub connections: BTreeMap<u64, Connection>,
    pub connections_made: u64,
    pub listeners: BTreeMap<u32, Listener>,
    pub listeners_made: u32,
    pub stations: Vec<Station>,
    pub dropped: Dropped,
}

impl World {
    // --- chance and time --------------------------------------------------------------------------------------

    /// Whether a fault happens; if so it is counted.
    pub fn fault(&mut self, chance: Chance, mark: Mark) -> bool {
        let happens = self.random.happens(chance);
        if happens {
            self.marks.hit(mark);
        }
        happens
    }

    /// A delay in milliseconds, mostly 0.
    pub fn delay(&mut self, delay: Delay, mark: Mark) -> u64 {
        if delay.ms_max > 0 && self.fault(delay.chance, mark) { self.random.within(1, delay.ms_max) } else { 0 }
    }

    pub fn schedule(&mut self, at_ms: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at_ms, self.sequence, event)));
    }

    /// Moves the clock on, through every event on the way.
    pub fn advance_to(&mut self, to_ms: u64) {
        assert!(to_ms >= self.now_ms, "the virtual clock does not go back");
        self.collect_dropped();
        while let Some(&Reverse((at_ms, _, event))) = self.events.peek()
            && at_ms <= to_ms
        {
            self.events.pop();
            self.now_ms = self.now_ms.max(at_ms);
            match event {
                Event::Syn(connection) => self.on_syn(connection),
                Event::Arrive(writer) => self.on_arrival(writer),
                Event::Unblock(end) => self.on_writable(end),
            }
        }
        self.now_ms = to_ms;
        self.trace.note(Note::Advance, &[to_ms]);
    }

    /// Queues a completion, late or out of order as chance has it.
    pub fn post(&mut self, driver: usize, key: LaneKey, token: Token, outcome: Outcome, ends: Ends) {
        let at_ms = self.now_ms + self.delay(self.faults.completion_delay, Mark::CompletionDelay);
        self.post_at(driver, key, at_ms, Completion { token, outcome }, ends);
    }

    pub fn post_at(&mut self, driver: usize, key: LaneKey, at_ms: u64, completion: Completion, ends: Ends) {
        let tie = self.tie();
        self.stations[driver].lanes.push(key, Pending { at_ms, completion, ends }, tie);
    }

    pub fn tie(&mut self) -> u64 {
        self.sequence += 1;
        if self.fault(self.faults.reorder, Mark::Reorder) { self.random.below(self.sequence) } else { self.sequence }
    }

    // --- ends and pipes ---------------------------------------------------------------------------------------

    pub fn end(&mut self, end: EndId) -> &mut End {
        let connection = self.connections.get_mut(&end.connection()).expect("a held end's connection is there");
        &mut connection.ends[end.side()]
    }
    pub fn outgoing(&mut self, end: EndId) -> &mut Pipe {
        let connection = self.connections.get_mut(&end.connection()).expect("a held end's connection is there");
        &mut connection.pipes[end.side()]
    }
    pub fn incoming(&mut self, end: EndId) -> &mut Pipe {
        self.outgoing(end.other())
    }

    /// Whether a receive would say something else than `WouldBlock`.
    pub fn readable(&mut self, end: EndId) -> bool {
        let pipe = self.incoming(end);
        let arrived = pipe.arrived() > 0 || pipe.ended;
        let end = self.end(end);
        arrived || end.dead || end.shut
    }

    /// Reads what has arrived; 0 is the end.
    pub fn read(&mut self, end: EndId, into: &mut [u8]) -> io::Result<usize> {
        let count = self.incoming(end).read(into);
        if count > 0 {
            self.on_writable(end.other());
            return Ok(count);
        }
        if let Some(errno) = self.end(end).error.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if self.readable(end) { Ok(0) } else { Err(io::Error::from_raw_os_error(libc::EAGAIN)) }
    }

    /// Writes what there is room for.
    pub fn write(&mut self, end: EndId, bytes: &[u8]) -> io::Result<usize> {
        let holder = self.end(end);
        if holder.dead || holder.shut {
            let errno = holder.error.take().unwrap_or(libc::EPIPE);
            return Err(io::Error::from_raw_os_error(errno));
        }
        let pipe = self.outgoing(end);
        if pipe.fin_sent {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let count = bytes.len().min(pipe.room());
        if count == 0 {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        pipe.write(&bytes[..count]);
        self.send_parcel(end, Parcel::Bytes(count));
        Ok(count)
    }

    pub fn send_parcel(&mut self, from: EndId, parcel: Parcel) {
        let at_ms = self.now_ms + self.delay(self.faults.travel_delay, Mark::TravelDelay);
        let at_ms = self.outgoing(from).send(parcel, at_ms);
        if at_ms > self.now_ms {
            self.schedule(at_ms, Event::Arrive(from));
        } else {
            self.on_arrival(from);
        }
    }

    /// Sends an RST; the sender's end is dead at once.
    pub fn send_reset(&mut self, from: EndId, mark: Mark) {
        let end = self.end(from);
        if !end.dead {
            end.dead = true;
            self.marks.hit(mark);
            self.send_parcel(from, Parcel::Reset);
        }
    }

    /// What that end wrote arrives, as far as it is due.
    fn on_arrival(&mut self, writer: EndId) {
        let reader = writer.other();
        while self.connections.get(&writer.connection()).is_some_and(|connection| !connection.cut) {
            let now_ms = self.now_ms;
            let Some(parcel) = self.outgoing(writer).arrive(now_ms) else { return };
            self.trace.note(Note::Arrival, &[writer.0, self.now_ms]);
            let end = self.end(reader);
            let gone = end.owner == Owner::Closed || end.shut;
            match parcel {
                Parcel::Bytes(_) if gone => {
                    self.outgoing(writer).drop_arrived();
                    // A closed or shut socket answers bytes that nobody can read with a reset.
                    self.send_reset(reader, Mark::CloseReset);
                }
                Parcel::Bytes(_) | Parcel::Fin => self.on_readable(reader),
                Parcel::Reset => self.on_reset(reader),
            }
        }
    }

    /// The end learns that its connection is broken.
    fn on_reset(&mut self, end: EndId) {
        let holder = self.end(end);
        if holder.owner == Owner::Closed {
            return;
        }
        if !holder.dead {
            holder.dead = true;
            holder.error = Some(libc::ECONNRESET);
        }
        self.incoming(end).drop_travelling();
        if self.incoming(end).arrived() > 0 && self.fault(self.faults.reset_loses_bytes, Mark::ResetLostBytes) {
            self.incoming(end).drop_arrived();
        }
        self.on_writable(end);
        self.on_readable(end);
    }

    /// The network breaks a connection: both ends learn of it.
    pub fn break_connection(&mut self, connection: u64) {
        self.marks.hit(Mark::Reset);
        for end in [EndId(connection << 1), EndId(connection << 1 | 1)] {
            self.on_reset(end);
        }
    }

    // --- opening and closing ----------------------------------------------------------------------------------

    /// Starts a connection from `source`; returns the opener's end.
    pub fn open(&mut self, owner: Owner, source: Option<SocketAddr>, remote: SocketAddr) -> EndId {
        let id = self.connections_made;
        self.connections_made += 1;
        let port_chosen = source.is_some_and(|address| address.port() != 0);
        let source = match source {
            Some(address) if address.port() != 0 => address,
            other => {
                let [a, b, c] = [(id >> 32) as u8, (id >> 24) as u8, (id >> 16) as u8];
                let ip = other.map_or_else(|| [10, a, b, c].into(), |address| address.ip());
                // Ephemeral ports repeat after a while; connections are told apart by number, not by address.
                SocketAddr::new(ip, 10_000 + (id % 50_000) as u16)
            }
        };
        let (low, high) = self.faults.pipe_bytes;
        let mut pipe = || Pipe::new(self.random.within(low as u64, high as u64) as usize);
        let pipes = [pipe(), pipe()];
        let end = |owner, address| End { owner, address, error: None, dead: false, shut: false };
        let ends = [end(owner, source), end(Owner::Nobody, remote)];
        self.connections.insert(id, Connection { ends, pipes, established: false, cut: false });
        let taken = |(&other, connection): (&u64, &Connection)| {
            other != id && connection.ends[0].address == source && connection.ends[1].address == remote
        };
        if port_chosen && self.connections.iter().any(taken) {
            self.refuse(EndId(id << 1), libc::EADDRNOTAVAIL);
            return EndId(id << 1);
        }
        match self.delay(self.faults.travel_delay, Mark::TravelDelay) {
            0 => self.on_syn(id),
            later => self.schedule(self.now_ms + later, Event::Syn(id)),
        }
        EndId(id << 1)
    }

    /// Lets an end go, as `close` on a socket does: unread bytes make it a reset, else it is an orderly end.
    pub fn close_end(&mut self, end: EndId) {
        let unread = self.incoming(end).arrived() > 0;
        let (dead, fin_sent) = (self.end(end).dead, self.outgoing(end).fin_sent);
        if unread && !dead {
            self.send_reset(end, Mark::CloseReset);
        } else if !dead && !fin_sent {
            self.send_parcel(end, Parcel::Fin);
        }
        self.release(end);
    }

    /// Lets an end go with a reset.
    pub fn reset_end(&mut self, end: EndId, mark: Mark) {
        self.send_reset(end, mark);
        self.release(end);
    }

    /// Marks an end closed and forgets the connection once both are.
    pub fn release(&mut self, end: EndId) {
        let holder = self.end(end);
        assert!(holder.owner != Owner::Closed, "an end was closed twice");
        holder.owner = Owner::Closed;
        self.incoming(end).drop_arrived();
        if self.end(end.other()).owner == Owner::Closed {
            self.connections.remove(&end.connection());
        }
    }

    /// Closes what was dropped as a [`Socket`].
    pub fn collect_dropped(&mut self) {
        let dropped = core::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner));
        for end in dropped {
            self.close_end(end);
        }
    }

    /// Wraps an end to be carried about.
    pub fn socket(&mut self, end: EndId) -> Socket {
        self.end(end).owner = Owner::Socket;
        Socket(SocketKind::Sim(SimSocket { end: Some(end), dropped: Arc::clone(&self.dropped) }))
    }
}

/// An end outside any slot. Dropping it closes it, as dropping an fd does.
#[derive(Debug)]
pub(crate) struct SimSocket {
    end: Option<EndId>,
    dropped: Dropped,
}

impl SimSocket {
    /// Takes the end out, without closing it.
    pub(super) fn into_end(mut self) -> EndId {
        self.end.take().expect("a socket has its end until it is taken")
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(end);
        }
    }
}
