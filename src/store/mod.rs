//! Owns: the log (offsets, `seq`, idempotency keys, group commit), the store behind it, and the handle to both.
//! In: [`Request`]s as mail. Out: [`Done`]s and [`Batch`]es as mail, never inside the call.
//! Must not: know sockets or sessions; records are opaque bytes to it.
//! Invariants: only the log assigns offsets and seq; a batch is committed whole or not at all; every shard gets every
//! batch, whole and in seq order, before anybody learns of its `Done`; a request gets exactly one `Done`.

use crate::base::ids::{AppId, Epoch, Offset, Seq};
use crate::base::message::{Entry, Message, StreamKey};
use std::sync::Arc;

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
}

/// A change of one record, committed with its batch. `value: None` removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    /// Ordered bytes; the session layer makes them.
    pub key: Box<[u8]>,
    /// New value.
    pub value: Option<Box<[u8]>>,
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
    /// Entries of a stream with offset > `after`, oldest first, at most `limit` (≤ `READ_ENTRIES_MAX`).
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
    /// All records whose key starts with `prefix` and is > `after`, in key order, at most `limit`.
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
}

/// Where a stream begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHead {
    /// Its life; `Epoch(0)` when it does not exist.
    pub epoch: Epoch,
    /// Offset of the oldest entry kept; `last + 1` when none is.
    pub first: Offset,
    /// Offset of the newest entry ever; 0 when none was.
    pub last: Offset,
}

/// Where an appended entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The stream's life.
    pub epoch: Epoch,
    /// In the stream.
    pub offset: Offset,
    /// In the log.
    pub seq: Seq,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Committed (or, with `duplicate`, had been before): one position per entry, in order. `seq` is the log's commit
    /// number after this batch, also when it held only records.
    Appended {
        /// In entry order.
        positions: Arc<[Position]>,
        /// The key had been seen.
        duplicate: bool,
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
    /// Entries over topics. Everything of the app with seq ≤ `through` and > `after` is in `entries`.
    Topics {
        /// What was asked for.
        entries: Vec<Entry>,
        /// See above.
        through: Seq,
    },
    /// Records.
    Records(Vec<(Box<[u8]>, Box<[u8]>)>),
    /// Where a stream stands.
    Head(StreamHead),
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The key stands for another body (HTTP 409).
    KeyConflict,
    /// The queue is full (HTTP 429).
    Busy,
    /// The store cannot write; nothing was committed (HTTP 503).
    Failed,
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
