//! Topics with QoS ≥ 1 messages on their way through the log, at their home.

use crate::base::hash::KeyedHash;
use crate::base::ids::AppId;
use crate::base::message::Message;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::sync::Arc;

#[derive(Debug)]
struct Topic {
    app: AppId,
    name: Arc<str>,
    commits: u32,
}

/// Counts commits under way by topic. As large as the log's queue at most.
#[derive(Debug)]
pub(crate) struct Committing {
    hash: KeyedHash,
    topics: HashTable<Topic>,
}

impl Committing {
    pub(crate) fn new(hash: KeyedHash) -> Self {
        Self { hash, topics: HashTable::new() }
    }

    pub(crate) fn is_under_way(&self, message: &Message) -> bool {
        !self.topics.is_empty() && self.topics.find(self.hash_of(message), is(message)).is_some()
    }

    pub(crate) fn begin(&mut self, message: &Message) {
        let hash = self.hash_of(message);
        let Self { hash: keyed, topics } = self;
        match topics.entry(hash, is(message), |topic| keyed.of(&(topic.app, &*topic.name))) {
            Entry::Occupied(mut entry) => entry.get_mut().commits += 1,
            Entry::Vacant(entry) => {
                entry.insert(Topic { app: message.app, name: message.topic.clone(), commits: 1 });
            }
        }
    }

    pub(crate) fn end(&mut self, message: &Message) {
        let hash = self.hash_of(message);
        let mut entry = self.topics.find_entry(hash, is(message)).expect("what ends has begun");
        entry.get_mut().commits -= 1;
        if entry.get().commits == 0 {
            entry.remove();
        }
    }

    pub(crate) fn topics(&self) -> usize {
        self.topics.len()
    }

    fn hash_of(&self, message: &Message) -> u64 {
        self.hash.of(&(message.app, &*message.topic))
    }
}

fn is(message: &Message) -> impl Fn(&Topic) -> bool + '_ {
    |topic| topic.app == message.app && topic.name == message.topic
}
