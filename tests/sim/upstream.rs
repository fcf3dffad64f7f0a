//! What a backend's consumer group is owed: each publish of a client that was acknowledged stands in the app's stream by
//! then, one of QoS 2 once, and the stream has no hole. A crash takes nothing of it, for the group reads the store.

use crate::coverage::Seen;
use crate::ledger::{Author, Ledger, MessageId};
use kittiwake::base::ids::{AppId, Epoch, Offset, Qos};
use kittiwake::base::log::RecordChange;
use kittiwake::base::message::{Entry, Message};
use kittiwake::shard::command::{AppWatch, Happened, Happening, Told};
use kittiwake::shard::upstream::{self, Group};
use std::collections::BTreeMap;

/// What the run's group has been given.
#[derive(Debug, Default)]
pub struct Upstream {
    /// There is a group in this run, which wants everything.
    pub is_wanted: bool,
    last: u64,
    /// How often each publish stands in the stream.
    publishes: BTreeMap<MessageId, u32>,
    connects: u64,
    /// The node had died by then.
    crashed_at: Option<u64>,
}

/// The record of a group that wants everything.
pub fn group() -> RecordChange {
    // No wildcard at the start matches what begins with `$`.
    let publishes = vec!["#".into(), "$work/#".into()];
    let wants = AppWatch { connections: true, receipts: true, publishes };
    upstream::record(AppId(0), "group", &Group { wants, acknowledged: (Epoch(0), Offset(0)), used_ms: 0 })
}

impl Ledger {
    /// The store has an entry for backends.
    pub fn told_upstream(&mut self, entry: &Entry) {
        let is_next = entry.offset == Offset(self.upstream.last + 1);
        assert!(self.upstream.is_wanted && is_next, "{entry:?} behind {}", self.upstream.last);
        self.upstream.last = entry.offset.0;
        match upstream::parse(&entry.message) {
            Some(Told::Happened(Happened { user, device, what, .. })) => self.happened(&user, &device, &what),
            Some(Told::Missed(count)) => panic!("{count} events found no room although few happen"),
            None => panic!("{entry:?} cannot be read"),
        }
    }

    fn happened(&mut self, user: &str, device: &str, what: &Happening) {
        match what {
            Happening::Published(message) => self.published_upstream(user, device, message),
            Happening::Connected { .. } => self.upstream.connects += 1,
            Happening::Disconnected { .. } => {}
            Happening::Receipt { .. } => self.coverage.hit(Seen::ReceiptTold),
        }
    }

    fn published_upstream(&mut self, user: &str, device: &str, published: &Message) {
        if published.payload.is_empty() {
            return;
        }
        let id = Self::payload_id(&published.payload);
        let message = &self.messages[&id];
        let (Author::Client(author) | Author::Will(author)) = message.author else {
            panic!("m{id} is a backend's own: {message:?}")
        };
        let life = &self.lives[author];
        assert_eq!((&*life.user, &*life.device), (user, device), "m{id} is told as another's");
        assert_eq!((&*message.topic, message.qos), (&*published.topic, published.qos), "m{id} is told otherwise");
        let times = self.upstream.publishes.entry(id).or_default();
        *times += 1;
        // A will is published again if the node dies before its record says that it was.
        let is_once = *times == 1 || matches!(message.author, Author::Will(_)) || published.qos < Qos::ExactlyOnce;
        assert!(is_once, "m{id} stands in the stream {times} times: {message:?}");
    }

    /// A client was told that its publish is safe.
    pub fn acked_upstream(&mut self, id: MessageId) {
        let message = &self.messages[&id];
        if !self.upstream.is_wanted || message.is_blank || !matches!(message.author, Author::Client(_)) {
            return;
        }
        let is_told = self.upstream.publishes.contains_key(&id);
        assert!(is_told, "m{id} was acknowledged before it was stored for the group: {message:?}");
        self.coverage.hit(Seen::PublishTold);
        if self.upstream.crashed_at.is_some_and(|last| last < self.upstream.last) {
            self.coverage.hit(Seen::PublishToldAfterCrash);
        }
    }

    /// The node dies.
    pub fn upstream_died(&mut self) {
        if self.upstream.last > 0 {
            self.upstream.crashed_at = Some(self.upstream.last);
        }
    }

    /// Whoever had a session must have been told of.
    pub fn check_upstream(&self) {
        assert!(!self.upstream.is_wanted || self.upstream.connects > 0, "nobody was told of");
    }
}
