//! Delivery: live offers while caught up, pulls from the log when not.

use super::super::{Counter, DeliveryId, Effect, Effects};
use super::record;
use super::state::{InFlight, LoggedAt, Offer, Purpose, Session, State, flag};
use super::window::Launched;
use crate::base::clock::Now;
use crate::base::ids::{Epoch, Offset, Qos, Seq};
use crate::base::log::{StreamGap, StreamHead};
use crate::base::message::{Entry, Message, StreamKey};
use crate::limits::READ_ENTRIES_MAX;
use std::sync::Arc;

impl Session {
    /// Offers a message that is in no log, at the effective QoS.
    pub fn offer_volatile(&mut self, message: &Arc<Message>, qos: Qos, effects: &mut Effects) -> Offer {
        if self.state != State::Open {
            return Offer::Skipped(Counter::DroppedOffline);
        }
        if qos == Qos::AtMostOnce {
            return Offer::SendOnce;
        }
        if self.drops_volatile(qos) {
            return Offer::Skipped(Counter::DroppedUnconfirmed);
        }
        if !self.has_room() {
            return Offer::Full;
        }
        match self.launch(message, qos, None, None, effects) {
            Launched { delivery, waits: false } => Offer::Send(delivery),
            Launched { waits: true, .. } => Offer::AfterCommit,
        }
    }

    /// Whether so many messages that are in no log can be sent to it at once at a QoS above 0, with nothing to wait for.
    pub fn takes_volatile(&self, qos: Qos, count: usize) -> bool {
        let waits = self.drops_volatile(qos) || self.is_durable() && self.is_committing();
        self.state == State::Open && self.protocol.acknowledges() && !waits && self.has_room_for(count)
    }

    /// Whether a message that is not logged is dropped at this QoS: all that is owed a session that lasts is logged, so
    /// its subscription is not confirmed yet, and without a record the identifier would be forgotten in a crash, but not
    /// by the client.
    pub fn drops_volatile(&self, qos: Qos) -> bool {
        qos == Qos::ExactlyOnce && self.is_durable()
    }

    /// Offers a committed message, at the effective QoS; `place` is where its stream has it. Each session gets each
    /// matching entry once, in order; what it cannot take now it pulls later.
    pub fn offer_logged(
        &mut self,
        at: LoggedAt,
        place: (Epoch, Offset),
        message: &Arc<Message>,
        qos: Qos,
        effects: &mut Effects,
    ) -> Offer {
        let qos = self.taking(qos);
        let ready = self.state == State::Open && self.has_room();
        match at {
            LoggedAt::Inbox(offset) => {
                self.enter_epoch(place.0);
                let positions = &mut self.positions;
                if offset <= positions.inbox_delivered {
                    return Offer::Passed;
                }
                let next = offset.0 == positions.inbox_delivered.0 + 1;
                positions.inbox_notified = positions.inbox_notified.max(offset);
                if !ready || !next || self.has(flag::INBOX_UNKNOWN) {
                    self.refill(effects);
                    return Offer::Behind;
                }
                self.positions.inbox_delivered = offset;
                if message.only_device.as_deref().is_some_and(|device| device != self.device()) {
                    self.cursor_moved(effects);
                    return Offer::Passed;
                }
            }
            LoggedAt::Topics(seq) => {
                let behind = self.positions.is_behind_in_topics();
                let positions = &mut self.positions;
                if seq <= positions.topics_delivered {
                    return Offer::Passed;
                }
                if behind || !ready {
                    if !behind {
                        // All that matched before this one was delivered, so the pull need not look there.
                        positions.topics_delivered = Seq(seq.0 - 1);
                    }
                    // Passes of other topics may have told of later ones already.
                    positions.topics_missed = positions.topics_missed.max(seq);
                    self.refill(effects);
                    return Offer::Behind;
                }
                positions.topics_delivered = seq;
                positions.topics_missed = seq;
            }
            LoggedAt::Retained(_) | LoggedAt::Shared { .. } => unreachable!("they are not offered by their place"),
        }
        self.take(at, place, message, qos, effects)
    }

