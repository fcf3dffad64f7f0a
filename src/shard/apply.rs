//! Carrying out what sessions ask for, in their order.

use super::command::{CommandError, Receipt, What};
use super::gateway::{Core, Gateway};
use super::letter::{Origin, Publish, PublishOutcome};
use super::log_port::Waiting;
use crate::base::ids::{ConnectionId, SessionId};
use crate::engine::{Close, CloseCause, Room};
use crate::io::Driver;
use crate::session::{Effect, Effects, Session, Ticket, mqtt, protocol};
use crate::store::{Request, StoreError};

impl Gateway {
    /// Carries out the effects of a call on `session`, whose frames are for `connection`.
    pub(super) fn apply<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        session: Option<SessionId>,
        connection: Option<ConnectionId>,
        effects: &mut Effects,
    ) {
        let Effects { control, list, .. } = effects;
        // All inbox filters of a session share one place on the list of everyone, so it is left once.
        let mut everyone_left = None;
        let mut has_changed = false;
        for effect in list.drain(..) {
            match (effect, session) {
                (Effect::Frames(range), _) => self.write_control(core, connection, &control[range]),
                (Effect::Close(reason), _) => {
                    self.counters.closed(reason);
                    self.notice_close(session, reason, core.now());
                    if let Some(connection) = connection {
                        self.note_close(core, connection, reason);
                        self.hang_up(core, connection, reason);
                    }
                }
                (Effect::PauseReading, _) => connection.into_iter().for_each(|id| core.pause_reading(id)),
                (Effect::ResumeReading, _) => connection.into_iter().for_each(|id| core.resume_reading(id)),
                (Effect::Authenticate { token }, _) => {
                    if let Some(connection) = connection {
                        self.reauthenticate(core, connection, token);
                    }
                }
                (Effect::Unsubscribe { filter, position }, _) => {
                    has_changed = true;
                    self.unsubscribe(core, session, filter, position, &mut everyone_left);
                }
                (Effect::LeaveShare { share, member }, _) => {
                    self.subscription_ends(share.0);
                    let member = member.or(session).expect("whose it was is known");
                    self.leave_share(core, &share, member);
                }
                (Effect::Orphan { receipt, record, member }, _) => {
                    let member = member.or(session).expect("whose it was is known");
                    self.orphans.insert((member, receipt), record);
                }
                (Effect::Share { number, fate }, _) => self.tell_fate(core, number, fate),
                (effect, Some(session)) => self.apply_to(core, session, effect),
                (effect, None) => unreachable!("{effect:?} needs a session"),
            }
        }
        control.clear();
        if has_changed && let Some(session) = session {
            self.show(core, session);
        }
    }

    fn apply_to<D: Driver>(&mut self, core: &mut Core<D>, session: SessionId, effect: Effect) {
        match effect {
            Effect::Deliver { delivery, dup } => self.deliver_in_flight(core, session, delivery, dup),
            Effect::DeliverOnce { message, at, place } => {
                let is_handed = self.deliver_once(core, session, &message, place);
                self.settled_for(core, session, at, is_handed);
            }
            Effect::Ask { question, to } => self.ask(core, session, *question, to),
            Effect::Received { at, topic, refused } => self.on_received(core, session, at, topic, refused),
            Effect::Expired { at, topic } => {
                self.notice_receipt(session, Some(at), &topic, (Receipt::Expired, 1), core.now());
            }
            Effect::Gap(gap) => self.deliver_gap(core, session, &gap),
            Effect::Locate { topic, after } => self.locate(session, topic, after),
            Effect::Opened => self.opened(core, session),
            Effect::Publish { message, receipt, records } => {
                let origin =
                    receipt.map_or(Origin::Nobody, |receipt| Origin::Client { shard: self.shard, session, receipt });
                self.counters.published(message.qos, message.topic.len() + message.payload.len());
                if !self.paces(core, session, &message) {
                    return;
                }
                let upstream = self.upstream_of(session, &message, core.now());
                self.throttle_if_congested(core, session, &message);
                self.publish(core, Publish { message, origin, records, key: None, upstream, is_told: false });
            }
            Effect::Subscribe { ticket, filters } => {
                self.ask_for_inbox(session, &filters);
                if let Some(connection) = self.directory.get(session).and_then(|session| session.connection()) {
                    let count = u32::try_from(filters.len()).unwrap_or(u32::MAX);
                    self.note(core, connection, What::Subscribed(count));
                }
                let (slot, places) = self.subscribe(core, session, Some(ticket), &filters);
                let state = self.directory.get_mut(session).expect("it asked a moment ago");
                mqtt::on_subscribed(state, ticket, &places);
                self.subscribed(core, slot);
            }
            Effect::Commit { ticket, records } => {
                let request = Request::Append { key: None, entries: Vec::new(), records };
                self.log.submit(request, Waiting::Commit { session, ticket });
            }
            Effect::InboxLeft { served } => {
                if let Some(record) = self.directory.read_mark_moved(session, served) {
                    let request = Request::Append { key: None, entries: Vec::new(), records: vec![record] };
                    self.log.submit(request, Waiting::Nobody);
                }
            }
            Effect::RecordDirty => self.unwritten.push(session, core.now().monotonic_ms),
            Effect::ShareOpen { window } => self.open_shares(core, session, window),
            Effect::ReadRetained { filter, after, limit } => self.read_retained(core, session, filter, after, limit),
            Effect::DeliverRetained { message, identifier } => {
                self.deliver_retained(core, session, &message, identifier);
            }
            Effect::PullInbox { after, limit } => self.pull_inbox(session, after, limit),
            Effect::PullTopics { after, limit } => self.pull_topics(session, after, limit),
            Effect::End { mut records, served } => {
                records.extend(served.and_then(|served| self.directory.read_mark_moved(session, served)));
                self.offline.clear(session.index);
                self.unsent.forget(session.index);
                self.forget_slow(session);
                self.limiting.forget_session(session);
                self.reads.forget(session.index);
                self.gap_notes.forget(session.index);
                self.forget_lagging(session);
                self.directory.remove(session).expect("a session ends once");
                if !records.is_empty() {
                    let request = Request::Append { key: None, entries: Vec::new(), records };
                    self.log.submit(request, Waiting::Nobody);
                }
            }
            other => unreachable!("{other:?} was applied before"),
        }
    }

    /// Calls into a session and carries out what it asks for.
    pub(super) fn tell_session<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        call: impl FnOnce(&mut Session, &mut Effects),
    ) {
        let mut effects = self.take_effects();
        if let Some(session) = self.directory.get_mut(id) {
            let connection = session.connection();
            call(session, &mut effects);
            self.apply(core, Some(id), connection, &mut effects);
        }
        self.give_effects(effects);
    }

    fn write_control<D: Driver>(&mut self, core: &mut Core<D>, connection: Option<ConnectionId>, frames: &[u8]) {
        let Some(connection) = connection else { return };
        if core.write_bytes(connection, Room::Control, frames).is_err() {
            // It sends and does not read; its acknowledgements cannot be kept for ever.
            self.counters.closed(crate::session::CloseReason::SlowConsumer);
            core.close(connection, Close::Now, CloseCause::Local);
        }
    }

    /// A publish is on its way to a place that has no room: read no more from its publisher until it has.
    fn throttle_if_congested<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        session: SessionId,
        message: &crate::base::message::Message,
    ) {
        let home = self.homes.topic(message.app, &message.topic);
        if !self.is_log_congested() && !self.incoming.is_full() && !core.congested(home) {
            return;
        }
        if let Some(connection) = self.directory.get(session).and_then(Session::connection) {
            core.pause_reading(connection);
            self.counters.throttled += 1;
            self.note(core, connection, What::Throttled);
            self.throttled.push(connection);
        }
    }

    /// What became of a client's publish.
    pub(super) fn on_published<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        session: SessionId,
        receipt: Ticket,
        outcome: PublishOutcome,
    ) {
        let result = match outcome {
            PublishOutcome::Reached => Ok(true),
            PublishOutcome::NobodyListens => Ok(false),
            PublishOutcome::Failed(CommandError::RetainedFull | CommandError::TopicRate) => Err(StoreError::Busy),
            PublishOutcome::Failed(CommandError::OverQuota) => Err(StoreError::OverQuota),
            PublishOutcome::Failed(_) => Err(StoreError::Failed),
        };
        if self.directory.get(session).is_none() {
            return self.remove_orphan(session, receipt);
        }
        self.tell_session(core, session, |state, effects| mqtt::on_published(state, receipt, result, effects));
        self.catch_up(core, session);
    }

    /// A publish of a session that is over has been answered: what was committed with it is nobody's.
    fn remove_orphan(&mut self, session: SessionId, receipt: Ticket) {
        if let Some(record) = self.orphans.remove(&(session, receipt)) {
            let request = Request::Append { key: None, entries: Vec::new(), records: vec![record] };
            self.log.submit(request, Waiting::Nobody);
        }
    }

    /// Interest in a session's filters is installed at every home.
    pub(super) fn on_interest_installed<D: Driver>(&mut self, core: &mut Core<D>, session: SessionId, ticket: Ticket) {
        let seq = self.position();
        self.tell_session(core, session, |state, effects| protocol::on_interest_installed(state, ticket, seq, effects));
        self.show(core, session);
    }
}
