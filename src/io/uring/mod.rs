//! Owns: the driver over io_uring. In: ops. Out: completions.
//! Must not: use `IOSQE_ASYNC`, cancel by fd, or touch a block, segment or batch between its entry and its completion.
//! Invariants: one thread makes and uses a driver; what the kernel may read or write lives in `flights` or `batches`
//! until the completion, also while the driver is dropped; a direct descriptor is closed only with nothing in flight.
//!
//! # Rings
//! Ring 0, the *main ring*, is the one that is waited on: guests, listeners, connects, the waker, and the first table
//! of direct descriptors. A table is bounded by RLIMIT_NOFILE, so further *slot rings* are made when tables are full.
//! Each signals an eventfd on which the main ring has a one-shot poll, armed anew before each wait if it has fired.
//! A poll looks at the main ring and at those that were pushed into or have signalled; a ring that is armed, and has neither
//! entries nor completions left, is not looked at until then.
//!
//! # Waiting
//! A ring with deferred task work runs at most max(20, wanted) of it per entry (since Linux 6.13), so the driver enters
//! again while the ring says that some is left. While few sockets are active the first arrival ends a wait; a busy
//! shard waits for as many arrivals as its last turn had, but no longer than [`BATCHED_WAIT`], which saves wake-ups. Not
//! so one that is busy with taking connections in: its peers wait for it, and the timer costs more than a wake-up.
#![allow(unsafe_code, reason = "handing blocks and segments to the kernel")]

mod accept;
mod complete;
mod install;
pub(in crate::io) mod probe;
mod ring;
mod ring_set;
mod slots;
mod wait;

use super::{Completion, Driver, ListenerId, Op, Outcome, Segment, Slot, Socket, Token, Wait, Waker, WakerKind};
use crate::base::block::Block;
use crate::base::clock::Now;
use crate::io::epoll::sys;
use crate::io::socket;
use crate::io::wake::WakeCell;
use crate::limits::{
    BATCHED_WAIT, RECEIVES_IN_FLIGHT_MAX, RING_COMPLETIONS_MAX, RING_SLOTS_MAX, RING_SUBMISSIONS_MAX, TURN_SENDS_MAX,
};
use accept::{Connecting, Listener};
use install::Batch;
use io_uring::{opcode, types};
use ring::Ring;
use ring_set::RingSet;
use slab::Slab;
use slots::{Entry, GuestTable, Kind, ONCE, Place, RECEIVING, SENDING, SHUTTING, UNWATCHING, UserData, WATCHED};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

const _: () = assert!(!BATCHED_WAIT.is_zero());

/// An op with the kernel, and the memory it uses.
#[derive(Debug)]
struct Flight {
    token: Token,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    Receive(Block),
    Send { segment: Segment, more: bool },
    Shutdown,
}

/// Builds an entry for a slot's socket, guest or direct.
macro_rules! entry_for {
    ($driver:expr, $slot:expr, $fd:ident => $entry:expr) => {
        match Place::of($slot) {
            Place::Guest { index } => {
                let $fd = types::Fd($driver.guests.get_mut(index).raw_fd());
                (0, $entry.build())
            }
            Place::Direct { ring, index } => {
                let $fd = types::Fixed(index);
                (ring, $entry.build())
            }
        }
    };
}

/// The driver. It stays on the thread that made it.
pub struct UringDriver {
    rings: Vec<Ring>,
    /// Rings that may have something to submit or to be reaped. The main ring always may; of any other that is not among
    /// them the signal will say so.
    lively: RingSet,
    /// Rings whose tables have room.
    roomy: RingSet,
    /// Slots of each ring's table.
    table_slots: usize,
    guests: GuestTable,
    flights: Slab<Flight>,
    installing: Vec<(OwnedFd, Token)>,
    batches: Slab<Batch>,
    listeners: Slab<Listener>,
    connecting: Slab<Connecting>,
    /// Completions that did not come from the kernel's queue one by one.
    ready: VecDeque<Completion>,
    /// `Ready`s of installed sockets since the last wait.
    arrivals: usize,
    /// Accepts, and `Ready`s of guests.
    steps: usize,
    /// Something was submitted whose completion comes with the submission.
    answers_at_once: bool,
    /// The ring reaped first, in turn.
    first_ring: usize,
    wake: Arc<WakeCell>,
    /// Nothing is submitted any more.
    dropping: bool,
    not_send: PhantomData<*mut ()>,
}

impl UringDriver {
    /// An idle driver.
    ///
    /// # Errors
    /// Where the kernel cannot, may not, or has no memory.
    pub fn new() -> io::Result<Self> {
        Self::with_table_slots(RING_SLOTS_MAX)
    }