    /// Tells of a committed inbox entry that matches none of the session's filters.
    pub fn pass_inbox(&mut self, offset: Offset, epoch: Epoch, effects: &mut Effects) {
        self.enter_epoch(epoch);
        let positions = &mut self.positions;
        let next = offset.0 == positions.inbox_delivered.0 + 1;
        positions.inbox_notified = positions.inbox_notified.max(offset);
        if next && self.has(flag::HAS_INBOX) && !self.has(flag::INBOX_UNKNOWN) {
            self.positions.inbox_delivered = offset;
            self.cursor_moved(effects);
        }
    }

    /// Tells how far the inbox goes (after a missed notice, say): it is pulled as the window allows.
    pub fn notify_inbox(&mut self, head: StreamHead, effects: &mut Effects) {
        self.enter_epoch(head.epoch);
        self.positions.inbox_notified = self.positions.inbox_notified.max(head.last);
        self.refill(effects);
    }

    /// Tells of an entry that it will have to pull, because an earlier one that may be its is still under way to it.
    /// All up to `position` it has been offered.
    pub fn miss_topics(&mut self, seq: Seq, position: Seq, effects: &mut Effects) {
        self.positions.stand_at(position);
        self.notify_topics(seq, effects);
    }

    /// Tells that topic entries up to `seq` may have been missed: they are pulled as the window allows.
    pub fn notify_topics(&mut self, seq: Seq, effects: &mut Effects) {
        self.positions.topics_missed = self.positions.topics_missed.max(seq);
        self.refill(effects);
    }

    /// Tells where the inbox begins for a session opened without that knowledge: `start` is the user's read mark.
    pub fn on_inbox_known(&mut self, start: Offset, head: StreamHead, effects: &mut Effects) {
        self.set(flag::INBOX_STALE, false);
        if self.has(flag::INBOX_UNKNOWN) {
            self.set(flag::INBOX_UNKNOWN, false);
            let notified = self.positions.inbox_notified;
            self.positions.inbox_epoch = head.epoch;
            self.positions.inbox_delivered = self.start_before_held(start);
            self.positions.inbox_notified = notified.max(head.last);
            self.cursor_moved(effects);
        }
        self.notify_inbox(head, effects);
    }

    fn take(
        &mut self,
        at: LoggedAt,
        place: (Epoch, Offset),
        message: &Arc<Message>,
        qos: Qos,
        effects: &mut Effects,
    ) -> Offer {
        if qos == Qos::AtMostOnce {
            self.cursor_moved(effects);
            return Offer::SendOnce;
        }
        match self.launch(message, qos, Some(at), Some(place), effects) {
            Launched { delivery, waits: false } => Offer::Send(delivery),
            Launched { delivery, waits: true } => {
                self.commit_flight(delivery, effects);
                Offer::AfterCommit
            }
        }
    }

    /// Durable point (1), for a flight that has to wait for it.
    pub(in crate::session) fn commit_flight(&mut self, delivery: DeliveryId, effects: &mut Effects) {
        let Some(flight) = self.in_flight(delivery) else { return };
        if flight.state != super::Flight::Committing || !flight.is_recorded() {
            return;
        }
        let is_retained = matches!(flight.at, Some(LoggedAt::Retained(_)));
        if flight.is_shared() {
            return self.commit_shared(delivery, effects);
        }
        let mut records = vec![record::flight(self, flight)];
        if is_retained {
            // The position behind it goes along: what is recorded as in flight is not read again.
            records.extend(self.record_replay());
        }
        self.set(flag::RECORDED, true);
        effects.push(Effect::Commit { ticket: Purpose::Flight.ticket(0, delivery.0), records });
    }

