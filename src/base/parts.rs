//! A hash table in parts. A table that doubles moves all that is in it at once: with half a million entries, whose hashes
//! lie in memory of their own, that is a pause of 50 ms and more. Here a part of about a thousand doubles, or is split, as
//! there are more entries (linear hashing): no insert moves more than one part's.

use hashbrown::HashTable;

/// Entries of a part, on average, at which there is to be one part more.
const ENTRIES_PER_PART: usize = 1_024;
/// Below are the bits that choose a place in a part, above those that a place remembers.
const SHIFT: u32 = 32;

/// See the module. As [`HashTable`], who asks brings the hash.
#[derive(Debug)]
pub struct Parts<T> {
    parts: Vec<HashTable<T>>,
    /// As many bits as number the parts.
    mask: usize,
    len: usize,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Parts<T> {
    /// Without entries, and without memory.
    pub const fn new() -> Self {
        Self { parts: Vec::new(), mask: 0, len: 0 }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of this hash that is it.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts.get(self.index(hash))?.find(hash, is_it)
    }

    /// As [`Parts::find`]. What makes its hash must stay.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let index = self.index(hash);
        self.parts.get_mut(index)?.find_mut(hash, is_it)
    }

    /// Takes an entry in that is not there.
    pub fn insert_unique(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        if self.len >= self.parts.len() * ENTRIES_PER_PART {
            self.split(&hash_of);
        }
        let index = self.index(hash);
        self.parts[index].insert_unique(hash, entry, hash_of);
        self.len += 1;
    }

    /// Takes an entry out.
    pub fn remove(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let index = self.index(hash);
        let (entry, _) = self.parts.get_mut(index)?.find_entry(hash, is_it).ok()?.remove();
        self.len -= 1;
        Some(entry)
    }

    /// One part more, with what of another's is its own from now on.
    fn split(&mut self, hash_of: impl Fn(&T) -> u64) {
        let added = self.parts.len();
        let mut own = HashTable::new();
        if added > 0 {
            // The part that had what is numbered like this until now.
            let from = self.index((added as u64) << SHIFT);
            self.mask = (added + 1).next_power_of_two() - 1;
            let (from, mask) = (&mut self.parts[from], self.mask);
            own.reserve(from.len() / 2, &hash_of);
            for entry in from.extract_if(|entry| number(hash_of(entry)) & mask == added) {
                own.insert_unique(hash_of(&entry), entry, &hash_of);
            }
            from.shrink_to_fit(&hash_of);
        }
        self.parts.push(own);
    }

    /// The part of this hash: one bit less numbers it where it has not been split.
    #[inline]
    fn index(&self, hash: u64) -> usize {
        let index = number(hash) & self.mask;
        if index < self.parts.len() { index } else { index & (self.mask >> 1) }
    }
}

#[inline]
fn number(hash: u64) -> usize {
    (hash >> SHIFT) as usize
}

#[cfg(test)]
mod tests {
    use super::super::hash::KeyedHash;
    use super::*;
    use core::cell::Cell;

    #[test]
    fn what_was_put_in_is_found_until_it_is_taken_out() {
        let hash = KeyedHash::new(7);
        let of = |entry: &u32| hash.of(entry);
        let count = 50_000_u32;
        let mut parts = Parts::new();
        assert!(parts.find(of(&0), |_| true).is_none() && parts.remove(of(&0), |_| true).is_none());
        for entry in 0..count {
            parts.insert_unique(of(&entry), entry, of);
            // The newest, the oldest, and one between, whose part may just have been split.
            for known in [entry, 0, entry / 2] {
                assert_eq!(parts.find(of(&known), |&found| found == known), Some(&known), "behind {entry}");
            }
        }
        assert_eq!(parts.len(), count as usize);
        for entry in (0..count).rev() {
            assert_eq!(parts.find_mut(of(&entry), |&found| found == entry), Some(&mut { entry }));
            assert_eq!(parts.remove(of(&entry), |&found| found == entry), Some(entry));
            assert!(parts.find(of(&entry), |&found| found == entry).is_none());
        }
        assert!(parts.is_empty());
    }

    #[test]
    fn no_insert_moves_more_than_a_part_holds_and_parts_stay_alike() {
        let hash = KeyedHash::new(7);
        let moved = Cell::new(0);
        let mut parts = Parts::new();
        for entry in 0..200_000_u32 {
            moved.set(0);
            let of = |entry: &u32| {
                moved.set(moved.get() + 1);
                hash.of(entry)
            };
            parts.insert_unique(hash.of(&entry), entry, of);
            // A split looks at each entry of a part, which has up to twice as many, and places it anew; then one may double.
            assert!(moved.get() <= 6 * ENTRIES_PER_PART, "{} hashes for entry {entry}", moved.get());
        }
        assert_eq!(parts.parts.len(), 200_000_usize.div_ceil(ENTRIES_PER_PART));
        let sizes = || parts.parts.iter().map(HashTable::len);
        assert!(sizes().min() > Some(ENTRIES_PER_PART / 3) && sizes().max() < Some(2 * ENTRIES_PER_PART));
    }
}
