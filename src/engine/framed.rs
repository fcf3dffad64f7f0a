//! Output that has its frame already: what a transform says by itself, and what many connections get framed once for all.
//!
//! ```text
//!   head │ content │ framed │ framed │ room for a head │ content …      one block, one send
//!   └─ a frame, ended ─┘                └─ the next one ─────
//! ```
//! The length of a head is known when its frame ends. In front of a block it may begin anywhere; within one what follows
//! is moved up to it, some bytes of a short frame.

use super::Core;
use super::outbox::{Refused, Room};
use super::table::NONE;
use crate::base::ids::ConnectionId;
use crate::base::transform::{HEAD_BYTES_MAX, Transform};
use crate::io::{Driver, Segment};
use crate::limits::COALESCE_BYTES_MAX;
use bytes::Bytes;

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// Writes bytes that leave as they are, in their order, also where a transform would put its head in front of them:
    /// they are its own words.
    pub fn write_raw(&mut self, id: ConnectionId, room: Room, bytes: &[u8]) -> Result<(), Refused> {
        self.write_framed(id, room, bytes.len(), |into| into.copy_from_slice(bytes))
    }

    /// Writes exactly `len` bytes, by `fill`, that have their frames already.
    pub fn write_framed(
        &mut self,
        id: ConnectionId,
        room: Room,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Refused> {
        if !self.has_transform(id) || len == 0 {
            return self.write(id, room, len, fill);
        }
        let index = self.outbox_with_room(id, room, len)?;
        let outbox = self.outboxes.at(index);
        // To end a frame makes what is filled no longer: room for the longest head was kept.
        let needed = outbox.filled as usize + len;
        if outbox.filling.is_none() || needed > COALESCE_BYTES_MAX {
            self.start_block(id, index, room, len)?;
        } else {
            self.grow(id, index, room, needed)?;
            self.end_frame(index, 0);
        }
        let outbox = self.outboxes.at_mut(index);
        outbox.raw = true;
        let start = outbox.filled as usize;
        let block = outbox.filling.as_mut().expect("there is a block with room");
        fill(&mut block.bytes_mut()[start..start + len]);
        outbox.filled += len as u32;
        outbox.bytes += len as u32;
        self.totals.writes += 1;
        Ok(())
    }

    /// Writes what is framed already and many connections get, by reference.
    pub fn write_framed_shared(&mut self, id: ConnectionId, room: Room, framed: &Bytes) -> Result<(), Refused> {
        let index = self.outbox_with_room(id, room, framed.len())?;
        // One place each for the filling block and for what is shared.
        if self.segments.max() as usize - self.segments.len() < 2 || !self.has_memory_for(room, framed) {
            return Err(self.refuse(id, room));
        }
        self.queue_filling(index, 0);
        self.payloads.take(framed);
        self.queue_segment(index, Segment::Shared(framed.clone()));
        self.outboxes.at_mut(index).bytes += framed.len() as u32;
        self.totals.writes += 1;
        Ok(())
    }

    /// Ends the frame that is open in the filling block, if one is. `followers` are the bytes that come behind the block
    /// under its head. What is filled then leaves as it is.
    pub(super) fn end_frame(&mut self, index: u32, followers: usize) {
        let outbox = self.outboxes.at_mut(index);
        let frame_at = core::mem::take(&mut outbox.frame_at) as usize;
        if outbox.raw || outbox.transform == NONE {
            return;
        }
        outbox.raw = true;
        let Some(block) = &mut outbox.filling else { return };
        let (content_at, end) = (frame_at + T::HEAD_BYTES, outbox.filled as usize);
        let mut head = [0; HEAD_BYTES_MAX];
        let content = end - content_at;
        let head_bytes = match content + followers {
            0 => 0,
            bytes => self.transforms.at_mut(outbox.transform).head(bytes, &mut head),
        };
        let bytes = block.bytes_mut();
        bytes[frame_at..frame_at + head_bytes].copy_from_slice(&head[..head_bytes]);
        bytes.copy_within(content_at..end, frame_at + head_bytes);
        outbox.filled = (frame_at + head_bytes + content) as u32;
        outbox.bytes += head_bytes as u32;
    }
}
