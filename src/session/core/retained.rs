//! Retained messages for new subscriptions: not a queue but, for each filter, the topic up to which they were sent. The
//! next ones are read when the window has room, in the order of topics over all homes, so that one topic is a position.
//!
//! A delivery at QoS 1 or 2 to a session that outlives its connection is recorded before it is sent, in one batch with
//! the position behind it: so after a crash it is sent again under its identifier, and nothing before it is.
//!
//! While this goes on, live messages reach the session as well. Their topics are noted, for a retained message must not
//! come behind a newer live one.

use super::super::{Counter, Effect, Effects, GrantedFilter, Offer};
use super::deliver::is_expired;
use super::record;
use super::state::{LoggedAt, Session, State, Text};
use super::subscriptions::matches;
use super::window::Launched;
use crate::base::clock::Now;
use crate::base::ids::{Qos, Seq};
use crate::base::message::Message;
use crate::limits::{RETAINED_NOTES_MAX, RETAINED_PIECE_MESSAGES_MAX};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a session still has to be sent of what is retained.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct Replay {
    /// By filter, the first one under way. At most one a subscription.
    pub filters: VecDeque<Pending>,
    /// Topics of which live messages came meanwhile, each once.
    pub notes: VecDeque<Note>,
    /// A read is under way.
    pub reading: bool,
    /// What it finds may be older than a subscription that has been made since, so it is read again.
    pub is_outdated: bool,
    /// The store has a record of it.
    pub recorded: bool,
}

/// What is known of the live messages of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::session) struct Note {
    pub topic: Arc<str>,
    /// One came, or will, at QoS 1 or 2.
    pub in_order: bool,
    /// When the latest was made, in wall-clock milliseconds.
    pub created_ms: u64,
}

/// One filter's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::session) struct Pending {
    pub filter: Text,
    /// All topics up to this one are done; empty: none is.
    pub after: Arc<str>,
    /// It was begun on an earlier connection: what is sent at QoS 0 was lost with that.
    pub resumed: bool,
}

impl Replay {
    fn is_done(&self) -> bool {
        self.filters.is_empty() && !self.reading
    }
}

