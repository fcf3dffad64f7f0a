//! The retained messages of the topics whose home this shard is, in the order of their topics: a reader with a filter
//! goes on from the topic at which it stopped, however the set has changed meanwhile.
//!
//! Every message has room reserved before its commit and enters once that is done, so the bounds hold for what is on
//! its way, too.

use super::filter::{is_wildcard, matches};
use crate::base::ids::AppId;
use crate::base::message::Message;
use core::ops::Bound;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much one shard may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Messages.
    pub messages: usize,
    /// Bytes of their topics, payloads and properties.
    pub bytes: usize,
}

/// There is no room for another retained message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What a step of a reader found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of topics.
    pub messages: Vec<Arc<Message>>,
    /// Topics whose message was over its time and is gone from here.
    pub expired: Vec<Arc<Message>>,
    /// The last topic that was looked at, when there may be more behind it.
    pub more: Option<Arc<str>>,
    /// Topics looked at.
    pub visited: usize,
}

/// How far one step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Topics to look at.
    pub visits: usize,
    /// Messages to find.
    pub messages: usize,
    /// Payload bytes to find; the first message is found whatever its length.
    pub bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Retained {
    /// By app, which is an index into the configuration and so stays small.
    apps: Vec<BTreeMap<Arc<str>, Arc<Message>>>,
    capacity: Capacity,
    messages: usize,
    bytes: usize,
    /// Of those on their way through the log.
    reserved: Capacity,
    /// Of all reservations, those that have gone to the log, and those that are settled.
    submitted: u64,
    settled: u64,
}

impl Retained {
    /// Nothing retained.
    pub fn new(capacity: Capacity) -> Self {
        let reserved = Capacity { messages: 0, bytes: 0 };
        Self { apps: Vec::new(), capacity, messages: 0, bytes: 0, reserved, submitted: 0, settled: 0 }
    }

    /// Makes room for a message that is about to be committed; [`Retained::settle`] follows. What it replaces counts
    /// until then, so a set that is full by its bytes takes a replacement of no more than what is left.
    pub fn reserve(&mut self, message: &Message) -> Result<(), Full> {
        let new = usize::from(self.get(message.app, &message.topic).is_none());
        let messages = self.messages + self.reserved.messages + new;
        let bytes = self.bytes + self.reserved.bytes + size(message);
        if !message.payload.is_empty() && (messages > self.capacity.messages || bytes > self.capacity.bytes) {
            return Err(Full);
        }
        self.reserved.messages += 1;
        self.reserved.bytes += size(message);
        Ok(())
    }

    /// A reserved message was committed, or was not. In the order in which they went to the log.
    pub fn settle(&mut self, message: &Arc<Message>, committed: bool) {
        self.settled += 1;
        self.reserved.messages -= 1;
        self.reserved.bytes -= size(message);
        if committed {
            self.put(message);
        }
    }

    /// The message is its topic's retained one from now on; one without a payload leaves none [MQTT-3.3.1-6].
    pub fn put(&mut self, message: &Arc<Message>) {
        self.remove(message.app, &message.topic);
        if message.payload.is_empty() {
            return;
        }
        let index = usize::from(message.app.0);
        if self.apps.len() <= index {
            self.apps.resize_with(index + 1, BTreeMap::new);
        }
        self.messages += 1;
        self.bytes += size(message);
        self.apps[index].insert(Arc::clone(&message.topic), Arc::clone(message));
    }

    /// A topic's message, also one that is over its time.
    pub fn get(&self, app: AppId, topic: &str) -> Option<&Arc<Message>> {
        self.apps.get(usize::from(app.0))?.get(topic)
    }

