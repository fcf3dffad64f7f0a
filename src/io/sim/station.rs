//! A driver's side of the world: its slots, listeners, queued ops, and when it would wake up.

use super::faults::Mark;
use super::lanes::{Ends, LaneKey, Lanes, Pending};
use super::trace::Note;
use super::world::{EndId, Event, Owner, World};
use crate::io::{Completion, Op, Outcome, Segment, Token, Wait};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Connections a listener's backlog holds, the kernel's `somaxconn`. Full: the request is lost and sent again.
const BACKLOG_MAX: usize = 4_096;
/// When a lost connection request is sent again, TCP's initial retransmission time.
const SYN_RETRY_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Listener {
    pub driver: usize,
    pub address: SocketAddr,
    pub shared: bool,
    /// Armed.
    pub accept: Option<Token>,
    /// Submitted, and its end not yet reaped.
    pub accept_open: bool,
    pub backlog: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub token: Token,
    pub once: bool,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub end: EndId,
    pub installed: bool,
    pub reading: bool,
    /// Armed.
    pub watch: Option<Watch>,
    /// Submitted, and its end not yet reaped.
    pub watch_open: bool,
    /// A `Ready` waits to be reaped; another would say nothing new.
    pub ready_waits: bool,
    pub receive_open: bool,
    pub send_open: bool,
    pub shutdowns_open: u32,
    pub shutdown_asked: bool,
    /// The send that waits for room.
    pub blocked: Option<(Token, Segment)>,
}

