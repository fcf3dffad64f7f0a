//! What has come for this shard's sessions, in the order of arrival: commits, unlogged messages, parts of lists.
//!
//! One queue for all three keeps two promises: an unlogged message that was sent after a commit is not seen before it,
//! and the topics cursor of a shard can be one number. It is worked off by a bounded number of steps a turn; when it
//! is long the shard takes no more letters, its mailbox fills, and those who feed it are slowed down.

use super::fanout::Parcel;
use super::gateway::{Core, Gateway};
use super::letter::{Awaited, Counted, Letter, UsersPart};
use super::waits::Held;
use crate::base::ids::{AppId, Seq, ShardId};
use crate::base::message::{Entry, Message, StreamKey};
use crate::io::Driver;
use crate::limits::INCOMING_MAX;
use crate::router::EVERYONE;
use crate::store::Batch;
use std::collections::VecDeque;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    queue: VecDeque<Item>,
}

#[derive(Debug)]
enum Item {
    Batch { batch: Arc<Batch>, next: usize },
    Message { message: Arc<Message>, everyone: bool },
    Users { part: Box<UsersPart>, next: usize, counts: Vec<Counted> },
}

impl Incoming {
    pub(crate) fn batch(&mut self, batch: Arc<Batch>) {
        self.queue.push_back(Item::Batch { batch, next: 0 });
    }

    pub(crate) fn deliver(&mut self, message: Arc<Message>) {
        self.queue.push_back(Item::Message { message, everyone: false });
    }

    pub(crate) fn everyone(&mut self, message: Arc<Message>) {
        self.queue.push_back(Item::Message { message, everyone: true });
    }

    pub(crate) fn users(&mut self, part: Box<UsersPart>) {
        let counts = Vec::with_capacity(part.users.len());
        self.queue.push_back(Item::Users { part, next: 0, counts });
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Take no more letters until some of this is done.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= INCOMING_MAX
    }
}

/// Whether the fan-out took a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    /// Its topic has as many messages pending as it may: come again.
    Full,
}

impl Gateway {
    /// Works off at most `budget` steps; returns what is left of it.
    pub(super) fn work_incoming<D: Driver>(&mut self, core: &mut Core<D>, mut budget: usize) -> usize {
        while budget > 0 {
            let Some(mut item) = self.incoming.queue.pop_front() else { break };
            let done = match &mut item {
                Item::Batch { batch, next } => self.work_batch(core, batch, next, &mut budget),
                Item::Message { message, everyone } => {
                    budget -= 1;
                    let name = if *everyone { EVERYONE } else { &*message.topic };
                    let parcel = Parcel { message: Arc::clone(message), at: None, number: 0 };
                    self.fan_out(message.app, name, parcel) == Taken::Yes
                }
                Item::Users { part, next, counts } => self.work_users(core, part, next, counts, &mut budget),
            };
            if !done {
                self.incoming.queue.push_front(item);
                break;
            }
        }
        budget
    }

    fn work_batch<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        batch: &Arc<Batch>,
        next: &mut usize,
        budget: &mut usize,
    ) -> bool {
        while let Some(entry) = batch.entries.get(*next) {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            if self.on_entry(core, entry) == Taken::Full {
                return false;
            }
            *next += 1;
        }
        self.offered = self.offered.max(batch.seq);
        true
    }

    /// One committed entry: of a user who lives here, or of a topic somebody here may subscribe to.
    fn on_entry<D: Driver>(&mut self, core: &mut Core<D>, entry: &Entry) -> Taken {
        let topic = |app: AppId, name: &str, this: &mut Self| {
            let parcel = Parcel {
                message: Arc::clone(&entry.message),
                at: Some((entry.epoch, entry.offset, entry.seq)),
                number: 0,
            };
            this.fan_out(app, name, parcel)
        };
        match &entry.stream {
            StreamKey::Inbox(app, user) => {
                if self.homes.user(*app, user) == self.shard {
                    self.deliver_inbox_entry(core, *app, user, entry);
                }
                Taken::Yes
            }
            StreamKey::Topic(app, name) => topic(*app, name, self),
            StreamKey::Everyone(app) => topic(*app, EVERYONE, self),
            StreamKey::Upstream(_) => Taken::Yes,
        }
    }

    fn work_users<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        part: &mut UsersPart,
        next: &mut usize,
        counts: &mut Vec<Counted>,
        budget: &mut usize,
    ) -> bool {
        while let Some((index, user)) = part.users.get(*next) {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let mut delivered = Vec::new();
            if let Some(message) = &part.message {
                let tell = part.awaited.is_some().then_some(&mut delivered);
                self.deliver_inbox(core, part.app, user, message, tell);
            }
            let counted = Counted { index: *index, online: self.online(part.app, user), delivered };
            match &part.awaited {
                Some(Awaited { deadline_ms, logged: Some(message), positions }) => {
                    let (to, ticket) = (part.coordinator, part.ticket);
                    let held = || Held::Part { to, ticket, counts: Vec::with_capacity(part.users.len()) };
                    let wait = *part.wait.get_or_insert_with(|| self.hold_answer(held(), *deadline_ms));
                    let place = self.count_into(wait, counted);
                    self.wait_for_devices(core, wait, message, (place, user), &positions[*next]);
                }
                _ => counts.push(counted),
            }
            *next += 1;
        }
        match part.wait {
            Some(wait) => self.begin_wait(core, wait),
            None => self.send_counts(core, part.coordinator, part.ticket, std::mem::take(counts)),
        }
        true
    }

    pub(super) fn send_counts<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        coordinator: ShardId,
        ticket: u32,
        counts: Vec<Counted>,
    ) {
        if coordinator == self.shard {
            self.on_users_counted(ticket, counts);
        } else {
            core.send_control(coordinator, Letter::UsersCounted { ticket, counts });
        }
    }
}

/// The last committed batches, for sessions that lag a little.
#[derive(Debug, Default)]
pub(crate) struct HotRing {
    batches: VecDeque<Arc<Batch>>,
    entries: usize,
}

impl HotRing {
    /// Adds the newest batch; the oldest go when there are too many entries.
    pub(crate) fn push(&mut self, batch: Arc<Batch>) {
        self.entries += batch.entries.len();
        self.batches.push_back(batch);
        while self.entries > crate::limits::HOT_RING_ENTRIES_MAX && self.batches.len() > 1 {
            let oldest = self.batches.pop_front().expect("there is more than one");
            self.entries -= oldest.entries.len();
        }
    }

    /// The batches with entries after `seq`, if the ring reaches back that far.
    pub(crate) fn after(&self, seq: Seq) -> Option<impl Iterator<Item = &Arc<Batch>>> {
        let oldest = self.batches.front()?.entries.first()?.seq;
        if oldest.0 > seq.0 + 1 {
            return None;
        }
        let from = self.batches.partition_point(|batch| batch.seq <= seq);
        Some(self.batches.range(from..))
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }
}