    /// Looks at topics behind `after` that a valid filter may match. The empty name is before all topics.
    pub fn read(&mut self, app: AppId, filter: &str, after: &str, step: Step, wall_ms: u64) -> Found {
        let mut found = Found::default();
        if !is_wildcard(filter) {
            found.visited = 1;
            if filter > after {
                self.get(app, filter).cloned().into_iter().for_each(|message| found.take(&message, wall_ms));
            }
        } else if let Some(topics) = self.apps.get(usize::from(app.0)) {
            // All that match share what stands before the first wildcard, but for the parent that `#` stands for.
            let prefix = &filter[..filter.find(['+', '#']).unwrap_or(filter.len())];
            let parent = if filter.ends_with('#') { prefix.strip_suffix('/').unwrap_or(prefix) } else { prefix };
            let wanted = |message: &Message| matches(filter, &message.topic);
            found.look(topics, parent, after, step, wall_ms, wanted);
        }
        for gone in &found.expired {
            self.remove(gone.app, &gone.topic);
        }
        found
    }

    /// Takes out what is over its time among the first `visits` topics behind `after`; where to go on from, unless all
    /// of the app have been looked at.
    pub fn sweep(&mut self, app: AppId, after: &str, visits: usize, wall_ms: u64) -> Found {
        let step = Step { visits, messages: usize::MAX, bytes: usize::MAX };
        let mut found = Found::default();
        if let Some(topics) = self.apps.get(usize::from(app.0)) {
            let is_over = |message: &Message| message.expires_ms.is_some_and(|at| at <= wall_ms);
            found.look(topics, "", after, step, wall_ms, is_over);
        }
        for gone in &found.expired {
            self.remove(gone.app, &gone.topic);
        }
        found
    }

    /// A reserved message goes to the log.
    pub fn submit(&mut self) {
        self.submitted += 1;
    }

    /// How many have gone to the log.
    pub fn submitted(&self) -> u64 {
        self.submitted
    }

    /// How many of them have been settled.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Messages at the moment.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Bytes of their topics, payloads and properties.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Apps that have, or had, one.
    pub fn apps(&self) -> u16 {
        u16::try_from(self.apps.len()).expect("apps are numbered with 16 bits")
    }

    fn remove(&mut self, app: AppId, topic: &str) {
        let topics = self.apps.get_mut(usize::from(app.0));
        if let Some(gone) = topics.and_then(|topics| topics.remove(topic)) {
            self.messages -= 1;
            self.bytes -= size(&gone);
        }
    }
}

impl Found {
    fn take(&mut self, message: &Arc<Message>, wall_ms: u64) {
        let expired = message.expires_ms.is_some_and(|at| at <= wall_ms);
        let list = if expired { &mut self.expired } else { &mut self.messages };
        list.push(Arc::clone(message));
    }

    /// Looks at the topics that begin with `prefix`, behind `after`.
    fn look(
        &mut self,
        topics: &BTreeMap<Arc<str>, Arc<Message>>,
        prefix: &str,
        after: &str,
        step: Step,
        wall_ms: u64,
        wanted: impl Fn(&Message) -> bool,
    ) {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let mut bytes = 0;
        for (topic, message) in topics.range::<str, _>((from, Bound::Unbounded)) {
            if !topic.starts_with(prefix) {
                return;
            }
            self.visited += 1;
            if wanted(message) {
                self.take(message, wall_ms);
                bytes += message.payload.len();
            }
            let is_full = !self.messages.is_empty() && (self.messages.len() >= step.messages || bytes >= step.bytes);
            if self.visited >= step.visits || is_full {
                self.more = Some(Arc::clone(topic));
                return;
            }
        }
    }
}

fn size(message: &Message) -> usize {
    let properties = message.properties.as_deref().map_or(0, |properties| {
        let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
        let user: usize = properties.user.iter().map(|(name, value)| name.len() + value.len()).sum();
        let correlation = properties.correlation_data.as_deref().map_or(0, <[u8]>::len);
        text(&properties.content_type) + text(&properties.response_topic) + correlation + user
    });
    message.topic.len() + message.payload.len() + properties
}

#[cfg(test)]
#[path = "retained_tests.rs"]
mod tests;
