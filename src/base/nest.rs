//! Values that are too large for a table that reserves room for all of them, and too many for a box each: an allocator
//! rounds up to its classes, 1,128 bytes to 1,280. Here they lie in chunks of 64 KiB, as many as fit.
//!
//! ```text
//!   Nest ─► chunk 0 [value│free │value│…]     a bit for each free place
//!           chunk 1 [value│value│value│…]
//!           chunk 2 [     │     │     │…]     one empty chunk keeps its memory
//!           chunk 3  bare                     the others give it back
//!                        ▲
//!   Nested ──────────────┘ owns a value as a box does, wherever it goes
//! ```
//! One nest serves all threads, for values move between them; its lock is taken when a value comes or goes, never to use it.
//! It has no bound of its own: there are as many values as their owners have room for.
#![allow(unsafe_code, reason = "a place in a chunk that others use belongs to one owner")]

use core::fmt;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a chunk at most: a size that allocators have without a rest.
const CHUNK_BYTES: usize = 64 << 10;

/// What has a nest.
pub trait Nests: Sized + 'static {
    /// The one of all values of its type.
    fn nest() -> &'static Nest<Self>;
}

/// The chunks of a type's values.
#[derive(Debug)]
pub struct Nest<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks that have memory and a free place; the last one is used next.
    roomy: Vec<u32>,
    /// Of them, the one that is empty.
    empty: Option<u32>,
    /// Chunks without memory.
    bare: Vec<u32>,
}

impl<T> State<T> {
    fn becomes_roomy(&mut self, chunk: u32) {
        self.chunks[chunk as usize].at =
            u32::try_from(self.roomy.len()).expect("there are not more of them than chunks");
        self.roomy.push(chunk);
    }

    /// In one step, however many there are: a million connections may end at once.
    fn is_roomy_no_longer(&mut self, chunk: u32) {
        let at = self.chunks[chunk as usize].at;
        assert!(self.roomy.swap_remove(at as usize) == chunk, "a chunk knows where it is");
        if let Some(&moved) = self.roomy.get(at as usize) {
            self.chunks[moved as usize].at = at;
        }
    }
}

#[derive(Debug)]
struct Chunk<T> {
    /// Its places, `Nest::PLACES` of them; none: it is bare.
    places: Option<NonNull<MaybeUninit<Place<T>>>>,
    /// A bit for each free one.
    free: u64,
    /// Where `roomy` has it, while it is there.
    at: u32,
}

// SAFETY: a chunk says where values lie and never looks at them; who owns one may be on any thread if the value may.
unsafe impl<T: Send> Send for Chunk<T> {}

/// A value, and where it lies.
struct Place<T> {
    chunk: u32,
    number: u32,
    value: T,
}

/// A value in its nest: a box of its own in all but its memory.
pub struct Nested<T: Nests> {
    place: NonNull<Place<T>>,
}

// SAFETY: it owns its value, and nobody else has a way to it.
unsafe impl<T: Nests + Send> Send for Nested<T> {}
// SAFETY: as for a box: through a shared one there is only a shared value.
unsafe impl<T: Nests + Sync> Sync for Nested<T> {}

impl<T> Default for Nest<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Nest<T> {
    const PLACES: usize = {
        let fit = CHUNK_BYTES / size_of::<Place<T>>();
        assert!(fit > 1, "what is so large needs no nest");
        if fit < 64 { fit } else { 64 }
    };
    const ALL: u64 = u64::MAX >> (64 - Self::PLACES);

    /// An empty one.
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { chunks: Vec::new(), roomy: Vec::new(), empty: None, bare: Vec::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in here leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, value: T) -> NonNull<Place<T>> {
        let mut state = self.lock();
        let state = &mut *state;
        let chunk = state.roomy.last().copied().unwrap_or_else(|| {
            let chunk = state.bare.pop().unwrap_or_else(|| {
                state.chunks.push(Chunk { places: None, free: Self::ALL, at: 0 });
                u32::try_from(state.chunks.len() - 1).expect("2^32 chunks are more than a machine has memory for")
            });
            state.becomes_roomy(chunk);
            chunk
        });
        state.empty = state.empty.filter(|&other| other != chunk);
        let Chunk { places, free, .. } = &mut state.chunks[chunk as usize];
        let places = *places.get_or_insert_with(|| {
            let places: Box<[MaybeUninit<Place<T>>]> = Box::new_uninit_slice(Self::PLACES);
            NonNull::from(Box::leak(places)).cast()
        });
        let number = free.trailing_zeros();
        *free &= *free - 1;
        if *free == 0 {
            state.is_roomy_no_longer(chunk);
        }
        // SAFETY: only bits of places are ever set in `free`, so this one is within the chunk, which has its memory for as
        // long as one of its bits is clear; this one was set, so the place is nobody's, and is the caller's from now on.
        unsafe {
            let place = places.add(number as usize);
            place.write(MaybeUninit::new(Place { chunk, number, value }));
            place.cast()
        }
    }

