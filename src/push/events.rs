//! What happens to devices, as consumer groups of backends read it: from the app's stream in the log, each behind what it
//! has acknowledged.
//!
//! ```text
//!  log ──hints, with what was written──► the last ones of the app's stream ──┐
//!   ▲ └────────── older ones, read page by page ─────────────────────────────┴─► the group's consumer
//!   └────────────── a record a group: what it wants, up to where it has acknowledged ◄──────┘
//! ```
//! The shards tell the log of what some group wants, and of nothing else. What is stored outlives the process, up to the
//! bounds of its retention; beyond them the oldest goes, and who has not read it is told. Nobody who reads slowly is ever
//! waited for.

mod consumer;

pub(super) use consumer::{Consumer, Ended, Read};

use super::log_desk::LogDesk;
use super::problem::Problem;
use crate::base::ids::{AppId, Epoch, Offset};
use crate::base::log::{RecordChange, StoreError, StreamHead};
use crate::base::message::{Message, StreamKey};
use crate::limits::{
    EVENTS_GROUP_IDLE, EVENTS_GROUPS_MAX, EVENTS_RECENT_BYTES_MAX, EVENTS_RECENT_MAX, READ_RECORDS_MAX,
};
use crate::shard::command::upstream::{self, Group};
use crate::shard::command::{AppWatch, Notice, Watch};
use crate::store::handle::{Answer, Batch, Request};
use axum::http::StatusCode;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, watch};

/// Where in an app's stream something stands. Epoch 0: at the beginning of one that was not made yet.
pub(super) type Position = (Epoch, Offset);

/// All groups and streams of the node.
pub(super) struct Hub {
    desk: LogDesk,
    wall_ms: fn() -> u64,
    state: Mutex<State>,
    /// Groups of an earlier process are known.
    loaded: OnceCell<()>,
    /// Held by whoever adds a group, so that what it has read of the stream and of the groups holds meanwhile.
    adding: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<AppId, Stream>,
    /// Numbers consumers.
    consumers: u64,
    /// What the shards were last told is not what the groups want.
    is_stale: bool,
}

/// What is known of an app's stream.
struct Stream {
    epoch: Epoch,
    /// Offset of the newest entry that is known of.
    last: u64,
    /// The newest entries; the last one's offset is `last`.
    recent: VecDeque<Arc<Message>>,
    bytes: usize,
    groups: HashMap<Box<str>, Reading>,
    changed: watch::Sender<()>,
}

/// A group, and who reads for it.
struct Reading {
    group: Group,
    /// `used_ms` of its record.
    recorded_ms: u64,
    consumer: u64,
    is_read: bool,
}

impl Stream {
    fn new() -> Self {
        Self {
            epoch: Epoch(0),
            last: 0,
            recent: VecDeque::new(),
            bytes: 0,
            groups: HashMap::new(),
            changed: watch::Sender::new(()),
        }
    }

    /// Takes in what a commit has brought. A hint may have been missed: then what was there is no use any more.
    fn push(&mut self, epoch: Epoch, Offset(offset): Offset, message: &Arc<Message>) {
        if epoch != self.epoch || offset != self.last + 1 {
            self.recent.clear();
            self.bytes = 0;
        }
        (self.epoch, self.last) = (epoch, offset);
        self.bytes += message.payload.len();
        self.recent.push_back(Arc::clone(message));
        while self.recent.len() > EVENTS_RECENT_MAX || self.bytes > EVENTS_RECENT_BYTES_MAX {
            let gone = self.recent.pop_front().expect("something is there, or nothing would be too much");
            self.bytes -= gone.payload.len();
        }
    }

    /// Where the log says that it stands.
    fn learn(&mut self, head: &StreamHead) {
        // One that was not made yet when that was said may have been meanwhile.
        if head.epoch != Epoch(0) && (head.epoch != self.epoch || head.last.0 > self.last) {
            self.recent.clear();
            self.bytes = 0;
            (self.epoch, self.last) = (head.epoch, head.last.0);
        }
    }
}

