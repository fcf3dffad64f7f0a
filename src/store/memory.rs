//! The store that keeps everything in memory: for operation without durability, for tests and for the simulator, and
//! the model that other stores are compared with. An entry costs 24 bytes besides its shared message; a topic entry
//! also its place in the index by seq.

#[cfg(test)]
mod tests;

use super::keys::Keys;
use super::records::Records;
use super::shares::Shares;
use super::{Group, KnownKey, Record, Standing, Store, StoreFault, StreamGap, StreamHead, Usage};
use crate::base::clock::Now;
use crate::base::filter;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, Epoch, Offset, Seq};
use crate::base::message::{Entry, Message, StreamKey};
use crate::base::parts::Parts;
use crate::limits::{
    FORGOTTEN_GAPS_MAX, INBOX_AGE_MAX, INBOX_ENTRIES_MAX, INBOX_FORGET_AFTER, KEYS_MAX, READ_BYTES_MAX,
    STORE_SWEEP_STREAMS_MAX, TOPIC_AGE_MAX, TOPIC_ENTRIES_MAX, UPSTREAM_AGE_MAX, UPSTREAM_BYTES_MAX,
    UPSTREAM_ENTRIES_MAX,
};
use core::time::Duration;
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How long a kind of stream keeps what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Entries; the oldest go first.
    pub entries: usize,
    /// Bytes of their payloads; the oldest go first, but for the newest, which is kept however long it is.
    pub bytes: u64,
    /// An entry this old goes, at the next append to its stream or when the sweep comes by.
    pub age: Duration,
    /// A stream that is empty and to which nothing was appended for this long is forgotten; its next life has a new
    /// epoch. At least `age`.
    pub forget_after: Duration,
}

/// Retention by kind of stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retentions {
    /// Of each inbox.
    pub inbox: Retention,
    /// Of the streams of topics whose history a rule keeps: a filter, and what it means. The first filter that matches
    /// decides, in the place of `topic`, for history and for sessions that are away alike. Rules may differ from those
    /// that an earlier process had over the same data.
    pub history: Vec<(Box<str>, Retention)>,
    /// Of each other topic's stream.
    pub topic: Retention,
    /// Of each app's `everyone`.
    pub everyone: Retention,
    /// Of what each app's backends are told.
    pub upstream: Retention,
    /// Idempotency keys remembered over all apps, at least 1; beyond it the oldest go, counted.
    pub keys: usize,
    /// Payload bytes of each app, by its number; those beyond the list may store what they like. More is refused: nothing
    /// goes for it before its time.
    pub quotas: Vec<Option<u64>>,
}

impl Retention {
    /// By count and age; the life of the stream is as long as its entries'.
    pub fn new(entries: usize, age: Duration) -> Self {
        Self { entries, bytes: u64::MAX, age, forget_after: age }
    }
}

impl Default for Retentions {
    fn default() -> Self {
        let topic = Retention::new(TOPIC_ENTRIES_MAX, TOPIC_AGE_MAX);
        let inbox = Retention::new(INBOX_ENTRIES_MAX, INBOX_AGE_MAX);
        let upstream = Retention::new(UPSTREAM_ENTRIES_MAX, UPSTREAM_AGE_MAX);
        Self {
            inbox: Retention { forget_after: INBOX_FORGET_AFTER, ..inbox },
            topic,
            history: Vec::new(),
            everyone: Retention { forget_after: Duration::MAX, ..topic },
            // Its epoch lasts: a group whose position were of another one could not be told how much it has lost.
            upstream: Retention { bytes: UPSTREAM_BYTES_MAX, forget_after: Duration::MAX, ..upstream },
            keys: KEYS_MAX,
            quotas: Vec::new(),
        }
    }
}