    /// A place's value is gone.
    fn give(&self, chunk: u32, number: u32) {
        let mut state = self.lock();
        let Chunk { free, .. } = &mut state.chunks[chunk as usize];
        assert!(*free & (1 << number) == 0, "a place is given back once");
        let was_full = *free == 0;
        *free |= 1 << number;
        let is_empty = *free == Self::ALL;
        if was_full {
            state.becomes_roomy(chunk);
        }
        if !is_empty {
            return;
        }
        if state.empty.is_none() {
            state.empty = Some(chunk);
            return;
        }
        let places =
            state.chunks[chunk as usize].places.take().expect("a chunk has memory while one of its places is taken");
        let places = NonNull::slice_from_raw_parts(places, Self::PLACES);
        // SAFETY: it was a box of so many places, and all of them are free: nobody has a way to any of them.
        drop(unsafe { Box::from_raw(places.as_ptr()) });
        state.is_roomy_no_longer(chunk);
        state.bare.push(chunk);
    }
}

impl<T: Nests> Nested<T> {
    /// Puts a value into its nest.
    pub fn new(value: T) -> Self {
        Self { place: T::nest().put(value) }
    }
}

impl<T: Nests> Deref for Nested<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the place is this one's from `put` to `drop`, and holds a value for as long.
        unsafe { &self.place.as_ref().value }
    }
}

impl<T: Nests> DerefMut for Nested<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; this one is borrowed for as long as its value.
        unsafe { &mut self.place.as_mut().value }
    }
}

impl<T: Nests> Drop for Nested<T> {
    fn drop(&mut self) {
        // SAFETY: the value is here until now and not looked at again: this is its only owner, which is gone after this. The
        // place is given back when the value is.
        let (chunk, number) = unsafe {
            let place = self.place.as_ptr();
            let at = ((*place).chunk, (*place).number);
            place.drop_in_place();
            at
        };
        T::nest().give(chunk, number);
    }
}

impl<T: Nests + fmt::Debug> fmt::Debug for Nested<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::thread;

    /// A type with a nest, of which nobody else has values.
    macro_rules! nesting {
        ($name:ident) => {
            #[allow(dead_code, reason = "no test looks at all of it")]
            struct $name(u64, [u64; 500], Arc<()>);

            impl Nests for $name {
                fn nest() -> &'static Nest<Self> {
                    static NEST: Nest<$name> = Nest::new();
                    &NEST
                }
            }

            impl $name {
                fn nested(number: u64, alive: &Arc<()>) -> Nested<Self> {
                    Nested::new(Self(number, [number; 500], Arc::clone(alive)))
                }
                /// Chunks with memory, and all.
                #[allow(dead_code, reason = "not every test asks for it")]
                fn chunks() -> (usize, usize) {
                    let state = Self::nest().lock();
                    (state.chunks.iter().filter(|chunk| chunk.places.is_some()).count(), state.chunks.len())
                }
            }
        };
    }

    #[test]
    fn a_chunk_has_as_many_places_as_fit_and_the_next_value_gets_another() {
        nesting!(Value);
        assert_eq!(Nest::<Value>::PLACES, CHUNK_BYTES / (8 + 8 + 4_000 + 8));
        let alive = Arc::new(());
        let mut all: Vec<_> = (0..16).map(|number| Value::nested(number, &alive)).collect();
        assert_eq!(Value::chunks(), (1, 1));
        all.push(Value::nested(16, &alive));
        assert_eq!(Value::chunks(), (2, 2));
        assert!(all.iter().zip(0..).all(|(value, number)| value.0 == number && value.1 == [number; 500]));
    }

    #[test]
    fn one_empty_chunk_keeps_its_memory_and_the_others_give_it_back() {
        nesting!(Value);
        let alive = Arc::new(());
        let mut all: Vec<_> = (0..48).map(|number| Value::nested(number, &alive)).collect();
        assert_eq!((Value::chunks(), Arc::strong_count(&alive)), ((3, 3), 49));
        all.drain(16..32);
        assert_eq!(Value::chunks(), (3, 3), "one that is empty keeps it");
        all.drain(16..);
        assert_eq!((Value::chunks(), Arc::strong_count(&alive)), ((2, 3), 17));
        all.extend((0..33).map(|number| Value::nested(number, &alive)));
        assert_eq!(Value::chunks(), (4, 4), "its place among the chunks is used again");
        drop(all);
        assert_eq!((Value::chunks(), Arc::strong_count(&alive)), ((1, 4), 1));
    }

    #[test]
    fn a_value_may_go_on_another_thread() {
        nesting!(Value);
        let alive = Arc::new(());
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let values: Vec<_> = (0..100).map(|number| Value::nested(1_000 * thread + number, &alive)).collect();
                thread::spawn(move || {
                    values
                        .into_iter()
                        .map(|mut value| {
                            value.0 += 1;
                            value.0
                        })
                        .sum::<u64>()
                })
            })
            .collect();
        let sums: Vec<u64> = threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect();
        assert_eq!(sums, [5_050, 105_050, 205_050, 305_050]);
        assert_eq!((Arc::strong_count(&alive), Value::chunks().0), (1, 1));
    }

    proptest! {
        #[test]
        fn values_are_what_they_were_and_go_once(ops in prop::collection::vec((any::<bool>(), any::<u64>()), 1..400)) {
            nesting!(Value);
            let (alive, mut model) = (Arc::new(()), HashMap::new());
            for (step, (comes, which)) in (0_u64..).zip(ops) {
                if comes {
                    model.insert(step, Value::nested(step, &alive));
                } else if let Some(&gone) = model.keys().nth(which as usize % model.len().max(1)) {
                    model.remove(&gone);
                }
                prop_assert_eq!(Arc::strong_count(&alive), model.len() + 1);
                for (number, value) in &model {
                    prop_assert!(value.0 == *number && value.1 == [*number; 500]);
                }
            }
        }
    }
}
