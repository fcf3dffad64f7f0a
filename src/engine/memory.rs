//! What is on its way in or out, in bytes, and who gives way when that is too much.
//!
//! ```text
//!   left  16/16 ─────────────── 6/16 ──────────── 4/16 ─────────── 3/16 ─────────── 2/16 ──── 0
//!               everybody may     QoS 0 only where   … and those with   … and guests    kept for control
//!               fill its outbox   little waits       most waiting go    are sent away   frames and receives
//! ```
//! All blocks of the pool count, and each payload that segments share, once. An even share is what
//! everybody may fill divided by the number of those that wait: many with a little never give way to one with a lot.

use super::outbox::Room;
use super::{CloseCause, Core};
use crate::base::transform::Transform;
use crate::io::Driver;
use crate::limits::{
    MEMORY_GUESTS_SIXTEENTHS, MEMORY_SLOW_SIXTEENTHS, MEMORY_SPARE_SIXTEENTHS, SHED_PLACES, SHED_SAMPLE, TURN_SHED_MAX,
};
use bytes::Bytes;
use foldhash::fast::FixedState;
use std::collections::HashMap;

/// How short memory is. What is said of one level holds for those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is enough.
    None,
    /// Messages of QoS 0 give way.
    Spare,
    /// Those with most waiting are closed.
    Slow,
    /// Nobody else should come.
    Guests,
}

/// Payloads that outboxes have by reference, each counted once however many have it. By where they end in memory: a
/// payload that was sent in part begins elsewhere.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    held: HashMap<usize, (u32, u32), FixedState>,
    bytes: usize,
}

impl Payloads {
    fn place(payload: &Bytes) -> usize {
        payload.as_ptr().addr() + payload.len()
    }

    pub fn take(&mut self, payload: &Bytes) {
        let length = u32::try_from(payload.len()).expect("payloads are bounded by the largest packet");
        let (count, _) = self.held.entry(Self::place(payload)).or_insert((0, length));
        if *count == 0 {
            self.bytes += payload.len();
        }
        *count += 1;
    }

    pub fn give(&mut self, payload: &Bytes) {
        let place = Self::place(payload);
        let (count, length) = self.held.get_mut(&place).expect("what comes back was taken");
        *count -= 1;
        if *count == 0 {
            self.bytes -= *length as usize;
            self.held.remove(&place);
        }
    }

    /// Of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// How short memory is.
    pub fn pressure(&self) -> Pressure {
        let left = self.memory_left() / (self.settings.pool_bytes_max / 16).max(1);
        match left {
            left if left < MEMORY_GUESTS_SIXTEENTHS => Pressure::Guests,
            left if left < MEMORY_SLOW_SIXTEENTHS => Pressure::Slow,
            left if left < MEMORY_SPARE_SIXTEENTHS => Pressure::Spare,
            _ => Pressure::None,
        }
    }

    /// Bytes on their way in or out.
    pub fn memory_used(&self) -> usize {
        self.pool.out_bytes() + self.payloads.bytes()
    }

    #[inline]
    fn memory_left(&self) -> usize {
        self.pool.bytes_left().saturating_sub(self.payloads.bytes())
    }

    /// Bytes that may wait in an outbox for this kind of write to be taken.
    #[inline]
    pub(super) fn outbox_bytes_max(&self, room: Room) -> usize {
        let bytes_max = self.settings.outbox_bytes_max;
        match room {
            Room::Data => bytes_max,
            Room::Spare if self.memory_left() >= self.settings.pool_bytes_max / 16 * MEMORY_SPARE_SIXTEENTHS => {
                bytes_max
            }
            Room::Spare => bytes_max.min(self.even_share()),
            Room::Control => bytes_max + self.settings.outbox_control_bytes_max,
        }
    }

    /// Whether a payload may be kept for an outbox. One that is kept for others costs nothing.
    pub(super) fn has_memory_for(&self, room: Room, payload: &Bytes) -> bool {
        room == Room::Control
            || self.memory_left() >= payload.len() + self.pool_reserve
            || self.payloads.held.contains_key(&Payloads::place(payload))
    }

    fn even_share(&self) -> usize {
        self.settings.pool_bytes_max / 16 * (16 - MEMORY_SPARE_SIXTEENTHS) / self.outboxes.len().max(1)
    }

    /// Closes some of those with most waiting, while memory is short. Whoever has no more than an even share stays.
    pub(super) fn relieve(&mut self) {
        for _ in 0..TURN_SHED_MAX {
            if self.pressure() < Pressure::Slow {
                return;
            }
            let share = self.even_share();
            let worst = self.sample_outboxes();
            let Some(worst) = worst.filter(|&index| self.outboxes.at(index).bytes() > share) else { continue };
            let owner = self.outboxes.at(worst).owner;
            self.totals.shed += 1;
            self.terminate(owner, CloseCause::Shed);
        }
    }

    /// The index of the fullest of the next few outboxes.
    fn sample_outboxes(&mut self) -> Option<u32> {
        let end = self.outboxes.end();
        let (mut worst, mut seen): (Option<(usize, u32)>, usize) = (None, 0);
        for _ in 0..end.min(SHED_PLACES) {
            let index = if self.shed_next < end { self.shed_next } else { 0 };
            self.shed_next = index + 1;
            if self.outboxes.key_at(index).is_none() {
                continue;
            }
            let bytes = self.outboxes.at(index).bytes();
            worst = worst.filter(|&(most, _)| most >= bytes).or(Some((bytes, index)));
            seen += 1;
            if seen == SHED_SAMPLE {
                break;
            }
        }
        worst.map(|(_, index)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_counts_once_for_all_that_have_it_also_when_some_was_sent() {
        let mut payloads = Payloads::default();
        let (one, other) = (Bytes::from(vec![1; 5_000]), Bytes::from(vec![2; 6_000]));
        payloads.take(&one);
        payloads.take(&one.clone());
        payloads.take(&other);
        assert_eq!(payloads.bytes(), 11_000);
        payloads.give(&one.slice(1_000..));
        assert_eq!(payloads.bytes(), 11_000);
        payloads.give(&one.slice(5_000..));
        assert_eq!(payloads.bytes(), 11_000 - 5_000, "an empty rest of it is still it");
        payloads.give(&other);
        assert_eq!((payloads.bytes(), payloads.held.len()), (0, 0));
    }
}
