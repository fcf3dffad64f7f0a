//! What happens to devices, kept for backends: a stream per app with positions, read by consumer groups.
//!
//! ```text
//!  shards ──notices──► stream of the app (bounded ring) ──cursor──► the group's consumer
//!                                   ▲                                      │
//!                                   └──────── acknowledged up to ◄─────────┘
//! ```
//! A stream is there while the app has a group, and the shards make notices only of what some group wants. It keeps what
//! not all groups have acknowledged, up to its bounds; beyond them the oldest goes, and who has not read it is told.
//! Nobody who reads slowly is ever waited for.

use super::problem::Problem;
use crate::base::ids::{AppId, Epoch, Offset};
use crate::limits::{EVENTS_GROUP_IDLE, EVENTS_GROUPS_MAX, EVENTS_KEPT_BYTES_MAX, EVENTS_KEPT_MAX, EVENTS_READ_MAX};
use crate::shard::command::{AppWatch, Happening, Notice, Watch};
use axum::http::StatusCode;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// Where in an app's stream something stands.
pub(super) type Position = (Epoch, Offset);

/// One thing that happened, as it is kept.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) at_ms: u64,
    pub(super) user: Arc<str>,
    pub(super) device: Arc<str>,
    pub(super) what: Happening,
}

/// What a consumer reads.
#[derive(Clone, Debug)]
pub(super) enum Read {
    /// An event.
    Event(Position, Arc<Happened>),
    /// Events it will not get, and behind what it reads on; 0: nobody knows how many.
    Gap(Position, u64),
}

/// Why a consumer reads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Another one reads for the group.
    Replaced,
    /// The group was forgotten.
    Forgotten,
}

/// All streams of the node.
pub(super) struct Hub {
    /// Drawn when the process starts: positions do not outlive it.
    epoch: Epoch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<AppId, Stream>,
    /// Numbers consumers.
    consumers: u64,
    /// What the shards were last told is not what the groups want.
    is_stale: bool,
}

struct Stream {
    /// Offset of the first one kept.
    first: u64,
    kept: VecDeque<Kept>,
    bytes: usize,
    groups: HashMap<Box<str>, Group>,
    changed: watch::Sender<()>,
}

#[derive(Clone)]
enum Kept {
    Event(Arc<Happened>),
    /// Shards had no room for so many.
    Missed(u64),
}

struct Group {
    wants: AppWatch,
    acknowledged: u64,
    /// The consumer that reads for it.
    consumer: u64,
    is_read: bool,
    /// When it was last read or acknowledged.
    used: Instant,
}

impl Kept {
    fn bytes(&self) -> usize {
        const OWN: usize = 160;
        let Self::Event(happened) = self else { return OWN };
        let texts = happened.user.len() + happened.device.len();
        OWN + texts
            + match &happened.what {
                Happening::Published(message) => message.payload.len() + message.topic.len(),
                Happening::Received { topic, .. } => topic.len(),
                Happening::Connected { .. } | Happening::Disconnected { .. } => 0,
            }
    }
}

impl Stream {
    fn new() -> Self {
        Self { first: 1, kept: VecDeque::new(), bytes: 0, groups: HashMap::new(), changed: watch::Sender::new(()) }
    }

    /// Offset of the last one, kept or not.
    fn last(&self) -> u64 {
        self.first + self.kept.len() as u64 - 1
    }

    /// Returns how many had to go.
    fn push(&mut self, kept: Kept) -> u64 {
        let first = self.first;
        self.bytes += kept.bytes();
        self.kept.push_back(kept);
        while self.kept.len() > EVENTS_KEPT_MAX || self.bytes > EVENTS_KEPT_BYTES_MAX {
            self.drop_first();
        }
        self.changed.send_replace(());
        self.first - first
    }

    fn drop_first(&mut self) {
        let gone = self.kept.pop_front().expect("something is kept, or nothing would be too much");
        self.bytes -= gone.bytes();
        self.first += 1;
    }

    /// Drops what all groups have acknowledged.
    fn trim(&mut self) {
        let acknowledged = self.groups.values().map(|group| group.acknowledged).min().unwrap_or(u64::MAX);
        while !self.kept.is_empty() && self.first <= acknowledged {
            self.drop_first();
        }
    }
}

