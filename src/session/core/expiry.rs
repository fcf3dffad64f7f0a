//! The end of a connection and of a session: will delay, session expiry.

use super::super::{Counter, Effect, Effects};
use super::aliases::AliasesOut;
use super::record;
use super::state::{Flight, Link, Purpose, Session, State, flag};
use crate::base::clock::Now;
use crate::base::ids::Seq;
use crate::base::message::Message;
use crate::limits::TICK;
use std::sync::Arc;

/// A message published when the connection ends otherwise than agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// As published, but for its times.
    pub message: Message,
    /// Seconds between the end of the connection and the publication.
    pub delay: u32,
    /// Seconds it lives after its publication.
    pub message_expiry: Option<u32>,
}

/// How a connection ended, for the will's sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Another connection of the device takes over; `continues`: it goes on with this session.
    TakenOver {
        /// Not with a clean start.
        continues: bool,
    },
    /// Anything else. A goodbye of the client is known to the session.
    Lost,
}

/// In [`Link::Offline`] time is counted in these.
pub(super) const TICK_MS: u64 = TICK.as_millis() as u64;

/// The tick from which an absence counts. Rounded up: nothing is over before its time.
pub(super) fn tick(monotonic_ms: u64) -> u32 {
    u32::try_from(monotonic_ms.div_ceil(TICK_MS)).unwrap_or(u32::MAX)
}

impl Session {
    /// Its connection is gone. Emits the will, `RecordDirty` or `End` as they are due; afterwards
    /// [`Session::offline_deadline`] says when to call [`Session::handle_timer`]. `shard_seq`: the highest seq up to
    /// which every entry has been offered to every session of this shard.
    pub fn on_connection_closed(&mut self, how: Close, now: Now, shard_seq: Seq, effects: &mut Effects) {
        if self.state == State::Offline || self.state == State::Ended {
            return;
        }
        self.link = Link::Offline { since_tick: tick(now.monotonic_ms) };
        self.state = State::Offline;
        self.positions.stand_at(shard_seq);
        self.set(flag::PAUSED_OPENING | flag::PAUSED_RECEIVE, false);
        if let Some(work) = self.work.as_mut() {
            work.pending.clear();
        }
        if let Some(extra) = self.extra.as_mut() {
            extra.aliases = Vec::new();
            extra.aliases_out = AliasesOut::default();
            extra.welcome = None;
            extra.packet_bytes_max = 0;
            (extra.by_method, extra.is_asking) = (false, false);
        }
        self.close_shares(effects);
        self.apply_will_rule(how, now, effects);
        if let Some(extra) = self.extra.as_mut().filter(|extra| extra.will.is_none()) {
            extra.rights = None;
        }
        if self.expiry == 0 {
            self.end(now, effects);
            return;
        }
        self.cursor_moved(effects);
        self.tidy(effects);
    }

    /// [MQTT-3.1.2-8], [MQTT-3.1.2-10], [MQTT-3.1.4-3]: a goodbye drops the will, a take-over that goes on cancels one
    /// with a delay, one without delay is published now.
    fn apply_will_rule(&mut self, how: Close, now: Now, effects: &mut Effects) {
        let Some(extra) = self.extra.as_mut() else { return };
        let Some(delay) = extra.will.as_ref().map(|will| will.delay) else { return };
        let cancelled = delay > 0 && self.expiry > 0 && how == Close::TakenOver { continues: true };
        if self.flags & flag::GOODBYE != 0 || cancelled {
            extra.will = None;
            self.set(flag::MAIN_DIRTY, true);
        } else if delay == 0 || how == (Close::TakenOver { continues: false }) {
            self.publish_will(now, effects);
        }
    }

    fn publish_will(&mut self, now: Now, effects: &mut Effects) {
        let Some(will) = self.extra.as_mut().and_then(|extra| extra.will.take()) else { return };
        self.set(flag::MAIN_DIRTY, true);
        let is_allowed = self.may_publish(&will.message.topic);
        if let Some(extra) = self.extra.as_mut() {
            extra.rights = None;
        }
        if !is_allowed {
            return effects.count(Counter::WillRefused);
        }
        let mut message = will.message;
        message.created_ms = now.wall_ms;
        message.expires_ms = will.message_expiry.map(|seconds| now.wall_ms + u64::from(seconds) * 1000);
        effects.push(Effect::Publish { message: Arc::new(message), receipt: None, records: Vec::new() });
    }

    fn due(&self) -> Option<(Option<u64>, u64)> {
        let Link::Offline { since_tick } = self.link else { return None };
        if self.state == State::Ended {
            return None;
        }
        let since = u64::from(since_tick) * TICK_MS;
        let will = self.extra.as_ref().and_then(|extra| extra.will.as_ref());
        let will_at = will.map(|will| since + u64::from(will.delay) * 1000);
        Some((will_at, since + u64::from(self.expiry) * 1000))
    }

    /// Monotonic milliseconds of the earlier of will delay and expiry; none while connected.
    pub fn offline_deadline(&self) -> Option<u64> {
        let (will_at, expires_at) = self.due()?;
        Some(will_at.map_or(expires_at, |at| at.min(expires_at)))
    }

    /// Publishes the will and ends the session as far as they are due.
    pub fn handle_timer(&mut self, now: Now, effects: &mut Effects) {
        let Some((will_at, expires_at)) = self.due() else { return };
        if now.monotonic_ms >= expires_at {
            self.end(now, effects);
        } else if will_at.is_some_and(|at| now.monotonic_ms >= at) {
            self.publish_will(now, effects);
            self.cursor_moved(effects);
            self.tidy(effects);
        }
    }

    /// Ends it now: its will if it is still owed, its subscriptions out of the router, its records, `End`. A
    /// connection must have been closed before.
    pub fn end(&mut self, now: Now, effects: &mut Effects) {
        assert!(self.connection().is_none(), "a session ends after its connection");
        if self.state == State::Ended {
            return;
        }
        let served = self.served();
        self.dismantle(now, effects);
        let mut records = Vec::new();
        record::removals(self, &mut records);
        self.state = State::Ended;
        effects.push(Effect::End { records, served });
    }

    /// The will that is still owed, and the subscriptions out of the router.
    pub(in crate::session) fn dismantle(&mut self, now: Now, effects: &mut Effects) {
        self.publish_will(now, effects);
        self.orphan_received(effects);
        self.return_shared(effects);
        // It has none from now on: whoever carries this out must not find them and keep what they share.
        for subscription in core::mem::take(&mut self.subscriptions).into_vec() {
            let effect = subscription.leave(self);
            effects.push(effect);
        }
    }
}

impl Session {
    /// Identifiers whose messages are still on their way are committed with them, after all others are removed.
    fn orphan_received(&self, effects: &mut Effects) {
        let received = self.extra.iter().flat_map(|extra| &extra.received);
        for held in received.filter(|held| !held.routed && self.has(flag::RECORDED)) {
            let (receipt, record) = (Purpose::Publish2.ticket(0, held.id), record::received(self, held.id, false));
            effects.push(Effect::Orphan { member: None, receipt, record });
        }
    }
}

impl Session {
    /// The new connection's part of the in-flight table: what was sent waits for this window, in its order.
    pub(in crate::session) fn queue_sent(&mut self) {
        let Some(work) = self.work.as_mut() else { return };
        for flight in work.window.iter_mut().filter(|flight| flight.state == Flight::Sent) {
            flight.state = Flight::Queued;
            work.queued += 1;
            work.sent -= 1;
        }
    }
}
