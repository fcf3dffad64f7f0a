//! A hashed timing wheel: one deadline per key, 16 bytes each, no allocation, precise to a tick.
//!
//! ```text
//!   buckets (one per tick, `BUCKETS` ahead)        entries, by key, reserved
//!   cursor ─► [t  ] ─► 7 ⇄ 3 ⇄ 12                  {next, previous, filed: tick, deadline: tick}
//!             [t+1]                                a later deadline is only written; the entry is filed again when
//!             [t+2] ─► 5                           the cursor comes by the tick it was filed under
//! ```
//! A deadline further away than the wheel is round is filed at the far end, and again from there.

use crate::limits::TICK;

/// Ticks one round has: 409.6 s of 100 ms, so that common keep alives are filed once.
const BUCKETS: u32 = 4096;
const NONE: u32 = u32::MAX;
const TICK_MS: u64 = TICK.as_millis() as u64;

#[derive(Clone, Copy, Debug)]
struct Entry {
    next: u32,
    previous: u32,
    /// The tick it is filed under, or `NONE`: not filed.
    filed: u32,
    /// The tick at which it is due: not before `filed`.
    deadline: u32,
}

const VACANT: Entry = Entry { next: NONE, previous: NONE, filed: NONE, deadline: NONE };

/// Deadlines of keys `0..max`. Milliseconds are rounded up to ticks, so nothing is early; what is due already when it
/// is set expires at the next tick, not within the turn that sets it.
#[derive(Debug)]
pub struct Wheel {
    entries: Vec<Entry>,
    heads: Box<[u32]>,
    /// One bit for each bucket that is not empty.
    occupied: [u64; BUCKETS as usize / 64],
    /// The next tick to look at; every filed entry is in `cursor..cursor + BUCKETS`.
    cursor: u32,
    origin_ms: u64,
    filed: usize,
    max: u32,
}

impl Wheel {
    /// Reserves address space for `max` keys. Time starts at `now_ms`.
    pub fn new(max: u32, now_ms: u64) -> Self {
        Self {
            entries: Vec::with_capacity(max as usize),
            heads: vec![NONE; BUCKETS as usize].into_boxed_slice(),
            occupied: [0; BUCKETS as usize / 64],
            cursor: 0,
            origin_ms: now_ms,
            filed: 0,
            max,
        }
    }

    /// Sets or moves a key's deadline. Moving it later, what a heartbeat does, is one write.
    #[inline]
    pub fn set(&mut self, key: u32, deadline_ms: u64) {
        let deadline = self.tick_at_or_after(deadline_ms);
        if key as usize >= self.entries.len() {
            assert!(key < self.max, "a wheel is made for all keys it will see");
            self.entries.resize(key as usize + 1, VACANT);
        }
        let entry = &mut self.entries[key as usize];
        entry.deadline = deadline;
        if entry.filed != NONE && entry.filed <= deadline {
            return;
        }
        self.unlink(key);
        self.link(key);
    }

    /// Forgets a key's deadline, if it has one.
    pub fn clear(&mut self, key: u32) {
        if (key as usize) < self.entries.len() {
            self.unlink(key);
            self.entries[key as usize].deadline = NONE;
        }
    }

    /// The next key that is due at `now_ms`; it has no deadline any more. Each entry looked at, due or not, takes one
    /// from `visits_left`; none when that is used up, though more may be due. A key may be set again in between.
    pub fn next_expired(&mut self, now_ms: u64, visits_left: &mut usize) -> Option<u32> {
        let now = u32::try_from(now_ms.saturating_sub(self.origin_ms) / TICK_MS).unwrap_or(NONE - 1);
        while *visits_left > 0 {
            let Some(tick) = self.first_occupied().filter(|&tick| tick <= now) else {
                // Every bucket up to now is empty, so the cursor may pass them all.
                self.cursor = self.cursor.max(now.saturating_add(1).min(self.first_occupied().unwrap_or(NONE - 1)));
                return None;
            };
            self.cursor = tick;
            *visits_left -= 1;
            let key = self.heads[(tick % BUCKETS) as usize];
            self.unlink(key);
            if self.entries[key as usize].deadline <= now {
                self.entries[key as usize].deadline = NONE;
                return Some(key);
            }
            self.link(key);
        }
        None
    }

    /// The millisecond at which [`Wheel::next_expired`] next has something to look at; none when nothing is filed.
    pub fn next_wake(&self) -> Option<u64> {
        self.first_occupied().map(|tick| self.origin_ms + u64::from(tick) * TICK_MS)
    }

    /// Keys that have a deadline.
    pub fn len(&self) -> usize {
        self.filed
    }

    /// Whether no key has one.
    pub fn is_empty(&self) -> bool {
        self.filed == 0
    }

    fn tick_at_or_after(&self, ms: u64) -> u32 {
        u32::try_from(ms.saturating_sub(self.origin_ms).div_ceil(TICK_MS)).unwrap_or(NONE - 1).min(NONE - 1)
    }