impl Retentions {
    /// What holds for a stream. It may be asked at every append and sweep: it costs a look at each rule.
    pub fn of(&self, stream: &StreamKey) -> Retention {
        match stream {
            StreamKey::Inbox(..) => self.inbox,
            StreamKey::Topic(_, topic) => {
                let rule = self.history.iter().find(|(filter, _)| filter::matches(filter, topic));
                rule.map_or(self.topic, |(_, retention)| *retention)
            }
            StreamKey::Everyone(_) => self.everyone,
            StreamKey::Upstream(_) => self.upstream,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Retention> {
        let history = self.history.iter().map(|(_, retention)| *retention);
        [self.inbox, self.topic, self.everyone, self.upstream].into_iter().chain(history)
    }
}

struct Stored {
    seq: Seq,
    at_ms: u64,
    message: Arc<Message>,
}

struct Stream {
    key: StreamKey,
    epoch: Epoch,
    /// Offset of the front entry, or of the next one when there is none.
    first: u64,
    trimmed: Seq,
    touched_ms: u64,
    entries: VecDeque<Stored>,
    /// Of their payloads.
    bytes: u64,
}

impl Stream {
    fn head(&self) -> StreamHead {
        let last = self.first + self.entries.len() as u64 - 1;
        StreamHead { epoch: self.epoch, first: Offset(self.first), last: Offset(last), trimmed: self.trimmed }
    }

    fn entry(&self, index: usize) -> Option<Entry> {
        let stored = self.entries.get(index)?;
        Some(Entry {
            stream: self.key.clone(),
            epoch: self.epoch,
            offset: Offset(self.first + index as u64),
            seq: stored.seq,
            message: stored.message.clone(),
        })
    }
}

/// Where a topic or everyone entry is.
#[derive(Clone, Copy)]
struct Place {
    stream: usize,
    offset: u64,
}

/// An app's topic and everyone entries by seq.
#[derive(Default)]
struct Topics {
    by_seq: BTreeMap<Seq, Place>,
    /// Streams that retention has taken something of, by the seq of the newest entry that is gone.
    gaps: BTreeMap<Seq, GapOf>,
    /// Those of streams that are forgotten, the oldest first.
    forgotten: VecDeque<Seq>,
}

/// Whose a gap is.
enum GapOf {
    Stream(usize),
    Forgotten(StreamKey),
}

impl Topics {
    /// The stream is forgotten: what has gone with it is known a while longer.
    fn forget(&mut self, stream: Stream) {
        if stream.trimmed == Seq(0) {
            return;
        }
        self.gaps.insert(stream.trimmed, GapOf::Forgotten(stream.key));
        self.forgotten.push_back(stream.trimmed);
        if self.forgotten.len() > FORGOTTEN_GAPS_MAX
            && let Some(oldest) = self.forgotten.pop_front()
        {
            self.gaps.remove(&oldest);
        }
    }
}

/// See the module. Cheap to create; everything is gone when it is dropped.
pub struct MemoryStore {
    retentions: Retentions,
    seq: Seq,
    hash: KeyedHash,
    streams: Slab<Stream>,
    by_key: Parts<usize>,
    topics: BTreeMap<AppId, Topics>,
    records: Records,
    keys: Keys,
    /// Where the next sweep begins.
    sweep_from: usize,
    entries: u64,
    payload_bytes: u64,
    shares: Shares,
    trimmed: u64,
}

impl MemoryStore {
    /// An empty store. `hash` guards its tables against chosen collisions.
    pub fn new(retentions: Retentions, hash: KeyedHash) -> Self {
        for retention in retentions.iter() {
            assert!(retention.forget_after >= retention.age, "an epoch outlives its entries");
        }
        Self {
            keys: Keys::new(hash.clone(), retentions.keys),
            shares: Shares::new(&retentions.quotas),
            retentions,
            seq: Seq(0),
            hash,
            streams: Slab::new(),
            by_key: Parts::new(),
            topics: BTreeMap::new(),
            records: Records::default(),
            sweep_from: 0,
            entries: 0,
            payload_bytes: 0,
            trimmed: 0,
        }
    }

    fn find(&self, key: &StreamKey) -> Option<usize> {
        self.by_key.find(self.hash.of(key), |index| self.streams[*index].key == *key).copied()
    }

    fn append(&mut self, entry: &Entry, now: Now) {
        assert!(entry.seq.0 == self.seq.0 + 1, "the log assigns seq without gaps");
        self.seq = entry.seq;
        let index = self.find(&entry.stream).unwrap_or_else(|| self.create(&entry.stream, entry.epoch));
        let stream = &mut self.streams[index];
        assert!(entry.epoch == stream.epoch, "only the store ends a stream's life");
        assert!(entry.offset.0 == stream.first + stream.entries.len() as u64, "the log assigns offsets without gaps");
        stream.entries.push_back(Stored { seq: entry.seq, at_ms: now.wall_ms, message: entry.message.clone() });
        stream.touched_ms = now.wall_ms;
        stream.bytes += entry.message.payload.len() as u64;
        if let Some(app) = entry.stream.topics_of() {
            let place = Place { stream: index, offset: entry.offset.0 };
            self.topics.entry(app).or_default().by_seq.insert(entry.seq, place);
        }
        self.entries += 1;
        self.payload_bytes += entry.message.payload.len() as u64;
        self.shares.add(&entry.stream, entry.message.payload.len() as u64);
        self.trim(index, now);
    }

    fn create(&mut self, key: &StreamKey, epoch: Epoch) -> usize {
        let (key_of, entries) = (key.clone(), VecDeque::new());
        let stream = Stream { key: key_of, epoch, first: 1, trimmed: Seq(0), touched_ms: 0, entries, bytes: 0 };
        let index = self.streams.insert(stream);
        let Self { streams, by_key, hash, .. } = self;
        by_key.insert_unique(hash.of(key), index, |index| hash.of(&streams[*index].key));
        index
    }

    /// Applies retention to one stream.
    fn trim(&mut self, index: usize, now: Now) {
        let stream = &mut self.streams[index];
        let retention = self.retentions.of(&stream.key);
        let topics = stream.key.topics_of();
        let trimmed_before = stream.trimmed;
        while let Some(front) = stream.entries.front() {
            let is_long = stream.entries.len() > 1 && stream.bytes > retention.bytes;
            let is_excess = is_long || stream.entries.len() > retention.entries;
            if !is_excess && !is_over(front.at_ms, retention.age, now) {
                break;
            }
            let (seq, payload_bytes) = (front.seq, front.message.payload.len() as u64);
            self.payload_bytes -= payload_bytes;
            stream.bytes -= payload_bytes;
            self.shares.remove(&stream.key, payload_bytes);
            self.entries -= 1;
            self.trimmed += 1;
            stream.entries.pop_front();
            stream.first += 1;
            stream.trimmed = seq;
            if let Some(topics) = topics.and_then(|app| self.topics.get_mut(&app)) {
                topics.by_seq.remove(&seq);
            }
        }
        let trimmed = stream.trimmed;
        if trimmed != trimmed_before
            && let Some(topics) = topics.and_then(|app| self.topics.get_mut(&app))
        {
            topics.gaps.remove(&trimmed_before);
            topics.gaps.insert(trimmed, GapOf::Stream(index));
        }
    }

    /// Ends the life of a stream that is empty and has been for long; else gives back memory it no longer needs.
    fn forget(&mut self, index: usize, now: Now) {
        let stream = &mut self.streams[index];
        if !stream.entries.is_empty() {
            if stream.entries.capacity() / 4 > stream.entries.len() {
                stream.entries.shrink_to_fit();
            }
            return;
        }
        stream.entries = VecDeque::new();
        if is_over(stream.touched_ms, self.retentions.of(&stream.key).forget_after, now) {
            let hash = self.hash.of(&stream.key);
            let found = self.by_key.remove(hash, |found| *found == index);
            assert!(found.is_some(), "every stream is in the table");
            let stream = self.streams.remove(index);
            if let Some(topics) = stream.key.topics_of().and_then(|app| self.topics.get_mut(&app)) {
                topics.forget(stream);
            }
        }
    }
}

impl Store for MemoryStore {
    fn append_many(&mut self, group: Group<'_>, now: Now) -> Result<(), StoreFault> {
        for entry in group.entries {
            self.append(entry, now);
        }
        assert!(group.seq == self.seq, "a group ends with its last entry");
        for change in group.records {
            self.records.apply(change);
        }
        for outcome in group.keys {
            self.keys.insert(outcome, now);
        }
        Ok(())
    }

    fn sweep(&mut self, now: Now) -> Result<(), StoreFault> {
        self.keys.sweep(now);
        // Vacant places are visited, too: the slab never shrinks below its most, and the bound is on work.
        let places = self.streams.capacity();
        for _ in 0..STORE_SWEEP_STREAMS_MAX.min(places) {
            if self.sweep_from >= places {
                self.sweep_from = 0;
            }
            if self.streams.contains(self.sweep_from) {
                self.trim(self.sweep_from, now);
                self.forget(self.sweep_from, now);
            }
            self.sweep_from += 1;
        }
        Ok(())
    }

    fn life(&self) -> Epoch {
        // The key was drawn for this store, and 0 stands for no life.
        Epoch(self.hash.of("life").max(1))
    }

    fn last_seq(&self) -> Result<Seq, StoreFault> {
        Ok(self.seq)
    }

    fn head(&self, stream: &StreamKey) -> Result<StreamHead, StoreFault> {
        let nothing = StreamHead { epoch: Epoch(0), first: Offset(1), last: Offset(0), trimmed: Seq(0) };
        Ok(self.find(stream).map_or(nothing, |index| self.streams[index].head()))
    }

    fn standing(&self, stream: &StreamKey, record: &[u8]) -> Result<Standing, StoreFault> {
        Ok((self.head(stream)?, self.records.find(record)))
    }

    fn key(&self, app: AppId, key: &str, now: Now) -> Result<Option<KnownKey>, StoreFault> {
        Ok(self.keys.find(app, key, now))
    }

    fn read_stream(&self, stream: &StreamKey, after: Offset, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        let Some(index) = self.find(stream) else { return Ok(Vec::new()) };
        let stream = &self.streams[index];
        let skipped = after.0.saturating_add(1).saturating_sub(stream.first);
        let from = usize::try_from(skipped).unwrap_or(usize::MAX).min(stream.entries.len());
        let to = from.saturating_add(limit).min(stream.entries.len());
        Ok(page((from..to).filter_map(|index| stream.entry(index))))
    }

    fn read_topics(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        let Some(topics) = self.topics.get(&app) else { return Ok(Vec::new()) };
        let places = topics.by_seq.range(Seq(after.0.saturating_add(1))..).take(limit);
        let entries = places.map(|(_, place)| {
            let stream = &self.streams[place.stream];
            let index = usize::try_from(place.offset - stream.first).expect("a stream is shorter than memory");
            stream.entry(index).expect("what is indexed is kept")
        });
        Ok(page(entries))
    }

    fn read_gaps(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<StreamGap>, StoreFault> {
        let Some(topics) = self.topics.get(&app) else { return Ok(Vec::new()) };
        let gaps = topics.gaps.range(Seq(after.0.saturating_add(1))..).take(limit);
        let gaps = gaps.map(|(&trimmed, of)| {
            let (stream, kept_from) = match of {
                GapOf::Stream(index) => (&self.streams[*index].key, self.streams[*index].first),
                // Its next life counts from 1 again.
                GapOf::Forgotten(stream) => (stream, 1),
            };
            StreamGap { stream: stream.clone(), kept_from: Offset(kept_from), trimmed }
        });
        Ok(gaps.collect())
    }

    fn read_records(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Record>, StoreFault> {
        Ok(self.records.read(prefix, after, limit))
    }

    fn room(&self, app: AppId) -> Option<u64> {
        self.shares.room(app)
    }

    fn usage(&self) -> Usage {
        Usage {
            streams: self.streams.len() as u64,
            entries: self.entries,
            records: self.records.count(),
            bytes: self.payload_bytes + self.records.bytes(),
            keys: self.keys.count(),
            trimmed: self.trimmed,
            keys_dropped: self.keys.dropped(),
        }
    }
}

/// Entries up to the one with which they reach `READ_BYTES_MAX`.
fn page(entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut bytes = 0;
    let has_room = |entry: &Entry| {
        let has_room = bytes < READ_BYTES_MAX;
        bytes += entry.message.payload.len();
        has_room
    };
    entries.take_while(has_room).collect()
}

pub(super) fn is_over(at_ms: u64, age: Duration, now: Now) -> bool {
    u128::from(now.wall_ms.saturating_sub(at_ms)) >= age.as_millis()
}
