//! Owns: the driver over edge-triggered epoll. In: ops. Out: completions, emulated.
//! Must not: block outside `poll`, allocate per op, or touch a slot's socket after its close.
//! Invariants: receives and sends are done while they are submitted and their completions queued; a send that finds no
//! room is *parked* until the socket is writable, ended by `Shutdown`; a completion that has not been reaped counts as in
//! flight. The kernel says once that something has arrived, so that is kept until a receive finds everything (`UNREAD`),
//! and a watch that begins in between is told at once: one that ends with its first `Ready` needs no call to begin again.

mod accept;
mod slots;
pub(in crate::io) mod sys;

use super::{
    Completion, Driver, ListenerId, Op, Outcome, Segment, Slot, Socket, SocketKind, Token, Wait, Waker, WakerKind,
};
use crate::base::block::Block;
use crate::base::clock::Now;
use crate::io::socket;
use crate::io::wake::WakeCell;
use crate::limits::{EPOLL_EVENTS_MAX, EPOLL_PARKED_SENDS_MAX, EPOLL_SPARED_MAX, EPOLL_SPARING_COMPLETIONS_MAX};
use accept::{Connecting, Listener};
use slab::Slab;
use slots::{
    ARMED, CUT, ENDING, GUEST, IN_FLIGHT, ONCE, PARKED, READY, RECEIVING, SENDING, SHUTTING, SlotTable, UNREAD, WATCHED,
};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const READABLE: u32 = libc::EPOLLIN as u32;
const WRITABLE: u32 = libc::EPOLLOUT as u32;
const ONE_SHOT: u32 = libc::EPOLLONESHOT as u32;
/// Of several shards that wait on one listener, which they share when it was passed, an event wakes one.
const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// The peer's end, and its urgent byte: a receive ends before either.
const ENDED: u32 = libc::EPOLLRDHUP as u32;
const URGENT: u32 = libc::EPOLLPRI as u32;
/// What is waited for where bytes are, and where room for them is.
const ARRIVALS: u32 = READABLE | URGENT | ENDED | EDGE;
const ROOM: u32 = WRITABLE | EDGE;

/// What an event belongs to: the kind in the upper half of its data, the index in the lower.
const OF_SLOT: u32 = 0;
const OF_LISTENER: u32 = 1;
const OF_CONNECT: u32 = 2;
const OF_WAKER: u32 = 3;

/// Why a change of what is waited for, or its end, cannot fail.
const NO_MEMORY: &str = "changing or removing an fd that is in the set needs no memory";

fn event_data(kind: u32, index: u32) -> u64 {
    u64::from(kind) << 32 | u64::from(index)
}

/// A send that waits for room.
#[derive(Debug)]
struct Parked {
    segment: Segment,
    token: Token,
    more: bool,
}

/// A completion to be reaped, and which of its slot's flags end with it.
#[derive(Debug)]
struct Queued {
    slot: Slot,
    ends: u32,
    completion: Completion,
}

/// A guest that was given out to come back: its place, with the number of its fd.
#[derive(Debug)]
struct Leaving {
    slot: Slot,
    fd: RawFd,
}

/// How many there were: numbers them.
static DRIVERS: AtomicU32 = AtomicU32::new(0);

/// The driver. One thread's: create it there.
#[derive(Debug)]
pub struct EpollDriver {
    epoll: OwnedFd,
    /// Which of the process's epoll drivers this is.
    number: u32,
    events: Box<[libc::epoll_event]>,
    slots: SlotTable,
    /// The last to be given out, until somebody else comes or goes: nearly all come back at once, and are then watched
    /// without a call.
    leaving: Option<Leaving>,
    parked: Slab<Parked>,
    listeners: Slab<Listener>,
    connecting: Slab<Connecting>,
    queue: VecDeque<Queued>,
    /// Polls since the kernel was last asked.
    spared: u32,
    wake: Arc<WakeCell>,
}

impl EpollDriver {
    /// An idle driver.
    ///
    /// # Errors
    /// Where the process has no fds left.
    pub fn new() -> io::Result<Self> {
        let epoll = sys::epoll_create()?;
        let wake = WakeCell::new()?;
        sys::epoll_control(&epoll, libc::EPOLL_CTL_ADD, wake.fd(), READABLE | EDGE, event_data(OF_WAKER, 0))?;
        Ok(Self {
            epoll,
            number: DRIVERS.fetch_add(1, Ordering::Relaxed),
            events: vec![sys::NO_EVENT; EPOLL_EVENTS_MAX].into_boxed_slice(),
            slots: SlotTable::new(sys::fds_max()),
            leaving: None,
            parked: Slab::new(),
            listeners: Slab::new(),
            connecting: Slab::new(),
            queue: VecDeque::new(),
            spared: 0,
            wake,
        })
    }