impl Hub {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, state: Mutex::default() }
    }

    /// A panic elsewhere while holding the lock leaves counts and rings that still fit: each is changed last.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a shard tells; how many events had to go for it.
    pub(super) fn take(&self, notice: Notice, wall_ms: u64) -> u64 {
        let (app, kept) = match notice {
            Notice::Happened { app, user, device, what } => {
                (app, Kept::Event(Arc::new(Happened { at_ms: wall_ms, user, device, what })))
            }
            // The log's, which has been told.
            Notice::Story(_) => return 0,
            Notice::Missed { app, count } => (app, Kept::Missed(count)),
        };
        // Notices may still come for a while after the last group has gone.
        self.lock().streams.get_mut(&app).map_or(0, |stream| stream.push(kept))
    }

    /// Begins to read for a group: behind `after`, else behind what it has acknowledged, else from now on.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        app: AppId,
        name: &str,
        wants: AppWatch,
        after: Option<Position>,
    ) -> Result<Consumer, Problem> {
        let mut state = self.lock();
        state.forget_idle();
        state.consumers += 1;
        let consumer = state.consumers;
        let stream = state.streams.entry(app).or_insert_with(Stream::new);
        let last = stream.last();
        if !stream.groups.contains_key(name) && stream.groups.len() >= EVENTS_GROUPS_MAX {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("the app has {EVENTS_GROUPS_MAX} consumer groups"),
            ));
        }
        let (cursor, is_foreign) = match after {
            Some((epoch, _)) if epoch != self.epoch => (stream.first - 1, true),
            Some((_, Offset(offset))) if offset > last => {
                return Err(Problem::field("after", "is beyond the end of the stream"));
            }
            Some((_, Offset(offset))) => (offset, false),
            None => (stream.groups.get(name).map_or(last, |group| group.acknowledged), false),
        };
        let group = Group { wants: wants.clone(), acknowledged: 0, consumer, is_read: true, used: Instant::now() };
        // Who goes back wants what is behind that position, so it is acknowledged no more.
        let acknowledged = stream.groups.get(name).map_or(cursor, |group| group.acknowledged.min(cursor));
        stream.groups.insert(name.into(), Group { acknowledged, ..group });
        let changed = stream.changed.subscribe();
        // Whoever read for the group until now is told.
        stream.changed.send_replace(());
        state.is_stale = true;
        drop(state);
        let hub = Arc::clone(self);
        Ok(Consumer { hub, app, group: name.into(), wants, number: consumer, cursor, is_foreign, changed })
    }

    /// Acknowledges up to a position; up to where the group has acknowledged now. A position of another process's
    /// stream says nothing about this one.
    pub(super) fn acknowledge(&self, app: AppId, name: &str, position: Position) -> Result<Position, Problem> {
        let mut state = self.lock();
        let unknown = || Problem::new(StatusCode::NOT_FOUND, "there is no such consumer group");
        let stream = state.streams.get_mut(&app).ok_or_else(unknown)?;
        let last = stream.last();
        let group = stream.groups.get_mut(name).ok_or_else(unknown)?;
        group.used = Instant::now();
        let (epoch, Offset(offset)) = position;
        if epoch == self.epoch {
            if offset > last {
                return Err(Problem::field("position", "is beyond the end of the stream"));
            }
            group.acknowledged = group.acknowledged.max(offset);
        }
        let acknowledged = group.acknowledged;
        stream.trim();
        Ok((self.epoch, Offset(acknowledged)))
    }

    /// What the shards are to tell, if that may have changed since it was last asked for. Whoever cannot bring it to
    /// them says so with [`Hub::not_told`].
    pub(super) fn changed_watch(&self) -> Option<Arc<Watch>> {
        let mut state = self.lock();
        state.forget_idle();
        std::mem::take(&mut state.is_stale).then(|| Arc::new(state.watch()))
    }

    /// The shards do not know yet.
    pub(super) fn not_told(&self) {
        self.lock().is_stale = true;
    }
}

