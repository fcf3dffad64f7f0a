//! Filters by name: each is kept once, under a small number that the rest of the router uses instead of the name.

use super::filter::is_wildcard;
use super::trie::{NONE, Trie};
use crate::base::hash::KeyedHash;
use crate::base::ids::AppId;
use hashbrown::HashTable;
use slab::Slab;
use std::sync::Arc;

/// A filter of one shard. The number is used again once the filter is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(pub u32);

#[derive(Debug)]
struct Filter<P> {
    app: AppId,
    name: Arc<str>,
    /// Where it hangs in the trie; `NONE` for an exact filter.
    node: u32,
    payload: P,
}

/// Filters with something to remember about each.
#[derive(Debug)]
pub(super) struct Filters<P> {
    entries: Slab<Filter<P>>,
    /// Numbers under the hash of (app, name); the name itself is only in the entry.
    names: HashTable<u32>,
    trie: Trie,
    hash: KeyedHash,
}

impl<P> Filters<P> {
    pub(super) fn new(hash: KeyedHash) -> Self {
        Self { entries: Slab::new(), names: HashTable::new(), trie: Trie::new(hash.clone()), hash }
    }

    /// Filters at the moment.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Trie nodes at the moment.
    pub(super) fn nodes(&self) -> usize {
        self.trie.nodes()
    }

    pub(super) fn find(&self, app: AppId, name: &str) -> Option<FilterId> {
        let is_it = |&index: &u32| {
            let entry = &self.entries[index as usize];
            entry.app == app && *entry.name == *name
        };
        self.names.find(self.hash.of(&(app, name)), is_it).map(|&index| FilterId(index))
    }

    /// Adds a filter that is not there.
    pub(super) fn insert(&mut self, app: AppId, name: &str, payload: P) -> FilterId {
        debug_assert!(self.find(app, name).is_none(), "a filter is interned once");
        let vacant = self.entries.vacant_key();
        let index = u32::try_from(vacant).expect("a shard has fewer than 2^32 filters");
        assert!(index != NONE, "a shard has fewer than 2^32 - 1 filters");
        let node = if is_wildcard(name) { self.trie.insert(app, name, index) } else { NONE };
        self.entries.insert(Filter { app, name: name.into(), node, payload });
        let (entries, hash) = (&self.entries, &self.hash);
        let name_hash = |&index: &u32| {
            let entry = &entries[index as usize];
            hash.of(&(entry.app, &*entry.name))
        };
        self.names.insert_unique(hash.of(&(app, name)), index, name_hash);
        FilterId(index)
    }

    pub(super) fn remove(&mut self, id: FilterId) {
        let entry = self.entries.remove(id.0 as usize);
        if entry.node != NONE {
            self.trie.remove(entry.app, entry.node, &entry.name);
        }
        let hash = self.hash.of(&(entry.app, &*entry.name));
        let name = self.names.find_entry(hash, |&index| index == id.0);
        name.expect("every filter is in the table of names").remove();
    }

    /// Tells every filter that matches a topic: the exact one first, then the trie's order.
    pub(super) fn for_each_match(&self, app: AppId, topic: &str, mut found: impl FnMut(FilterId, &P)) {
        // A topic name cannot hold a wildcard, but a wildcard filter must not pass as an exact one if it does.
        if let Some(id) = self.find(app, topic)
            && self.entries[id.0 as usize].node == NONE
        {
            found(id, &self.entries[id.0 as usize].payload);
        }
        self.trie.for_each_match(app, topic, |index| found(FilterId(index), &self.entries[index as usize].payload));
    }

    pub(super) fn get(&self, id: FilterId) -> Option<&P> {
        self.entries.get(id.0 as usize).map(|entry| &entry.payload)
    }

    pub(super) fn get_mut(&mut self, id: FilterId) -> Option<&mut P> {
        self.entries.get_mut(id.0 as usize).map(|entry| &mut entry.payload)
    }

    /// What is remembered about a filter that the caller knows to exist.
    pub(super) fn at(&self, id: FilterId) -> &P {
        &self.entries.get(id.0 as usize).expect("the filter exists while somebody holds its number").payload
    }

    pub(super) fn at_mut(&mut self, id: FilterId) -> &mut P {
        &mut self.entries.get_mut(id.0 as usize).expect("the filter exists while somebody holds its number").payload
    }

    pub(super) fn name(&self, id: FilterId) -> (AppId, &Arc<str>) {
        let entry = self.entries.get(id.0 as usize).expect("the filter exists while somebody holds its number");
        (entry.app, &entry.name)
    }
}
