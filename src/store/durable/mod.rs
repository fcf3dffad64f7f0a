//! Owns: the durable store: a directory with a fjall database and the mark of what was committed last.
//! In: groups of the log, a directory. Out: the same answers as the memory store's, also after a restart; or why the
//! directory is not opened.
//! Must not: know what records mean; write from any thread but the log's.
//! Invariants: a group is one batch and one fsync, and the mark is set behind it; each batch holds its number, so that
//! a hole in what comes back is seen; a stream keeps its epoch until data is lost and its loss accepted; reads are
//! bounded in entries and bytes.

mod chain;
mod directory;
mod draft;
mod heads;
mod keys;
mod layout;
mod open;
mod reads;
mod trim;

#[cfg(test)]
pub(super) mod tests;

use super::memory::Retentions;
use super::shares::Shares;
use super::{Group, KnownKey, Record, RecordChange, Standing, Store, StoreFault, StreamGap, StreamHead, Usage};
use crate::base::bytes::Write;
use crate::base::clock::Now;
use crate::base::ids::{AppId, Epoch, Offset, Seq};
use crate::base::message::{Entry, Message, StreamKey};
use crate::limits::{STORE_FRONTS_MAX, STORE_MARK_SYNC_INTERVAL, STORE_SHARED_BYTES_MIN};
use chain::Chain;
use core::cell::RefCell;
use directory::{Directory, Mark};
use draft::Draft;
use fjall::{Database, Keyspace, PersistMode};
use heads::{Heads, Open};
use layout::{Front, Head, State};
use reads::SharedMessages;
use std::collections::BTreeMap;
use std::sync::Arc;
use trim::Round;

pub use open::{OpenError, Opening};

/// See the module.
pub struct DurableStore {
    /// Behind the database in the order of dropping: the lock is let go last.
    database: Database,
    space: Keyspace,
    directory: Directory,
    retentions: Retentions,
    state: State,
    /// Not rolled back: after a failed write nothing is judged by it any more.
    shares: Shares,
    draft: Draft,
    chain: Chain,
    heads: RefCell<Heads>,
    shared: RefCell<SharedMessages>,
    /// By app: no topic entry with a seq up to this one is left, so reads begin behind it and not among what was removed.
    topics_gone: RefCell<BTreeMap<AppId, Seq>>,
    /// Gaps of forgotten streams, by app.
    forgotten: BTreeMap<AppId, usize>,
    /// When the oldest idempotency key came; none: it has to be looked up.
    oldest_key_ms: Option<u64>,
    round: Round,
    mark_synced_ms: u64,
    /// Since it was opened.
    trimmed: u64,
    keys_dropped: u64,
    scratch: Vec<u8>,
}

/// What the database says, in the words of whoever has to mend it.
fn fault(what: &'static str) -> impl Fn(fjall::Error) -> StoreFault {
    move |error| StoreFault { reason: format!("{what}: {error}").into() }
}

/// What was read is not what was written.
fn unreadable(what: &'static str) -> StoreFault {
    StoreFault { reason: format!("{what} cannot be read: the data directory is damaged").into() }
}

impl DurableStore {
    /// What the database holds in memory: blocks that were read (`STORE_CACHE_BYTES`), and tables that are not written yet.
    pub fn memory_bytes(&self) -> u64 {
        self.database.cache_size() + self.database.write_buffer_size()
    }

    fn write(&mut self, group: Group<'_>, now: Now) -> Result<(), StoreFault> {
        let mut list = None;
        for (index, entry) in group.entries.iter().enumerate() {
            let shared = self.share(group.entries, index, &mut list);
            self.append(entry, shared, now)?;
        }
        assert!(group.seq == self.state.seq, "a group ends with its last entry");
        for change in group.records {
            self.record(change)?;
        }
        for outcome in group.keys {
            self.remember(outcome, now)?;
        }
        self.commit(PersistMode::SyncData)?;
        let State { life, group, seq, .. } = self.state;
        let mark = self.directory.set_mark(Mark { life, group, seq });
        mark.map_err(|error| StoreFault { reason: format!("write the mark: {error}").into() })
    }

    /// The number of the message that an entry shares with its neighbours, which is stored with the first of them.
    fn share(&mut self, entries: &[Entry], index: usize, list: &mut Option<u64>) -> Option<u64> {
        let entry = &entries[index];
        let is_alike = |other: &&Entry| {
            Arc::ptr_eq(&other.message, &entry.message) && matches!(other.stream, StreamKey::Inbox(..))
        };
        if !is_alike(&entry) || entry.message.payload.len() < STORE_SHARED_BYTES_MIN {
            *list = None;
        } else if index == 0 || !is_alike(&&entries[index - 1]) {
            let count = entries[index..].iter().take_while(is_alike).count();
            *list = (count > 1).then_some(entry.seq.0);
            if let Some(id) = *list {
                self.scratch.clear();
                self.scratch.message(&entry.message);
                self.draft.put(&layout::numbered(layout::SHARED, id), &self.scratch);
                self.put_shared_count(id, count as u64);
            }
        }
        *list
    }

