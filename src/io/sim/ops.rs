//! What each op does to the world.

use super::faults::Mark;
use super::lanes::{Ends, LaneKey};
use super::pipe::Parcel;
use super::station::Watch;
use super::trace::Note;
use super::world::{EndId, Event, Owner, World};
use crate::base::block::Block;
use crate::io::{Completion, Op, Outcome, Segment, Slot, Socket, SocketKind, Token};
use std::io;

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// The simulated end in a socket.
pub(super) fn end_of(socket: Socket) -> EndId {
    match socket.0 {
        SocketKind::Sim(socket) => socket.into_end(),
        SocketKind::Fd(_) | SocketKind::Known { .. } => panic!("a kernel socket was handed to the simulated driver"),
    }
}

/// Whether an op in the queue is counted nowhere else.
pub(super) fn has_no_slot(op: &Op) -> bool {
    matches!(op, Op::Accept { .. } | Op::Connect { .. } | Op::Install { .. })
}

impl World {
    /// Checks an op when it is submitted, where the caller's stack still shows who did it, and queues it.
    pub fn submit(&mut self, driver: usize, op: Op) {
        let station = &mut self.stations[driver];
        assert!(station.alive, "an op was submitted to a crashed driver");
        match &op {
            Op::Accept { listener, .. } => {
                let listener = self.listeners.get_mut(&listener.0).expect("accept on an unknown listener");
                assert!(listener.driver == driver, "accept on another driver's listener");
                assert!(!listener.accept_open, "two accepts on one listener");
                listener.accept_open = true;
            }
            Op::StopAccepting { listener } => {
                assert!(self.listeners.contains_key(&listener.0), "stop accepting on an unknown listener");
            }
            Op::Connect { .. } | Op::Install { .. } => {}
            Op::Watch { slot, .. } | Op::WatchOnce { slot, .. } => {
                let slot = station.slot(slot.0);
                assert!(!slot.watch_open, "two watches on one slot");
                slot.watch_open = true;
                // Every watch begins with reading on; a pause that comes before this op is done still counts.
                slot.reading = true;
            }
            Op::Unwatch { slot, .. } => {
                station.slot(slot.0);
            }
            Op::Receive { slot, .. } => {
                let slot = station.slot(slot.0);
                assert!(!slot.receive_open, "two receives in flight on one slot");
                slot.receive_open = true;
            }
            Op::Send { slot, segment, .. } => {
                let slot = station.slot(slot.0);
                assert!(!slot.send_open, "two sends in flight on one slot: they would reorder");
                assert!(!segment.remaining().is_empty(), "a send of nothing never completes");
                slot.send_open = true;
            }
            Op::Shutdown { slot, .. } => {
                let slot = station.slot(slot.0);
                slot.shutdowns_open += 1;
                slot.shutdown_asked = true;
            }
        }
        let station = &mut self.stations[driver];
        station.asleep_until_ms = None;
        station.queue.push_back(op);
    }

    /// Does an op.
    pub fn execute(&mut self, driver: usize, op: Op) {
        self.trace_op(driver, &op);
        match op {
            Op::Accept { listener, token } => {
                self.listeners.get_mut(&listener.0).expect("an open accept keeps its listener").accept = Some(token);
                self.accept_waiting(listener.0);
            }
            Op::StopAccepting { listener } => {
                // The accept may have ended on its own, and the listener may be closed by now: then nothing comes.
                if let Some(token) = self.listeners.get(&listener.0).and_then(|listener| listener.accept) {
                    self.end_accept(listener.0, token, None);
                }
            }
            Op::Connect { local, remote, token } => {
                self.open(Owner::Connecting { driver, token }, local, remote);
            }
            Op::Install { socket, token } => self.install(driver, socket, token),
            Op::Watch { slot, token } => self.watch(driver, slot.0, Watch { token, once: false }),
            Op::WatchOnce { slot, token } => self.watch(driver, slot.0, Watch { token, once: true }),
            Op::Unwatch { slot, token } => self.unwatch(driver, slot.0, token),
            Op::Receive { slot, block, token } => self.receive(driver, slot.0, block, token),
            Op::Send { slot, segment, more: _, token } => self.send(driver, slot.0, segment, token),
            Op::Shutdown { slot, token } => self.shutdown(driver, slot.0, token),
        }
    }

    fn install(&mut self, driver: usize, socket: Socket, token: Token) {
        let full = self.stations[driver].installed >= self.faults.slots_max;
        let key = self.op_lane(driver);
        if full || self.random.happens(self.faults.install_failure) {
            self.marks.hit(Mark::InstallFailure);
            let outcome = Outcome::InstallFailed { socket, error: errno(libc::ENFILE) };
            return self.post(driver, key, token, outcome, Ends::Nothing);
        }
        let slot = self.take_in(driver, socket, true);
        self.post(driver, key, token, Outcome::Installed(slot), Ends::Nothing);
    }

