//! A hash table of slab indices in parts, each of which grows by itself. A table that doubles moves all that is in it at
//! once: with half a million entries, whose hashes lie in the entries' own memory, that is a pause of 50 ms and more.

use hashbrown::HashTable;

/// Entries of a part when there are as many as is expected at most.
const ENTRIES_EXPECTED: usize = 1_024;
/// Below are the bits that choose a place in a part, above those that a place remembers.
const SHIFT: u32 = 32;

/// See the module. Parts are chosen by the hash that chooses places in them.
#[derive(Debug)]
pub struct Parts(Box<[HashTable<u32>]>);

impl Parts {
    /// For this many entries; more are taken as well.
    pub fn for_entries(expected: usize) -> Self {
        let parts = expected.div_ceil(ENTRIES_EXPECTED).next_power_of_two();
        Self((0..parts).map(|_| HashTable::new()).collect())
    }

    /// Entries, by a look at every part.
    pub fn len(&self) -> usize {
        self.0.iter().map(HashTable::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The part of what has this hash.
    pub fn of(&self, hash: u64) -> &HashTable<u32> {
        &self.0[self.index(hash)]
    }

    /// The part of what has this hash.
    pub fn of_mut(&mut self, hash: u64) -> &mut HashTable<u32> {
        let index = self.index(hash);
        &mut self.0[index]
    }

    /// There is a power of two of them.
    fn index(&self, hash: u64) -> usize {
        (hash >> SHIFT) as usize & (self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::KeyedHash;
    use super::*;
    use core::cell::Cell;

    #[test]
    fn what_was_put_in_is_found_and_no_insert_moves_more_than_two_parts_hold() {
        let hash = KeyedHash::new(7);
        let count = 100_000_u32;
        let mut parts = Parts::for_entries(count as usize);
        assert_eq!(parts.0.len(), 128);
        for entry in 0..count {
            let moved = Cell::new(0);
            parts.of_mut(hash.of(&entry)).insert_unique(hash.of(&entry), entry, |other| {
                moved.set(moved.get() + 1);
                hash.of(other)
            });
            assert!(moved.get() <= 2 * ENTRIES_EXPECTED, "{} moved", moved.get());
        }
        assert_eq!(parts.len(), count as usize);
        for entry in 0..count {
            assert!(parts.of(hash.of(&entry)).find(hash.of(&entry), |&found| found == entry).is_some());
            parts.of_mut(hash.of(&entry)).find_entry(hash.of(&entry), |&found| found == entry).expect("it is").remove();
        }
        assert!(parts.is_empty());
    }

    #[test]
    fn a_few_have_one_part_and_may_become_many() {
        let hash = KeyedHash::new(7);
        for expected in [0, 1, ENTRIES_EXPECTED] {
            let mut parts = Parts::for_entries(expected);
            assert_eq!(parts.0.len(), 1);
            for entry in 0..10 * ENTRIES_EXPECTED as u32 {
                parts.of_mut(hash.of(&entry)).insert_unique(hash.of(&entry), entry, |other| hash.of(other));
            }
            assert_eq!(parts.len(), 10 * ENTRIES_EXPECTED);
        }
    }
}