impl Reading {
    fn is_idle(&self, wall_ms: u64) -> bool {
        !self.is_read && is_over(self.group.used_ms, EVENTS_GROUP_IDLE.as_millis(), wall_ms)
    }

    /// The group's record, with all that holds now.
    fn record(&mut self, app: AppId, name: &str) -> RecordChange {
        self.recorded_ms = self.group.used_ms;
        upstream::record(app, name, &self.group)
    }
}

fn is_over(since_ms: u64, after_ms: u128, wall_ms: u64) -> bool {
    u128::from(wall_ms.saturating_sub(since_ms)) >= after_ms
}

fn write(record: RecordChange) -> Request {
    Request::Append { key: None, entries: Vec::new(), records: vec![record] }
}

impl Hub {
    pub(super) fn new(desk: LogDesk, wall_ms: fn() -> u64) -> Self {
        let (state, loaded, adding) = (Mutex::default(), OnceCell::new(), tokio::sync::Mutex::default());
        Self { desk, wall_ms, state, loaded, adding }
    }

    /// A panic elsewhere while holding the lock leaves counts and rings that still fit: each is changed last.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the log tells.
    pub(super) fn take(&self, notice: Notice) {
        match notice {
            Notice::Written(batch) => self.lock().written(&batch),
            Notice::Answered(done) => self.desk.answered(done),
        }
    }

    /// Learns of the groups of an earlier process, once.
    async fn load(&self) -> Result<(), StoreError> {
        self.loaded.get_or_try_init(|| self.read_groups()).await.copied()
    }

    async fn read_groups(&self) -> Result<(), StoreError> {
        let mut after = Box::default();
        let mut groups = Vec::new();
        loop {
            let request = Request::ReadRecords { prefix: upstream::GROUPS.into(), after, limit: READ_RECORDS_MAX };
            let Answer::Records(page) = self.desk.answer(request).await? else { return Err(StoreError::Failed) };
            for (key, value) in page.iter() {
                match upstream::parse_record(key, value) {
                    Some((app, name, group)) => groups.push((app, Box::from(name), group)),
                    None => tracing::warn!("the record of a consumer group cannot be read; the group begins anew"),
                }
            }
            match page.last().filter(|_| page.len() == READ_RECORDS_MAX) {
                Some((last, _)) => after = last.clone(),
                None => break,
            }
        }
        let mut heads = BTreeMap::new();
        for (app, _, _) in &groups {
            if !heads.contains_key(app) {
                heads.insert(*app, self.head(*app).await?);
            }
        }
        let state = &mut *self.lock();
        for (app, name, group) in groups {
            let stream = state.streams.entry(app).or_insert_with(Stream::new);
            stream.learn(&heads[&app]);
            let recorded_ms = group.used_ms;
            stream.groups.insert(name, Reading { group, recorded_ms, consumer: 0, is_read: false });
        }
        Ok(())
    }

    async fn head(&self, app: AppId) -> Result<StreamHead, StoreError> {
        match self.desk.answer(Request::Head { stream: StreamKey::Upstream(app) }).await? {
            Answer::Head(head) => Ok(head),
            _ => Err(StoreError::Failed),
        }
    }