    // --- queueing -------------------------------------------------------------------------------------------------

    #[inline]
    fn push_of(&mut self, slot: Slot, ends: u32, token: Token, outcome: Outcome) {
        self.queue.push_back(Queued { slot, ends, completion: Completion { token, outcome } });
    }

    fn push(&mut self, token: Token, outcome: Outcome) {
        self.push_of(Slot(0), 0, token, outcome);
    }

    fn reap(&mut self, max: usize, into: &mut Vec<Completion>) {
        let count = max.min(self.queue.len());
        for queued in self.queue.drain(..count) {
            if queued.ends != 0 {
                self.slots.get_mut(queued.slot).flags &= !queued.ends;
            }
            into.push(queued.completion);
        }
    }

    // --- receiving and sending ------------------------------------------------------------------------------------

    fn receive(&mut self, slot: Slot, mut block: Block, token: Token) {
        let entry = self.slots.get_mut(slot);
        assert!(!entry.is(RECEIVING), "one receive at a time");
        entry.flags |= RECEIVING;
        let outcome = match sys::receive(entry.fd(), block.bytes_mut()) {
            Ok(count) => {
                let more = count > 0 && (count == block.capacity() || entry.is(CUT));
                if !more && count > 0 {
                    entry.flags &= !UNREAD;
                }
                Outcome::Received { more, block, count }
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    entry.flags &= !(UNREAD | CUT);
                }
                Outcome::ReceiveFailed { block, error }
            }
        };
        self.push_of(slot, RECEIVING, token, outcome);
    }

    fn send(&mut self, slot: Slot, segment: Segment, more: bool, token: Token) {
        let entry = self.slots.get_mut(slot);
        assert!(!entry.is(SENDING), "one send at a time: two would reorder");
        assert!(!segment.remaining().is_empty(), "a send has something to send");
        entry.flags |= SENDING;
        match sys::send(entry.fd(), segment.remaining(), more) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.park(slot, Parked { segment, token, more }),
            result => self.push_sent(slot, segment, token, result),
        }
    }

    fn push_sent(&mut self, slot: Slot, segment: Segment, token: Token, result: io::Result<usize>) {
        let outcome = match result {
            Ok(count) => Outcome::Sent { segment, count },
            Err(error) => Outcome::SendFailed { segment, error },
        };
        self.push_of(slot, SENDING, token, outcome);
    }

    fn park(&mut self, slot: Slot, parked: Parked) {
        if self.parked.len() >= EPOLL_PARKED_SENDS_MAX {
            let error = io::Error::from_raw_os_error(libc::ENOBUFS);
            return self.push_sent(slot, parked.segment, parked.token, Err(error));
        }
        let is_armed = self.slots.get(slot).is(ARMED);
        let (operation, arrivals) = if is_armed { (libc::EPOLL_CTL_MOD, ARRIVALS) } else { (libc::EPOLL_CTL_ADD, 0) };
        match self.control(operation, slot, ROOM | arrivals) {
            Ok(()) => {
                let place = self.parked.insert(parked);
                self.slots.get_mut(slot).park(place);
            }
            Err(error) => self.push_sent(slot, parked.segment, parked.token, Err(error)),
        }
    }

    fn unpark(&mut self, slot: Slot) -> Parked {
        let entry = self.slots.get_mut(slot);
        let place = entry.parked();
        entry.unpark();
        if entry.is(ARMED) {
            self.control(libc::EPOLL_CTL_MOD, slot, ARRIVALS).expect(NO_MEMORY);
        } else {
            self.control(libc::EPOLL_CTL_DEL, slot, 0).expect(NO_MEMORY);
        }
        self.parked.remove(place)
    }

    /// Tries a parked send again. Where there still is no room it stays.
    fn retry_parked(&mut self, slot: Slot) {
        let entry = self.slots.get(slot);
        let parked = &self.parked[entry.parked()];
        match sys::send(entry.fd(), parked.segment.remaining(), parked.more) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => {
                let parked = self.unpark(slot);
                self.push_sent(slot, parked.segment, parked.token, result);
            }
        }
    }

    fn shutdown(&mut self, slot: Slot, token: Token) {
        let entry = self.slots.get_mut(slot);
        assert!(!entry.is(SHUTTING), "one shutdown at a time");
        entry.flags |= SHUTTING;
        socket::shutdown(entry.owned());
        if entry.is(PARKED) {
            // It fails now; if the peer made room in the meantime it is still to be joined, not lost.
            self.retry_parked(slot);
        }
        self.push_of(slot, SHUTTING, token, Outcome::ShutDone);
    }

    // --- watching -------------------------------------------------------------------------------------------------

    fn watch(&mut self, slot: Slot, token: Token, once: bool) {
        let entry = self.slots.get_mut(slot);
        assert!(!entry.is(WATCHED), "one watch at a time");
        entry.flags = (entry.flags & !ONCE) | WATCHED | if once { ONCE } else { 0 };
        entry.watch = token.0;
        if entry.is(ARMED) {
            if entry.is(UNREAD) {
                self.tell(slot);
            }
            return;
        }
        let (operation, room) = if entry.is(PARKED) { (libc::EPOLL_CTL_MOD, ROOM) } else { (libc::EPOLL_CTL_ADD, 0) };
        match self.control(operation, slot, ARRIVALS | room) {
            // Of what is there already the kernel tells.
            Ok(()) => self.slots.get_mut(slot).flags |= ARMED,
            // Only the kernel's memory or its limit of watches can be short; the caller tries again in a later turn.
            Err(_) => self.end_watch(slot),
        }
    }

    fn unwatch(&mut self, slot: Slot, token: Token) {
        let entry = self.slots.get(slot);
        if entry.is(WATCHED) && entry.watch_token() == token {
            self.end_watch(slot);
            self.disarm(slot);
        }
    }

    fn end_watch(&mut self, slot: Slot) {
        let entry = self.slots.get_mut(slot);
        entry.flags = (entry.flags & !(WATCHED | ONCE)) | ENDING;
        let token = entry.watch_token();
        self.push_of(slot, ENDING, token, Outcome::WatchEnded);
    }

    /// Lets the kernel report no arrivals of this socket any more.
    fn disarm(&mut self, slot: Slot) {
        let entry = self.slots.get_mut(slot);
        if !entry.is(ARMED) {
            return;
        }
        entry.flags &= !(ARMED | UNREAD | CUT);
        let (operation, room) = if entry.is(PARKED) { (libc::EPOLL_CTL_MOD, ROOM) } else { (libc::EPOLL_CTL_DEL, 0) };
        self.control(operation, slot, room).expect(NO_MEMORY);
    }

    /// Tells a watch that something has arrived.
    #[inline]
    fn tell(&mut self, slot: Slot) {
        let entry = self.slots.get_mut(slot);
        if entry.is(READY) {
            return;
        }
        let (token, once) = (entry.watch_token(), entry.is(ONCE));
        entry.flags |= READY;
        if once {
            entry.flags &= !(WATCHED | ONCE);
        }
        self.push_of(slot, READY, token, Outcome::Ready);
    }

    fn control(&self, operation: libc::c_int, slot: Slot, events: u32) -> io::Result<()> {
        sys::epoll_control(&self.epoll, operation, self.slots.get(slot).fd(), events, event_data(OF_SLOT, slot.0))
    }

    // --- staying --------------------------------------------------------------------------------------------------

    /// Takes a socket in. One that was just given out to come back finds its place as it left it.
    fn take_in(&mut self, socket: Socket, guest: u32) -> Slot {
        let is_known = self.knows(&socket);
        let fd = socket.into_fd();
        match self.leaving.take_if(|leaving| is_known && leaving.fd == fd.as_raw_fd()) {
            Some(Leaving { slot, .. }) => {
                self.slots.refill(slot, fd, GUEST);
                self.slots.get_mut(slot).flags |= guest;
                slot
            }
            None => {
                self.let_leave();
                self.slots.insert(fd, guest)
            }
        }
    }

    /// Who was given out has not come back before something else happened: the kernel is to be silent about it. Called
    /// before another descriptor with its number may be watched, or an event be taken that would name its place.
    fn let_leave(&mut self) {
        if let Some(Leaving { slot, fd }) = self.leaving.take() {
            sys::epoll_forget(&self.epoll, fd);
            self.slots.free(slot);
        }
    }

    // --- events ---------------------------------------------------------------------------------------------------

    fn take_events(&mut self, timeout_ms: i32) -> io::Result<()> {
        let count = sys::wait(&self.epoll, &mut self.events, timeout_ms)?;
        for position in 0..count {
            let libc::epoll_event { events, u64: data } = self.events[position];
            let index = (data & u64::from(u32::MAX)) as u32;
            match (data >> 32) as u32 {
                OF_SLOT => self.on_slot_event(Slot(index), events),
                OF_LISTENER => self.on_listener_event(index as usize),
                OF_CONNECT => self.on_connect_event(index as usize),
                _ => {}
            }
        }
        Ok(())
    }

    #[inline]
    fn on_slot_event(&mut self, slot: Slot, events: u32) {
        if events & (READABLE | URGENT | ENDED | BROKEN) != 0 {
            let entry = self.slots.get_mut(slot);
            entry.flags |= UNREAD | if events & (URGENT | ENDED | BROKEN) != 0 { CUT } else { 0 };
            if entry.is(WATCHED) {
                self.tell(slot);
            }
        }
        if self.slots.get(slot).is(PARKED) && events & (WRITABLE | BROKEN) != 0 {
            self.retry_parked(slot);
        }
    }

    /// Whether a poll hands over what is at hand and does not ask the kernel: where that is little, as of one message that
    /// is received and sent on, a call for each step would take as long as the rest of it.
    fn spares_call(&mut self) -> bool {
        let spares = (1..=EPOLL_SPARING_COMPLETIONS_MAX).contains(&self.queue.len()) && self.spared < EPOLL_SPARED_MAX;
        self.spared = if spares { self.spared + 1 } else { 0 };
        spares
    }

    /// How long to wait, in the kernel's milliseconds. The clock is read here a second time only if there is a wait.
    fn timeout_ms(&self, wait: Wait) -> i32 {
        match wait {
            Wait::Until(deadline) if self.queue.is_empty() => {
                i32::try_from(deadline.saturating_sub(sys::now().monotonic_ms)).unwrap_or(i32::MAX)
            }
            _ => 0,
        }
    }
}