    /// Uses the window's room: first what an earlier connection left, then the log.
    pub(in crate::session) fn refill(&mut self, effects: &mut Effects) {
        if self.state != State::Open {
            return;
        }
        if !self.has(flag::HAS_INBOX) {
            self.queue_held_inbox();
        }
        self.send_queued(effects);
        self.read_retained(effects);
        self.ask_for_shares(effects);
        if self.has(flag::PULLING) || !self.has_room() {
            return;
        }
        let inbox = self.positions.is_behind_in_inbox() && self.has(flag::HAS_INBOX) && !self.has(flag::INBOX_UNKNOWN);
        let topics = self.is_behind_in_topics() && !self.has(flag::TOPICS_HELD);
        if inbox && (!topics || self.has(flag::PULLED_TOPICS)) {
            self.set(flag::PULLED_TOPICS, false);
            self.set(flag::PULLING, true);
            let room = usize::from(self.window) - self.work.as_ref().map_or(0, |work| work.sent);
            let limit = room.min(READ_ENTRIES_MAX);
            effects.push(Effect::PullInbox { after: self.positions.inbox_delivered, limit });
        } else if topics {
            self.set(flag::PULLED_TOPICS | flag::PULLING, true);
            // Most entries of an app are not this session's, so a pull is not cut to the window.
            effects.push(Effect::PullTopics { after: self.positions.topics_delivered, limit: READ_ENTRIES_MAX });
        }
    }

    /// Answers [`Effect::PullInbox`].
    pub fn on_inbox_pulled(&mut self, head: StreamHead, entries: &[Entry], now: Now, effects: &mut Effects) {
        self.set(flag::PULLING, false);
        if self.state != State::Open {
            return;
        }
        let epoch_before = self.positions.inbox_epoch;
        self.enter_epoch(head.epoch);
        if epoch_before != Epoch(0) && epoch_before != head.epoch {
            self.notify_inbox(head, effects);
            return;
        }
        self.positions.inbox_notified = self.positions.inbox_notified.max(head.last);
        let mut taken = self.pass_inbox_gap(head.first, effects);
        for entry in entries.iter().filter(|entry| entry.epoch == head.epoch) {
            if entry.offset <= self.positions.inbox_delivered {
                continue;
            }
            let at = LoggedAt::Inbox(entry.offset);
            taken = taken && self.send_held(at, effects) && self.take_pulled(at, entry, now, effects);
            if !taken {
                break;
            }
            self.positions.inbox_delivered = entry.offset;
        }
        if taken && entries.is_empty() && self.send_held(LoggedAt::Inbox(head.last), effects) {
            self.positions.inbox_delivered = self.positions.inbox_delivered.max(head.last);
        }
        self.cursor_moved(effects);
        self.refill(effects);
    }

    /// Answers [`Effect::PullTopics`]: what there is up to `through`, and which streams have lost what by it.
    pub fn on_topics_pulled(
        &mut self,
        entries: &[Entry],
        gaps: &[StreamGap],
        through: Seq,
        now: Now,
        effects: &mut Effects,
    ) {
        self.set(flag::PULLING, false);
        if self.state != State::Open {
            return;
        }
        let mut gaps = gaps;
        let mut taken = true;
        for entry in entries {
            if entry.seq <= self.positions.topics_delivered {
                continue;
            }
            let at = LoggedAt::Topics(entry.seq);
            taken = self.pass_topics_gaps(&mut gaps, entry.seq, effects)
                && self.send_held(at, effects)
                && self.take_pulled(at, entry, now, effects);
            if !taken {
                break;
            }
            self.positions.topics_delivered = entry.seq;
        }
        if taken
            && self.pass_topics_gaps(&mut gaps, through, effects)
            && self.send_held(LoggedAt::Topics(through), effects)
        {
            self.positions.topics_delivered = self.positions.topics_delivered.max(through);
        }
        self.cursor_moved(effects);
        self.refill(effects);
    }

    /// Whether anything waits in the log for its window to open.
    pub fn is_behind(&self) -> bool {
        self.is_behind_in_topics() || (self.has(flag::HAS_INBOX) && self.positions.is_behind_in_inbox())
    }

    /// Entries of the inbox that it was told of and has not been handed.
    pub fn inbox_lag(&self) -> u64 {
        let (delivered, notified) = (self.positions.inbox_delivered, self.positions.inbox_notified);
        if self.has(flag::HAS_INBOX) { notified.0.saturating_sub(delivered.0) } else { 0 }
    }

