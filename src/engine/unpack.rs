//! Packed messages: what one was made of, gathered behind the plain bytes, gives way to what it becomes.
//!
//! ```text
//!   plain │ packed │ unread     in the block that it was gathered in
//!   plain │ unpacked │ unread   in another one, which is taken from the pool like any other
//! ```
//! How long a message becomes is known when it has been unpacked, and a small one may claim a thousand times its length.
//! So it is unpacked into the smallest block that may do, and again into the next larger one where that was too small, up
//! to a bound; the turn has a bound too. Nothing of it is kept between two calls, so a connection keeps nothing for it.

use super::intake::Held;
use super::{Close, CloseCause, Core};
use crate::base::ids::ConnectionId;
use crate::base::transform::{Reply, Transform, Unpacked};
use crate::io::Driver;
use crate::limits::{RECEIVE_BLOCK_BYTES, UNPACK_CHARGE_BYTES};

/// What a packed message is guessed to become, in times its length.
const GUESSED_RATIO: usize = 4;

/// What became of a packed message.
#[derive(Debug)]
pub(super) enum Unpacking {
    /// It is plain.
    Done(Held),
    /// The turn has done enough of it.
    Later(Held),
    /// It was not taken, or there was no block for it: the connection has been closed.
    Refused,
}

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// What all transforms share.
    pub fn shared(&self) -> &T::Shared {
        &self.shared
    }

    /// Most bytes that a packed message may have, before and after, and with the plain ones before it that its handler could
    /// not use yet: a frame, and as much again as a receive brings.
    pub(super) fn unpacked_bytes_max(&self) -> usize {
        self.settings.frame_bytes_max + RECEIVE_BLOCK_BYTES
    }

    /// Makes the packed message plain.
    pub(super) fn unpack(&mut self, id: ConnectionId, held: Held) -> Unpacking {
        if self.unpack_left == 0 {
            self.totals.unpack_waits += 1;
            return Unpacking::Later(held);
        }
        let (plain, packed, unread) = held.parts();
        let others = plain.len() + unread.len();
        let bytes_max = self.unpacked_bytes_max().saturating_sub(plain.len());
        // One more, so that what is as long as it may be is told from what is longer.
        let mut room = (packed.len() * GUESSED_RATIO).min(bytes_max + 1);
        let transform = self.table.at(id.index).transform;
        loop {
            let Some(mut block) = self.take_data_block(others + room) else {
                self.give_held(held);
                self.terminate(id, CloseCause::OutOfBlocks);
                return Unpacking::Refused;
            };
            room = (block.capacity() - others).min(bytes_max + 1);
            let into = &mut block.bytes_mut()[plain.len()..plain.len() + room];
            let unpacked = self.transforms.at_mut(transform).unpack(&mut self.shared, packed, into);
            let bytes = if let Unpacked::Whole(bytes) = unpacked { bytes } else { room };
            self.unpack_left = self.unpack_left.saturating_sub(UNPACK_CHARGE_BYTES + bytes);
            match unpacked {
                Unpacked::Whole(bytes) if bytes <= bytes_max => {
                    let (end, into) = (plain.len() + bytes, block.bytes_mut());
                    into[..plain.len()].copy_from_slice(plain);
                    into[end..end + unread.len()].copy_from_slice(unread);
                    let unpacked = Held::unpacked(block, end, end + unread.len());
                    self.give_held(held);
                    return Unpacking::Done(unpacked);
                }
                Unpacked::NoRoom if room <= bytes_max && block.capacity() < super::outbox::BLOCK_BYTES_MAX => {
                    room = block.capacity() + 1 - others;
                    self.pool.give(block);
                }
                refused => {
                    self.pool.give(block);
                    self.give_held(held);
                    return self.refuse_packed(id, refused != Unpacked::Broken);
                }
            }
        }
    }

    fn refuse_packed(&mut self, id: ConnectionId, is_too_long: bool) -> Unpacking {
        let (transform, mut reply) = (self.table.at(id.index).transform, Reply::default());
        self.transforms.at_mut(transform).refuse_packed(&mut self.shared, is_too_long, &mut reply);
        if self.say(id, &mut reply) {
            self.close(id, Close::AfterFlush, CloseCause::Misframed);
        }
        Unpacking::Refused
    }

    /// The window, in bits, of messages that may be written packed to it; none: they may not.
    #[inline]
    pub fn window_bits(&mut self, id: ConnectionId) -> Option<u8> {
        self.transform(id).and_then(T::window_bits)
    }
}
