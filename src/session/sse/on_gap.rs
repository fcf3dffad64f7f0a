//! What a client is told of entries that it will not get: in the stream, or with a poll's answer.

use super::super::core::own_position::Missing;
use super::super::{Effects, LoggedAt, Protocol, Session, poll};
use super::send;
use crate::base::log::StreamGap;
use crate::base::message::StreamKey;
use crate::wire::sse::{Gap, Lost, Stream, encode_gap};

fn stream(at: LoggedAt) -> Stream {
    match at {
        LoggedAt::Inbox(_) => Stream::Inbox,
        LoggedAt::Topics(_) | LoggedAt::Retained(_) => Stream::Topics,
        LoggedAt::Shared { .. } => unreachable!("event streams are in no share group"),
    }
}

fn tell(session: &mut Session, gap: &Gap<'_>, effects: &mut Effects) {
    match session.protocol {
        Protocol::Poll => poll::on_gap(session, gap),
        _ => send(effects, |out| encode_gap(gap, out)),
    }
}

/// Entries are missing in the stream of `at`. None: retention removed some, and nobody knows whose.
pub fn on_gap(session: &mut Session, at: LoggedAt, missing: Option<Missing>, effects: &mut Effects) {
    let why = match missing {
        None => Lost::Trimmed(None),
        Some(Missing::Trimmed(first, entries)) => Lost::Trimmed(Some((first, entries))),
        Some(Missing::Unknown) => Lost::Unknown,
    };
    tell(session, &Gap { stream: stream(at), topic: None, why }, effects);
}

/// Retention removed entries of this topic, or of everyone; how many is not known.
pub fn on_topics_gap(session: &mut Session, gap: &StreamGap, effects: &mut Effects) {
    let (stream, topic) = match &gap.stream {
        StreamKey::Topic(_, topic) => (Stream::Topics, Some(&**topic)),
        StreamKey::Everyone(_) | StreamKey::Inbox(..) | StreamKey::Upstream(_) => (Stream::Everyone, None),
    };
    tell(session, &Gap { stream, topic, why: Lost::Trimmed(None) }, effects);
}

/// The entry at `at` is longer than what may wait for a connection.
pub fn on_too_large(session: &mut Session, at: LoggedAt, effects: &mut Effects) {
    tell(session, &Gap { stream: stream(at), topic: None, why: Lost::TooLarge }, effects);
}