    fn put_shared_count(&mut self, id: u64, count: u64) {
        let key = layout::numbered(layout::SHARED_COUNT, id);
        if count == 0 {
            self.draft.remove(&key);
            self.draft.remove(&layout::numbered(layout::SHARED, id));
        } else {
            self.draft.put(&key, &count.to_be_bytes());
        }
    }

    fn append(&mut self, entry: &Entry, shared: Option<u64>, now: Now) -> Result<(), StoreFault> {
        assert!(entry.seq.0 == self.state.seq.0 + 1, "the log assigns seq without gaps");
        self.state.seq = entry.seq;
        self.load(&entry.stream)?;
        let open = self.heads.get_mut().find(&entry.stream).expect("it was just loaded");
        let head = &mut open.head;
        if head.id == 0 {
            let made_epoch = self.state.epoch(entry.epoch.0);
            *head = Head { id: entry.seq.0, made_epoch, first: 1, ..Head::default() };
            self.state.streams += 1;
        }
        assert!(entry.epoch.0 == self.state.epoch(head.made_epoch), "only the store ends a stream's life");
        assert!(entry.offset.0 == head.last + 1, "the log assigns offsets without gaps");
        let (id, is_empty) = (head.id, head.len() == 0);
        head.last = entry.offset.0;
        head.touched_ms = now.wall_ms;
        if is_empty {
            head.first_ms = now.wall_ms;
        }
        let payload_bytes = entry.message.payload.len() as u64;
        head.bytes += payload_bytes;
        let front = Front { seq: entry.seq, at_ms: now.wall_ms, payload_bytes, shared };
        if open.fronts.len() as u64 + 1 == head.len() && open.fronts.len() < STORE_FRONTS_MAX {
            open.fronts.push_back(front);
        }
        self.state.entries += 1;
        self.state.bytes += payload_bytes;
        self.shares.add(&entry.stream, payload_bytes);
        let head = *head;
        self.put_entry(entry, id, head.made_epoch, front);
        if trim::has_excess(&head, self.retentions.of(&entry.stream), now) {
            self.trim(&entry.stream, usize::MAX, now)?;
            self.put_changed_head(&entry.stream);
        } else {
            self.put_head(&entry.stream, &head);
        }
        Ok(())
    }

    fn put_entry(&mut self, entry: &Entry, id: u64, made_epoch: u64, front: Front) {
        let Self { draft, scratch, .. } = self;
        scratch.clear();
        match entry.stream.topics_of() {
            None => {
                layout::write_inbox_entry(entry, front.at_ms, front.shared, scratch);
                draft.put(&layout::placed(layout::INBOX_ENTRY, id, entry.offset), scratch);
            }
            Some(app) => {
                layout::write_topic_offset(front, scratch);
                draft.put(&layout::placed(layout::TOPIC_OFFSET, id, entry.offset), scratch);
                scratch.clear();
                layout::write_topic_entry(entry, made_epoch, scratch);
                draft.put(&layout::sequenced(layout::TOPIC_ENTRY, app, entry.seq), scratch);
            }
        }
    }

    /// Has the stream's head at hand from now on, also when there is no such stream.
    fn load(&self, stream: &StreamKey) -> Result<Option<Head>, StoreFault> {
        let head = self.head_of(stream)?;
        if head.is_none() {
            let mut heads = self.heads.borrow_mut();
            if heads.find(stream).is_none() {
                heads.insert(Open::new(stream, Head::default()));
            }
        }
        Ok(head)
    }

    /// Nothing is kept at hand of a stream that is not there.
    fn head_of(&self, stream: &StreamKey) -> Result<Option<Head>, StoreFault> {
        let mut heads = self.heads.borrow_mut();
        if let Some(open) = heads.find(stream) {
            return Ok(open.exists().then_some(open.head));
        }
        let key = layout::stream_key(stream);
        let head = self.get(&key, |value| Head::parse(value).ok_or_else(|| unreadable("a stream")))?;
        Ok(head.map(|head| heads.insert(Open::new(stream, head)).head))
    }

    fn shown(&self, head: Option<Head>) -> StreamHead {
        let nothing = StreamHead { epoch: Epoch(0), first: Offset(1), last: Offset(0), trimmed: Seq(0) };
        head.map_or(nothing, |head| StreamHead {
            epoch: Epoch(self.state.epoch(head.made_epoch)),
            first: Offset(head.first),
            last: Offset(head.last),
            trimmed: head.trimmed,
        })
    }

    fn put_changed_head(&mut self, stream: &StreamKey) {
        let head = self.heads.get_mut().find(stream).expect("it is being changed").head;
        self.put_head(stream, &head);
    }

    fn put_head(&mut self, stream: &StreamKey, head: &Head) {
        self.scratch.clear();
        head.write(&mut self.scratch);
        self.draft.put(&layout::stream_key(stream), &self.scratch);
    }

