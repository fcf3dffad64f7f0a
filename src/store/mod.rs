//! Owns: the log (offsets, `seq`, idempotency keys, group commit), the stores behind it, durable and in memory, and the
//! handle to both.
//! In: [`Request`]s as mail. Out: [`Done`]s and [`Batch`]es as mail, never inside the call.
//! Must not: know sockets or sessions; records are opaque bytes to it.
//! Invariants: only the log assigns offsets and seq; a batch is committed whole or not at all; every shard gets every
//! batch, whole and in seq order, before anybody learns of its `Done`; a request gets exactly one `Done`.

pub mod counters;
pub mod durable;
pub mod handle;
mod keys;
pub mod log;
pub mod memory;
mod records;
mod shares;
pub mod thread;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod model;

use crate::base::clock::Now;
use crate::base::ids::{AppId, Epoch, Offset, PushId, Seq};
use crate::base::message::{Entry, Message, StreamKey};
use std::sync::Arc;

pub use crate::base::log::{Position, RecordChange, StoreError, StreamGap, StreamHead};
pub use counters::{Counters, Stats};
pub use durable::DurableStore;
pub use handle::{Address, Handle};
pub use log::{Committed, Log};
pub use memory::{MemoryStore, Retention, Retentions};
pub use thread::{Deliver, Desk, LogThread};

/// A request's name, chosen by who asks, returned in its [`Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestToken(pub u64);

/// An idempotency key with the hash of the body it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Keys are per app.
    pub app: AppId,
    /// At most `KEY_BYTES_MAX`.
    pub key: Box<str>,
    /// The same key with another hash is refused.
    pub body_hash: u64,
    /// Of the push that comes with it; of the first one it is kept.
    pub id: PushId,
}

/// One message for one stream.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// Created with a new epoch when it does not exist.
    pub stream: StreamKey,
    /// Shared between the entries of a list.
    pub message: Arc<Message>,
}

/// What the log is asked for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Commits entries and record changes together, or returns the first outcome of `key`.
    Append {
        /// Repeats return the first outcome with `duplicate`.
        key: Option<IdempotencyKey>,
        /// Messages, in order.
        entries: Vec<NewEntry>,
        /// Records.
        records: Vec<RecordChange>,
    },
    /// Entries of a stream with offset > `after`, oldest first, at most `limit` (≤ `READ_ENTRIES_MAX`), and none behind the
    /// one with which their payloads reach `READ_BYTES_MAX`. Only an answer without entries says that there are no more.
    ReadStream {
        /// Which.
        stream: StreamKey,
        /// Exclusive.
        after: Offset,
        /// Entries.
        limit: usize,
    },
    /// Topic and everyone entries of an app with seq > `after`, oldest first, at most `limit`.
    ReadTopics {
        /// Whose.
        app: AppId,
        /// Exclusive.
        after: Seq,
        /// Entries.
        limit: usize,
    },
    /// All records whose key starts with `prefix` and is > `after`, in key order, at most `limit`
    /// (≤ `READ_RECORDS_MAX`). A page shorter than both is the last one.
    ReadRecords {
        /// Which.
        prefix: Box<[u8]>,
        /// Exclusive; empty: from the first.
        after: Box<[u8]>,
        /// Records.
        limit: usize,
    },
    /// Where a stream stands.
    Head {
        /// Which.
        stream: StreamKey,
    },
    /// Where a stream stands, and what a record says, at one moment.
    Standing {
        /// Which.
        stream: StreamKey,
        /// The record's key.
        record: Box<[u8]>,
    },
}

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Committed (or, with `duplicate`, had been before): one position per entry, in order. `seq` is the log's commit
    /// number after this request, also when it held only records (which do not advance it): all that was asked for
    /// before it has a seq ≤ this one, all that was asked for after it a greater one. So what an append of a session
    /// record answers is where its new subscription begins.
    Appended {
        /// In entry order.
        positions: Arc<[Position]>,
        /// The key had been seen: the id of the push that was the first.
        duplicate: Option<PushId>,
        /// See above.
        seq: Seq,
    },
    /// Entries of a stream.
    Stream {
        /// Where it stands now.
        head: StreamHead,
        /// What was asked for.
        entries: Vec<Entry>,
    },
    /// Entries over topics. Everything of the app with seq ≤ `through` and > `after` that retention kept is in
    /// `entries`.
    Topics {
        /// What was asked for.
        entries: Vec<Entry>,
        /// See above.
        through: Seq,
        /// Of which topics, or of everyone, retention removed entries with seq > `after`, by the seq of the newest of
        /// them, up to `through`.
        gaps: Vec<StreamGap>,
    },
    /// Records.
    Records(Arc<[Record]>),
    /// Where a stream stands.
    Head(StreamHead),
    /// Where a stream stands, and the record's value if there is one.
    Standing(StreamHead, Option<Box<[u8]>>),
}

