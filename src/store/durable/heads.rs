//! Heads of the streams that were used lately, so that an append and a read find theirs without asking the tree.

use super::layout::{Front, Head};
use crate::base::hash::KeyedHash;
use crate::base::message::StreamKey;
use crate::limits::STORE_HEADS_MAX;
use hashbrown::HashTable;
use std::collections::VecDeque;

/// A stream's head and its oldest entries. `head` is the default one when there is no such stream, which is worth
/// remembering, too: a new stream is asked for twice before it is made.
#[derive(Debug)]
pub(super) struct Open {
    pub stream: StreamKey,
    pub head: Head,
    /// The entries from `head.first` on, as far as they are known; retention takes from here.
    pub fronts: VecDeque<Front>,
}

impl Open {
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
        let hash = self.hash.of(stream);
        let is = |open: &Open| open.stream == *stream;
        if self.young.find(hash, is).is_none() {
            let (open, _) = self.old.find_entry(hash, is).ok()?.remove();
            self.insert(open);
        }
        self.young.find_mut(hash, is)
    }

    /// It is not there yet.
    pub fn insert(&mut self, open: Open) -> &mut Open {
        if self.young.len() >= STORE_HEADS_MAX / 2 {
            self.old = core::mem::take(&mut self.young);
        }
        let Self { hash, young, .. } = self;
        young.insert_unique(hash.of(&open.stream), open, |open| hash.of(&open.stream)).into_mut()
    }

    pub fn remove(&mut self, stream: &StreamKey) {
        let hash = self.hash.of(stream);
        for generation in [&mut self.young, &mut self.old] {
            if let Ok(found) = generation.find_entry(hash, |open| open.stream == *stream) {
                found.remove();
            }
        }
    }

    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
