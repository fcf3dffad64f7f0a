//! Opening: what a new or returning connection does to the session.

use super::super::{DeliveryId, Effect, Effects};
use super::protocol::Protocol;
use super::record;
use super::state::{Flight, InFlight, Link, Session, State, flag};
use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Offset, Seq};
use crate::base::log::{RecordChange, StreamHead};

impl Session {
    /// Ties it to a connection.
    pub(in crate::session) fn attach(
        &mut self,
        connection: ConnectionId,
        protocol: Protocol,
        receive_maximum: u16,
        effects: &mut Effects,
    ) {
        assert!(self.state == State::Offline, "a session has one connection at a time");
        self.link = Link::online(connection);
        self.state = State::Opening;
        self.attachment = self.attachment.wrapping_add(1);
        let bound = effects.bounds.receive_maximum_out;
        self.window = u8::try_from(receive_maximum).map_or(bound, |asked| asked.min(bound));
        self.protocol = protocol;
        self.set(flag::GOODBYE | flag::TOPICS_HELD, false);
        let filters_pending = self.extra.as_ref().is_some_and(|extra| extra.filters.is_some());
        self.set(flag::PAUSED, false);
        self.set(flag::PAUSED_FILTERS, filters_pending);
        self.pause(flag::PAUSED_OPENING, true, effects);
        if filters_pending {
            effects.push(Effect::PauseReading);
        }
        self.resume_replay();
        self.queue_sent();
    }

    /// Where a returning session stands: everything since may be its.
    pub(in crate::session) fn catch_up(&mut self, shard_seq: Seq, inbox: Option<(Offset, StreamHead)>) {
        if !self.subscriptions.is_empty() {
            self.positions.topics_missed = self.positions.topics_missed.max(shard_seq);
        }
        if let Some((start, head)) = inbox {
            self.place_inbox(start, head);
        }
    }

    /// All up to this seq may be its: it was not there to be offered it.
    pub fn missed_up_to(&mut self, seq: Seq) {
        self.positions.topics_missed = self.positions.topics_missed.max(seq);
    }

    pub(in crate::session) fn place_inbox(&mut self, start: Offset, head: StreamHead) {
        if self.has(flag::INBOX_UNKNOWN) {
            self.set(flag::INBOX_UNKNOWN, false);
            self.positions.inbox_delivered = self.start_before_held(start);
            self.positions.inbox_epoch = head.epoch;
        }
        self.enter_epoch(head.epoch);
        self.positions.inbox_notified = self.positions.inbox_notified.max(head.last);
    }

    /// Whether its connection was told to close, with a reason.
    pub fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    /// Seconds it outlives its connection.
    pub fn expiry_seconds(&self) -> u32 {
        self.expiry
    }

    /// What must be committed before the greeting is answered; empty: nothing.
    pub(in crate::session) fn opening_records(&mut self, now: Now) -> Vec<RecordChange> {
        let mut records = Vec::new();
        if self.is_durable() {
            let resumes = self.has(flag::RECORDED);
            self.set(flag::RECORDED, true);
            records.push(record::main(self));
            self.main_recorded();
            if resumes {
                // It may say since when the session is away, and perhaps nothing else writes it again for long.
                records.push(record::cursor(self, now));
                self.has_cursor_record = true;
            }
        } else if self.has(flag::RECORDED) {
            record::removals(self, &mut records);
            self.set(flag::RECORDED, false);
            self.has_cursor_record = false;
            self.replay_unrecorded();
        }
        records
    }

    /// The greeting was answered: what is in flight goes out again in its order (`release` says PUBREL), then the log.
    pub(in crate::session) fn start(
        &mut self,
        effects: &mut Effects,
        mut release: impl FnMut(DeliveryId, &mut Effects),
    ) {
        self.state = State::Open;
        let window = usize::from(self.window);
        for index in 0..self.flights().len() {
            let Some(InFlight { delivery, state, .. }) = self.flights().nth(index) else { break };
            let delivery = *delivery;
            match state {
                Flight::Released => release(delivery, effects),
                Flight::Releasing => self.commit_release(delivery, effects),
                Flight::Committing => self.commit_flight(delivery, effects),
                Flight::Queued => {
                    let work = self.work.as_mut().expect("it has flights");
                    if work.sent < window {
                        work.window[index].state = Flight::Sent;
                        work.queued -= 1;
                        work.sent += 1;
                        effects.push(Effect::Deliver { delivery, dup: true });
                    }
                }
                // What is held goes out when what is read again gets to it.
                Flight::Sent | Flight::Held | Flight::Settled => {}
            }
        }
        self.pause(flag::PAUSED_OPENING, false, effects);
        self.open_shares(effects);
        self.refill(effects);
        self.tidy(effects);
    }
}
