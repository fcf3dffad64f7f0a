//! Clients that keep their own position: where they want to go on, and where they stand.
//!
//! Such a session ends with its connection and nothing of it is recorded. It is opened by one request that names all
//! its filters and a position; it is answered once interest is installed everywhere and it is known where its streams
//! go on. What it stands at is told with each message, and is worth as much as an acknowledgement when it comes back.

use super::super::DeliveryId;
use super::Flight;
use super::protocol::Protocol;
use super::state::{Session, Text};
use super::subscriptions::is_inbox;
use crate::base::ids::{Epoch, Offset, Qos, Seq};

/// What a session's filters amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnlyStream {
    /// One filter, of its user's inbox. What goes to everyone comes along, and has no position of its own here.
    Inbox,
    /// One filter without a wildcard.
    Topic,
    /// More than one stream, or a wildcard.
    Several,
}

/// Why a position cannot be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Retention removed so many entries from this offset on.
    Trimmed(Offset, u64),
    /// It is of another life, or of nothing we know.
    Unknown,
}

/// Where a session stands: all before it was handed to the socket, or passed for a counted reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// In its user's inbox.
    pub inbox: (Epoch, Offset),
    /// Over topics and everyone.
    pub topics: Seq,
}

/// What a session is opened with, until it is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct Streaming {
    pub filters: Vec<Text>,
    pub qos: Qos,
    /// The life of the log, and its last seq when the client asked.
    pub log: (Epoch, Seq),
    /// Where the client is in its inbox; none: it did not say.
    pub inbox: Option<(Epoch, Offset)>,
    /// Where it is over topics; none: from now on.
    pub topics: Option<Seq>,
    /// Where it is in the only topic (`Epoch(0)`: before its beginning); then where that goes on.
    pub topic: Option<(Epoch, Offset)>,
    pub is_installed: bool,
    pub inbox_missing: Option<Missing>,
    pub topics_missing: Option<Missing>,
    /// What is retained of its topics comes first.
    pub wants_retained: bool,
    /// The page that may read the answer.
    pub page: Option<Box<str>>,
    /// It wants one answer, and no stream.
    pub poll: Option<PollWish>,
}

/// What a poll asks for besides its streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollWish {
    /// How long it waits for something; 0: it is answered with what there is.
    pub timeout_ms: u32,
    /// Messages, at least 1.
    pub limit: u16,
}

/// The answer to a poll, as far as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct Polling {
    pub wish: PollWish,
    /// The life of the log.
    pub log: Epoch,
    /// How far its only topic is in the answer.
    pub place: Option<(Epoch, Offset)>,
    /// Encoded.
    pub events: Vec<u8>,
    pub count: u16,
    /// Encoded.
    pub gaps: Vec<u8>,
    /// Nothing more goes in: what comes is read again by the next poll.
    pub is_full: bool,
    /// The shard looks at it at the end of the turn.
    pub is_listed: bool,
    /// The page that may read it.
    pub page: Option<Box<str>>,
}

impl Session {
    /// What its filters amount to.
    pub fn only_stream(&self) -> OnlyStream {
        match self.subscriptions() {
            [only] => only_stream(&only.text),
            _ => OnlyStream::Several,
        }
    }

    /// Interest is everywhere, and what is logged after `own` is theirs; all up to `seq` they have not been offered.
    pub(in crate::session) fn begin_after(&mut self, own: Seq, seq: Seq) {
        for subscription in self.subscriptions.iter_mut() {
            subscription.since = own;
        }
        self.positions.topics_delivered = own;
        self.positions.topics_missed = self.positions.topics_missed.max(seq).max(own);
    }

    /// Where it stands once `handed` is with the socket as well.
    pub fn standing(&self, handed: Option<DeliveryId>) -> Standing {
        let is_open = |flight: &&super::InFlight| flight.state != Flight::Settled && Some(flight.delivery) != handed;
        let prefix = self.prefix_of(self.flights().filter(is_open));
        Standing { inbox: (self.positions.inbox_epoch, prefix.inbox), topics: prefix.topics }
    }

    /// The life of its inbox; `Epoch(0)`: it has never had a message.
    pub fn inbox_epoch(&self) -> Epoch {
        self.positions.inbox_epoch
    }

    /// The QoS at which it takes a logged message. A poll's answer may be full: what is logged keeps its place in the
    /// window until it is in it, also at QoS 0.
    pub(in crate::session) fn taking(&self, qos: Qos) -> Qos {
        if self.protocol == Protocol::Poll { qos.max(Qos::AtLeastOnce) } else { qos }
    }

    /// All up to `seq` has been offered to it: if it missed nothing, it stands there.
    pub fn stand_at(&mut self, seq: Seq) {
        self.positions.stand_at(seq);
    }
}

/// Of a session with this one filter.
pub(in crate::session) fn only_stream(filter: &str) -> OnlyStream {
    match filter {
        _ if is_inbox(filter) => OnlyStream::Inbox,
        _ if filter.contains(['+', '#']) => OnlyStream::Several,
        _ => OnlyStream::Topic,
    }
}