    /// Gives a socket a slot.
    pub fn take_in(&mut self, driver: usize, socket: Socket, installed: bool) -> Slot {
        let end = end_of(socket);
        assert!(self.end(end).owner == Owner::Socket, "a socket is in two places");
        let slot = self.stations[driver].add_slot(end, installed);
        self.end(end).owner = Owner::Slot { driver, slot };
        Slot(slot)
    }

    fn watch(&mut self, driver: usize, slot_id: u32, watch: Watch) {
        let slot = self.stations[driver].slot(slot_id);
        slot.watch = Some(watch);
        let end = slot.end;
        if self.readable(end) {
            self.on_readable(end);
        }
    }

    fn unwatch(&mut self, driver: usize, slot_id: u32, token: Token) {
        // The watch may have ended on its own, and the slot may be closed by now: then nothing comes.
        let Some(slot) = self.stations[driver].slots.get_mut(&slot_id) else { return };
        if slot.watch.is_some_and(|watch| watch.token == token) {
            slot.watch = None;
            self.post(driver, LaneKey::Slot(slot_id), token, Outcome::WatchEnded, Ends::Watch { slot: slot_id });
        }
    }

    fn receive(&mut self, driver: usize, slot_id: u32, mut block: Block, token: Token) {
        let end = self.stations[driver].slot(slot_id).end;
        self.chance_of_reset(end);
        let (key, ends) = (LaneKey::Slot(slot_id), Ends::Receive { slot: slot_id });
        let available = self.incoming(end).arrived().min(block.capacity());
        if available > 0 && self.fault(self.faults.late_bytes, Mark::LateBytes) {
            let outcome = Outcome::ReceiveFailed { block, error: errno(libc::EAGAIN) };
            self.post(driver, key, token, outcome, ends);
            return self.on_readable(end);
        }
        let mut take = available;
        if available > 1 && self.random.happens(self.faults.short_receive) {
            take = self.random.part_of(available - 1);
            self.marks.hit(Mark::ShortReceive);
        }
        match self.read(end, &mut block.bytes_mut()[..take]) {
            Ok(count) => {
                let readable = count > 0 && self.readable(end);
                let wrong = count > 0 && self.fault(self.faults.wrong_more, Mark::WrongMore);
                let more = readable != wrong;
                self.post(driver, key, token, Outcome::Received { block, count, more }, ends);
                // Whoever was told that there is no more waits for `Ready`.
                if readable && !more {
                    self.on_readable(end);
                }
            }
            Err(error) => self.post(driver, key, token, Outcome::ReceiveFailed { block, error }, ends),
        }
    }

    fn send(&mut self, driver: usize, slot_id: u32, segment: Segment, token: Token) {
        let end = self.stations[driver].slot(slot_id).end;
        self.chance_of_reset(end);
        self.stations[driver].slot(slot_id).blocked = Some((token, segment));
        match self.delay(self.faults.blocked_send, Mark::BlockedSend) {
            0 => {
                self.on_writable(end);
                if self.stations[driver].slot(slot_id).blocked.is_some() {
                    self.marks.hit(Mark::FullPipe);
                }
            }
            later => self.schedule(self.now_ms + later, Event::Unblock(end)),
        }
    }

    fn shutdown(&mut self, driver: usize, slot_id: u32, token: Token) {
        let slot = self.stations[driver].slot(slot_id);
        let (end, blocked) = (slot.end, slot.blocked.take());
        let key = LaneKey::Slot(slot_id);
        let done_first = blocked.is_some() && self.random.below(2) == 0;
        if done_first {
            self.post(driver, key, token, Outcome::ShutDone, Ends::Shutdown { slot: slot_id });
        }
        if let Some((token, segment)) = blocked {
            self.marks.hit(Mark::ShutdownEndedSend);
            let outcome = Outcome::SendFailed { segment, error: errno(libc::EPIPE) };
            self.post(driver, key, token, outcome, Ends::Send { slot: slot_id });
        }
        if !done_first {
            self.post(driver, key, token, Outcome::ShutDone, Ends::Shutdown { slot: slot_id });
        }
        self.end(end).shut = true;
        if !self.end(end).dead && !self.outgoing(end).fin_sent {
            self.send_parcel(end, Parcel::Fin);
        }
        self.on_readable(end);
    }

    fn chance_of_reset(&mut self, end: EndId) {
        if !self.end(end).dead && self.random.happens(self.faults.reset) {
            self.break_connection(end.connection());
        }
    }

    // --- what connections tell their slots --------------------------------------------------------------------

    /// Something that a receive would report is there.
    pub fn on_readable(&mut self, end: EndId) {
        let Owner::Slot { driver, slot: slot_id } = self.end(end).owner else { return };
        let station = &mut self.stations[driver];
        let quiet = station.level && !station.slot(slot_id).reading;
        let slot = station.slot(slot_id);
        let Some(watch) = slot.watch else { return };
        if !slot.ready_waits && (watch.once || !quiet) {
            self.say_ready(driver, slot_id, 0);
        }
    }