impl Driver for EpollDriver {
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
                let slot = self.take_in(socket, 0);
                self.push(token, Outcome::Installed(slot));
            }
            Op::Accept { listener, token } => {
                self.let_leave();
                self.accept(listener, token);
            }
            Op::StopAccepting { listener } => self.stop_accepting(listener),
            Op::Connect { local, remote, token } => {
                self.let_leave();
                self.connect(local, remote, token);
            }
        }
    }

    fn poll(&mut self, wait: Wait, max: usize, into: &mut Vec<Completion>) -> io::Result<Now> {
        self.let_leave();
        if !self.spares_call() {
            let timeout_ms = self.timeout_ms(wait);
            let sleeps = timeout_ms > 0 && self.wake.fall_asleep();
            let taken = self.take_events(if sleeps { timeout_ms } else { 0 });
            self.wake.awaken();
            taken?;
        }
        self.reap(max, into);
        Ok(sys::now())
    }

    fn attach(&mut self, socket: Socket) -> Slot {
        self.take_in(socket, GUEST)
    }

    fn detach(&mut self, slot: Slot, stays: bool) -> Socket {
        let entry = self.slots.get(slot);
        assert!(entry.is(GUEST), "only a guest is given out again");
        if stays && entry.is(ARMED) {
            self.let_leave();
            let fd = self.slots.vacate(slot);
            self.leaving = Some(Leaving { slot, fd: fd.as_raw_fd() });
            return Socket(SocketKind::Known { fd, by: self.number });
        }
        self.forget(slot);
        Socket::from(self.slots.remove(slot))
    }

    fn close(&mut self, slot: Slot) {
        self.forget(slot);
        drop(self.slots.remove(slot));
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
        self.slots.open()
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}

impl EpollDriver {
    /// Whether the kernel's set has a socket already.
    fn knows(&self, socket: &Socket) -> bool {
        matches!(socket.0, SocketKind::Known { by, .. } if by == self.number)
    }

    /// Takes a slot with nothing in flight out of the kernel's set, where a watch that has ended left it. A close alone
    /// would not do: the socket may live on elsewhere.
    fn forget(&mut self, slot: Slot) {
        assert!(!self.slots.get(slot).is(IN_FLIGHT), "a slot was let go with ops in flight");
        self.disarm(slot);
    }
}
