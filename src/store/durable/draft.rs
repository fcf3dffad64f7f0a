//! A commit before it is made: what it will put and remove, each key once, the last change of a key winning. Reads of
//! what the same commit has changed come from here.

use crate::base::hash::KeyedHash;
use fjall::Slice;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// See the module.
pub(super) struct Draft {
    hash: KeyedHash,
    /// In the order of the first change; `None` removes.
    changes: Vec<(Slice, Option<Slice>)>,
    by_key: HashTable<usize>,
    bytes: u64,
}

impl Draft {
    pub fn new(hash: KeyedHash) -> Self {
        Self { hash, changes: Vec::new(), by_key: HashTable::new(), bytes: 0 }
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.bytes += (key.len() + value.len()) as u64;
        self.change(key, Some(value.into()));
    }

    pub fn remove(&mut self, key: &[u8]) {
        self.bytes += key.len() as u64;
        self.change(key, None);
    }

    fn change(&mut self, key: &[u8], value: Option<Slice>) {
        let Self { hash, changes, by_key, .. } = self;
        let found = by_key.entry(hash.of(key), |at| *changes[*at].0 == *key, |at| hash.of(&*changes[*at].0));
        match found {
            Entry::Occupied(at) => changes[*at.get()].1 = value,
            Entry::Vacant(place) => {
                place.insert(changes.len());
                changes.push((key.into(), value));
            }
        }
    }

    /// What the commit makes of a key: `Some(None)` when it removes it, `None` when it leaves it alone.
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let at = self.by_key.find(self.hash.of(key), |at| *self.changes[*at].0 == *key)?;
        Some(self.changes[*at].1.as_deref())
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of all keys and values put, also of those that were put again.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn drain(&mut self) -> impl Iterator<Item = (Slice, Option<Slice>)> + '_ {
        self.by_key.clear();
        self.bytes = 0;
        self.changes.drain(..)
    }

    pub fn clear(&mut self) {
        self.drain().for_each(drop);
    }
}