    /// Lets a watch say `Ready`, and perhaps end.
    pub fn say_ready(&mut self, driver: usize, slot_id: u32, delay_ms_min: u64) {
        let ends_unasked = self.fault(self.faults.watch_end, Mark::WatchEnd);
        let says_so = !ends_unasked || self.random.below(2) == 0;
        let slot = self.stations[driver].slot(slot_id);
        let watch = slot.watch.expect("only an armed watch says ready");
        let key = LaneKey::Slot(slot_id);
        let ready = Completion { token: watch.token, outcome: Outcome::Ready };
        slot.ready_waits = true;
        if watch.once || ends_unasked {
            slot.watch = None;
        }
        let delay_ms = self.delay(self.faults.completion_delay, Mark::CompletionDelay).max(delay_ms_min);
        let at_ms = self.now_ms + delay_ms;
        match (watch.once, ends_unasked) {
            (true, false) => self.post_at(driver, key, at_ms, ready, Ends::Watch { slot: slot_id }),
            (false, false) => self.post_at(driver, key, at_ms, ready, Ends::Ready { slot: slot_id }),
            (once, true) => {
                if says_so && !once {
                    self.post_at(driver, key, at_ms, ready, Ends::Ready { slot: slot_id });
                }
                let ended = Completion { token: watch.token, outcome: Outcome::WatchEnded };
                self.post_at(driver, key, at_ms, ended, Ends::Watch { slot: slot_id });
            }
        }
    }

    /// A send of that end that waits may go on, or has to fail.
    pub fn on_writable(&mut self, end: EndId) {
        if !self.connections.contains_key(&end.connection()) {
            return;
        }
        let Owner::Slot { driver, slot: slot_id } = self.end(end).owner else { return };
        let Some((token, segment)) = self.stations[driver].slot(slot_id).blocked.take() else { return };
        let wanted = segment.remaining().len().min(self.outgoing(end).room());
        let mut take = wanted.max(1);
        if wanted > 1 && self.random.happens(self.faults.short_send) {
            take = self.random.part_of(wanted - 1);
            self.marks.hit(Mark::ShortSend);
        }
        let outcome = match self.write(end, &segment.remaining()[..take]) {
            Ok(count) => Outcome::Sent { segment, count },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.stations[driver].slot(slot_id).blocked = Some((token, segment));
                return;
            }
            Err(error) => Outcome::SendFailed { segment, error },
        };
        self.post(driver, LaneKey::Slot(slot_id), token, outcome, Ends::Send { slot: slot_id });
    }

    // --- the trace --------------------------------------------------------------------------------------------

    fn trace_op(&mut self, driver: usize, op: &Op) {
        let (kind, place, token) = match op {
            Op::Accept { listener, token } => (1, listener.0, token.0),
            Op::StopAccepting { listener } => (2, listener.0, 0),
            Op::Connect { remote, token, .. } => (3, u32::from(remote.port()), token.0),
            Op::Install { token, .. } => (4, 0, token.0),
            Op::Watch { slot, token } => (5, slot.0, token.0),
            Op::WatchOnce { slot, token } => (6, slot.0, token.0),
            Op::Unwatch { slot, token } => (7, slot.0, token.0),
            Op::Receive { slot, token, .. } => (8, slot.0, token.0),
            Op::Send { slot, token, segment, .. } => {
                self.trace.bytes(segment.remaining());
                (9, slot.0, token.0)
            }
            Op::Shutdown { slot, token } => (10, slot.0, token.0),
        };
        self.trace.note(Note::Op, &[driver as u64, kind, u64::from(place), token]);
    }

    pub fn trace_completion(&mut self, driver: usize, completion: &Completion) {
        let code = |error: &io::Error| u64::from(error.raw_os_error().unwrap_or(0).unsigned_abs());
        let (kind, detail) = match &completion.outcome {
            Outcome::Accepted { peer, .. } => (1, u64::from(peer.port())),
            Outcome::AcceptEnded(error) => (2, error.as_ref().map_or(0, code)),
            Outcome::Connected(_) => (3, 0),
            Outcome::ConnectFailed(error) => (4, code(error)),
            Outcome::Installed(slot) => (5, u64::from(slot.0)),
            Outcome::InstallFailed { error, .. } => (6, code(error)),
            Outcome::Ready => (7, 0),
            Outcome::WatchEnded => (8, 0),
            Outcome::Received { block, count, .. } => {
                self.trace.bytes(&block.bytes()[..*count]);
                (9, *count as u64)
            }
            Outcome::ReceiveFailed { error, .. } => (10, code(error)),
            Outcome::Sent { count, .. } => (11, *count as u64),
            Outcome::SendFailed { error, .. } => (12, code(error)),
            Outcome::ShutDone => (13, 0),
        };
        self.trace.note(Note::Completion, &[driver as u64, completion.token.0, kind, detail, self.now_ms]);
    }
}