    /// Begins to read for a group: behind `after`, else behind what it has acknowledged, else from now on. When this
    /// comes back the group is on record.
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        app: AppId,
        name: &str,
        wants: AppWatch,
        after: Option<Position>,
    ) -> Result<Consumer, Problem> {
        self.load().await?;
        let _only_one = self.adding.lock().await;
        self.forget_idle();
        let head = self.head(app).await?;
        let begun = self.begin(app, name, &wants, after, &head)?;
        let recorded = match begun.recording {
            Ok(asked) => asked.answer().await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            self.lock().give_up(app, name, begun.number, begun.is_new);
            return Err(error.into());
        }
        let hub = Arc::clone(self);
        let Begun { number, at: (epoch, Offset(cursor)), is_foreign, changed, .. } = begun;
        Ok(Consumer::new(hub, (app, name.into(), number), wants, (epoch, cursor, is_foreign), changed))
    }

    /// Puts the group's new state into the table and on its way to the log, in the same order as others.
    fn begin(
        &self,
        app: AppId,
        name: &str,
        wants: &AppWatch,
        after: Option<Position>,
        head: &StreamHead,
    ) -> Result<Begun, Problem> {
        let now_ms = (self.wall_ms)();
        let state = &mut *self.lock();
        let stream = state.streams.entry(app).or_insert_with(Stream::new);
        stream.learn(head);
        let is_new = !stream.groups.contains_key(name);
        if is_new && stream.groups.len() >= EVENTS_GROUPS_MAX {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("the app has {EVENTS_GROUPS_MAX} consumer groups"),
            ));
        }
        let known = stream.groups.get(name).map(|reading| reading.group.acknowledged);
        let oldest = (stream.epoch, Offset(head.first.0 - 1));
        let (at, is_foreign) = match after {
            Some((Epoch(0), _)) => ((stream.epoch, Offset(0)), false),
            Some((epoch, _)) if epoch != stream.epoch => (oldest, true),
            Some((_, Offset(offset))) if offset > stream.last => {
                return Err(Problem::field("after", "is beyond the end of the stream"));
            }
            Some(at) => (at, false),
            None => (known.unwrap_or((stream.epoch, Offset(stream.last))), false),
        };
        // Who goes back wants what is behind that position, so it is acknowledged no more.
        let acknowledged = match known {
            Some(known) if known.0 == at.0 => (known.0, known.1.min(at.1)),
            Some(_) | None => at,
        };
        state.consumers += 1;
        let number = state.consumers;
        let group = Group { wants: wants.clone(), acknowledged, used_ms: now_ms };
        let mut reading = Reading { group, recorded_ms: now_ms, consumer: number, is_read: true };
        let recording = self.desk.ask(write(reading.record(app, name)));
        stream.groups.insert(name.into(), reading);
        let changed = stream.changed.subscribe();
        // Whoever read for the group until now is told.
        stream.changed.send_replace(());
        state.is_stale = true;
        Ok(Begun { number, at, is_foreign, is_new, recording, changed })
    }

    /// Acknowledges up to a position; up to where the group has acknowledged now, which is on record then. A position of
    /// another life of the stream says nothing about this one.
    pub(super) async fn acknowledge(&self, app: AppId, name: &str, position: Position) -> Result<Position, Problem> {
        self.load().await?;
        let (acknowledged, asked) = self.begin_acknowledging(app, name, position)?;
        asked?.answer().await?;
        Ok(acknowledged)
    }

    fn begin_acknowledging(
        &self,
        app: AppId,
        name: &str,
        position: Position,
    ) -> Result<(Position, Result<super::log_desk::Asked, StoreError>), Problem> {
        let state = &mut *self.lock();
        let unknown = || Problem::new(StatusCode::NOT_FOUND, "there is no such consumer group");
        let stream = state.streams.get_mut(&app).ok_or_else(unknown)?;
        let reading = stream.groups.get_mut(name).ok_or_else(unknown)?;
        reading.group.used_ms = (self.wall_ms)();
        let (epoch, Offset(offset)) = position;
        if epoch == stream.epoch {
            if offset > stream.last {
                return Err(Problem::field("position", "is beyond the end of the stream"));
            }
            let known = reading.group.acknowledged;
            let furthest = if known.0 == epoch { known.1.max(Offset(offset)) } else { Offset(offset) };
            reading.group.acknowledged = (epoch, furthest);
        }
        let record = reading.record(app, name);
        // Asked while the table is locked, so that records are written in the order in which they were made.
        Ok((reading.group.acknowledged, self.desk.ask(write(record))))
    }

    /// What the shards are to tell, if that may have changed since it was last asked for. Whoever cannot bring it to
    /// them says so with [`Hub::not_told`].
    pub(super) fn changed_watch(&self) -> Option<Arc<Watch>> {
        let mut state = self.lock();
        std::mem::take(&mut state.is_stale).then(|| Arc::new(state.watch()))
    }

    /// The shards do not know yet.
    pub(super) fn not_told(&self) {
        self.lock().is_stale = true;
    }

    /// Looks after the groups: those of an earlier process are known, those in use are on record as such, and those that
    /// nobody uses are forgotten.
    pub(super) async fn look_after(&self) -> Result<(), StoreError> {
        self.load().await?;
        self.forget_idle();
        self.note_use();
        Ok(())
    }

    /// A record may say less than is so by a fraction of the time after which a group is forgotten.
    fn note_use(&self) {
        let now_ms = (self.wall_ms)();
        for (&app, stream) in &mut self.lock().streams {
            for (name, reading) in &mut stream.groups {
                let refresh_ms = EVENTS_GROUP_IDLE.as_millis() / 8;
                if reading.is_read && is_over(reading.recorded_ms, refresh_ms, now_ms) {
                    reading.group.used_ms = now_ms;
                    // If it finds no room, the next look tries again.
                    if self.desk.ask(write(reading.record(app, name))).is_err() {
                        reading.recorded_ms = 0;
                    }
                }
            }
        }
    }

    /// Forgets groups that nobody uses, and streams without groups.
    fn forget_idle(&self) {
        let now_ms = (self.wall_ms)();
        self.forget(|_, _, reading| reading.is_idle(now_ms));
    }

    /// Forgets the groups of this name but that of one app: the node's own, when it is configured otherwise than before.
    pub(super) async fn forget_but(&self, name: &str, app: Option<AppId>) -> Result<(), StoreError> {
        self.load().await?;
        self.forget(|other, group, _| group == name && Some(other) != app);
        Ok(())
    }

    fn forget(&self, is_over: impl Fn(AppId, &str, &Reading) -> bool) {
        let state = &mut *self.lock();
        for (&app, stream) in &mut state.streams {
            let before = stream.groups.len();
            stream.groups.retain(|name, reading| {
                // One whose removal finds no room is forgotten the next time.
                !is_over(app, name, reading) || self.desk.ask(write(upstream::removal(app, name))).is_err()
            });
            state.is_stale |= stream.groups.len() < before;
        }
        state.streams.retain(|_, stream| !stream.groups.is_empty());
    }
}

