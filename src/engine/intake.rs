//! Bytes in. A ready connection borrows a receive block; what its handler uses not is copied into the smallest block
//! that holds it, and offered again, grown.
//!
//! ```text
//!   Ready ─► READY ─► queue ─► receive in flight ─► offer ─► all used: block back
//!                       │  no block: starved          │    ─► some left: held (exact class)
//!   resume ─► REOFFER ──┘                             └ paused: held, READY kept; resume goes on from there
//! ```

use super::table::{NONE, Purpose, State, flag, key, token};
use super::unpack::Unpacking;
use super::{Close, CloseCause, Core, Engine, Handler, Room};
use crate::base::block::{Block, BlockPool};
use crate::base::ids::ConnectionId;
use crate::base::transform::{Inbound, Passage, Reply, Shield, TAIL_BYTES_MAX, Transform};
use crate::io::{Driver, Op};
use crate::limits::{PACKET_BYTES_CEILING, RECEIVE_BLOCK_BYTES, RECEIVES_IN_FLIGHT_MAX, TURN_COSTLY_MAX};
use std::io;

/// Bytes that arrived and were not used.
#[derive(Debug)]
pub(super) struct Held {
    block: Block,
    start: u32,
    /// Up to here they are plain. Without a transform all are.
    plain: u32,
    /// From there on so many have been turned and are packed; the rest waits for its transform.
    packed: u32,
    /// They are a whole message.
    is_whole: bool,
    end: u32,
}

/// How far bytes that were received have been turned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turned {
    /// So many are plain.
    pub plain: usize,
    /// So many behind them are of a packed message.
    pub packed: usize,
    /// They are all of it.
    pub is_whole: bool,
}

pub(super) fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("blocks are shorter than 4 GiB")
}

