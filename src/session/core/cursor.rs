//! Positions: how far a session was served in its inbox and over its topics, and what of it is settled.

use super::state::{Flight, InFlight, LoggedAt, Session, flag};
use crate::base::ids::{Epoch, Offset, Seq};

/// How far a session was served. "Delivered" means handed to the window or skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct Positions {
    pub inbox_epoch: Epoch,
    pub inbox_delivered: Offset,
    /// The newest entry it was told of; behind while beyond `inbox_delivered`.
    pub inbox_notified: Offset,
    pub topics_delivered: Seq,
    /// The newest matching entry it could not take; caught up unless beyond `topics_delivered`.
    pub topics_missed: Seq,
}

impl Positions {
    pub fn is_behind_in_inbox(&self) -> bool {
        self.inbox_delivered < self.inbox_notified
    }

    pub fn is_behind_in_topics(&self) -> bool {
        self.topics_delivered < self.topics_missed
    }

    /// A stream that was created anew counts from 1 again.
    pub fn enter_epoch(&mut self, epoch: Epoch) {
        if self.inbox_epoch != epoch {
            if self.inbox_epoch != Epoch(0) {
                self.inbox_delivered = Offset(0);
                self.inbox_notified = Offset(0);
            }
            self.inbox_epoch = epoch;
        }
    }

    /// Who has missed nothing stands where the shard does.
    pub fn stand_at(&mut self, seq: Seq) {
        if !self.is_behind_in_topics() {
            self.topics_delivered = self.topics_delivered.max(seq);
            self.topics_missed = self.topics_delivered;
        }
    }
}

/// The settled prefix of both streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct Prefix {
    pub inbox: Offset,
    pub topics: Seq,
}

impl Prefix {
    pub fn covers(&self, at: LoggedAt) -> bool {
        match at {
            LoggedAt::Inbox(offset) => offset <= self.inbox,
            LoggedAt::Topics(seq) => seq <= self.topics,
            // It has no place in the log, so nothing waits for it.
            LoggedAt::Retained(_) | LoggedAt::Shared { .. } => true,
        }
    }
}

impl Session {
    /// What is settled without a hole. By the smallest unsettled position, not the first: after a restart the window
    /// holds identifiers that are further on than what is read again.
    pub(in crate::session) fn prefix(&self) -> Prefix {
        self.prefix_of(self.flights().filter(|flight| flight.state != Flight::Settled))
    }

    /// As if these were all that is unsettled.
    pub(in crate::session) fn prefix_of<'f>(&self, unsettled: impl Iterator<Item = &'f InFlight>) -> Prefix {
        let mut prefix = Prefix { inbox: self.positions.inbox_delivered, topics: self.positions.topics_delivered };
        for InFlight { at, .. } in unsettled {
            match at {
                Some(LoggedAt::Inbox(offset)) => prefix.inbox = prefix.inbox.min(Offset(offset.0 - 1)),
                Some(LoggedAt::Topics(seq)) => prefix.topics = prefix.topics.min(Seq(seq.0 - 1)),
                Some(LoggedAt::Retained(_) | LoggedAt::Shared { .. }) | None => {}
            }
        }
        prefix
    }

    /// The inbox offset up to which all is settled, and its epoch; for the user's read mark.
    pub fn inbox_settled(&self) -> (Epoch, Offset) {
        (self.positions.inbox_epoch, self.prefix().inbox)
    }

    /// Whether an inbox entry has left the session's hands: acknowledged, sent at QoS 0, or skipped.
    pub fn is_done_with(&self, epoch: Epoch, offset: Offset) -> bool {
        let is_waiting = |flight: &InFlight| {
            flight.at == Some(LoggedAt::Inbox(offset))
                && matches!(flight.state, Flight::Committing | Flight::Queued | Flight::Held | Flight::Sent)
        };
        let positions = &self.positions;
        positions.inbox_epoch == epoch && offset <= positions.inbox_delivered && !self.flights().any(is_waiting)
    }

    /// Up to where it has served its user's inbox; none when its filters do not cover the whole of it, when its client
    /// does not say what it has, or when it has not learned yet where the inbox and the user's read mark stand, which may
    /// be further on.
    pub fn served(&self) -> Option<(Epoch, Offset)> {
        let knows = self.protocol.acknowledges() && !self.has(flag::INBOX_UNKNOWN | flag::INBOX_STALE);
        (knows && self.covers_inbox()).then(|| self.inbox_settled())
    }

    /// Whether its filters cover the whole inbox, so that it moves the user's read mark.
    pub fn covers_inbox(&self) -> bool {
        self.subscriptions.iter().any(|subscription| &*subscription.text == "$inbox/#")
    }
}
