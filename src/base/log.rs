//! What the log says of streams and records: the plain values that sessions and the store both speak in.

use super::ids::{Epoch, Offset, Seq};
use super::message::StreamKey;

/// A change of one record, committed with its batch. `value: None` removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    /// Ordered bytes; the session layer makes them.
    pub key: Box<[u8]>,
    /// New value.
    pub value: Option<Box<[u8]>>,
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
    /// Seq of the newest entry that retention removed; 0 when none was. A topics position below it has a gap here.
    pub trimmed: Seq,
}

/// What retention has taken of a topic or everyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamGap {
    /// Of which.
    pub stream: StreamKey,
    /// Offset from which on it is whole: of the oldest entry kept, or of the next one when none is.
    pub kept_from: Offset,
    /// Seq of the newest entry that is gone.
    pub trimmed: Seq,
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

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The key stands for another body (HTTP 409).
    KeyConflict,
    /// The queue is full (HTTP 429).
    Busy,
    /// The app has stored as much as its quota allows, and nothing was written (HTTP 429).
    OverQuota,
    /// The store cannot write; whether this was committed is not known before a restart (HTTP 503).
    Failed,
}
