//! Storage by index for what a shard has many of: reserved once for its maximum, checked by generation.
//!
//! It stands on the `slab` crate, whose vector is reserved up front: growing never copies, and pages nobody touched
//! cost nothing. A generation lies beside each value, in its cache line. It is drawn from one counter for the whole
//! slab, so a stale key can only be taken for a live one if it outlived an exact multiple of 16,777,215 insertions.

/// Generations are 24 bits wide, so that one fits a driver's token beside an op and an index.
pub const GENERATION_MAX: u32 = (1 << 24) - 1;

/// Names one value of one slab, until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Where it lies; re-used.
    pub index: u32,
    /// Which of those that lay there, 1..=[`GENERATION_MAX`].
    pub generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: T,
}

/// At most `max` values, each found by its [`Key`]. Full: [`Slab::insert`] gives the value back.
#[derive(Debug)]
pub struct Slab<T> {
    entries: slab::Slab<Entry<T>>,
    generation: u32,
    max: u32,
    end: u32,
}

impl<T> Slab<T> {
    /// Reserves address space for `max` values.
    pub fn new(max: u32) -> Self {
        Self { entries: slab::Slab::with_capacity(max as usize), generation: 0, max, end: 0 }
    }

    /// Puts a value in; the value itself when the slab is full.
    #[inline]
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.is_full() {
            return Err(value);
        }
        self.generation = if self.generation == GENERATION_MAX { 1 } else { self.generation + 1 };
        // Below the maximum, which is a u32: a place is only added when all others are taken.
        let index = self.entries.insert(Entry { generation: self.generation, value }) as u32;
        if index >= self.end {
            self.end = index + 1;
        }
        Ok(Key { index, generation: self.generation })
    }

    /// The value, unless the key is stale.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        self.entries.get(key.index as usize).filter(|e| e.generation == key.generation).map(|e| &e.value)
    }

    /// As [`Slab::get`], to change it.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entries.get_mut(key.index as usize).filter(|e| e.generation == key.generation).map(|e| &mut e.value)
    }

    /// Takes the value out, unless the key is stale; from then on it is.
    #[inline]
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.entries.remove(key.index as usize).value)
    }

    /// The value at an index whose only holder knows that it is occupied.
    #[inline]
    pub fn at(&self, index: u32) -> &T {
        &self.entries[index as usize].value
    }

    /// As [`Slab::at`], to change it.
    #[inline]
    pub fn at_mut(&mut self, index: u32) -> &mut T {
        &mut self.entries[index as usize].value
    }

    /// Takes the value out at an index whose only holder knows that it is occupied.
    #[inline]
    pub fn remove_at(&mut self, index: u32) -> T {
        self.entries.remove(index as usize).value
    }

    /// The key of what lies at an index now.
    pub fn key_at(&self, index: u32) -> Option<Key> {
        self.entries.get(index as usize).map(|e| Key { index, generation: e.generation })
    }

    /// Every value with its key, by index.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().map(|(index, e)| {
            let index = u32::try_from(index).expect("indexes stay below the maximum, a u32");
            (Key { index, generation: e.generation }, &e.value)
        })
    }

    /// One past the highest index that was ever used.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Values inside.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no more fit.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.max as usize
    }

    /// Values that fit.
    pub fn max(&self) -> u32 {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_full_slab_refuses_and_has_room_again_after_a_removal() {
        let mut slab = Slab::new(2);
        let first = slab.insert('a').expect("room for one");
        slab.insert('b').expect("room for two");
        assert_eq!(slab.insert('c'), Err('c'));
        assert_eq!(slab.remove(first), Some('a'));
        let third = slab.insert('c').expect("room again");
        assert_eq!(third.index, first.index);
        assert_eq!((slab.get(first), slab.get(third)), (None, Some(&'c')));
    }

    #[test]
    fn generations_wrap_without_ever_being_zero() {
        let mut slab = Slab::new(1);
        slab.generation = GENERATION_MAX - 1;
        let last = slab.insert(()).expect("room");
        assert_eq!(last.generation, GENERATION_MAX);
        slab.remove(last);
        assert_eq!(slab.insert(()).expect("room").generation, 1);
    }

    #[test]
    fn a_value_with_a_niche_costs_its_size_and_a_generation() {
        #[derive(Debug)]
        struct Hot {
            _words: [u32; 14],
            _flag: bool,
        }
        let mut slab = Slab::new(2);
        let (a, b) = (
            slab.insert(Hot { _words: [0; 14], _flag: true }).expect("room"),
            slab.insert(Hot { _words: [0; 14], _flag: true }).expect("room"),
        );
        let stride = std::ptr::from_ref(slab.at(b.index)).addr() - std::ptr::from_ref(slab.at(a.index)).addr();
        assert!(stride <= 64, "an entry of 60 bytes costs {stride}");
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_map_from_keys_never_seen_before(ops in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..400)) {
            let mut slab = Slab::new(16);
            let mut model = HashMap::new();
            let mut seen: Vec<Key> = Vec::new();
            for (step, (insert, which)) in ops.into_iter().enumerate() {
                if insert {
                    match slab.insert(step) {
                        Ok(key) => { prop_assert!(!seen.contains(&key)); seen.push(key); model.insert(key, step); }
                        Err(_) => prop_assert_eq!(model.len(), 16),
                    }
                } else if !seen.is_empty() {
                    let key = *which.get(&seen);
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                }
                prop_assert_eq!(slab.len(), model.len());
                for key in &seen {
                    prop_assert_eq!(slab.get(*key), model.get(key));
                }
            }
        }
    }
}