impl Session {
    /// Whether retained messages are still to be sent, so that live ones have to be told with [`Session::note_offer`].
    #[inline]
    pub fn is_replaying(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.replay.is_some())
    }

    /// A live message was offered to the session. If it has that, or will read it in the log, no older message of the topic
    /// may follow; if it was dropped, it has to come as the retained one. What waits in the shard's ring may still be
    /// either. False: the oldest note had to go for it.
    pub fn note_offer(&mut self, message: &Message, offer: Offer) -> bool {
        match offer {
            Offer::Behind if !self.will_read(message) => true,
            Offer::Send(_) | Offer::AfterCommit | Offer::Behind => self.note_live(message, message.qos),
            Offer::SendOnce => self.note_live(message, Qos::AtMostOnce),
            Offer::Skipped(_) => {
                self.lose_live(Some(&message.topic));
                true
            }
            Offer::Full | Offer::Passed => true,
        }
    }

    /// Whether a logged message that was not taken as it came is read later: not while none of its filters is in force at
    /// all homes, for what a filter is owed of the log begins then.
    pub fn will_read(&self, message: &Message) -> bool {
        self.effective_from(&message.topic, message.publisher, Seq(u64::MAX)).is_some()
    }

    /// A live message has come to the session at this effective QoS: an older retained one must not follow it. False:
    /// the oldest note had to go for it.
    pub fn note_live(&mut self, message: &Message, qos: Qos) -> bool {
        let (topic, created_ms, in_order) = (&message.topic, message.created_ms, qos > Qos::AtMostOnce);
        let Some(replay) = self.replay_mut() else { return true };
        let is_done = |pending: &Pending| **topic <= *pending.after || !matches(&pending.filter, topic);
        if replay.filters.iter().all(is_done) {
            return true;
        }
        if let Some(note) = replay.notes.iter_mut().find(|note| note.topic == *topic) {
            (note.in_order, note.created_ms) = (note.in_order || in_order, note.created_ms.max(created_ms));
            return true;
        }
        let is_full = replay.notes.len() >= RETAINED_NOTES_MAX;
        if is_full {
            replay.notes.pop_front();
        }
        replay.notes.push_back(Note { topic: Arc::clone(topic), in_order, created_ms });
        !is_full
    }

    /// A live message of this topic, or none may say of which, was dropped for the session: what is retained may be just
    /// that one, so no earlier live message speaks against it. A read under way may not have it yet.
    pub fn lose_live(&mut self, topic: Option<&str>) {
        let Some(replay) = self.replay_mut() else { return };
        let noted = replay.notes.len();
        replay.notes.retain(|note| topic.is_some_and(|topic| *note.topic != *topic));
        replay.is_outdated |= replay.reading && replay.notes.len() < noted;
    }

    fn replay_mut(&mut self) -> Option<&mut Replay> {
        self.extra.as_mut()?.replay.as_deref_mut()
    }

    /// Notes which granted filters want what is retained. Nothing is read before their SUBACK.
    pub(in crate::session) fn begin_replay(&mut self, granted: &[GrantedFilter]) {
        for wanted in granted.iter().filter(|wanted| wanted.retained) {
            let replay = self.extra().replay.get_or_insert_default();
            replay.is_outdated |= replay.reading;
            replay.filters.retain(|pending| pending.filter != wanted.filter);
            // What came before this subscription says nothing about what is retained for it.
            replay.notes.retain(|note| !matches(&wanted.filter, &note.topic));
            replay.filters.push_back(Pending { filter: wanted.filter.clone(), after: "".into(), resumed: false });
        }
    }

    /// Filters have gone: what was retained for them is not wanted any more.
    pub(in crate::session) fn narrow_replay(&mut self, effects: &mut Effects) {
        let Some(mut replay) = self.extra.as_mut().and_then(|extra| extra.replay.take()) else { return };
        let is_there = |pending: &Pending| self.subscriptions.iter().any(|known| known.text == pending.filter);
        replay.filters.retain(is_there);
        self.extra().replay = Some(replay);
        self.finish_replay(effects);
    }

    /// A new connection: what was to be sent at QoS 0 went with the old one.
    pub(in crate::session) fn resume_replay(&mut self) {
        let Some(mut replay) = self.extra.as_mut().and_then(|extra| extra.replay.take()) else { return };
        replay.filters.retain(|pending| self.retained_qos(&pending.filter) > Qos::AtMostOnce);
        replay.filters.iter_mut().for_each(|pending| pending.resumed = true);
        (replay.reading, replay.is_outdated) = (false, false);
        self.extra().replay = Some(replay);
    }

    /// The granted QoS of a filter it has.
    fn retained_qos(&self, filter: &str) -> Qos {
        let known = self.subscriptions.iter().find(|known| &*known.text == filter);
        known.map_or(Qos::AtMostOnce, |known| known.qos)
    }

    /// Asks for the next piece if there is room for it.
    pub(in crate::session) fn read_retained(&mut self, effects: &mut Effects) {
        let is_subscribing = self.extra.as_ref().is_some_and(|extra| extra.filters.is_some());
        if !self.is_replaying() || is_subscribing || self.state != State::Open || !self.has_room() {
            return;
        }
        let room = usize::from(self.window) - self.work.as_ref().map_or(0, |work| work.sent);
        let Some(replay) = self.replay_mut().filter(|replay| !replay.reading) else { return };
        let Some(Pending { filter, after, .. }) = replay.filters.front().cloned() else {
            return self.finish_replay(effects);
        };
        replay.reading = true;
        let limit = match self.retained_qos(&filter) {
            Qos::AtMostOnce => RETAINED_PIECE_MESSAGES_MAX,
            _ => room.min(RETAINED_PIECE_MESSAGES_MAX),
        };
        effects.push(Effect::ReadRetained { filter: Arc::clone(filter.shared()), after, limit });
    }

    /// Answers [`Effect::ReadRetained`] of this connection: messages in the order of topics, all there are up to the
    /// topic `through`, or to the last when there is none. What is not taken is read again.
    pub fn on_retained_read(
        &mut self,
        filter: &str,
        after: &str,
        messages: &[Arc<Message>],
        through: Option<&Arc<str>>,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(replay) = self.replay_mut() else { return };
        replay.reading = false;
        let is_outdated = core::mem::take(&mut replay.is_outdated);
        let is_it = |pending: &&Pending| !is_outdated && *pending.filter == *filter && *pending.after == *after;
        let Some(resumed) = replay.filters.front().filter(is_it).map(|pending| pending.resumed) else {
            return self.read_retained(effects);
        };
        if self.state != State::Open {
            return;
        }
        let all = messages.iter().all(|message| self.take_retained(filter, message, resumed, now, effects));
        let replay = self.replay_mut().expect("it goes on");
        match through {
            _ if !all => {}
            Some(through) => replay.filters.front_mut().expect("it goes on").after = Arc::clone(through),
            None => drop(replay.filters.pop_front()),
        }
        self.finish_replay(effects);
        self.read_retained(effects);
    }

    /// False: the window is full.
    fn take_retained(
        &mut self,
        filter: &str,
        message: &Arc<Message>,
        resumed: bool,
        now: Now,
        effects: &mut Effects,
    ) -> bool {
        let Some(subscription) = self.subscriptions.iter().find(|known| &*known.text == filter) else { return true };
        let qos = subscription.qos.min(message.qos);
        let (identifier, no_local) = (subscription.identifier, subscription.no_local);
        if qos > Qos::AtMostOnce && !self.has_room() {
            return false;
        }
        let is_own = no_local && message.publisher == Some(self.publisher());
        let replay = self.replay_mut().expect("the caller has it");
        replay.filters.front_mut().expect("the caller has it").after = Arc::clone(&message.topic);
        if is_own {
            return true;
        }
        let note = replay.notes.iter().find(|note| note.topic == message.topic);
        let is_overtaken = note.is_some_and(|note| note.in_order || note.created_ms > message.created_ms);
        // A newer one whose live copy does not come, for the subscription was not confirmed yet, is not overtaken.
        if is_overtaken || (note.is_some() && !self.drops_volatile(qos)) {
            effects.count(Counter::RetainedOvertaken);
        } else if is_expired(message, now) {
            effects.count(Counter::DroppedExpired);
        } else if qos > Qos::AtMostOnce {
            match self.launch(message, qos, Some(LoggedAt::Retained(identifier)), None, effects) {
                Launched { delivery, waits: false } => effects.push(Effect::Deliver { delivery, dup: false }),
                Launched { delivery, waits: true } => self.commit_flight(delivery, effects),
            }
        } else if !resumed {
            effects.push(Effect::DeliverRetained { message: Arc::clone(message), identifier });
        }
        true
    }

    /// Forgets it when all is sent and no read is under way, for the next one would not know that it is not its own. Its
    /// record goes with the next lazy write.
    fn finish_replay(&mut self, effects: &mut Effects) {
        let Some(replay) = self.replay_mut().filter(|replay| replay.is_done()) else { return };
        if replay.recorded {
            replay.notes.clear();
            return self.cursor_moved(effects);
        }
        self.extra().replay = None;
        self.tidy(effects);
    }

    /// The record of what is left, for a session that outlives its connection; none: there never was any.
    pub(in crate::session) fn record_replay(&mut self) -> Option<crate::base::log::RecordChange> {
        let replay = self.extra.as_ref()?.replay.as_deref()?;
        let left = || replay.filters.iter().filter(|pending| self.retained_qos(&pending.filter) > Qos::AtMostOnce);
        if !replay.recorded && left().next().is_none() {
            return None;
        }
        let record = record::replay(self, left());
        self.replay_mut()?.recorded = true;
        Some(record)
    }

    /// Its record goes with all others of a session that does not outlive its connection any more.
    pub(in crate::session) fn replay_unrecorded(&mut self) {
        if let Some(replay) = self.replay_mut() {
            replay.recorded = false;
        }
    }

    /// The removal of a record that has done its work.
    pub(in crate::session) fn forget_replay(&mut self) -> Option<crate::base::log::RecordChange> {
        let replay = self.replay_mut()?;
        if !replay.recorded || !replay.is_done() {
            return None;
        }
        self.extra().replay = None;
        Some(record::replay(self, std::iter::empty()))
    }
}
