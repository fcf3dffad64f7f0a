//! Which of a driver's rings: one bit each.

use crate::limits::SLOT_RINGS_MAX;

const _: () = assert!(SLOT_RINGS_MAX <= u128::BITS as usize);

/// Rings by their position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingSet(u128);

impl RingSet {
    pub(super) const EMPTY: Self = Self(0);

    pub(super) fn of(ring: usize) -> Self {
        Self(1 << ring)
    }

    /// The first `count`.
    pub(super) fn all(count: usize) -> Self {
        Self(u128::MAX >> (u128::BITS as usize - count))
    }

    #[inline]
    pub(super) fn insert(&mut self, ring: usize) {
        self.0 |= 1 << ring;
    }

    pub(super) fn remove(&mut self, ring: usize) {
        self.0 &= !(1 << ring);
    }

    pub(super) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// The one with the lowest position.
    pub(super) fn first(self) -> Option<usize> {
        self.starting_at(0).next()
    }

    /// All of them, from a position on and around.
    pub(super) fn starting_at(self, first: usize) -> impl Iterator<Item = usize> {
        let mut left = self.0.rotate_right(first as u32);
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let step = left.trailing_zeros() as usize;
            left &= left - 1;
            Some((first + step) % u128::BITS as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ring_comes_once_from_any_position_on() {
        let mut set = RingSet::of(0);
        [3, 63, 64, 127].into_iter().for_each(|ring| set.insert(ring));
        set.remove(63);
        assert_eq!(set.starting_at(0).collect::<Vec<_>>(), [0, 3, 64, 127]);
        assert_eq!(set.starting_at(4).collect::<Vec<_>>(), [64, 127, 0, 3]);
        assert_eq!(set.without(RingSet::of(0)).first(), Some(3));
        assert_eq!(RingSet::EMPTY.first(), None);
        assert_eq!(RingSet::all(SLOT_RINGS_MAX).starting_at(127).take(2).collect::<Vec<_>>(), [127, 0]);
        assert_eq!(RingSet::all(3).starting_at(2).collect::<Vec<_>>(), [2, 0, 1]);
    }
}