impl Held {
    fn received(block: Block, count: usize) -> Self {
        Self { block, start: 0, plain: 0, packed: 0, is_whole: false, end: offset(count) }
    }
    pub fn copied(mut block: Block, bytes: &[u8], turned: Turned) -> Self {
        block.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        let Turned { plain, packed, is_whole } = turned;
        Self { block, start: 0, plain: offset(plain), packed: offset(packed), is_whole, end: offset(bytes.len()) }
    }
    fn turned(&self) -> Turned {
        Turned { plain: self.plain_len(), packed: self.packed as usize, is_whole: self.is_whole }
    }
    fn bytes(&self) -> &[u8] {
        &self.block.bytes()[self.start as usize..self.end as usize]
    }
    fn plain(&self) -> &[u8] {
        &self.block.bytes()[self.start as usize..self.plain as usize]
    }
    fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
    fn plain_len(&self) -> usize {
        (self.plain - self.start) as usize
    }
    /// The same in another block, at its start.
    fn moved(self, block: Block) -> (Self, Block) {
        (Self::copied(block, self.bytes(), self.turned()), self.block)
    }
    /// The plain bytes, the packed ones, and those that were not turned.
    pub fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let (plain, others) = self.bytes().split_at(self.plain_len());
        let (packed, unread) = others.split_at(self.packed as usize);
        (plain, packed, unread)
    }
    /// In a block that has more plain bytes in place of the packed ones.
    pub fn unpacked(block: Block, plain: usize, end: usize) -> Self {
        Self { block, start: 0, plain: offset(plain), packed: 0, is_whole: false, end: offset(end) }
    }
}

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// Says how long the frame at the start of the unused bytes is, so that it is offered again when it is whole and
    /// not before. Longer than [`super::Settings::frame_bytes_max`]: the connection is closed.
    pub fn expect(&mut self, id: ConnectionId, bytes: usize) {
        let frame_bytes_max = self.settings.frame_bytes_max;
        let Some(connection) = self.table.get_mut(key(id)) else { return };
        if bytes > frame_bytes_max {
            self.terminate(id, CloseCause::FrameTooLong);
        } else {
            connection.expect = u32::try_from(bytes).expect("frames are shorter than 4 GiB");
        }
    }

    /// Reads no more from it until [`Core::resume_reading`]; bytes already received are kept and not offered.
    pub fn pause_reading(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state != State::Terminated) else { return };
        if connection.newly(flag::PAUSED) && !connection.has(flag::GUEST) && connection.has(flag::WATCHING) {
            let slot = connection.open_slot();
            self.driver.set_reading(slot, false);
        }
    }

    /// Whether it is paused.
    pub fn is_paused(&self, id: ConnectionId) -> bool {
        self.table.get(key(id)).is_some_and(|c| c.has(flag::PAUSED))
    }

    /// Goes on reading; what is held is offered before anything is received, within this turn or the next.
    pub fn resume_reading(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state != State::Terminated) else { return };
        if !connection.has(flag::PAUSED) {
            return;
        }
        connection.clear(flag::PAUSED);
        if connection.held != NONE {
            connection.set(flag::REOFFER);
        }
        if !connection.has(flag::GUEST)
            && let Some(slot) = connection.slot
        {
            self.driver.set_reading(slot, true);
        }
        self.read_on(id);
    }

    /// Does what reading needs next: wait in line for an offer or a receive, or for readiness.
    pub(super) fn read_on(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state == State::Open) else { return };
        let wants = !connection.has(flag::PAUSED | flag::RECEIVING) && connection.has(flag::READY | flag::REOFFER);
        if wants && connection.newly(flag::QUEUED) {
            self.ready.push_back(id);
        }
        self.arm(id);
    }

    /// Watches the connection, if nothing does: a guest only while it is waited for, others for good.
    pub(super) fn arm(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state == State::Open) else { return };
        if connection.has(flag::WATCHING | flag::PAUSED) {
            return;
        }
        let (slot, token) = (connection.open_slot(), token(Purpose::Watch, id));
        if !connection.has(flag::GUEST) {
            connection.set(flag::WATCHING);
            self.driver.submit(Op::Watch { slot, token });
        } else if !connection.has(flag::RECEIVING | flag::QUEUED | flag::READY) {
            connection.set(flag::WATCHING);
            self.driver.submit(Op::WatchOnce { slot, token });
        }
    }

    /// Something may have arrived. A receive in flight may have missed it, so it will be followed by another.
    pub(super) fn on_ready(&mut self, id: ConnectionId) {
        let connection = self.table.at_mut(id.index);
        if connection.has(flag::GUEST) {
            connection.clear(flag::WATCHING);
        }
        if connection.state != State::Open {
            self.ending.push_back(id);
            return;
        }
        connection.set(flag::READY);
        if !connection.has(flag::RECEIVING) {
            self.read_on(id);
        }
    }

    /// The watch is gone: asked for, or to be armed again.
    pub(super) fn on_watch_ended(&mut self, id: ConnectionId) {
        let connection = self.table.at_mut(id.index);
        connection.clear(flag::WATCHING);
        if connection.state == State::Open {
            self.arm(id);
        } else {
            self.ending.push_back(id);
        }
    }

    /// A block for bytes that stay: leaves room for control frames and receives.
    pub(super) fn take_data_block(&mut self, bytes: usize) -> Option<Block> {
        self.pool.take_leaving(bytes, self.pool_reserve + self.payloads.bytes())
    }

    pub(super) fn insert_held(&mut self, held: Held) -> u32 {
        self.helds.insert(held).expect("there is a place for each connection").index
    }

    /// Gives held bytes back to the pool; a copy of them, and how far they have been turned.
    pub(super) fn drop_held(&mut self, index: u32) -> (Box<[u8]>, Turned) {
        let held = self.helds.remove_at(index);
        let (bytes, turned) = (held.bytes().into(), held.turned());
        self.pool.give(held.block);
        (bytes, turned)
    }

    pub(super) fn give_held(&mut self, held: Held) {
        self.pool.give(held.block);
    }

    /// Whether as many connections wait to be read as one turn receives from, or more.
    pub fn is_behind(&self) -> bool {
        self.ready.len() >= RECEIVES_IN_FLIGHT_MAX
    }

    /// Whether a receive could start now.
    pub(super) fn can_receive(&self) -> bool {
        self.receives_in_flight < RECEIVES_IN_FLIGHT_MAX && self.pool.bytes_left() >= RECEIVE_BLOCK_BYTES
    }

    /// Puts new bytes behind held ones. `None`: there is no room, and the connection is closed.
    fn join(&mut self, id: ConnectionId, index: u32, block: Block, count: usize) -> Option<Held> {
        let mut held = self.helds.remove_at(index);
        let total = held.len() + count;
        if total > self.settings.frame_bytes_max + TAIL_BYTES_MAX + RECEIVE_BLOCK_BYTES {
            self.give_both(held.block, block);
            self.terminate(id, CloseCause::FrameTooLong);
            return None;
        }
        if held.block.capacity() < total {
            let wanted = total.max(self.table.at(id.index).expect as usize);
            let Some(larger) = self.take_data_block(wanted) else {
                self.give_both(held.block, block);
                self.terminate(id, CloseCause::OutOfBlocks);
                return None;
            };
            let (moved, smaller) = held.moved(larger);
            held = moved;
            self.pool.give(smaller);
        } else if held.start > 0 && held.end as usize + count > held.block.capacity() {
            held.block.bytes_mut().copy_within(held.start as usize..held.end as usize, 0);
            held.plain -= held.start;
            held.end -= held.start;
            held.start = 0;
        }
        let end = held.end as usize;
        held.block.bytes_mut()[end..end + count].copy_from_slice(&block.bytes()[..count]);
        held.end += offset(count);
        self.pool.give(block);
        Some(held)
    }

    fn give_both(&mut self, a: Block, b: Block) {
        self.pool.give(a);
        self.pool.give(b);
    }

    /// Keeps what was not used, in the smallest block that holds it, or what is expected of it.
    fn hold(&mut self, id: ConnectionId, held: Held) {
        let alive = self.table.get(key(id)).filter(|c| c.state != State::Terminated);
        let Some(connection) = alive.filter(|_| held.len() > 0) else {
            self.pool.give(held.block);
            return;
        };
        let wanted = held.len().max(connection.expect as usize);
        if BlockPool::class_of(wanted) == Some(held.block.capacity()) {
            let index = self.insert_held(held);
            self.table.at_mut(id.index).held = index;
            return;
        }
        let kept = match self.take_data_block(wanted) {
            Some(exact) => {
                let (copy, larger) = held.moved(exact);
                self.pool.give(larger);
                copy
            }
            // Little is left: a block that is larger than need be may stay, unless receives would starve.
            None if held.block.capacity() >= wanted && self.pool.bytes_left() >= self.pool_reserve / 2 => held,
            None => {
                self.pool.give(held.block);
                self.terminate(id, CloseCause::OutOfBlocks);
                return;
            }
        };
        let index = self.insert_held(kept);
        self.table.at_mut(id.index).held = index;
    }
}