    fn first_occupied(&self) -> Option<u32> {
        if self.filed == 0 {
            return None;
        }
        let start = self.cursor % BUCKETS;
        let words = self.occupied.len();
        for step in 0..=words {
            let word = (start as usize / 64 + step) % words;
            let mut bits = self.occupied[word];
            // The cursor's own word is looked at twice: its bits from the cursor on first, those before it last.
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == words {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let bucket = word as u32 * 64 + bits.trailing_zeros();
                return Some(self.cursor + (bucket + BUCKETS - start) % BUCKETS);
            }
        }
        unreachable!("something is filed, so a bucket is occupied")
    }

    fn link(&mut self, key: u32) {
        let farthest = self.cursor.saturating_add(BUCKETS - 1);
        let entry = &mut self.entries[key as usize];
        let tick = entry.deadline.clamp(self.cursor, farthest);
        let bucket = (tick % BUCKETS) as usize;
        let next = self.heads[bucket];
        *entry = Entry { next, previous: NONE, filed: tick, deadline: entry.deadline };
        if next != NONE {
            self.entries[next as usize].previous = key;
        }
        self.heads[bucket] = key;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.filed += 1;
    }

    fn unlink(&mut self, key: u32) {
        let Entry { next, previous, filed, .. } = self.entries[key as usize];
        if filed == NONE {
            return;
        }
        let bucket = (filed % BUCKETS) as usize;
        if previous == NONE {
            self.heads[bucket] = next;
            if next == NONE {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            }
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        self.entries[key as usize].filed = NONE;
        self.filed -= 1;
    }
}

const _: () = assert!(size_of::<Entry>() <= 16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn expired(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        let mut visits = usize::MAX;
        std::iter::from_fn(|| wheel.next_expired(now_ms, &mut visits)).collect()
    }

    #[test]
    fn a_deadline_expires_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new(8, 1_000_000);
        wheel.set(3, 1_000_250);
        assert_eq!(wheel.next_wake(), Some(1_000_300));
        assert!(expired(&mut wheel, 1_000_299).is_empty());
        assert_eq!(expired(&mut wheel, 1_000_300), [3]);
        assert_eq!((wheel.len(), wheel.next_wake()), (0, None));
    }

    #[test]
    fn a_heartbeat_moves_the_deadline_without_filing_again() {
        let mut wheel = Wheel::new(8, 0);
        wheel.set(1, 1_000);
        wheel.set(1, 9_000);
        assert_eq!(wheel.next_wake(), Some(1_000));
        assert!(expired(&mut wheel, 8_999).is_empty());
        assert_eq!(expired(&mut wheel, 9_000), [1]);
    }

    #[test]
    fn a_deadline_beyond_one_round_is_kept() {
        let week = 7 * 24 * 3600 * 1000;
        let mut wheel = Wheel::new(8, 5);
        wheel.set(0, week + 5);
        let mut now = 5;
        while let Some(wake) = wheel.next_wake().filter(|&wake| wake < week + 5) {
            assert!(wake > now || now == 5);
            now = wake;
            assert!(expired(&mut wheel, now).is_empty());
        }
        assert_eq!(expired(&mut wheel, week + 5), [0]);
    }

    #[test]
    fn the_visits_of_one_turn_are_bounded_and_the_rest_stays_due() {
        let mut wheel = Wheel::new(8, 0);
        for key in 0..5 {
            wheel.set(key, 100);
        }
        let mut visits = 2;
        let first = std::iter::from_fn(|| wheel.next_expired(200, &mut visits)).count();
        assert_eq!((first, visits, wheel.len()), (2, 0, 3));
        assert_eq!(expired(&mut wheel, 200).len(), 3);
    }

    proptest! {
        #[test]
        fn it_expires_what_a_sorted_map_would(ops in prop::collection::vec((0u8..4, 0u32..24, 0u64..2_000_000), 1..300)) {
            let mut wheel = Wheel::new(24, 0);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let (mut now, mut next_tick) = (0u64, 0u64);
            for (op, key, value) in ops {
                match op {
                    0 | 1 => {
                        let deadline = now + if op == 0 { value } else { value % 3_000 };
                        wheel.set(key, deadline);
                        model.insert(key, deadline.div_ceil(TICK_MS).max(next_tick));
                    }
                    2 => { wheel.clear(key); model.remove(&key); }
                    _ => {
                        now += value % 700_000;
                        let due: BTreeSet<u32> = model.iter().filter(|(_, t)| **t <= now / TICK_MS).map(|(k, _)| *k).collect();
                        next_tick = now / TICK_MS + 1;
                        model.retain(|key, _| !due.contains(key));
                        prop_assert_eq!(expired(&mut wheel, now).into_iter().collect::<BTreeSet<_>>(), due);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.values().min().map(|t| t * TICK_MS);
                prop_assert!(wheel.next_wake() <= earliest.or(wheel.next_wake()), "would oversleep");
                prop_assert_eq!(wheel.next_wake().is_some(), earliest.is_some());
            }
        }
    }
}