/// A consumer that is about to read.
struct Begun {
    number: u64,
    at: Position,
    is_foreign: bool,
    is_new: bool,
    recording: Result<super::log_desk::Asked, StoreError>,
    changed: watch::Receiver<()>,
}

impl State {
    fn written(&mut self, batch: &Batch) {
        let mut last = None;
        for entry in &batch.entries {
            let StreamKey::Upstream(app) = entry.stream else { continue };
            // What is written may still come for a while after the last group has gone.
            let Some(stream) = self.streams.get_mut(&app) else { continue };
            stream.push(entry.epoch, entry.offset, &entry.message);
            if last.replace(app) != Some(app) {
                stream.changed.send_replace(());
            }
        }
    }

    /// Everything that some group wants.
    fn watch(&self) -> Watch {
        let mut watch = Watch::default();
        for (&app, stream) in &self.streams {
            stream.groups.values().for_each(|reading| watch.add(app, &reading.group.wants));
        }
        watch
    }

    /// A consumer does not come to read.
    fn give_up(&mut self, app: AppId, name: &str, consumer: u64, is_new: bool) {
        let Some(stream) = self.streams.get_mut(&app) else { return };
        if is_new && stream.groups.get(name).is_some_and(|reading| reading.consumer == consumer) {
            stream.groups.remove(name);
            self.is_stale = true;
        } else {
            self.left(app, name, consumer, None);
        }
    }

    /// A consumer reads no more.
    fn left(&mut self, app: AppId, name: &str, consumer: u64, used_ms: Option<u64>) {
        let reading = self.streams.get_mut(&app).and_then(|stream| stream.groups.get_mut(name));
        if let Some(reading) = reading.filter(|reading| reading.consumer == consumer) {
            reading.is_read = false;
            reading.group.used_ms = used_ms.unwrap_or(reading.group.used_ms);
        }
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