const _: () = assert!(PACKET_BYTES_CEILING + TAIL_BYTES_MAX + RECEIVE_BLOCK_BYTES <= super::outbox::BLOCK_BYTES_MAX);

impl<D: Driver, H: Handler<D>> Engine<D, H> {
    /// Offers held bytes and starts receives, for those whose turn it is.
    pub(super) fn read_ready(&mut self) {
        self.core.costly_left = TURN_COSTLY_MAX;
        for _ in 0..self.core.costly.len().min(TURN_COSTLY_MAX) {
            let Some(id) = self.core.costly.pop_front() else { break };
            self.read_one(id);
        }
        while self.core.can_receive() {
            let Some(id) = self.core.starved.pop_front() else { break };
            self.read_one(id);
        }
        for _ in 0..self.core.ready.len() {
            if self.core.receives_in_flight >= RECEIVES_IN_FLIGHT_MAX {
                break;
            }
            let Some(id) = self.core.ready.pop_front() else { break };
            self.read_one(id);
        }
    }

    fn read_one(&mut self, id: ConnectionId) {
        let Some(connection) = self.core.table.get_mut(key(id)) else { return };
        connection.clear(flag::QUEUED);
        if connection.state != State::Open || connection.has(flag::PAUSED | flag::RECEIVING) {
            return;
        }
        if connection.has(flag::REOFFER) {
            connection.clear(flag::REOFFER);
            let index = core::mem::replace(&mut connection.held, NONE);
            if index != NONE {
                let held = self.core.helds.remove_at(index);
                self.offer(id, held);
            }
        }
        self.core.receive(id);
    }

