//! A list that is short mostly and may be very long: one with a million entries grows by another chunk, where a vector would
//! move all of them and leave its old half behind.

use core::mem;
use core::ops::Range;
use smallvec::SmallVec;

/// Entries of a chunk. Up to so many lie in one piece.
const CHUNK_ENTRIES: usize = 1_024;

/// See the module. Entries are in the order in which they were pushed, but for what [`Row::swap_remove`] moves.
#[derive(Clone, Debug)]
pub struct Row<T: Copy>(Kept<T>);

#[derive(Clone, Debug)]
enum Kept<T: Copy> {
    /// One or two need no allocation.
    Short(SmallVec<[T; 2]>),
    /// All chunks are full but the last, which is not empty.
    Long(Vec<Vec<T>>),
}

const _: () = assert!(size_of::<Row<u64>>() == size_of::<SmallVec<[u64; 2]>>());

impl<T: Copy> Default for Row<T> {
    fn default() -> Self {
        Self(Kept::Short(SmallVec::new()))
    }
}

impl<T: Copy> Row<T> {
    /// Entries at the moment.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Short(entries) => entries.len(),
            Kept::Long(chunks) => (chunks.len() - 1) * CHUNK_ENTRIES + chunks.last().map_or(0, Vec::len),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// None beyond the end.
    pub fn get(&self, position: usize) -> Option<&T> {
        match &self.0 {
            Kept::Short(entries) => entries.get(position),
            Kept::Long(chunks) => chunks.get(position / CHUNK_ENTRIES)?.get(position % CHUNK_ENTRIES),
        }
    }

    /// None beyond the end.
    pub fn get_mut(&mut self, position: usize) -> Option<&mut T> {
        match &mut self.0 {
            Kept::Short(entries) => entries.get_mut(position),
            Kept::Long(chunks) => chunks.get_mut(position / CHUNK_ENTRIES)?.get_mut(position % CHUNK_ENTRIES),
        }
    }

    /// The last one.
    pub fn last(&self) -> Option<&T> {
        self.get(self.len().checked_sub(1)?)
    }

    /// From the range's start on, as many of its entries as lie in one piece: one at least, unless the range is empty.
    ///
    /// # Panics
    /// The row ends before the piece does.
    pub fn stretch(&self, range: Range<usize>) -> &[T] {
        match &self.0 {
            Kept::Short(entries) => &entries[range],
            Kept::Long(_) if range.is_empty() => &[],
            Kept::Long(chunks) => {
                let (chunk, start) = (range.start / CHUNK_ENTRIES, range.start % CHUNK_ENTRIES);
                &chunks[chunk][start..CHUNK_ENTRIES.min(start + range.len())]
            }
        }
    }

    /// Puts one behind the last.
    pub fn push(&mut self, entry: T) {
        if let Kept::Short(entries) = &mut self.0
            && entries.len() == CHUNK_ENTRIES
        {
            self.0 = Kept::Long(vec![mem::take(entries).into_vec()]);
        }
        match &mut self.0 {
            Kept::Short(entries) => entries.push(entry),
            Kept::Long(chunks) => match chunks.last_mut().filter(|last| last.len() < CHUNK_ENTRIES) {
                Some(last) => last.push(entry),
                None => {
                    let mut chunk = Vec::with_capacity(CHUNK_ENTRIES);
                    chunk.push(entry);
                    chunks.push(chunk);
                }
            },
        }
    }

    /// Takes the last one. A row that has become short gives memory back.
    pub fn pop(&mut self) -> Option<T> {
        match &mut self.0 {
            Kept::Short(entries) => {
                let popped = entries.pop();
                // The factor keeps the copying at a constant share of each entry that went.
                if entries.capacity() >= CHUNK_ENTRIES && entries.len() < entries.capacity() / 4 {
                    entries.shrink_to_fit();
                }
                popped
            }
            Kept::Long(chunks) => {
                let last = chunks.last_mut().expect("a long row has a chunk");
                let popped = last.pop();
                if last.is_empty() {
                    chunks.pop();
                }
                // Not at once when one chunk is left: the next push would undo it.
                if let [only] = chunks.as_mut_slice()
                    && only.len() <= CHUNK_ENTRIES / 2
                {
                    self.0 = Kept::Short(SmallVec::from_vec(mem::take(only)));
                }
                popped
            }
        }
    }

