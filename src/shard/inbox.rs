//! A user's own stream, at the user's home: live deliveries and reads of what was missed.

use super::gateway::{Core, Gateway};
use super::lagging::Kept;
use super::log_port::Waiting;
use super::subscribe::is_inbox;
use crate::base::ids::{AppId, Offset, Qos, Seq, SessionId};
use crate::base::log::StreamGap;
use crate::base::message::{Entry, Message, StreamKey};
use crate::io::Driver;
use crate::limits::TICK;
use crate::session::core::record;
use crate::session::{Counter, GrantedFilter, LoggedAt, Offer, Session, protocol};
use crate::store::{Answer, Request, StoreError};
use std::sync::Arc;

impl Gateway {
    /// An unlogged push to a user who lives here; `tell` gets the devices whose outbox took it.
    pub(super) fn deliver_inbox<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        app: AppId,
        user: &str,
        message: &Arc<Message>,
        mut tell: Option<&mut Vec<Arc<str>>>,
    ) {
        let mut next = self.directory.sessions_of(app, user).next();
        while let Some(id) = next {
            next = self.directory.after(id);
            let session = self.directory.get(id).expect("the user's list holds live sessions");
            let is_meant = message.only_device.as_deref().is_none_or(|device| device == session.device());
            if is_meant && session.is_open() && session.effective(&message.topic, None).is_some() {
                let device: Option<Arc<str>> = tell.is_some().then(|| session.device().into());
                if self.deliver_once(core, id, message, None)
                    && let Some(tell) = &mut tell
                {
                    tell.extend(device);
                }
            }
        }
    }

    /// A committed entry of a user who lives here.
    pub(super) fn deliver_inbox_entry<D: Driver>(&mut self, core: &mut Core<D>, app: AppId, user: &str, entry: &Entry) {
        let mut next = self.directory.sessions_of(app, user).next();
        while let Some(id) = next {
            next = self.directory.after(id);
            let session = self.directory.get(id).expect("the user's list holds live sessions");
            let message = &entry.message;
            let is_meant = message.only_device.as_deref().is_none_or(|device| device == session.device());
            match session.effective(&message.topic, None).filter(|_| is_meant) {
                Some(effective) => {
                    let qos = effective.qos.min(message.qos);
                    self.offer_logged(core, id, LoggedAt::Inbox(entry.offset), entry, qos);
                }
                None => self.tell_session(core, id, |session, effects| {
                    session.pass_inbox(entry.offset, entry.epoch, effects);
                }),
            }
        }
    }

    fn offer_logged<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, at: LoggedAt, entry: &Entry, qos: Qos) {
        let mut effects = self.take_effects();
        let session = self.directory.get_mut(id).expect("it is looked at");
        let connection = session.connection();
        let place = (entry.epoch, entry.offset);
        match session.offer_logged(at, place, &entry.message, qos, &mut effects) {
            Offer::Send(delivery) => self.deliver_in_flight(core, id, delivery, false),
            Offer::SendOnce => {
                let is_handed = self.deliver_once(core, id, &entry.message, Some(place));
                self.settled_for(core, id, at, is_handed);
            }
            Offer::AfterCommit | Offer::Behind | Offer::Passed => {}
            Offer::Full => unreachable!("a logged message waits in the log"),
            Offer::Skipped(counter) => self.counters.session(counter),
        }
        self.apply(core, Some(id), connection, &mut effects);
        self.give_effects(effects);
    }

    /// Connected devices of a user who lives here.
    pub(super) fn online(&self, app: AppId, user: &str) -> u32 {
        let is_online = |id: &SessionId| self.directory.get(*id).is_some_and(|session| session.connection().is_some());
        let online = self.directory.sessions_of(app, user).filter(is_online).count();
        u32::try_from(online).expect("a user's devices are bounded")
    }

    /// A session subscribes to its inbox: it has to learn where that begins, which is the user's read mark.
    pub(super) fn ask_for_inbox(&mut self, id: SessionId, filters: &[GrantedFilter]) {
        if filters.iter().any(|filter| filter.replaces.is_none() && is_inbox(&filter.filter)) {
            self.ask_where_inbox_stands(id);
        }
    }

    /// A session asks for what it does not know of its inbox.
    pub(super) fn ask_about_inbox(&mut self, id: SessionId) {
        let Some(session) = self.directory.get(id) else { return };
        if session.wants_inbox_start() || session.wants_inbox_end() {
            self.ask_where_inbox_stands(id);
        }
    }

    /// A read for a session failed: it is tried again after a while.
    pub(super) fn read_again(&mut self, id: SessionId) {
        self.counters.failed_reads += 1;
        self.failed_reads.push(id);
    }

    /// Tries again what failed before.
    pub(super) fn retry_reads<D: Driver>(&mut self, core: &mut Core<D>) {
        let now_ms = core.now().monotonic_ms;
        if self.failed_reads.is_empty() || now_ms < self.retry_reads_ms {
            return;
        }
        self.retry_reads_ms = core.now().deadline(TICK);
        for id in std::mem::take(&mut self.failed_reads) {
            self.ask_about_inbox(id);
            self.locate_again(core, id);
            self.tell_session(core, id, Session::pull_again);
        }
    }

    /// What the user's other sessions have read meanwhile is written first, for the mark is written lazily.
    fn ask_where_inbox_stands(&mut self, id: SessionId) {
        let sessions: Vec<SessionId> = self.directory.sessions_beside(id).collect();
        self.write_read_marks(&sessions);
        let session = self.directory.get(id).expect("who asks is there");
        let (app, user): (_, Arc<str>) = (session.app(), session.user().into());
        let record = record::read_mark_key(app, &user);
        let request = Request::Standing { stream: StreamKey::Inbox(app, user), record };
        self.log.submit(request, Waiting::Inbox { session: id });
    }

    /// Writes how far a user's sessions have come, for whoever reads the mark behind it.
    pub(super) fn write_read_marks(&mut self, sessions: &[SessionId]) {
        let moved = |&id: &SessionId| {
            let served = self.directory.get(id)?.served()?;
            self.directory.read_mark_moved(id, served)
        };
        let records: Vec<_> = sessions.iter().filter_map(moved).collect();
        if !records.is_empty() {
            self.log.submit(Request::Append { key: None, entries: Vec::new(), records }, Waiting::Nobody);
        }
    }

    /// The user's read mark, and where the inbox stands. A mark of an earlier life of the inbox says nothing about this one.
    pub(super) fn on_inbox_standing<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        result: Result<Answer, StoreError>,
    ) {
        if self.directory.get(id).is_none() {
            return;
        }
        let Ok(Answer::Standing(head, value)) = result else { return self.read_again(id) };
        let mark = value.and_then(|value| record::parse_read_mark(&value)).unwrap_or_default();
        // Sessions that were away when the process began have not seen how far others had come.
        self.directory.learn_read_mark(id, mark);
        let start = if mark.0 == head.epoch { mark.1 } else { Offset(0) };
        self.tell_session(core, id, |session, effects| {
            protocol::on_inbox_known(session, start, head, effects);
        });
    }

    pub(super) fn pull_inbox(&mut self, id: SessionId, after: Offset, limit: usize) {
        let session = self.directory.get(id).expect("who asks is there");
        let stream = StreamKey::Inbox(session.app(), session.user().into());
        self.log.submit(Request::ReadStream { stream, after, limit }, Waiting::PullInbox { session: id });
    }

    /// Topics and everyone after a seq: from the hot ring when it reaches back that far, else from the store.
    pub(super) fn pull_topics(&mut self, id: SessionId, after: Seq, limit: usize) {
        let app = self.directory.get(id).map(Session::app).expect("who asks is there");
        if self.hot.after(after).is_some() {
            self.pulls.push_back((id, after));
        } else {
            self.log.submit(Request::ReadTopics { app, after, limit }, Waiting::PullTopics { session: id });
        }
    }

    /// Serves one read from the hot ring.
    pub(super) fn serve_pull<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, after: Seq) {
        let Some(batches) = self.hot.after(after).map(|batches| batches.cloned().collect::<Vec<_>>()) else {
            // The ring has moved on since.
            let Some(app) = self.directory.get(id).map(Session::app) else { return };
            let limit = crate::limits::READ_ENTRIES_MAX;
            return self.log.submit(Request::ReadTopics { app, after, limit }, Waiting::PullTopics { session: id });
        };
        let entries: Vec<Entry> = batches
            .iter()
            .flat_map(|batch| &batch.entries)
            .filter(|entry| entry.seq > after && entry.stream.topics_of().is_some())
            .take(crate::limits::READ_ENTRIES_MAX)
            .cloned()
            .collect();
        let through = if entries.len() < crate::limits::READ_ENTRIES_MAX {
            self.seq
        } else {
            entries.last().map_or(self.seq, |entry| entry.seq)
        };
        // What it holds it has whole, so there are no gaps.
        self.on_topics_read(core, id, &entries, &[], through);
    }

    /// Everything logged up to this seq has been offered to all it concerns.
    pub(super) fn position(&self) -> Seq {
        match self.passing.first() {
            Some(first) => Seq(first.0 - 1),
            None => self.offered,
        }
    }

    /// An unlogged message has to wait for a session.
    pub(super) fn lag(&mut self, id: SessionId, number: u64) {
        self.lagging.wait(id.index, number);
        self.count_lost(id);
    }

    /// Counts what overran the ring of unlogged messages before a session took it.
    fn count_lost(&mut self, id: SessionId) {
        let lost = self.lagging.take_lost();
        (0..lost).for_each(|_| self.counters.session(Counter::DroppedWindowFull));
        if let Some(session) = self.directory.get_mut(id).filter(|_| lost > 0) {
            session.lose_live(None);
        }
    }

    /// An unlogged message waits no longer for a session that has no use for it.
    pub(super) fn forget_lagging(&mut self, id: SessionId) {
        self.lagging.forget(id.index);
        self.count_lost(id);
    }

    /// A window may have opened, or logged messages were read: offer the unlogged ones that wait and are next. Logged
    /// ones that were on their way before them go first, and later ones are not read before they are gone.
    pub(super) fn catch_up<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        if !self.lagging.is_behind(id.index) {
            return;
        }
        while let Some(Kept { message, behind }) = self.lagging.next(id.index) {
            let Some(session) = self.directory.get_mut(id) else { return self.forget_lagging(id) };
            let log_is_next = session.is_behind_in_topics() && session.topics_delivered() < behind;
            session.hold_topics(!log_is_next);
            if log_is_next {
                if session.topics_delivered() >= self.readable() {
                    return self.stop_at(id, self.readable());
                }
                return self.tell_session(core, id, Session::pull_again);
            }
            let effective =
                (session.app() == message.app).then(|| session.effective(&message.topic, message.publisher));
            if let Some(effective) = effective.flatten() {
                let qos = effective.qos.min(message.qos);
                if self.offer_volatile(core, id, &message, qos) == Offer::Full {
                    return;
                }
            }
            self.lagging.advance(id.index);
        }
        self.count_lost(id);
        self.tell_session(core, id, |session, effects| {
            session.hold_topics(false);
            session.pull_again(effects);
        });
    }

    /// Uses the windows that were freed without a word of the client.
    pub(super) fn catch_up_freed<D: Driver>(&mut self, core: &mut Core<D>) {
        for id in std::mem::take(&mut self.freed) {
            self.catch_up(core, id);
        }
    }

    /// Logged messages up to this seq may be read: what is unlogged and comes before them has reached all it concerns.
    fn readable(&self) -> Seq {
        self.passing.first_unlogged().unwrap_or_else(|| self.offered.max(self.passing.newest()))
    }

    /// The session must not read beyond `readable` now, if there is anything for it.
    fn stop_at(&mut self, id: SessionId, readable: Seq) {
        let Some(session) = self.directory.get_mut(id) else { return };
        if session.misses_beyond(readable) {
            session.hold_topics(true);
            if self.held_reads.iter().all(|(other, _)| *other != id) {
                self.held_reads.push((id, readable));
            }
        }
    }

    /// Lets those read on whom an unlogged message on its way has stopped, once it is over.
    pub(super) fn read_on<D: Driver>(&mut self, core: &mut Core<D>) {
        if self.held_reads.first().is_none_or(|(_, at)| *at >= self.readable()) {
            return;
        }
        for (id, _) in std::mem::take(&mut self.held_reads) {
            self.tell_session(core, id, |session, effects| {
                session.hold_topics(false);
                session.pull_again(effects);
            });
            self.catch_up(core, id);
        }
    }

    /// Topics were read: not beyond an unlogged message that waits, or is on its way.
    pub(super) fn on_topics_read<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        entries: &[Entry],
        gaps: &[StreamGap],
        through: Seq,
    ) {
        let now = core.now();
        let readable = self.readable();
        let barrier = self.lagging.next(id.index).map_or(through, |first| through.min(first.behind)).min(readable);
        self.stop_at(id, readable);
        let entries = &entries[..entries.partition_point(|entry| entry.seq <= barrier)];
        self.tell_session(core, id, |session, effects| session.on_topics_pulled(entries, gaps, barrier, now, effects));
        self.catch_up(core, id);
    }

    /// Offers an unlogged message of QoS ≥ 1 and sends it if the window is open.
    pub(super) fn offer_volatile<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        qos: Qos,
    ) -> Offer {
        let mut effects = self.take_effects();
        let session = self.directory.get_mut(id).expect("it is looked at");
        let offer = session.offer_volatile(message, qos, &mut effects);
        self.note_live(id, message, offer);
        match offer {
            Offer::Send(delivery) => self.deliver_in_flight(core, id, delivery, false),
            Offer::SendOnce => drop(self.deliver_once(core, id, message, None)),
            Offer::Skipped(counter) => self.counters.session(counter),
            Offer::AfterCommit | Offer::Behind | Offer::Passed | Offer::Full => {}
        }
        let connection = self.directory.get(id).and_then(Session::connection);
        self.apply(core, Some(id), connection, &mut effects);
        self.give_effects(effects);
        offer
    }
}
