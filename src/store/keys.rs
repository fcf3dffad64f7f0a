//! The memory store's idempotency keys: a ring in order of arrival, which is the order in which they go, and a table
//! from a key to its place in the ring. One allocation a key besides its positions.

use super::{KeyOutcome, KnownKey, Position};
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, PushId};
use crate::base::parts::Parts;
use crate::limits::KEY_AGE_MAX;
use std::collections::VecDeque;
use std::sync::Arc;

struct Kept {
    app: AppId,
    key: Box<str>,
    body_hash: u64,
    id: PushId,
    positions: Arc<[Position]>,
    at_ms: u64,
}

impl Kept {
    fn is_over(&self, now: Now) -> bool {
        now.wall_ms.saturating_sub(self.at_ms) >= KEY_AGE_MAX.as_millis() as u64
    }
}

pub(super) struct Keys {
    ring: VecDeque<Kept>,
    /// Number of keys that have left the ring: the ring's front has this number, and the table holds numbers.
    gone: u64,
    table: Parts<u64>,
    hash: KeyedHash,
    keys_max: usize,
    dropped: u64,
}

impl Keys {
    /// At most `keys_max` (≥ 1) keys; beyond it the oldest go, counted.
    pub(super) fn new(hash: KeyedHash, keys_max: usize) -> Self {
        assert!(keys_max > 0, "a key must outlive its own commit");
        Self { ring: VecDeque::new(), gone: 0, table: Parts::new(), hash, keys_max, dropped: 0 }
    }

    pub(super) fn find(&self, app: AppId, key: &str, now: Now) -> Option<KnownKey> {
        let number =
            self.table.find(self.hash.of(&(app, key)), |number| is(&self.ring, self.gone, *number, app, key))?;
        let kept = at(&self.ring, self.gone, *number);
        let (body_hash, id) = (kept.body_hash, kept.id);
        (!kept.is_over(now)).then(|| KnownKey { body_hash, id, positions: kept.positions.clone() })
    }

    pub(super) fn insert(&mut self, outcome: &KeyOutcome, now: Now) {
        self.sweep(now);
        if self.ring.len() == self.keys_max {
            self.pop();
            self.dropped += 1;
        }
        let KeyOutcome { key, positions } = outcome;
        let number = self.gone + self.ring.len() as u64;
        let Self { ring, gone, table, hash, .. } = self;
        let hashed = hash.of(&(key.app, &*key.key));
        // A key that is over but still in the ring (the wall clock went back) leaves its place in the table to this one.
        match table.find_mut(hashed, |number| is(ring, *gone, *number, key.app, &key.key)) {
            Some(old) => *old = number,
            None => {
                table.insert_unique(hashed, number, |number| {
                    let kept = at(ring, *gone, *number);
                    hash.of(&(kept.app, &*kept.key))
                });
            }
        }
        self.ring.push_back(Kept {
            app: key.app,
            key: key.key.clone(),
            body_hash: key.body_hash,
            id: key.id,
            positions: positions.clone(),
            at_ms: now.wall_ms,
        });
    }

    /// Removes what is over from the old end of the ring.
    pub(super) fn sweep(&mut self, now: Now) {
        while self.ring.front().is_some_and(|kept| kept.is_over(now)) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(kept) = self.ring.front() else { return };
        let hashed = self.hash.of(&(kept.app, &*kept.key));
        // A key that came again has a later place, and stays.
        let _own = self.table.remove(hashed, |number| *number == self.gone);
        self.ring.pop_front();
        self.gone += 1;
    }

    pub(super) fn count(&self) -> u64 {
        self.table.len() as u64
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn at(ring: &VecDeque<Kept>, gone: u64, number: u64) -> &Kept {
    let index = usize::try_from(number - gone).expect("the ring is shorter than memory");
    ring.get(index).expect("the table numbers only what is in the ring")
}

fn is(ring: &VecDeque<Kept>, gone: u64, number: u64, app: AppId, key: &str) -> bool {
    let kept = at(ring, gone, number);
    kept.app == app && *kept.key == *key
}

#[cfg(test)]
mod tests {
    use super::super::IdempotencyKey;
    use super::*;

    fn outcome(key: &str) -> KeyOutcome {
        let key = IdempotencyKey { app: AppId(1), key: key.into(), body_hash: 7, id: PushId(1) };
        KeyOutcome { key, positions: Arc::default() }
    }

    fn at_ms(wall_ms: u64) -> Now {
        Now { monotonic_ms: wall_ms, wall_ms }
    }

    fn known(keys: &Keys, key: &str, wall_ms: u64) -> bool {
        keys.find(AppId(1), key, at_ms(wall_ms)).is_some()
    }

    #[test]
    fn the_oldest_key_goes_when_there_is_one_more_than_the_bound() {
        let mut keys = Keys::new(KeyedHash::new(1), 3);
        for key in ["a", "b", "c"] {
            keys.insert(&outcome(key), at_ms(0));
        }
        assert!(known(&keys, "a", 0) && known(&keys, "b", 0) && known(&keys, "c", 0));
        assert_eq!(keys.dropped(), 0);
        keys.insert(&outcome("d"), at_ms(0));
        assert!(!known(&keys, "a", 0) && known(&keys, "b", 0) && known(&keys, "d", 0));
        assert_eq!((keys.count(), keys.dropped()), (3, 1));
        assert!(keys.find(AppId(2), "b", at_ms(0)).is_none());
    }

    #[test]
    fn a_key_is_known_until_its_age_is_reached_and_may_come_again() {
        let age = KEY_AGE_MAX.as_millis() as u64;
        let mut keys = Keys::new(KeyedHash::new(1), 3);
        keys.insert(&outcome("a"), at_ms(5));
        assert!(known(&keys, "a", 5 + age - 1));
        assert!(!known(&keys, "a", 5 + age));
        keys.insert(&outcome("a"), at_ms(5 + age));
        assert!(known(&keys, "a", 5 + age));
        assert_eq!((keys.count(), keys.dropped()), (1, 0));
    }

    #[test]
    fn a_clock_that_went_back_leaves_no_key_twice() {
        let age = KEY_AGE_MAX.as_millis() as u64;
        let mut keys = Keys::new(KeyedHash::new(1), 8);
        keys.insert(&outcome("young"), at_ms(age));
        keys.insert(&outcome("old"), at_ms(0));
        assert!(!known(&keys, "old", age));
        keys.insert(&outcome("old"), at_ms(age));
        assert!(known(&keys, "old", age));
        keys.sweep(at_ms(3 * age));
        assert_eq!(keys.count(), 0);
    }
}