impl Slot {
    pub fn ops_open(&self) -> usize {
        usize::from(self.watch_open)
            + usize::from(self.receive_open)
            + usize::from(self.send_open)
            + self.shutdowns_open as usize
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Station {
    pub alive: bool,
    /// Watches repeat `Ready` while there is something to read, as epoll does; else they say so once, as io_uring.
    pub level: bool,
    pub queue: VecDeque<Op>,
    pub slots: BTreeMap<u32, Slot>,
    pub slots_made: u32,
    pub installed: usize,
    pub ops_made: u64,
    pub lanes: Lanes,
    /// Slots whose level-triggered `Ready` may have to be repeated.
    pub repeats: BTreeSet<u32>,
    pub flag: Arc<AtomicBool>,
    pub wake_at_ms: Option<u64>,
    /// A real driver would be blocked in `poll` until then; `None`: its shard is running.
    pub asleep_until_ms: Option<u64>,
}

impl Station {
    pub fn new(level: bool) -> Self {
        Self {
            alive: true,
            level,
            queue: VecDeque::new(),
            slots: BTreeMap::new(),
            slots_made: 0,
            installed: 0,
            ops_made: 0,
            lanes: Lanes::default(),
            repeats: BTreeSet::new(),
            flag: Arc::default(),
            wake_at_ms: None,
            asleep_until_ms: None,
        }
    }

    pub fn slot(&mut self, slot: u32) -> &mut Slot {
        assert!(self.alive, "a crashed driver was used");
        self.slots.get_mut(&slot).expect("the slot is unknown or was closed")
    }

    pub fn add_slot(&mut self, end: EndId, installed: bool) -> u32 {
        let slot = self.slots_made;
        self.slots_made = slot.checked_add(1).expect("a simulation opens fewer than 2³² slots");
        self.installed += usize::from(installed);
        self.slots.insert(
            slot,
            Slot {
                end,
                installed,
                reading: true,
                watch: None,
                watch_open: false,
                ready_waits: false,
                receive_open: false,
                send_open: false,
                shutdowns_open: 0,
                shutdown_asked: false,
                blocked: None,
            },
        );
        slot
    }

    /// Takes a slot out of which nothing may be in flight.
    pub fn remove_slot(&mut self, slot: u32, why: &str) -> Slot {
        let open = self.slot(slot).ops_open();
        assert!(open == 0, "{why} with {open} ops of the slot in flight");
        let removed = self.slots.remove(&slot).expect("it was there a line ago");
        self.installed -= usize::from(removed.installed);
        self.repeats.remove(&slot);
        removed
    }
}

impl World {
    // --- listeners --------------------------------------------------------------------------------------------

    pub fn listen(&mut self, driver: usize, address: SocketAddr, shared: bool) -> io::Result<(u32, SocketAddr)> {
        let id = self.listeners_made;
        let in_use = |port: u16| self.listeners.values().any(|listener| listener.address.port() == port);
        let port = match address.port() {
            0 => (1_024..10_000).find(|&port| !in_use(port)).ok_or(io::ErrorKind::AddrInUse)?,
            port => port,
        };
        let address = SocketAddr::new(address.ip(), port);
        let taken = |listener: &Listener| listener.address == address && !(listener.shared && shared);
        if self.listeners.values().any(taken) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        self.listeners_made += 1;
        let backlog = VecDeque::new();
        self.listeners.insert(id, Listener { driver, address, shared, accept: None, accept_open: false, backlog });
        Ok((id, address))
    }

    /// Closes a listener; what it had not accepted is reset.
    pub fn drop_listener(&mut self, listener: u32) {
        let removed = self.listeners.remove(&listener).expect("the listener is unknown or was closed");
        for connection in removed.backlog {
            self.reset_end(EndId(connection << 1 | 1), Mark::CloseReset);
        }
    }

    /// A connection request arrives.
    pub fn on_syn(&mut self, connection: u64) {
        let (opener, acceptor) = (EndId(connection << 1), EndId(connection << 1 | 1));
        if !self.connections.contains_key(&connection) {
            return;
        }
        if self.end(opener).owner == Owner::Closed {
            // The opener gave up; nobody will ever answer.
            return self.release(acceptor);
        }
        if matches!(self.end(opener).owner, Owner::Connecting { .. })
            && self.fault(self.faults.connect_failure, Mark::ConnectFailure)
        {
            return self.refuse(opener, libc::ETIMEDOUT);
        }
        let wanted = self.end(acceptor).address;
        let hears = |address: SocketAddr| {
            address == wanted || (address.ip().is_unspecified() && address.port() == wanted.port())
        };
        let listeners: Vec<u32> = self.listeners.iter().filter(|(_, l)| hears(l.address)).map(|(&id, _)| id).collect();
        if listeners.is_empty() {
            return self.refuse(opener, libc::ECONNREFUSED);
        }
        let listener = listeners[self.random.below(listeners.len() as u64) as usize];
        let backlog = &mut self.listeners.get_mut(&listener).expect("it was found a line ago").backlog;
        if backlog.len() >= BACKLOG_MAX {
            return self.schedule(self.now_ms + SYN_RETRY_MS, Event::Syn(connection));
        }
        backlog.push_back(connection);
        self.end(acceptor).owner = Owner::Backlog(listener);
        self.connections.get_mut(&connection).expect("looked up above").established = true;
        if let Owner::Connecting { driver, token } = self.end(opener).owner {
            let socket = self.socket(opener);
            let key = self.op_lane(driver);
            self.post(driver, key, token, Outcome::Connected(socket), Ends::Nothing);
        }
        self.accept_waiting(listener);
    }

    pub fn refuse(&mut self, opener: EndId, errno: i32) {
        self.release(opener.other());
        if let Owner::Connecting { driver, token } = self.end(opener).owner {
            let error = io::Error::from_raw_os_error(errno);
            let key = self.op_lane(driver);
            self.post(driver, key, token, Outcome::ConnectFailed(error), Ends::Nothing);
            self.release(opener);
        } else {
            let end = self.end(opener);
            end.dead = true;
            end.error = Some(errno);
        }
    }

    /// Accepts what waits while an accept is armed.
    pub fn accept_waiting(&mut self, id: u32) {
        while let Some(listener) = self.listeners.get_mut(&id)
            && let Some(token) = listener.accept
            && let Some(&connection) = listener.backlog.front()
        {
            let driver = listener.driver;
            if self.fault(self.faults.accept_emfile, Mark::AcceptEmfile) {
                let error = io::Error::from_raw_os_error(libc::EMFILE);
                return self.end_accept(id, token, Some(error));
            }
            self.listeners.get_mut(&id).expect("looked up above").backlog.pop_front();
            let acceptor = EndId(connection << 1 | 1);
            let peer = self.end(acceptor.other()).address;
            let socket = self.socket(acceptor);
            self.post(driver, LaneKey::Listener(id), token, Outcome::Accepted { socket, peer }, Ends::Nothing);
        }
    }

    pub fn end_accept(&mut self, id: u32, token: Token, error: Option<io::Error>) {
        let listener = self.listeners.get_mut(&id).expect("an accept belongs to an open listener");
        listener.accept = None;
        let driver = listener.driver;
        let ends = Ends::Accept { listener: id };
        self.post(driver, LaneKey::Listener(id), token, Outcome::AcceptEnded(error), ends);
    }

    pub fn op_lane(&mut self, driver: usize) -> LaneKey {
        self.stations[driver].ops_made += 1;
        LaneKey::Op(self.stations[driver].ops_made)
    }

    // --- waiting ----------------------------------------------------------------------------------------------

    /// Looks at the driver's wake flag; a wake may take its time.
    fn notice_wake(&mut self, driver: usize) {
        let station = &self.stations[driver];
        if station.alive && station.wake_at_ms.is_none() && station.flag.load(Ordering::Acquire) {
            let at_ms = self.now_ms + self.delay(self.faults.wake_delay, Mark::WakeDelay);
            self.stations[driver].wake_at_ms = Some(at_ms);
        }
    }

    /// When a real driver's `poll` would return: now, if its shard is running.
    pub fn due_ms(&mut self, driver: usize) -> Option<u64> {
        self.notice_wake(driver);
        let station = &self.stations[driver];
        if !station.alive {
            return None;
        }
        let Some(until_ms) = station.asleep_until_ms else { return Some(self.now_ms) };
        let first = [station.lanes.next_ms(), station.wake_at_ms].into_iter().flatten().fold(until_ms, u64::min);
        Some(first.max(self.now_ms))
    }

    /// The whole of `Driver::poll`.
    pub fn poll(&mut self, driver: usize, wait: Wait, max: usize, into: &mut Vec<Completion>) {
        assert!(self.stations[driver].alive, "a crashed driver was polled");
        self.collect_dropped();
        while let Some(op) = self.stations[driver].queue.pop_front() {
            self.execute(driver, op);
        }
        self.repeat_ready(driver);
        self.spurious_ready(driver);
        self.notice_wake(driver);
        let woken = self.stations[driver].wake_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms);
        if woken {
            self.stations[driver].wake_at_ms = None;
            self.stations[driver].flag.store(false, Ordering::Release);
        }
        let mut reaped = 0;
        while reaped < max {
            if reaped > 0 && self.fault(self.faults.short_reap, Mark::ShortReap) {
                break;
            }
            let (now_ms, tie) = (self.now_ms, self.tie());
            let Some(pending) = self.stations[driver].lanes.pop(now_ms, tie) else { break };
            into.push(self.deliver(driver, pending));
            reaped += 1;
        }
        self.stations[driver].asleep_until_ms = match wait {
            Wait::Until(until_ms) if until_ms > self.now_ms && reaped == 0 && !woken => Some(until_ms),
            _ => None,
        };
        self.trace.note(Note::Poll, &[driver as u64, self.now_ms, reaped as u64, u64::from(woken)]);
    }

    /// Settles the accounts of a completion that leaves.
    fn deliver(&mut self, driver: usize, pending: Pending) -> Completion {
        self.trace_completion(driver, &pending.completion);
        let station = &mut self.stations[driver];
        let (slot, late) = match pending.ends {
            Ends::Nothing => return pending.completion,
            Ends::Accept { listener } => {
                self.listeners.get_mut(&listener).expect("an open accept keeps its listener").accept_open = false;
                return pending.completion;
            }
            Ends::Ready { slot } => {
                station.slot(slot).ready_waits = false;
                (slot, false)
            }
            Ends::Watch { slot } => {
                station.slot(slot).watch_open = false;
                station.slot(slot).ready_waits = false;
                (slot, false)
            }
            Ends::Receive { slot } => {
                station.slot(slot).receive_open = false;
                (slot, true)
            }
            Ends::Send { slot } => {
                station.slot(slot).send_open = false;
                (slot, true)
            }
            Ends::Shutdown { slot } => {
                station.slot(slot).shutdowns_open -= 1;
                (slot, false)
            }
        };
        if station.level {
            station.repeats.insert(slot);
        }
        if late && station.slot(slot).shutdown_asked {
            self.marks.hit(Mark::LateCompletion);
        }
        pending.completion
    }

    /// A level-triggered watch says again what is still so, a millisecond later: the turn that ignores it spins, as
    /// it would on epoll, but virtual time goes on.
    fn repeat_ready(&mut self, driver: usize) {
        for slot_id in core::mem::take(&mut self.stations[driver].repeats) {
            let slot = self.stations[driver].slot(slot_id);
            let (end, busy) = (slot.end, slot.receive_open || slot.ready_waits);
            let armed = slot.watch.is_some_and(|watch| !watch.once) && slot.reading;
            if armed && !busy && self.readable(end) {
                self.say_ready(driver, slot_id, 1);
            }
        }
    }

    fn spurious_ready(&mut self, driver: usize) {
        if self.stations[driver].slots.is_empty() || !self.random.happens(self.faults.spurious_ready) {
            return;
        }
        let from = self.random.below(u64::from(self.stations[driver].slots_made)) as u32;
        let found = self.stations[driver].slots.range(from..).next();
        if let Some((&slot_id, slot)) = found
            && slot.watch.is_some()
            && !slot.ready_waits
            && slot.reading
        {
            self.marks.hit(Mark::SpuriousReady);
            self.say_ready(driver, slot_id, 0);
        }
    }
}
