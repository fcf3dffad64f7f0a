//! Bytes out. What a turn writes to a connection is copied into one pooled block and leaves in one send.
//!
//! ```text
//!   write ──► filling (512 → 4,096 → … 65,536, copied as it grows) ─┐ flush, once a turn, if no send is in flight
//!   write_shared ──► closes the filling block, then the payload ────┴─► queue of segments ──► one Send ──► Sent
//! ```
//! The outbox itself is taken from a side slab at the first write and given back when all is sent. Where a connection
//! has a transform a filling block keeps room for its head at the front, which is written when the block is sealed: then
//! it is known how much the head is for. What is framed already, such as what the transform itself says, ends that frame
//! and leaves as it is (see `framed`); what follows begins another one, in the same block.
//!
//! Where the transform makes records (see `records`), it makes them of a segment when that is about to be sent: the order
//! in which they are made is the order in which they leave.

use super::table::{Connection, NONE, Purpose, State, flag, key, token};
use super::{CloseCause, Core, Engine, Handler};
use crate::base::block::Block;
use crate::base::ids::ConnectionId;
use crate::base::slab::Slab;
use crate::base::transform::{HEAD_BYTES_MAX, Shield, Transform};
use crate::io::{Driver, Op, Segment};
use crate::limits::{BLOCK_CLASSES, COALESCE_BYTES_MAX, SHARED_SEGMENT_BYTES_MIN, TURN_SENDS_MAX};
use bytes::Bytes;
use std::io;

/// The largest block.
pub(super) const BLOCK_BYTES_MAX: usize = BLOCK_CLASSES[BLOCK_CLASSES.len() - 1];

/// Which room a write uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Messages: refused when the outbox is full.
    Data,
    /// Messages of QoS 0: when memory is short they are refused first, where much is waiting already.
    Spare,
    /// Acknowledgements, pings, disconnects: have their own room. A peer that leaves even that full is closed.
    Control,
}

/// Why a write was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No room; the slow-consumer policy is the caller's.
    Full,
    /// The connection is closing or gone, or not open yet.
    Gone,
}

/// A connection's output.
#[derive(Debug)]
pub(super) struct Outbox {
    /// What writes are copied into; behind all queued segments.
    pub(super) filling: Option<Block>,
    pub(super) filled: u32,
    /// Queued segments, by index, oldest first.
    pub(super) first: u32,
    pub(super) last: u32,
    /// Everything not yet known to be sent, what is in flight included.
    pub(super) bytes: u32,
    /// Index of the connection's transform, or `NONE`: then a frame is open in the filling block, room for whose head is
    /// kept,
    pub(super) transform: u32,
    /// here,
    pub(super) frame_at: u32,
    /// unless what was filled last is to leave as it is.
    pub(super) raw: bool,
    /// Whose it is.
    pub owner: ConnectionId,
}

impl Outbox {
    fn new(transform: u32, owner: ConnectionId) -> Self {
        Self { filling: None, filled: 0, first: NONE, last: NONE, bytes: 0, transform, frame_at: 0, raw: false, owner }
    }

    /// What waits in it.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// The connection has a transform from now on; what was written before leaves as it is.
    pub fn transformed_by(&mut self, transform: u32) {
        self.transform = transform;
        self.raw = self.filling.is_some();
    }
}

/// What is to be sent next.
#[derive(Debug)]
pub(super) struct Next {
    pub segment: Segment,
    /// Whether more follows.
    pub more: bool,
}

