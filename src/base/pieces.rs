//! Storage by index for what nobody knows the number of. A vector that doubles moves all that is in it at once, which with
//! half a million entries is a pause of many milliseconds. Here it grows by a chunk, and what is in it stays where it is.

use core::mem;
use core::ops::{Index, IndexMut};

const CHUNK_ENTRIES: usize = 256;
/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Entry<T> {
    Occupied(T),
    /// The next one that is to be used.
    Vacant(u32),
}

type Chunk<T> = Box<[Entry<T>; CHUNK_ENTRIES]>;

/// See the module. Indexes are used again, the last one that has become vacant first.
#[derive(Debug)]
pub struct Pieces<T> {
    chunks: Vec<Chunk<T>>,
    /// The first one that is to be used.
    vacant: u32,
    len: usize,
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Pieces<T> {
    /// Without entries, and without memory.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), vacant: NONE, len: 0 }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts one in; its index.
    ///
    /// # Panics
    /// There are 2^32 - 1 already.
    pub fn insert(&mut self, value: T) -> u32 {
        if self.vacant == NONE {
            self.grow();
        }
        let index = self.vacant;
        let entry = mem::replace(self.entry_mut(index).expect("a vacant place is there"), Entry::Occupied(value));
        let Entry::Vacant(next) = entry else { unreachable!("vacant places are in one list") };
        self.vacant = next;
        self.len += 1;
        index
    }

    /// Takes one out.
    ///
    /// # Panics
    /// There is none at this index.
    pub fn remove(&mut self, index: u32) -> T {
        let next = self.vacant;
        let entry = self.entry_mut(index).filter(|entry| matches!(entry, Entry::Occupied(_)));
        let entry = mem::replace(entry.expect("there is an entry to remove"), Entry::Vacant(next));
        let Entry::Occupied(value) = entry else { unreachable!("it was looked at") };
        self.vacant = index;
        self.len -= 1;
        value
    }

    /// None where nothing is.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        let at = index as usize;
        match &self.chunks.get(at / CHUNK_ENTRIES)?[at % CHUNK_ENTRIES] {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    /// As [`Pieces::get`], to change it.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entry_mut(index)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    #[inline]
    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let at = index as usize;
        Some(&mut self.chunks.get_mut(at / CHUNK_ENTRIES)?[at % CHUNK_ENTRIES])
    }

    /// One chunk more, whose entries are used in their order.
    fn grow(&mut self) {
        let start = self.chunks.len() * CHUNK_ENTRIES;
        let end = u32::try_from(start + CHUNK_ENTRIES).expect("fewer than 2^32 - 1 entries");
        let nexts = (end - CHUNK_ENTRIES as u32 + 1..end).chain([NONE]);
        let chunk: Vec<Entry<T>> = nexts.map(Entry::Vacant).collect();
        self.chunks.push(chunk.try_into().unwrap_or_else(|_| unreachable!("it has as many entries as a chunk")));
        self.vacant = end - CHUNK_ENTRIES as u32;
    }
}

impl<T> Index<u32> for Pieces<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        match &self.chunks[index as usize / CHUNK_ENTRIES][index as usize % CHUNK_ENTRIES] {
            Entry::Occupied(value) => value,
            Entry::Vacant(_) => nothing_there(index),
        }
    }
}

impl<T> IndexMut<u32> for Pieces<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        match &mut self.chunks[index as usize / CHUNK_ENTRIES][index as usize % CHUNK_ENTRIES] {
            Entry::Occupied(value) => value,
            Entry::Vacant(_) => nothing_there(index),
        }
    }
}

#[cold]
fn nothing_there(index: u32) -> ! {
    panic!("there is an entry at {index} while somebody holds that index");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn what_is_in_it_stays_where_it_is_while_it_grows() {
        let mut pieces = Pieces::new();
        (0..=CHUNK_ENTRIES as u32).for_each(|value| assert_eq!(pieces.insert(value), value));
        let places: Vec<*const u32> = (0..=CHUNK_ENTRIES as u32).map(|index| &raw const pieces[index]).collect();
        (pieces.len() as u32..20_000).for_each(|value| assert_eq!(pieces.insert(value), value));
        assert!((0..).zip(places).all(|(index, place)| std::ptr::eq(&raw const pieces[index], place)));
        assert_eq!(pieces.chunks.len(), 20_000_usize.div_ceil(CHUNK_ENTRIES));
    }

    #[test]
    #[should_panic = "there is an entry to remove"]
    fn an_entry_is_removed_once() {
        let mut pieces = Pieces::new();
        let index = pieces.insert(());
        pieces.remove(index);
        pieces.remove(index);
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_map_whose_keys_are_the_lowest_ever_needed(
            start in 0_u32..2_500,
            changes in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..1_500),
        ) {
            let (mut pieces, mut model, mut keys, mut most) = (Pieces::new(), HashMap::new(), Vec::new(), 0);
            let changes = changes.into_iter().map(|(grows, which)| (grows, Some(which)));
            for (step, (grows, which)) in (0..start).map(|_| (true, None)).chain(changes).enumerate() {
                if grows {
                    let index = pieces.insert(step);
                    prop_assert!(model.insert(index, step).is_none());
                    keys.push(index);
                    most = most.max(keys.len());
                    prop_assert!((index as usize) < most, "a vacant place is used before a new one");
                } else if let Some(which) = which.filter(|_| !keys.is_empty()) {
                    let index = keys.swap_remove(which.index(keys.len()));
                    prop_assert_eq!(Some(pieces.remove(index)), model.remove(&index));
                    prop_assert!(pieces.get(index).is_none() && pieces.get_mut(index).is_none());
                }
                prop_assert_eq!(pieces.len(), model.len());
            }
            for (&index, value) in &model {
                prop_assert_eq!((pieces.get(index), pieces[index]), (Some(value), *value));
            }
            prop_assert!(pieces.get(u32::MAX).is_none() && pieces.is_empty() == model.is_empty());
        }
    }
}
