//! Heads of the streams that were used lately, so that an append and a read find theirs without asking the tree.

use super::layout::{Front, Head};
use crate::base::hash::KeyedHash;
use crate::base::message::StreamKey;
use crate::limits::STORE_HEADS_MAX;
use hashbrown::HashTable;
use std::collections::VecDeque;

/// A stream's head and its oldest entries. `head` is the default one when there is no such stream, which is worth
/// remembering where an append follows: it asks twice before it makes the stream.
#[derive(Debug)]
pub(super) struct Open {
    pub stream: StreamKey,
    pub head: Head,
    /// The entries from `head.first` on, as far as they are known; retention takes from here.
    pub fronts: VecDeque<Front>,
}

impl Open {
    pub fn new(stream: &StreamKey, head: Head) -> Self {
        Self { stream: stream.clone(), head, fronts: VecDeque::new() }
    }

    pub fn exists(&self) -> bool {
        self.head.id != 0
    }
}

/// Two generations, so that what was not used for a while goes without a list to keep in order: when the young one is
/// full it becomes the old one, and what was left of that is forgotten.
pub(super) struct Heads {
    hash: KeyedHash,
    young: HashTable<Open>,
    old: HashTable<Open>,
}

impl Heads {
    pub fn new(hash: KeyedHash) -> Self {
        Self { hash, young: HashTable::new(), old: HashTable::new() }
    }

    pub fn find(&mut self, stream: &StreamKey) -> Option<&mut Open> {
        self.age_if_full();
        let Self { hash, young, old } = self;
        let (key, is) = (hash.of(stream), |open: &Open| open.stream == *stream);
        let absent = match young.find_entry(key, is) {
            Ok(found) => return Some(found.into_mut()),
            Err(absent) => absent,
        };
        let (open, _) = old.find_entry(key, is).ok()?.remove();
        Some(absent.into_table().insert_unique(key, open, |open| hash.of(&open.stream)).into_mut())
    }

    /// It is not there yet.
    pub fn insert(&mut self, open: Open) -> &mut Open {
        self.age_if_full();
        let Self { hash, young, .. } = self;
        young.insert_unique(hash.of(&open.stream), open, |open| hash.of(&open.stream)).into_mut()
    }

    fn age_if_full(&mut self) {
        if self.young.len() >= STORE_HEADS_MAX / 2 {
            self.old = core::mem::take(&mut self.young);
        }
    }

    pub fn remove(&mut self, stream: &StreamKey) {
        let hash = self.hash.of(stream);
        for generation in [&mut self.young, &mut self.old] {
            if let Ok(found) = generation.find_entry(hash, |open| open.stream == *stream) {
                found.remove();
            }
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