impl State {
    /// Everything that some group wants.
    fn watch(&self) -> Watch {
        let apps = self.streams.iter().map(|(&app, stream)| {
            let mut all = AppWatch::default();
            for Group { wants, .. } in stream.groups.values() {
                all.connections |= wants.connections;
                all.receipts |= wants.receipts;
                for filter in &wants.publishes {
                    if !all.publishes.contains(filter) {
                        all.publishes.push(Arc::clone(filter));
                    }
                }
            }
            (app, all)
        });
        Watch { apps: apps.collect() }
    }

    /// Forgets groups that nobody uses, and streams without groups.
    fn forget_idle(&mut self) {
        let mut forgotten = false;
        for stream in self.streams.values_mut() {
            let before = stream.groups.len();
            stream.groups.retain(|_, group| group.is_read || group.used.elapsed() < EVENTS_GROUP_IDLE);
            if stream.groups.len() < before {
                forgotten = true;
                stream.trim();
            }
        }
        self.is_stale |= forgotten;
        self.streams.retain(|_, stream| !stream.groups.is_empty());
    }
}

/// Reads for a group until another one does.
pub(super) struct Consumer {
    hub: Arc<Hub>,
    app: AppId,
    group: Box<str>,
    wants: AppWatch,
    number: u64,
    /// It has read up to here.
    cursor: u64,
    /// It asked for a position of another process's stream.
    is_foreign: bool,
    changed: watch::Receiver<()>,
}

impl Consumer {
    /// Behind what it reads.
    pub(super) fn position(&self) -> Position {
        (self.hub.epoch, Offset(self.cursor))
    }

    /// What comes next, once there is something: at least one.
    pub(super) async fn next(&mut self) -> Result<Vec<Read>, Ended> {
        loop {
            self.changed.mark_unchanged();
            let read = self.read()?;
            if !read.is_empty() {
                return Ok(read);
            }
            if self.changed.changed().await.is_err() {
                return Err(Ended::Forgotten);
            }
        }
    }

    fn read(&mut self) -> Result<Vec<Read>, Ended> {
        let mut state = self.hub.lock();
        let stream = state.streams.get_mut(&self.app).ok_or(Ended::Forgotten)?;
        let group = stream.groups.get_mut(&self.group).ok_or(Ended::Forgotten)?;
        if group.consumer != self.number {
            return Err(Ended::Replaced);
        }
        group.used = Instant::now();
        let at = |offset| (self.hub.epoch, Offset(offset));
        let mut read = Vec::new();
        if std::mem::take(&mut self.is_foreign) {
            read.push(Read::Gap(at(self.cursor), 0));
        }
        if self.cursor + 1 < stream.first {
            let lost = stream.first - 1 - self.cursor;
            self.cursor = stream.first - 1;
            read.push(Read::Gap(at(self.cursor), lost));
        }
        let from = usize::try_from(self.cursor + 1 - stream.first).expect("what is kept is bounded");
        for kept in stream.kept.range(from.min(stream.kept.len())..) {
            if read.len() >= EVENTS_READ_MAX {
                break;
            }
            self.cursor += 1;
            match kept {
                Kept::Missed(count) => read.push(Read::Gap(at(self.cursor), *count)),
                Kept::Event(happened) if wants(&self.wants, &happened.what) => {
                    read.push(Read::Event(at(self.cursor), Arc::clone(happened)));
                }
                Kept::Event(_) => {}
            }
        }
        Ok(read)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        let stream = state.streams.get_mut(&self.app);
        let group = stream.and_then(|stream| stream.groups.get_mut(&self.group));
        if let Some(group) = group.filter(|group| group.consumer == self.number) {
            group.is_read = false;
            group.used = Instant::now();
        }
    }
}

/// Whether a group that wants these wants this. The shards tell what any group of the app wants.
fn wants(wants: &AppWatch, what: &Happening) -> bool {
    match what {
        Happening::Connected { .. } | Happening::Disconnected { .. } => wants.connections,
        Happening::Received { .. } => wants.receipts,
        Happening::Published(message) => {
            wants.publishes.iter().any(|filter| crate::shard::command::filter_matches(filter, &message.topic))
        }
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
