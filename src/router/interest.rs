//! Which shards want a topic: asked at the topic's home for every message that passes through.
//!
//! A home holds the exact filters whose home it is, and every shard holds all wildcard filters, each with the shards
//! that have subscribers under it.

use super::filters::Filters;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, ShardId};
use crate::limits::SHARDS_MAX;
use smallvec::SmallVec;

/// How much a shard wants what a filter matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// Nobody there subscribes.
    #[default]
    None,
    /// Somebody does, and is owed nothing while away.
    Listening,
    /// At least one session that outlives its connection subscribes at QoS ≥ 1: the message has to be logged.
    Owed,
}

/// How a shard's level for one filter changed. If it did, the home has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterestChange {
    /// Until now.
    pub before: Level,
    /// From now on.
    pub after: Level,
}

impl InterestChange {
    /// Whether there is anything to tell.
    pub fn changed(self) -> bool {
        self.before != self.after
    }
}

/// A set of shards, of fixed size so that it lives on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSet {
    words: [u64; SHARDS_MAX / 64],
}

impl Default for ShardSet {
    fn default() -> Self {
        Self { words: [0; SHARDS_MAX / 64] }
    }
}

impl ShardSet {
    /// Adds a shard.
    pub fn insert(&mut self, shard: ShardId) {
        assert!(usize::from(shard.0) < SHARDS_MAX, "the configuration allows at most SHARDS_MAX shards");
        self.words[usize::from(shard.0) / 64] |= 1 << (shard.0 % 64);
    }

    /// Whether a shard is in it.
    pub fn contains(&self, shard: ShardId) -> bool {
        self.words.get(usize::from(shard.0) / 64).is_some_and(|word| word & (1 << (shard.0 % 64)) != 0)
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Its shards, ascending.
    pub fn iter(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0_u16..).zip(self.words).flat_map(|(index, word)| {
            let mut rest = word;
            core::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.checked_sub(1)?;
                Some(ShardId(index * 64 + u16::try_from(bit).expect("a word has 64 bits")))
            })
        })
    }
}

/// Who wants a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Interested {
    /// Shards with at least one matching filter.
    pub shards: ShardSet,
    /// Whether any of them is owed messages.
    pub owed: bool,
}

/// The shards of one filter, ascending. Few have a subscriber to the same one, so the first four need no allocation.
type Shards = SmallVec<[(ShardId, Level); 4]>;

/// A home's view of all shards' filters.
#[derive(Debug)]
pub struct Interest {
    filters: Filters<Shards>,
}

impl Interest {
    /// Nobody wants anything. `hash` is the process's.
    pub fn new(hash: KeyedHash) -> Self {
        Self { filters: Filters::new(hash) }
    }

    /// Notes a shard's level for a filter; [`Level::None`] forgets it.
    pub fn set(&mut self, app: AppId, filter: &str, shard: ShardId, level: Level) {
        assert!(usize::from(shard.0) < SHARDS_MAX, "the configuration allows at most SHARDS_MAX shards");
        let id = match self.filters.find(app, filter) {
            Some(id) => id,
            None if level == Level::None => return,
            None => self.filters.insert(app, filter, Shards::new()),
        };
        let shards = self.filters.at_mut(id);
        match (shards.binary_search_by_key(&shard, |&(shard, _)| shard), level) {
            (Ok(at), Level::None) => drop(shards.remove(at)),
            (Ok(at), _) => shards[at].1 = level,
            (Err(_), Level::None) => {}
            (Err(at), _) => shards.insert(at, (shard, level)),
        }
        if shards.is_empty() {
            self.filters.remove(id);
        }
    }

    /// Who wants this topic, through exact and wildcard filters.
    #[inline]
    pub fn lookup(&self, app: AppId, topic: &str) -> Interested {
        let mut interested = Interested::default();
        self.gather(app, topic, &mut interested);
        interested
    }

    /// Writes where its caller wants it: a set is too large to be handed from one to the other.
    #[inline(never)]
    fn gather(&self, app: AppId, topic: &str, interested: &mut Interested) {
        self.filters.for_each_match(app, topic, |_, shards| {
            for &(shard, level) in shards {
                interested.shards.insert(shard);
                interested.owed |= level == Level::Owed;
            }
        });
    }

    /// Filters that somebody wants; 0 when nobody does.
    pub fn filters(&self) -> usize {
        self.filters.len()
    }

    /// Nodes of the wildcard trie; 0 when nobody wants anything.
    pub fn trie_nodes(&self) -> usize {
        self.filters.nodes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::matches;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const APP: AppId = AppId(0);

    #[test]
    fn a_shard_set_holds_the_first_and_last_shard_and_lists_them_ascending() {
        let mut set = ShardSet::default();
        assert!(set.is_empty());
        let last = u16::try_from(SHARDS_MAX - 1).expect("few shards");
        for shard in [last, 64, 0, 63] {
            set.insert(ShardId(shard));
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, last].map(ShardId));
        assert_eq!((set.len(), set.contains(ShardId(1)), set.contains(ShardId(last + 1))), (4, false, false));
    }

    #[test]
    #[should_panic = "at most SHARDS_MAX"]
    fn a_shard_beyond_the_bound_is_our_own_bug() {
        ShardSet::default().insert(ShardId(u16::try_from(SHARDS_MAX).expect("few shards")));
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_asking_every_filter(
            steps in prop::collection::vec(
                (prop::sample::select(vec!["a", "b", "a/b", "+", "#", "a/#", "a/+", "+/b"]), 0_u16..70, 0_u8..3),
                0..60,
            ),
        ) {
            let mut interest = Interest::new(KeyedHash::new(3));
            let mut model: BTreeMap<(&str, u16), Level> = BTreeMap::new();
            for (filter, shard, level) in steps {
                let level = [Level::None, Level::Listening, Level::Owed][usize::from(level)];
                interest.set(APP, filter, ShardId(shard), level);
                model.remove(&(filter, shard));
                if level != Level::None {
                    model.insert((filter, shard), level);
                }
                for topic in ["a", "b", "a/b", "c/b", "x/y/z", "$a"] {
                    let mut want = Interested::default();
                    for (_, level) in model.iter().filter(|((filter, _), _)| matches(filter, topic)).map(
                        |((_, shard), level)| { want.shards.insert(ShardId(*shard)); ((), level) }
                    ) {
                        want.owed |= *level == Level::Owed;
                    }
                    prop_assert_eq!(interest.lookup(APP, topic), want);
                    prop_assert!(interest.lookup(AppId(1), topic).shards.is_empty());
                }
            }
            for (filter, shard) in model.into_keys() {
                interest.set(APP, filter, ShardId(shard), Level::None);
            }
            prop_assert_eq!((interest.filters(), interest.trie_nodes()), (0, 0));
        }
    }
}
