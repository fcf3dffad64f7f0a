//! Filters by name: each is kept once, under a small number that the rest of the router uses instead of the name.

use super::filter::is_wildcard;
use super::trie::{NONE, Trie};
use crate::base::hash::KeyedHash;
use crate::base::ids::AppId;
use crate::base::parts::Parts;
use crate::base::pieces::Pieces;
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
    entries: Pieces<Filter<P>>,
    /// Numbers under the hash of (app, name); the name itself is only in the entry.
    names: Parts<u32>,
    trie: Trie,
    hash: KeyedHash,
}

impl<P> Filters<P> {
    pub(super) fn new(hash: KeyedHash) -> Self {
        Self { entries: Pieces::new(), names: Parts::new(), trie: Trie::new(hash.clone()), hash }
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
        self.look_up(app, name).map(|(id, _)| id)
    }

    /// Not inlined: within a match it costs a fifth more instructions than it does by itself.
    #[inline(never)]
    fn look_up(&self, app: AppId, name: &str) -> Option<(FilterId, &Filter<P>)> {
        let mut found = None;
        let is_it = |&index: &u32| {
            let entry = &self.entries[index];
            let is_it = entry.app == app && *entry.name == *name;
            if is_it {
                found = Some((FilterId(index), entry));
            }
            is_it
        };
        self.names.find(self.hash.of(&(app, name)), is_it);
        found
    }

    /// Adds a filter that is not there.
    pub(super) fn insert(&mut self, app: AppId, name: &str, payload: P) -> FilterId {
        debug_assert!(self.find(app, name).is_none(), "a filter is interned once");
        let index = self.entries.insert(Filter { app, name: name.into(), node: NONE, payload });
        if is_wildcard(name) {
            self.entries[index].node = self.trie.insert(app, name, index);
        }
        let (entries, hash) = (&self.entries, &self.hash);
        let name_hash = |&index: &u32| {
            let entry = &entries[index];
            hash.of(&(entry.app, &*entry.name))
        };
        self.names.insert_unique(hash.of(&(app, name)), index, name_hash);
        FilterId(index)
    }

    pub(super) fn remove(&mut self, id: FilterId) {
        let entry = self.entries.remove(id.0);
        if entry.node != NONE {
            self.trie.remove(entry.app, entry.node, &entry.name);
        }
        let hash = self.hash.of(&(entry.app, &*entry.name));
        self.names.remove(hash, |&index| index == id.0).expect("every filter is in the table of names");
    }

    /// Tells every filter that matches a topic: the exact one first, then the trie's order.
    pub(super) fn for_each_match(&self, app: AppId, topic: &str, mut found: impl FnMut(FilterId, &P)) {
        // A topic name cannot hold a wildcard, but a wildcard filter must not pass as an exact one if it does.
        if let Some((id, entry)) = self.look_up(app, topic)
            && entry.node == NONE
        {
            found(id, &entry.payload);
        }
        self.trie.for_each_match(app, topic, |index| found(FilterId(index), &self.entries[index].payload));
    }

    pub(super) fn get(&self, id: FilterId) -> Option<&P> {
        self.entries.get(id.0).map(|entry| &entry.payload)
    }

    pub(super) fn get_mut(&mut self, id: FilterId) -> Option<&mut P> {
        self.entries.get_mut(id.0).map(|entry| &mut entry.payload)
    }

    /// What is remembered about a filter that the caller knows to exist.
    pub(super) fn at(&self, id: FilterId) -> &P {
        &self.entries[id.0].payload
    }

    pub(super) fn at_mut(&mut self, id: FilterId) -> &mut P {
        &mut self.entries[id.0].payload
    }

    pub(super) fn name(&self, id: FilterId) -> (AppId, &Arc<str>) {
        let entry = &self.entries[id.0];
        (entry.app, &entry.name)
    }
}