    /// Bytes have arrived, or the peer has ended.
    pub(super) fn on_received(&mut self, id: ConnectionId, block: Block, count: usize, more: bool) {
        let core = &mut self.core;
        core.receives_in_flight -= 1;
        let connection = core.table.at_mut(id.index);
        connection.clear(flag::RECEIVING);
        if !matches!(connection.state, State::Open | State::Departing) {
            core.pool.give(block);
            core.ending.push_back(id);
            return;
        }
        if count == 0 {
            core.pool.give(block);
            core.terminate(id, CloseCause::PeerEnded);
            return;
        }
        if more {
            connection.set(flag::READY);
        }
        let index = core::mem::replace(&mut connection.held, NONE);
        core.totals.receives += 1;
        core.totals.bytes_received += count as u64;
        let held = if index == NONE { Some(Held::received(block, count)) } else { core.join(id, index, block, count) };
        if let Some(held) = held {
            self.offer(id, held);
        }
        self.core.after_receive(id);
    }

    /// Nothing arrived, or the connection is dead.
    pub(super) fn on_receive_failed(&mut self, id: ConnectionId, block: Block, error: &io::Error) {
        let core = &mut self.core;
        core.receives_in_flight -= 1;
        core.pool.give(block);
        let connection = core.table.at_mut(id.index);
        connection.clear(flag::RECEIVING);
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
            core.after_receive(id);
        } else {
            core.broken(id, error);
        }
    }

    /// Shows the handler what there is, turned by the connection's transform, and keeps the rest.
    fn offer(&mut self, id: ConnectionId, mut held: Held) {
        let core = &mut self.core;
        while core.is_read(id) {
            if core.comes_later(id) {
                core.hold(id, held);
                core.wait_for_turn(id);
                return;
            }
            let had_transform = core.has_transform(id);
            let inbound = core.turn_inbound(id, &mut held);
            let Some(connection) = core.table.get_mut(key(id)).filter(|c| c.state == State::Open) else { break };
            if held.plain_len() > 0 && held.plain_len() >= connection.expect as usize {
                connection.expect = 0;
                let used = self.handler.on_bytes(core, id, held.plain());
                assert!(used <= held.plain_len(), "a handler used more bytes than there were");
                held.start += offset(used);
            }
            if !had_transform && core.has_transform(id) {
                // What follows is the transform's, and was not turned yet.
                held.plain = held.start;
                continue;
            }
            if core.take_changed(id) {
                core.put_back(id, &mut held);
                continue;
            }
            match inbound {
                // What is plain before it has been used, so far as it can be.
                Inbound::Packed if core.is_read(id) => match core.unpack(id, held) {
                    Unpacking::Done(unpacked) => {
                        held = unpacked;
                        continue;
                    }
                    Unpacking::Later(packed) => {
                        core.hold(id, packed);
                        core.wait_in_line(id);
                        return;
                    }
                    Unpacking::Refused => return,
                },
                Inbound::Packed => {}
                Inbound::End { fault } => core.ended_by_peer(id, &mut held, fault),
                Inbound::Broken => core.close(id, Close::AfterFlush, CloseCause::BadRecords),
                Inbound::Done | Inbound::Reply => {}
            }
            break;
        }
        self.core.hold(id, held);
    }
}

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// Lets the connection's transform turn what it can, and sends what it replies. Without one all is plain.
    fn turn_inbound(&mut self, id: ConnectionId, held: &mut Held) -> Inbound {
        let transform = self.table.at(id.index).transform;
        if transform == NONE {
            held.plain = held.end;
            return Inbound::Done;
        }
        if held.is_whole {
            return Inbound::Packed;
        }
        let (mut at, mut reply) = (self.passage(held), Reply::default());
        let was_rising = self.transforms.at_mut(transform).shield() == Shield::Rising;
        let inbound = loop {
            let bytes = &mut held.block.bytes_mut()[..held.end as usize];
            match self.transforms.at_mut(transform).inbound(bytes, &mut at, &mut reply) {
                Inbound::Reply if self.say(id, &mut reply) => {}
                // It does not read, or there is no block: it has been closed.
                Inbound::Reply => break Inbound::Done,
                done => break done,
            }
        };
        if inbound == Inbound::Broken {
            // Should it not be taken, the connection has been closed without it.
            self.say(id, &mut reply);
        }
        if was_rising && self.transforms.at_mut(transform).shield() == Shield::Up {
            self.send_waiting(id);
        }
        held.block.bytes_mut().copy_within(at.read..held.end as usize, at.write);
        held.plain = offset(at.write - at.packed);
        held.packed = offset(at.packed);
        held.is_whole = inbound == Inbound::Packed;
        held.end -= offset(at.read - at.write);
        inbound
    }

    /// Where the transform goes on. A packed message is taken up to what it may become.
    fn passage(&self, held: &Held) -> Passage {
        let packed = held.packed as usize;
        Passage { packed, packed_max: self.unpacked_bytes_max(), ..Passage::at(held.plain as usize + packed) }
    }

    /// Whether its handler wants its bytes.
    fn is_read(&self, id: ConnectionId) -> bool {
        self.table.get(key(id)).is_some_and(|c| c.state == State::Open && !c.has(flag::PAUSED))
    }

    /// The transform has said that the peer ends, and all that came before has been used, unless the handler is not
    /// done with it: then this comes again when it goes on reading.
    fn ended_by_peer(&mut self, id: ConnectionId, held: &mut Held, fault: bool) {
        if !self.is_read(id) {
            return;
        }
        let transform = self.table.at(id.index).transform;
        let (mut at, mut reply) = (self.passage(held), Reply::default());
        let bytes = &mut held.block.bytes_mut()[..held.end as usize];
        let again = self.transforms.at_mut(transform).inbound(bytes, &mut at, &mut reply);
        assert!(again == Inbound::End { fault }, "an end is said until it is acted on");
        if self.say(id, &mut reply) {
            self.close(id, Close::AfterFlush, if fault { CloseCause::Misframed } else { CloseCause::PeerEnded });
        }
    }
}

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// Sends what a transform says by itself. Whether the connection is still open.
    pub(super) fn say(&mut self, id: ConnectionId, reply: &mut Reply) -> bool {
        let records = reply.records.is_empty() || self.write_records(id, &reply.records).is_ok();
        let said = records && (reply.bytes().is_empty() || self.write_raw(id, Room::Control, reply.bytes()).is_ok());
        reply.clear();
        said
    }

    /// Whether what its transform has to do next has to wait for another turn, which has done enough of it.
    fn comes_later(&mut self, id: ConnectionId) -> bool {
        let transform = self.table.at(id.index).transform;
        if transform == NONE || !self.transforms.at_mut(transform).is_costly() {
            return false;
        }
        let later = self.costly_left == 0;
        self.costly_left -= usize::from(!later);
        later
    }

    /// Comes again when the others that are ready have had their turn, with what is held.
    fn wait_in_line(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state == State::Open) else { return };
        connection.set(flag::REOFFER);
        if connection.newly(flag::QUEUED) {
            self.ready.push_back(id);
        }
    }

    /// Comes again in the next turn, with what is held.
    fn wait_for_turn(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state == State::Open) else { return };
        connection.set(flag::REOFFER | flag::QUEUED);
        self.totals.costly_waits += 1;
        self.costly.push_back(id);
    }

    /// Whether a layer was put upon its transform since this was asked.
    fn take_changed(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.has(flag::CHANGED)) else { return false };
        connection.clear(flag::CHANGED);
        true
    }

    /// What the handler has left is turned once more, by the layer that has come between.
    fn put_back(&mut self, id: ConnectionId, held: &mut Held) {
        let transform = self.table.at(id.index).transform;
        self.transforms.at_mut(transform).put_back(held.plain_len());
        held.plain = held.start;
    }

    /// Starts a receive of a connection that may have something, or waits until it may.
    fn receive(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state == State::Open) else { return };
        if connection.has(flag::PAUSED | flag::RECEIVING | flag::QUEUED) {
            return;
        }
        if !connection.has(flag::READY) {
            self.arm(id);
            return;
        }
        let Some(block) = self.pool.take(RECEIVE_BLOCK_BYTES) else {
            connection.set(flag::QUEUED);
            self.totals.starved += 1;
            self.starved.push_back(id);
            return;
        };
        connection.clear(flag::READY);
        connection.set(flag::RECEIVING);
        self.receives_in_flight += 1;
        let slot = connection.open_slot();
        self.driver.submit(Op::Receive { slot, block, token: token(Purpose::Receive, id) });
    }

    fn after_receive(&mut self, id: ConnectionId) {
        match self.table.get(key(id)).map(|c| c.state) {
            Some(State::Open) => self.read_on(id),
            Some(_) => self.ending.push_back(id),
            None => {}
        }
    }
}
