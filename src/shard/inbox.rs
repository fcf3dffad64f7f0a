//! A user's own stream, at the user's home: live deliveries and reads of what was missed.

use super::gateway::{Core, Gateway};
use super::log_port::Waiting;
use super::subscribe::is_inbox;
use crate::base::ids::{AppId, Epoch, Offset, Qos, Seq, SessionId};
use crate::base::message::{Entry, Message, StreamKey};
use crate::io::Driver;
use crate::limits::TICK;
use crate::session::core::record;
use crate::session::{Counter, GrantedFilter, LoggedAt, Offer, Session, mqtt};
use crate::store::{Answer, Request, StoreError};
use std::sync::Arc;

impl Gateway {
    /// An unlogged push to a user who lives here.
    pub(super) fn deliver_inbox<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        app: AppId,
        user: &str,
        message: &Arc<Message>,
    ) {
        let mut next = self.directory.sessions_of(app, user).next();
        while let Some(id) = next {
            next = self.directory.after(id);
            let session = self.directory.get(id).expect("the user's list holds live sessions");
            let is_meant = message.only_device.as_deref().is_none_or(|device| device == session.device());
            if is_meant && session.is_open() && session.effective(&message.topic, None).is_some() {
                self.deliver_once(core, id, message);
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
        match session.offer_logged(at, entry.epoch, &entry.message, qos, &mut effects) {
            Offer::Send(delivery) => self.deliver_in_flight(core, id, delivery, false),
            Offer::SendOnce => self.deliver_once(core, id, &entry.message),
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
            self.ask_for_read_mark(id);
        }
    }

    /// A session asks for what it does not know of its inbox.
    pub(super) fn ask_about_inbox(&mut self, id: SessionId) {
        let Some(session) = self.directory.get(id) else { return };
        if session.wants_inbox_start() {
            self.ask_for_read_mark(id);
        } else if session.wants_inbox_end() {
            let stream = StreamKey::Inbox(session.app(), session.user().into());
            self.log.submit(Request::Head { stream }, Waiting::InboxHead { session: id, mark: Default::default() });
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
            self.tell_session(core, id, Session::pull_again);
        }
    }

    fn ask_for_read_mark(&mut self, id: SessionId) {
        let session = self.directory.get(id).expect("who asks is there");
        let prefix = record::read_mark_key(session.app(), session.user());
        let request = Request::ReadRecords { prefix, after: Box::default(), limit: 1 };
        self.log.submit(request, Waiting::ReadMark { session: id });
    }

    /// The user's read mark; now where the inbox stands.
    pub(super) fn on_read_mark(&mut self, id: SessionId, result: Result<Answer, StoreError>) {
        let Some(session) = self.directory.get(id) else { return };
        let Ok(Answer::Records(records)) = result else { return self.read_again(id) };
        let mark = records.first().and_then(|(_, value)| record::parse_read_mark(value)).unwrap_or_default();
        let stream = StreamKey::Inbox(session.app(), session.user().into());
        self.log.submit(Request::Head { stream }, Waiting::InboxHead { session: id, mark });
    }

    /// Where the inbox stands. A mark of an earlier life of the inbox says nothing about this one.
    pub(super) fn on_inbox_head<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        mark: (Epoch, Offset),
        result: Result<Answer, StoreError>,
    ) {
        let Ok(Answer::Head(head)) = result else { return self.read_again(id) };
        let start = if mark.0 == head.epoch { mark.1 } else { Offset(0) };
        self.tell_session(core, id, |session, effects| {
            session.on_inbox_known(start, head, effects);
            mqtt::on_inbox_known(session, effects);
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
        let now = core.now();
        let Some(batches) = self.hot.after(after).map(|batches| batches.cloned().collect::<Vec<_>>()) else {
            // The ring has moved on since.
            let Some(app) = self.directory.get(id).map(Session::app) else { return };
            let limit = crate::limits::READ_ENTRIES_MAX;
            return self.log.submit(Request::ReadTopics { app, after, limit }, Waiting::PullTopics { session: id });
        };
        let entries: Vec<Entry> = batches
            .iter()
            .flat_map(|batch| &batch.entries)
            .filter(|entry| entry.seq > after && !matches!(entry.stream, StreamKey::Inbox(..)))
            .take(crate::limits::READ_ENTRIES_MAX)
            .cloned()
            .collect();
        let through = if entries.len() < crate::limits::READ_ENTRIES_MAX {
            self.seq
        } else {
            entries.last().map_or(self.seq, |entry| entry.seq)
        };
        self.tell_session(core, id, |session, effects| session.on_topics_pulled(&entries, through, now, effects));
    }

    /// Everything logged up to this seq has been offered to all it concerns.
    pub(super) fn position(&self) -> Seq {
        match self.passing.first() {
            Some(first) => Seq(first.0 - 1),
            None => self.offered,
        }
    }

    /// A window may have opened: offer what waits for it.
    pub(super) fn catch_up<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        if !self.lagging.is_behind(id.index) {
            return;
        }
        while let Some((number, message)) = self.lagging.next(id.index) {
            let Some(session) = self.directory.get(id) else { return self.lagging.forget(id.index) };
            let effective =
                (session.app() == message.app).then(|| session.effective(&message.topic, message.publisher));
            if let Some(effective) = effective.flatten() {
                let qos = effective.qos.min(message.qos);
                if self.offer_volatile(core, id, &message, qos) == Offer::Full {
                    return;
                }
            }
            self.lagging.advance(id.index, number);
        }
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
        match offer {
            Offer::Send(delivery) => self.deliver_in_flight(core, id, delivery, false),
            Offer::SendOnce => self.deliver_once(core, id, message),
            Offer::Skipped(counter) => self.counters.session(counter),
            Offer::AfterCommit | Offer::Behind | Offer::Passed | Offer::Full => {}
        }
        let connection = self.directory.get(id).and_then(Session::connection);
        self.apply(core, Some(id), connection, &mut effects);
        self.give_effects(effects);
        offer
    }

    /// Counts a message that overran the ring for those who had not read it.
    pub(super) fn drop_lagging(&mut self, message: Arc<Message>) -> u64 {
        let Self { lagging, directory, counters, .. } = self;
        lagging.push(message, |gone, behind| {
            for index in behind {
                let session = directory.id_at(index).and_then(|id| directory.get(id));
                let meant =
                    session.is_some_and(|s| s.app() == gone.app && s.effective(&gone.topic, gone.publisher).is_some());
                if meant {
                    counters.session(Counter::DroppedWindowFull);
                }
            }
        })
    }
}
