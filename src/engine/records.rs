//! Records out: what a connection's transform makes of its output, and says by itself.
//!
//! A record is made when nothing can come before it any more: of the first segment in line, when no send is in flight.
//! Records of the transform's own are made when it makes them, and go in line before the first segment that is none:
//! that one's records will be made later.

use super::outbox::{Next, Queued, Refused, Room};
use super::table::{NONE, flag, key};
use super::{CloseCause, Core};
use crate::base::ids::ConnectionId;
use crate::base::transform::{Reply, Shield, Transform};
use crate::io::{Driver, Segment};
use crate::limits::{BLOCK_CLASSES, RECORDS_PLAIN_BYTES_MAX};

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// Puts records of the transform's own in line, before everything that is none.
    pub fn write_records(&mut self, id: ConnectionId, records: &[u8]) -> Result<(), Refused> {
        for piece in records.chunks(BLOCK_CLASSES[BLOCK_CLASSES.len() - 1]) {
            let index = self.outbox_with_room(id, Room::Control, piece.len())?;
            if self.segments.is_full() {
                return Err(self.refuse(id, Room::Control));
            }
            let Some(mut block) = self.pool.take_leaving(piece.len(), self.left_by(Room::Control)) else {
                return Err(self.refuse(id, Room::Control));
            };
            block.bytes_mut()[..piece.len()].copy_from_slice(piece);
            let end = u32::try_from(piece.len()).expect("blocks are shorter than 4 GiB");
            self.queue_records(index, Segment::Block { block, start: 0, end });
            self.outboxes.at_mut(index).bytes += end;
            self.totals.writes += 1;
        }
        Ok(())
    }

    /// Puts a segment of records behind those that are records already.
    fn queue_records(&mut self, index: u32, segment: Segment) {
        let (mut before, mut next) = (NONE, self.outboxes.at(index).first);
        while next != NONE && self.segments.at(next).is_records {
            (before, next) = (next, self.segments.at(next).next);
        }
        let queued = Queued { segment, next, is_records: true };
        let at = self.segments.insert(queued).expect("the caller has looked for room").index;
        let outbox = self.outboxes.at_mut(index);
        if next == NONE {
            outbox.last = at;
        }
        if before == NONE {
            outbox.first = at;
        } else {
            self.segments.at_mut(before).next = at;
        }
    }

    /// As [`Core::next_segment`], with records made of it. None: there is nothing, what there is has to wait, or the
    /// connection was ended for want of a block.
    pub(super) fn next_records(&mut self, id: ConnectionId, shield: Shield) -> Option<Next> {
        let index = self.table.at(id.index).outbox;
        let first = self.outboxes.at(index).first;
        let is_records = first != NONE && self.segments.at(first).is_records;
        match shield {
            _ if is_records => self.next_segment(index),
            Shield::Rising => None,
            Shield::Down => self.drop_what_is_no_record(index),
            Shield::None | Shield::Up => {
                let next = self.next_segment(index)?;
                self.make_records(id, index, next)
            }
        }
    }

    /// Nothing of what is in line can ever leave.
    #[cold]
    fn drop_what_is_no_record(&mut self, index: u32) -> Option<Next> {
        while let Some(next) = self.next_segment(index) {
            let bytes = u32::try_from(next.segment.remaining().len()).expect("segments are shorter than 4 GiB");
            self.outboxes.at_mut(index).bytes -= bytes;
            self.totals.bytes_dropped += u64::from(bytes);
            self.give_segment(next.segment);
        }
        None
    }

    /// Makes records of the beginning of a segment, in a block of their own; the rest of it stays first in line.
    fn make_records(&mut self, id: ConnectionId, index: u32, next: Next) -> Option<Next> {
        let Next { mut segment, more } = next;
        let transform = self.outboxes.at(index).transform;
        let plain_bytes = segment.remaining().len().min(RECORDS_PLAIN_BYTES_MAX);
        let bytes_max = self.transforms.at_mut(transform).record_bytes_max(plain_bytes);
        let rest = segment.remaining().len() - plain_bytes;
        let block = if rest > 0 && self.segments.is_full() { None } else { self.pool.take(bytes_max) };
        let Some(mut block) = block else {
            self.give_segment(segment);
            self.terminate(id, CloseCause::OutOfBlocks);
            return None;
        };
        let plain = &segment.remaining()[..plain_bytes];
        let Some(made) = self.transforms.at_mut(transform).make_records(plain, block.bytes_mut()) else {
            self.pool.give(block);
            self.give_segment(segment);
            self.terminate(id, CloseCause::BadRecords);
            return None;
        };
        let outbox = self.outboxes.at_mut(index);
        outbox.bytes -= u32::try_from(plain_bytes).expect("blocks are shorter than 4 GiB");
        let end = u32::try_from(made).expect("blocks are shorter than 4 GiB");
        outbox.bytes += end;
        if rest == 0 {
            self.give_segment(segment);
        } else {
            segment.advance(plain_bytes);
            let first = self.outboxes.at(index).first;
            let queued = Queued { segment, next: first, is_records: false };
            let at = self.segments.insert(queued).expect("there was room a moment ago").index;
            let outbox = self.outboxes.at_mut(index);
            outbox.first = at;
            if first == NONE {
                outbox.last = at;
            }
        }
        Some(Next { segment: Segment::Block { block, start: 0, end }, more: more || rest > 0 })
    }

    /// Records can be made from now on: what has waited for that leaves.
    pub(super) fn send_waiting(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.outbox != NONE) else { return };
        if !connection.has(flag::SENDING) && connection.newly(flag::DIRTY) {
            self.dirty.push_back(id);
        }
    }

    /// Writes the last record of a connection whose output has all left. False: it has none.
    pub(super) fn says_farewell(&mut self, id: ConnectionId) -> bool {
        let connection = self.table.at(id.index);
        if connection.transform == NONE {
            return false;
        }
        let mut reply = Reply::default();
        self.transforms.at_mut(connection.transform).farewell(&mut reply);
        if reply.records.is_empty() {
            return false;
        }
        self.put_last_record(id, &reply.records)
    }

    fn put_last_record(&mut self, id: ConnectionId, record: &[u8]) -> bool {
        // Without room for it the connection ends without a word.
        if self.segments.is_full() {
            return false;
        }
        let Some(mut block) = self.pool.take(record.len()) else { return false };
        block.bytes_mut()[..record.len()].copy_from_slice(record);
        let end = u32::try_from(record.len()).expect("blocks are shorter than 4 GiB");
        let index = self.outbox_of(id);
        self.queue_records(index, Segment::Block { block, start: 0, end });
        self.outboxes.at_mut(index).bytes += end;
        self.send_waiting(id);
        true
    }
}