    fn record(&mut self, change: &RecordChange) -> Result<(), StoreFault> {
        let key = layout::prefixed(layout::RECORD, &change.key);
        let before = self.get(&key, |value| Ok(value.len()))?;
        if let Some(bytes) = before {
            self.state.records -= 1;
            self.state.bytes -= (change.key.len() + bytes) as u64;
        }
        match &change.value {
            Some(value) => {
                self.draft.put(&key, value);
                self.state.records += 1;
                self.state.bytes += (change.key.len() + value.len()) as u64;
            }
            None if before.is_some() => self.draft.remove(&key),
            // Nothing is there to be removed, and a removal costs as much as a record.
            None => {}
        }
        Ok(())
    }

    /// A value as this commit leaves it, or as the last one did.
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> Result<T, StoreFault>) -> Result<Option<T>, StoreFault> {
        if let Some(change) = self.draft.get(key) {
            return change.map(read).transpose();
        }
        let value = self.space.get(key).map_err(fault("read the store"))?;
        value.map(|value| read(&value)).transpose()
    }

    /// One batch: what was drafted, the state behind it, its number.
    fn commit(&mut self, durability: PersistMode) -> Result<(), StoreFault> {
        self.state.group += 1;
        self.chain.prune(&self.state, &mut self.draft);
        self.state.written_bytes += self.draft.bytes();
        self.scratch.clear();
        self.state.write(&mut self.scratch);
        self.draft.put(&layout::numbered(layout::GROUP, self.state.group), &self.scratch);
        let mut batch = self.database.batch().durability(Some(durability));
        for (key, value) in self.draft.drain() {
            match value {
                Some(value) => batch.insert(&self.space, key, value),
                None => batch.remove(&self.space, key),
            }
        }
        batch.commit().map_err(fault("write the store"))
    }

    /// Forgets what a group has planned that could not be written, so that reads see what was committed.
    fn roll_back(&mut self, state: State) {
        self.state = state;
        self.draft.clear();
        self.heads.get_mut().clear();
        self.oldest_key_ms = None;
    }
}

impl Store for DurableStore {
    fn append_many(&mut self, group: Group<'_>, now: Now) -> Result<(), StoreFault> {
        let before = self.state;
        self.write(group, now).inspect_err(|_| self.roll_back(before))
    }

    fn sweep(&mut self, now: Now) -> Result<(), StoreFault> {
        let before = self.state;
        let swept = self.sweep_keys(now).and_then(|()| self.sweep_streams(now));
        let swept = swept.and_then(|()| {
            // What the sweep removes may come back after a loss of power, and goes again.
            if self.draft.is_empty() { Ok(()) } else { self.commit(PersistMode::Buffer) }
        });
        swept.inspect_err(|_| self.roll_back(before))?;
        if now.monotonic_ms >= self.mark_synced_ms {
            self.mark_synced_ms = now.deadline(STORE_MARK_SYNC_INTERVAL);
            let synced = self.directory.sync_mark();
            return synced.map_err(|error| StoreFault { reason: format!("sync the mark: {error}").into() });
        }
        Ok(())
    }

    fn life(&self) -> Epoch {
        Epoch(self.state.life)
    }

    fn last_seq(&self) -> Result<Seq, StoreFault> {
        Ok(self.state.seq)
    }

    fn head(&self, stream: &StreamKey) -> Result<StreamHead, StoreFault> {
        // Mostly for an append, which asks again; readers of what is not there are few.
        Ok(self.shown(self.load(stream)?))
    }

    fn standing(&self, stream: &StreamKey, record: &[u8]) -> Result<Standing, StoreFault> {
        let value = self.get(&layout::prefixed(layout::RECORD, record), |value| Ok(value.into()))?;
        Ok((self.shown(self.head_of(stream)?), value))
    }

    fn key(&self, app: AppId, key: &str, now: Now) -> Result<Option<KnownKey>, StoreFault> {
        self.find_key(app, key, now)
    }

    fn read_stream(&self, stream: &StreamKey, after: Offset, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        self.entries_of(stream, after, limit)
    }

    fn read_topics(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        self.topic_entries(app, after, limit)
    }

    fn read_gaps(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<StreamGap>, StoreFault> {
        self.gaps(app, after, limit)
    }

    fn read_records(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Record>, StoreFault> {
        self.records(prefix, after, limit)
    }

    fn room(&self, app: AppId) -> Option<u64> {
        self.shares.room(app)
    }

    fn usage(&self) -> Usage {
        let State { streams, entries, records, bytes, keys, .. } = self.state;
        let (trimmed, keys_dropped) = (self.trimmed, self.keys_dropped);
        Usage { streams, entries, records, bytes, keys, trimmed, keys_dropped }
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        // An error is no loss: each commit was synced, and an older mark asks for less.
        let _ = self.database.persist(PersistMode::SyncAll);
        let _ = self.directory.sync_mark();
    }
}

/// A message as it was stored.
fn parse_message(bytes: &[u8]) -> Result<Message, StoreFault> {
    crate::base::bytes::Reader(bytes).message().ok_or_else(|| unreadable("a message"))
}
