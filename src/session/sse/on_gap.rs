//! What a client is told of entries that it will not get.

use super::super::core::own_position::Missing;
use super::super::{Effects, LoggedAt};
use super::send;
use crate::wire::sse::{Gap, Lost, Stream, encode_gap};

fn stream(at: LoggedAt) -> Stream {
    match at {
        LoggedAt::Inbox(_) => Stream::Inbox,
        LoggedAt::Topics(_) => Stream::Topics,
        LoggedAt::Retained(_) | LoggedAt::Shared { .. } => unreachable!("event streams ask for neither"),
    }
}

/// Entries are missing in the stream of `at`. None: retention removed some, and nobody knows whose.
pub fn on_gap(at: LoggedAt, missing: Option<Missing>, effects: &mut Effects) {
    let why = match missing {
        None => Lost::Trimmed(None),
        Some(Missing::Trimmed(first, entries)) => Lost::Trimmed(Some((first, entries))),
        Some(Missing::Unknown) => Lost::Unknown,
    };
    send(effects, |out| encode_gap(&Gap { stream: stream(at), why }, out));
}

/// The entry at `at` is longer than what may wait for a connection.
pub fn on_too_large(at: LoggedAt, effects: &mut Effects) {
    send(effects, |out| encode_gap(&Gap { stream: stream(at), why: Lost::TooLarge }, out));
}