    /// How far the newest topic entry that it has not been handed is ahead, in commit numbers, which count other apps' as
    /// well.
    pub fn topics_lag(&self) -> u64 {
        self.positions.topics_missed.0.saturating_sub(self.positions.topics_delivered.0)
    }

    /// Whether there are topic entries for it that it has not been handed.
    pub fn is_behind_in_topics(&self) -> bool {
        self.positions.is_behind_in_topics()
    }

    /// The seq up to which it was handed what is its of the topics.
    pub fn topics_delivered(&self) -> Seq {
        self.positions.topics_delivered
    }

    /// Whether it was told of topic entries beyond `seq` that it has not been handed.
    pub fn misses_beyond(&self, seq: Seq) -> bool {
        self.is_behind_in_topics() && self.positions.topics_missed > seq
    }

    /// Whether topics must not be read on, because an unlogged message that waits at the shard comes first.
    pub fn hold_topics(&mut self, hold: bool) {
        self.set(flag::TOPICS_HELD, hold);
    }

    /// A pull failed; the shard calls [`Session::pull_again`] after a while.
    pub fn on_pull_failed(&mut self) {
        self.set(flag::PULLING, false);
    }

    /// Tries again what failed.
    pub fn pull_again(&mut self, effects: &mut Effects) {
        self.refill(effects);
    }

    /// False: the window is full, the entry is pulled again.
    fn take_pulled(&mut self, at: LoggedAt, entry: &Entry, now: Now, effects: &mut Effects) -> bool {
        let message = &entry.message;
        if self.holds(at) || message.only_device.as_deref().is_some_and(|device| device != self.device()) {
            return true;
        }
        // What waits in an inbox is for whoever subscribes to it, whenever that was.
        let since = if matches!(entry.stream, StreamKey::Inbox(..)) { Seq(0) } else { entry.seq };
        let Some(effective) = self.effective_from(&message.topic, message.publisher, since) else { return true };
        if is_expired(message, now) {
            effects.count(Counter::DroppedExpired);
            if effects.tells_received && effective.qos.min(message.qos) > Qos::AtMostOnce {
                effects.push(Effect::Expired { at, topic: Arc::clone(&message.topic) });
            }
            return true;
        }
        let qos = self.taking(effective.qos.min(message.qos));
        if qos > Qos::AtMostOnce && !self.has_room() {
            return false;
        }
        if !self.note_live(message, qos) {
            effects.count(Counter::RetainedUnnoted);
        }
        let place = (entry.epoch, entry.offset);
        if qos == Qos::AtMostOnce {
            effects.push(Effect::DeliverOnce { message: Arc::clone(message), at, place: Some(place) });
            return true;
        }
        if let Offer::Send(delivery) = self.take(at, place, message, qos, effects) {
            effects.push(Effect::Deliver { delivery, dup: false });
        }
        true
    }

    /// Sends again what an earlier connection left, as the window allows.
    pub(in crate::session) fn send_queued(&mut self, effects: &mut Effects) {
        let window = usize::from(self.window);
        let Some(work) = self.work.as_mut() else { return };
        if work.queued == 0 {
            return;
        }
        for InFlight { delivery, state, .. } in &mut work.window {
            if work.sent >= window || work.queued == 0 {
                break;
            }
            if *state == super::Flight::Queued {
                *state = super::Flight::Sent;
                work.queued -= 1;
                work.sent += 1;
                effects.push(Effect::Deliver { delivery: *delivery, dup: true });
            }
        }
    }

    pub(in crate::session) fn cursor_moved(&mut self, effects: &mut Effects) {
        if !self.is_durable() {
            return;
        }
        self.set(flag::CURSOR_DIRTY, true);
        if !self.has(flag::FILED) {
            self.set(flag::FILED, true);
            effects.push(Effect::RecordDirty);
        }
    }
}

/// Whether a message's time is over.
pub(in crate::session) fn is_expired(message: &Message, now: Now) -> bool {
    message.expires_ms.is_some_and(|at| at <= now.wall_ms)
}
