//! Owns: Server-Sent Events over the neutral session, a file per event.
//! In: a request for an event stream, store and router answers. Out: [`super::Effects`], the answer's head and notices.
//! Must not: know a socket, a clock, the engine or the router.
//! Invariants: the head leaves once interest is installed everywhere and it is known where each stream goes on; what
//! the client can come back with ([`crate::wire::sse::EventId`]) never passes a message that was not handed to the
//! socket.
//!
//! A client says nothing after its request, so it has its own position, and what was handed to the socket is settled
//! (`core/own_position`). The session ends with its connection; coming back is a new one that begins where the client
//! says. A session that its device had over another protocol is discarded, as by a clean start. A poll is opened and found
//! its place as a stream is; what it is answered with is its own (`session/poll.rs`).

mod on_closing;
mod on_gap;
mod on_installed;
mod on_located;
mod on_open;
mod request;
#[cfg(test)]
mod tests;

use super::core::own_position::PollWish;
use super::{Effect, Effects};
use crate::auth::Rights;
use crate::base::ids::Qos;
use crate::base::secret::Secret;
use crate::wire::sse::EventId;
use core::ops::Range;
use std::sync::Arc;

pub use on_closing::{disconnect, refuse};
pub use on_gap::{on_gap, on_too_large, on_topics_gap};
pub(in crate::session) use on_installed::go_on;
pub use on_installed::{on_inbox_known, on_interest_installed};
pub use on_located::{locate_again, on_located};
pub use on_open::{on_committed, open};
pub use request::{read, read_poll};

/// The position that a request gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// None: the inbox from the user's read mark, topics from now on.
    Nothing,
    /// One of ours.
    Position(EventId),
    /// A text that we never wrote.
    Unreadable,
}

/// A request for an event stream or a poll, owned, so that it can move to the user's home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsRequest {
    /// User, in mode `none`.
    pub user: Option<Box<str>>,
    /// Empty: the shard draws a unique one and puts it here.
    pub device: Box<str>,
    /// Valid, each once.
    pub filters: Vec<Box<str>>,
    /// Of all its subscriptions: 0 or 1.
    pub qos: Qos,
    /// Payloads alone, without their envelope.
    pub raw: bool,
    /// Where it wants to go on.
    pub given: Given,
    /// The page that asked, and was let in.
    pub page: Option<Box<str>>,
    /// It wants one answer, and no stream.
    pub poll: Option<PollWish>,
    /// What it shows; the shard puts it here.
    pub token: Option<Secret>,
    /// What its client may do, likewise. None: everything that clients may at all.
    pub rights: Option<Arc<Rights>>,
}

/// Neighbouring frames become one range, and so one copy into the outbox.
pub(in crate::session) fn send(effects: &mut Effects, encode: impl FnOnce(&mut Vec<u8>)) {
    let start = effects.control.len();
    encode(&mut effects.control);
    let end = effects.control.len();
    match effects.list.last_mut() {
        Some(Effect::Frames(Range { end: last, .. })) if *last == start => *last = end,
        _ => effects.push(Effect::Frames(start..end)),
    }
}