/// The answer to a request, delivered as mail.
#[derive(Clone, Debug)]
pub struct Done {
    /// The request's.
    pub token: RequestToken,
    /// The result.
    pub result: Result<Answer, StoreError>,
}

/// What one group commit brought, in seq order; every shard gets the same allocation.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Ascending seq, no gaps between batches.
    pub entries: Vec<Entry>,
    /// The log's last commit number with this batch.
    pub seq: Seq,
}

/// One group commit as the log hands it to its store: several requests, in order, with all positions assigned.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Ascending seq without gaps, following the store's last; per stream ascending offsets likewise.
    pub entries: &'a [Entry],
    /// In order: the last change of a key wins.
    pub records: &'a [RecordChange],
    /// New idempotency keys; none of them is remembered yet.
    pub keys: &'a [KeyOutcome],
    /// The log's last commit number with this group; the store's last when `entries` is empty.
    pub seq: Seq,
}

/// An idempotency key and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOutcome {
    /// The key with its body's hash.
    pub key: IdempotencyKey,
    /// What the first request was answered.
    pub positions: Arc<[Position]>,
}

/// What a store remembers of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Hash of the first body.
    pub body_hash: u64,
    /// Id of the first push.
    pub id: PushId,
    /// What the first request was answered.
    pub positions: Arc<[Position]>,
}

/// What a store holds now and has dropped since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Streams, empty ones included.
    pub streams: u64,
    /// Entries over all streams.
    pub entries: u64,
    /// Records.
    pub records: u64,
    /// Payload bytes of the entries (a list's shared payload counts once per entry) and bytes of the records.
    pub bytes: u64,
    /// Idempotency keys.
    pub keys: u64,
    /// Entries that retention removed.
    pub trimmed: u64,
    /// Idempotency keys that had to go before their age because there were too many.
    pub keys_dropped: u64,
}

/// The store failed: the medium or the machine is at fault, nobody who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// For the operator.
    pub reason: Box<str>,
}

/// What the log needs of a store. It is called from one thread. No atomicity across streams is promised except that of
/// `append_many`; reads see every group that was appended and nothing of any other.
pub trait Store {
    /// Commits a group whole or not at all, durably when it returns. Retention and the bound on keys are applied here.
    /// After an error the log writes no more, because nobody knows how much reached the medium.
    fn append_many(&mut self, group: Group<'_>, now: Now) -> Result<(), StoreFault>;
    /// Removes some of what is too old, bounded work; called every `STORE_SWEEP_INTERVAL`, also when nothing is written.
    fn sweep(&mut self, now: Now) -> Result<(), StoreFault>;
    /// Identity of the store's life: drawn when it was made, and kept as long as it. Commit numbers compare only within it,
    /// as offsets do within an epoch.
    fn life(&self) -> Epoch;
    /// The last commit number; 0 in a new store.
    fn last_seq(&self) -> Result<Seq, StoreFault>;
    /// Where a stream stands. Never the epoch of an earlier life.
    fn head(&self, stream: &StreamKey) -> Result<StreamHead, StoreFault>;
    /// The same for one of many who come to ask and mostly have no stream, with the value of the record with this key.
    fn standing(&self, stream: &StreamKey, record: &[u8]) -> Result<Standing, StoreFault>;
    /// What a key stands for, while it is remembered.
    fn key(&self, app: AppId, key: &str, now: Now) -> Result<Option<KnownKey>, StoreFault>;
    /// Entries of a stream with offset > `after`, oldest first, at most `limit`, and none behind the one with which their
    /// payloads reach `READ_BYTES_MAX`.
    fn read_stream(&self, stream: &StreamKey, after: Offset, limit: usize) -> Result<Vec<Entry>, StoreFault>;
    /// Topic and everyone entries of an app with seq > `after`, oldest first; bounds as of `read_stream`.
    fn read_topics(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<Entry>, StoreFault>;
    /// Which topic and everyone streams of an app have lost entries with seq > `after` to retention, by the seq of the
    /// newest of them, the smallest first, at most `limit`.
    fn read_gaps(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<StreamGap>, StoreFault>;
    /// Records whose key starts with `prefix` and is > `after`, in key order, at most `limit`.
    fn read_records(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Record>, StoreFault>;
    /// Payload bytes that an app's quota still lets it store; none: any. What backends are told of devices does not count.
    fn room(&self, app: AppId) -> Option<u64>;
    /// Figures for the operator; cheap.
    fn usage(&self) -> Usage;
}

/// Where a stream stands, and a record's value.
pub type Standing = (StreamHead, Option<Box<[u8]>>);

/// A record's key and value.
pub type Record = (Box<[u8]>, Box<[u8]>);