/// A segment in line.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) segment: Segment,
    pub(super) next: u32,
    /// It consists of records already.
    pub(super) is_records: bool,
}

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// Writes exactly `len` bytes, by `fill`, into the block that this turn sends. The hot path of all output.
    #[inline]
    pub fn write(
        &mut self,
        id: ConnectionId,
        room: Room,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Refused> {
        if len == 0 {
            return Ok(());
        }
        let index = self.outbox_with_room(id, room, len)?;
        let outbox = self.outboxes.at_mut(index);
        let start = outbox.filled as usize;
        let has_room = !outbox.raw && outbox.filling.as_ref().is_some_and(|block| block.capacity() - start >= len);
        let outbox = if has_room {
            outbox
        } else {
            self.make_room(id, index, room, len)?;
            self.outboxes.at_mut(index)
        };
        let start = outbox.filled as usize;
        let block = outbox.filling.as_mut().expect("there is a block with room");
        fill(&mut block.bytes_mut()[start..start + len]);
        outbox.filled += len as u32;
        outbox.bytes += len as u32;
        self.totals.writes += 1;
        Ok(())
    }

    /// Writes bytes that are there already.
    pub fn write_bytes(&mut self, id: ConnectionId, room: Room, bytes: &[u8]) -> Result<(), Refused> {
        self.write(id, room, bytes.len(), |into| into.copy_from_slice(bytes))
    }

    /// Writes a payload that many connections get: copied if it is short, else by reference.
    pub fn write_shared(&mut self, id: ConnectionId, room: Room, payload: &Bytes) -> Result<(), Refused> {
        if payload.len() < SHARED_SEGMENT_BYTES_MIN {
            return self.write_bytes(id, room, payload);
        }
        let index = self.outbox_with_room(id, room, payload.len())?;
        // One place each for what is filled raw, for the filling block, and for the payload.
        if self.segments.max() as usize - self.segments.len() < 3 || !self.has_memory_for(room, payload) {
            return Err(self.refuse(id, room));
        }
        let outbox = self.outboxes.at(index);
        if outbox.transform != NONE && (outbox.raw || outbox.filling.is_none()) {
            self.make_room(id, index, room, 0)?;
        }
        self.queue_filling(index, payload.len());
        self.payloads.take(payload);
        self.queue_segment(index, Segment::Shared(payload.clone()));
        self.outboxes.at_mut(index).bytes += payload.len() as u32;
        self.totals.writes += 1;
        Ok(())
    }

    /// Bytes not yet known to be sent.
    pub fn outbox_bytes(&self, id: ConnectionId) -> usize {
        let outbox = self.table.get(key(id)).map_or(NONE, |c| c.outbox);
        if outbox == NONE { 0 } else { self.outboxes.at(outbox).bytes as usize }
    }

    /// Bytes of data that may be written now.
    pub fn outbox_room(&self, id: ConnectionId) -> usize {
        self.settings.outbox_bytes_max.saturating_sub(self.outbox_bytes(id))
    }

    /// Whether so many bytes would be within the bound of its outbox.
    pub fn has_outbox_room(&self, id: ConnectionId, room: Room, bytes: usize) -> bool {
        self.outbox_bytes(id) + bytes <= self.outbox_bytes_max(room)
    }

    /// Whether a head of so many bytes and the payload behind it would be taken.
    pub fn has_room_for(&self, id: ConnectionId, room: Room, head: usize, payload: &Bytes) -> bool {
        self.has_outbox_room(id, room, head + payload.len()) && self.has_memory_for(room, payload)
    }

    /// Asks for one [`Handler::on_drained`], when the outbox is low and less than now is in it: what was refused may be
    /// large. `false`: it is empty already, nothing will be told.
    pub fn ask_drained(&mut self, id: ConnectionId) -> bool {
        if self.outbox_bytes(id) == 0 {
            return false;
        }
        self.table.get_mut(key(id)).expect("it has an outbox").set(flag::TELL_DRAINED);
        true
    }

    /// The connection's outbox, if `len` more bytes are within its bound; marks it to be flushed.
    #[inline]
    pub(super) fn outbox_with_room(&mut self, id: ConnectionId, room: Room, len: usize) -> Result<u32, Refused> {
        let connection = self.table.get_mut(key(id)).filter(|c| c.state == State::Open).ok_or(Refused::Gone)?;
        let index = take_outbox(&mut self.outboxes, connection, id);
        if !connection.has(flag::SENDING) && connection.newly(flag::DIRTY) {
            self.dirty.push_back(id);
        }
        if self.outboxes.at(index).bytes as usize + len > self.outbox_bytes_max(room) {
            return Err(self.refuse(id, room));
        }
        Ok(index)
    }

    /// The connection's outbox, which it has from now on.
    pub(super) fn outbox_of(&mut self, id: ConnectionId) -> u32 {
        take_outbox(&mut self.outboxes, self.table.at_mut(id.index), id)
    }

    /// Says no to data; a connection that has no room for control frames is closed.
    #[cold]
    pub(super) fn refuse(&mut self, id: ConnectionId, room: Room) -> Refused {
        match room {
            Room::Data | Room::Spare => {
                self.totals.refused += 1;
                Refused::Full
            }
            Room::Control => {
                self.terminate(id, CloseCause::DoesNotRead);
                Refused::Gone
            }
        }
    }

    /// Gives the outbox a filling block with `len` bytes free: a larger one with the same content while that stays
    /// cheap, else a new one behind the old.
    fn make_room(&mut self, id: ConnectionId, index: u32, room: Room, len: usize) -> Result<(), Refused> {
        let outbox = self.outboxes.at_mut(index);
        let head_bytes = if outbox.transform == NONE { 0 } else { T::HEAD_BYTES };
        let filled = outbox.filled as usize;
        let begins_frame = outbox.raw && head_bytes > 0;
        let needed = filled + if begins_frame { head_bytes } else { 0 } + len;
        if outbox.filling.is_none() || needed > COALESCE_BYTES_MAX {
            if head_bytes > 0 && head_bytes + len > BLOCK_BYTES_MAX {
                return self.make_room_for_largest(id, index, room, len);
            }
            self.start_block(id, index, room, head_bytes + len)?;
            self.outboxes.at_mut(index).filled = head_bytes as u32;
            return Ok(());
        }
        self.grow(id, index, room, needed)?;
        if begins_frame {
            let outbox = self.outboxes.at_mut(index);
            outbox.frame_at = outbox.filled;
            outbox.filled += head_bytes as u32;
            outbox.raw = false;
        }
        Ok(())
    }

    /// Has the filling block hold `needed` bytes: a larger one takes its place where it does not.
    pub(super) fn grow(&mut self, id: ConnectionId, index: u32, room: Room, needed: usize) -> Result<(), Refused> {
        let outbox = self.outboxes.at(index);
        let filled = outbox.filled as usize;
        if outbox.filling.as_ref().is_some_and(|block| block.capacity() >= needed) {
            return Ok(());
        }
        let Some(mut block) = self.pool.take_leaving(needed, self.left_by(room)) else {
            return Err(self.refuse(id, room));
        };
        let old = self.outboxes.at_mut(index).filling.take().expect("the caller has looked for it");
        block.bytes_mut()[..filled].copy_from_slice(&old.bytes()[..filled]);
        self.pool.give(old);
        self.outboxes.at_mut(index).filling = Some(block);
        Ok(())
    }

    /// Queues what is filled and starts an empty block of at least `len` bytes.
    pub(super) fn start_block(&mut self, id: ConnectionId, index: u32, room: Room, len: usize) -> Result<(), Refused> {
        if self.outboxes.at(index).filling.is_some() && self.segments.is_full() {
            return Err(self.refuse(id, room));
        }
        let Some(block) = self.pool.take_leaving(len, self.left_by(room)) else {
            return Err(self.refuse(id, room));
        };
        self.queue_filling(index, 0);
        self.outboxes.at_mut(index).filling = Some(block);
        Ok(())
    }

    /// A write that fills the largest block leaves no room for a head: that goes before it, in a block of its own.
    #[cold]
    fn make_room_for_largest(&mut self, id: ConnectionId, index: u32, room: Room, len: usize) -> Result<(), Refused> {
        if self.segments.max() as usize - self.segments.len() < 2 {
            return Err(self.refuse(id, room));
        }
        let Some(block) = self.pool.take_leaving(len, self.left_by(room)) else {
            return Err(self.refuse(id, room));
        };
        let mut head = [0; HEAD_BYTES_MAX];
        let head_bytes = self.transforms.at_mut(self.outboxes.at(index).transform).head(len, &mut head);
        if let Err(refused) = self.write_raw(id, room, &head[..head_bytes]) {
            self.pool.give(block);
            return Err(refused);
        }
        self.queue_filling(index, 0);
        let outbox = self.outboxes.at_mut(index);
        outbox.filling = Some(block);
        outbox.raw = true;
        Ok(())
    }

    /// Bytes of the pool that a write leaves to others.
    pub(super) fn left_by(&self, room: Room) -> usize {
        self.payloads.bytes()
            + match room {
                Room::Data | Room::Spare => self.pool_reserve,
                Room::Control => self.pool_reserve / 2,
            }
    }

    /// Moves the filling block to the end of the queue. `followers` are the bytes that come behind it under one head.
    pub(super) fn queue_filling(&mut self, index: u32, followers: usize) {
        if let Some(segment) = self.seal(index, followers) {
            self.queue_segment(index, segment);
        }
    }

    /// Closes the filling block, with its head in front if it has one.
    fn seal(&mut self, index: u32, followers: usize) -> Option<Segment> {
        if self.outboxes.at(index).frame_at > 0 {
            self.end_frame(index, followers);
        }
        let outbox = self.outboxes.at_mut(index);
        let (end, raw) = (core::mem::take(&mut outbox.filled), core::mem::take(&mut outbox.raw));
        let mut block = outbox.filling.take()?;
        if end == 0 {
            self.pool.give(block);
            return None;
        }
        let mut start = 0;
        if outbox.transform != NONE && !raw {
            let mut head = [0; HEAD_BYTES_MAX];
            let content = end as usize - T::HEAD_BYTES + followers;
            let bytes = self.transforms.at_mut(outbox.transform).head(content, &mut head);
            start = T::HEAD_BYTES - bytes;
            if start == end as usize {
                // A place for a head that there is none of.
                self.pool.give(block);
                return None;
            }
            block.bytes_mut()[start..T::HEAD_BYTES].copy_from_slice(&head[..bytes]);
            outbox.bytes += bytes as u32;
        }
        Some(Segment::Block { block, start: start as u32, end })
    }

    pub(super) fn queue_segment(&mut self, index: u32, segment: Segment) {
        let queued = Queued { segment, next: NONE, is_records: false };
        let at = self.segments.insert(queued).expect("the caller has looked for room").index;
        let outbox = self.outboxes.at_mut(index);
        if outbox.first == NONE {
            outbox.first = at;
        } else {
            self.segments.at_mut(outbox.last).next = at;
        }
        outbox.last = at;
    }

    /// Takes what is to be sent next.
    pub(super) fn next_segment(&mut self, index: u32) -> Option<Next> {
        let outbox = self.outboxes.at_mut(index);
        if outbox.first != NONE {
            let Queued { segment, next, .. } = self.segments.remove_at(outbox.first);
            outbox.first = next;
            return Some(Next { segment, more: next != NONE || outbox.filled > 0 });
        }
        self.seal(index, 0).map(|segment| Next { segment, more: false })
    }

    /// Hands the turn's output to the driver, one send a connection.
    pub(super) fn flush_all(&mut self) {
        for _ in 0..self.dirty.len().min(TURN_SENDS_MAX) {
            let Some(id) = self.dirty.pop_front() else { break };
            self.flush_one(id);
        }
    }

    fn flush_one(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(key(id)) else { return };
        connection.clear(flag::DIRTY);
        if connection.outbox == NONE || connection.has(flag::SENDING) || connection.state == State::Terminated {
            return;
        }
        let (slot, index) = (connection.open_slot(), connection.outbox);
        let transform = self.outboxes.at(index).transform;
        let shield = if transform == NONE { Shield::None } else { self.transforms.at_mut(transform).shield() };
        let next = if shield == Shield::None { self.next_segment(index) } else { self.next_records(id, shield) };
        match next {
            Some(Next { segment, more, .. }) => {
                self.table.at_mut(id.index).set(flag::SENDING);
                self.driver.submit(Op::Send { slot, segment, more, token: token(Purpose::Send, id) });
            }
            // Something waits that cannot leave yet, or the connection has been ended.
            None if shield != Shield::None && !self.has_nothing_to_send(id) => {}
            None => self.outbox_is_empty(id),
        }
    }

    /// Whether all that was written has been handed to the driver.
    fn has_nothing_to_send(&self, id: ConnectionId) -> bool {
        let index = self.table.at(id.index).outbox;
        index != NONE && self.outboxes.at(index).first == NONE && self.outboxes.at(index).filled == 0
    }

    /// A send has taken `count` bytes; what it left goes out next, before anything else. Whether the handler is to
    /// be told that the outbox has drained.
    pub(super) fn after_send(&mut self, id: ConnectionId, mut segment: Segment, count: usize) -> bool {
        self.totals.sends += 1;
        self.totals.bytes_sent += count as u64;
        let connection = self.table.at_mut(id.index);
        connection.clear(flag::SENDING);
        if connection.state == State::Terminated {
            self.give_segment(segment);
            self.ending.push_back(id);
            return false;
        }
        let (slot, index) = (connection.open_slot(), connection.outbox);
        segment.advance(count);
        let outbox = self.outboxes.at_mut(index);
        outbox.bytes -= u32::try_from(count).expect("no more was sent than there was");
        let (left, low) = (outbox.bytes, self.settings.outbox_bytes_low);
        let more = outbox.first != NONE || outbox.filled > 0;
        if !segment.remaining().is_empty() {
            connection.set(flag::SENDING);
            self.driver.submit(Op::Send { slot, segment, more, token: token(Purpose::Send, id) });
        } else {
            if left > 0 && connection.newly(flag::DIRTY) {
                self.dirty.push_back(id);
            }
            self.give_segment(segment);
            if left == 0 {
                self.outbox_is_empty(id);
            }
        }
        let connection = self.table.at_mut(id.index);
        let tell = left as usize <= low && connection.has(flag::TELL_DRAINED) && connection.state == State::Open;
        if tell {
            connection.clear(flag::TELL_DRAINED);
        }
        tell
    }

    /// The connection is dead.
    pub(super) fn on_send_failed(&mut self, id: ConnectionId, segment: Segment, error: &io::Error) {
        self.give_segment(segment);
        self.table.at_mut(id.index).clear(flag::SENDING);
        self.broken(id, error);
    }

    /// Everything was sent: the outbox goes back, and whoever waited for that goes on.
    fn outbox_is_empty(&mut self, id: ConnectionId) {
        if self.table.at(id.index).state == State::Flushing && self.says_farewell(id) {
            return;
        }
        self.drop_outbox(id);
        match self.table.at_mut(id.index).state {
            State::Flushing => {
                let cause = self.table.at(id.index).cause;
                self.terminate(id, cause);
            }
            State::Departing => self.ending.push_back(id),
            _ => {}
        }
    }

    /// Drops what is queued and gives the outbox back. A segment in flight comes back with its completion.
    pub(super) fn drop_outbox(&mut self, id: ConnectionId) {
        let index = core::mem::replace(&mut self.table.at_mut(id.index).outbox, NONE);
        if index == NONE {
            return;
        }
        while let Some(next) = self.next_segment(index) {
            self.give_segment(next.segment);
        }
        self.totals.bytes_dropped += u64::from(self.outboxes.remove_at(index).bytes);
    }

    pub(super) fn give_segment(&mut self, segment: Segment) {
        match segment {
            Segment::Block { block, .. } => self.pool.give(block),
            Segment::Shared(payload) => self.payloads.give(&payload),
        }
    }
}

#[inline]
fn take_outbox(outboxes: &mut Slab<Outbox>, connection: &mut Connection, id: ConnectionId) -> u32 {
    if connection.outbox == NONE {
        let outbox =
            outboxes.insert(Outbox::new(connection.transform, id)).expect("there is an outbox for each connection");
        connection.outbox = outbox.index;
    }
    connection.outbox
}

impl<D: Driver, H: Handler<D>> Engine<D, H> {
    /// See [`Core::after_send`].
    pub(super) fn on_sent(&mut self, id: ConnectionId, segment: Segment, count: usize) {
        if self.core.after_send(id, segment, count) {
            self.handler.on_drained(&mut self.core, id);
        }
    }
}