    /// The same with tables of at most `table_slots` direct descriptors each.
    ///
    /// # Errors
    /// As `new`.
    pub fn with_table_slots(table_slots: usize) -> io::Result<Self> {
        let main = Ring::new(RING_SUBMISSIONS_MAX, RING_COMPLETIONS_MAX, table_slots)?;
        let roomy = if main.table.room() > 0 { RingSet::of(0) } else { RingSet::EMPTY };
        let mut driver = Self {
            rings: vec![main],
            lively: RingSet::of(0),
            roomy,
            table_slots,
            guests: GuestTable::new(),
            // Room for all that one turn begins: it grows only where slow sockets keep as many besides. Memory that nobody
            // touches costs none.
            flights: Slab::with_capacity(TURN_SENDS_MAX + RECEIVES_IN_FLIGHT_MAX),
            installing: Vec::new(),
            batches: Slab::new(),
            listeners: Slab::new(),
            connecting: Slab::new(),
            ready: VecDeque::new(),
            arrivals: 0,
            steps: 0,
            answers_at_once: false,
            first_ring: 0,
            wake: WakeCell::new()?,
            dropping: false,
            not_send: PhantomData,
        };
        driver.push_wake_watch();
        Ok(driver)
    }

    #[inline]
    fn entry(&mut self, slot: Slot) -> &mut Entry {
        match Place::of(slot) {
            Place::Guest { index } => self.guests.get_mut(index),
            Place::Direct { ring, index } => self.rings[ring].table.get_mut(index as usize),
        }
    }

    /// A ring to push into.
    #[inline]
    fn ring_mut(&mut self, ring: usize) -> &mut Ring {
        self.lively.insert(ring);
        &mut self.rings[ring]
    }

    fn push_ready(&mut self, token: Token, outcome: Outcome) {
        self.ready.push_back(Completion { token, outcome });
    }

    // --- receiving and sending ------------------------------------------------------------------------------------

    #[inline]
    fn receive(&mut self, slot: Slot, mut block: Block, token: Token) {
        self.entry(slot).begin(RECEIVING);
        let bytes = block.bytes_mut();
        let length = u32::try_from(bytes.len()).expect("blocks are shorter than 4 GiB");
        let address = bytes.as_mut_ptr();
        let flight = self.flights.insert(Flight { token, payload: Payload::Receive(block) });
        let (ring, entry) =
            entry_for!(self, slot, fd => opcode::Recv::new(fd, address, length).flags(libc::MSG_DONTWAIT));
        let user_data = UserData::of_flight(Kind::Receive, flight, slot);
        self.answers_at_once = true;
        // SAFETY: the block's bytes are on the heap and do not move with it; the flight owns it until the completion.
        unsafe { self.ring_mut(ring).push(entry.user_data(user_data.bits())) };
    }

    #[inline]
    fn send(&mut self, slot: Slot, segment: Segment, more: bool, token: Token) {
        self.entry(slot).begin(SENDING);
        assert!(!segment.remaining().is_empty(), "a send has something to send");
        let flight = self.flights.insert(Flight { token, payload: Payload::Send { segment, more } });
        self.answers_at_once = true;
        self.push_send(slot, flight, false);
    }

    /// The first time without waiting; only a socket that has no room then is polled by the kernel, which costs memory.
    #[inline]
    fn push_send(&mut self, slot: Slot, flight: usize, waits: bool) {
        let Payload::Send { segment, more } = &self.flights[flight].payload else {
            unreachable!("a send's flight holds its segment")
        };
        let bytes = segment.remaining();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut flags = libc::MSG_NOSIGNAL;
        flags |= if waits { 0 } else { libc::MSG_DONTWAIT };
        flags |= if *more { libc::MSG_MORE } else { 0 };
        let address = bytes.as_ptr();
        let (ring, entry) = entry_for!(self, slot, fd => opcode::Send::new(fd, address, length).flags(flags));
        let user_data = UserData::of_flight(Kind::Send, flight, slot);
        // SAFETY: the segment's bytes are on the heap, or static, and do not move with it; the flight owns it until
        // the completion.
        unsafe { self.ring_mut(ring).push(entry.user_data(user_data.bits())) };
    }

    fn shutdown(&mut self, slot: Slot, token: Token) {
        if let Place::Guest { index } = Place::of(slot) {
            // By system call: through the ring it would cost a kernel thread.
            socket::shutdown(self.guests.get_mut(index).fd());
            return self.push_ready(token, Outcome::ShutDone);
        }
        self.entry(slot).begin(SHUTTING);
        let flight = self.flights.insert(Flight { token, payload: Payload::Shutdown });
        let (ring, entry) = entry_for!(self, slot, fd => opcode::Shutdown::new(fd, libc::SHUT_RDWR));
        let user_data = UserData::of_flight(Kind::Shutdown, flight, slot);
        self.ring_mut(ring).push_plain(entry.user_data(user_data.bits()));
    }

    // --- watching -------------------------------------------------------------------------------------------------