    /// Takes one out; the last one has its place then.
    ///
    /// # Panics
    /// There is none.
    pub fn swap_remove(&mut self, position: usize) -> T {
        let last = self.pop().expect("there is an entry to remove");
        match self.get_mut(position) {
            Some(place) => mem::replace(place, last),
            None => {
                assert!(self.len() == position, "there is an entry to remove");
                last
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of the entries' own memory, in entries.
    fn capacity(row: &Row<u32>) -> usize {
        match &row.0 {
            Kept::Short(entries) => entries.capacity(),
            Kept::Long(chunks) => chunks.iter().map(Vec::capacity).sum(),
        }
    }

    #[test]
    fn a_long_row_grows_by_a_chunk_and_moves_nothing() {
        let mut row = Row::default();
        (0..=CHUNK_ENTRIES as u32).for_each(|entry| row.push(entry));
        let places: Vec<*const u32> =
            (0..=CHUNK_ENTRIES).map(|at| &raw const *row.get(at).expect("it is there")).collect();
        (row.len() as u32..20_000).for_each(|entry| row.push(entry));
        assert!((0..=CHUNK_ENTRIES).all(|at| std::ptr::eq(row.get(at).expect("it is there"), places[at])));
        assert!(capacity(&row) < 20_000 + CHUNK_ENTRIES);
    }

    #[test]
    fn a_row_gives_its_memory_back_and_does_not_waver_at_a_chunk() {
        let mut row = Row::default();
        (0..5_000).for_each(|entry| row.push(entry));
        while row.len() > CHUNK_ENTRIES {
            row.pop();
        }
        for _ in 0..3 {
            row.push(7);
            assert!(matches!(row.0, Kept::Long(_)));
            row.pop();
            assert!(matches!(row.0, Kept::Long(_)), "it would be moved again and again");
        }
        while row.len() > 10 {
            row.pop();
        }
        assert!(capacity(&row) < CHUNK_ENTRIES);
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_vector(
            start in 0_usize..3_000,
            changes in prop::collection::vec((any::<bool>(), any::<u16>()), 1..3_000),
        ) {
            let (mut row, mut model) = (Row::default(), Vec::new());
            for entry in 0..start as u32 {
                row.push(entry);
                model.push(entry);
            }
            for (grows, number) in changes {
                if grows {
                    row.push(u32::from(number));
                    model.push(u32::from(number));
                } else if !model.is_empty() {
                    let position = usize::from(number) % model.len();
                    prop_assert_eq!(row.swap_remove(position), model.swap_remove(position));
                }
                prop_assert_eq!((row.len(), row.last()), (model.len(), model.last()));
            }
            prop_assert_eq!(row.get(model.len()), None);
            let (mut seen, mut at) = (Vec::new(), 0);
            while at < row.len() {
                let stretch = row.stretch(at..row.len());
                prop_assert!(!stretch.is_empty());
                seen.extend_from_slice(stretch);
                at += stretch.len();
            }
            prop_assert_eq!(&seen, &model);
            let middle = row.len() / 3..row.len() / 2;
            let stretch = row.stretch(middle.clone());
            prop_assert_eq!(stretch, &model[middle.start..middle.start + stretch.len()]);
            prop_assert!(stretch.len() <= middle.len());
            while let Some(popped) = row.pop() {
                prop_assert_eq!(Some(popped), model.pop());
            }
            prop_assert!(model.is_empty() && row.is_empty());
        }
    }
}