    fn watch(&mut self, slot: Slot, token: Token, once: bool) {
        let entry = self.entry(slot);
        entry.begin(WATCHED);
        entry.flags |= if once { ONCE } else { 0 };
        entry.watch = token.0;
        self.push_watch(slot, once);
    }

    fn push_watch(&mut self, slot: Slot, once: bool) {
        let events = libc::POLLIN as u32;
        let (ring, entry) = entry_for!(self, slot, fd => opcode::PollAdd::new(fd, events).multi(!once));
        self.ring_mut(ring).push_plain(entry.user_data(UserData::of_slot(Kind::Watch, slot).bits()));
    }

    fn unwatch(&mut self, slot: Slot, token: Token) {
        let entry = self.entry(slot);
        if entry.is(WATCHED) && !entry.is(UNWATCHING) && entry.watch_token() == token {
            entry.flags |= UNWATCHING;
            self.push_unwatch(slot);
        }
    }

    fn push_unwatch(&mut self, slot: Slot) {
        let ring = match Place::of(slot) {
            Place::Guest { .. } => 0,
            Place::Direct { ring, .. } => ring,
        };
        let entry = opcode::PollRemove::new(UserData::of_slot(Kind::Watch, slot).bits()).build();
        self.ring_mut(ring).push_plain(entry.user_data(UserData::of_slot(Kind::Unwatch, slot).bits()));
    }

    fn push_wake_watch(&mut self) {
        let fd = types::Fd(self.wake.fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        self.rings[0].push_plain(entry.user_data(UserData::of_index(Kind::Wake, 0).bits()));
    }

    /// The kernel has closed a direct descriptor.
    fn release_direct(&mut self, slot: Slot) {
        let Place::Direct { ring, .. } = Place::of(slot) else { unreachable!("guests are closed by system call") };
        self.rings[ring].table.release(1);
        self.roomy.insert(ring);
    }
}

impl Driver for UringDriver {
    const GATHERS_SENDS: bool = true;

    fn listen(&mut self, address: SocketAddr, shared: bool) -> io::Result<(ListenerId, SocketAddr)> {
        self.add_listener(address, shared)
    }

    fn adopt_listener(&mut self, listener: Socket) -> io::Result<(ListenerId, SocketAddr)> {
        let fd = listener.into_fd();
        let bound = socket::local_address(&fd)?;
        Ok((self.insert_listener(fd), bound))
    }

    fn close_listener(&mut self, listener: ListenerId) {
        self.remove_listener(listener);
    }

    fn submit(&mut self, op: Op) {
        match op {
            Op::Send { slot, segment, more, token } => self.send(slot, segment, more, token),
            Op::Receive { slot, block, token } => self.receive(slot, block, token),
            Op::Watch { slot, token } => self.watch(slot, token, false),
            Op::WatchOnce { slot, token } => self.watch(slot, token, true),
            Op::Unwatch { slot, token } => self.unwatch(slot, token),
            Op::Shutdown { slot, token } => self.shutdown(slot, token),
            Op::Install { socket, token } => {
                self.answers_at_once = true;
                self.installing.push((socket.into_fd(), token));
            }
            Op::Accept { listener, token } => self.accept(listener, token),
            Op::StopAccepting { listener } => self.stop_accepting(listener),
            Op::Connect { local, remote, token } => self.connect(local, remote, token),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.answers_at_once { self.enter_all() } else { Ok(()) }
    }

    fn poll(&mut self, wait: Wait, max: usize, into: &mut Vec<Completion>) -> io::Result<Now> {
        let limit = into.len().saturating_add(max);
        self.take_completions(wait, limit, into)?;
        Ok(sys::now())
    }

    fn attach(&mut self, socket: Socket) -> Slot {
        Place::guest(self.guests.insert(socket.into_fd()))
    }

    fn detach(&mut self, slot: Slot, _stays: bool) -> Socket {
        match Place::of(slot) {
            Place::Guest { index } => Socket::from(self.guests.remove(index)),
            Place::Direct { .. } => panic!("only a guest is given out again"),
        }
    }

    fn close(&mut self, slot: Slot) {
        self.assert_at_rest(slot);
        match Place::of(slot) {
            Place::Guest { index } => drop(self.guests.remove(index)),
            Place::Direct { ring, index } => {
                self.rings[ring].table.remove(index as usize);
                let entry = opcode::Close::new(types::Fixed(index)).build();
                self.ring_mut(ring).push_plain(entry.user_data(UserData::of_slot(Kind::Close, slot).bits()));
            }
        }
    }

    fn waker(&self) -> Waker {
        Waker(WakerKind::EventFd(Arc::clone(&self.wake)))
    }

    fn cpu_us(&self) -> u64 {
        sys::thread_cpu_us()
    }

    fn clock(&self) -> Option<Now> {
        Some(sys::now())
    }

    fn slots_open(&self) -> usize {
        self.guests.open() + self.rings.iter().map(|ring| ring.table.open()).sum::<usize>()
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}
